//! What watching costs a load: the rate of connections, the latency of connect(2), the CPU time of the tracer, and
//! whether it saw everything.

use std::time::Duration;

use anyhow::{Context, Result};

use super::Size;
use super::figures::{Report, Shuffle, number};
use super::memory::{losses, pss_kib};
use super::stage::{Stage, words};
use super::tracers::{Tracer, Variant};
use crate::daemon::Daemon;

/// Watched by default.
const WATCHED: u16 = 5432;
/// Nobody's.
const UNWATCHED: u16 = 7999;

/// A load under which every variant is measured.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Its part of a figure's name.
    pub name: &'static str,
    /// What it is, for the reader.
    pub what: &'static str,
    ends: &'static str,
    close: &'static str,
    port: u16,
}

/// The first is the one that is judged.
pub const WORKLOADS: [Workload; 4] = [
    Workload {
        name: "reset",
        what: "client and server in threads of their own, a byte each way, ended by a reset",
        ends: "apart",
        close: "reset",
        port: WATCHED,
    },
    Workload { name: "fin", what: "the same, ended by FIN from both ends", ends: "apart", close: "fin", port: WATCHED },
    Workload {
        name: "together",
        what: "both ends in one thread on each CPU, one byte, a reset: nothing ever waits, every CPU is full",
        ends: "together",
        close: "reset",
        port: WATCHED,
    },
    Workload {
        name: "unwatched",
        what: "as reset, on a port that is no database's",
        ends: "apart",
        close: "reset",
        port: UNWATCHED,
    },
];

impl Workload {
    /// Connections of one round.
    pub fn count(&self, size: &Size) -> u32 {
        if self.ends == "together" { size.together } else { size.apart }
    }

    /// Whether the daemon counts its connections.
    pub fn is_watched(&self) -> bool {
        self.port == WATCHED
    }

    /// Arguments of `bench-load`.
    pub fn arguments(&self, count: u32, warm_up: u32) -> Vec<String> {
        let Self { ends, close, port, .. } = self;
        words(&format!("flood --count {count} --warm-up {warm_up} --ends {ends} --close {close} --port {port}"))
    }
}

/// Rounds of all variants, each round in another order; then the ratios.
pub fn measure(stage: &Stage, size: &Size, report: &mut Report) -> Result<()> {
    let mut shuffle = Shuffle::new();
    for round in 1..=size.load_rounds {
        let mut variants = size.variants(&Variant::ALL);
        shuffle.shuffle(&mut variants);
        eprintln!("bench: load: round {round} of {}: {}", size.load_rounds, names(&variants));
        for variant in variants {
            one_variant(stage, size, report, variant).with_context(|| format!("with {}", variant.name()))?;
        }
    }
    WORKLOADS.iter().try_for_each(|workload| ratios(report, size, workload.name))?;
    syscall_costs(report, size)
}

fn names(variants: &[Variant]) -> String {
    variants.iter().map(|variant| variant.name()).collect::<Vec<_>>().join(", ")
}

fn one_variant(stage: &Stage, size: &Size, report: &mut Report, variant: Variant) -> Result<()> {
    let tracer = Tracer::start(stage, variant)?;
    let mut watched = 0;
    for workload in WORKLOADS {
        let count = workload.count(size);
        let warm_up = count / 15;
        tracer.until_still()?;
        let before = (tracer.cpu_time()?, tracer.reader_cpu_time()?);
        let measured = stage.load(&workload.arguments(count, warm_up))?;
        tracer.until_still()?;
        let used = tracer.cpu_time()?.saturating_sub(before.0);
        let reader_used = tracer.reader_cpu_time()?.saturating_sub(before.1);

        let figure = |what: &str| format!("load/{}/{}/{what}", workload.name, variant.name());
        report.add(figure("connections_per_s"), "1/s", number(&measured, "/connections_per_s")?);
        report.add(figure("connect_p50"), "us", number(&measured, "/connect_ns/p50")? / 1e3);
        report.add(figure("connect_p99"), "us", number(&measured, "/connect_ns/p99")? / 1e3);
        let each = |used: Duration| used.as_secs_f64() * 1e6 / f64::from(count + warm_up);
        if tracer.pid().is_some() {
            report.add(figure("cpu"), "us a connection", each(used));
        }
        if variant == Variant::SocklifeTail {
            report.add(figure("tail_cpu"), "us a connection", each(reader_used));
        }
        if workload.is_watched() {
            watched += u64::from(count + warm_up);
        }
        if let Some(daemon) = tracer.daemon() {
            let (lost, uncounted) = account(daemon, watched)?;
            report.add(figure("lost"), "events", lost);
            report.add(figure("uncounted"), "connections", uncounted);
        }
    }
    let measured = stage.load(&words(&format!("syscalls --count {}", size.syscalls)))?;
    report.add(format!("load/getppid/{}/call", variant.name()), "ns", number(&measured, "/ns_per_call")?);
    if let Some(daemon) = tracer.daemon() {
        report.add(format!("load/{}/pss", variant.name()), "KiB", pss_kib(daemon.pid())?);
    }
    tracer.stop()
}

/// What the daemon says it lost, and by how much what it counted differs from `expected` connections with both ends
/// on this host.
pub fn account(daemon: &Daemon, expected: u64) -> Result<(f64, f64)> {
    let snapshot = daemon.snapshot()?;
    let lost = losses(&snapshot)?;
    let sum = |field: &str| -> f64 {
        let endpoints = snapshot["endpoints"].as_array().into_iter().flatten();
        endpoints.filter_map(|endpoint| endpoint[field].as_f64()).sum()
    };
    let both_ends = 2.0 * expected as f64;
    Ok((lost, (sum("opened_total") - both_ends).abs() + (sum("closed_total") - both_ends).abs()))
}

/// Each variant's rate against the mean of the same round's two without anything, and its cost against tcplife's.
fn ratios(report: &mut Report, size: &Size, workload: &str) -> Result<()> {
    let rate = |variant: Variant| format!("load/{workload}/{}/connections_per_s", variant.name());
    let off = format!("load/{workload}/off/connections_per_s");
    report.pair(&off, "1/s", [&rate(Variant::OffA), &rate(Variant::OffB)], f64::midpoint)?;
    let control = format!("load/{workload}/control");
    report.pair(&control, "of off", [&rate(Variant::OffB), &rate(Variant::OffA)], |b, a| b / a)?;
    for variant in size.variants(&[Variant::Socklife, Variant::SocklifeTail, Variant::Tcplife, Variant::Bpftrace]) {
        let kept = format!("load/{workload}/{}/kept", variant.name());
        report.pair(&kept, "of off", [&rate(variant), &off], |with, without| with / without)?;
    }
    if !size.peers {
        return Ok(());
    }
    for variant in [Variant::Socklife, Variant::SocklifeTail] {
        let kept = |variant: Variant| format!("load/{workload}/{}/kept", variant.name());
        let cost = format!("load/{workload}/{}/cost", variant.name());
        report.pair(&cost, "of what tcplife costs", [&kept(variant), &kept(Variant::Tcplife)], |ours, theirs| {
            (1.0 - ours) / (1.0 - theirs)
        })?;
    }
    Ok(())
}

/// What every other system call of the host pays.
fn syscall_costs(report: &mut Report, size: &Size) -> Result<()> {
    let call = |variant: Variant| format!("load/getppid/{}/call", variant.name());
    report.pair("load/getppid/off/call", "ns", [&call(Variant::OffA), &call(Variant::OffB)], f64::midpoint)?;
    for variant in size.variants(&[Variant::Socklife, Variant::Tcplife, Variant::Bpftrace]) {
        let more = format!("load/getppid/{}/more", variant.name());
        report.pair(&more, "ns", [&call(variant), "load/getppid/off/call"], |with, without| with - without)?;
    }
    Ok(())
}
