//! Database servers on ports that nobody named.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use socklife_tests::client::Client;
use socklife_tests::daemon::{Daemon, snapshot_of, socklife};
use socklife_tests::look::{connections, conserved, counts, nothing_lost, own_netns};
use socklife_tests::postgres::Postgres;
use socklife_tests::program::until;
use socklife_tests::sandbox::Sandbox;

const ELSEWHERE: u16 = 5499;
const DATABASE: &str = "127.0.0.1:5499";

/// What the snapshot says of the port.
fn recognized(snapshot: &Value) -> Result<Option<&Value>> {
    let all = snapshot["capture"]["recognized_ports"].as_array().context("no recognized_ports")?;
    Ok(all.iter().find(|each| each["port"] == ELSEWHERE))
}

/// Fails unless the port is said to be that server's.
fn is_of(snapshot: &Value, postgres: &Postgres) -> Result<()> {
    let expected = json!({
        "port": ELSEWHERE, "database": "postgres", "program": "postgres", "pid": postgres.pid(), "netns": own_netns()?,
    });
    ensure!(recognized(snapshot)? == Some(&expected), "{}", snapshot["capture"]["recognized_ports"]);
    Ok(())
}

fn opened_by(snapshot: &Value, pid: Value, age: &str) -> Result<usize> {
    let clients = connections(snapshot, "client")?;
    let with = |each: &&&Value| each["opener"]["pid"] == pid && each["age"] == age && each["database"] == "postgres";
    Ok(clients.iter().filter(with).count())
}

#[test]
fn a_server_on_another_port_is_watched_by_itself() -> Result<()> {
    let sandbox = Sandbox::enter()?;
    let postgres = Postgres::start_at(&sandbox, 100, ELSEWHERE, "127.0.0.1")?;
    let mut client = Client::start_by(&[], ELSEWHERE)?;
    client.open(3, "127.0.0.1")?;
    let daemon = Daemon::start(&sandbox, &[])?;
    // What was there before is there from the first snapshot on.
    let snapshot = daemon.snapshot()?;
    is_of(&snapshot, &postgres)?;
    ensure!(opened_by(&snapshot, Value::Null, "at_least")? == 3, "{}", snapshot["connections"]);

    client.open(2, "127.0.0.1")?;
    let snapshot = daemon.snapshot()?;
    ensure!(opened_by(&snapshot, json!(client.pid()), "exact")? == 2, "{}", snapshot["connections"]);
    for role in ["client", "server"] {
        ensure!(counts(&snapshot, DATABASE, role)? == (5, 5, 0), "{}", snapshot["endpoints"]);
    }
    client.run("close 5")?;
    let snapshot = until("they are closed", || {
        let snapshot = daemon.snapshot()?;
        let left = counts(&snapshot, DATABASE, "client")?;
        Ok(if left == (0, 5, 5) { Ok(snapshot) } else { Err(format!("{left:?}")) })
    })?;
    conserved(&snapshot)?;
    nothing_lost(&snapshot)?;

    drop(daemon);
    client.open(1, "127.0.0.1")?;
    let snapshot = snapshot_of(&socklife(&["snapshot", "--standalone"])?)?;
    is_of(&snapshot, &postgres)?;
    ensure!(counts(&snapshot, DATABASE, "client")? == (1, 1, 0), "{}", snapshot["endpoints"]);
    let daemon = Daemon::start(&sandbox, &["--set", "capture.recognize=false"])?;
    let snapshot = daemon.snapshot()?;
    ensure!(recognized(&snapshot)?.is_none(), "{}", snapshot["capture"]);
    ensure!(connections(&snapshot, "client")?.is_empty(), "{}", snapshot["connections"]);
    Ok(())
}

#[test]
fn a_server_that_comes_later_is_found_by_a_look() -> Result<()> {
    let sandbox = Sandbox::enter()?;
    let daemon = Daemon::start(&sandbox, &[])?;
    ensure!(recognized(&daemon.snapshot()?)?.is_none(), "there is no server yet");
    let postgres = Postgres::start_at(&sandbox, 100, ELSEWHERE, "127.0.0.1")?;
    is_of(&daemon.snapshot()?, &postgres)?;
    let mut client = Client::start_by(&[], ELSEWHERE)?;
    client.open(2, "127.0.0.1")?;
    let snapshot = daemon.snapshot()?;
    ensure!(opened_by(&snapshot, json!(client.pid()), "exact")? == 2, "{}", snapshot["connections"]);
    nothing_lost(&snapshot)
}
