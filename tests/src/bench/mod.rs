//! `cargo xtask bench`: what socklife costs, measured beside nothing and beside its peers, in one go.
//!
//! Everything is measured in interleaved rounds in a network namespace of its own, with nothing measured twice as a
//! control, and told as medians with their spread. A section measures and fills the `Report`; it decides nothing.
//! `report` holds the targets and writes. The programs are seen from outside only: commands, JSON, /proc, the kernel's
//! own counters.

mod figures;
mod idle;
mod kernel;
mod latency;
mod load;
mod memory;
mod options;
mod report;
mod scale;
mod stage;
mod tracers;

use anyhow::Result;

pub use options::{Options, Section};

use figures::Report;
use stage::Stage;
use tracers::Variant;

/// How much of everything.
#[derive(Clone, Copy, Debug)]
struct Size {
    /// Whether socklife's peers run beside it.
    peers: bool,
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
    /// Seconds in which the daemon looks at the socket table at least once.
    look_s: u32,
    /// Seconds of idling.
    idle_s: u32,
}

const FULL: Size = Size {
    peers: true,
    load_rounds: 10,
    apart: 30_000,
    together: 60_000,
    syscalls: 2_000_000,
    kernel_rounds: 5,
    closes: 500,
    scale_rounds: 5,
    sockets: &[1_000, 10_000, 100_000],
    look_s: 12,
    idle_s: 30,
};

const QUICK: Size = Size {
    peers: true,
    load_rounds: 2,
    apart: 2_000,
    together: 4_000,
    syscalls: 100_000,
    kernel_rounds: 1,
    closes: 20,
    scale_rounds: 1,
    sockets: &[100, 1_000],
    look_s: 12,
    idle_s: 2,
};

const SMOKE: Size = Size {
    peers: false,
    load_rounds: 1,
    apart: 150,
    together: 150,
    syscalls: 1_000,
    kernel_rounds: 1,
    closes: 3,
    scale_rounds: 1,
    sockets: &[50],
    look_s: 0,
    idle_s: 0,
};

/// Fewer rounds are not written down.
const ROUNDS_LEAST: u16 = 4;

/// Measures, prints the table, and writes what is asked for.
pub fn run(options: &Options) -> Result<()> {
    let stage = Stage::enter()?;
    let mut size = match options {
        Options { smoke: true, .. } => SMOKE,
        Options { quick: true, .. } => QUICK,
        _ => FULL,
    };
    if let Some(rounds) = options.rounds.map(usize::from) {
        (size.load_rounds, size.kernel_rounds, size.scale_rounds) = (rounds, rounds, rounds);
    }
    let mut report = Report::default();
    for (section, measure) in SECTIONS {
        if options.only.is_empty() || options.only.contains(&section) {
            eprintln!("bench: {section:?}");
            measure(&stage, &size, &mut report)?;
        }
    }
    let enough = options.rounds.is_none_or(|rounds| rounds >= ROUNDS_LEAST);
    let whole = !options.quick && !options.smoke && enough && options.only.is_empty();
    report::publish(&report, whole && !options.no_write, options.json.as_deref())
}

impl Size {
    /// Those of `variants` that are measured.
    fn variants(&self, variants: &[Variant]) -> Vec<Variant> {
        variants.iter().copied().filter(|variant| self.peers || !variant.is_peer()).collect()
    }
}

type Measure = fn(&Stage, &Size, &mut Report) -> Result<()>;

const SECTIONS: [(Section, Measure); 6] = [
    (Section::Load, load::measure),
    (Section::Kernel, kernel::measure),
    (Section::Latency, latency::measure),
    (Section::Memory, memory::measure),
    (Section::Scale, scale::measure),
    (Section::Idle, idle::measure),
];
