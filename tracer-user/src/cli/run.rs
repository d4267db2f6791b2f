//! `socklife run`: the daemon, in the foreground.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;

use super::Verdict;
use crate::config::{Config, Overrides};

/// Trace the host's database connections until stopped
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Read this configuration (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Watch a port as this database, or rename one (repeatable)
    #[arg(long = "port", value_name = "PORT=DATABASE")]
    ports: Vec<String>,
    /// The most connections an endpoint takes (repeatable)
    #[arg(long = "limit", value_name = "HOST:PORT=N")]
    limits: Vec<String>,
    /// Set any configuration key, such as detect.window_s=5 (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Keep there what outlives a restart: counts over time, and since when findings are open
    #[arg(long = "state-dir", value_name = "DIR", env = "STATE_DIRECTORY")]
    state_dir: Option<PathBuf>,
    /// Serve /metrics over HTTP at this address, too, to whoever asks
    #[arg(long, value_name = "IP:PORT")]
    metrics: Option<SocketAddr>,
    /// End after this time, such as 30s or 2h
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    run_for: Option<Duration>,
}

pub(super) fn main(args: Args, socket: Option<PathBuf>) -> anyhow::Result<Verdict> {
    let Args { config, ports, limits, set, state_dir, metrics, run_for } = args;
    crate::daemon::memory::keep_little();
    let overrides = Overrides { file: config, set, ports, limits, socket, state_dir, metrics, run_for };
    // Before the runtime: resolving names blocks, and threads that exist keep their privileges.
    let started = crate::daemon::start(Config::load(&overrides)?)?;
    // Two workers: one may be busy with a snapshot while the other drains the ring.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(8)
        .thread_name("socklife")
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let outcome = runtime.block_on(crate::daemon::run(started, overrides));
    // Every task has had its time to end: a name service that hangs gets no more of it.
    runtime.shutdown_background();
    outcome.map(|()| Verdict::Fine)
}
