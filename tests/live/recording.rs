//! A recording of a real run, replayed: what the daemon said at its end, pid for pid and port for port.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use socklife_tests::client::Client;
use socklife_tests::daemon::{snapshot_of, socklife};
use socklife_tests::look::nothing_lost;
use socklife_tests::pace::patience;
use socklife_tests::program::{Program, command};
use socklife_tests::sandbox::socklife_binary;
use socklife_tests::watched::Watched;

/// By endpoint and side: open, opened and closed since the first snapshot, failed.
fn counts(snapshot: &Value) -> Result<BTreeMap<String, [u64; 4]>> {
    let endpoints = snapshot["endpoints"].as_array().context("no endpoints")?;
    let keys = ["open", "opened_total", "closed_total", "failed_total"];
    let of = |endpoint: &Value| keys.map(|key| endpoint[key].as_u64().unwrap_or(u64::MAX));
    Ok(endpoints.iter().map(|each| (format!("{} {}", each["id"], each["role"]), of(each))).collect())
}

/// What both snapshots have to say of each connection; ages and idle times are as of different moments.
fn connections(snapshot: &Value) -> Result<BTreeMap<String, Value>> {
    let all = snapshot["connections"].as_array().context("no connections")?;
    let keys =
        ["netns", "endpoint", "database", "role", "state", "age", "opener", "holders", "bytes_sent", "bytes_received"];
    let of = |each: &Value| keys.iter().map(|key| ((*key).to_owned(), each[*key].clone())).collect();
    Ok(all.iter().map(|each| (format!("{} {}", each["local"], each["remote"]), Value::Object(of(each)))).collect())
}

/// By pid: who it is, whether it lives, and what it holds.
fn processes(snapshot: &Value) -> Result<BTreeMap<u64, Value>> {
    let all = snapshot["processes"].as_array().context("no processes")?;
    let keys = ["comm", "exe", "script", "ppid", "uid", "user", "launcher_group", "alive"];
    let held = |each: &Value| -> Option<Vec<Value>> {
        let keys = ["endpoint", "open", "opened_total", "closed_total"];
        let of = |held: &Value| keys.iter().map(|key| held[*key].clone()).collect();
        Some(each["connections"].as_array()?.iter().map(of).collect())
    };
    let of = |each: &Value| {
        let mut facts: Vec<Value> = keys.iter().map(|key| each[*key].clone()).collect();
        facts.extend(held(each).unwrap_or_default());
        Some((each["pid"].as_u64()?, Value::Array(facts)))
    };
    Ok(all.iter().filter_map(of).collect())
}

#[test]
fn a_replay_ends_in_what_the_daemon_said() -> Result<()> {
    let watched = Watched::start(&[])?;
    // Connections that are older than the recording: who opened them is in it all the same.
    let mut old = Client::start()?;
    old.open(3, "127.0.0.1")?;
    watched.agree()?;

    let file = watched.sandbox.path("run.rec");
    let path = file.to_str().context("the path is no text")?;
    let mut record = command(socklife_binary()?);
    record.args(["record", "-o", path, "--socket"]).arg(watched.daemon.socket());
    let mut record = Program::start("socklife record", record)?;
    record.err_line("the line that it records", |line| line.contains("recording to"))?;

    let (mut leaker, mut tidy) = (Client::start()?, Client::start()?);
    leaker.open(4, "127.0.0.1")?;
    tidy.open(5, "127.0.0.1")?;
    leaker.open(4, "::1")?;
    tidy.run("close 2")?;
    tidy.run("abort 1")?;
    let mut victim = Client::start()?;
    victim.open(2, "127.0.0.1")?;
    watched.agree()?;
    victim.kill()?;
    leaker.run("query 3")?;

    let said = watched.agree()?;
    nothing_lost(&said)?;
    ensure!(connections(&said)?.len() == 2 * 13, "not 13 connections with both ends: {said}");
    // What the daemon told before it stops arrives.
    watched.daemon.stop(Signal::SIGTERM)?;
    let status = record.wait(patience())?;
    ensure!(status.code() == Some(0), "socklife record ended with {status}; it said:\n{}", record.log());
    let summary = record.err_line("the summary", |line| line.contains("recorded"))?;
    ensure!(summary.ends_with("nothing lost; the daemon has stopped"), "{summary}");

    let first = socklife(&["replay", path])?;
    ensure!(first.stderr.is_empty(), "{}", first.stderr);
    let replayed = snapshot_of(&first)?;
    nothing_lost(&replayed)?;
    for key in ["hostname", "boot_id", "kernel"] {
        ensure!(replayed["host"][key] == said["host"][key], "{key}: {} is not {}", replayed["host"], said["host"]);
    }
    let (counted, wanted) = (counts(&replayed)?, counts(&said)?);
    ensure!(counted == wanted, "replayed: {counted:#?}\nthe daemon: {wanted:#?}");
    let (found, wanted) = (connections(&replayed)?, connections(&said)?);
    ensure!(found == wanted, "replayed: {found:#?}\nthe daemon: {wanted:#?}");
    let (found, wanted) = (processes(&replayed)?, processes(&said)?);
    ensure!(found == wanted, "replayed: {found:#?}\nthe daemon: {wanted:#?}");
    ensure!(socklife(&["replay", path])?.stdout == first.stdout, "a second replay says something else");
    Ok(())
}
