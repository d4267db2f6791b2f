//! Connects that do not get there: refused inside the call, and hanging.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, connect, listen, socket};
use nix::sys::socket::{Backlog, getsockname};
use socklife_tests::daemon::Daemon;
use socklife_tests::look::{conserved, counts, endpoint, nothing_lost};
use socklife_tests::program::until;
use socklife_tests::sandbox::Sandbox;

fn nonblocking() -> Result<OwnedFd> {
    Ok(socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)?)
}

#[test]
fn a_connect_without_a_route_is_a_failed_one() -> Result<()> {
    const NOWHERE: &str = "192.0.2.1:5432";
    let sandbox = Sandbox::enter()?;
    let daemon = Daemon::start(&sandbox, &[])?;
    let mut tail = daemon.tail(&["--events"])?;
    // The stream's first line follows the first event: try until it shows.
    let address: SocketAddr = NOWHERE.parse()?;
    let mut tried = 0;
    let line = until("the failed connect is told", || {
        tried += 1;
        let error = TcpStream::connect(address).err().context("there must be no route")?;
        ensure!(error.raw_os_error() == Some(Errno::ENETUNREACH as i32), "another error: {error}");
        let deadline = std::time::Instant::now() + std::time::Duration::from_millis(300);
        Ok(tail.next(deadline).map_err(|error| error.to_string()))
    })?;
    ensure!(line["event"] == "failed" && line["error"] == "ENETUNREACH", "{line}");
    ensure!(line["remote"] == NOWHERE && line["opener"]["pid"] == std::process::id(), "{line}");
    let snapshot = until("every attempt is counted", || {
        let snapshot = daemon.snapshot()?;
        let failed = endpoint(&snapshot, NOWHERE, "client")?["failed_total"].clone();
        Ok(if failed == tried { Ok(snapshot) } else { Err(format!("{failed} of {tried}")) })
    })?;
    ensure!(counts(&snapshot, NOWHERE, "client")? == (0, 0, 0), "{}", snapshot["endpoints"]);
    conserved(&snapshot)?;
    nothing_lost(&snapshot)
}

#[test]
fn a_connect_that_hangs_has_an_opener() -> Result<()> {
    const FULL: &str = "127.0.0.3:5432";
    let sandbox = Sandbox::enter()?;
    let daemon = Daemon::start(&sandbox, &[])?;
    // A listener without room: one connection waits to be accepted, the next SYN is dropped.
    let listener = TcpListener::bind(FULL)?;
    listen(&listener, Backlog::new(0)?)?;
    let address = SockaddrIn::new(127, 0, 0, 3, 5432);
    let mut all = Vec::new();
    for _ in 0..3 {
        let client = nonblocking()?;
        let begun = connect(client.as_raw_fd(), &address);
        ensure!(matches!(begun, Ok(()) | Err(Errno::EINPROGRESS)), "{begun:?}");
        all.push(client);
    }
    let hanging: SockaddrIn = getsockname(all.last().context("no socket")?.as_raw_fd())?;
    let local = format!("127.0.0.3:{}", hanging.port());
    let local = local.replace("127.0.0.3", &hanging.ip().to_string());
    let snapshot = until("the hanging connect has its opener", || {
        let snapshot = daemon.snapshot()?;
        let rows = snapshot["connections"].as_array().context("no connections")?;
        let row = rows.iter().find(|row| row["local"] == local && row["state"] == "SYN_SENT");
        let row = row.map_or(Err(format!("no {local} in SYN_SENT")), Ok);
        Ok(row.and_then(|row| {
            let known = row["opener"]["pid"] == std::process::id();
            if known { Ok(snapshot.clone()) } else { Err(row.to_string()) }
        }))
    })?;
    nothing_lost(&snapshot)?;
    drop(all);
    drop(listener);
    let snapshot = until("the attempts are over", || {
        let snapshot = daemon.snapshot()?;
        let left = snapshot["connections"].as_array().context("no connections")?.len();
        Ok(if left == 0 { Ok(snapshot) } else { Err(format!("{left} left")) })
    })?;
    let client = endpoint(&snapshot, FULL, "client")?;
    ensure!(client["failed_total"].as_u64() >= Some(1), "the hanging one failed: {client}");
    conserved(&snapshot)
}

#[test]
fn what_the_kernel_throws_away_has_a_reason() -> Result<()> {
    const CLOSED: &str = "127.0.0.4:5432";
    let sandbox = Sandbox::enter()?;
    let daemon = Daemon::start(&sandbox, &[])?;
    let refused = || -> Result<()> {
        let error = TcpStream::connect(CLOSED).err().context("nobody listens there")?;
        ensure!(error.raw_os_error() == Some(Errno::ECONNREFUSED as i32), "another error: {error}");
        Ok(())
    };
    // The first one makes the endpoint known.
    refused()?;
    let probes = daemon.snapshot()?["capture"]["probes"].clone();
    let probe = probes.as_array().and_then(|all| all.iter().find(|probe| probe["fact"] == "packet_drop").cloned());
    let gives_reasons = probe.context("no probe for packet_drop")?["state"] == "attached";
    until("the reason shows, where the kernel has any", || {
        refused()?;
        let snapshot = daemon.snapshot()?;
        let drops = &endpoint(&snapshot, CLOSED, "client")?["drops"];
        let shown = drops[0]["reason"] == "NO_SOCKET" && drops[0]["packets"].as_u64() >= Some(1);
        Ok(if shown == gives_reasons { Ok(()) } else { Err(drops.to_string()) })
    })
}
