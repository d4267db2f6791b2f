//! What the benchmark can be told on its command line. `cargo xtask bench` has this file too, so that it can check and
//! explain before anything is built: clap and the standard library only.

use std::path::PathBuf;

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Section {
    /// Throughput, connect latency, CPU of the daemon, loss: with nothing, socklife and its peers
    Load,
    /// Time in each kernel program
    Kernel,
    /// From close to printed line
    Latency,
    /// Memory of the daemon, by live connections
    Memory,
    /// Back-fill and snapshot, by live sockets
    Scale,
    /// The daemon on an idle host
    Idle,
}

/// Measures what socklife costs. Needs root.
#[derive(clap::Parser)]
pub struct Options {
    /// Few rounds and small loads, to try it: the figures mean little
    #[arg(long)]
    pub(super) quick: bool,
    /// As little as there is, and without the peers: what the tests run
    #[arg(long, hide = true)]
    pub(super) smoke: bool,
    /// Only this section; repeatable
    #[arg(long, value_enum, value_name = "SECTION")]
    pub(super) only: Vec<Section>,
    /// So many rounds of everything that is done in rounds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(super) rounds: Option<u16>,
    /// Leave docs/benchmarks.md and docs/benchmarks.json as they are, which --quick, --only and fewer than 4 rounds do too
    #[arg(long)]
    pub(super) no_write: bool,
    /// Write the figures, as JSON, into this file too
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
}
