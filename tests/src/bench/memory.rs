//! Memory of the daemon: idle, and what each live connection adds. A connection here is what the daemon counts as one:
//! a socket on this host. Of a loopback connection it sees both.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Size;
use super::figures::Report;
use super::stage::{Held, Stage, pass, until_still};
use crate::daemon::Daemon;

/// Most rounds, each with a daemon of its own: an allocator keeps what it once had. They differ little.
const MOST_ROUNDS: usize = 3;
/// Enough for all sockets on the kernel's side; the default is for 65,536.
const MAP: &str = "capture.map_entries=262144";

/// Growth of the proportional set size by number of live connections.
pub fn measure(stage: &Stage, size: &Size, report: &mut Report) -> Result<()> {
    for sockets in size.sockets {
        for round in 1..=MOST_ROUNDS.min(size.scale_rounds) {
            eprintln!("bench: memory: {sockets} sockets, round {round}");
            one_round(stage, size, *sockets, report)?;
        }
    }
    Ok(())
}

fn one_round(stage: &Stage, size: &Size, sockets: u32, report: &mut Report) -> Result<()> {
    let daemon = Daemon::start_plain(stage.sandbox(), &["--set", MAP])?;
    until_still(daemon.pid())?;
    let idle = pss_kib(daemon.pid())?;
    report.add("memory/idle/pss", "KiB", idle);
    let held = Held::open(stage, sockets)?;
    // Who holds what is learned from a look.
    pass(Duration::from_secs(u64::from(size.look_s)));
    until_still(daemon.pid())?;
    let each = |pss: f64| (pss - idle) * 1024.0 / f64::from(held.sockets());
    let live = pss_kib(daemon.pid())?;
    report.add(format!("memory/{sockets}/pss"), "KiB", live);
    report.add(format!("memory/{sockets}/each"), "B a live connection", each(live));

    let snapshot = daemon.snapshot()?;
    let seen = snapshot["connections"].as_array().map(Vec::len).context("no connections in the snapshot")?;
    report.add(format!("memory/{sockets}/unseen"), "connections", f64::from(held.sockets()) - seen as f64);
    report.add(format!("memory/{sockets}/lost"), "events", losses(&snapshot)?);
    until_still(daemon.pid())?;
    let after = pss_kib(daemon.pid())?;
    report.add(format!("memory/{sockets}/pss_after_snapshot"), "KiB", after);
    report.add(format!("memory/{sockets}/each_after_snapshot"), "B a live connection", each(after));
    held.close()?;
    daemon.stop(nix::sys::signal::Signal::SIGTERM)
}

/// All that a snapshot says was lost.
pub fn losses(snapshot: &Value) -> Result<f64> {
    let loss = snapshot["capture"]["loss"].as_object().context("no loss in the snapshot")?;
    let sum = loss.values().filter_map(Value::as_f64).sum();
    if sum > 0.0 {
        eprintln!("bench: lost: {}", snapshot["capture"]["loss"]);
    }
    Ok(sum)
}

/// Proportional set size of a process, in KiB (Documentation/filesystems/proc.rst).
pub fn pss_kib(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).with_context(|| format!("no Pss in {path}"))?;
    let number = line.split_whitespace().next().with_context(|| format!("no number in {line:?}"))?;
    number.parse().with_context(|| format!("not a number: {number:?}"))
}
