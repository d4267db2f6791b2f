//! What happened is on disk: after a restart, without a daemon, and around a disk that goes away.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use serde_json::Value;
use socklife_tests::client::Client;
use socklife_tests::daemon::{Daemon, snapshot_of, socklife};
use socklife_tests::look::evidence;
use socklife_tests::postgres::Postgres;
use socklife_tests::program::until;
use socklife_tests::sandbox::Sandbox;
use socklife_tests::watched::DATABASE;

const LIMIT: &str = "127.0.0.1:5432=100";

fn lines(said: &str) -> Result<Vec<Value>> {
    said.lines().map(|line| serde_json::from_str(line).with_context(|| format!("not JSON: {line:?}"))).collect()
}

/// What the daemon tells of the last hour.
fn history(daemon: &Daemon) -> Result<Vec<Value>> {
    let said = daemon.ask(&["history", "--since", "1h", "--json"])?;
    ensure!(said.code == Some(0), "{}", said.stderr);
    lines(&said.stdout)
}

fn client_side(snapshot: &Value) -> Result<&Value> {
    let endpoints = snapshot["endpoints"].as_array().context("no endpoints")?;
    let here = |entry: &&Value| entry["id"] == DATABASE && entry["role"] == "client";
    endpoints.iter().find(here).context("the database is not there")
}

fn is_about_pressure(finding: &Value) -> bool {
    finding["kind"] == "limit_pressure" && evidence(finding, "open") == Some(90)
}

/// Whether a snapshot has the 90 connections, who holds them, and the finding.
fn check_then(then: &Value, client: u32) -> Result<()> {
    ensure!(client_side(then)?["open"] == 90, "{then}");
    let findings = then["findings"].as_array().context("no findings")?;
    ensure!(findings.iter().any(is_about_pressure), "{findings:?}");
    let of_client = |open: &&Value| open["role"] == "client" && open["opener"]["pid"] == client;
    let connections = then["connections"].as_array().context("no connections")?;
    ensure!(connections.iter().filter(of_client).count() == 90, "{connections:?}");
    let process = then["processes"].as_array().into_iter().flatten().find(|process| process["pid"] == client);
    let process = process.context("the client is not there")?;
    ensure!(process["connections"][0]["open"] == 90 && process["alive"] == true, "{process}");
    ensure!(client_side(then)?["series"][0]["step_s"] == 10, "{then}");
    Ok(())
}

#[test]
fn what_was_true_is_known_after_a_restart_and_without_a_daemon() -> Result<()> {
    let sandbox = Sandbox::enter()?;
    let _postgres = Postgres::start(&sandbox, 100)?;
    let dir = sandbox.path("state");
    let dir = dir.to_str().context("a path that is no text")?;
    let args = ["--state-dir", dir, "--limit", LIMIT];
    let daemon = Daemon::start(&sandbox, &args)?;
    let mut client = Client::start()?;
    client.open(90, "127.0.0.1")?;
    let pid = client.pid();
    daemon.tail(&[])?.wait_for("pressure at 90 of 100", is_about_pressure)?;
    let then = until("a sample of the 90 connections", || {
        let then = snapshot_of(&daemon.ask(&["snapshot", "--at", "0s"])?);
        let Ok(then) = then else { return Ok(Err("there is none yet".to_owned())) };
        Ok(check_then(&then, pid).map(|()| then).map_err(|error| format!("{error:#}")))
    })?;
    let at = then["captured_at"].as_str().context("no time")?.to_owned();
    client.run("close 90")?;
    until("90 closed connections", || {
        let lines = history(&daemon)?;
        let closed = lines.iter().filter(|line| line["what"] == "closed" && line["role"] == "client");
        let sum: i64 = closed.filter_map(|line| line["connections"].as_i64()).sum();
        Ok(if sum == 90 { Ok(()) } else { Err(format!("{lines:?}")) })
    })?;
    daemon.stop(Signal::SIGTERM)?;

    let daemon = Daemon::start(&sandbox, &args)?;
    check_then(&snapshot_of(&daemon.ask(&["snapshot", "--at", &at])?)?, pid)?;
    let lines_then = until("a run that began again", || {
        let lines = history(&daemon)?;
        let count = |what: &str| lines.iter().filter(|line| line["what"] == what).count();
        let runs = (count("run_started"), count("run_stopped"));
        Ok(if runs == (2, 1) { Ok(lines) } else { Err(format!("{runs:?}")) })
    })?;
    // It may have opened before the last of them did.
    let is_opening = |line: &&Value| line["finding"]["kind"] == "limit_pressure" && line["change"] == "opened";
    ensure!(lines_then.iter().any(|line| is_opening(&line)), "{lines_then:?}");
    daemon.kill()?;
    check_then(&snapshot_of(&socklife(&["snapshot", "--at", &at, "--state-dir", dir])?)?, pid)?;
    let text = socklife(&["history", "--since", "1h", "--state-dir", dir])?;
    ensure!(text.code == Some(0) && text.stdout.contains("limit_pressure"), "{}{}", text.stdout, text.stderr);

    let daemon = Daemon::start(&sandbox, &[])?;
    for args in [&["history"][..], &["snapshot", "--at", "1h"]] {
        let said = daemon.ask(args)?;
        ensure!(said.code == Some(3) && said.stderr.contains("keeps no history"), "{:?}: {}", said.code, said.stderr);
    }
    daemon.stop(Signal::SIGTERM)
}

/// What `/v1/health` says of the history.
fn health(daemon: &Daemon) -> Result<Value> {
    let mut stream = UnixStream::connect(daemon.socket())?;
    stream.write_all(b"GET /v1/health HTTP/1.1\r\nHost: socklife\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").context("no HTTP")?;
    Ok(serde_json::from_str::<Value>(body)?["history"].clone())
}

fn wait_for_state(daemon: &Daemon, state: &str, why: &str) -> Result<Value> {
    until(&format!("a history that is {state}"), || {
        let health = health(daemon)?;
        let says = health["reason"].as_str().unwrap_or_default().contains(why);
        Ok(if health["state"] == state && says { Ok(health) } else { Err(format!("{health}")) })
    })
}

/// A file that takes all the room there is.
fn fill(path: &PathBuf) -> Result<()> {
    let mut file = fs::File::create(path)?;
    loop {
        match file.write_all(&[1; 4_096]) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
            Err(error) => bail!(error),
        }
    }
    // To the last byte.
    while file.write(&[1]).is_ok_and(|written| written > 0) {}
    Ok(())
}

#[test]
fn a_disk_that_is_full_or_read_only_pauses_the_history_and_nothing_else() -> Result<()> {
    let sandbox = Sandbox::enter()?;
    // Mounts of this thread and of what it starts: they go with them.
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let dir = sandbox.path("small");
    fs::create_dir(&dir)?;
    mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), Some("size=2m"))?;
    let state = dir.to_str().context("a path that is no text")?;
    let _postgres = Postgres::start(&sandbox, 100)?;
    let daemon = Daemon::start(&sandbox, &["--state-dir", state, "--limit", LIMIT])?;
    wait_for_state(&daemon, "recording", "")?;

    let filler = dir.join("filler");
    fill(&filler)?;
    let mut client = Client::start()?;
    // What is written takes room until there is none.
    until("a disk that is full", || {
        client.open(20, "127.0.0.1")?;
        client.run("close 20")?;
        let health = health(&daemon)?;
        Ok(if health["state"] == "paused" { Ok(()) } else { Err(format!("{health}")) })
    })?;
    let told = |daemon: &Daemon| daemon.log().matches("the history is paused").count();
    ensure!(told(&daemon) == 1, "said once: {}", daemon.log());
    client.open(90, "127.0.0.1")?;
    daemon.tail(&[])?.wait_for("pressure at 90 of 100", is_about_pressure)?;
    ensure!(client_side(&daemon.snapshot()?)?["open"] == 90, "tracing goes on");
    until("something that was not kept", || {
        let health = health(&daemon)?;
        Ok(if health["not_kept"].as_i64() > Some(0) { Ok(()) } else { Err(format!("{health}")) })
    })?;

    // The same place, read-only: there is room, and nothing can be written.
    mount(Some(&dir), &dir, none, MsFlags::MS_BIND, none)?;
    mount(none, &dir, none, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none)?;
    wait_for_state(&daemon, "paused", "Read-only file system")?;
    ensure!(told(&daemon) == 1, "said once: {}", daemon.log());
    umount2(&dir, MntFlags::MNT_DETACH)?;
    fs::remove_file(&filler)?;

    wait_for_state(&daemon, "recording", "")?;
    ensure!(daemon.log().contains("the history goes on"), "{}", daemon.log());
    until("a snapshot from after the pause, and the pause itself", || {
        let lines = history(&daemon)?;
        let is_gap = |line: &Value| line["what"] == "gap" && line["kind"] == "paused";
        let then = snapshot_of(&daemon.ask(&["snapshot", "--at", "0s"])?);
        let seen = then.is_ok_and(|then| client_side(&then).is_ok_and(|endpoint| endpoint["open"] == 90));
        Ok(if lines.iter().any(is_gap) && seen { Ok(()) } else { Err(format!("{lines:?}")) })
    })?;
    daemon.stop(Signal::SIGTERM)
}
