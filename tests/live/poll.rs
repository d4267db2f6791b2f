//! Without kernel events: the socket table alone, and what it cannot show is not made up.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use socklife_tests::client::Client;
use socklife_tests::look::{conserved, counts};
use socklife_tests::watched::{DATABASE, Watched};

/// Every probe missing, each with a reason that has this word, and the numbers no more than lower bounds.
fn polls(snapshot: &Value, reason: &str) -> Result<()> {
    let capture = &snapshot["capture"];
    ensure!(capture["mode"] == "poll", "mode: {capture}");
    ensure!(capture["completeness"] == "lower_bound" && capture["totals"] == "lower_bound", "{capture}");
    let probes = capture["probes"].as_array().context("no probes")?;
    ensure!(probes.len() > 4, "probes: {capture}");
    for probe in probes {
        ensure!(probe["state"] == "missing", "a hook in poll mode: {probe}");
        ensure!(probe["reason"].as_str().unwrap_or_default().contains(reason), "why not {reason}: {probe}");
    }
    Ok(())
}

fn follows_the_table(watched: &Watched, reason: &str) -> Result<()> {
    let mut client = Client::start()?;
    client.open(5, "127.0.0.1")?;
    let snapshot = watched.agree()?;
    polls(&snapshot, reason)?;
    ensure!(counts(&snapshot, DATABASE, "client")? == (5, 5, 0), "{}", snapshot["endpoints"]);
    for connection in snapshot["connections"].as_array().context("no connections")? {
        ensure!(connection["age"] == "at_least" && connection["opened_at"].is_null(), "an age by guess: {connection}");
        ensure!(connection["opener"].is_null(), "an opener by guess: {connection}");
    }
    for process in snapshot["processes"].as_array().context("no processes")? {
        ensure!(process["accepted_total"].is_null(), "nobody counts accepts: {process}");
    }
    client.run("close 3")?;
    let snapshot = watched.agree()?;
    ensure!(counts(&snapshot, DATABASE, "client")? == (2, 5, 3), "{}", snapshot["endpoints"]);
    for (stage, count) in snapshot["capture"]["loss"].as_object().context("no loss")? {
        ensure!(count == 0, "what only looks can find is not lost: {stage} {count}");
    }
    conserved(&snapshot)
}

#[test]
fn told_to_poll_it_follows_the_socket_table() -> Result<()> {
    let watched = Watched::start(&["--set", "capture.hooks=poll"])?;
    follows_the_table(&watched, "capture.hooks is poll")
}

#[test]
fn a_kernel_without_types_is_polled_and_the_file_named() -> Result<()> {
    let watched = Watched::start(&["--set", "capture.btf=/nonexistent/btf"])?;
    follows_the_table(&watched, "/nonexistent/btf")
}
