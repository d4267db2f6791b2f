//! Many live sockets: how long the daemon takes until it knows them all and who holds them, and what a snapshot costs,
//! beside `ss`.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::signal::Signal;
use nix::sys::time::TimeValLike;

use super::Size;
use super::figures::{Report, Shuffle};
use super::stage::{Held, Stage, cpu_time, null, until_still};
use crate::daemon::Daemon;
use crate::program::command;
use crate::sandbox::socklife_binary;

/// What is timed.
#[derive(Clone, Copy, Debug)]
enum Act {
    Daemon,
    Standalone,
    Ss(&'static str),
}

/// Rounds at each number of sockets, each round in another order; then daemon against `ss`.
pub fn measure(stage: &Stage, size: &Size, report: &mut Report) -> Result<()> {
    let mut shuffle = Shuffle::new();
    for sockets in size.sockets {
        let held = Held::open(stage, *sockets)?;
        for round in 1..=size.scale_rounds {
            eprintln!("bench: scale: {sockets} sockets, round {round} of {}", size.scale_rounds);
            let mut acts = [Act::Daemon, Act::Standalone, Act::Ss("-tn"), Act::Ss("-tnp")];
            shuffle.shuffle(&mut acts);
            for act in acts {
                one(stage, report, act, *sockets, held.sockets()).with_context(|| format!("{act:?}"))?;
            }
        }
        held.close()?;
        let wall = |what: &str| format!("scale/{sockets}/{what}/wall");
        for what in ["ready", "snapshot", "standalone"] {
            let ratio = format!("scale/{sockets}/{what}/of_ss_tnp");
            report.pair(&ratio, "of ss -tnp", [&wall(what), &wall("ss-tnp")], |ours, theirs| ours / theirs)?;
        }
    }
    Ok(())
}

fn one(stage: &Stage, report: &mut Report, act: Act, sockets: u32, held: u32) -> Result<()> {
    let mut tell = |what: &str, took: Duration, used: Duration| {
        report.add(format!("scale/{sockets}/{what}/wall"), "s", took.as_secs_f64());
        report.add(format!("scale/{sockets}/{what}/cpu"), "s", used.as_secs_f64());
    };
    match act {
        Act::Ss(flags) => {
            let (took, used) = timed("ss", &[flags])?;
            tell(&format!("ss{flags}"), took, used);
        }
        Act::Standalone => {
            let (took, used) = timed(&socklife_binary()?.to_string_lossy(), &["snapshot", "--standalone"])?;
            tell("standalone", took, used);
        }
        Act::Daemon => {
            let began = Instant::now();
            let daemon = Daemon::start_plain(stage.sandbox(), &[])?;
            let took = began.elapsed();
            tell("ready", took, cpu_time(daemon.pid())?);
            until_still(daemon.pid())?;
            let before = cpu_time(daemon.pid())?;
            let socket = daemon.socket().to_string_lossy().into_owned();
            let (took, client) = timed(&socklife_binary()?.to_string_lossy(), &["snapshot", "--socket", &socket])?;
            until_still(daemon.pid())?;
            tell("snapshot", took, client + cpu_time(daemon.pid())?.saturating_sub(before));

            let snapshot = daemon.snapshot()?;
            let seen = snapshot["connections"].as_array().context("no connections in the snapshot")?;
            let with_holders = seen.iter().filter(|each| each["holders"].as_array().is_some_and(|all| !all.is_empty()));
            let nobodys = f64::from(held) - with_holders.count() as f64;
            report.add(format!("scale/{sockets}/without_holder"), "sockets", nobodys);
            daemon.stop(Signal::SIGTERM)?;
        }
    }
    Ok(())
}

/// Runs a command whose output nobody reads; its time and its CPU time.
fn timed(program: &str, args: &[&str]) -> Result<(Duration, Duration)> {
    let mut command = command(program);
    command.args(args).stdin(Stdio::null()).stdout(null()?);
    let before = children_cpu()?;
    let began = Instant::now();
    let status = command.status().with_context(|| format!("start {command:?}"))?;
    let took = began.elapsed();
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok((took, children_cpu()?.saturating_sub(before)))
}

/// CPU time of all children that have ended.
fn children_cpu() -> Result<Duration> {
    let used: Usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros = (used.user_time() + used.system_time()).num_microseconds();
    Ok(Duration::from_micros(u64::try_from(micros)?))
}
