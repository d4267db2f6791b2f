//! What comes in to processes: how many connections each accepted on ports that are not watched, and since when anybody
//! counts. Knows nothing of what these were for.

use super::Tracker;
use crate::event::{AcceptsEvent, Event, ProcessId};
use crate::inbound::Inbound;
use crate::process::Process;
use crate::time::BootNs;

impl Tracker {
    /// Tells whether anybody counts accepts. Call it before anything is applied; nobody does without it.
    pub fn set_counts_accepts(&mut self, counts: bool) {
        self.counts_accepts = counts;
    }

    /// Since when accepts are counted: the first look, which introduces the processes that were there before. `None`
    /// while they are not.
    #[must_use]
    pub fn accepts_since(&self) -> Option<BootNs> {
        self.first_look.filter(|_| self.counts_accepts)
    }

    /// What the process accepted on ports that are not watched since it was known and counting began; `None` if nobody
    /// counted.
    #[must_use]
    pub fn accepts(&self, process: &Process) -> Option<u64> {
        self.accepts_since()?;
        match &process.inbound {
            Some(inbound) => Some(inbound.total()),
            // It may be one of those that found no room on the kernel side.
            None if self.loss.process_map_full > 0 || self.loss.accept_map_full > 0 => None,
            None => Some(0),
        }
    }

    /// It may be told of before anything else is: a process that connects is watched from the first moment.
    pub(super) fn apply_accepts(&mut self, event: &AcceptsEvent) {
        let has_room = self.processes.len() < self.bounds.processes;
        if has_room || self.processes.contains_key(&event.process) {
            self.process_mut(event.process);
            self.count_accepts(event.process, event.total, event.at);
        }
    }

    pub(super) fn count_accepts(&mut self, id: ProcessId, total: u64, at: BootNs) {
        let (window, counts) = (self.window, self.accepts_since().is_some());
        if total > 0
            && let Some(process) = self.processes.get_mut(&id)
        {
            process.inbound.get_or_insert_with(|| Box::new(Inbound::new(window))).tell(total, at, counts);
        }
    }

    /// The counts of the living, as events that would tell them now.
    pub(super) fn remembered_accepts(&self) -> impl Iterator<Item = Event> {
        let at = self.looked_at;
        self.processes.values().filter(|process| process.ended.is_none()).filter_map(move |process| {
            let total = process.inbound.as_ref()?.told();
            Some(Event::Accepts(AcceptsEvent { at, process: process.id, total }))
        })
    }
}
