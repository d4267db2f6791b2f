//! Connections: who answers for each, how many of what kind there are, and which of them tell most.

use std::collections::{BTreeMap, HashMap, HashSet};

use tracer_core::finding::Finding;
use tracer_core::snapshot::{Age, Connection, Endpoint, Process, Snapshot};
use tracer_core::tcp::TcpState;

use super::format::{bytes, count, duration, many, name};
use super::model::{Cell, Table, left_out};

/// Rows of the table of counts.
const COUNTS_MAX: usize = 100;
/// Connections one by one, and how many of them for one process.
const SHOWN_MAX: usize = 100;
const SHOWN_PER_PROCESS: usize = 8;
/// Connections shown with a finding.
const TELLING_MAX: usize = 8;
/// Holders named.
const HOLDERS: usize = 4;

/// What the parts of a snapshot are found by.
pub struct Index<'a> {
    labels: HashMap<&'a str, &'a str>,
    processes: HashMap<u32, &'a Process>,
    endpoints: HashMap<&'a str, &'a Endpoint>,
    /// Places of connections, by who answers for them.
    by_pid: HashMap<u32, Vec<usize>>,
    /// And by endpoint.
    by_endpoint: HashMap<&'a str, Vec<usize>>,
}

impl<'a> Index<'a> {
    /// Of all that is in `snapshot`.
    pub fn of(snapshot: &'a Snapshot) -> Self {
        let mut processes: HashMap<u32, &Process> = HashMap::new();
        for process in &snapshot.processes {
            // A number that was used again is the living process'.
            processes.entry(process.pid).and_modify(|it| *it = if it.alive { *it } else { process }).or_insert(process);
        }
        let mut by_pid: HashMap<u32, Vec<usize>> = HashMap::new();
        let mut by_endpoint: HashMap<&str, Vec<usize>> = HashMap::new();
        for (at, connection) in snapshot.connections.iter().enumerate() {
            by_endpoint.entry(&connection.endpoint).or_default().push(at);
            let mut pids: Vec<u32> = connection.holders.iter().map(|holder| holder.pid).collect();
            pids.extend(connection.opener.as_ref().map(|opener| opener.pid));
            pids.sort_unstable();
            pids.dedup();
            pids.iter().for_each(|pid| by_pid.entry(*pid).or_default().push(at));
        }
        Self {
            labels: snapshot.launcher_groups.iter().map(|group| (group.id.as_str(), group.label.as_str())).collect(),
            endpoints: snapshot.endpoints.iter().map(|endpoint| (endpoint.id.as_str(), endpoint)).collect(),
            processes,
            by_pid,
            by_endpoint,
        }
    }

    /// What people call a launcher group.
    pub fn label(&self, id: &str) -> Option<&'a str> {
        self.labels.get(id).copied()
    }

    /// The launcher group's id of the process that answers for a connection.
    pub fn group(&self, connection: &Connection) -> Option<&'a str> {
        self.processes.get(&responsible(connection)?)?.launcher_group.as_deref()
    }

    /// Connections of an endpoint.
    pub fn of_endpoint<'s>(&'s self, snapshot: &'s Snapshot, id: &str) -> impl Iterator<Item = &'s Connection> {
        let places = self.by_endpoint.get(id).into_iter().flatten();
        places.filter_map(|at| snapshot.connections.get(*at))
    }

    /// `orders-db 10.0.0.5:5432`, or the id alone where that is its name.
    pub fn endpoint_name(&self, id: &str) -> String {
        match self.endpoints.get(id) {
            Some(endpoint) if endpoint.name != id => format!("{} {}", name(&endpoint.name), name(id)),
            _ => name(id),
        }
    }

    /// `worker.py (412)`.
    fn who(&self, pid: u32, comm: &str) -> String {
        let known = self.processes.get(&pid).map(|process| title(process));
        format!("{} ({pid})", known.unwrap_or_else(|| name(comm)))
    }
}

/// What people call a process: its script's file, else its name.
pub fn title(process: &Process) -> String {
    let script = process.script.as_deref().and_then(|path| path.rsplit('/').find(|part| !part.is_empty()));
    name(script.unwrap_or(&process.comm))
}

/// Its opener while that holds it or nobody is known to, else the holder with the lowest pid.
fn responsible(connection: &Connection) -> Option<u32> {
    let opener = connection.opener.as_ref().map(|opener| opener.pid);
    let holds = |pid: u32| connection.holders.iter().any(|holder| holder.pid == pid);
    let first = connection.holders.iter().map(|holder| holder.pid).min();
    opener.filter(|pid| first.is_none() || holds(*pid)).or(first)
}

/// Sorts what is broken first, then what is idle for longest, then the oldest.
fn weight(connection: &Connection) -> impl Ord + use<> {
    let broken = connection.consecutive_rtos > 0
        || connection.unanswered_probes > 0
        || matches!(connection.state, TcpState::CloseWait | TcpState::SynSent);
    std::cmp::Reverse((broken, connection.idle_s, connection.age_s))
}

/// The most telling connections of a finding.
pub fn telling(found: &Finding, snapshot: &Snapshot, index: &Index<'_>) -> Option<Table> {
    let subject = &found.subject;
    let at_endpoint = |place: &usize| {
        let endpoint = snapshot.connections.get(*place).map(|connection| &connection.endpoint);
        subject.endpoint.is_none() || subject.endpoint.as_ref() == endpoint
    };
    let places: Vec<usize> = if subject.pids.is_empty() {
        let id = subject.endpoint.as_deref()?;
        index.by_endpoint.get(id).cloned().unwrap_or_default()
    } else {
        let of_pids = subject.pids.iter().filter_map(|pid| index.by_pid.get(pid)).flatten();
        of_pids.copied().filter(at_endpoint).collect::<HashSet<usize>>().into_iter().collect()
    };
    let mut chosen: Vec<(usize, &Connection)> =
        places.iter().filter_map(|at| Some((*at, snapshot.connections.get(*at)?))).collect();
    chosen.sort_unstable_by_key(|(at, connection)| (weight(connection), *at));
    let mut table = one_by_one("", "Its connections");
    table.rows = chosen.iter().take(TELLING_MAX).map(|(_, connection)| row(connection, index)).collect();
    table.note = format!(
        "Broken ones first, then those idle for longest: {} of {}.",
        many(table.rows.len()),
        many(chosen.len())
    );
    (!table.rows.is_empty()).then_some(table)
}

/// How many of what, and the most telling ones.
pub fn connections(snapshot: &Snapshot, index: &Index<'_>) -> Vec<Table> {
    vec![counts(snapshot, index), chosen(snapshot, index)]
}

/// Connections of one endpoint, launcher group and state.
#[derive(Default)]
struct Count {
    connections: u64,
    oldest_s: u64,
    idle_s: Option<u64>,
}

fn counts(snapshot: &Snapshot, index: &Index<'_>) -> Table {
    let mut counts: BTreeMap<(&str, Option<&str>, TcpState), Count> = BTreeMap::new();
    for connection in &snapshot.connections {
        let key = (connection.endpoint.as_str(), index.group(connection), connection.state);
        let counted = counts.entry(key).or_default();
        counted.connections += 1;
        counted.oldest_s = counted.oldest_s.max(connection.age_s);
        counted.idle_s = counted.idle_s.max(connection.idle_s);
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, counted)| std::cmp::Reverse(counted.connections));
    let columns = ["Database", "Launcher group", "State", "#Connections", "#Oldest", "#Idle for up to"];
    let mut table = Table::new("counts", "Connections, counted", &columns);
    table.note = format!("All {} that were live.", many(snapshot.connections.len()));
    table.rows = counts
        .iter()
        .take(COUNTS_MAX)
        .map(|((endpoint, group, state), counted)| {
            let group = group.map_or("unknown", |id| index.label(id).unwrap_or(id));
            vec![
                Cell::text(&index.endpoint_name(endpoint)),
                Cell::text(group),
                state_cell(*state),
                Cell::number(count(counted.connections)),
                Cell::number(duration(counted.oldest_s)),
                Cell::number(counted.idle_s.map_or_else(|| "unknown".to_owned(), duration)),
            ]
        })
        .collect();
    table.of_all(counts.len())
}

/// All of them if they are few, else the most telling ones of each process.
fn chosen(snapshot: &Snapshot, index: &Index<'_>) -> Table {
    let all = &snapshot.connections;
    let few = all.len() <= SHOWN_MAX;
    let mut sorted: Vec<&Connection> = all.iter().collect();
    sorted.sort_by_cached_key(|connection| weight(connection));
    let mut of_process: HashMap<Option<u32>, usize> = HashMap::new();
    sorted.retain(|connection| {
        let seen = of_process.entry(responsible(connection)).or_default();
        *seen += 1;
        few || *seen <= SHOWN_PER_PROCESS
    });
    let mut table = one_by_one("connections", "Connections, one by one");
    table.note = "Broken ones first, then those idle for longest.".to_owned();
    if !few {
        table.note.push_str(&format!(" At most {SHOWN_PER_PROCESS} of a process."));
    }
    table.rows = sorted.iter().take(SHOWN_MAX).map(|connection| row(connection, index)).collect();
    table.left_out = left_out(all.len(), table.rows.len());
    table
}

fn one_by_one(id: &'static str, title: &'static str) -> Table {
    let columns = ["Connection", "State", "Opened by", "Held by", "#Age", "#Idle", "#Sent", "#Received", "Remarks"];
    Table::new(id, title, &columns)
}

fn row(connection: &Connection, index: &Index<'_>) -> Vec<Cell> {
    let opener = connection.opener.as_ref().map(|opener| index.who(opener.pid, &opener.comm));
    let holders: Vec<String> =
        connection.holders.iter().take(HOLDERS).map(|holder| format!("{} fd {}", holder.pid, holder.fd)).collect();
    let more = connection.holders.len().checked_sub(HOLDERS).filter(|more| *more > 0);
    let more = more.map_or_else(String::new, |more| format!(", and {} more", many(more)));
    let age = match connection.age {
        Age::Exact => duration(connection.age_s),
        Age::AtLeast => format!("over {}", duration(connection.age_s)),
    };
    vec![
        Cell::text(&format!("{} → {}", connection.local, connection.remote)).with(&name(&connection.id)),
        state_cell(connection.state),
        Cell::text(opener.as_deref().unwrap_or("unknown")),
        Cell::text(&if holders.is_empty() { "nobody known".to_owned() } else { holders.join(", ") + &more }),
        Cell::number(age),
        Cell::number(connection.idle_s.map_or_else(|| "unknown".to_owned(), duration)),
        Cell::number(bytes(connection.bytes_sent)),
        Cell::number(bytes(connection.bytes_received)),
        Cell::text(&remarks(connection)),
    ]
}

fn remarks(connection: &Connection) -> String {
    let mut remarks = Vec::new();
    let mut some = |number: u64, what: &str| {
        if number > 0 {
            remarks.push(format!("{} {what}", count(number)));
        }
    };
    some(connection.retransmits.into(), "sent again");
    some(connection.consecutive_rtos.into(), "time-outs in a row");
    some(connection.unanswered_probes.into(), "probes without answer");
    some(connection.unacked.into(), "not acknowledged");
    if connection.keepalive == Some(false) {
        remarks.push("no keepalive".to_owned());
    }
    if let Some(pid) = connection.closer_pid {
        remarks.push(format!("closed by {pid}"));
    }
    remarks.join(", ")
}

fn state_cell(state: TcpState) -> Cell {
    let class = match state {
        TcpState::CloseWait | TcpState::SynSent => "word warning",
        _ => "word",
    };
    Cell { class, ..Cell::text(state.name()) }
}
