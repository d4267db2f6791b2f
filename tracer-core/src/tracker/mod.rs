//! What is true now: live sockets, processes and endpoints, kept from events and looks at the socket table.
//!
//! One owner changes it; detectors and snapshots read it. Everything is bounded, and everything beyond a bound is
//! counted. A socket is never dropped for being idle.

mod accepted;
mod booking;
mod configure;
mod events;
mod figures;
mod inbound;
mod kept;
mod kin;
mod lines;
mod passage;
mod path;
mod reconcile;
mod recorded;
mod sockets;
mod tombstones;
mod unseen;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

pub use events::Effect;
pub use figures::GroupOpen;
pub(crate) use lines::errno_text;
pub use lines::{LineRoom, event_line};
pub use passage::{FullTable, Memory, Passage};
pub use path::{ASK_EVERY, Parting, Severed};
pub use view::{About, Extent};

use crate::detect::DetectConfig;
use crate::endpoint::{Endpoint, Place};
use crate::event::{ProcessId, Role, SocketEvent, Tuple};
use crate::history::History;
use crate::inventory::RecognizedPort;
use crate::ports::PortMap;
use crate::process::{Account, Process};
pub use crate::rules::EndpointRule;
use crate::rules::Rules;
use crate::snapshot::{Completeness, Loss};
use crate::socket::{Opener, Socket};
use crate::time::BootNs;
use kept::Kept;
use kin::Kin;
use path::Path;
use sockets::{Slot, Sockets};
use tombstones::Tombstones;
use unseen::Sight;

/// How long the history of a process that has ended is kept: what comes after it may be compared with it.
const HISTORY_KEPT: Duration = Duration::from_secs(3_600);

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
    /// Accounts of a process at an endpoint that have a history.
    pub histories: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            sockets: 262_144,
            processes: 65_536,
            ended_processes: 8_192,
            endpoints: 1_024,
            tombstones: 16_384,
            histories: 2_048,
        }
    }
}

/// The state of the host's database connections.
#[derive(Debug)]
pub struct Tracker {
    bounds: Bounds,
    ports: PortMap,
    recognized: Vec<RecognizedPort>,
    /// Ports that were watched once and are not any more.
    unwatched: BTreeSet<u16>,
    /// The network namespace whose loopback addresses need no suffix.
    home: Option<u32>,
    rules: Rules,
    sockets: Sockets,
    endpoints: Vec<Endpoint>,
    endpoint_index: BTreeMap<(Option<Place>, Role), usize>,
    processes: BTreeMap<ProcessId, Process>,
    ended: VecDeque<ProcessId>,
    unidentified: Vec<ProcessId>,
    kin: Kin,
    /// Where the last round of `take_unconfirmed` stopped.
    confirmed_to: Option<ProcessId>,
    tombstones: Tombstones,
    loss: Loss,
    drops_untold: u64,
    lost_at: Option<BootNs>,
    /// The latest loss that was noted, looked up since or not.
    last_loss: Option<BootNs>,
    looks: u32,
    /// When the last look ended.
    looked_at: BootNs,
    /// Steps of histories are as long.
    window: Duration,
    /// Histories there are, and accounts that found no room for one.
    histories: usize,
    without_history: u64,
    sight: Sight,
    path: Path,
    /// The running kernel's names of its reasons for throwing packets away.
    drop_reasons: BTreeMap<u32, String>,
    /// What a daemon before this one left, until the first look.
    kept: Kept,
    /// Whether events tell what happens between looks.
    has_events: bool,
    /// Whether accepts are counted, and when the first look ended.
    counts_accepts: bool,
    first_look: Option<BootNs>,
    /// Recorded time goes by this many times faster than it did.
    pace: u32,
}

impl Tracker {
    /// An empty tracker.
    #[must_use]
    pub fn new(bounds: Bounds, ports: PortMap, rules: impl Into<Rules>) -> Self {
        Self {
            bounds,
            ports,
            recognized: Vec::new(),
            unwatched: BTreeSet::new(),
            home: None,
            rules: rules.into(),
            sockets: Sockets::default(),
            endpoints: Vec::new(),
            endpoint_index: BTreeMap::new(),
            processes: BTreeMap::new(),
            ended: VecDeque::new(),
            unidentified: Vec::new(),
            kin: Kin::default(),
            confirmed_to: None,
            tombstones: Tombstones::new(bounds.tombstones),
            loss: Loss::default(),
            drops_untold: 0,
            lost_at: None,
            last_loss: None,
            looks: 0,
            looked_at: BootNs(0),
            window: DetectConfig::default().window,
            histories: 0,
            without_history: 0,
            sight: Sight::default(),
            path: Path::default(),
            drop_reasons: BTreeMap::new(),
            kept: Kept::default(),
            has_events: true,
            counts_accepts: false,
            first_look: None,
            pace: 1,
        }
    }

    /// The same for looks at the socket table alone: what they find or miss is no loss, and what happens in between is
    /// never known.
    #[must_use]
    pub fn without_events(self) -> Self {
        Self { has_events: false, ..self }
    }

    /// When the last look at the socket table ended: counters and holders are as of then.
    #[must_use]
    pub fn looked_at(&self) -> BootNs {
        self.looked_at
    }

    /// Live sockets, those still connecting included, in no particular order.
    pub fn sockets(&self) -> impl Iterator<Item = &Socket> {
        self.sockets.iter()
    }

    /// Endpoints by index.
    #[must_use]
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The endpoint of that place and side.
    #[must_use]
    pub fn endpoint(&self, place: impl Into<Place>, role: Role) -> Option<(usize, &Endpoint)> {
        let index = *self.endpoint_index.get(&(Some(place.into()), role))?;
        self.endpoints.get(index).map(|endpoint| (index, endpoint))
    }

    /// Index of the endpoint at one end of a connection, if it is known.
    #[must_use]
    pub fn endpoint_at(&self, tuple: &Tuple, role: Role) -> Option<usize> {
        self.endpoint(self.place(tuple, role), role).map(|(index, _)| index)
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
            _ if !self.has_events || self.sight.is_obstructed() => Completeness::LowerBound,
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

    /// Takes the absolute loss counts of the stages before the tracker; what the tracker counts itself is not taken
    /// from there. True if something was lost since the last call: a look at the socket table is due, and until then
    /// counts are lower bounds.
    pub fn note_loss(&mut self, before: Loss, now: BootNs) -> bool {
        let Loss { resyncs, missed_opens, missed_closes, tracker_full, .. } = self.loss;
        // A process that is not watched costs no connection, nor does an accept that is not counted.
        let known =
            Loss { process_map_full: before.process_map_full, accept_map_full: before.accept_map_full, ..self.loss };
        self.loss = Loss { resyncs, missed_opens, missed_closes, tracker_full, ..before };
        let lost = self.loss != known;
        if lost {
            self.lost_at = Some(now);
            self.last_loss = Some(now);
        }
        lost
    }

    /// Thrown away packets that were not told, since the start.
    pub fn note_drops_untold(&mut self, packets: u64) {
        self.drops_untold = packets;
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

    /// A process was found gone without its end having been reported.
    pub fn apply_gone(&mut self, id: ProcessId, now: BootNs) {
        self.end_process(id, now);
    }

    fn end_process(&mut self, id: ProcessId, now: BootNs) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        if process.ended.is_none() {
            process.ended = Some(now);
            process.accounts.values_mut().for_each(|account| account.open_at_end = account.open());
            self.ended.push_back(id);
            self.lose_parent(id);
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
            } else if let Some(process) = self.processes.remove(&id) {
                self.histories -= process.accounts.values().filter(|account| account.history.is_some()).count();
            }
        }
    }

    /// Makes room for the histories of the living.
    fn forget_histories(&mut self, now: BootNs) {
        for id in &self.ended {
            let Some(process) = self.processes.get_mut(id) else { continue };
            if process.ended.is_none_or(|ended| now.since(ended) < HISTORY_KEPT) {
                continue;
            }
            for account in process.accounts.values_mut() {
                self.histories -= usize::from(account.history.take().is_some());
            }
        }
    }

    /// The process, made known if there is room; `None` (counted) if there is not.
    fn process_mut(&mut self, id: ProcessId) -> Option<&mut Process> {
        if !self.processes.contains_key(&id) {
            if self.processes.len() >= self.bounds.processes {
                self.forget_ended();
            }
            if self.processes.len() >= self.bounds.processes {
                self.loss.tracker_full += 1;
                return None;
            }
            self.processes.insert(id, Process::new(id));
            self.unidentified.push(id);
        }
        self.processes.get_mut(&id)
    }

    /// The account, opened at `at` if it is new; `None` (counted) if there is no room for the process.
    fn account_mut(&mut self, id: ProcessId, endpoint: usize, at: BootNs) -> Option<&mut Account> {
        let is_client = self.endpoints.get(endpoint).is_some_and(|endpoint| endpoint.role == Role::Client);
        let (window, room) = (self.window, self.histories < self.bounds.histories);
        let known = self.process_mut(id)?.accounts.contains_key(&endpoint);
        if !known && is_client {
            self.histories += usize::from(room);
            self.without_history += u64::from(!room);
        }
        let new = || Account {
            history: (is_client && room).then(|| Arc::new(History::new(window, at))),
            ..Account::default()
        };
        Some(self.processes.get_mut(&id)?.accounts.entry(endpoint).or_insert_with(new))
    }

    /// Index of the endpoint, made if there is room, else of the one called `other`.
    fn endpoint_of(&mut self, tuple: &Tuple, role: Role) -> usize {
        let place = self.place(tuple, role);
        if let Some(index) = self.endpoint_index.get(&(Some(place), role)) {
            return *index;
        }
        let place = if self.endpoints.len() < self.bounds.endpoints { Some(place) } else { None };
        if let Some(index) = self.endpoint_index.get(&(place, role)) {
            return *index;
        }
        let mut endpoint = Endpoint::new(place, role, String::new());
        self.describe(&mut endpoint);
        self.endpoints.push(endpoint);
        let index = self.endpoints.len() - 1;
        self.endpoint_index.insert((place, role), index);
        index
    }

    /// What the configuration says of an endpoint, and nothing else.
    fn describe(&self, endpoint: &mut Endpoint) {
        // What the user says of a loopback address is meant for the namespace the daemon is in.
        let addr = endpoint.place.filter(|place| place.netns.is_none()).map(|place| place.addr);
        let rule = addr.map(|addr| self.rules.of(addr)).unwrap_or_default();
        let by_port = endpoint.place.and_then(|place| self.ports.database(place.addr.port()));
        endpoint.database = rule.database.or_else(|| by_port.map(str::to_owned)).unwrap_or_else(|| "other".to_owned());
        endpoint.name = rule.name;
        endpoint.limit = rule.limit;
    }

    /// Where the database at one end of this connection is.
    fn place(&self, tuple: &Tuple, role: Role) -> Place {
        Place::new(tuple.database(role), tuple.netns(), self.home)
    }

    /// Who opened or accepted the live socket at that kernel address, if that was seen.
    fn opener_of(&self, sk: u64) -> Option<Opener> {
        self.sockets.get(self.sockets.by_sk(sk)?)?.opener
    }

    fn socket(&self, slot: Slot) -> Option<&Socket> {
        self.sockets.get(slot)
    }

    fn socket_mut(&mut self, slot: Slot) -> Option<&mut Socket> {
        self.sockets.get_mut(slot)
    }

    /// Takes a new life in; `None` (counted) if there is no room.
    fn insert(&mut self, socket: Socket) -> Option<Slot> {
        if self.sockets.len() >= self.bounds.sockets {
            self.loss.tracker_full += 1;
            self.lost_at = Some(socket.last_event.max(socket.first_seen));
            return None;
        }
        if socket.role == Role::Server {
            self.serves_in(socket.tuple.netns());
        }
        if socket.is_open() {
            self.forget_parting(&socket.tuple);
            self.book_open(socket.endpoint(), socket.account, socket.began().moment());
        }
        Some(self.sockets.insert(socket))
    }

    /// What is told of a moment that long ago may be over, and its end forgotten: it is not taken in, and counted.
    fn too_late(&mut self, event: &SocketEvent) -> bool {
        // What the kernel side still remembers lives, however old it is.
        let late = !event.is_remembered() && self.tombstones.may_have_forgotten(event.at);
        if late {
            self.loss.tracker_full += 1;
            self.lost_at = self.lost_at.max(Some(event.at));
        }
        late
    }
}
