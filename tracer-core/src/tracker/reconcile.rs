//! How a look at the socket table changes the tracker: it fills in what events cannot tell (counters, holders, sockets
//! older than the tracing) and repairs what lost events left wrong.
//!
//! The caller applies every event older than the look's end before the look itself.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Slot, Tracker};
use crate::event::ProcessId;
use crate::inventory::{Certainty, Inventory, SocketRow};
use crate::socket::{Absence, Began, Socket};
use crate::time::BootNs;

/// An interrupted program holds its record, and all after it, back for a moment: with no loss known, a socket that is
/// absent for less than this has an end that is still in the ring.
const IN_FLIGHT: Duration = Duration::from_secs(1);

/// Whether a row of the table is of the life that the tracker knows by that tuple.
enum SameLife {
    Yes,
    No,
    Unknown,
}

impl Tracker {
    /// Takes one look at the socket table in. True if another should follow at once: the kernel's dump is not atomic and
    /// can skip a live socket whose hash bucket changed, so a socket is ended only when two looks in a row miss it.
    pub fn apply_inventory(&mut self, inventory: Inventory) -> bool {
        let first = self.looks == 0;
        self.looks += 1;
        let missed_before = self.loss.missed_opens + self.loss.missed_closes;
        let Inventory { started, finished, netns, sockets, unreadable_processes } = inventory;
        for row in sockets {
            self.apply_row(row, started, finished, first);
        }
        let suspects = self.remove_absent(netns, started);
        self.count_in_use(finished);
        self.unreadable_processes = unreadable_processes;
        if !first && self.loss.missed_opens + self.loss.missed_closes > missed_before {
            self.loss.resyncs += 1;
        }
        if self.lost_at.is_some_and(|lost_at| lost_at < started) {
            self.lost_at = None;
        }
        suspects
    }

    fn apply_row(&mut self, row: SocketRow, started: BootNs, finished: BootNs, first: bool) {
        let known = self.by_tuple.get(&row.tuple).copied();
        let slot = match known.map(|slot| (slot, self.compare(slot, &row))) {
            Some((slot, SameLife::No)) => {
                // The old life ended and the new one began before this look, and both events were lost.
                if self.remove(slot, started.minus(Duration::from_nanos(1))).is_some() {
                    self.missed_close();
                }
                None
            }
            Some((slot, SameLife::Unknown)) => {
                self.forget_beginning(slot, finished);
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
    fn compare(&self, slot: Slot, row: &SocketRow) -> SameLife {
        let Some(socket) = self.socket(slot) else { return SameLife::No };
        let same = match (socket.cookie, socket.inode) {
            (Some(cookie), _) => Some(cookie == row.cookie),
            (None, Some(inode)) if row.inode != 0 => Some(u64::from(inode) == row.inode),
            // An open connection does not go back to connecting.
            _ if socket.is_open() && !row.state.is_open() => Some(false),
            _ => None,
        };
        match same {
            Some(true) => SameLife::Yes,
            Some(false) => SameLife::No,
            None if self.lost_at.is_some_and(|lost_at| lost_at >= socket.first_seen) => SameLife::Unknown,
            None => SameLife::Yes,
        }
    }

    /// Forgets who opened a socket and when, without booking anything: it may be a later life than the one that was
    /// told of, and a wrong process is worse than none.
    fn forget_beginning(&mut self, slot: Slot, finished: BootNs) {
        let Some(socket) = self.socket_mut(slot) else { return };
        socket.opener = None;
        socket.began = Began::Before(finished);
        let sk = socket.sk.take();
        self.unlink_sk(slot, sk);
    }

    /// A socket that no event announced.
    fn discover(&mut self, row: &SocketRow, started: BootNs, finished: BootNs, first: bool) -> Option<Slot> {
        let ended = self.tombstones.ended_at(&row.tuple).is_some_and(|ended| ended >= started);
        if ended || row.certainty == Certainty::Doubtful {
            return None;
        }
        // Connects in progress are not announced by events.
        if !first && row.state.is_open() {
            self.missed_open();
        }
        let endpoint = self.endpoint_of(&row.tuple, row.role);
        let place = (row.tuple, row.role, endpoint);
        self.insert(Socket::new(place, row.state, Began::Before(finished), started))
    }

    fn refresh(&mut self, slot: Slot, row: SocketRow, started: BootNs, finished: BootNs) {
        let look = self.looks;
        let Some(socket) = self.socket_mut(slot) else { return };
        socket.look = look;
        socket.absent = None;
        socket.cookie = Some(row.cookie);
        socket.inode = u32::try_from(row.inode).ok().filter(|inode| *inode != 0).or(socket.inode);
        if let Some(info) = row.info {
            socket.retransmits = socket.retransmits.max(info.retransmits);
        }
        socket.info = row.info.or(socket.info);
        socket.info_at = finished;
        socket.holders = row.holders;
        socket.holders.sort_unstable();
        // An event during or after the look knows the newer state.
        let was_open = socket.is_open();
        if socket.last_event < started && socket.state != row.state {
            socket.state = row.state;
            socket.state_since = Began::Before(finished);
        }
        let (endpoint, account, is_open) = (socket.endpoint, socket.account, socket.is_open());
        let holders: Vec<ProcessId> = socket.holders.iter().map(|holder| holder.process).collect();
        let active = socket.last_active();
        if !was_open && is_open {
            self.connected_unseen(slot, endpoint, account, finished);
        }
        for holder in &holders {
            if let Some(process) = self.process_mut(*holder, finished) {
                process.seen_look = look;
            }
        }
        if let Some(first) = holders.first() {
            self.assign_account(slot, *first, finished);
        }
        let account = self.socket(slot).and_then(|socket| socket.account);
        if let (Some(id), Some(active)) = (account, active)
            && let Some(account) = self.account_mut(id, endpoint, finished)
        {
            account.last_active = account.last_active.max(Some(active));
        }
    }

    /// A connect that was in progress at an earlier look has been established, and its event was lost.
    fn connected_unseen(&mut self, slot: Slot, endpoint: usize, account: Option<ProcessId>, at: BootNs) {
        self.missed_open();
        if let Some(socket) = self.socket_mut(slot) {
            socket.began = Began::Before(at);
        }
        self.book_open(endpoint, account, at);
    }

    /// Ends what this look and the one before did not see: its end was lost. What is younger than the look was not there
    /// to be seen. True if something is missing for the first time.
    fn remove_absent(&mut self, netns: u32, started: BootNs) -> bool {
        let look = self.looks;
        // Without events there is none that could be on its way.
        let after_loss = self.lost_at.is_some() || !self.has_events;
        let mut suspects = false;
        let mut gone: Vec<Slot> = Vec::new();
        for (slot, socket) in self.sockets.iter_mut().enumerate() {
            let Some(socket) = socket else { continue };
            let young = socket.first_seen.max(socket.last_event) >= started;
            if socket.tuple.netns != netns || socket.look == look || young {
                continue;
            }
            match socket.absent {
                None => {
                    socket.absent = Some(Absence { since: started, after_loss });
                    suspects = true;
                }
                Some(absence) if absence.after_loss || started.since(absence.since) >= IN_FLIGHT => gone.push(slot),
                // Its end may still be on the way.
                Some(_) => {}
            }
        }
        for slot in gone {
            if let Some(socket) = self.remove(slot, started)
                && socket.is_open()
            {
                self.missed_close();
            }
        }
        suspects
    }

    /// An opening that no event told. Without events that is how they all are.
    fn missed_open(&mut self) {
        self.loss.missed_opens += u64::from(self.has_events);
    }

    fn missed_close(&mut self) {
        self.loss.missed_closes += u64::from(self.has_events);
    }

    /// Peaks of what was in use at once, by endpoint and by process.
    fn count_in_use(&mut self, now: BootNs) {
        let mut by_endpoint = vec![0u32; self.endpoints.len()];
        let mut by_account = BTreeMap::<(ProcessId, usize), u32>::new();
        for socket in self.sockets.iter().flatten().filter(|socket| socket.is_open() && socket.in_use()) {
            if let Some(count) = by_endpoint.get_mut(socket.endpoint) {
                *count += 1;
            }
            if let Some(id) = socket.account {
                *by_account.entry((id, socket.endpoint)).or_default() += 1;
            }
        }
        for (endpoint, in_use) in self.endpoints.iter_mut().zip(by_endpoint) {
            endpoint.in_use_peak = endpoint.in_use_peak.max(in_use);
            endpoint.series.in_use(now, endpoint.open, in_use);
        }
        for ((id, endpoint), in_use) in by_account {
            if let Some(account) = self.account_mut(id, endpoint, now) {
                account.in_use_peak = account.in_use_peak.max(in_use);
            }
        }
    }
}
