//! Who processes are and who their parents are, as far as /proc said: a parent may end long after its child was read, and
//! then another one adopts the child.

use std::collections::BTreeSet;
use std::ops::Bound;

use super::Tracker;
use crate::event::ProcessId;
use crate::identity::Identity;
use crate::process::{Origin, Process};

/// Living processes by their parent's pid, and how far they have been asked about it.
#[derive(Debug, Default)]
pub(super) struct Kin {
    children: BTreeSet<(u32, ProcessId)>,
    /// Where the last round of `take_kin` stopped.
    asked_to: Option<ProcessId>,
}

impl Tracker {
    /// What /proc said of a process.
    pub fn apply_identity(&mut self, identity: Identity) {
        let Some(process) = self.processes.get_mut(&identity.id) else { return };
        if let Some(ppid) = process.ppid() {
            self.kin.children.remove(&(ppid, identity.id));
        }
        if let (Some(ppid), None) = (identity.ppid, process.ended) {
            self.kin.children.insert((ppid, identity.id));
        }
        adopt(process, identity);
    }

    /// A process has ended: its children have another parent now, and it is nobody's child any more.
    pub(super) fn lose_parent(&mut self, id: ProcessId) {
        if let Some(ppid) = self.processes.get(&id).and_then(Process::ppid) {
            self.kin.children.remove(&(ppid, id));
        }
        let (first, last) = (ProcessId { pid: 0, start_ticks: 0 }, ProcessId { pid: u32::MAX, start_ticks: u64::MAX });
        let children = self.kin.children.range((id.pid, first)..=(id.pid, last));
        self.unidentified.extend(children.map(|(_, child)| *child));
    }

    /// Processes that the last look found holding connections, with the parent each had: the end of a parent that holds none
    /// is not reported. At most `most` a call, each in turn.
    pub fn take_kin(&mut self, most: usize) -> Vec<(ProcessId, u32)> {
        let looks = self.looks;
        let after = self.kin.asked_to.map_or(Bound::Unbounded, Bound::Excluded);
        let holders = self.processes.range((after, Bound::Unbounded));
        let holders = holders.filter(|(_, process)| process.ended.is_none() && process.seen_look == looks);
        let kin: Vec<_> = holders.filter_map(|(id, process)| Some((*id, process.ppid()?))).take(most).collect();
        self.kin.asked_to = if kin.len() < most { None } else { kin.last().map(|(id, _)| *id) };
        kin
    }
}

/// Takes the new identity; if it is of the same program and tells another parent, the old one has ended.
fn adopt(process: &mut Process, identity: Identity) {
    let Some(before) = process.identity.replace(Box::new(identity)) else { return };
    let Some(now) = process.identity.as_deref() else { return };
    let has_lost = matches!((before.ppid, now.ppid), (Some(had), Some(has)) if had != has);
    // What a program was told to become has been started anew, by the same parent.
    let same = before.group == now.group;
    process.lost_parent |= has_lost;
    if !same {
        process.origin = None;
    } else if has_lost && process.origin.is_none() {
        process.origin = Some(Box::new(Origin { ancestors: before.ancestors, master: before.master }));
    }
}
