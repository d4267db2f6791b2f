//! Processes as a sentence names them, gathered by launcher group.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::ProcessId;
use crate::finding::Subject;
use crate::process::Process;
use crate::tracker::Tracker;

/// Pids spelled out in a sentence before "and N more".
const NAMED: usize = 3;
/// Pids listed in a subject.
const PIDS_LISTED: usize = 1_000;

/// Processes of one launcher group, or one process of which no group is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Who {
    /// What people call it.
    pub label: String,
    /// Its launcher group, if it is known.
    pub group: Option<String>,
    /// Its processes.
    pub members: BTreeSet<ProcessId>,
}

impl Who {
    /// What tells it apart from others, and stays the same while it lives: the group, else the process.
    pub fn key(id: ProcessId, process: Option<&Process>) -> String {
        match process.and_then(|process| process.identity.as_ref()) {
            Some(identity) => identity.group.id.clone(),
            None => format!("{}@{}", id.pid, { id.start_ticks }),
        }
    }

    /// Takes one more in.
    pub fn add(&mut self, id: ProcessId, process: Option<&Process>) {
        self.members.insert(id);
        if self.label.is_empty() {
            self.label = process.map_or_else(|| "an unknown process".to_owned(), Process::label);
            self.group = process.and_then(|process| process.identity.as_ref()).map(|of| of.group.id.clone());
        }
    }

    /// Pids, ascending, each once.
    pub fn pids(&self) -> Vec<u32> {
        // Ordered by pid first: a pid that was used again is next to itself.
        let mut pids: Vec<u32> = self.members.iter().map(|id| id.pid).collect();
        pids.dedup();
        pids
    }

    /// `worker.py (pid 412)`, `25 copies of worker.py (pids 412, 433, 518, ... 22 more)`.
    pub fn sentence(&self) -> String {
        copies(&self.label, &self.pids())
    }

    /// The same as what a finding is about.
    pub fn subject(&self, endpoint: String) -> Subject {
        let mut pids = self.pids();
        pids.truncate(PIDS_LISTED);
        Subject { endpoint: Some(endpoint), pids, launcher_group: self.group.clone() }
    }
}

/// Processes that people call by that name.
pub(super) fn copies(label: &str, pids: &[u32]) -> String {
    let named: Vec<String> = pids.iter().take(NAMED).map(u32::to_string).collect();
    match (pids, pids.len().saturating_sub(NAMED)) {
        ([], _) => label.to_owned(),
        ([pid], _) => format!("{label} (pid {pid})"),
        (pids, 0) => format!("{} copies of {label} (pids {})", pids.len(), named.join(", ")),
        (pids, more) => format!("{} copies of {label} (pids {}, ... {more} more)", pids.len(), named.join(", ")),
    }
}

/// Processes with a number each, gathered; the largest number first.
pub(super) fn gather(tracker: &Tracker, each: impl Iterator<Item = (ProcessId, u32)>) -> Vec<(Who, u32)> {
    let mut found = BTreeMap::<String, (Who, u32)>::new();
    for (id, number) in each {
        let process = tracker.processes().get(&id);
        let (who, sum) = found.entry(Who::key(id, process)).or_default();
        who.add(id, process);
        *sum += number;
    }
    let mut all: Vec<(Who, u32)> = found.into_values().collect();
    all.sort_by(|(a, more), (b, less)| {
        less.cmp(more).then_with(|| (&a.label, &a.members).cmp(&(&b.label, &b.members)))
    });
    all
}
