//! Reading single facts out of a snapshot or a tail line, with errors that show what was there instead.

use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// One endpoint of a snapshot.
pub fn endpoint<'a>(snapshot: &'a Value, id: &str, role: &str) -> Result<&'a Value> {
    let endpoints = snapshot["endpoints"].as_array().context("no endpoints in the snapshot")?;
    endpoints
        .iter()
        .find(|endpoint| endpoint["id"] == id && endpoint["role"] == role)
        .with_context(|| format!("no endpoint {id} with role {role} in {}", snapshot["endpoints"]))
}

/// Open, opened_total and closed_total of an endpoint.
pub fn counts(snapshot: &Value, id: &str, role: &str) -> Result<(u64, u64, u64)> {
    let endpoint = endpoint(snapshot, id, role)?;
    let number = |key: &str| endpoint[key].as_u64().with_context(|| format!("{key} is no count in {endpoint}"));
    Ok((number("open")?, number("opened_total")?, number("closed_total")?))
}

/// Inode number of the calling thread's network namespace.
pub fn own_netns() -> Result<u64> {
    Ok(std::fs::metadata("/proc/thread-self/ns/net").context("the thread's network namespace")?.ino())
}

/// The connections in the calling thread's network namespace, which is what `ss` shows there.
pub fn own_connections(snapshot: &Value) -> Result<Vec<&Value>> {
    connections_in(snapshot, own_netns()?)
}

/// The connections in one network namespace.
pub fn connections_in(snapshot: &Value, netns: u64) -> Result<Vec<&Value>> {
    let all = snapshot["connections"].as_array().context("no connections in the snapshot")?;
    Ok(all.iter().filter(|connection| connection["netns"] == netns).collect())
}

/// Those of one role.
pub fn connections<'a>(snapshot: &'a Value, role: &str) -> Result<Vec<&'a Value>> {
    Ok(own_connections(snapshot)?.into_iter().filter(|connection| connection["role"] == role).collect())
}

/// Fails unless every connection of that role was opened by `pid`.
pub fn all_opened_by(snapshot: &Value, role: &str, pid: u32) -> Result<()> {
    for connection in connections(snapshot, role)? {
        ensure!(connection["opener"]["pid"] == pid, "opener should be pid {pid}: {connection}");
    }
    Ok(())
}

/// Fails unless nothing was lost on any way, and the daemon says so.
pub fn nothing_lost(snapshot: &Value) -> Result<()> {
    let loss = snapshot["capture"]["loss"].as_object().context("no capture.loss in the snapshot")?;
    for name in ["ring_full", "map_full", "queue_full", "decode_errors", "resyncs"] {
        ensure!(loss.contains_key(name), "capture.loss has no {name}: {loss:?}");
    }
    ensure!(loss.values().all(|count| *count == 0), "something was lost: {loss:?}");
    ensure!(snapshot["capture"]["completeness"] == "exact", "completeness: {}", snapshot["capture"]["completeness"]);
    Ok(())
}

/// Fails unless, at every endpoint, opened = open + closed.
pub fn conserved(snapshot: &Value) -> Result<()> {
    for endpoint in snapshot["endpoints"].as_array().context("no endpoints in the snapshot")? {
        let (id, role) = (endpoint["id"].as_str().unwrap_or_default(), endpoint["role"].as_str().unwrap_or_default());
        let (open, opened, closed) = counts(snapshot, id, role)?;
        ensure!(opened == open + closed, "{id} ({role}): opened {opened}, open {open}, closed {closed}");
    }
    Ok(())
}

/// A number among a finding's evidence.
pub fn evidence(finding: &Value, fact: &str) -> Option<i64> {
    finding["evidence"].as_array()?.iter().find(|evidence| evidence["fact"] == fact)?["value"].as_i64()
}

/// Whether a finding names this process.
pub fn names(finding: &Value, pid: u32) -> bool {
    finding["subject"]["pids"].as_array().is_some_and(|pids| pids.iter().any(|each| *each == pid))
}
