//! A snapshot as OpenMetrics text. Names and labels are what rules and dashboards go by: fixed. How many series there
//! are is bounded; no label is a pid, an address of a client or a command line.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tracer_core::event::Role;
use tracer_core::finding::{Kind, Severity};
use tracer_core::snapshot::{Completeness, Connection, Endpoint, Loss, Snapshot};
use tracer_core::tcp::TcpState;

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
/// Connections by state.
type States = BTreeMap<TcpState, i64>;

/// The whole text.
pub fn text(snapshot: &Snapshot) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("socklife");
    let version = vec![("version", snapshot.host.socklife_version.clone())];
    registry.register("build", "Which socklife this is", Info::new(version));
    connections(&mut registry, snapshot);
    endpoints(&mut registry, snapshot);
    findings(&mut registry, snapshot);
    capture(&mut registry, snapshot);
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

fn connections(registry: &mut Registry, snapshot: &Snapshot) {
    let groups = groups_by_pid(snapshot);
    let mut pairs = BTreeMap::<(&str, Role, &str, &str), States>::new();
    for connection in &snapshot.connections {
        let group = responsible(connection).map_or(UNKNOWN, |pid| groups.get(&pid).copied().unwrap_or(UNKNOWN));
        let pair = (connection.endpoint.as_str(), connection.role, connection.database.as_str(), group);
        *pairs.entry(pair).or_default().entry(connection.state).or_default() += 1;
    }
    let mut pairs: Vec<_> = pairs.into_iter().collect();
    // The most connections first; equal ones by name.
    pairs.sort_by_key(|(_, states)| std::cmp::Reverse(states.values().sum::<i64>()));
    let open = Family::<Labels, Gauge>::default();
    for (number, ((endpoint, role, database, group), states)) in pairs.into_iter().enumerate() {
        let group = if number < PAIRS_MAX { group } else { OTHER };
        for (state, count) in states {
            let mut labels = place(endpoint, database, role);
            labels.extend([("group", clean(group)), ("state", state.name().to_owned())]);
            open.get_or_create(&labels).inc_by(count);
        }
    }
    registry.register("connections_open", "Live connections, those still connecting included", open);
}

/// The label of each living process' launcher group.
fn groups_by_pid(snapshot: &Snapshot) -> HashMap<u32, &str> {
    let labels: HashMap<&str, &str> =
        snapshot.launcher_groups.iter().map(|group| (group.id.as_str(), group.label.as_str())).collect();
    let living = snapshot.processes.iter().filter(|process| process.alive);
    let label = |id: &Option<String>| id.as_deref().and_then(|id| labels.get(id).copied());
    living.filter_map(|process| Some((process.pid, label(&process.launcher_group)?))).collect()
}

/// Its opener while that holds it or nobody is known to, else the holder with the lowest pid.
fn responsible(connection: &Connection) -> Option<u32> {
    let opener = connection.opener.as_ref().map(|opener| opener.pid);
    let holds = |pid: u32| connection.holders.iter().any(|holder| holder.pid == pid);
    let first = connection.holders.iter().map(|holder| holder.pid).min();
    opener.filter(|pid| first.is_none() || holds(*pid)).or(first)
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

fn capture(registry: &mut Registry, snapshot: &Snapshot) {
    let loss = snapshot.capture.loss;
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
