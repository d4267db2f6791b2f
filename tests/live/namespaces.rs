//! Network namespaces, pid namespaces and a /proc that hides: what the whole host's sockets look like from one daemon.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};
use socklife_tests::client::Client;
use socklife_tests::daemon::{Daemon, snapshot_of};
use socklife_tests::look::{all_opened_by, connections, connections_in, conserved, counts, nothing_lost};
use socklife_tests::postgres::{PORT, Postgres};
use socklife_tests::program::{Finished, command, finish, until};
use socklife_tests::sandbox::{NETWORK, Namespace, Sandbox, link_to, socklife_binary};
use socklife_tests::watched::Watched;

/// The inode number of a process' network namespace, and the file that leads there.
fn network_of(pid: u32) -> Result<(PathBuf, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let file = PathBuf::from(format!("/proc/{pid}/ns/net"));
    let inode = fs::metadata(&file)?.ino();
    Ok((file, inode))
}

/// Fails unless the client connections in that namespace are these ports', opened and held as told, established.
fn held_elsewhere(snapshot: &Value, netns: u64, ports: &[u16], opener: Value, holder: u32) -> Result<()> {
    let there = connections_in(snapshot, netns)?;
    let mut seen: Vec<u16> = Vec::new();
    for connection in there {
        let local: SocketAddr = connection["local"].as_str().context("no local end")?.parse()?;
        seen.push(local.port());
        let pids: Vec<&Value> = connection["holders"].as_array().into_iter().flatten().map(|h| &h["pid"]).collect();
        ensure!(pids == [&json!(holder)], "held by {pids:?}, not {holder}: {connection}");
        ensure!(connection["opener"]["pid"] == opener, "opened by another than {opener}: {connection}");
        ensure!(connection["state"] == "ESTABLISHED" && connection["role"] == "client", "{connection}");
    }
    seen.sort_unstable();
    let mut ports = ports.to_vec();
    ports.sort_unstable();
    ensure!(seen == ports, "connections of {seen:?}, not of {ports:?}");
    Ok(())
}

/// Two connections opened in `opener`'s namespace, passed to a process in the sandbox, their opener killed.
fn passed_on(sandbox: &Sandbox, postgres: &Postgres, mut opener: Client, named: Option<&Namespace>) -> Result<()> {
    let database = format!("{NETWORK}.1:{PORT}");
    let (file, netns) = network_of(opener.pid())?;
    link_to(&file)?;
    let daemon = Daemon::start(sandbox, &[])?;
    let mut holder = Client::start()?;
    let way = sandbox.path(if named.is_some() { "named" } else { "unnamed" });
    let way = way.to_str().context("a path")?;
    holder.run(&format!("listen {way}"))?;
    let ports = opener.open(2, &format!("{NETWORK}.1"))?;
    opener.run(&format!("give 2 {way}"))?;
    let taken = holder.ports("take 2")?;
    ensure!(taken == ports, "passed on {ports:?}, received {taken:?}");
    let (was, now) = (opener.pid(), holder.pid());
    opener.kill()?;
    ensure!(named.is_some() || !file.try_exists()?, "the opener is still there");

    // Every snapshot is a look; what one look cannot see the next ones must not lose.
    for _ in 0..3 {
        let snapshot = daemon.snapshot()?;
        held_elsewhere(&snapshot, netns, &ports, json!(was), now).with_context(|| daemon.log())?;
        ensure!(counts(&snapshot, &database, "client")? == (2, 2, 0), "{}", snapshot["endpoints"]);
        all_opened_by(&snapshot, "server", postgres.pid())?;
        ensure!(counts(&snapshot, &database, "server")? == (2, 2, 0), "{}", snapshot["endpoints"]);
    }
    holder.kill()?;
    let snapshot = until("the connections end with their holder", || {
        let snapshot = daemon.snapshot()?;
        let left = (counts(&snapshot, &database, "client")?, counts(&snapshot, &database, "server")?);
        Ok(if left == ((0, 2, 2), (0, 2, 2)) { Ok(snapshot) } else { Err(format!("{left:?}")) })
    })?;
    conserved(&snapshot)?;
    nothing_lost(&snapshot)
}

#[test]
fn passed_out_of_a_namespace_that_stays() -> Result<()> {
    let sandbox = Sandbox::enter()?;
    let postgres = Postgres::start_at(&sandbox, 100, PORT, "*")?;
    let namespace = Namespace::named("stays")?;
    let opener = Client::start_by(&namespace.way(), PORT)?;
    passed_on(&sandbox, &postgres, opener, Some(&namespace))
}

#[test]
fn passed_out_of_a_namespace_that_its_last_process_left() -> Result<()> {
    let sandbox = Sandbox::enter()?;
    let postgres = Postgres::start_at(&sandbox, 100, PORT, "*")?;
    let opener = Client::start_by(&["unshare", "--net", "--"], PORT)?;
    passed_on(&sandbox, &postgres, opener, None)
}

#[test]
fn connections_in_another_namespace_are_filled_in_and_followed() -> Result<()> {
    let sandbox = Sandbox::enter()?;
    let _postgres = Postgres::start_at(&sandbox, 100, PORT, "*")?;
    let namespace = Namespace::named("filled")?;
    link_to(&namespace.file())?;
    let mut client = Client::start_by(&namespace.way(), PORT)?;
    let early = client.open(3, &format!("{NETWORK}.1"))?;
    let daemon = Daemon::start(&sandbox, &[])?;
    let netns = namespace.inode()?;
    held_elsewhere(&daemon.snapshot()?, netns, &early, Value::Null, client.pid())?;

    client.run("close 3")?;
    let late = client.open(2, &format!("{NETWORK}.1"))?;
    let snapshot = until("only the late ones are there", || {
        let snapshot = daemon.snapshot()?;
        let seen = connections_in(&snapshot, netns)?.len();
        Ok(if seen == 2 { Ok(snapshot) } else { Err(format!("{seen} are there")) })
    })?;
    held_elsewhere(&snapshot, netns, &late, json!(client.pid()), client.pid())?;
    ensure!(counts(&snapshot, &format!("{NETWORK}.1:{PORT}"), "client")? == (2, 5, 3), "{}", snapshot["endpoints"]);
    nothing_lost(&snapshot)?;

    // Switched off, only the daemon's own namespace is there: the server's side of the same connections.
    drop(daemon);
    let daemon = Daemon::start(&sandbox, &["--set", "inventory.namespaces=false"])?;
    let snapshot = daemon.snapshot()?;
    ensure!(connections_in(&snapshot, netns)?.is_empty(), "{}", snapshot["connections"]);
    ensure!(connections(&snapshot, "server")?.len() == 2, "{}", snapshot["connections"]);
    ensure!(snapshot["capture"]["namespaces"] == 1, "{}", snapshot["capture"]);
    Ok(())
}

/// Connections over loopback inside another namespace, both ends in this process, until the sender is dropped.
fn loopback_inside(
    namespace: &Namespace,
    count: usize,
) -> Result<(mpsc::SyncSender<()>, thread::JoinHandle<Result<()>>)> {
    let file = fs::File::open(namespace.file())?;
    let (stop, stopped) = mpsc::sync_channel(1);
    let (ready, is_ready) = mpsc::sync_channel(1);
    let thread = thread::spawn(move || {
        setns(file, CloneFlags::CLONE_NEWNET)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
        let listener = TcpListener::bind(address)?;
        let mut held = Vec::new();
        for _ in 0..count {
            held.push((TcpStream::connect(address)?, listener.accept()?));
        }
        ready.send(())?;
        // An error is the sender's end.
        let _ = stopped.recv();
        Ok(())
    });
    if is_ready.recv().is_err() {
        thread.join().map_err(|_| anyhow!("the thread panicked"))??;
        return Err(anyhow!("the thread ended early"));
    }
    Ok((stop, thread))
}

#[test]
fn the_same_loopback_address_in_two_namespaces_is_two_databases() -> Result<()> {
    let watched = Watched::start(&["--limit", &format!("127.0.0.1:{PORT}=4")])?;
    let namespace = Namespace::named("loopback")?;
    let (stop, inside) = loopback_inside(&namespace, 7)?;
    let mut client = Client::start()?;
    client.open(2, "127.0.0.1")?;

    let (here, there) = (format!("127.0.0.1:{PORT}"), format!("127.0.0.1:{PORT}@netns:{}", namespace.inode()?));
    let snapshot = watched.agree()?;
    for role in ["client", "server"] {
        ensure!(counts(&snapshot, &here, role)? == (2, 2, 0), "{role}: {}", snapshot["endpoints"]);
        ensure!(counts(&snapshot, &there, role)? == (7, 7, 0), "{role}: {}", snapshot["endpoints"]);
    }
    ensure!(snapshot["findings"] == json!([]), "the limit is for the daemon's own loopback: {}", snapshot["findings"]);
    drop(stop);
    inside.join().map_err(|_| anyhow!("the thread panicked"))??;
    // Its sockets end with their threads; the namespace goes while the daemon knows it.
    drop(namespace);
    let snapshot = until("the other namespace's connections end", || {
        let snapshot = watched.daemon.snapshot()?;
        let left = counts(&snapshot, &there, "client")?;
        Ok(if left == (0, 7, 7) { Ok(snapshot) } else { Err(format!("{left:?}")) })
    })?;
    ensure!(counts(&snapshot, &here, "client")? == (2, 2, 0), "{}", snapshot["endpoints"]);
    conserved(&snapshot)?;
    nothing_lost(&snapshot)
}

#[test]
fn a_client_in_a_pid_namespace_has_both_pids() -> Result<()> {
    let watched = Watched::start(&[])?;
    let (mut client, pid) = Client::start_in_pid_namespace()?;
    client.open(2, "127.0.0.1")?;
    let snapshot = watched.agree()?;
    all_opened_by(&snapshot, "client", pid)?;
    let processes = snapshot["processes"].as_array().context("no processes")?;
    let seen = |pid: u32| processes.iter().find(|each| each["pid"] == pid).with_context(|| format!("no process {pid}"));
    ensure!(seen(pid)?["ns_pid"] == 1, "{}", seen(pid)?);
    ensure!(seen(watched.postgres.pid())?["ns_pid"].is_null(), "one pid only: {}", seen(watched.postgres.pid())?);
    ensure!(snapshot["capture"]["host_pids"] == true, "{}", snapshot["capture"]);
    Ok(())
}

/// `socklife` as the first process of a pid namespace of its own.
fn in_pid_namespace(args: &[&str]) -> Result<Finished> {
    let mut unshare = command("unshare");
    unshare.args(["--pid", "--fork", "--kill-child", "--mount-proc", "--"]).arg(socklife_binary()?).args(args);
    finish(unshare)
}

#[test]
fn in_another_pid_namespace_numbers_are_not_mixed() -> Result<()> {
    let sandbox = Sandbox::enter()?;
    let socket = sandbox.path("s.sock");
    let socket = socket.to_str().context("a path")?;
    let said = in_pid_namespace(&["run", "--for", "20s", "--socket", socket])?;
    ensure!(said.code == Some(3) && said.stderr.contains("hostPID"), "{said:?}");
    let said = in_pid_namespace(&["doctor", "--json", "--socket", socket])?;
    let report: Value = serde_json::from_str(&said.stdout)?;
    ensure!(said.code == Some(3) && report["works"] == false && report["host_pids"] == false, "{said:?}");
    let said = in_pid_namespace(&["snapshot", "--standalone"])?;
    ensure!(snapshot_of(&said)?["capture"]["host_pids"] == false, "{said:?}");
    Ok(())
}

/// A standalone snapshot without any privilege, under a /proc mounted with that option in a mount namespace of its own.
fn unprivileged(option: &str) -> Result<Value> {
    let script = "mount -t proc -o \"$1\" proc /proc && shift && exec setpriv --reuid nobody --regid nogroup \
                  --clear-groups --inh-caps=-all --bounding-set=-all -- \"$@\"";
    let mut unshare = command("unshare");
    unshare.args(["--mount", "--", "sh", "-ec", script, "sh", option]);
    unshare.arg(socklife_binary()?).args(["snapshot", "--standalone"]);
    snapshot_of(&finish(unshare)?)
}

#[test]
fn what_proc_hides_is_said_to_be_hidden() -> Result<()> {
    let sandbox = Sandbox::enter()?;
    let _postgres = Postgres::start(&sandbox, 100)?;
    let mut client = Client::start()?;
    client.open(2, "127.0.0.1")?;
    for (option, hidden) in [("hidepid=0", false), ("hidepid=1", false), ("hidepid=2", true)] {
        let snapshot = unprivileged(option)?;
        let capture = &snapshot["capture"];
        ensure!(connections(&snapshot, "client")?.len() == 2, "{option}: the sockets are there: {snapshot}");
        let held = |each: &&Value| each["holders"] != json!([]);
        ensure!(!connections(&snapshot, "client")?.iter().any(held), "{option}: {}", snapshot["connections"]);
        ensure!(capture["hidden_processes"] == hidden, "{option}: {capture}");
        ensure!(hidden || capture["unreadable_processes"].as_u64() > Some(0), "{option}: {capture}");
        ensure!(capture["holders"] == "lower_bound", "{option}: {capture}");
        ensure!(capture["completeness"] != "exact", "{option}: {capture}");
    }
    ensure!(!fs::read_to_string("/proc/self/mountinfo")?.contains("hidepid="), "the test has changed this /proc");
    Ok(())
}
