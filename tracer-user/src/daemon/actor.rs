//! The one task that owns the tracker: no locks, no shared state. Events, looks and identities come in; snapshots and
//! changes of findings go out.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};
use tracer_core::detect::{DetectConfig, Store};
use tracer_core::event::{Event, ProcessId, Tuple};
use tracer_core::finding::FindingLine;
use tracer_core::inventory::Inventory;
use tracer_core::setup::Setup;
use tracer_core::snapshot::{LOSS_SCHEMA, Loss, LossLine, Snapshot};
use tracer_core::state::{FindingState, State};
use tracer_core::time::BootNs;
use tracer_core::tracker::{ASK_EVERY, About, Extent, LineRoom, Tracker, event_line};

use super::failing::Failing;
use super::feed::{Batch, Feed};
use super::handle::{Figures, Request};
use super::identify::Ask;
use super::keeper::Keeper;
use super::record::Recorders;
use super::state::KEEP_EVERY;
use super::{Message, drain, every};
use crate::clock;
use crate::history::Tap;

/// Processes that may wait for room in the queue to the one who asks /proc; beyond it they stay without identity.
const IDENTIFY_QUEUE: usize = 65_536;

/// Processes that are checked for being alive after a look.
const CONFIRM_MOST: usize = 4_096;
/// Processes that are asked for their parents after a look.
const KIN_MOST: usize = 1_024;
/// Longest time between looks that lasting loss asks for.
const LOSS_LOOK_MOST: Duration = Duration::from_secs(5);

/// Those the actor tells or asks something.
pub struct Peers {
    /// Changes of findings go here.
    pub findings: broadcast::Sender<Arc<FindingLine>>,
    /// Socket events go here, if somebody listens.
    pub events: Arc<Feed>,
    /// Losses of events go here.
    pub loss: watch::Sender<Option<LossLine>>,
    /// Reads the ring and watches processes.
    pub drain: mpsc::Sender<drain::Command>,
    /// Asks /proc.
    pub identities: SyncSender<Ask>,
    /// Wakes the task that looks at the socket table.
    pub wanted: Arc<Notify>,
    /// Sockets, by namespace and inode number, that the next look should ask about because no table showed them.
    pub unseen: watch::Sender<BTreeSet<(u32, u64)>>,
    /// Sockets in trouble go here, to be asked about at once.
    pub glances: mpsc::Sender<Vec<(Tuple, u64)>>,
}

/// The tracker's owner.
pub struct Actor {
    tracker: Tracker,
    findings: Store,
    detect: DetectConfig,
    about: About,
    peers: Peers,
    recorders: Recorders,
    keeper: Option<Keeper>,
    /// Keeps what happens on disk, if that is wanted.
    history: Option<Tap>,
    /// Snapshots that wait for a look that began after they were asked for.
    waiting: Vec<(BootNs, oneshot::Sender<Arc<Snapshot>>)>,
    /// Processes to ask /proc about, once there is room in the queue.
    unidentified: VecDeque<ProcessId>,
    ready: Option<oneshot::Sender<()>>,
    /// Records that the kernel programs handed over, by kind.
    records: Vec<(&'static str, u64)>,
    failing: Failing,
    /// The last look missed something, and another one was asked for.
    doubted: bool,
    /// When a loss last asked for a look, and how long the next one has to wait.
    loss_look_at: BootNs,
    loss_look_every: Duration,
    /// Where the lines of socket events are written.
    batch: Batch,
    room: LineRoom,
    /// Rules to ignore findings that are over, as far as that was said.
    over: BTreeSet<usize>,
}

impl Actor {
    /// `ready` is told when the first look is applied.
    pub fn new(tracker: Tracker, detect: DetectConfig, about: About, peers: Peers, ready: oneshot::Sender<()>) -> Self {
        Self {
            tracker,
            findings: Store::default(),
            detect,
            about,
            peers,
            recorders: Recorders::default(),
            keeper: None,
            history: None,
            waiting: Vec::new(),
            unidentified: VecDeque::new(),
            ready: Some(ready),
            records: Vec::new(),
            failing: Failing::default(),
            doubted: false,
            loss_look_at: BootNs(0),
            loss_look_every: Duration::ZERO,
            batch: Batch::default(),
            room: LineRoom::default(),
            over: BTreeSet::new(),
        }
    }

    /// Keeps what outlives a restart, and goes on with the findings that were open before one.
    pub fn keep_with(&mut self, keeper: Keeper, findings: Vec<FindingState>) {
        self.findings.go_on_from(findings);
        self.keeper = Some(keeper);
    }

    /// Keeps what happens on disk.
    pub fn tell_history(&mut self, tap: Tap) {
        self.history = Some(tap);
    }

    /// Runs until told to stop.
    pub async fn run(
        mut self,
        inbox: mpsc::Receiver<Message>,
        requests: mpsc::Receiver<Request>,
        stopped: watch::Receiver<bool>,
    ) {
        self.work(inbox, requests, stopped).await;
        // Before the first look there is less to keep than what is kept already.
        if let Some(keeper) = self.keeper.take().filter(|_| self.ready.is_none()) {
            let state = self.state(keeper.boot_id());
            keeper.write_last(state).await;
        }
        if let Some(mut tap) = self.history.take() {
            let anchor = clock::wall_anchor();
            tap.last(&self.tracker, (&self.about, &self.findings), anchor.boot, &anchor);
            // A panic in there was told by its hook.
            let _ = tokio::task::spawn_blocking(move || tap.finish()).await;
        }
    }

    async fn work(
        &mut self,
        mut inbox: mpsc::Receiver<Message>,
        mut requests: mpsc::Receiver<Request>,
        mut stopped: watch::Receiver<bool>,
    ) {
        let (mut keep, mut ask) = (every(KEEP_EVERY), every(ASK_EVERY));
        loop {
            tokio::select! {
                message = inbox.recv() => match message {
                    Some(message) => self.take(message),
                    None => return,
                },
                request = requests.recv() => match request {
                    Some(request) => self.answer(request),
                    None => return,
                },
                _ = ask.tick() => self.ask_about_troubled(),
                _ = keep.tick(), if self.keeper.is_some() => self.keep(),
                _ = stopped.changed() => return,
            }
            self.ask_proc();
        }
    }

    fn keep(&mut self) {
        let Some(mut keeper) = self.keeper.take() else { return };
        // A disk that is slow gets the next one.
        if self.ready.is_none() && keeper.is_idle() {
            let state = self.state(keeper.boot_id());
            keeper.write(state);
        }
        self.keeper = Some(keeper);
    }

    fn keep_history(&mut self) {
        // Before the first look nothing is known yet.
        if let Some(tap) = self.history.as_mut().filter(|_| self.ready.is_none()) {
            let anchor = clock::wall_anchor();
            tap.second(&self.tracker, (&self.about, &self.findings), anchor.boot, &anchor);
        }
    }

    fn state(&self, boot_id: &str) -> State {
        State { findings: self.findings.keep(), ..self.tracker.keep(boot_id, clock::boot_clock()) }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Events(events) => self.take_events(&events),
            Message::Counters { kernel, decode_errors } => {
                self.tracker.note_drops_untold(kernel.drops_untold);
                self.records = kernel.records().collect();
                let loss = Loss {
                    ring_full: kernel.ring_full_total(),
                    ends: kernel.ends_lost(),
                    read_failed: kernel.read_failed,
                    map_full: kernel.map_full,
                    process_map_full: kernel.process_map_full,
                    accept_map_full: kernel.accept_map_full,
                    program_skipped: kernel.program_skipped,
                    // The queue takes only what it has room for; the rest waits in the ring.
                    queue_full: 0,
                    decode_errors,
                    ..Loss::default()
                };
                let now = clock::boot_clock();
                self.recorders.loss(now, loss, kernel.drops_untold);
                self.take_loss(loss, now);
            }
            Message::Second => {
                self.detect();
                self.keep_history();
            }
            Message::Inventory(inventory) => self.take_look(*inventory),
            Message::Glance(glance) => {
                self.recorders.glance(&glance);
                self.tracker.apply_glance(&glance);
                // What it tells is wanted soon.
                self.detect();
            }
            Message::InventoryFailed(reason) => {
                if self.failing.failed(&reason) {
                    tracing::error!(reason, "cannot look at the socket table; said again when the reason changes");
                }
                // What is known is still worth an answer; before the first look nothing is.
                if self.ready.is_none() {
                    self.look_done(clock::boot_clock());
                }
            }
            Message::Identity(identity) => {
                self.recorders.identity(&identity);
                self.tracker.apply_identity(*identity);
            }
            Message::Gone(id) => {
                let now = clock::boot_clock();
                self.recorders.gone(id, now);
                self.tracker.apply_gone(id, now);
                // A process that ended before it was watched would keep its place for ever. A full queue costs a place.
                let _ = self.peers.drain.try_send(drain::Command::Unwatch(id));
            }
            Message::Configure(setup) => self.configure(*setup),
            Message::Asked(look_started) => self.answer_waiting(look_started),
        }
    }

    fn configure(&mut self, setup: Setup) {
        let now = clock::boot_clock();
        self.recorders.configured(&setup, now);
        let Setup { ports, rules, detect, in_force, cmdlines } = setup;
        if cmdlines.is_some() {
            self.tracker.forget_cmdlines();
        }
        if cmdlines == Some(true) {
            let living = self.tracker.processes().values().filter(|process| process.ended.is_none());
            let living = living.map(|process| process.id).collect();
            self.identify_later(living);
        }
        self.tracker.configure(ports, rules, now);
        self.detect = detect;
        self.about.config = in_force;
        self.over.clear();
        // Whether what is open changes the verdict is wanted soon.
        self.detect();
    }

    /// Loss that goes on asks for a look less and less often: the regular ones repair it as well.
    fn take_loss(&mut self, loss: Loss, now: BootNs) {
        if !self.tracker.note_loss(loss, now) {
            return;
        }
        self.peers.loss.send_replace(Some(LossLine {
            schema: LOSS_SCHEMA.to_owned(),
            at: clock::wall_anchor().wall(now),
            loss: self.tracker.loss(),
        }));
        let since = now.since(self.loss_look_at);
        if since > 6 * LOSS_LOOK_MOST {
            self.loss_look_every = Duration::ZERO;
        }
        if since >= self.loss_look_every {
            tracing::warn!(loss = ?self.tracker.loss(), "events were lost; looking at the socket table");
            self.loss_look_at = now;
            self.loss_look_every = (2 * self.loss_look_every).clamp(Duration::from_secs(1), LOSS_LOOK_MOST);
            self.peers.wanted.notify_one();
        }
    }

    fn take_look(&mut self, inventory: Inventory) {
        if self.failing.worked() {
            tracing::info!("the socket table can be looked at again");
        }
        let started = inventory.started;
        // What newly watched ports had before is found by the look after.
        let new_ports = !inventory.recognized.is_empty();
        self.recorders.look(&inventory);
        let again = self.tracker.apply_inventory(inventory) || new_ports;
        self.recorders.looked(started, &self.tracker);
        if self.recorders.want_look() {
            self.peers.wanted.notify_one();
        }
        self.peers.unseen.send_replace(self.tracker.unseen_inodes());
        // What the look introduced did not connect or accept while it was watched: its exit is not reported yet.
        let introduced = self.tracker.take_unidentified();
        if !introduced.is_empty() {
            // A full queue costs the report of their exit: a later look finds out.
            let _ = self.peers.drain.try_send(drain::Command::Watch(introduced.clone()));
            self.identify_later(introduced);
        }
        // Two looks in a row settle what is gone; new doubts after that wait for the next round.
        if new_ports || (again && !self.doubted) {
            self.doubted = true;
            self.peers.wanted.notify_one();
            return;
        }
        self.doubted = false;
        self.look_done(started);
    }

    fn take_events(&mut self, events: &[Event]) {
        let listeners = self.peers.events.has_readers();
        let anchor = clock::wall_anchor();
        self.recorders.events(events);
        for event in events {
            let effect = self.tracker.apply(event);
            if let Some(tap) = &mut self.history {
                tap.event(&self.tracker, event, effect, &anchor);
            }
            if listeners && let Some(line) = event_line(&self.tracker, event, effect, &anchor, &mut self.room) {
                self.batch.push(&line);
                if self.batch.is_full() {
                    self.peers.events.tell(&mut self.batch);
                }
            }
        }
        self.peers.events.tell(&mut self.batch);
    }

    fn look_done(&mut self, started: BootNs) {
        if let Some(ready) = self.ready.take() {
            // Nobody waits any more when the daemon is already stopping.
            let _ = ready.send(());
        }
        self.ask_proc();
        let unconfirmed = self.tracker.take_unconfirmed(CONFIRM_MOST);
        // A full queue leaves them to the next look.
        let _ = self.peers.identities.try_send(Ask::Alive(unconfirmed));
        let _ = self.peers.identities.try_send(Ask::Kin(self.tracker.take_kin(KIN_MOST)));
        // A snapshot should know who the processes are that the look introduced.
        if !self.waiting.is_empty() && self.peers.identities.try_send(Ask::Done(started)).is_err() {
            self.answer_waiting(started);
        }
    }

    fn answer_waiting(&mut self, look_started: BootNs) {
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|(asked, _)| *asked <= look_started);
        self.waiting = later;
        if !due.is_empty() {
            let snapshot = Arc::new(self.snapshot());
            for (_, reply) in due {
                // The client has gone.
                let _ = reply.send(Arc::clone(&snapshot));
            }
        }
    }

    fn answer(&mut self, request: Request) {
        match request {
            Request::Snapshot { reply } => {
                self.waiting.push((clock::boot_clock(), reply));
                self.peers.wanted.notify_one();
            }
            Request::Known { extent, reply } => {
                // The client has gone.
                let _ = reply.send(Arc::new(self.known(extent)));
            }
            Request::FollowEvents { reply } => {
                // A full queue: then the next tick does it. Dropping the reply would tell the client that we stop.
                if let Err(TrySendError::Full(drain::Command::Follow(reply))) =
                    self.peers.drain.try_send(drain::Command::Follow(reply))
                {
                    let _ = reply.send(());
                }
            }
            Request::Record { reply } => {
                let header = self.tracker.header(&self.about, &self.detect, clock::wall_anchor());
                self.peers.wanted.notify_one();
                // The client has gone.
                let _ = reply.send(self.recorders.begin(header, &self.tracker));
            }
            Request::Figures { reply } => {
                let open = self.tracker.open_by_group();
                // The client has gone.
                let _ =
                    reply.send(Figures { outline: self.known(Extent::Outline), open, records: self.records.clone() });
            }
            Request::OpenFindings { reply } => {
                let findings = self.findings.findings(&clock::wall_anchor());
                let told = findings.into_iter().filter(|finding| finding.ignored.is_none());
                let _ = reply.send(told.map(Arc::new).collect());
            }
        }
    }

    fn ask_about_troubled(&mut self) {
        // While the last question is unanswered, the next one waits.
        if let Ok(permit) = self.peers.glances.try_reserve() {
            let due = self.tracker.due(clock::boot_clock());
            if !due.is_empty() {
                permit.send(due);
            }
        }
    }

    /// With the last second's findings: who asks often makes none anew.
    fn known(&self, extent: Extent) -> Snapshot {
        let anchor = clock::wall_anchor();
        self.tracker.snapshot_of(extent, (&self.about, &self.findings), anchor.boot, &anchor)
    }

    fn snapshot(&mut self) -> Snapshot {
        self.detect();
        self.known(Extent::Whole)
    }

    fn detect(&mut self) {
        let anchor = clock::wall_anchor();
        for (index, ignore) in self.detect.ignores.iter().enumerate() {
            if ignore.is_over(anchor.wall(anchor.boot)) && self.over.insert(index) {
                let reason = ignore.reason.as_str();
                tracing::warn!(reason, "an [[ignore]] of the configuration has expired: what it was for is told again");
            }
        }
        for line in self.findings.run(&self.tracker, &self.detect, anchor.boot, &anchor) {
            if let Some(tap) = &mut self.history {
                tap.finding(&line);
            }
            // Fails when nobody listens.
            let _ = self.peers.findings.send(Arc::new(line));
        }
    }

    fn identify_later(&mut self, new: Vec<ProcessId>) {
        let room = IDENTIFY_QUEUE.saturating_sub(self.unidentified.len());
        self.unidentified.extend(new.into_iter().take(room));
    }

    /// Hands new processes to the one who asks /proc.
    fn ask_proc(&mut self) {
        let new = self.tracker.take_unidentified();
        self.identify_later(new);
        while let Some(id) = self.unidentified.pop_front() {
            if self.peers.identities.try_send(Ask::Who(id)).is_err() {
                self.unidentified.push_front(id);
                return;
            }
        }
    }
}
