//! Who holds an endpoint's connections: launcher groups, processes, or, seen from the database's own host, clients
//! elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use hashbrown::HashMap;

use super::Context;
use super::who::copies;
use crate::event::{ProcessId, Role};

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

/// Who holds a connection, before anybody asked what people call it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Holder {
    Process(ProcessId),
    Host(IpAddr),
    Unknown,
}

/// Holders of the open connections of one endpoint, the biggest first.
pub(super) fn culprits(context: &Context<'_>, endpoint: usize, role: Role) -> Vec<Culprit> {
    // Connections are many and holders few: names are made for holders.
    let tracker = context.tracker;
    let mut held = HashMap::<Holder, u32>::new();
    match role {
        Role::Client => {
            for (id, _, all) in context.survey.holders().filter(|(_, of, _)| *of == endpoint) {
                held.insert(Holder::Process(id), u32::try_from(all.len()).unwrap_or(u32::MAX));
            }
            for _ in context.survey.unknown().iter().filter(|held| held.socket.endpoint() == endpoint) {
                *held.entry(Holder::Unknown).or_default() += 1;
            }
        }
        // On the database's side the holders are the database itself: the client's address says more.
        Role::Server => {
            for socket in tracker.sockets().filter(|socket| socket.endpoint() == endpoint && socket.is_open()) {
                *held.entry(Holder::Host(socket.tuple.remote().ip())).or_default() += 1;
            }
        }
    }
    let mut held: Vec<(Holder, u32)> = held.into_iter().collect();
    held.sort_unstable();
    let mut found = BTreeMap::<String, (Culprit, BTreeSet<ProcessId>)>::new();
    for (holder, open) in held {
        let process = match holder {
            Holder::Process(id) => tracker.processes().get(&id),
            Holder::Host(_) | Holder::Unknown => None,
        };
        let (key, label, group) = match (process, holder) {
            (Some(process), _) => match process.identity.as_deref() {
                Some(identity) => (format!("g{}", identity.group.id), process.label(), Some(identity.group.id.clone())),
                None => (format!("p{:?}", process.id), process.label(), None),
            },
            (None, Holder::Host(host)) => (format!("h{host}"), host.to_string(), None),
            (None, _) => ("u".to_owned(), "an unknown process".to_owned(), None),
        };
        let (culprit, members) =
            found.entry(key).or_insert_with(|| (Culprit { label, group, pids: Vec::new(), open: 0 }, BTreeSet::new()));
        culprit.open += open;
        members.extend(process.map(|process| process.id));
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
        .map(|culprit| {
            let verb = if culprit.pids.len() > 1 { "hold" } else { "holds" };
            format!("{} {verb} {}", copies(&culprit.label, &culprit.pids), culprit.open)
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
