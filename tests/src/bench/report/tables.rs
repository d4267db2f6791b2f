//! The figures as tables: the median of the rounds, and from the smallest to the largest.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::super::figures::{Report, percentile};
use super::super::load::WORKLOADS;
use super::super::tracers::Variant;

/// Shown where nothing was measured.
const NOTHING: &str = "-";
const WATCHERS: [Variant; 4] = [Variant::Socklife, Variant::SocklifeTail, Variant::Tcplife, Variant::Bpftrace];

/// Every section that was measured.
pub fn markdown(report: &Report) -> String {
    let mut text = String::new();
    for (section, table) in [
        ("load/", load as fn(&Report, &mut String)),
        ("kernel/", kernel),
        ("latency/", latency),
        ("memory/", memory),
        ("scale/", scale),
        ("idle/", idle),
    ] {
        if report.figures().any(|(name, _)| name.starts_with(section)) {
            table(report, &mut text);
        }
    }
    text
}

/// "0.97 (0.95..0.99)".
fn cell(report: &Report, name: &str, digits: usize) -> String {
    report.spread(name).map_or_else(
        || NOTHING.to_owned(),
        |figure| format!("{:.digits$} ({:.digits$}..{:.digits$})", figure.median, figure.min, figure.max),
    )
}

fn rounds(report: &Report, name: &str) -> usize {
    report.spread(name).map_or(0, |figure| figure.n)
}

fn row(text: &mut String, cells: impl IntoIterator<Item = String>) {
    for cell in cells {
        // Writing to a string does not fail.
        let _ = write!(text, "| {cell} ");
    }
    text.push_str("|\n");
}

/// The title, what is to be known, and the first two lines of a table.
fn head(text: &mut String, title: &str, about: &str, columns: &[&str]) {
    let _ = write!(text, "\n### {title}\n\n{about}\n\n");
    row(text, columns.iter().map(|column| (*column).to_owned()));
    row(text, columns.iter().map(|_| "---".to_owned()));
}

fn load(report: &Report, text: &mut String) {
    let n = rounds(report, "load/reset/off/connections_per_s");
    let mut about = format!(
        "{n} rounds, the variants of each in another order; connections a second as a share of the mean of the same \
         round's two measurements without anything; the control is one of these against the other.\n"
    );
    for workload in WORKLOADS {
        let _ = write!(about, "\n- {}: {}", workload.name, workload.what);
    }
    let mut columns = vec!["throughput", "off, 1/s", "control"];
    columns.extend(WATCHERS.map(Variant::name));
    head(text, "Throughput", &about, &columns);
    for workload in WORKLOADS {
        let figure = |rest: &str| format!("load/{}/{rest}", workload.name);
        let mut cells = vec![workload.name.to_owned()];
        cells.push(cell(report, &figure("off/connections_per_s"), 0));
        cells.push(cell(report, &figure("control"), 3));
        cells.extend(WATCHERS.map(|variant| cell(report, &figure(&format!("{}/kept", variant.name())), 3)));
        row(text, cells);
    }
    for (title, about, what, digits) in [
        ("Latency of connect(2)", "99th percentile of each round, in microseconds.", "connect_p99", 1),
        (
            "CPU of the tracer's own process",
            "Microseconds a connection, both ends on this host: two sockets, two openings, two ends.",
            "cpu",
            2,
        ),
    ] {
        let variants = if what == "cpu" { &WATCHERS[..] } else { &Variant::ALL[..] };
        let mut columns = vec!["load"];
        columns.extend(variants.iter().map(|variant| variant.name()));
        head(text, title, about, &columns);
        for workload in WORKLOADS {
            let figure = |variant: &Variant| format!("load/{}/{}/{what}", workload.name, variant.name());
            let mut cells = vec![workload.name.to_owned()];
            cells.extend(variants.iter().map(|variant| cell(report, &figure(variant), digits)));
            row(text, cells);
        }
    }
    let mut cells = WORKLOADS.map(|workload| {
        format!("{} {}", workload.name, cell(report, &format!("load/{}/socklife-tail/tail_cpu", workload.name), 2))
    });
    cells.sort();
    let _ = writeln!(text, "\n`socklife tail` itself, in the same unit: {}.", cells.join(", "));
    let columns = ["", "off", "socklife adds", "tcplife adds", "bpftrace adds"];
    head(text, "Every other system call", "Nanoseconds of one getppid(2).", &columns);
    let mut cells = vec!["getppid".to_owned(), cell(report, "load/getppid/off/call", 1)];
    cells.extend(["socklife", "tcplife", "bpftrace"].map(|each| cell(report, &format!("load/getppid/{each}/more"), 1)));
    row(text, cells);
    let about =
        "Of the 1 MiB ring, in the worst round of each load; and what the daemon counted against what there was.";
    head(text, "Loss", about, &["load", "lost", "lost, with tail", "not counted", "not counted, with tail"]);
    for workload in WORKLOADS {
        let worst = |variant: &str, what: &str| {
            let figure = report.spread(&format!("load/{}/{variant}/{what}", workload.name));
            figure.map_or_else(|| NOTHING.to_owned(), |figure| format!("{:.0}", figure.max))
        };
        let cells = [
            ("socklife", "lost"),
            ("socklife-tail", "lost"),
            ("socklife", "uncounted"),
            ("socklife-tail", "uncounted"),
        ];
        row(text, [workload.name.to_owned()].into_iter().chain(cells.map(|(variant, what)| worst(variant, what))));
    }
}

fn kernel(report: &Report, text: &mut String) {
    let n = rounds(report, "kernel/reset/socklife/time");
    let about = format!(
        "{n} rounds. Nanoseconds of all kernel programs for one connection, both ends on this host, by the kernel's \
         statistics of BPF programs; each run contains the statistics' own two readings of the clock."
    );
    let variants = [Variant::Socklife, Variant::Tcplife, Variant::Bpftrace];
    let mut columns = vec!["load"];
    columns.extend(variants.map(Variant::name));
    head(text, "Time in the kernel", &about, &columns);
    for workload in WORKLOADS {
        let mut cells = vec![workload.name.to_owned()];
        cells.extend(
            variants.map(|variant| cell(report, &format!("kernel/{}/{}/time", workload.name, variant.name()), 0)),
        );
        row(text, cells);
    }
    let about = "Runs a connection, and nanoseconds of one run.";
    head(text, "socklife's programs", about, &["program", "load", "runs", "a run, ns"]);
    for workload in WORKLOADS {
        let begin = format!("kernel/{}/socklife/", workload.name);
        let programs: BTreeSet<&str> =
            report.figures().filter_map(|(name, _)| name.strip_prefix(&begin)?.strip_suffix("/run")).collect();
        for program in programs {
            let figure = |what: &str| format!("{begin}{program}/{what}");
            // What a process costs at its beginning and end is not a connection's.
            if report.spread(&figure("runs")).is_some_and(|runs| runs.median >= 0.5) {
                let (runs, time) = (cell(report, &figure("runs"), 1), cell(report, &figure("run"), 0));
                row(text, [program.to_owned(), workload.name.to_owned(), runs, time]);
            }
        }
    }
}

fn latency(report: &Report, text: &mut String) {
    let about = "Milliseconds from before close(2) to the arrival of the line of `tail --events --json` at its reader; \
                 closes come at random times. Busy is beside the load `reset`, of which the tail prints every line too; what a slow reader \
                 misses is told to it in a line of its own.";
    head(
        text,
        "From close to line",
        about,
        &["host", "closes", "median", "99 %", "largest", "lines of these that never came", "lines left out"],
    );
    for when in ["idle", "busy"] {
        let name = format!("latency/{when}/closed");
        let Ok(samples) = report.samples(&name) else { continue };
        let at =
            |percent: f64| percentile(samples, percent).map_or_else(|| NOTHING.to_owned(), |ms| format!("{ms:.2}"));
        let unseen: f64 = report.samples(&format!("latency/{when}/unseen")).map_or(0.0, |all| all.iter().sum());
        let shed = report.spread(&format!("latency/{when}/shed"));
        let shed = shed.map_or_else(|| NOTHING.to_owned(), |lines| format!("{:.0}", lines.max));
        let cells = [samples.len().to_string(), at(50.0), at(99.0), at(100.0), format!("{unseen:.0}"), shed];
        row(text, [when.to_owned()].into_iter().chain(cells));
    }
}

/// The numbers of sockets that a section was measured at.
fn sizes(report: &Report, section: &str) -> BTreeSet<u32> {
    report.figures().filter_map(|(name, _)| name.strip_prefix(section)?.split('/').next()?.parse().ok()).collect()
}

fn memory(report: &Report, text: &mut String) {
    let about = format!(
        "Proportional set size of the daemon: idle {} KiB. What each live connection adds, in bytes, after a look at the \
         socket table; and after a snapshot, whose text the allocator keeps room for. A connection is what the daemon \
         counts as one: a socket on this host.",
        cell(report, "memory/idle/pss", 0)
    );
    let columns = ["live", "KiB", "B each", "KiB after a snapshot", "B each", "not seen"];
    head(text, "Memory", &about, &columns);
    for live in sizes(report, "memory/") {
        let figure = |what: &str, digits: usize| cell(report, &format!("memory/{live}/{what}"), digits);
        let after = [figure("pss_after_snapshot", 0), figure("each_after_snapshot", 0), figure("unseen", 0)];
        row(text, [live.to_string(), figure("pss", 0), figure("each", 0)].into_iter().chain(after));
    }
    let loads =
        ["socklife", "socklife-tail"].map(|each| format!("{each} {}", cell(report, &format!("load/{each}/pss"), 0)));
    if report.spread("load/socklife/pss").is_some() {
        let _ = writeln!(text, "\nAfter a round of every load, in KiB: {}.", loads.join(", "));
    }
}

fn scale(report: &Report, text: &mut String) {
    let about = "Seconds on the clock; below them seconds of CPU, and the share of what `ss -tnp` takes. Ready: from the daemon's start until it knows all sockets and \
                 who holds them. Snapshot: the command and the daemon together; it looks again at everything. Standalone: \
                 without a daemon.";
    let acts = ["ready", "snapshot", "standalone", "ss-tn", "ss-tnp"];
    let columns = ["live sockets", "ready", "snapshot", "standalone", "ss -tn", "ss -tnp"];
    head(text, "Many live sockets", about, &columns);
    for live in sizes(report, "scale/") {
        let mut cells = vec![live.to_string()];
        cells.extend(acts.map(|act| cell(report, &format!("scale/{live}/{act}/wall"), 3)));
        row(text, cells);
        let mut cells = vec!["CPU".to_owned()];
        cells.extend(acts.map(|act| cell(report, &format!("scale/{live}/{act}/cpu"), 3)));
        row(text, cells);
        let mut cells = vec!["of ss -tnp".to_owned()];
        cells.extend(
            ["ready", "snapshot", "standalone"].map(|act| cell(report, &format!("scale/{live}/{act}/of_ss_tnp"), 2)),
        );
        cells.extend([NOTHING.to_owned(), NOTHING.to_owned()]);
        row(text, cells);
    }
}

fn idle(report: &Report, text: &mut String) {
    head(text, "An idle host", "CPU of the daemon, in percent of one core.", &["live sockets", "% of a core"]);
    let sizes = sizes(report, "idle/").into_iter().map(|live| live.to_string());
    for live in ["none".to_owned()].into_iter().chain(sizes) {
        let name = format!("idle/{live}/cpu");
        row(text, [live, cell(report, &name, 3)]);
    }
}
