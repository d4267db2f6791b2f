//! Who a verdict is about, as the rules of the configuration name them: an address, a launcher group's label, processes.

use std::net::SocketAddr;

use hashbrown::HashMap;

use crate::event::ProcessId;
use crate::finding::Subject;
use crate::process::Process;
use crate::tracker::Tracker;

/// Labels of launcher groups, by id.
pub(super) struct Groups<'a> {
    tracker: &'a Tracker,
    labels: HashMap<&'a str, &'a str>,
}

/// The subject of a verdict.
pub(super) struct Whom<'a> {
    /// Of the endpoint. What the user says of a loopback address is meant for the daemon's own network namespace, so in
    /// another one there is none.
    pub addr: Option<SocketAddr>,
    /// Of the launcher group.
    pub label: Option<&'a str>,
    /// Those that it names and that are known.
    pub processes: Vec<&'a Process>,
    /// Whether that is all it names.
    pub knows_all: bool,
}

impl<'a> Groups<'a> {
    pub fn of(tracker: &'a Tracker) -> Self {
        let identities = tracker.processes().values().filter_map(|process| process.identity.as_deref());
        let labels = identities.map(|identity| (identity.group.id.as_str(), identity.group.label.as_str()));
        Self { tracker, labels: labels.collect() }
    }

    /// Each label there is.
    pub fn labels(&self) -> impl Iterator<Item = &'a str> {
        self.labels.values().copied()
    }

    pub fn whom(&self, subject: &Subject) -> Whom<'a> {
        let processes: Vec<&Process> = subject.pids.iter().filter_map(|pid| self.process(*pid)).collect();
        let of_group = subject.launcher_group.as_deref().and_then(|id| self.labels.get(id).copied());
        let of_first = || Some(processes.first()?.identity.as_deref()?.group.label.as_str());
        Whom {
            addr: subject.endpoint.as_deref().and_then(|id| id.parse().ok()),
            label: of_group.or_else(of_first),
            knows_all: processes.len() == subject.pids.len(),
            processes,
        }
    }

    /// The latest of that pid.
    fn process(&self, pid: u32) -> Option<&'a Process> {
        let (first, last) = (ProcessId { pid, start_ticks: 0 }, ProcessId { pid, start_ticks: u64::MAX });
        self.tracker.processes().range(first..=last).next_back().map(|(_, process)| process)
    }
}
