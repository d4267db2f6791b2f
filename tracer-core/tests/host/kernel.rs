//! A small host: processes that come and go under few pids, connections to databases here and elsewhere, tuples and
//! kernel addresses that are reused at once; and what the kernel side tells of it. This is the truth.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use tracer_core::event::{
    Comm, Event, ProcessEvent, ProcessEventKind, ProcessId, Role, SocketEvent, SocketEventKind as Kind, Task, Totals,
    Tuple,
};
use tracer_core::inventory::{Certainty, Holder, Holders, SocketRow};
use tracer_core::tcp::TcpState::{self, Close, CloseWait, Established, FinWait1, FinWait2, LastAck, SynRecv, SynSent};
use tracer_core::time::BootNs;

use crate::life::{Count, Entry, Life, LifeId, Telling};
use crate::rng::Rng;

const PIDS: u32 = 6;
const PORTS: u16 = 5;
/// A database elsewhere, one on this host, and that one again in a namespace of its own.
const PLACES: [(u32, &str, &str); 3] =
    [(7, "10.0.0.9", "10.0.0.5:5432"), (7, "127.0.0.1", "127.0.0.1:3306"), (8, "::1", "[::1]:6379")];

pub struct Kernel {
    pub now: u64,
    pub lives: Vec<Life>,
    pub live: Vec<LifeId>,
    pub by_tuple: HashMap<Tuple, Vec<LifeId>>,
    pub by_inode: HashMap<u32, LifeId>,
    pub by_sk_established: HashMap<(u64, u64), LifeId>,
    pub processes: Vec<Task>,
    pub gone: Vec<ProcessId>,
    pub totals: BTreeMap<(SocketAddr, Role), Count>,
    /// By opener, of lives whose opener the kernel side knew, on the clients' side.
    pub opened_by: BTreeMap<(ProcessId, SocketAddr), u64>,
    pub out: Vec<Event>,
    pub map_full: u64,
    telling: Telling,
    tracing: bool,
    free: Vec<u64>,
    numbers: u64,
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

impl Kernel {
    /// A host with some connections that are older than the tracing.
    pub fn new(telling: Telling, rng: &mut Rng) -> Self {
        let mut kernel = Self {
            now: 1_000_000_000_000,
            lives: Vec::new(),
            live: Vec::new(),
            by_tuple: HashMap::new(),
            by_inode: HashMap::new(),
            by_sk_established: HashMap::new(),
            processes: Vec::new(),
            gone: Vec::new(),
            totals: BTreeMap::new(),
            opened_by: BTreeMap::new(),
            out: Vec::new(),
            map_full: 0,
            telling,
            tracing: false,
            free: (1..=24).map(|number| number * 64).collect(),
            numbers: 0,
        };
        for pid in 1..=PIDS {
            kernel.start(pid);
        }
        for _ in 0..60 {
            kernel.step(rng);
        }
        kernel.out.clear();
        // What was there counts as opened; what had ended does not.
        kernel.totals.clear();
        kernel.opened_by.clear();
        for id in kernel.live.clone() {
            kernel.lives[id].entry = None;
            kernel.lives[id].traced = false;
            if kernel.lives[id].state.is_open() {
                kernel.count(id).opened += 1;
            }
        }
        kernel.tracing = true;
        kernel
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn start(&mut self, pid: u32) {
        let start_ticks = self.now / ProcessId::TICK_NS + self.number();
        let mut comm = Comm::default();
        comm.0[..8].copy_from_slice(&start_ticks.to_ne_bytes());
        self.processes.push(Task { id: ProcessId { pid, start_ticks }, uid: pid, comm });
    }

    pub fn count(&mut self, id: LifeId) -> &mut Count {
        let life = &self.lives[id];
        self.totals.entry((life.tuple.database(life.role), life.role)).or_default()
    }

    fn of(&self, wanted: impl Fn(&Life) -> bool) -> Vec<LifeId> {
        self.live.iter().copied().filter(|id| wanted(&self.lives[*id])).collect()
    }

    /// Something happens.
    pub fn step(&mut self, rng: &mut Rng) {
        self.now += match rng.below(100) {
            0 => rng.within(10_000_000, 500_000_000),
            1..10 => rng.within(500_000, 10_000_000),
            _ => rng.within(1_000, 500_000),
        };
        let open = |life: &Life| life.state.is_open();
        match rng.below(100) {
            0..26 => {
                self.connect(rng);
            }
            26..46 => self.answer(rng),
            46..54 => self.accept(rng),
            54..62 => {
                let peerless = self.of(|life| life.peer.is_none() && life.role == Role::Client && open(life));
                if let Some(id) = rng.pick(&peerless) {
                    self.peer_closes(id);
                }
            }
            62..78 => self.close(rng),
            78..88 => {
                let leaving = self.of(|life| matches!(life.state, FinWait1 | FinWait2 | LastAck));
                if let Some(id) = rng.pick(&leaving) {
                    self.advance(id, rng);
                }
            }
            88..91 => {
                if let Some(id) = rng.pick(&self.of(open)) {
                    self.reset(id, None);
                }
            }
            91..94 => self.share(rng),
            94..96 => {
                if let Some(id) = rng.pick(&self.of(open)) {
                    self.tell(Kind::Retransmit, id, self.lives[id].state, self.lives[id].state);
                }
            }
            96 => self.exit(rng),
            97 => self.exec(rng),
            _ => self.in_and_out(rng),
        }
    }

    fn begin(&mut self, tuple: Tuple, role: Role, state: TcpState) -> Option<LifeId> {
        let (sk, cookie) = (self.free.pop()?, self.number());
        let id = self.lives.len();
        self.lives.push(Life {
            sk,
            tuple,
            role,
            state,
            changed: self.now,
            established: None,
            opener: None,
            holders: Vec::new(),
            inode: 0,
            had_inode: 0,
            cookie,
            ended: false,
            entry: None,
            traced: false,
            peer: None,
        });
        self.live.push(id);
        self.by_tuple.entry(tuple).or_default().push(id);
        Some(id)
    }

    fn give(&mut self, id: LifeId, task: Task) {
        let fd = 3 + u32::try_from(self.number() % 1_000).unwrap();
        if self.lives[id].inode == 0 {
            let inode = u32::try_from(self.number()).unwrap();
            (self.lives[id].inode, self.lives[id].had_inode) = (inode, inode);
            self.by_inode.insert(inode, id);
        }
        self.lives[id].holders.push(Holder { process: task.id, fd });
    }

    fn remember(&mut self, id: LifeId, entry: Entry, rng: &mut Rng) {
        if rng.chance(self.telling.map_full) {
            self.map_full += u64::from(self.tracing);
        } else {
            self.lives[id].entry = Some(entry);
            self.lives[id].traced = true;
        }
    }

    fn connect(&mut self, rng: &mut Rng) -> Option<LifeId> {
        let (netns, local, remote) = PLACES[rng.below(PLACES.len())];
        let port = 40_000 + u16::try_from(rng.below(usize::from(PORTS))).unwrap();
        let tuple = Tuple::new(netns, SocketAddr::new(local.parse().unwrap(), port), addr(remote));
        if !self.of(|life| life.tuple == tuple).is_empty() || self.free.len() < 2 {
            return None;
        }
        let task = rng.pick(&self.processes)?;
        let id = self.begin(tuple, Role::Client, SynSent)?;
        self.give(id, task);
        self.lives[id].opener = Some(task);
        let entry = Entry { birth: self.now, opener: Some(task), inode: self.lives[id].inode, ..Entry::default() };
        self.remember(id, entry, rng);
        Some(id)
    }

    /// A connect in progress succeeds or fails.
    fn answer(&mut self, rng: &mut Rng) {
        let Some(id) = rng.pick(&self.of(|life| life.state == SynSent)) else { return };
        if rng.chance(200) {
            self.end(id, None);
        } else {
            self.establish(id, rng);
        }
    }

    fn establish(&mut self, id: LifeId, rng: &mut Rng) {
        self.open(id, SynSent);
        let tuple = self.lives[id].tuple;
        if tuple.local().ip() != tuple.remote().ip() {
            return;
        }
        self.now += 100;
        // The other end is on this host, too.
        let other = Tuple::new(tuple.netns(), tuple.remote(), tuple.local());
        if !self.of(|life| life.tuple == other).is_empty() {
            return;
        }
        let Some(server) = self.begin(other, Role::Server, SynRecv) else { return };
        (self.lives[server].peer, self.lives[id].peer) = (Some(id), Some(server));
        self.remember(server, Entry { birth: self.now, ..Entry::default() }, rng);
        self.open(server, SynRecv);
    }

    fn open(&mut self, id: LifeId, from: TcpState) {
        let now = self.now;
        let life = &mut self.lives[id];
        (life.state, life.changed, life.established) = (Established, now, Some(now));
        self.by_sk_established.insert((life.sk, now), id);
        match &mut life.entry {
            Some(entry) => entry.established = now,
            // The kernel side tries again.
            None => life.entry = Some(Entry { established: now, inode: life.inode, ..Entry::default() }),
        }
        if life.role == Role::Client
            && let Some(opener) = life.entry.and_then(|entry| entry.opener)
        {
            let database = life.tuple.database(life.role);
            *self.opened_by.entry((opener.id, database)).or_default() += 1;
        }
        self.count(id).opened += 1;
        if self.telling.openings {
            self.tell(Kind::Open, id, from, Established);
        }
    }

    fn accept(&mut self, rng: &mut Rng) {
        let waiting = self.of(|life| life.role == Role::Server && life.opener.is_none() && life.state.is_open());
        let (Some(id), Some(task)) = (rng.pick(&waiting), rng.pick(&self.processes)) else { return };
        self.give(id, task);
        self.lives[id].opener = Some(task);
        if rng.chance(self.telling.accepts) {
            let entry = self.lives[id].entry.take();
            let told = Entry { opener: Some(task), inode: self.lives[id].inode, ..entry.unwrap_or_default() };
            self.lives[id].entry = Some(told);
            self.tell(Kind::Accept, id, self.lives[id].state, self.lives[id].state);
            self.lives[id].entry = entry;
        } else {
            let inode = self.lives[id].inode;
            if let Some(entry) = &mut self.lives[id].entry {
                (entry.opener, entry.inode) = (Some(task), inode);
            }
        }
    }

    /// A process accepted it on another CPU while it ended: its entry is gone, its state not changed yet.
    fn accept_at_the_end(&mut self, id: LifeId, from: TcpState) {
        if self.lives[id].opener.is_some() {
            return;
        }
        self.now += 1;
        let inode = u32::try_from(self.number()).unwrap();
        let opener = self.processes.first().copied();
        (self.lives[id].opener, self.lives[id].had_inode) = (opener, inode);
        let entry = self.lives[id].entry.replace(Entry { opener, inode, ..Entry::default() });
        self.tell(Kind::Accept, id, from, from);
        self.lives[id].entry = entry;
    }

    fn peer_closes(&mut self, id: LifeId) {
        match self.lives[id].state {
            Established => self.change(id, CloseWait, None),
            FinWait1 | FinWait2 => self.end(id, None),
            _ => {}
        }
    }

    /// A process closes a descriptor, or its side of the connection.
    fn close(&mut self, rng: &mut Rng) {
        let held = self.of(|life| !life.holders.is_empty() && (life.state.is_open() || life.state == SynSent));
        let Some(id) = rng.pick(&held) else { return };
        let process = self.lives[id].holders[rng.below(self.lives[id].holders.len())].process;
        if rng.chance(150) && self.lives[id].state == Established {
            self.shut(id, Some(process));
        } else if rng.chance(200) && self.lives[id].holders.len() == 1 {
            self.reset(id, Some(process));
        } else {
            self.drop_holder(id, process);
        }
    }

    fn drop_holder(&mut self, id: LifeId, process: ProcessId) {
        self.lives[id].holders.retain(|holder| holder.process != process);
        if self.lives[id].holders.is_empty() && self.lives[id].inode != 0 {
            self.lives[id].inode = 0;
            self.shut(id, Some(process));
        }
    }

    fn shut(&mut self, id: LifeId, by: Option<ProcessId>) {
        match self.lives[id].state {
            SynSent => self.end(id, by),
            Established => self.change(id, FinWait1, by),
            CloseWait => self.change(id, LastAck, by),
            _ => return,
        }
        if let Some(peer) = self.lives[id].peer.filter(|peer| !self.lives[*peer].ended) {
            self.now += 50;
            self.peer_closes(peer);
        }
    }

    fn change(&mut self, id: LifeId, to: TcpState, by: Option<ProcessId>) {
        let from = std::mem::replace(&mut self.lives[id].state, to);
        self.lives[id].changed = self.now;
        let entry = self.lives[id].entry.get_or_insert_default();
        entry.closer = by.or(entry.closer);
        if self.numbers % 1_000 < self.telling.states {
            self.tell(Kind::State, id, from, to);
        }
        self.number();
    }

    fn advance(&mut self, id: LifeId, rng: &mut Rng) {
        if self.lives[id].state == FinWait1 && rng.chance(600) {
            (self.lives[id].state, self.lives[id].changed) = (FinWait2, self.now);
        } else {
            self.end(id, None);
        }
    }

    fn reset(&mut self, id: LifeId, by: Option<ProcessId>) {
        let peer = self.lives[id].peer.filter(|peer| !self.lives[*peer].ended);
        self.end(id, by);
        if let Some(peer) = peer {
            self.now += 50;
            self.end(peer, None);
        }
    }

    fn end(&mut self, id: LifeId, by: Option<ProcessId>) {
        let from = std::mem::replace(&mut self.lives[id].state, Close);
        if let Some(entry) = &mut self.lives[id].entry {
            entry.closer = by.or(entry.closer);
        }
        self.tell(Kind::End, id, from, Close);
        if self.numbers % 1_000 < self.telling.accepts && self.lives[id].role == Role::Server && from.is_open() {
            self.accept_at_the_end(id, from);
        }
        let life = &mut self.lives[id];
        life.ended = true;
        let (sk, role) = (life.sk, life.role);
        self.free.push(sk);
        self.live.retain(|live| *live != id);
        if from.is_open() {
            self.count(id).closed += 1;
        } else if role == Role::Client {
            self.count(id).failed += 1;
        }
    }

    fn share(&mut self, rng: &mut Rng) {
        let held = self.of(|life| !life.holders.is_empty());
        let (Some(id), Some(task)) = (rng.pick(&held), rng.pick(&self.processes)) else { return };
        if self.lives[id].holders.iter().all(|holder| holder.process != task.id) {
            self.give(id, task);
        }
    }

    fn exit(&mut self, rng: &mut Rng) {
        let Some(task) = rng.pick(&self.processes) else { return };
        self.processes.retain(|other| other.id != task.id);
        self.gone.push(task.id);
        self.out.push(process_event(ProcessEventKind::Exit, self.now, task));
        for id in self.of(|life| life.holders.iter().any(|holder| holder.process == task.id)) {
            self.now += 10;
            self.drop_holder(id, task.id);
        }
        self.start(task.id.pid);
    }

    fn exec(&mut self, rng: &mut Rng) {
        if let Some(task) = rng.pick(&self.processes) {
            self.out.push(process_event(ProcessEventKind::Exec, self.now, task));
        }
    }

    /// Connects, fails or is done, and again through the same port, within microseconds.
    fn in_and_out(&mut self, rng: &mut Rng) {
        for _ in 0..rng.within(1, 6) {
            self.now += 20;
            let Some(id) = self.connect(rng) else { continue };
            let by = self.lives[id].holders[0].process;
            self.now += 10;
            if rng.chance(800) {
                self.establish(id, rng);
                self.now += 10;
            }
            if !self.lives[id].ended {
                self.reset(id, Some(by));
            }
        }
    }

    /// What the map of owners says of the connections that live, as openings.
    pub fn read_owners(&mut self) {
        for id in self.of(|life| life.entry.is_some_and(|entry| entry.established != 0 || life.state.is_open())) {
            let (state, now) = (self.lives[id].state, self.now);
            self.now = self.lives[id].changed;
            self.tell(Kind::Open, id, state, state);
            self.now = now;
        }
    }

    fn tell(&mut self, kind: Kind, id: LifeId, old_state: TcpState, new_state: TcpState) {
        let life = &self.lives[id];
        let entry = life.entry.unwrap_or_default();
        let moment = |ns: u64| (ns != 0).then_some(BootNs(ns));
        self.out.push(Event::Socket(SocketEvent {
            kind,
            at: BootNs(self.now),
            sk: life.sk,
            birth: moment(entry.birth),
            established: moment(entry.established),
            tuple: life.tuple,
            role: life.role,
            old_state,
            new_state,
            opener: entry.opener,
            closer: entry.closer,
            inode: (entry.inode != 0).then_some(entry.inode),
            error: 0,
            totals: Totals::default(),
        }));
    }

    /// The socket as the table has it now; holders are read later.
    pub fn row(&self, id: LifeId) -> SocketRow {
        let life = &self.lives[id];
        SocketRow {
            tuple: life.tuple,
            role: life.role,
            certainty: Certainty::Sure,
            state: life.state,
            uid: 0,
            inode: u64::from(life.inode),
            cookie: life.cookie,
            info: None,
            holders: Holders::default(),
        }
    }
}

fn process_event(kind: ProcessEventKind, now: u64, task: Task) -> Event {
    Event::Process(ProcessEvent { kind, at: BootNs(now), task, accepts: 0 })
}
