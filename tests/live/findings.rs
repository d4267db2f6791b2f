//! The two findings, through `tail --json` and `snapshot`, made by real clients and a real PostgreSQL.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use socklife_tests::client::{Client, ports_of};
use socklife_tests::daemon::{Daemon, Tail};
use socklife_tests::look::{evidence, names};
use socklife_tests::pace::patience;
use socklife_tests::program::until;
use socklife_tests::watched::{DATABASE, Watched};

/// Findings of a kind that are open in a snapshot.
fn open_findings(snapshot: &Value, kind: &str) -> Result<Vec<Value>> {
    let findings = snapshot["findings"].as_array().context("no findings in the snapshot")?;
    Ok(findings.iter().filter(|each| each["kind"] == kind && each["status"] == "open").cloned().collect())
}

/// What a person needs at 3 a.m. is there.
fn complete(finding: &Value) -> Result<()> {
    ensure!(finding["schema"] == "socklife.finding/v1", "schema: {finding}");
    for key in ["id", "summary", "remedy", "verify", "first_seen", "last_seen"] {
        ensure!(finding[key].as_str().is_some_and(|text| !text.is_empty()), "{key} is missing: {finding}");
    }
    let confidence = finding["confidence"].as_f64().context("no confidence")?;
    ensure!(confidence > 0.0 && confidence <= 1.0, "confidence {confidence}: {finding}");
    Ok(())
}

/// Waits until the snapshot has no open finding of the kind.
fn wait_until_clear(daemon: &Daemon, kind: &str) -> Result<()> {
    until(&format!("no open {kind}"), || {
        let open = open_findings(&daemon.snapshot()?, kind)?;
        Ok(if open.is_empty() { Ok(()) } else { Err(format!("{open:#?}")) })
    })
}

/// Reads on until as many findings have resolved as `opened` has.
fn wait_until_resolved(tail: &mut Tail, opened: &[String]) -> Result<()> {
    let mut left: Vec<&String> = opened.iter().collect();
    let deadline = Instant::now() + patience();
    while !left.is_empty() {
        let line = tail.next(deadline).with_context(|| format!("waiting for {left:?} to resolve"))?;
        if line["change"] == "resolved" {
            ensure!(line["status"] == "resolved", "resolved, yet its status is {}: {line}", line["status"]);
            left.retain(|id| line["id"] != **id);
        }
    }
    Ok(())
}

/// Ids of the findings a tail has shown, each once.
fn ids(tail: &Tail) -> Vec<String> {
    let mut ids: Vec<String> = tail.seen().iter().filter_map(|line| line["id"].as_str().map(str::to_owned)).collect();
    ids.sort();
    ids.dedup();
    ids
}

#[test]
fn limit_pressure_at_96_of_100() -> Result<()> {
    let watched = Watched::start(&["--limit", "127.0.0.1:5432=100"])?;
    let mut tail = watched.daemon.tail(&["--kind", "limit_pressure"])?;
    let mut client = Client::start()?;

    client.open(50, "127.0.0.1")?;
    let snapshot = watched.agree()?;
    ensure!(
        open_findings(&snapshot, "limit_pressure")?.is_empty(),
        "50 of 100 is no pressure: {}",
        snapshot["findings"]
    );

    client.open(35, "127.0.0.1")?;
    let warning = tail.wait_for("a warning at 85 of 100", |line| {
        line["severity"] == "warning" && evidence(line, "open") == Some(85) && names(line, client.pid())
    })?;
    complete(&warning)?;
    // The daemon has judged the endpoint since it held 50: nothing may have been said below the threshold.
    let early = tail.seen().iter().find(|line| evidence(line, "open") < Some(80));
    ensure!(early.is_none(), "said below 80 of 100: {early:?}");
    let critical = tail.seen().iter().find(|line| line["severity"] == "critical");
    ensure!(critical.is_none(), "critical at 85 of 100 or less: {critical:?}");

    client.open(11, "127.0.0.1")?;
    let critical = tail.wait_for("critical at 96 of 100", |line| {
        line["severity"] == "critical" && evidence(line, "open") == Some(96) && names(line, client.pid())
    })?;
    complete(&critical)?;
    ensure!(critical["kind"] == "limit_pressure" && critical["status"] == "open", "{critical}");
    ensure!(evidence(&critical, "limit") == Some(100), "limit 100 is not in the evidence: {critical}");
    ensure!(critical["subject"]["endpoint"] == DATABASE, "subject: {critical}");
    ensure!(critical["id"] == warning["id"], "the same problem changed its id: {warning} then {critical}");
    let snapshot = watched.agree()?;
    let open = open_findings(&snapshot, "limit_pressure")?;
    let same = open.iter().find(|each| each["id"] == critical["id"]).context("the snapshot has no such finding")?;
    ensure!(same["severity"] == "critical" && evidence(same, "open") == Some(96), "in the snapshot: {same}");

    let opened = ids(&tail);
    client.run("close 96")?;
    wait_until_resolved(&mut tail, &opened)?;
    wait_until_clear(&watched.daemon, "limit_pressure")
}

#[test]
fn close_wait_leak_names_the_process_that_never_closes() -> Result<()> {
    let watched = Watched::start(&["--set", "detect.close_wait_leak.after_s=2"])?;
    let mut tail = watched.daemon.tail(&["--kind", "close_wait_leak"])?;
    let (mut leaker, mut tidy) = (Client::start()?, Client::start()?);
    let leaked = leaker.open(3, "127.0.0.1")?;
    leaker.open(1, "127.0.0.1")?;
    let handled = tidy.open(4, "127.0.0.1")?;
    watched.agree()?;

    // The look-alike first: whatever is said of it would be said before the leak.
    tidy.tell("reap 4")?;
    watched.postgres.terminate(&handled)?;
    ensure!(ports_of(&tidy.answer()?)?.len() == 4, "the tidy client did not close its four");
    watched.postgres.terminate(&leaked)?;

    let finding = tail
        .wait_for("the leak of three", |line| names(line, leaker.pid()) && evidence(line, "close_wait") == Some(3))?;
    complete(&finding)?;
    ensure!(finding["kind"] == "close_wait_leak" && finding["status"] == "open", "{finding}");
    ensure!(finding["subject"]["pids"] == serde_json::json!([leaker.pid()]), "subject: {finding}");
    ensure!(finding["subject"]["endpoint"] == DATABASE, "subject: {finding}");
    let wrong = tail.seen().iter().find(|line| names(line, tidy.pid()));
    ensure!(wrong.is_none(), "a client that closes at once was named: {wrong:?}");
    let snapshot = watched.agree()?;
    let open = open_findings(&snapshot, "close_wait_leak")?;
    ensure!(open.len() == 1 && open[0]["id"] == finding["id"], "findings: {open:#?}");

    leaker.run("close 3")?;
    let resolved = tail.wait_for("its end", |line| line["change"] == "resolved")?;
    ensure!(resolved["id"] == finding["id"] && resolved["status"] == "resolved", "{resolved}");
    wait_until_clear(&watched.daemon, "close_wait_leak")
}
