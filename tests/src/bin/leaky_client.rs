//! `leaky-client`: opens one database connection a second, runs one query on each, and never closes any.
//!
//! The bug of many post-mortems in its plainest form, for the demo. It keeps trying once the database refuses, as
//! such programs do. What it holds is bounded, and everything it holds goes when it ends.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use socklife_tests::ending::asked_to_end;
use socklife_tests::session::{Opened, Session};
use socklife_tests::wire;
use tokio::time::{MissedTickBehavior, interval, timeout};

const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// A client that leaks database connections.
#[derive(Parser)]
struct Options {
    /// The database, IP:PORT
    #[arg(long)]
    address: SocketAddr,
    /// Time between two connections
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    every: Duration,
    /// Never hold more than this
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1000))]
    max: u16,
    /// End when standard input does
    #[arg(long)]
    until_stdin_ends: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = Options::parse();
    if options.every.is_zero() {
        bail!("--every must be more than nothing");
    }
    tokio::select! {
        result = leak(&options) => result,
        result = asked_to_end(options.until_stdin_ends) => Ok(result?),
    }
}

async fn leak(options: &Options) -> Result<()> {
    let mut held = Vec::with_capacity(usize::from(options.max));
    let mut refused_before = false;
    let mut tick = interval(options.every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tick.tick().await;
        if held.len() >= usize::from(options.max) {
            continue;
        }
        let opened = timeout(ANSWER_WITHIN, open_and_use(options.address)).await;
        let opened = opened.with_context(|| format!("no answer from {}", options.address))?;
        match opened.with_context(|| format!("no session with {}", options.address))? {
            Opened::Session(session) => held.push(session),
            Opened::Refused { sqlstate, message } if sqlstate == wire::TOO_MANY_CONNECTIONS => {
                if !refused_before {
                    eprintln!(
                        "leaky-client: holds {} connections; the database: {}",
                        held.len(),
                        message.escape_debug()
                    );
                }
                refused_before = true;
            }
            Opened::Refused { sqlstate, message } => {
                bail!("refused: {} {}", sqlstate.escape_debug(), message.escape_debug())
            }
        }
    }
}

async fn open_and_use(address: SocketAddr) -> std::io::Result<Opened> {
    let mut opened = Session::open(address, "leaky-client").await?;
    if let Opened::Session(session) = &mut opened {
        session.query("SELECT 1").await?;
    }
    Ok(opened)
}
