//! What clients of the control socket may do to the daemon: it keeps tracing, within its bound of memory, and says little.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use socklife_tests::client::Client;
use socklife_tests::daemon::Daemon;
use socklife_tests::look::counts;
use socklife_tests::pace::load;
use socklife_tests::program::until;
use socklife_tests::watched::{DATABASE, Watched};

/// What the daemon may take at most, with hardly a connection to watch.
const BOUND_KIB: u64 = 64 * 1024;
/// A gigabyte, in pieces.
const PIECE: usize = 1 << 20;
const PIECES: u64 = 1 << 10;

/// From here on: the start reads the kernel's types, and gives that memory back.
fn forget_peak(daemon: &Daemon) -> Result<()> {
    fs::write(format!("/proc/{}/clear_refs", daemon.pid()), "5").context("forget the peak")
}

/// The most memory that a daemon had since.
fn peak_kib(daemon: &Daemon) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    Ok(line.context("no VmHWM")?.parse()?)
}

/// Lines of the log that complain.
fn complaints(daemon: &Daemon) -> Vec<String> {
    let log = daemon.log();
    log.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR ")).map(str::to_owned).collect()
}

/// Fails unless the daemon traces what a client does, is within its bound, and has said at most one thing since.
fn unharmed(watched: &Watched, client: &mut Client, opened: &mut u64, said: usize) -> Result<()> {
    client.open(3, "127.0.0.1")?;
    client.run("close 3")?;
    *opened += 3;
    let snapshot = watched.agree()?;
    ensure!(counts(&snapshot, DATABASE, "client")? == (0, *opened, *opened), "{}", snapshot["endpoints"]);
    let peak = peak_kib(&watched.daemon)?;
    ensure!(peak <= BOUND_KIB, "it had {peak} KiB, the bound is {BOUND_KIB} KiB");
    let complaints = complaints(&watched.daemon);
    ensure!(complaints.len() <= said + 1, "{complaints:#?}");
    Ok(())
}

/// Writes `start`, then a gigabyte of it without a line's end, as far as the daemon takes it; how many bytes that were.
fn endless(daemon: &Daemon, start: &str) -> Result<u64> {
    let mut stream = UnixStream::connect(daemon.socket())?;
    stream.set_write_timeout(Some(Duration::from_secs(10)))?;
    let piece = vec![b'a'; PIECE];
    let mut written = 0;
    let mut all = || {
        stream.write_all(start.as_bytes())?;
        for _ in 0..load(PIECES) {
            stream.write_all(&piece)?;
            written += PIECE as u64;
        }
        std::io::Result::Ok(())
    };
    match all() {
        Ok(()) => {}
        Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {}
        Err(error) => return Err(error).with_context(|| format!("{start:?}: it neither reads nor refuses")),
    }
    Ok(written)
}

#[test]
fn a_line_of_a_gigabyte_is_refused_early() -> Result<()> {
    let watched = Watched::start(&[])?;
    let mut client = Client::start()?;
    let mut opened = 0;
    forget_peak(&watched.daemon)?;
    unharmed(&watched, &mut client, &mut opened, 0)?;
    let said = complaints(&watched.daemon).len();
    let requests = [
        "",
        "GET /v1/",
        "GET /v1/health HTTP/1.1\r\nX: ",
        "POST /v1/snapshot HTTP/1.1\r\nContent-Length: 9999999999\r\n\r\n",
    ];
    for start in requests {
        let written = endless(&watched.daemon, start)?;
        ensure!(written < 8 << 20, "it took {written} bytes after {start:?}");
    }
    unharmed(&watched, &mut client, &mut opened, said)?;
    watched.daemon.stop(Signal::SIGTERM)
}

#[test]
fn a_thousand_clients_that_do_not_read_are_harmless() -> Result<()> {
    const CLIENTS: u64 = 1_000;
    let watched = Watched::start(&[])?;
    let mut client = Client::start()?;
    let mut opened = 0;
    forget_peak(&watched.daemon)?;
    unharmed(&watched, &mut client, &mut opened, 0)?;
    let said = complaints(&watched.daemon).len();
    let mut crowd = Vec::new();
    for number in 0..load(CLIENTS) {
        let mut stream = UnixStream::connect(watched.daemon.socket()).with_context(|| format!("client {number}"))?;
        let path = if number % 2 == 0 { "events" } else { "tail" };
        // Who finds no place is hung up on.
        let _refused = stream.write_all(format!("GET /v1/{path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        crowd.push(stream);
    }
    // All places are taken, and whoever comes is told so; the events go on.
    let mut late = UnixStream::connect(watched.daemon.socket())?;
    let mut answer = String::new();
    late.set_read_timeout(Some(socklife_tests::pace::patience()))?;
    late.write_all(b"GET /v1/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    // A reset is an answer, too.
    let _ended = late.read_to_string(&mut answer);
    ensure!(answer.is_empty() || answer.contains(" 503 "), "{answer}");
    for _ in 0..load(20) {
        client.open(50, "127.0.0.1")?;
        client.run("close 50")?;
        opened += 50;
    }
    drop(crowd);
    until("there is room again", || {
        let said = watched.daemon.ask(&["snapshot"])?;
        Ok(if said.code == Some(0) { Ok(()) } else { Err(said.stderr) })
    })?;
    unharmed(&watched, &mut client, &mut opened, said)?;
    watched.daemon.stop(Signal::SIGTERM)
}
