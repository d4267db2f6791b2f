//! What a system call costs while syscall tracepoints are watched: getppid, which does next to nothing itself.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context, Result};
use nix::unistd::getppid;
use serde_json::json;

use crate::{cpus, pin};

#[derive(clap::Args)]
pub struct Options {
    /// Calls in all
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000_000))]
    count: u32,
}

pub fn syscalls(options: &Options) -> Result<()> {
    pin(*cpus()?.last().context("no CPU")?)?;
    for _ in 0..options.count / 10 {
        black_box(getppid());
    }
    let began = Instant::now();
    for _ in 0..options.count {
        black_box(getppid());
    }
    let took = began.elapsed();
    println!(
        "{}",
        json!({ "calls": options.count, "ns_per_call": took.as_secs_f64() * 1e9 / f64::from(options.count) })
    );
    Ok(())
}
