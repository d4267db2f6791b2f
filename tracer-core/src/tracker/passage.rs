//! What this host's own network knows of single connections: whether its connection tracking still has them, whether there
//! is a way to the peer, and whether its table is full. Judges nothing.

use std::time::Duration;

use super::Tracker;
use crate::event::Tuple;
use crate::inventory::{Entry, Network, PathRow, Tracked};
use crate::time::BootNs;

/// Connections of a namespace of which something is kept. Those beyond are unknown.
const MOST_KEPT: usize = 4_096;
/// Namespaces whose table was full.
const MOST_FULL: usize = 1_024;

/// What was last known of one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passage {
    /// What connection tracking has of it.
    pub memory: Memory,
    /// The errno with which the kernel found no way to the peer.
    pub no_route: Option<u16>,
}

/// What connection tracking on this host remembers of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Memory {
    /// Unknown, or never tracked.
    #[default]
    Unknown,
    /// It has this entry, which lasts so long from the last packet.
    Has(Entry, Duration),
    /// It had this entry, and has none any more; it lasted so long.
    Lost(Entry, Duration),
}

/// A table that was full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FullTable {
    /// When a look found it so.
    pub at: BootNs,
    /// Entries then.
    pub entries: u32,
    /// Its bound.
    pub most: u32,
}

impl Tracker {
    /// What is known of this connection's way through this host.
    #[must_use]
    pub fn passage(&self, tuple: &Tuple) -> Passage {
        self.path.passages.get(&tuple.netns()).and_then(|here| here.get(tuple)).copied().unwrap_or_default()
    }

    /// The connection tracking table of a namespace, if a look since then found it full.
    #[must_use]
    pub fn full_table(&self, netns: u32, since: BootNs) -> Option<FullTable> {
        self.path.full.get(&netns).copied().filter(|full| full.at >= since)
    }

    /// Takes in what a look asked in one namespace: what it did not ask about is unknown.
    pub(super) fn take_passages(&mut self, netns: u32, rows: &[PathRow]) {
        let before = self.path.passages.remove(&netns).unwrap_or_default();
        for row in rows {
            self.take_passage(row, before.get(&row.tuple).copied().unwrap_or_default());
        }
    }

    /// The same between two looks: the others stay as they are.
    pub(super) fn take_glanced_passages(&mut self, rows: &[PathRow]) {
        for row in rows {
            self.take_passage(row, self.passage(&row.tuple));
        }
    }

    fn take_passage(&mut self, row: &PathRow, before: Passage) {
        let Some(socket) = self.sockets.by_tuple(&row.tuple).and_then(|slot| self.socket(slot)) else { return };
        let silent = socket.counters.map_or(0, |counters| counters.heard_ms.min(counters.last_data_sent_ms));
        // The kernel tells whole seconds of what is left: half a second more is nearest.
        let lasts = |entry: Entry| {
            let lasts_ms = u64::from(silent) + u64::from(entry.left_s) * 1_000 + 500;
            Duration::from_secs((lasts_ms + 499) / 1_000)
        };
        let memory = match (row.tracked, before.memory) {
            (Some(Tracked::Entry(entry)), _) => Memory::Has(entry, lasts(entry)),
            // A life that is not seen to have had an entry may never have had one.
            (Some(Tracked::Absent), Memory::Has(entry, lasted) | Memory::Lost(entry, lasted)) => {
                Memory::Lost(entry, lasted)
            }
            _ => Memory::Unknown,
        };
        let here = self.path.passages.entry(row.tuple.netns()).or_default();
        if here.len() < MOST_KEPT || here.contains_key(&row.tuple) {
            here.insert(row.tuple, Passage { memory, no_route: row.no_route });
        }
    }

    /// Forgets namespaces that are not there any more.
    pub(super) fn forget_networks(&mut self, is_there: impl Fn(u32) -> bool) {
        self.path.networks.retain(|netns, _| is_there(*netns));
        self.path.passages.retain(|netns, _| is_there(*netns));
        self.path.full.retain(|netns, _| is_there(*netns));
    }

    /// Whether the table of a namespace is full, from one look to the next: it has as many entries as it may, or the
    /// kernel counted packets that it threw away because there was no room (`drop` in /proc/net/stat/nf_conntrack).
    pub(super) fn note_full_table(&mut self, netns: u32, network: Option<&Network>, at: BootNs) {
        let Some(network) = network else { return };
        let (Some(entries), Some(most)) = (network.tracked, network.tracked_most) else { return };
        let before = self.path.networks.get(&netns).and_then(|network| network.untracked_drops);
        let dropped = before.is_some_and(|before| network.untracked_drops > Some(before));
        if (entries >= most || dropped) && (self.path.full.len() < MOST_FULL || self.path.full.contains_key(&netns)) {
            self.path.full.insert(netns, FullTable { at, entries, most });
        }
    }
}
