//! Accepts. A process takes a connection off its listener's queue without the socket's lock: what is told of that may
//! not know which life it is of, and may be told while that ends on another CPU.

use std::time::Duration;

use super::events::Effect;
use super::{Slot, Tracker};
use crate::event::SocketEvent;
use crate::socket::Began;

/// A process accepts without the socket's lock. One that is told of as accepted this long after the end of a life with
/// the same address and tuple, and of which no beginning is known, is that life and not another.
const ACCEPT_AFTER_END: Duration = Duration::from_secs(1);

impl Tracker {
    /// The opening may not have been told yet: then this tells it.
    pub(super) fn apply_accept(&mut self, event: &SocketEvent) -> Effect {
        let known = match event.established {
            Some(_) => self.find(event).or_else(|| self.reclaim(event)).or_else(|| self.revive(event)),
            None => self.find_accepted(event).or_else(|| self.begin_accepted(event)),
        };
        let Some(slot) = known else { return Effect::Ignored };
        self.link(slot, event);
        Effect::Accepted
    }

    /// The socket that was accepted, by a record that does not say which life it is of. But the process had the
    /// descriptor, so the address was not reused yet: an end that was earlier is before it in the ring.
    fn find_accepted(&self, event: &SocketEvent) -> Option<Slot> {
        let slot = self.sockets.by_tuple(&event.tuple)?;
        let socket = self.socket(slot)?;
        // Without an inode number nobody had accepted it when a look saw it first.
        let since = match socket.began() {
            Began::At(began) => began,
            Began::Before(_) => socket.first_seen,
        };
        let is_there = match socket.sk {
            Some(sk) => sk.get() == event.sk,
            None => !self.is_of_the_ended(event),
        };
        let same = socket.role == event.role
            && is_there
            && socket.inode.map_or(event.at >= since, |inode| event.inode.is_none_or(|told| told == inode.get()));
        same.then_some(slot)
    }

    /// Whether this accept was told while the socket was on its way out: its entry was gone already, and its state not
    /// changed yet.
    fn is_of_the_ended(&self, event: &SocketEvent) -> bool {
        self.tombstones.ended_about(event, ACCEPT_AFTER_END * self.pace)
    }

    /// A connection whose accept is the first that is told of it: it was established some time before.
    pub(super) fn begin_accepted(&mut self, event: &SocketEvent) -> Option<Slot> {
        if !event.old_state.is_open() || self.tombstones.holds(event) || self.too_late(event) {
            return None;
        }
        if self.is_of_the_ended(event) {
            // Its end did not know the inode number.
            self.tombstones.bury_event(event);
            return None;
        }
        self.vacate(event, event.at)?;
        self.open(event, event.old_state, Began::Before(event.at))
    }
}
