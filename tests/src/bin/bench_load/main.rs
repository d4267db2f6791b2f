//! `bench-load`: the loads that `cargo xtask bench` measures under, each bounded in count, each answering with one line
//! of JSON. It runs in whatever network namespace it is started in and knows nothing of socklife.

mod flood;
mod hold;
mod syscalls;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Loads for the benchmark.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    load: Load,
}

#[derive(Subcommand)]
enum Load {
    /// Connects, sends one byte and closes, at full speed, both ends in this process
    Flood(flood::Options),
    /// Calls getppid at full speed
    Syscalls(syscalls::Options),
    /// Opens sockets and holds them until standard input ends
    Hold(hold::Options),
}

fn main() -> Result<()> {
    match Options::parse().load {
        Load::Flood(options) => flood::flood(&options),
        Load::Syscalls(options) => syscalls::syscalls(&options),
        Load::Hold(options) => hold::hold(&options),
    }
}

/// The CPUs this process may run on, in order.
fn cpus() -> Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0)).context("ask for the CPUs")?;
    let cpus: Vec<usize> = (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu) == Ok(true)).collect();
    ensure!(!cpus.is_empty(), "there is no CPU to run on");
    Ok(cpus)
}

/// Keeps this thread on one CPU.
fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("stay on CPU {cpu}"))
}
