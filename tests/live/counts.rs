//! Counts, openers and ages are exact, whether the daemon or the connections came first; at full speed too.

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde_json::Value;
use socklife_tests::client::Client;
use socklife_tests::daemon::{Daemon, snapshot_of, socklife};
use socklife_tests::flood::Flood;
use socklife_tests::look::{all_opened_by, connections, conserved, counts, endpoint, nothing_lost, own_connections};
use socklife_tests::pace::load;
use socklife_tests::postgres::Postgres;
use socklife_tests::program::until;
use socklife_tests::sandbox::Sandbox;
use socklife_tests::truth::{agree, agree_with};
use socklife_tests::watched::{DATABASE, Watched};

const FLOOD: u64 = 20_000;

fn local_port(connection: &Value) -> Result<u16> {
    let local = connection["local"].as_str().context("no local address")?;
    Ok(local.parse::<std::net::SocketAddr>()?.port())
}

/// An exact age: opened between the two moments, and the age is the time since then.
fn opened_between(connection: &Value, snapshot: &Value, from: Timestamp, to: Timestamp) -> Result<()> {
    ensure!(connection["age"] == "exact", "age should be exact: {connection}");
    let time = |value: &Value| -> Result<Timestamp> { Ok(value.as_str().context("no time")?.parse()?) };
    let opened = time(&connection["opened_at"]).with_context(|| format!("opened_at of {connection}"))?;
    // Shown in milliseconds, and the kernel's clock is tied to the wall's by two readings one after the other.
    let slack = jiff::SignedDuration::from_millis(100);
    ensure!(
        opened >= from - slack && opened <= to + slack,
        "opened {opened}, not within {from} and {to}: {connection}"
    );
    let age = time(&snapshot["captured_at"])?.duration_since(opened).as_secs();
    let shown = connection["age_s"].as_i64().context("no age_s")?;
    ensure!((age - shown).abs() <= 1, "age_s is {shown} and not {age}: {connection}");
    Ok(())
}

fn hundred_and_sixty(snapshot: &Value, client: u32) -> Result<()> {
    ensure!(counts(snapshot, DATABASE, "client")? == (60, 100, 40), "{}", endpoint(snapshot, DATABASE, "client")?);
    ensure!(connections(snapshot, "client")?.len() == 60, "{} connections", connections(snapshot, "client")?.len());
    let processes = snapshot["processes"].as_array().context("no processes")?;
    let process = processes.iter().find(|each| each["pid"] == client).context("the client is not among processes")?;
    ensure!(process["alive"] == true, "alive: {process}");
    let script = process["script"].as_str().unwrap_or_default();
    ensure!(script.ends_with("live/client.py"), "script should be client.py: {process}");
    ensure!(process["exe"].as_str().unwrap_or_default().contains("python3"), "exe should be Python: {process}");
    ensure!(process["cmdline"].is_null(), "command lines are private: {process}");
    conserved(snapshot)?;
    nothing_lost(snapshot)
}

#[test]
fn a_hundred_opened_and_forty_closed() -> Result<()> {
    let watched = Watched::start_sized(150, &[])?;
    let mut client = Client::start()?;
    let from = Timestamp::now();
    client.open(100, "127.0.0.1")?;
    let to = Timestamp::now();
    client.run("close 40")?;

    let snapshot = watched.agree()?;
    hundred_and_sixty(&snapshot, client.pid())?;
    all_opened_by(&snapshot, "client", client.pid())?;
    all_opened_by(&snapshot, "server", watched.postgres.pid())?;
    for connection in own_connections(&snapshot)? {
        opened_between(connection, &snapshot, from, to)?;
    }
    let process = snapshot["processes"].as_array().and_then(|all| all.iter().find(|each| each["pid"] == client.pid()));
    let own = &process.context("the client is not among processes")?["connections"][0];
    ensure!(own["endpoint"] == DATABASE && own["open"] == 60, "its own counts: {own}");
    ensure!(own["opened_total"] == 100 && own["closed_total"] == 40, "its own counts: {own}");
    Ok(())
}

#[test]
fn the_daemon_comes_after_the_first_fifty() -> Result<()> {
    let sandbox = Sandbox::enter()?;
    let postgres = Postgres::start(&sandbox, 150)?;
    let mut client = Client::start()?;
    let early = client.open(50, "127.0.0.1")?;
    let daemon = Daemon::start(&sandbox, &[])?;
    let snapshot = agree(&daemon, &postgres)?;
    ensure!(counts(&snapshot, DATABASE, "client")? == (50, 50, 0), "{}", endpoint(&snapshot, DATABASE, "client")?);

    let from = Timestamp::now();
    client.open(50, "127.0.0.1")?;
    let to = Timestamp::now();
    // The oldest first: 10 of the early ones stay, and all of the late.
    client.run("close 40")?;

    let snapshot = agree(&daemon, &postgres)?;
    hundred_and_sixty(&snapshot, client.pid())?;
    let mut found_early = 0;
    for connection in connections(&snapshot, "client")? {
        let opener = &connection["opener"];
        if early.contains(&local_port(connection)?) {
            found_early += 1;
            ensure!(connection["age"] == "at_least", "age should be at_least: {connection}");
            ensure!(connection["opened_at"].is_null(), "its opening was not seen: {connection}");
            ensure!(opener.is_null() || opener["pid"] == client.pid(), "a wrong opener: {connection}");
        } else {
            opened_between(connection, &snapshot, from, to)?;
            ensure!(opener["pid"] == client.pid(), "opener should be {}: {connection}", client.pid());
        }
    }
    ensure!(found_early == 10, "{found_early} of the early connections, not 10");
    Ok(())
}

#[test]
fn a_standalone_snapshot_equals_ss() -> Result<()> {
    let sandbox = Sandbox::enter()?;
    let postgres = Postgres::start(&sandbox, 100)?;
    let mut client = Client::start()?;
    client.open(5, "127.0.0.1")?;
    client.open(2, "::1")?;
    client.fork()?;
    let standalone = || snapshot_of(&socklife(&["snapshot", "--standalone"])?);
    let snapshot = agree_with("the standalone snapshot", standalone, &postgres)?;
    ensure!(snapshot["capture"]["mode"] == "poll", "mode: {}", snapshot["capture"]);
    ensure!(counts(&snapshot, DATABASE, "client")?.0 == 5, "{}", snapshot["endpoints"]);
    for connection in own_connections(&snapshot)? {
        ensure!(connection["age"] == "at_least" && connection["opened_at"].is_null(), "an age by guess: {connection}");
        ensure!(connection["opener"].is_null(), "an opener by guess: {connection}");
    }
    Ok(())
}

#[test]
fn twenty_thousand_at_full_speed() -> Result<()> {
    let sandbox = Sandbox::enter()?;
    let daemon = Daemon::start(&sandbox, &[])?;
    let all = load(FLOOD);
    let flood = Flood::start(all)?;
    while !flood.is_over() {
        // Readers must not cost events.
        daemon.snapshot()?;
    }
    ensure!(flood.finish()? == all, "the flood stopped early");

    let snapshot = until("every socket of the flood is gone", || {
        let snapshot = daemon.snapshot()?;
        let client = counts(&snapshot, DATABASE, "client")?;
        let server = counts(&snapshot, DATABASE, "server")?;
        let over = client == (0, all, all) && server == (0, all, all);
        let loss = &snapshot["capture"]["loss"];
        let seen = format!("(open, opened, closed): client {client:?}, server {server:?}; loss {loss}");
        Ok(if over { Ok(snapshot) } else { Err(seen) })
    })
    .with_context(|| format!("the daemon's log:\n{}", daemon.log()))?;
    for role in ["client", "server"] {
        let failed = &endpoint(&snapshot, DATABASE, role)?["failed_total"];
        ensure!(*failed == 0, "{role}: {failed} attempts counted as failed");
    }
    ensure!(connections(&snapshot, "client")?.is_empty(), "live connections: {}", snapshot["connections"]);
    conserved(&snapshot)?;
    nothing_lost(&snapshot)
}
