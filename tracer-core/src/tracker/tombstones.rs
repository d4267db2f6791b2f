//! Ends remembered for a while, so that a repeated, late or reordered event, or a look at the socket table that began
//! before the end, cannot revive a socket. What is older than the memory is not known to be over, nor to live.

use std::collections::VecDeque;
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use hashbrown::HashMap;

use crate::event::{SocketEvent, SocketEventKind, Tuple};
use crate::socket::{Began, Socket};
use crate::time::BootNs;

/// One life: a kernel address and the moment that tells its lives apart.
type Life = (u64, u64);

#[derive(Debug)]
struct Grave {
    at: BootNs,
    life: Option<Life>,
    inode: Option<NonZeroU32>,
    tuple: Option<Tuple>,
}

/// The last life of a tuple.
#[derive(Clone, Copy, Debug)]
struct Last {
    at: BootNs,
    /// Its kernel address, if that was told.
    sk: Option<NonZeroU64>,
    burial: u64,
    found: Option<Found>,
}

/// The last life of a tuple that a look found, and no event told when it began.
#[derive(Clone, Copy, Debug)]
struct Found {
    /// The look began and ended then.
    started: BootNs,
    finished: BootNs,
    burial: u64,
}

/// A connect that was seen in progress and was over later; its end was not told.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    /// The look that saw it began and ended then.
    seen: BootNs,
    seen_by: BootNs,
    over: BootNs,
    burial: u64,
}

#[derive(Debug)]
pub(super) struct Tombstones {
    most: usize,
    /// By which burial a life ended.
    lives: HashMap<Life, u64>,
    /// Burials of lives that were ended before their own end was told; whether nothing had been told of one at all.
    early: HashMap<u64, bool>,
    /// When a life with that inode number ended, and which burial said so. A socket that connects again keeps its number.
    inodes: HashMap<NonZeroU32, (BootNs, u64)>,
    tuples: HashMap<Tuple, Last>,
    attempts: HashMap<Tuple, Attempt>,
    order: VecDeque<Grave>,
    /// Number of the oldest burial in `order`.
    first: u64,
    /// The latest end that was forgotten.
    forgotten: Option<BootNs>,
}

impl Tombstones {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            lives: HashMap::new(),
            early: HashMap::new(),
            inodes: HashMap::new(),
            tuples: HashMap::new(),
            attempts: HashMap::new(),
            order: VecDeque::new(),
            first: 0,
            forgotten: None,
        }
    }

    /// A life that the tracker knew, and the event of its end, if there was one.
    pub(super) fn bury(&mut self, socket: &Socket, end: Option<&SocketEvent>, at: BootNs) {
        let (known, found) = match (socket.sk, socket.began()) {
            (Some(sk), Began::At(began)) => (Some((sk.get(), began.0)), None),
            (sk, Began::Before(moment)) => (sk.map(|sk| untold(sk.get())), Some((socket.first_seen, moment))),
            _ => (None, None),
        };
        let life = end.and_then(life_of).or(known);
        // Once its own end was told, a life is known by that.
        let found = found.filter(|_| end.is_none());
        self.add(Grave { at, life, inode: socket.inode, tuple: Some(socket.tuple) }, found, socket.sk);
    }

    /// A life that was only heard of at its end.
    pub(super) fn bury_event(&mut self, event: &SocketEvent) {
        let tuple = (event.tuple.local().port() != 0).then_some(event.tuple);
        let inode = event.inode.and_then(NonZeroU32::new);
        self.add(Grave { at: event.at, life: life_of(event), inode, tuple }, None, NonZeroU64::new(event.sk));
    }

    /// A life that was over before its own end was told: that may come yet.
    pub(super) fn bury_early(&mut self, socket: &Socket, at: BootNs) {
        self.bury(socket, None, at);
        self.early.insert(self.next_burial() - 1, socket.unannounced);
    }

    /// A connect that was seen in progress and then not any more. Its end is still to be counted.
    pub(super) fn bury_attempt(&mut self, socket: &Socket, at: BootNs) {
        self.add(Grave { at, life: None, inode: None, tuple: Some(socket.tuple) }, None, socket.sk);
        let (seen, seen_by) = (socket.first_seen, socket.began().moment());
        let attempt = Attempt { seen, seen_by, over: at, burial: self.next_burial() - 1 };
        self.attempts.insert(socket.tuple, attempt);
    }

    /// Whether this is the end of a connect that was buried in progress; true once.
    pub(super) fn was_attempt(&mut self, event: &SocketEvent) -> bool {
        let Some(attempt) = self.attempts.get(&event.tuple) else { return false };
        // Another attempt of the same tuple began after this one was seen.
        let is_its = match (event.birth, event.established) {
            (Some(birth), _) => birth <= attempt.seen_by,
            (None, Some(established)) => established < attempt.over,
            (None, None) => true,
        };
        event.at >= attempt.seen && is_its && self.attempts.remove(&event.tuple).is_some()
    }

    /// Whether this is the end of a life that was buried early, once; and whether nothing had been told of it before.
    pub(super) fn was_early(&mut self, event: &SocketEvent) -> Option<bool> {
        let life = life_of(event);
        let by_life = self.lives.get(&life.unwrap_or(untold(event.sk))).copied();
        let by_inode = self.inode_of(event);
        let found = self.tuples.get(&event.tuple).and_then(|last| last.found);
        let by_tuple = found.filter(|found| life.is_none() || found.is_of(event)).map(|found| found.burial);
        let unannounced =
            [by_life, by_inode, by_tuple].into_iter().flatten().find_map(|burial| self.early.remove(&burial))?;
        if let Some(last) = self.tuples.get_mut(&event.tuple) {
            last.found = last.found.filter(|found| Some(found.burial) != by_tuple);
        }
        self.bury_event(event);
        Some(unannounced)
    }

    /// Whether the life of this event has ended already.
    pub(super) fn holds(&self, event: &SocketEvent) -> bool {
        life_of(event).is_some_and(|life| self.lives.contains_key(&life))
            || self.inode_of(event).is_some()
            || self.tuples.get(&event.tuple).and_then(|last| last.found).is_some_and(|found| found.is_of(event))
    }

    /// When the last life of this tuple ended, if that is remembered.
    pub(super) fn ended_at(&self, tuple: &Tuple) -> Option<BootNs> {
        self.tuples.get(tuple).map(|last| last.at)
    }

    /// Whether the last life of this tuple ended after this event, or was at its kernel address and ended no longer
    /// before it than `within`.
    pub(super) fn ended_about(&self, event: &SocketEvent, within: Duration) -> bool {
        self.tuples.get(&event.tuple).is_some_and(|last| {
            let elsewhere = last.sk.is_some_and(|sk| sk.get() != event.sk);
            last.at >= event.at || (!elsewhere && event.at.since(last.at) <= within)
        })
    }

    /// Whether what was so at that moment may have ended since and the end be forgotten.
    pub(super) fn may_have_forgotten(&self, moment: BootNs) -> bool {
        self.forgotten.is_some_and(|forgotten| moment <= forgotten)
    }

    /// The burial of the last life with this event's inode number, if the event's life began before that.
    fn inode_of(&self, event: &SocketEvent) -> Option<u64> {
        let (at, burial) = *self.inodes.get(&NonZeroU32::new(event.inode?)?)?;
        let began = event.birth.or(event.established).unwrap_or(event.at);
        (began <= at).then_some(burial)
    }

    fn next_burial(&self) -> u64 {
        self.first + u64::try_from(self.order.len()).unwrap_or(u64::MAX)
    }

    fn add(&mut self, grave: Grave, found: Option<(BootNs, BootNs)>, sk: Option<NonZeroU64>) {
        if self.order.len() >= self.most {
            self.forget_oldest();
        }
        let burial = self.next_burial();
        self.lives.extend(grave.life.map(|life| (life, burial)));
        if let Some(inode) = grave.inode {
            let last = self.inodes.entry(inode).or_insert((grave.at, burial));
            *last = (last.0.max(grave.at), burial);
        }
        if let Some(tuple) = grave.tuple {
            let before = self.tuples.get(&tuple);
            let found = found.map(|(started, finished)| Found { started, finished, burial });
            let found = found.or(before.and_then(|last| last.found));
            let at = before.map_or(grave.at, |last| last.at.max(grave.at));
            self.tuples.insert(tuple, Last { at, sk, burial, found });
        }
        self.order.push_back(grave);
    }

    fn forget_oldest(&mut self) {
        let Some(grave) = self.order.pop_front() else { return };
        // A later life has a later burial of its own.
        if let Some(life) = grave.life
            && self.lives.get(&life) == Some(&self.first)
        {
            self.lives.remove(&life);
        }
        self.early.remove(&self.first);
        if let Some(inode) = grave.inode
            && self.inodes.get(&inode).is_some_and(|(_, burial)| *burial == self.first)
        {
            self.inodes.remove(&inode);
        }
        if let Some(tuple) = grave.tuple
            && self.tuples.get(&tuple).is_some_and(|last| last.burial == self.first)
        {
            self.tuples.remove(&tuple);
        }
        if let Some(tuple) = grave.tuple
            && self.attempts.get(&tuple).is_some_and(|attempt| attempt.burial == self.first)
        {
            self.attempts.remove(&tuple);
        }
        self.first += 1;
        self.forgotten = self.forgotten.max(Some(grave.at));
    }
}

impl Found {
    /// Whether the event is of this life or, unless it is an end, of an earlier one: going by time, for a tuple has one
    /// life at a time. One that was established when the look ended and did not end before it began is the one found.
    fn is_of(&self, event: &SocketEvent) -> bool {
        event.established.is_some_and(|established| match event.kind {
            SocketEventKind::End => established <= self.finished && event.at >= self.started,
            _ => established <= self.started,
        })
    }
}

/// The last life at that address of which nobody knows when it began.
fn untold(sk: u64) -> Life {
    (sk, 0)
}

/// A life that was established is told apart by that moment, one that never was by its birth.
fn life_of(event: &SocketEvent) -> Option<Life> {
    event.established.or(event.birth).map(|at| (event.sk, at.0))
}
