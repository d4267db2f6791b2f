//! `tail --events --json`: every socket event once, with who did it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use socklife_tests::client::Client;
use socklife_tests::daemon::{Daemon, Tail};
use socklife_tests::pace::patience;
use socklife_tests::watched::Watched;

/// A stream shows what happens while it is open and says nothing when it opens: opens and closes connections until one
/// of them shows.
fn streaming(daemon: &Daemon, client: &mut Client) -> Result<Tail> {
    let mut tail = daemon.tail(&["--events"])?;
    let deadline = Instant::now() + patience();
    while Instant::now() < deadline {
        client.open(1, "127.0.0.1")?;
        client.run("close 1")?;
        if tail.next(Instant::now() + Duration::from_millis(200)).is_ok() {
            return Ok(tail);
        }
    }
    bail!("no event within {:?}", patience())
}

fn about(line: &Value, event: &str, role: &str, port: u16) -> bool {
    let end = if role == "client" { "local" } else { "remote" };
    line["event"] == event && line["role"] == role && line[end] == format!("127.0.0.1:{port}")
}

#[test]
fn events_say_who_opened_accepted_and_closed() -> Result<()> {
    let watched = Watched::start(&[])?;
    let mut client = Client::start()?;
    let mut tail = streaming(&watched.daemon, &mut client)?;

    let port = client.open(1, "127.0.0.1")?[0];
    client.run("query 1")?;
    client.run("close 1")?;
    // Each side's end is its last event; they come in either order.
    let mut left = vec!["client", "server"];
    let deadline = Instant::now() + patience();
    while !left.is_empty() {
        let line = tail.next(deadline).with_context(|| format!("waiting for `closed` of {left:?}, port {port}"))?;
        left.retain(|role| !about(&line, "closed", role, port));
    }

    let one = |event: &str, role: &str| -> Result<&Value> {
        let lines: Vec<&Value> = tail.seen().iter().filter(|line| about(line, event, role, port)).collect();
        let [line] = lines[..] else { bail!("{} {event} events of {role}, not one: {:#?}", lines.len(), tail.seen()) };
        ensure!(line["schema"] == "socklife.event/v1", "schema: {line}");
        ensure!(line["endpoint"] == "127.0.0.1:5432" && line["database"] == "postgres", "endpoint: {line}");
        Ok(line)
    };
    ensure!(one("opened", "client")?["opener"]["pid"] == client.pid(), "opener: {}", one("opened", "client")?);
    one("opened", "server")?;
    let accepted = one("accepted", "server")?;
    ensure!(accepted["opener"]["pid"] == watched.postgres.pid(), "accepted by {}: {accepted}", watched.postgres.pid());
    let closed = one("closed", "client")?;
    ensure!(closed["closer_pid"] == client.pid(), "closer: {closed}");
    ensure!(closed["age_ms"].is_u64(), "age_ms: {closed}");
    ensure!(closed["bytes_received"].as_u64() > Some(1000), "bytes_received: {closed}");
    ensure!(one("closed", "server")?["opener"]["pid"] == watched.postgres.pid(), "{}", one("closed", "server")?);
    tail.stop(Signal::SIGTERM)?;
    streaming(&watched.daemon, &mut client)?.stop(Signal::SIGINT)
}

#[test]
fn a_reset_says_who_sent_it() -> Result<()> {
    let watched = Watched::start(&[])?;
    let mut client = Client::start()?;
    let mut tail = streaming(&watched.daemon, &mut client)?;

    let port = client.open(1, "127.0.0.1")?[0];
    client.run("abort 1")?;
    let mut resets = std::collections::BTreeMap::new();
    let deadline = Instant::now() + patience();
    while resets.len() < 2 {
        let line = tail.next(deadline).with_context(|| format!("waiting for both ends of port {port}: {resets:?}"))?;
        for role in ["client", "server"] {
            if about(&line, "closed", role, port) {
                resets.insert(role, line["reset"].clone());
            }
        }
    }
    ensure!(resets["client"] == "sent" && resets["server"] == "received", "who reset: {resets:?}");
    ensure!(watched.postgres.activity()?.is_empty(), "the server knows");
    tail.stop(Signal::SIGTERM)
}
