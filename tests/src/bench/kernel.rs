//! Time in each kernel program for a connection, by the kernel's own statistics of BPF programs.
//!
//! In rounds of their own, because the statistics make each run slower: they read the clock twice, which is in the
//! figures.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::Size;
use super::figures::{Report, Shuffle};
use super::load::{WORKLOADS, Workload};
use super::stage::{KernelStatistics, Stage};
use super::tracers::{Tracer, Variant, program_ids, programs};

/// Runs and nanoseconds of a tracer's programs, by name.
type Times = BTreeMap<String, (f64, f64)>;

/// Rounds of every tracer.
pub fn measure(stage: &Stage, size: &Size, report: &mut Report) -> Result<()> {
    let _statistics = KernelStatistics::enable()?;
    let mut shuffle = Shuffle::new();
    for round in 1..=size.kernel_rounds {
        let mut variants = size.variants(&[Variant::Socklife, Variant::Tcplife, Variant::Bpftrace]);
        shuffle.shuffle(&mut variants);
        eprintln!("bench: kernel: round {round} of {}", size.kernel_rounds);
        for variant in variants {
            one_variant(stage, size, report, variant).with_context(|| format!("with {}", variant.name()))?;
        }
    }
    Ok(())
}

fn one_variant(stage: &Stage, size: &Size, report: &mut Report, variant: Variant) -> Result<()> {
    let others = program_ids()?;
    let tracer = Tracer::start(stage, variant)?;
    let times = || -> Result<Times> {
        let mut times = Times::new();
        for program in programs()?.into_iter().filter(|program| !others.contains(&program.id)) {
            let time = times.entry(program.name).or_default();
            time.0 += program.runs;
            time.1 += program.run_ns;
        }
        Ok(times)
    };
    for workload in WORKLOADS {
        tracer.until_still()?;
        let before = times()?;
        stage.load(&workload.arguments(workload.count(size), 0))?;
        tracer.until_still()?;
        tell(report, variant, &workload, f64::from(workload.count(size)), &before, &times()?);
    }
    tracer.stop()
}

fn tell(report: &mut Report, variant: Variant, workload: &Workload, count: f64, before: &Times, after: &Times) {
    let figure = |what: &str| format!("kernel/{}/{}/{what}", workload.name, variant.name());
    let (mut all_runs, mut all_ns) = (0.0, 0.0);
    for (name, (runs, ns)) in after {
        let (runs_before, ns_before) = before.get(name).copied().unwrap_or_default();
        let (runs, ns) = (runs - runs_before, ns - ns_before);
        (all_runs, all_ns) = (all_runs + runs, all_ns + ns);
        if runs > 0.0 {
            report.add(figure(&format!("{name}/runs")), "a connection", runs / count);
            report.add(figure(&format!("{name}/run")), "ns", ns / runs);
        }
    }
    report.add(figure("runs"), "a connection", all_runs / count);
    report.add(figure("time"), "ns a connection", all_ns / count);
}
