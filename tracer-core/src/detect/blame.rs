//! Who holds an endpoint's connections: launcher groups, processes, or, seen from the database's own host, clients
//! elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{ProcessId, Role};
use crate::tracker::Tracker;

/// Names spelled out in a sentence before "and N more".
const NAMED: usize = 3;

/// Holders that look the same to people: copies of one launcher, or one client address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Culprit {
    /// What people call it.
    pub label: String,
    /// Its launcher group, if it is one.
    pub group: Option<String>,
    /// Its processes, ascending; none for a client on another host.
    pub pids: Vec<u32>,
    /// Connections it holds.
    pub open: u32,
}

/// Holders of the open connections of one endpoint, the biggest first.
pub(super) fn culprits(tracker: &Tracker, endpoint: usize, role: Role) -> Vec<Culprit> {
    let mut found = BTreeMap::<String, (Culprit, BTreeSet<ProcessId>)>::new();
    for socket in tracker.sockets().filter(|socket| socket.endpoint() == endpoint && socket.is_open()) {
        // On the database's side the holders are the database itself: the client's address says more.
        let process = match role {
            Role::Client => socket.responsible().and_then(|id| tracker.processes().get(&id)),
            Role::Server => None,
        };
        let (key, label, group) = match (process, role) {
            (Some(process), _) => match process.identity.as_deref() {
                Some(identity) => (format!("g{}", identity.group.id), process.label(), Some(identity.group.id.clone())),
                None => (format!("p{:?}", process.id), process.label(), None),
            },
            (None, Role::Server) => {
                let host = socket.tuple.remote().ip().to_string();
                (format!("h{host}"), host, None)
            }
            (None, Role::Client) => ("u".to_owned(), "an unknown process".to_owned(), None),
        };
        let (culprit, members) =
            found.entry(key).or_insert_with(|| (Culprit { label, group, pids: Vec::new(), open: 0 }, BTreeSet::new()));
        culprit.open += 1;
        if let Some(process) = process {
            members.insert(process.id);
        }
    }
    let mut all: Vec<Culprit> = found
        .into_values()
        .map(|(culprit, members)| Culprit { pids: members.iter().map(|id| id.pid).collect(), ..culprit })
        .collect();
    all.sort_by(|a, b| b.open.cmp(&a.open).then_with(|| (&a.label, &a.pids).cmp(&(&b.label, &b.pids))));
    all
}

/// One sentence: who holds how many.
pub(super) fn sentence(culprits: &[Culprit]) -> String {
    let mut parts: Vec<String> = culprits
        .iter()
        .take(NAMED)
        .map(|culprit| match culprit.pids.as_slice() {
            [] => format!("{} holds {}", culprit.label, culprit.open),
            [pid] => format!("{} (pid {pid}) holds {}", culprit.label, culprit.open),
            pids => format!("{} copies of {} ({}) hold {}", pids.len(), culprit.label, pid_list(pids), culprit.open),
        })
        .collect();
    if culprits.len() > NAMED {
        let rest: u32 = culprits.iter().skip(NAMED).map(|culprit| culprit.open).sum();
        parts.push(match culprits.len() - NAMED {
            1 => format!("1 other holds {rest}"),
            others => format!("{others} others hold {rest}"),
        });
    }
    parts.join(", ")
}

/// The first pids and how many more there are.
fn pid_list(pids: &[u32]) -> String {
    let named: Vec<String> = pids.iter().take(NAMED).map(u32::to_string).collect();
    match pids.len().saturating_sub(NAMED) {
        0 => format!("pids {}", named.join(", ")),
        more => format!("pids {}, ... {more} more", named.join(", ")),
    }
}
