//! What a look could see and what not: namespaces read, namespaces closed to it, and sockets in namespaces that it
//! could not find because no process is in them and no file names them. Such a socket is known from events, and who
//! holds it from its inode number.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Slot, Tracker};
use crate::inventory::{Holder, Inventory, RecognizedPort};
use crate::snapshot::Completeness;
use crate::socket::Socket;
use crate::time::BootNs;

/// A socket out of sight that nobody holds is an orphan on its way out, or in flight between two processes. The kernel
/// tells its end; one that was not told within this was lost. Orphans last some minutes (`tcp_orphan_retries`).
const OUT_OF_SIGHT_MOST: Duration = Duration::from_secs(600);

/// Where the last look could see.
#[derive(Debug, Default)]
pub(super) struct Sight {
    /// Namespaces whose tables were read, and when each dump began.
    pub(super) tables: BTreeMap<u32, BootNs>,
    /// Namespaces that were there and could not be read.
    pub(super) unreachable: BTreeSet<u32>,
    /// Namespaces that were there and left for a later look.
    skipped: BTreeSet<u32>,
    /// Ports watched since the look before: what is found on them is older than their watch.
    pub(super) new_ports: Vec<u16>,
    pub(super) unreadable_processes: u32,
    pub(super) hidden_processes: bool,
    pub(super) recognized_without_room: u32,
}

impl Sight {
    /// Takes over what this look saw; gives back what the one before did.
    pub(super) fn renew(&mut self, inventory: &Inventory) -> Self {
        let new = Self {
            tables: inventory.tables.iter().map(|table| (table.netns, table.started)).collect(),
            unreachable: inventory.unreachable.iter().copied().collect(),
            skipped: inventory.skipped.iter().copied().collect(),
            new_ports: std::mem::take(&mut self.new_ports),
            unreadable_processes: inventory.unreadable_processes,
            hidden_processes: inventory.hidden_processes,
            recognized_without_room: inventory.recognized_without_room,
        };
        std::mem::replace(self, new)
    }

    /// Whether looks can see the namespace, even if the last one did not care to.
    pub(super) fn has_seen(&self, netns: u32) -> bool {
        self.tables.contains_key(&netns) || self.skipped.contains(&netns)
    }

    pub(super) fn is_new_port(&self, port: u16) -> bool {
        self.new_ports.contains(&port)
    }

    /// Since when a socket of that namespace that was not seen is absent; `None` if the look tells nothing of it.
    pub(super) fn absent_since(&self, netns: u32, look_started: BootNs) -> Option<BootNs> {
        match self.tables.get(&netns) {
            Some(started) => Some(*started),
            None if self.unreachable.contains(&netns) || self.skipped.contains(&netns) => None,
            None => Some(look_started),
        }
    }

    /// Whether connections may be out of sight.
    pub(super) fn is_obstructed(&self) -> bool {
        !self.unreachable.is_empty()
    }

    /// Whether holders may be.
    pub(super) fn hides_holders(&self) -> bool {
        self.unreadable_processes > 0 || self.hidden_processes
    }

    /// How long a socket may be absent before its end counts as lost; `usual` where looks can see it. Where they cannot,
    /// the events of a socket that events have told of are better than looks.
    pub(super) fn patience(&self, socket: &Socket, usual: Duration) -> Duration {
        if self.has_seen(socket.tuple.netns()) || socket.sk.is_none() { usual } else { OUT_OF_SIGHT_MOST }
    }
}

impl Tracker {
    /// What the holders of connections are worth, as of the last look: with a lower bound, one that nobody was found to
    /// hold may have a holder.
    #[must_use]
    pub fn holders_completeness(&self) -> Completeness {
        match (self.looks, self.sight.hides_holders()) {
            (0, _) => Completeness::Unknown,
            (_, true) => Completeness::LowerBound,
            (_, false) => Completeness::Exact,
        }
    }

    /// Live sockets that the last look did not see in any table, by namespace and inode number: for the next look to
    /// ask who holds them, and to read their namespace's table if it can.
    #[must_use]
    pub fn unseen_inodes(&self) -> BTreeSet<(u32, u64)> {
        let known =
            self.unseen().filter_map(|(_, socket)| Some((socket.tuple.netns(), u64::from(socket.inode?.get()))));
        known.collect()
    }

    fn unseen(&self) -> impl Iterator<Item = (Slot, &Socket)> {
        let is_unseen = |socket: &Socket| self.looks > 0 && !self.sight.tables.contains_key(&socket.tuple.netns());
        self.sockets.numbered().filter(move |(_, socket)| is_unseen(socket))
    }

    /// Holders of sockets that are in no table. Somebody's holding it proves that a socket is there.
    pub(super) fn apply_held(&mut self, held: &BTreeMap<u64, Vec<Holder>>) {
        if held.is_empty() {
            return;
        }
        let found = self.unseen().filter_map(|(slot, socket)| Some((slot, held.get(&u64::from(socket.inode?.get()))?)));
        let found: Vec<(Slot, &Vec<Holder>)> = found.collect();
        let look = self.looks;
        for (slot, holders) in found {
            if let Some(socket) = self.socket_mut(slot).filter(|_| !holders.is_empty()) {
                socket.look = look;
                socket.set_absent(None);
            }
            self.take_holders(slot, holders.iter().copied().collect());
        }
    }

    /// Ports that are watched from now on.
    pub(super) fn take_recognized(&mut self, recognized: Vec<RecognizedPort>) {
        self.sight.new_ports = recognized.iter().map(|each| each.port).collect();
        for new in recognized {
            self.ports.insert(new.port, new.database.clone());
            // Events may have been faster than the look that brings the name.
            let nameless = self.endpoints.iter_mut().filter(|endpoint| {
                endpoint.database == "other" && endpoint.place.is_some_and(|place| place.addr.port() == new.port)
            });
            for endpoint in nameless {
                endpoint.database.clone_from(&new.database);
            }
            self.recognized.push(new);
        }
    }
}
