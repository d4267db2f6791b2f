//! The host, the way from it, and the tracker at its end; and what must hold between them.

use std::collections::VecDeque;

use tracer_core::event::{Event, Role, SocketEvent};
use tracer_core::inventory::{Inventory, SocketRow, Table};
use tracer_core::ports::PortMap;
use tracer_core::snapshot::{Completeness, Loss};
use tracer_core::socket::{Began, Socket};
use tracer_core::time::BootNs;
use tracer_core::tracker::{Bounds, Effect, Tracker};

use crate::kernel::Kernel;
use crate::life::{Count, Life, LifeId, Telling};
use crate::pipe::{Faults, HELD_BACK, Pipe};
use crate::rng::Rng;

const NAMESPACES: [u32; 2] = [7, 8];
const SECOND: u64 = 1_000_000_000;
/// Lines of the story that a failure tells.
const STORY: usize = 200;

/// A kind of run.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    pub name: &'static str,
    pub telling: Telling,
    pub faults: Faults,
    pub tombstones: usize,
}

/// What went wrong, where, and what led to it.
pub struct Failure {
    pub what: String,
    pub story: Vec<String>,
}

type Checked = Result<(), String>;

/// A look under way: the kernel walks its table while things go on.
struct Look {
    started: u64,
    phases: u64,
    phase: u64,
    rows: Vec<(LifeId, SocketRow)>,
    /// Lives it does not see.
    misses: Vec<LifeId>,
}

pub struct World {
    profile: Profile,
    rng: Rng,
    kernel: Kernel,
    pipe: Pipe,
    tracker: Tracker,
    look: Option<Look>,
    next_look: u64,
    next_owners: u64,
    /// Lives that the last look missed.
    missed: Vec<LifeId>,
    told_loss: u64,
    pub events: u64,
    story: VecDeque<String>,
}

impl World {
    pub fn new(profile: Profile, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let kernel = Kernel::new(profile.telling, &mut rng);
        let bounds = Bounds { tombstones: profile.tombstones, ..Bounds::default() };
        let tracker = Tracker::new(bounds, PortMap::default(), tracer_core::rules::Rules::default());
        let mut world = Self {
            profile,
            rng,
            pipe: Pipe::new(profile.faults),
            tracker,
            look: None,
            next_look: kernel.now + SECOND,
            next_owners: kernel.now + SECOND,
            kernel,
            missed: Vec::new(),
            told_loss: 0,
            events: 0,
            story: VecDeque::new(),
        };
        world.whole_look();
        world
    }

    /// Runs so many steps, with everything quiet now and then; returns what went wrong.
    pub fn run(&mut self, steps: usize, keep_story: bool) -> Result<(), Failure> {
        let mut all = || -> Checked {
            for step in 0..steps {
                self.step(keep_story)?;
                if step % 500 == 499 {
                    self.settle(keep_story)?;
                }
            }
            self.settle(keep_story)
        };
        all().map_err(|what| Failure { what, story: std::mem::take(&mut self.story).into() })
    }

    fn step(&mut self, keep_story: bool) -> Checked {
        self.kernel.step(&mut self.rng);
        self.carry(keep_story)?;
        if !self.profile.telling.openings && self.kernel.now >= self.next_owners {
            self.read_owners();
        }
        self.look_on(keep_story)
    }

    /// Takes what the kernel told on its way, and to the tracker what is due.
    fn carry(&mut self, keep_story: bool) -> Checked {
        for event in std::mem::take(&mut self.kernel.out) {
            self.pipe.send(event, self.kernel.now, &mut self.rng);
        }
        self.deliver(keep_story)
    }

    fn read_owners(&mut self) {
        self.kernel.read_owners();
        for event in std::mem::take(&mut self.kernel.out) {
            self.pipe.send_later(event, self.kernel.now, &mut self.rng);
        }
        self.next_owners = self.kernel.now + SECOND;
    }

    fn deliver(&mut self, keep_story: bool) -> Checked {
        while let Some(event) = self.pipe.next(self.kernel.now) {
            self.events += 1;
            let effect = self.tracker.apply(&event);
            if keep_story {
                let effect = format!("{effect:?}");
                let missed = (self.tracker.loss().missed_opens, self.tracker.loss().missed_closes);
                let effect = effect.split([' ', '(']).next().unwrap_or_default();
                self.tell(format!("{} missed {missed:?} {effect} of {}", self.kernel.now, brief(&event)));
            }
            self.check_counts()?;
            if let (Event::Socket(event), Effect::Closed { began, opener }) = (event, effect) {
                self.check_closed(&event, began, opener.map(|opener| opener.id))?;
            }
            if keep_story || self.events.is_multiple_of(8) {
                self.check_lives(false)?;
            }
        }
        Ok(())
    }

    fn tell(&mut self, line: String) {
        if self.story.len() == STORY {
            self.story.pop_front();
        }
        self.story.push_back(line);
    }

    fn note_loss(&mut self) {
        let (ring_full, map_full) = (self.pipe.lost, self.kernel.map_full);
        let loss = Loss { ring_full, map_full, ..Loss::default() };
        if self.tracker.note_loss(loss, BootNs(self.kernel.now)) {
            self.next_look = self.next_look.min(self.kernel.now);
        }
        self.told_loss = ring_full + map_full;
    }

    /// A look goes on with every step: it takes the rows of a part of the table, ends, and is applied.
    fn look_on(&mut self, keep_story: bool) -> Checked {
        if self.look.is_none() && self.kernel.now >= self.next_look {
            let phases = self.rng.within(1, 7);
            self.look = Some(Look { started: self.kernel.now, phases, phase: 0, rows: Vec::new(), misses: Vec::new() });
            self.next_look = self.kernel.now + self.rng.within(SECOND, 8 * SECOND);
        }
        let Some(mut look) = self.look.take() else { return Ok(()) };
        for id in self.kernel.live.clone() {
            let life = &self.kernel.lives[id];
            if u64::from(life.tuple.local().port()) % look.phases != look.phase {
                continue;
            }
            if !self.missed.contains(&id) && self.rng.chance(self.profile.faults.miss_row) {
                look.misses.push(id);
            } else {
                look.rows.push((id, self.kernel.row(id)));
            }
        }
        look.phase += 1;
        if look.phase < look.phases {
            self.look = Some(look);
            return Ok(());
        }
        self.finish_look(look, keep_story)
    }

    fn finish_look(&mut self, look: Look, keep_story: bool) -> Checked {
        let finished = self.kernel.now;
        self.missed = look.misses;
        self.kernel.step(&mut self.rng);
        let mut rows = look.rows;
        for (id, row) in &mut rows {
            let life = &self.kernel.lives[*id];
            if row.inode != 0 && !life.ended {
                row.holders = life.holders.iter().copied().collect();
            }
        }
        // Whatever was in the ring when the look ended comes before it.
        self.carry(keep_story)?;
        self.note_loss();
        let inventory = inventory(look.started, finished, rows.iter().map(|(_, row)| row.clone()));
        let again = self.tracker.apply_inventory(inventory);
        if keep_story {
            let missed = (self.tracker.loss().missed_opens, self.tracker.loss().missed_closes);
            let rows = rows_brief(&rows);
            self.tell(format!("{} missed {missed:?} look {}..{finished}: {rows}", self.kernel.now, look.started));
        }
        self.check_counts()?;
        if again {
            self.next_look = self.kernel.now;
        }
        self.ask_proc();
        self.check_lives(false)
    }

    /// /proc knows who has ended.
    fn ask_proc(&mut self) {
        let mut asked = self.tracker.take_unidentified();
        asked.extend(self.tracker.take_unconfirmed(1_000));
        for id in asked {
            if self.kernel.gone.contains(&id) {
                self.tracker.apply_gone(id, BootNs(self.kernel.now));
            }
        }
    }

    /// A look at a host where nothing moves.
    fn whole_look(&mut self) {
        let (started, finished) = (self.kernel.now + 1, self.kernel.now + 2);
        self.kernel.now += 3;
        let rows = self.kernel.live.iter().map(|id| SocketRow {
            holders: self.kernel.lives[*id].holders.iter().copied().collect(),
            ..self.kernel.row(*id)
        });
        self.tracker.apply_inventory(inventory(started, finished, rows));
        self.ask_proc();
    }

    /// The last fault was; everything arrives; two looks later all is as it is.
    fn settle(&mut self, keep_story: bool) -> Checked {
        self.look = None;
        self.kernel.now += 30 * SECOND;
        self.deliver(keep_story)?;
        if !self.profile.telling.openings {
            self.read_owners();
            self.kernel.now += HELD_BACK;
            self.deliver(keep_story)?;
        }
        self.note_loss();
        self.whole_look();
        self.check_counts()?;
        self.kernel.now += 2 * SECOND;
        self.whole_look();
        self.missed.clear();
        if keep_story {
            self.tell(format!("{} two looks at a quiet host", self.kernel.now));
        }
        self.check_counts()?;
        self.check_lives(true)?;
        self.check_live_set()?;
        self.check_totals()
    }

    /// At any moment: what was opened is open or closed, and what is open is there.
    fn check_counts(&self) -> Checked {
        for endpoint in self.tracker.endpoints() {
            if endpoint.opened_total != u64::from(endpoint.open) + endpoint.closed_total {
                return Err(format!("conservation: {endpoint:?}"));
            }
        }
        Ok(())
    }

    /// At any moment: nothing is counted that was not.
    fn check_not_above(&self) -> Checked {
        for endpoint in self.tracker.endpoints() {
            let Some(addr) = endpoint.place.map(|place| place.addr) else { continue };
            let truth = self.kernel.totals.get(&(addr, endpoint.role)).copied().unwrap_or_default();
            let told =
                Count { opened: endpoint.opened_total, closed: endpoint.closed_total, failed: endpoint.failed_total };
            // Nothing tells two lives of a server's socket apart before its accept: out of order, or with one of their
            // events lost, they can be taken for three.
            if endpoint.role == Role::Server && !self.in_order() {
                continue;
            }
            if told.opened > truth.opened || told.closed > truth.closed || told.failed > truth.failed {
                return Err(format!("above the truth: {addr} {:?}: {told:?}, {truth:?}", endpoint.role));
            }
        }
        Ok(())
    }

    /// At any moment: no socket names a process or a moment of another life.
    fn check_lives(&self, settled: bool) -> Checked {
        self.check_not_above()?;
        let mut open = vec![0u32; self.tracker.endpoints().len()];
        for socket in self.tracker.sockets() {
            open[socket.endpoint()] += u32::from(socket.is_open());
            let lives = self.kernel.by_tuple.get(&socket.tuple).map_or(&[][..], Vec::as_slice);
            // Out of order, the moments of two lives of a tuple can be mixed up until their ends are told; who opened
            // it cannot.
            let client = socket.role == Role::Client;
            let in_memory = client || self.tracker.loss().tracker_full == 0;
            let exact = (settled && in_memory) || (client && self.in_order());
            if !lives.iter().rev().any(|id| is_of(socket, &self.kernel.lives[*id], exact)) {
                let last = lives.last().map(|id| &self.kernel.lives[*id]);
                return Err(format!("no life is as {socket:?}; the last one there is {last:?}"));
            }
        }
        for (endpoint, open) in self.tracker.endpoints().iter().zip(open) {
            if endpoint.open != open {
                return Err(format!("{open} sockets are open: {endpoint:?}"));
            }
        }
        for (id, process) in self.tracker.processes() {
            if process.accounts.values().any(|account| account.closed_total > account.opened_total) {
                return Err(format!("closed more than it opened: {process:?}"));
            }
            let gone = self.kernel.gone.contains(id);
            if (process.ended.is_some() && !gone) || (settled && gone && process.ended.is_none()) {
                return Err(format!("ended: {gone}, but {process:?}"));
            }
        }
        Ok(())
    }

    /// An end names nobody but the one who opened that life, and the moment it began.
    fn check_closed(
        &self,
        event: &SocketEvent,
        began: Option<BootNs>,
        opener: Option<tracer_core::event::ProcessId>,
    ) -> Checked {
        let by_moment = event.established.and_then(|at| self.kernel.by_sk_established.get(&(event.sk, at.0)));
        let Some(id) = by_moment.or_else(|| self.kernel.by_inode.get(&event.inode?)) else { return Ok(()) };
        let life = &self.kernel.lives[*id];
        let truth = life.opener.map(|task| task.id);
        // An accept that comes seconds late can be taken for that of a later life of the same address.
        if life.role == Role::Server && self.pipe.late > 0 {
            return Ok(());
        }
        if opener.is_some() && opener != truth {
            return Err(format!("{opener:?} is told to have opened {life:?}"));
        }
        match began {
            Some(began) if Some(began.0) != life.established => Err(format!("began at {began:?}: {life:?}")),
            _ => Ok(()),
        }
    }

    /// When all is quiet: the sockets are the kernel's.
    fn check_live_set(&self) -> Checked {
        let live = self.kernel.live.iter().map(|id| &self.kernel.lives[*id]);
        let mut truth: Vec<_> = live.map(|life| (life.tuple, life.state, life.holders.len())).collect();
        let sockets = self.tracker.sockets();
        let mut seen: Vec<_> = sockets.map(|socket| (socket.tuple, socket.state, socket.holders.len())).collect();
        truth.sort_unstable();
        seen.sort_unstable();
        if truth != seen {
            let wrong: Vec<_> = seen.iter().filter(|one| !truth.contains(one)).collect();
            let lacking: Vec<_> = truth.iter().filter(|one| !seen.contains(one)).collect();
            return Err(format!("not live: {wrong:?}, lacking: {lacking:?}"));
        }
        for socket in self.tracker.sockets() {
            let life = self.life_of(socket)?;
            let mut holders = life.holders.clone();
            holders.sort_unstable();
            if *socket.holders != holders[..] {
                return Err(format!("holders of {socket:?} are {holders:?}"));
            }
            // A connect in progress is not announced.
            let told = socket.opener.map(|opener| opener.id);
            // Out of order, the inode number has to tell whose events they are.
            let certain = self.in_order() || (self.nothing_lost() && life.role == Role::Client && life.inode != 0);
            let lossless = certain && life.traced && socket.is_open();
            if lossless && (told != life.opener.map(|task| task.id) || !matches!(socket.began(), Began::At(_))) {
                return Err(format!("nothing was lost, and yet not known: {socket:?}, {life:?}"));
            }
        }
        if self.tracker.completeness() != Completeness::Exact {
            return Err("completeness is not exact".to_owned());
        }
        Ok(())
    }

    /// Nothing was lost, and the events of all sockets came in their order.
    fn in_order(&self) -> bool {
        self.nothing_lost() && self.pipe.held == 0
    }

    fn nothing_lost(&self) -> bool {
        self.told_loss + self.pipe.late + self.tracker.loss().tracker_full == 0
    }

    fn life_of(&self, socket: &Socket) -> Result<&Life, String> {
        let mut live = self.kernel.live.iter().map(|id| &self.kernel.lives[*id]);
        live.find(|life| life.tuple == socket.tuple).ok_or_else(|| format!("not live: {socket:?}"))
    }

    /// When all is quiet: totals are exact or say that they are not, and then they are never too high.
    fn check_totals(&self) -> Checked {
        let exact = self.tracker.totals_completeness() == Completeness::Exact;
        if self.in_order() && !exact {
            return Err(format!("nothing was lost, and yet {:?}", self.tracker.loss()));
        }
        for endpoint in self.tracker.endpoints() {
            let Some(addr) = endpoint.place.map(|place| place.addr) else { continue };
            let truth = self.kernel.totals.get(&(addr, endpoint.role)).copied().unwrap_or_default();
            let told =
                Count { opened: endpoint.opened_total, closed: endpoint.closed_total, failed: endpoint.failed_total };
            if exact && told != truth {
                return Err(format!("{addr} {:?}: {told:?}, but the truth is {truth:?}", endpoint.role));
            }
            if self.in_order() && endpoint.role == Role::Client {
                self.check_accounts(addr)?;
            }
        }
        Ok(())
    }

    /// Nothing was lost: every process is booked what it opened.
    fn check_accounts(&self, addr: std::net::SocketAddr) -> Checked {
        let Some((index, _)) = self.tracker.endpoint(addr, Role::Client) else { return Ok(()) };
        for ((id, _), opened) in self.kernel.opened_by.iter().filter(|((_, at), _)| *at == addr) {
            let process = self.tracker.processes().get(id);
            let booked =
                process.and_then(|process| process.accounts.get(&index)).map_or(0, |account| account.opened_total);
            if booked < *opened {
                return Err(format!("{id:?} opened {opened} to {addr}, booked are {booked}"));
            }
        }
        Ok(())
    }
}

fn inventory(started: u64, finished: u64, rows: impl Iterator<Item = SocketRow>) -> Inventory {
    let (started, finished) = (BootNs(started), BootNs(finished));
    let mut tables =
        NAMESPACES.map(|netns| Table { netns, started, finished, sockets: Vec::new(), ..Table::default() });
    for row in rows {
        let table = tables.iter_mut().find(|table| table.netns == row.tuple.netns());
        table.unwrap().sockets.push(row);
    }
    Inventory { started, finished, tables: tables.into(), ..Inventory::default() }
}

/// Whether the socket can be what the tracker knows of this life. That it began later than an earlier one there, whose
/// end was lost, may show only at the next look.
fn is_of(socket: &Socket, life: &Life, exact: bool) -> bool {
    let inode = socket.inode.is_none_or(|inode| inode.get() == life.had_inode);
    let cookie = socket.cookie.is_none_or(|cookie| cookie.get() == life.cookie);
    let opener = socket.opener.is_none_or(|opener| life.opener.is_some_and(|task| task.id == opener.id));
    let began = match (socket.began(), life.established) {
        (Began::At(at), established) => Some(at.0) == established,
        (Began::Before(at), Some(established)) => !socket.is_open() || established <= at.0,
        (Began::Before(_), None) => !socket.is_open(),
    };
    inode && opener && (cookie && began || !exact) && socket.role == life.role
}

fn brief(event: &Event) -> String {
    match event {
        Event::Socket(event) => format!(
            "{:?} at {} sk {} born {:?} est {:?} {:?} {}>{} by {:?} inode {:?}",
            event.kind,
            event.at.0,
            event.sk,
            event.birth.map(|at| at.0),
            event.established.map(|at| at.0),
            event.tuple,
            event.old_state,
            event.new_state,
            event.opener.map(|task| task.id.pid),
            event.inode
        ),
        Event::Drop(event) => format!("{event:?}"),
        Event::Accepts(event) => format!("{event:?}"),
        Event::Process(event) => format!("{event:?}"),
    }
}

fn rows_brief(rows: &[(LifeId, SocketRow)]) -> String {
    let brief = |(_, row): &(LifeId, SocketRow)| {
        format!("[{:?} {} inode {} cookie {} held {}]", row.tuple, row.state, row.inode, row.cookie, row.holders.len())
    };
    rows.iter().map(brief).collect::<Vec<_>>().join(" ")
}
