//! One pass over the live connections for all detectors: what each process holds at each endpoint, packed so that
//! going over it again is cheap.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use crate::event::{ProcessId, Role};
use crate::socket::{Began, Socket};
use crate::tcp::TcpState;
use crate::time::BootNs;
use crate::tracker::Tracker;

/// One open connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held<'a> {
    /// The socket itself: rarely needed, and not near in memory.
    pub socket: &'a Socket,
    /// When it began, or the latest it can have.
    pub began: BootNs,
    /// Last byte either way, as far as the last look told; `None` before one.
    pub last_active: Option<BootNs>,
    /// Bytes sent and received, as the last look told; 0 before one.
    pub sent: u64,
    pub received: u64,
    /// This side's port.
    pub port: u16,
    /// A request was out at the last look.
    pub in_use: bool,
    /// Its beginning was seen.
    pub began_seen: bool,
    /// The last look did not find its opener holding it: another does, or nobody.
    pub strayed: bool,
}

impl Held<'_> {
    /// Since when nothing was said on it: since it began, if no look has told otherwise.
    pub fn idle_since(&self) -> BootNs {
        self.last_active.map_or(self.began, |at| at.max(self.began))
    }
}

/// Open connections of clients, by who answers for them and endpoint index, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Survey<'a> {
    held: BTreeMap<(ProcessId, usize), Vec<Held<'a>>>,
    /// Those nobody is known to answer for.
    unknown: Vec<Held<'a>>,
    /// Those that the database has closed and the client has not.
    left: Vec<&'a Socket>,
    /// Those of either side where an answer of the peer is overdue, or that wait for it to acknowledge a close.
    troubled: Vec<&'a Socket>,
}

impl<'a> Survey<'a> {
    /// Goes over all connections.
    pub fn of(tracker: &'a Tracker) -> Self {
        let mut by_holder = HashMap::<(ProcessId, usize), Vec<Held<'a>>>::new();
        let (mut unknown, mut left, mut troubled) = (Vec::new(), Vec::new(), Vec::new());
        for socket in tracker.sockets().filter(|socket| socket.is_open()) {
            if socket.is_parting() || socket.counters.is_some_and(|counters| counters.is_waiting()) {
                troubled.push(socket);
            }
            if socket.role == Role::Server {
                continue;
            }
            let began = socket.began();
            let (sent, received) = socket.counters.map_or((0, 0), |seen| (seen.bytes_sent, seen.bytes_received));
            let held = Held {
                socket,
                sent,
                received,
                port: socket.tuple.local().port(),
                began: began.moment(),
                last_active: socket.last_active(),
                in_use: socket.in_use(),
                began_seen: matches!(began, Began::At(_)),
                strayed: socket.opener.is_none_or(|by| socket.holders.iter().all(|holder| holder.process != by.id)),
            };
            if socket.state == TcpState::CloseWait {
                left.push(socket);
            }
            match socket.responsible() {
                Some(id) => by_holder.entry((id, socket.endpoint())).or_default().push(held),
                None => unknown.push(held),
            }
        }
        let mut held: BTreeMap<_, _> = by_holder.into_iter().collect();
        // They come in the order they were taken in, nearly sorted; those of one moment keep it.
        held.values_mut().for_each(|all| all.sort_by_key(|held| held.began));
        unknown.sort_by_key(|held| held.began);
        troubled.sort_unstable_by_key(|socket| socket.tuple);
        Self { held, unknown, left, troubled }
    }

    /// Each process with what it holds at each endpoint, in order.
    pub fn holders(&self) -> impl Iterator<Item = (ProcessId, usize, &[Held<'a>])> {
        self.held.iter().map(|((id, endpoint), held)| (*id, *endpoint, held.as_slice()))
    }

    /// What this process holds at this endpoint, oldest first.
    pub fn held(&self, id: ProcessId, endpoint: usize) -> &[Held<'a>] {
        self.held.get(&(id, endpoint)).map_or(&[], Vec::as_slice)
    }

    /// What whoever has that pid holds there.
    pub fn held_by_pid(&self, pid: u32, endpoint: usize) -> impl Iterator<Item = &Held<'a>> {
        let (first, last) = (ProcessId { pid, start_ticks: 0 }, ProcessId { pid, start_ticks: u64::MAX });
        let of_pid = self.held.range((first, 0)..=(last, usize::MAX));
        of_pid.filter(move |((_, at), _)| *at == endpoint).flat_map(|(_, held)| held)
    }

    /// Connections in CLOSE_WAIT, whoever answers for them, in no particular order.
    pub fn left(&self) -> impl Iterator<Item = &'a Socket> {
        self.left.iter().copied()
    }

    /// Connections of either side where an answer of the peer is overdue or a close is not acknowledged yet, in order.
    pub fn troubled(&self) -> impl Iterator<Item = &'a Socket> {
        self.troubled.iter().copied()
    }

    /// Connections that nobody is known to answer for.
    pub fn unknown(&self) -> &[Held<'a>] {
        &self.unknown
    }
}
