//! What outlives the daemon: counts over time and since when a finding is open, however it ended.

use std::fs;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use socklife_tests::client::Client;
use socklife_tests::daemon::Daemon;
use socklife_tests::look::evidence;
use socklife_tests::postgres::Postgres;
use socklife_tests::program::until;
use socklife_tests::sandbox::Sandbox;
use socklife_tests::watched::DATABASE;

/// Seconds of the finest series of the database, and what was open in each.
fn course(snapshot: &Value) -> Result<Vec<u64>> {
    let endpoints = snapshot["endpoints"].as_array().context("no endpoints")?;
    let here = |entry: &&Value| entry["id"] == DATABASE && entry["role"] == "client";
    let endpoint = endpoints.iter().find(here).context("the database is not there")?;
    let open = endpoint["series"][0]["open"].as_array().context("no series")?;
    open.iter().map(|open| open.as_u64().context("no number")).collect()
}

#[test]
fn a_daemon_goes_on_where_one_that_was_killed_stood() -> Result<()> {
    let sandbox = Sandbox::enter()?;
    let _postgres = Postgres::start(&sandbox, 100)?;
    let dir = sandbox.path("state");
    let dir = dir.to_str().context("a path that is no text")?;
    let args = ["--state-dir", dir, "--limit", "127.0.0.1:5432=100"];
    let pressure = |line: &Value| line["kind"] == "limit_pressure" && evidence(line, "open") == Some(90);

    let daemon = Daemon::start(&sandbox, &args)?;
    let mut client = Client::start()?;
    client.open(30, "127.0.0.1")?;
    until("a second that ended with 30 open", || {
        let course = course(&daemon.snapshot()?).unwrap_or_default();
        let over = course.split_last().map_or(&[][..], |(_, over)| over);
        Ok(if over.contains(&30) { Ok(()) } else { Err(format!("{course:?}")) })
    })?;
    client.open(60, "127.0.0.1")?;
    let before = daemon.tail(&[])?.wait_for("pressure at 90 of 100", pressure)?;
    let file = sandbox.path("state/state");
    let opened = fs::metadata(&file).and_then(|state| state.modified()).ok();
    until("a state that was written after the finding opened", || {
        let written = fs::metadata(&file).and_then(|state| state.modified()).ok();
        Ok(if written > opened { Ok(()) } else { Err(format!("{written:?}")) })
    })?;
    daemon.kill()?;

    let daemon = Daemon::start(&sandbox, &args)?;
    let after = daemon.tail(&[])?.wait_for("pressure at 90 of 100 again", pressure)?;
    ensure!(after["id"] == before["id"], "{before} then {after}");
    ensure!(after["first_seen"] == before["first_seen"], "{before} then {after}");
    let course = course(&daemon.snapshot()?)?;
    let low = course.iter().position(|open| *open == 30).context("what was before the restart is forgotten")?;
    ensure!(course[low..].iter().all(|open| *open >= 30), "the restart reads as a fall: {course:?}");

    // Half a write, and one of something else: neither keeps it from starting.
    daemon.kill()?;
    fs::write(&file, b"not what it was")?;
    let daemon = Daemon::start(&sandbox, &args)?;
    ensure!(sandbox.path("state/state.damaged").is_file(), "{}", daemon.log());
    ensure!(daemon.log().contains("set aside"), "{}", daemon.log());
    let again = daemon.tail(&[])?.wait_for("pressure at 90 of 100 once more", pressure)?;
    ensure!(again["id"] == before["id"], "{before} then {again}");
    Ok(())
}

#[test]
fn what_ended_while_the_daemon_was_down_is_told_as_resolved() -> Result<()> {
    let sandbox = Sandbox::enter()?;
    let _postgres = Postgres::start(&sandbox, 100)?;
    let dir = sandbox.path("state");
    let dir = dir.to_str().context("a path that is no text")?;
    let args = ["--state-dir", dir, "--limit", "127.0.0.1:5432=100", "--set", "detect.window_s=2"];

    let daemon = Daemon::start(&sandbox, &args)?;
    let (mut stays, mut goes) = (Client::start()?, Client::start()?);
    stays.open(5, "127.0.0.1")?;
    goes.open(85, "127.0.0.1")?;
    let pressure = |line: &Value| line["kind"] == "limit_pressure" && evidence(line, "open") == Some(90);
    let before = daemon.tail(&[])?.wait_for("pressure at 90 of 100", pressure)?;
    // An orderly end writes the state once more.
    daemon.stop(Signal::SIGTERM)?;
    goes.kill()?;

    let daemon = Daemon::start(&sandbox, &args)?;
    let its = |line: &Value| line["id"] == before["id"] && line["change"] == "resolved";
    let after = daemon.tail(&[])?.wait_for("the pressure resolved", its)?;
    ensure!(after["first_seen"] == before["first_seen"], "{before} then {after}");
    let summary = after["summary"].as_str().context("no summary")?;
    ensure!(summary.contains(" 5 of 100 open (was 90), open for "), "{after}");
    ensure!(daemon.snapshot()?["findings"].as_array().is_some_and(Vec::is_empty), "{after}");
    Ok(())
}
