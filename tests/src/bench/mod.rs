//! `cargo xtask bench`: what socklife costs, measured beside nothing and beside its peers, in one go.
//!
//! Everything is measured in interleaved rounds in a network namespace of its own, with nothing measured twice as a
//! control, and told as medians with their spread. A section measures and fills the `Report`; it decides nothing.
//! `report` holds the targets and writes. The programs are seen from outside only: commands, JSON, /proc, the kernel's
//! own counters.

mod figures;
mod kernel;
mod load;
mod memory;
mod report;
mod stage;
mod tracers;

use std::path::PathBuf;

use anyhow::Result;

use figures::Report;
use stage::Stage;

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

/// Flags of the command.
#[derive(clap::Args)]
pub struct Options {
    /// Few rounds and small loads, to try it: the figures mean little
    #[arg(long)]
    quick: bool,
    /// Only this section; repeatable
    #[arg(long, value_enum)]
    only: Vec<Section>,
    /// Leave docs/benchmarks.md and docs/benchmarks.json as they are
    #[arg(long)]
    no_write: bool,
    /// Write the figures, as JSON, into this file too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// How much of everything.
#[derive(Clone, Copy, Debug)]
struct Size {
    /// Rounds of the load, each with every variant.
    load_rounds: usize,
    /// Connections of a flood between two threads.
    apart: u32,
    /// Connections of a flood within each thread.
    together: u32,
    /// System calls of one measurement.
    syscalls: u32,
    /// Rounds with the kernel's statistics on.
    kernel_rounds: usize,
    /// Closes of which the way to the printed line is timed.
    closes: u32,
    /// Rounds at each number of sockets.
    scale_rounds: usize,
    /// Live sockets.
    sockets: &'static [u32],
    /// Seconds of idling.
    idle_s: u32,
}

const FULL: Size = Size {
    load_rounds: 10,
    apart: 30_000,
    together: 60_000,
    syscalls: 2_000_000,
    kernel_rounds: 5,
    closes: 500,
    scale_rounds: 5,
    sockets: &[1_000, 10_000, 100_000],
    idle_s: 30,
};

const QUICK: Size = Size {
    load_rounds: 2,
    apart: 2_000,
    together: 4_000,
    syscalls: 100_000,
    kernel_rounds: 1,
    closes: 20,
    scale_rounds: 1,
    sockets: &[100, 1_000],
    idle_s: 2,
};

/// Measures, prints the table, and writes what is asked for.
pub fn run(options: &Options) -> Result<()> {
    let stage = Stage::enter()?;
    let size = if options.quick { QUICK } else { FULL };
    let mut report = Report::new(size.load_rounds);
    for (section, measure) in SECTIONS {
        if options.only.is_empty() || options.only.contains(&section) {
            eprintln!("bench: {section:?}");
            measure(&stage, &size, &mut report)?;
        }
    }
    let whole = !options.quick && options.only.is_empty();
    report::publish(&report, whole && !options.no_write, options.json.as_deref())
}

type Measure = fn(&Stage, &Size, &mut Report) -> Result<()>;

const SECTIONS: [(Section, Measure); 2] = [(Section::Load, load::measure), (Section::Kernel, kernel::measure)];
