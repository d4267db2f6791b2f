//! What the daemon costs a host on which nothing happens.

use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::signal::Signal;

use super::Size;
use super::figures::Report;
use super::stage::{Held, Stage, cpu_time, pass, until_still};
use crate::daemon::Daemon;

/// Without any connection, then with live ones that do nothing.
pub fn measure(stage: &Stage, size: &Size, report: &mut Report) -> Result<()> {
    one(stage, size, report, "none")?;
    for sockets in size.sockets {
        let held = Held::open(stage, *sockets)?;
        one(stage, size, report, &sockets.to_string())?;
        held.close()?;
    }
    Ok(())
}

fn one(stage: &Stage, size: &Size, report: &mut Report, sockets: &str) -> Result<()> {
    eprintln!("bench: idle: {sockets} sockets, {} s", size.idle_s);
    let daemon = Daemon::start_plain(stage.sandbox(), &[])?;
    until_still(daemon.pid())?;
    let (before, began) = (cpu_time(daemon.pid())?, Instant::now());
    pass(Duration::from_secs(u64::from(size.idle_s)));
    let used = cpu_time(daemon.pid())?.saturating_sub(before);
    let percent = used.as_secs_f64() / began.elapsed().as_secs_f64() * 100.0;
    report.add(format!("idle/{sockets}/cpu"), "% of a core", percent);
    daemon.stop(Signal::SIGTERM)
}
