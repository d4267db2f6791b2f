//! Whatever clients do, the snapshot equals `ss -tnp` and pg_stat_activity: pid for pid, port for port.

use anyhow::{Result, ensure};
use serde_json::Value;
use socklife_tests::client::Client;
use socklife_tests::look::{all_opened_by, connections, conserved, counts, endpoint, nothing_lost};
use socklife_tests::program::until;
use socklife_tests::truth::of_snapshot;
use socklife_tests::watched::{DATABASE, Watched};

fn client_connections_are(snapshot: &Value, expected: usize) -> Result<()> {
    let found = connections(snapshot, "client")?.len();
    ensure!(found == expected, "expected {expected} client connections, both socklife and ss have {found}");
    Ok(())
}

fn holder_pids(snapshot: &Value, role: &str) -> Result<Vec<Vec<u32>>> {
    let table = of_snapshot(snapshot)?;
    Ok(table.values().filter(|row| row.role == role).map(|row| row.holders.keys().copied().collect()).collect())
}

#[test]
fn open_use_close_drop_abort_kill() -> Result<()> {
    let watched = Watched::start(&[])?;
    client_connections_are(&watched.agree()?, 0)?;

    let mut client = Client::start()?;
    client.open(6, "127.0.0.1")?;
    let snapshot = watched.agree()?;
    client_connections_are(&snapshot, 6)?;
    all_opened_by(&snapshot, "client", client.pid())?;
    all_opened_by(&snapshot, "server", watched.postgres.pid())?;

    client.run("query 6")?;
    // Each statement's answer is over 1,000 bytes.
    until("the bytes of the statements show", || {
        let snapshot = watched.daemon.snapshot()?;
        let used =
            |each: &&Value| each["bytes_received"].as_u64() > Some(1000) && each["bytes_sent"].as_u64() > Some(0);
        let clients = connections(&snapshot, "client")?;
        let fewest = clients.iter().copied().filter(used).count();
        Ok(if fewest == 6 { Ok(()) } else { Err(format!("{clients:#?}")) })
    })?;

    for (order, left) in [("close 2", 4), ("drop 1", 3), ("abort 2", 1)] {
        client.run(order)?;
        client_connections_are(&watched.agree()?, left)?;
    }

    let mut victim = Client::start()?;
    victim.open(3, "127.0.0.1")?;
    client_connections_are(&watched.agree()?, 4)?;
    victim.kill()?;
    let snapshot = watched.agree()?;
    client_connections_are(&snapshot, 1)?;
    all_opened_by(&snapshot, "client", client.pid())?;

    for role in ["client", "server"] {
        ensure!(counts(&snapshot, DATABASE, role)? == (1, 9, 8), "{role}: {}", endpoint(&snapshot, DATABASE, role)?);
        ensure!(endpoint(&snapshot, DATABASE, role)?["open_peak"] == 6, "{}", endpoint(&snapshot, DATABASE, role)?);
    }
    conserved(&snapshot)?;
    nothing_lost(&snapshot)
}

#[test]
fn fork_keeps_the_opener_and_adds_a_holder() -> Result<()> {
    let watched = Watched::start(&[])?;
    let mut parent = Client::start()?;
    parent.open(2, "127.0.0.1")?;
    watched.agree()?;

    let child = parent.fork()?;
    let snapshot = watched.agree()?;
    let mut both = vec![parent.pid(), child];
    both.sort_unstable();
    ensure!(holder_pids(&snapshot, "client")? == [both.clone(), both], "holders: {:?}", snapshot["connections"]);
    all_opened_by(&snapshot, "client", parent.pid())?;

    parent.kill()?;
    let snapshot = watched.agree()?;
    ensure!(holder_pids(&snapshot, "client")? == [[child], [child]], "holders: {:?}", snapshot["connections"]);
    all_opened_by(&snapshot, "client", parent.pid())?;
    ensure!(counts(&snapshot, DATABASE, "client")? == (2, 2, 0), "{}", endpoint(&snapshot, DATABASE, "client")?);

    parent.release();
    let snapshot = watched.agree()?;
    ensure!(counts(&snapshot, DATABASE, "client")? == (0, 2, 2), "{}", endpoint(&snapshot, DATABASE, "client")?);
    nothing_lost(&snapshot)
}

#[test]
fn exec_closes_or_keeps_what_the_descriptors_say() -> Result<()> {
    let watched = Watched::start(&[])?;
    let mut closing = Client::start()?;
    let mut keeping = Client::start()?;
    closing.open(2, "127.0.0.1")?;
    keeping.open(3, "127.0.0.1")?;
    client_connections_are(&watched.agree()?, 5)?;

    closing.run("exec")?;
    client_connections_are(&watched.agree()?, 3)?;

    keeping.run("exec-inherit")?;
    let snapshot = watched.agree()?;
    client_connections_are(&snapshot, 3)?;
    all_opened_by(&snapshot, "client", keeping.pid())?;
    let held = vec![vec![keeping.pid()]; 3];
    ensure!(holder_pids(&snapshot, "client")? == held, "holders: {:?}", snapshot["connections"]);
    nothing_lost(&snapshot)
}

#[test]
fn both_ip_versions_and_mapped_addresses() -> Result<()> {
    let watched = Watched::start(&[])?;
    let mut client = Client::start()?;
    let plain = client.open(1, "127.0.0.1")?;
    let six = client.open(1, "::1")?;
    let mapped = client.open(1, "::ffff:127.0.0.1")?;

    let snapshot = watched.agree()?;
    let table = of_snapshot(&snapshot)?;
    for (port, here, there) in
        [(plain[0], "127.0.0.1", DATABASE), (six[0], "[::1]", "[::1]:5432"), (mapped[0], "127.0.0.1", DATABASE)]
    {
        let ends = (format!("{here}:{port}").parse()?, there.parse()?);
        ensure!(table.contains_key(&ends), "{here}:{port} -> {there} is not in {table:#?}");
        ensure!(table.contains_key(&(ends.1, ends.0)), "{there} -> {here}:{port} is not in {table:#?}");
    }
    all_opened_by(&snapshot, "client", client.pid())?;
    all_opened_by(&snapshot, "server", watched.postgres.pid())?;
    for role in ["client", "server"] {
        ensure!(counts(&snapshot, DATABASE, role)? == (2, 2, 0), "{}", snapshot["endpoints"]);
        ensure!(counts(&snapshot, "[::1]:5432", role)? == (1, 1, 0), "{}", snapshot["endpoints"]);
    }

    client.run("close 3")?;
    let snapshot = watched.agree()?;
    ensure!(counts(&snapshot, "[::1]:5432", "client")? == (0, 1, 1), "{}", snapshot["endpoints"]);
    ensure!(counts(&snapshot, DATABASE, "client")? == (0, 2, 2), "{}", snapshot["endpoints"]);
    nothing_lost(&snapshot)
}
