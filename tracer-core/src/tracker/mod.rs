//! What is true now: live sockets, processes and endpoints, kept from events and looks at the socket table.
//!
//! One owner changes it; detectors and snapshots read it. Everything is bounded, and everything beyond a bound is
//! counted. A socket is never dropped for being idle.

mod events;
mod reconcile;
mod tombstones;
mod view;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::ops::Bound;

pub use events::Effect;
pub use view::{About, event_line};

use crate::endpoint::Endpoint;
use crate::event::{ProcessId, Role, Tuple};
use crate::identity::Identity;
use crate::ports::PortMap;
use crate::process::{Account, Process};
use crate::snapshot::{Completeness, Limit, Loss};
use crate::socket::{Opener, Socket};
use crate::time::BootNs;
use tombstones::Tombstones;

/// How much the tracker keeps.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Live sockets.
    pub sockets: usize,
    /// Processes, live and ended.
    pub processes: usize,
    /// Ended processes without open connections.
    pub ended_processes: usize,
    /// Endpoints; the rest share one named `other`.
    pub endpoints: usize,
    /// Ends remembered so that late or repeated events cannot revive a socket.
    pub tombstones: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { sockets: 262_144, processes: 65_536, ended_processes: 8_192, endpoints: 1_024, tombstones: 16_384 }
    }
}

/// What was lost before the tracker, since the start. See [`Loss`] for what each stage means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are `Loss`'s")]
pub struct LossBefore {
    pub ring_full: u64,
    pub ends: u64,
    pub read_failed: u64,
    pub map_full: u64,
    pub process_map_full: u64,
    pub program_skipped: u64,
    pub queue_full: u64,
    pub decode_errors: u64,
}

/// What the user configured for an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointRule {
    /// Its name.
    pub name: Option<String>,
    /// The most it takes.
    pub limit: Option<Limit>,
    /// Which database it is, if the port does not say.
    pub database: Option<String>,
}

/// Index of a live socket.
type Slot = usize;

/// The state of the host's database connections.
#[derive(Debug)]
pub struct Tracker {
    bounds: Bounds,
    ports: PortMap,
    rules: BTreeMap<SocketAddr, EndpointRule>,
    sockets: Vec<Option<Socket>>,
    free: Vec<Slot>,
    by_tuple: HashMap<Tuple, Slot>,
    by_sk: HashMap<u64, Slot>,
    endpoints: Vec<Endpoint>,
    endpoint_index: BTreeMap<(Option<SocketAddr>, Role), usize>,
    processes: BTreeMap<ProcessId, Process>,
    ended: VecDeque<ProcessId>,
    unidentified: Vec<ProcessId>,
    /// Where the last round of `take_unconfirmed` stopped.
    confirmed_to: Option<ProcessId>,
    tombstones: Tombstones,
    loss: Loss,
    lost_at: Option<BootNs>,
    looks: u64,
    unreadable_processes: u32,
    /// Whether events tell what happens between looks.
    has_events: bool,
}

impl Tracker {
    /// An empty tracker.
    #[must_use]
    pub fn new(bounds: Bounds, ports: PortMap, rules: BTreeMap<SocketAddr, EndpointRule>) -> Self {
        Self {
            bounds,
            ports,
            rules,
            sockets: Vec::new(),
            free: Vec::new(),
            by_tuple: HashMap::new(),
            by_sk: HashMap::new(),
            endpoints: Vec::new(),
            endpoint_index: BTreeMap::new(),
            processes: BTreeMap::new(),
            ended: VecDeque::new(),
            unidentified: Vec::new(),
            confirmed_to: None,
            tombstones: Tombstones::new(bounds.tombstones),
            loss: Loss::default(),
            lost_at: None,
            looks: 0,
            unreadable_processes: 0,
            has_events: true,
        }
    }

    /// The same for looks at the socket table alone: what they find or miss is no loss, and what happens in between is
    /// never known.
    #[must_use]
    pub fn without_events(self) -> Self {
        Self { has_events: false, ..self }
    }

    /// Live sockets, those still connecting included, in no particular order.
    pub fn sockets(&self) -> impl Iterator<Item = &Socket> {
        self.sockets.iter().flatten()
    }

    /// Endpoints by index.
    #[must_use]
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The endpoint of that address and side.
    #[must_use]
    pub fn endpoint(&self, addr: SocketAddr, role: Role) -> Option<(usize, &Endpoint)> {
        let index = *self.endpoint_index.get(&(Some(addr), role))?;
        self.endpoints.get(index).map(|endpoint| (index, endpoint))
    }

    /// Processes by id.
    #[must_use]
    pub fn processes(&self) -> &BTreeMap<ProcessId, Process> {
        &self.processes
    }

    /// What was lost so far.
    #[must_use]
    pub fn loss(&self) -> Loss {
        self.loss
    }

    /// What the counts are worth now.
    #[must_use]
    pub fn completeness(&self) -> Completeness {
        match (self.looks, self.lost_at) {
            (0, _) => Completeness::Unknown,
            (_, Some(_)) => Completeness::LowerBound,
            _ if !self.has_events => Completeness::LowerBound,
            (_, None) => Completeness::Exact,
        }
    }

    /// What the totals since the start are worth: what opened and closed while events were lost was never seen.
    #[must_use]
    pub fn totals_completeness(&self) -> Completeness {
        let loss = self.loss;
        let lost = loss.ring_full
            + loss.read_failed
            + loss.map_full
            + loss.program_skipped
            + loss.queue_full
            + loss.decode_errors
            + loss.tracker_full
            + loss.missed_opens
            + loss.missed_closes;
        match (self.looks, lost) {
            (0, _) => Completeness::Unknown,
            (_, 0) if self.has_events => Completeness::Exact,
            _ => Completeness::LowerBound,
        }
    }

    /// Takes the absolute loss counts of the stages before the tracker. True if something was lost since the last call:
    /// a look at the socket table is due, and until then counts are lower bounds.
    pub fn note_loss(&mut self, before: LossBefore, now: BootNs) -> bool {
        let LossBefore { ring_full, ends, read_failed, map_full, .. } = before;
        let LossBefore { process_map_full, program_skipped, queue_full, decode_errors, .. } = before;
        // A process that is not watched costs no connection.
        let known = Loss { process_map_full, ..self.loss };
        self.loss =
            Loss { ring_full, ends, read_failed, map_full, program_skipped, queue_full, decode_errors, ..known };
        let lost = self.loss != known;
        if lost {
            self.lost_at = Some(now);
        }
        lost
    }

    /// Processes that /proc should be asked about, each once (and again after an exec).
    pub fn take_unidentified(&mut self) -> Vec<ProcessId> {
        std::mem::take(&mut self.unidentified)
    }

    /// Processes taken for alive that the last look did not find holding anything: if the report of their end was lost,
    /// only /proc can tell. At most `most` a call, each in turn.
    pub fn take_unconfirmed(&mut self, most: usize) -> Vec<ProcessId> {
        let looks = self.looks;
        let open = |(_, process): &(&ProcessId, &Process)| process.ended.is_none() && process.seen_look != looks;
        let after = self.confirmed_to.map_or(Bound::Unbounded, Bound::Excluded);
        let ids: Vec<ProcessId> =
            self.processes.range((after, Bound::Unbounded)).filter(open).take(most).map(|(id, _)| *id).collect();
        self.confirmed_to = if ids.len() < most { None } else { ids.last().copied() };
        ids
    }

    /// What /proc said of a process.
    pub fn apply_identity(&mut self, identity: Identity) {
        if let Some(process) = self.processes.get_mut(&identity.id) {
            process.identity = Some(Box::new(identity));
        }
    }

    /// A process was found gone without its end having been reported.
    pub fn apply_gone(&mut self, id: ProcessId, now: BootNs) {
        self.end_process(id, now);
    }

    fn end_process(&mut self, id: ProcessId, now: BootNs) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        if process.ended.is_none() {
            process.ended = Some(now);
            self.ended.push_back(id);
        }
        self.forget_ended();
    }

    /// Drops the processes that ended longest ago, down to the bounds; those with open connections stay.
    fn forget_ended(&mut self) {
        let mut looked_at = 0;
        let most = self.ended.len();
        while (self.ended.len() > self.bounds.ended_processes || self.processes.len() > self.bounds.processes)
            && looked_at < most
        {
            looked_at += 1;
            let Some(id) = self.ended.pop_front() else { return };
            if self.processes.get(&id).is_some_and(Process::has_open) {
                self.ended.push_back(id);
            } else {
                self.processes.remove(&id);
            }
        }
    }

    /// The process, made known if there is room; `None` (counted) if there is not.
    fn process_mut(&mut self, id: ProcessId, now: BootNs) -> Option<&mut Process> {
        if !self.processes.contains_key(&id) {
            if self.processes.len() >= self.bounds.processes {
                self.forget_ended();
            }
            if self.processes.len() >= self.bounds.processes {
                self.loss.tracker_full += 1;
                return None;
            }
            self.processes.insert(id, Process::new(id, now));
            self.unidentified.push(id);
        }
        let process = self.processes.get_mut(&id)?;
        process.last_seen = process.last_seen.max(now);
        Some(process)
    }

    fn account_mut(&mut self, id: ProcessId, endpoint: usize, now: BootNs) -> Option<&mut Account> {
        self.process_mut(id, now).map(|process| process.accounts.entry(endpoint).or_default())
    }

    /// Index of the endpoint, made if there is room, else of the one called `other`.
    fn endpoint_of(&mut self, tuple: &Tuple, role: Role) -> usize {
        let addr = tuple.database(role);
        if let Some(index) = self.endpoint_index.get(&(Some(addr), role)) {
            return *index;
        }
        let addr = if self.endpoints.len() < self.bounds.endpoints { Some(addr) } else { None };
        if let Some(index) = self.endpoint_index.get(&(addr, role)) {
            return *index;
        }
        let rule = addr.and_then(|addr| self.rules.get(&addr));
        let by_port = addr.and_then(|addr| self.ports.database(addr.port()));
        let database = rule.and_then(|rule| rule.database.as_deref()).or(by_port).unwrap_or("other").to_owned();
        let mut endpoint = Endpoint::new(addr, role, database);
        if let Some(rule) = rule {
            endpoint.name.clone_from(&rule.name);
            endpoint.limit = rule.limit;
        }
        self.endpoints.push(endpoint);
        let index = self.endpoints.len() - 1;
        self.endpoint_index.insert((addr, role), index);
        index
    }

    /// Who opened or accepted the live socket at that kernel address, if that was seen.
    fn opener_of(&self, sk: u64) -> Option<Opener> {
        self.by_sk.get(&sk).and_then(|slot| self.socket(*slot)).and_then(|socket| socket.opener)
    }

    fn socket(&self, slot: Slot) -> Option<&Socket> {
        self.sockets.get(slot).and_then(Option::as_ref)
    }

    fn socket_mut(&mut self, slot: Slot) -> Option<&mut Socket> {
        self.sockets.get_mut(slot).and_then(Option::as_mut)
    }

    /// Takes a new life in; `None` (counted) if there is no room.
    fn insert(&mut self, socket: Socket) -> Option<Slot> {
        if self.by_tuple.len() >= self.bounds.sockets {
            self.loss.tracker_full += 1;
            self.lost_at = Some(socket.last_event.max(socket.first_seen));
            return None;
        }
        let (tuple, sk) = (socket.tuple, socket.sk);
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.sockets.push(None);
                self.sockets.len() - 1
            }
        };
        if socket.is_open() {
            self.book_open(socket.endpoint, socket.account, socket.began.moment());
        }
        self.sockets[slot] = Some(socket);
        self.by_tuple.insert(tuple, slot);
        if let Some(sk) = sk {
            self.by_sk.insert(sk, slot);
        }
        Some(slot)
    }

    /// Books the life on a process, once.
    fn assign_account(&mut self, slot: Slot, id: ProcessId, now: BootNs) {
        let Some(socket) = self.socket_mut(slot) else { return };
        if socket.account.is_some() {
            return;
        }
        socket.account = Some(id);
        let (endpoint, open) = (socket.endpoint, socket.is_open());
        if let Some(account) = self.account_mut(id, endpoint, now)
            && open
        {
            account.opened_total += 1;
        }
    }

    /// Ends a life and books it: closed if it was open, failed if it never was.
    fn remove(&mut self, slot: Slot, at: BootNs) -> Option<Socket> {
        let socket = self.sockets.get_mut(slot).and_then(Option::take)?;
        self.free.push(slot);
        // A later life may have taken over either.
        if self.by_tuple.get(&socket.tuple) == Some(&slot) {
            self.by_tuple.remove(&socket.tuple);
        }
        self.unlink_sk(slot, socket.sk);
        self.tombstones.bury(&socket, at);
        self.book_end(socket.endpoint, socket.account, socket.role, socket.is_open(), at);
        if let (Some(id), Some(active)) = (socket.account, socket.last_active())
            && let Some(account) = self.account_mut(id, socket.endpoint, at)
        {
            account.last_active = account.last_active.max(Some(active));
        }
        Some(socket)
    }

    /// Forgets which kernel address a slot has, if the address is still its own.
    fn unlink_sk(&mut self, slot: Slot, sk: Option<u64>) {
        if let Some(sk) = sk
            && self.by_sk.get(&sk) == Some(&slot)
        {
            self.by_sk.remove(&sk);
        }
    }

    fn book_open(&mut self, endpoint: usize, account: Option<ProcessId>, at: BootNs) {
        if let Some(endpoint) = self.endpoints.get_mut(endpoint) {
            endpoint.count_opened(at);
        }
        if let Some(account) = account.and_then(|id| self.account_mut(id, endpoint, at)) {
            account.opened_total += 1;
        }
    }

    fn book_end(&mut self, endpoint: usize, account: Option<ProcessId>, role: Role, open: bool, at: BootNs) {
        // A handshake that the database's side never finished is no connection of anybody.
        if !open && role == Role::Server {
            return;
        }
        if let Some(endpoint) = self.endpoints.get_mut(endpoint) {
            if open {
                endpoint.count_closed(at);
            } else {
                endpoint.count_failed(at);
            }
        }
        if let Some(account) = account.and_then(|id| self.account_mut(id, endpoint, at)) {
            if open {
                account.closed_total += 1;
            } else {
                account.failed_total += 1;
            }
        }
    }
}
