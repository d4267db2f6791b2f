//! Descriptors that move: between numbers, threads and processes.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use socklife_tests::client::Client;
use socklife_tests::daemon::Daemon;
use socklife_tests::look::{all_opened_by, connections, counts, nothing_lost};
use socklife_tests::program::until;
use socklife_tests::watched::{DATABASE, Watched};

/// Pids that hold each client connection.
fn holders(snapshot: &Value) -> Result<Vec<Vec<u64>>> {
    let pids = |connection: &&Value| {
        let holders = connection["holders"].as_array().context("no holders")?;
        holders.iter().map(|holder| holder["pid"].as_u64().context("no pid")).collect()
    };
    connections(snapshot, "client")?.iter().map(pids).collect()
}

/// Waits until every one of `count` client connections is held by exactly `pid`, and was opened by it.
fn held_by(daemon: &Daemon, count: usize, pid: u32) -> Result<Value> {
    until(&format!("{count} connections held by {pid}"), || {
        let snapshot = daemon.snapshot()?;
        all_opened_by(&snapshot, "client", pid)?;
        let seen = holders(&snapshot)?;
        Ok(if seen == vec![vec![u64::from(pid)]; count] { Ok(snapshot) } else { Err(format!("{seen:?}")) })
    })
    .with_context(|| daemon.log())
}

#[test]
fn dup_changes_the_number_and_nothing_else() -> Result<()> {
    let watched = Watched::start(&[])?;
    let mut client = Client::start()?;
    client.open(3, "127.0.0.1")?;
    let before = watched.agree()?;
    client.run("dup 3")?;
    let after = watched.agree()?;
    let fds = |snapshot: &Value| -> Result<Vec<Value>> {
        Ok(connections(snapshot, "client")?.iter().map(|each| each["holders"][0]["fd"].clone()).collect())
    };
    ensure!(fds(&before)?.iter().zip(fds(&after)?).all(|(old, new)| *old != new), "the descriptors did not move");
    all_opened_by(&after, "client", client.pid())?;
    ensure!(counts(&after, DATABASE, "client")? == (3, 3, 0), "{}", after["endpoints"]);
    nothing_lost(&after)
}

#[test]
fn a_child_that_its_parent_left_behind_is_told() -> Result<()> {
    let settings = ["inventory.reconcile_s=1", "detect.orphaned_connection.left_behind_after_s=3"];
    let watched = Watched::start(&settings.map(|setting| ["--set", setting]).concat())?;
    let mut client = Client::start()?;
    client.open(2, "127.0.0.1")?;
    let (parent, child) = (client.pid(), client.fork()?);
    let ppid_of = |snapshot: &Value, pid: u32| -> Result<Value> {
        let processes = snapshot["processes"].as_array().context("no processes")?;
        let process = processes.iter().find(|process| process["pid"] == pid);
        Ok(process.map_or(Value::Null, |process| process["ppid"].clone()))
    };
    // A snapshot waits until /proc was asked who its holders are.
    until("both hold both", || {
        let seen = holders(&watched.daemon.snapshot()?)?;
        let both = |pids: &Vec<u64>| pids.contains(&u64::from(child)) && pids.contains(&u64::from(parent));
        Ok(if seen.len() == 2 && seen.iter().all(both) { Ok(()) } else { Err(format!("{seen:?}")) })
    })?;
    client.kill()?;
    let its = |line: &Value| line["kind"] == "orphaned_connection" && line["subject"]["pids"][0] == child;
    let line = watched.daemon.tail(&[])?.wait_for("the child is left behind", its)?;
    ensure!(
        line["severity"] == "info" && line["summary"].as_str().is_some_and(|s| s.contains("lost its parent")),
        "{line}"
    );
    let ppid = ppid_of(&watched.daemon.snapshot()?, child)?;
    ensure!(ppid.is_u64() && ppid != parent, "{ppid}");
    client.release();
    Ok(())
}

#[test]
fn in_flight_between_two_processes_nobody_holds_it() -> Result<()> {
    let watched = Watched::start(&[])?;
    let (mut giver, mut taker) = (Client::start()?, Client::start()?);
    let way = watched.sandbox.path("way");
    let way = way.to_str().context("a path")?;
    taker.run(&format!("listen {way}"))?;
    giver.open(2, "127.0.0.1")?;
    giver.run(&format!("give 2 {way}"))?;
    let was = giver.pid();
    giver.kill()?;
    for _ in 0..3 {
        let snapshot = watched.daemon.snapshot()?;
        ensure!(holders(&snapshot)? == vec![Vec::<u64>::new(); 2], "{}", snapshot["connections"]);
        all_opened_by(&snapshot, "client", was)?;
        ensure!(counts(&snapshot, DATABASE, "client")? == (2, 2, 0), "{}", snapshot["endpoints"]);
    }
    taker.run("take 2")?;
    let snapshot = watched.daemon.snapshot()?;
    ensure!(holders(&snapshot)? == vec![vec![u64::from(taker.pid())]; 2], "{}", snapshot["connections"]);
    all_opened_by(&snapshot, "client", was)?;
    taker.kill()?;
    let snapshot = until("they end with their holder", || {
        let snapshot = watched.daemon.snapshot()?;
        let left = counts(&snapshot, DATABASE, "client")?;
        Ok(if left == (0, 2, 2) { Ok(snapshot) } else { Err(format!("{left:?}")) })
    })?;
    nothing_lost(&snapshot)
}

#[test]
fn a_thread_with_descriptors_of_its_own_is_found() -> Result<()> {
    let watched = Watched::start(&[])?;
    let mut client = Client::start()?;
    client.ports("thread 2 127.0.0.1")?;
    let snapshot = held_by(&watched.daemon, 2, client.pid())?;
    nothing_lost(&snapshot)
}

#[test]
fn a_process_whose_first_thread_has_ended_still_holds() -> Result<()> {
    let watched = Watched::start(&[])?;
    let mut client = Client::start()?;
    client.open(2, "127.0.0.1")?;
    client.run("leaderless")?;
    let stat = format!("/proc/{}/stat", client.pid());
    until("its first thread has ended", || {
        let text = std::fs::read_to_string(&stat)?;
        Ok(if text.contains(") Z ") { Ok(()) } else { Err(text) })
    })?;
    let snapshot = held_by(&watched.daemon, 2, client.pid())?;
    nothing_lost(&snapshot)
}
