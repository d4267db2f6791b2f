//! What one look at the kernel costs: opens connections over loopback and times the dump, the holders and identities.
//!
//! ```text
//! ulimit -n 20000; cargo run --release -p tracer-user --example inventory_cost -- 4900 300
//! ```
//! The first number is connections (two sockets each, both held by this process), the second idle child processes.
//! Connections go over addresses in 127.0.0.0/8 and end with the program.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tracer_core::ports::PortMap;
use tracer_user::clock::boot_clock;
use tracer_user::inventory::door::Door;
use tracer_user::inventory::holders::{self, Threads};
use tracer_user::inventory::{Looker, Settings};
use tracer_user::process::{CmdlinePolicy, IdentityReader};

/// Looks of which the fastest and the median are told.
const ROUNDS: usize = 15;

fn main() -> anyhow::Result<()> {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<usize>());
    let connections = numbers.next().unwrap_or(Ok(4_900)).context("the number of connections")?;
    let processes = numbers.next().unwrap_or(Ok(300)).context("the number of processes")?.min(2_000);
    let (port, _held) = connect(connections)?;
    let mut children = spawn(processes)?;

    let mut ports = PortMap::default();
    ports.insert(port, "test".to_owned());
    let proc_root = Path::new("/proc");
    let settings = |namespaces| Settings {
        ports: ports.clone(),
        proc_root: proc_root.to_owned(),
        namespaces,
        recognize: true,
        door: Door::Thread,
    };
    let none = BTreeSet::new();
    let mut everywhere = Looker::new(settings(true));
    let inventory = everywhere.look(&none, true, &boot_clock)?;
    println!("{} sockets, {} children", inventory.sockets().count(), children.len());
    let held = inventory.sockets().filter(|socket| !socket.holders.is_empty()).count();
    println!("{held} have a holder; {} processes unreadable", inventory.unreadable_processes);
    println!("{} namespaces read, {} unreachable", inventory.tables.len(), inventory.unreachable.len());

    let mut own = Looker::new(settings(false));
    time("own table", || own.tables(&boot_clock).map(|_| ()))?;
    time("own table and holders", || own.look(&none, true, &boot_clock).map(|_| ()))?;
    time("every table", || everywhere.tables(&boot_clock).map(|_| ()))?;
    time("every table and holders", || everywhere.look(&none, true, &boot_clock).map(|_| ()))?;
    time("the regular look: quiet namespaces take turns", || everywhere.look(&none, false, &boot_clock).map(|_| ()))?;
    let no_threads = Threads::new();
    time("a full pass over all descriptors, none wanted", || {
        holders::find(proc_root, &no_threads, |_| false).map(|_| ())
    })?;
    time("a search of all threads, none wanted", || holders::threads_with(proc_root, |_| false).map(|_| ()))?;
    let mut reader = IdentityReader::new(proc_root, CmdlinePolicy::Redacted);
    time("one identity", || reader.read(std::process::id()).map(|_| ()))?;
    for child in &mut children {
        drop(child.stdin.take());
        child.wait().context("wait for a child")?;
    }
    Ok(())
}

/// Connections to one listener, from several addresses because one has only so many ports.
fn connect(count: usize) -> anyhow::Result<(u16, Vec<TcpStream>)> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).context("listen")?;
    let port = listener.local_addr().context("the listener's port")?.port();
    let mut held = Vec::with_capacity(2 * count);
    for i in 0..count {
        let to = SocketAddr::from(([127, 0, u8::try_from(i / 20_000).unwrap_or(255), 1], port));
        held.push(TcpStream::connect(to).with_context(|| format!("connection {i} (see `ulimit -n`)"))?);
        held.push(listener.accept().with_context(|| format!("accept {i}"))?.0);
    }
    Ok((port, held))
}

/// Children that end with their input.
fn spawn(count: usize) -> anyhow::Result<Vec<Child>> {
    let one = || Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().context("start a child");
    (0..count).map(|_| one()).collect()
}

fn time<E: std::error::Error + Send + Sync + 'static>(
    what: &str,
    mut act: impl FnMut() -> Result<(), E>,
) -> anyhow::Result<()> {
    let mut took = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        act()?;
        took.push(start.elapsed());
    }
    took.sort_unstable();
    let median = took.get(ROUNDS / 2).copied().unwrap_or(Duration::ZERO);
    println!("{what}: fastest {:?}, median {median:?}", took.first().copied().unwrap_or(Duration::ZERO));
    Ok(())
}
