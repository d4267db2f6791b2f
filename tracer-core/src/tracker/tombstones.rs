//! Ends remembered for a while, so that a repeated, late or reordered event, or a look at the socket table that began
//! before the end, cannot revive a socket.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::event::{SocketEvent, Tuple};
use crate::socket::{Began, Socket};
use crate::time::BootNs;

/// One life: a kernel address and the moment that tells its lives apart.
type Life = (u64, u64);

#[derive(Debug)]
pub(super) struct Tombstones {
    most: usize,
    lives: HashSet<Life>,
    /// Lives that a later one of their tuple ended before their own end was told.
    early: HashSet<Life>,
    /// When the tuple's last life ended, and which burial said so.
    tuples: HashMap<Tuple, (BootNs, u64)>,
    order: VecDeque<(Option<Life>, Option<Tuple>)>,
    /// Number of the oldest burial in `order`.
    first: u64,
}

impl Tombstones {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            lives: HashSet::new(),
            early: HashSet::new(),
            tuples: HashMap::new(),
            order: VecDeque::new(),
            first: 0,
        }
    }

    /// A life that the tracker knew.
    pub(super) fn bury(&mut self, socket: &Socket, at: BootNs) {
        let life = match (socket.sk, socket.began()) {
            (Some(sk), Began::At(began)) => Some((sk.get(), began.0)),
            _ => None,
        };
        self.add(life, Some(socket.tuple), at);
    }

    /// A life that was only heard of at its end.
    pub(super) fn bury_event(&mut self, event: &SocketEvent) {
        let tuple = (event.tuple.local().port() != 0).then_some(event.tuple);
        self.add(life_of(event), tuple, event.at);
    }

    /// A buried life whose own end may still be told.
    pub(super) fn mark_early(&mut self, socket: &Socket) {
        if let (Some(sk), Began::At(began)) = (socket.sk, socket.began()) {
            self.early.insert((sk.get(), began.0));
        }
    }

    /// Whether this is the end of a life that was buried early; true once.
    pub(super) fn was_early(&mut self, event: &SocketEvent) -> bool {
        life_of(event).is_some_and(|life| self.early.remove(&life))
    }

    /// Whether the life of this event has ended already.
    pub(super) fn holds(&self, event: &SocketEvent) -> bool {
        life_of(event).is_some_and(|life| self.lives.contains(&life))
    }

    /// When the last life of this tuple ended, if that is remembered.
    pub(super) fn ended_at(&self, tuple: &Tuple) -> Option<BootNs> {
        self.tuples.get(tuple).map(|(at, _)| *at)
    }

    fn add(&mut self, life: Option<Life>, tuple: Option<Tuple>, at: BootNs) {
        if self.order.len() >= self.most
            && let Some((life, tuple)) = self.order.pop_front()
        {
            if let Some(life) = life {
                self.lives.remove(&life);
                self.early.remove(&life);
            }
            // A later life of the same tuple has a later burial of its own.
            if let Some(tuple) = tuple
                && self.tuples.get(&tuple).is_some_and(|(_, burial)| *burial == self.first)
            {
                self.tuples.remove(&tuple);
            }
            self.first += 1;
        }
        if let Some(life) = life {
            self.lives.insert(life);
        }
        if let Some(tuple) = tuple {
            let burial = self.first + u64::try_from(self.order.len()).unwrap_or(u64::MAX);
            let last = self.tuples.entry(tuple).or_insert((at, burial));
            *last = (last.0.max(at), burial);
        }
        self.order.push_back((life, tuple));
    }
}

/// A life that was established is told apart by that moment, one that never was by its birth.
fn life_of(event: &SocketEvent) -> Option<Life> {
    event.established.or(event.birth).map(|at| (event.sk, at.0))
}
