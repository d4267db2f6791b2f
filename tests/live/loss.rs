//! Faults that lose events: what was lost is counted, what is alive is known again, nobody is named wrongly, and no
//! finding is missing.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use socklife_tests::client::Client;
use socklife_tests::daemon::Daemon;
use socklife_tests::flood::Flood;
use socklife_tests::look::{all_opened_by, conserved, counts, names};
use socklife_tests::pace::patience;
use socklife_tests::postgres::Postgres;
use socklife_tests::program::until;
use socklife_tests::sandbox::Sandbox;
use socklife_tests::truth::{agree, difference, of_snapshot, ss};
use socklife_tests::watched::{DATABASE, Watched};

/// Beside PostgreSQL, on the same port.
const BESIDE: &str = "127.0.0.2:5432";
/// How long the daemon stands still.
const STOPPED: Duration = Duration::from_secs(5);

fn lost(snapshot: &Value, stage: &str) -> Result<u64> {
    snapshot["capture"]["loss"][stage].as_u64().with_context(|| format!("no {stage} in {}", snapshot["capture"]))
}

/// Every connection that this host has, as `ss` has it, once the numbers are exact again.
fn agrees_with_ss(daemon: &Daemon) -> Result<Value> {
    until("the snapshot equals ss", || {
        let before = ss()?;
        let snapshot = daemon.snapshot()?;
        if ss()? != before {
            return Ok(Err("the socket table does not come to rest".to_owned()));
        }
        Ok(difference(&of_snapshot(&snapshot)?, &before).map_or(Ok(snapshot), Err))
    })
}

/// What was told and what was counted as lost make up all lives. A lost end is either repaired by a look, and then it is
/// in both, or its life was never known; a repair may also be of a connect whose life a look saw begin and no more.
fn accounted(snapshot: &Value, lives: u64) -> Result<()> {
    let (_, _, client) = counts(snapshot, BESIDE, "client")?;
    let (_, _, server) = counts(snapshot, BESIDE, "server")?;
    let (ends, repaired) = (lost(snapshot, "ends")?, lost(snapshot, "missed_closes")?);
    let loss = &snapshot["capture"]["loss"];
    let sum = client + server + ends;
    ensure!(
        (2 * lives..=2 * lives + repaired).contains(&sum),
        "{client} + {server} closed, {ends} ends lost, {repaired} of them repaired: not twice {lives}; {loss}"
    );
    Ok(())
}

#[test]
fn a_small_ring_while_the_daemon_stands_still() -> Result<()> {
    let limit = format!("{DATABASE}=12");
    let watched = Watched::start(&["--set", "capture.ring_bytes=65536", "--limit", &limit])?;
    let mut tail = watched.daemon.tail(&[])?;
    let mut leaker = Client::start()?;
    leaker.open(3, "127.0.0.1")?;
    watched.agree()?;

    let pid = Pid::from_raw(i32::try_from(watched.daemon.pid())?);
    kill(pid, Signal::SIGSTOP)?;
    let begun = Instant::now();
    let flood = Flood::start_at(BESIDE.parse()?, u64::MAX)?;
    for leaked in 1..=10u32 {
        leaker.open(1, "127.0.0.1")?;
        #[expect(clippy::disallowed_methods, reason = "the fault's own length")]
        thread::sleep((STOPPED * leaked / 10).saturating_sub(begun.elapsed()));
    }
    kill(pid, Signal::SIGCONT)?;
    flood.stop();
    let lives = flood.finish()?;

    let snapshot = watched.agree()?;
    ensure!(lost(&snapshot, "ring_full")? > 0, "{lives} connections did not fill the ring: {}", snapshot["capture"]);
    ensure!(counts(&snapshot, DATABASE, "client")? == (13, 13, 0), "{}", snapshot["endpoints"]);
    all_opened_by(&snapshot, "client", leaker.pid())?;
    conserved(&snapshot)?;
    accounted(&snapshot, lives)?;
    ensure!(snapshot["capture"]["completeness"] == "exact", "after the look: {}", snapshot["capture"]);
    ensure!(snapshot["capture"]["totals"] == "lower_bound", "lost is lost: {}", snapshot["capture"]);
    let findings = snapshot["findings"].as_array().context("no findings")?;
    let pressure =
        findings.iter().find(|each| each["kind"] == "limit_pressure" && each["subject"]["endpoint"] == DATABASE);
    let pressure = pressure.with_context(|| format!("no limit_pressure: {findings:#?}"))?;
    ensure!(names(pressure, leaker.pid()), "the leaker is not named: {pressure}");
    let deadline = Instant::now() + patience();
    loop {
        let line = tail.next(deadline).context("the tail says what was lost")?;
        if line["schema"] == "socklife.loss/v1" {
            ensure!(line["loss"]["ring_full"].as_u64() > Some(0), "{line}");
            return tail.stop(Signal::SIGTERM);
        }
    }
}

#[test]
fn more_sockets_than_the_kernel_side_remembers() -> Result<()> {
    const OPEN: usize = 1_500;
    let sandbox = Sandbox::enter()?;
    let daemon = Daemon::start(&sandbox, &["--set", "capture.map_entries=1024"])?;
    let address: SocketAddr = BESIDE.parse()?;
    let listener = TcpListener::bind(address)?;
    let mut ends = Vec::new();
    for _ in 0..OPEN {
        ends.push(TcpStream::connect(address)?);
        ends.push(listener.accept()?.0);
    }
    let snapshot = agrees_with_ss(&daemon)?;
    ensure!(lost(&snapshot, "map_full")? > 0, "{}", snapshot["capture"]);
    ensure!(counts(&snapshot, BESIDE, "client")?.0 == 1_500, "{}", snapshot["endpoints"]);
    let own = std::process::id();
    let mut unknown = 0;
    for connection in snapshot["connections"].as_array().context("no connections")? {
        let opener = &connection["opener"];
        unknown += usize::from(opener.is_null());
        ensure!(opener.is_null() || opener["pid"] == own, "a wrong opener: {connection}");
    }
    ensure!(unknown > 0 && unknown < 2 * OPEN, "{unknown} of {} openers are unknown", 2 * OPEN);
    conserved(&snapshot)?;

    drop(ends);
    let snapshot = agrees_with_ss(&daemon)?;
    ensure!(counts(&snapshot, BESIDE, "client")? == (0, 1_500, 1_500), "{}", snapshot["endpoints"]);
    conserved(&snapshot)
}

#[test]
fn one_in_ten_ends_is_lost() -> Result<()> {
    const FLOOD: u64 = 3_000;
    let sandbox = Sandbox::enter()?;
    let postgres = Postgres::start(&sandbox, 100)?;
    let daemon = Daemon::start_faulty(&sandbox, 10)?;
    let mut client = Client::start()?;
    client.open(60, "127.0.0.1")?;
    agree(&daemon, &postgres)?;
    let flood = Flood::start_at(BESIDE.parse()?, FLOOD)?;
    client.run("close 40")?;
    let lives = flood.finish()?;

    let snapshot = agree(&daemon, &postgres)?;
    let ends = lost(&snapshot, "ends")?;
    ensure!(ends > 0, "no end was lost: {}", snapshot["capture"]);
    ensure!(counts(&snapshot, DATABASE, "client")? == (20, 60, 40), "{}", snapshot["endpoints"]);
    ensure!(counts(&snapshot, DATABASE, "server")? == (20, 60, 40), "{}", snapshot["endpoints"]);
    all_opened_by(&snapshot, "client", client.pid())?;
    all_opened_by(&snapshot, "server", postgres.pid())?;
    conserved(&snapshot)?;
    accounted(&snapshot, lives)
}
