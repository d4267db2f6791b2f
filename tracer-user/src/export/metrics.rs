//! Counts as OpenMetrics text. Names and labels are what rules and dashboards go by: fixed. How many series there
//! are is bounded; no label is a pid, an address of a client or a command line.

use std::fmt;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tracer_core::event::Role;
use tracer_core::finding::{Kind, Severity};
use tracer_core::snapshot::{Completeness, Endpoint, Loss, Snapshot};
use tracer_core::tracker::GroupOpen;

use crate::daemon::handle::Figures;
use crate::inventory::OwnUse;
use crate::ui::escape::escape;

/// Of [`text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Pairs of an endpoint and a launcher group with series of their own: those with the most connections. The others of an
/// endpoint share one.
pub const PAIRS_MAX: usize = 500;

/// The group of what has no series of its own.
const OTHER: &str = "other";
/// The group where no process is known.
const UNKNOWN: &str = "unknown";

type Labels = Vec<(&'static str, String)>;
/// One of an endpoint's totals.
type Total = fn(&Endpoint) -> u64;

/// The whole text.
pub fn text(figures: &Figures, own: OwnUse) -> Result<String, fmt::Error> {
    let outline = &figures.outline;
    let mut registry = Registry::with_prefix("socklife");
    let build = [
        ("version", outline.host.socklife_version.as_str()),
        ("commit", env!("SOCKLIFE_COMMIT")),
        ("kernel_programs", env!("SOCKLIFE_OBJECT")),
    ];
    let build: Labels = build.map(|(label, value)| (label, value.to_owned())).into();
    registry.register("build", "Which socklife this is", Info::new(build));
    connections(&mut registry, figures.open.clone());
    endpoints(&mut registry, outline);
    findings(&mut registry, outline);
    capture(&mut registry, figures);
    let mut process_registry = Registry::with_prefix("process");
    process(&mut process_registry, outline, own);
    let mut text = String::new();
    encode_registry(&mut text, &registry)?;
    encode_registry(&mut text, &process_registry)?;
    encode_eof(&mut text)?;
    Ok(text)
}

fn connections(registry: &mut Registry, mut all: Vec<GroupOpen>) {
    // The most connections first; equal ones in the order in which they came.
    all.sort_by_key(|one| std::cmp::Reverse(one.states.values().sum::<u64>()));
    let open = Family::<Labels, Gauge>::default();
    for (number, one) in all.iter().enumerate() {
        let group = if number < PAIRS_MAX { one.group.as_deref().unwrap_or(UNKNOWN) } else { OTHER };
        for (state, count) in &one.states {
            let mut labels = place(&one.endpoint, &one.database, one.role);
            labels.extend([("group", clean(group)), ("state", state.name().to_owned())]);
            open.get_or_create(&labels).inc_by(i64::try_from(*count).unwrap_or(i64::MAX));
        }
    }
    registry.register("connections_open", "Live connections, those still connecting included", open);
}

fn endpoints(registry: &mut Registry, snapshot: &Snapshot) {
    let counters: [(&str, &str, Total); 3] = [
        ("connections_opened", "Connections seen open, those found at the start included", |it| it.opened_total),
        ("connections_closed", "Of those, gone", |it| it.closed_total),
        ("connections_failed", "Attempts that were never established", |it| it.failed_total),
    ];
    for (name, help, value) in counters {
        let family = Family::<Labels, Counter>::default();
        for endpoint in &snapshot.endpoints {
            let labels = place(&endpoint.id, &endpoint.database, endpoint.role);
            family.get_or_create(&labels).inc_by(value(endpoint));
        }
        registry.register(name, help, family);
    }
    let limits = Family::<Labels, Gauge>::default();
    for endpoint in &snapshot.endpoints {
        if let Some(limit) = endpoint.limit {
            let mut labels = place(&endpoint.id, &endpoint.database, endpoint.role);
            labels.push(("source", limit.source.name().to_owned()));
            limits.get_or_create(&labels).set(i64::from(limit.value));
        }
    }
    registry.register("endpoint_limit", "The most connections that the database takes, where that is known", limits);
}

fn findings(registry: &mut Registry, snapshot: &Snapshot) {
    let family = Family::<Labels, Gauge>::default();
    let labels = |kind: Kind, severity: Severity| {
        vec![("kind", kind.name().to_owned()), ("severity", severity.name().to_owned())]
    };
    for kind in Kind::ALL {
        for severity in [Severity::Info, Severity::Warning, Severity::Critical] {
            family.get_or_create(&labels(kind, severity)).set(0);
        }
    }
    for finding in snapshot.findings.iter().filter(|finding| finding.ignored.is_none()) {
        family.get_or_create(&labels(finding.kind, finding.severity)).inc();
    }
    registry.register("findings_open", "Open findings", family);
    let ignored = Gauge::<i64>::default();
    ignored.set(i64::from(snapshot.capture.findings_ignored));
    registry.register("findings_ignored", "Open findings that a rule of the configuration says not to tell", ignored);
}

fn capture(registry: &mut Registry, figures: &Figures) {
    let snapshot = &figures.outline;
    let loss = snapshot.capture.loss;
    let records = Family::<Labels, Counter>::default();
    for (kind, count) in &figures.records {
        records.get_or_create(&vec![("kind", (*kind).to_owned())]).inc_by(*count);
    }
    registry.register("capture_events", "Records that the kernel programs handed over", records);
    let lost = Family::<Labels, Counter>::default();
    for (stage, count) in stages(&loss) {
        lost.get_or_create(&vec![("stage", stage.to_owned())]).inc_by(count);
    }
    registry.register("capture_lost", "What was lost, where; what a look at the socket table had to repair", lost);
    let resyncs = Counter::<u64>::default();
    resyncs.inc_by(loss.resyncs);
    registry.register("capture_resyncs", "Looks at the socket table that repaired something", resyncs);
    let exact = Gauge::<i64>::default();
    exact.set(i64::from(snapshot.capture.completeness == Completeness::Exact));
    registry.register(
        "capture_exact",
        "1 while the counts of what is open are exact, 0 while they may be short",
        exact,
    );
}

/// As client libraries name them.
fn process(registry: &mut Registry, snapshot: &Snapshot, own: OwnUse) {
    let gauge = |value: u64| {
        let gauge = Gauge::<i64>::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        gauge
    };
    if let Some(bytes) = own.resident_bytes {
        registry.register("resident_memory_bytes", "Memory of the daemon that is in place", gauge(bytes));
    }
    if let Some(count) = own.open_fds {
        registry.register("open_fds", "Descriptors of the daemon", gauge(count));
    }
    if let Some(used) = own.cpu {
        let seconds = Counter::<f64, AtomicU64>::default();
        seconds.inc_by(used.as_secs_f64());
        registry.register("cpu_seconds", "Time of the daemon on a CPU", seconds);
    }
    let started = Gauge::<f64, AtomicU64>::default();
    #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit 53 bits for 285,000 years")]
    started.set(snapshot.capture.started_at.unix_ms as f64 / 1_000.0);
    registry.register("start_time_seconds", "When tracing began, since 1970", started);
}

/// `ends` are among `ring_full`.
fn stages(loss: &Loss) -> [(&'static str, u64); 11] {
    [
        ("ring_full", loss.ring_full),
        ("read_failed", loss.read_failed),
        ("map_full", loss.map_full),
        ("process_map_full", loss.process_map_full),
        ("accept_map_full", loss.accept_map_full),
        ("program_skipped", loss.program_skipped),
        ("queue_full", loss.queue_full),
        ("decode_errors", loss.decode_errors),
        ("missed_opens", loss.missed_opens),
        ("missed_closes", loss.missed_closes),
        ("tracker_full", loss.tracker_full),
    ]
}

fn place(endpoint: &str, database: &str, role: Role) -> Labels {
    vec![("endpoint", clean(endpoint)), ("database", clean(database)), ("role", role.name().to_owned())]
}

fn clean(text: &str) -> String {
    escape(text).into_owned()
}
