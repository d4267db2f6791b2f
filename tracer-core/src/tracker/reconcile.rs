//! How a look at the socket table changes the tracker: it fills in what events cannot tell (counters, holders, sockets
//! older than the tracing) and repairs what lost events left wrong.
//!
//! The caller applies every event older than the look's end before the look itself.

use std::collections::BTreeSet;
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use hashbrown::HashMap;

use super::booking::Ending;
use super::{Slot, Tracker};
use crate::event::{ProcessId, Role};
use crate::history::Life;
use crate::inventory::{Certainty, Holders, Inventory, SocketRow};
use crate::socket::{Absence, Began, Socket};
use crate::time::BootNs;

/// An interrupted program holds its record, and all after it, back for a moment: with no loss known, a socket that is
/// absent for less than this has an end that is still in the ring.
const IN_FLIGHT: Duration = Duration::from_secs(1);

/// A connection may be told of a second after it was opened, by a record that was held back or by a read of what the
/// kernel side remembers. One that a look found this long ago was not told at all.
const TOLD_WITHIN: Duration = Duration::from_secs(2);

/// Whether a row of the table is of the life that the tracker knows by that tuple.
enum SameLife {
    Yes,
    No,
    /// Its accept was told, and its opening may have been that of an earlier life.
    YesSinceAccept,
    /// The row may be older than the life: of one that ended during the look.
    Stale,
    Unknown,
}

impl Tracker {
    /// Takes one look at the host in. True if another should follow at once: the kernel's dump is not atomic and
    /// can skip a live socket whose hash bucket changed, so a socket is ended only when two looks in a row miss it.
    pub fn apply_inventory(&mut self, inventory: Inventory) -> bool {
        let first = self.looks == 0;
        self.looks = self.looks.saturating_add(1);
        let missed_before = self.loss.missed_opens + self.loss.missed_closes;
        let (started, finished) = (inventory.started, inventory.finished);
        let before = self.sight.renew(&inventory);
        let tables = inventory.tables.iter().map(|table| table.netns);
        let there: BTreeSet<u32> = tables.chain(inventory.skipped).chain(inventory.unreachable).collect();
        self.forget_networks(|netns| there.contains(&netns));
        for table in inventory.tables {
            // With no loss known, what nobody told of in a namespace out of sight until now is older than its sight.
            let first = first || (!before.has_seen(table.netns) && self.lost_at.is_none());
            self.take_network(table.netns, table.network, table.finished);
            for row in table.sockets {
                self.apply_row(row, table.started, table.finished, first);
            }
            self.take_passages(table.netns, &table.paths);
        }
        self.apply_held(&inventory.held);
        let suspects = self.remove_absent(started);
        let forgetful = self.tombstones.may_have_forgotten(started);
        self.count_in_use(finished);
        self.forget_histories(finished);
        if first {
            self.first_look = Some(finished);
            self.resume(finished);
        }
        self.looked_at = finished;
        self.prune_partings(finished);
        self.take_recognized(inventory.recognized);
        if !first && self.loss.missed_opens + self.loss.missed_closes > missed_before {
            self.loss.resyncs += 1;
        }
        if self.lost_at.is_some_and(|lost_at| lost_at < started) {
            self.lost_at = None;
        }
        suspects || forgetful
    }

    fn apply_row(&mut self, row: SocketRow, started: BootNs, finished: BootNs, first: bool) {
        let known = self.sockets.by_tuple(&row.tuple);
        let slot = match known.map(|slot| (slot, self.compare(slot, &row, started))) {
            Some((slot, SameLife::No)) => {
                // The old life ended and the new one began before this look, and both events were lost.
                self.end_unseen(slot, started.minus(Duration::from_nanos(1)));
                None
            }
            Some((slot, SameLife::Unknown)) => {
                self.forget_beginning(slot, finished);
                Some(slot)
            }
            Some((_, SameLife::Stale)) => return,
            Some((slot, SameLife::YesSinceAccept)) => {
                self.forget_opening(slot);
                Some(slot)
            }
            Some((slot, SameLife::Yes)) => Some(slot),
            None => None,
        };
        let slot = match slot {
            Some(slot) => Some(slot),
            None => self.discover(&row, started, finished, first),
        };
        if let Some(slot) = slot {
            self.refresh(slot, row, started, finished);
        }
    }

    /// Whether the row is of the life in the slot. Cookies and inode numbers tell lives of one tuple apart; without
    /// either, and with events lost, nothing does.
    fn compare(&self, slot: Slot, row: &SocketRow, started: BootNs) -> SameLife {
        let Some(socket) = self.socket(slot) else { return SameLife::No };
        // An open connection does not go back to connecting, but its socket may connect once more.
        let connects = socket.is_open() && !row.state.is_open();
        let same = match (socket.cookie, socket.inode) {
            _ if connects && socket.last_event < started => Some(false),
            (Some(cookie), _) => Some(cookie.get() == row.cookie),
            (None, Some(inode)) if row.inode != 0 => Some(u64::from(inode.get()) == row.inode),
            _ if connects => Some(false),
            _ => None,
        };
        let lost_since = self.lost_at.is_some_and(|lost_at| lost_at >= socket.first_seen);
        let only_accept = socket.role == Role::Server && socket.cookie.is_none();
        match same {
            Some(true) if only_accept && lost_since => SameLife::YesSinceAccept,
            Some(true) => SameLife::Yes,
            _ if socket.first_seen >= started => SameLife::Stale,
            Some(false) => SameLife::No,
            None if lost_since => SameLife::Unknown,
            None => SameLife::Yes,
        }
    }

    /// Forgets when a socket was opened: it was by its last event.
    fn forget_opening(&mut self, slot: Slot) {
        let Some(socket) = self.socket_mut(slot) else { return };
        socket.doubted = socket.began() == Began::At(socket.first_seen);
        socket.set_began(Began::Before(socket.last_event));
    }

    /// Forgets who opened a socket and when, without booking anything: it may be a later life than the one that was
    /// told of, and a wrong process is worse than none.
    fn forget_beginning(&mut self, slot: Slot, finished: BootNs) {
        let Some(socket) = self.socket_mut(slot) else { return };
        socket.doubted = socket.began() == Began::At(socket.first_seen);
        socket.opener = None;
        (socket.inode, socket.inode_seen) = (None, false);
        socket.set_began(Began::Before(finished));
        self.sockets.unset_sk(slot);
    }

    /// A socket that no event announced.
    fn discover(&mut self, row: &SocketRow, started: BootNs, finished: BootNs, first: bool) -> Option<Slot> {
        let ended = self.tombstones.ended_at(&row.tuple).is_some_and(|ended| ended >= started);
        if ended || row.certainty == Certainty::Doubtful {
            return None;
        }
        if self.tombstones.may_have_forgotten(started) {
            // It may have ended since, among more than are remembered: the next look knows.
            self.lost_at = self.lost_at.max(Some(finished));
            return None;
        }
        // Connects in progress are not announced by events.
        let new_port = self.sight.is_new_port(row.tuple.database(row.role).port());
        let endpoint = self.endpoint_of(&row.tuple, row.role);
        let place = (row.tuple, row.role, endpoint);
        let mut socket = Socket::new(place, row.state, Began::Before(finished), started);
        socket.unannounced = !first && !new_port && row.state.is_open();
        self.insert(socket)
    }

    fn refresh(&mut self, slot: Slot, row: SocketRow, started: BootNs, finished: BootNs) {
        let (look, told_within, mut missed_opens) = (self.looks, TOLD_WITHIN * self.pace, 0);
        let Some(socket) = self.socket_mut(slot) else { return };
        socket.look = look;
        socket.set_absent(None);
        if socket.unannounced && started.since(socket.began().moment()) >= told_within {
            socket.unannounced = false;
            missed_opens += 1;
        }
        socket.cookie = NonZeroU64::new(row.cookie);
        socket.inode_seen |= row.inode != 0;
        socket.inode = u32::try_from(row.inode).ok().and_then(NonZeroU32::new).or(socket.inode);
        if let Some(info) = &row.info {
            self.take_counters(slot, info, row.state, finished);
        }
        let Some(socket) = self.socket_mut(slot) else { return };
        // An event during or after the look knows the newer state.
        let was_open = socket.is_open();
        if socket.last_event < started && socket.state != row.state {
            socket.set_state(row.state, Began::Before(finished));
        }
        let (endpoint, account, is_open) = (socket.endpoint(), socket.account, socket.is_open());
        let active = socket.last_active();
        self.missed_opens(missed_opens);
        if !was_open && is_open {
            self.connected_unseen(slot, endpoint, account, finished);
        }
        self.take_holders(slot, row.holders);
        let account = self.socket(slot).and_then(|socket| socket.account);
        if let (Some(id), Some(active)) = (account, active)
            && let Some(account) = self.account_mut(id, endpoint, started)
        {
            account.last_active = account.last_active.max(Some(active));
        }
    }

    /// Who has it open now.
    pub(super) fn take_holders(&mut self, slot: Slot, mut holders: Holders) {
        holders.sort_unstable();
        let look = self.looks;
        for holder in holders.iter() {
            if let Some(process) = self.process_mut(holder.process) {
                process.seen_look = look;
            }
        }
        let first = holders.first().map(|holder| holder.process);
        if let Some(socket) = self.socket_mut(slot) {
            socket.unheld_looks = if first.is_some() { 0 } else { socket.unheld_looks.saturating_add(1) };
            socket.holders = holders;
        }
        if let Some(first) = first {
            self.assign_account(slot, first);
        }
    }

    /// A connect that was in progress at an earlier look has been established, and its event was lost.
    fn connected_unseen(&mut self, slot: Slot, endpoint: usize, account: Option<ProcessId>, at: BootNs) {
        if let Some(socket) = self.socket_mut(slot) {
            socket.set_began(Began::Before(at));
            socket.unannounced = true;
        }
        self.book_open(endpoint, account, at);
    }

    /// Ends what this look and the one before did not see: its end was lost. What is younger than the look was not there
    /// to be seen. True if something is missing for the first time.
    fn remove_absent(&mut self, look_started: BootNs) -> bool {
        let look = self.looks;
        let (sight, in_flight) = (&self.sight, IN_FLIGHT * self.pace);
        // Without events there is none that could be on its way.
        let after_loss = self.lost_at.is_some() || !self.has_events;
        let mut suspects = false;
        let mut gone: Vec<(Slot, BootNs)> = Vec::new();
        for (slot, socket) in self.sockets.iter_mut() {
            let Some(started) = sight.absent_since(socket.tuple.netns(), look_started) else { continue };
            let young = socket.first_seen.max(socket.last_event) >= started;
            if socket.look == look || young {
                continue;
            }
            let patience = sight.patience(socket, in_flight);
            match socket.absent() {
                Some(absence) if absence.after_loss || started.since(absence.since) >= patience => {
                    gone.push((slot, started));
                }
                // Its end may still be on the way.
                Some(_) if !after_loss || patience == in_flight => {}
                // Missing for the first time, or since before its end may have been lost.
                _ => {
                    socket.set_absent(Some(Absence { since: started, after_loss }));
                    suspects = true;
                }
            }
        }
        for (slot, started) in gone {
            self.end_unseen(slot, started);
        }
        suspects
    }

    /// Ends a life whose end no event told, or not yet.
    pub(super) fn end_unseen(&mut self, slot: Slot, at: BootNs) {
        let Some(socket) = self.sockets.remove(slot) else { return };
        self.forget_parting(&socket.tuple);
        self.missed_close();
        if !socket.is_open() {
            // It failed, or it was established and closed: only its end can tell.
            self.tombstones.bury_attempt(&socket, at);
            return;
        }
        self.tombstones.bury_early(&socket, at);
        self.book_removed(&socket, at, Ending::Closed(Life::UNSEEN));
        self.missed_opens(u64::from(socket.unannounced));
    }

    /// Openings that no event told. Without events that is how they all are.
    fn missed_opens(&mut self, opens: u64) {
        self.loss.missed_opens += if self.has_events { opens } else { 0 };
    }

    fn missed_close(&mut self) {
        self.loss.missed_closes += u64::from(self.has_events);
    }

    /// What was in use at once, and what had moved a byte since the look before, by endpoint and by process.
    fn count_in_use(&mut self, now: BootNs) {
        let before = self.looked_at;
        let mut by_endpoint = vec![0u32; self.endpoints.len()];
        let mut by_account = HashMap::<(ProcessId, usize), (u32, u32, u32)>::new();
        for socket in self.sockets.iter().filter(|socket| socket.is_open()) {
            let in_use = u32::from(socket.in_use());
            let used = u32::from(socket.last_active().is_some_and(|at| at > before));
            if let Some(count) = by_endpoint.get_mut(socket.endpoint()) {
                *count += in_use;
            }
            if let Some(id) = socket.account.filter(|_| in_use + used > 0) {
                let reused = used * u32::from(socket.began().moment() < before);
                let counts = by_account.entry((id, socket.endpoint())).or_default();
                *counts = (counts.0 + in_use, counts.1 + used, counts.2 + reused);
            }
        }
        for (endpoint, in_use) in self.endpoints.iter_mut().zip(by_endpoint) {
            endpoint.in_use_peak = endpoint.in_use_peak.max(in_use);
            endpoint.series.in_use(now, endpoint.open, in_use);
        }
        for process in self.processes.values_mut() {
            for (endpoint, account) in &mut process.accounts {
                let counts = by_account.get(&(process.id, *endpoint)).copied().unwrap_or_default();
                account.in_use_peak = account.in_use_peak.max(counts.0);
                let open = account.open_u32();
                if let Some(history) = account.history_mut().filter(|_| open > 0) {
                    history.looked(now, open, counts);
                }
            }
        }
    }
}
