//! The tracker against a naive model of the kernel: sockets are born, fail, change and end; events get lost, repeated
//! and delayed; looks at the socket table come in between. Whatever happens, after a look the live set is the kernel's,
//! counts are conserved and no process is blamed for another's socket.

#![expect(clippy::unwrap_used, reason = "the model panics where it cannot count")]

use std::collections::BTreeMap;
use std::net::SocketAddr;

use proptest::prelude::*;
use tracer_core::event::{Comm, Event, ProcessId, Role, SocketEvent, SocketEventKind, Task, Totals, Tuple};
use tracer_core::inventory::{Certainty, Holder, Inventory, SocketRow, Table};
use tracer_core::ports::PortMap;
use tracer_core::snapshot::Loss;
use tracer_core::socket::Began;
use tracer_core::tcp::TcpState;
use tracer_core::time::BootNs;
use tracer_core::tracker::{Bounds, Tracker};

const NETNS: u32 = 7;
const TUPLES: usize = 6;
const ADDRESSES: u64 = 4;

/// What may happen to an event on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Arrives,
    Lost,
    Twice,
    Late,
}

#[derive(Clone, Debug)]
enum Step {
    /// A process connects through a tuple, if it is free.
    Connect { tuple: usize, process: u32, fate: Fate },
    /// A connect that is refused.
    Refused { tuple: usize, process: u32, fate: Fate },
    /// The peer closes.
    PeerCloses { tuple: usize, fate: Fate },
    /// The process closes and the socket ends.
    Ends { tuple: usize, fates: (Fate, Fate) },
    /// A look at the socket table.
    Look,
}

/// One socket of the modelled kernel.
#[derive(Clone, Copy, Debug)]
struct Truth {
    sk: u64,
    birth: BootNs,
    established: BootNs,
    process: u32,
    state: TcpState,
    cookie: u64,
}

struct Kernel {
    now: u64,
    live: BTreeMap<usize, Truth>,
    free: Vec<u64>,
    cookies: u64,
    opened: u64,
    closed: u64,
    failed: u64,
    tracker: Tracker,
    late: Vec<Event>,
    faults: bool,
    lost: u64,
}

fn tuple(index: usize) -> Tuple {
    let local = SocketAddr::from(([127, 0, 0, 1], 40_000 + u16::try_from(index).unwrap()));
    Tuple::new(NETNS, local, SocketAddr::from(([127, 0, 0, 1], 5432)))
}

fn process(pid: u32) -> ProcessId {
    ProcessId { pid, start_ticks: u64::from(pid) * 10 }
}

impl Kernel {
    fn new(bounds: Bounds) -> Self {
        let mut kernel = Self {
            now: 1_000,
            live: BTreeMap::new(),
            free: (1..=ADDRESSES).collect(),
            cookies: 0,
            opened: 0,
            closed: 0,
            failed: 0,
            tracker: Tracker::new(bounds, PortMap::default(), BTreeMap::new()),
            late: Vec::new(),
            faults: false,
            lost: 0,
        };
        kernel.look();
        kernel
    }

    fn tick(&mut self) -> BootNs {
        self.now += 10;
        BootNs(self.now)
    }

    fn event(&self, kind: SocketEventKind, index: usize, truth: &Truth, state: TcpState, open: bool) -> Event {
        let task = Task { id: process(truth.process), uid: 0, comm: Comm(*b"client\0\0\0\0\0\0\0\0\0\0") };
        Event::Socket(SocketEvent {
            kind,
            at: BootNs(self.now),
            sk: truth.sk,
            birth: Some(truth.birth),
            established: open.then_some(truth.established),
            tuple: tuple(index),
            role: Role::Client,
            old_state: if open { TcpState::Established } else { TcpState::SynSent },
            new_state: state,
            opener: Some(task),
            closer: None,
            inode: (truth.cookie != 0).then(|| u32::try_from(truth.cookie).unwrap()),
            error: 0,
            totals: Totals::default(),
        })
    }

    fn send(&mut self, event: Event, fate: Fate) {
        self.faults |= fate != Fate::Arrives;
        match fate {
            Fate::Arrives => {
                self.tracker.apply(&event);
            }
            Fate::Twice => {
                self.tracker.apply(&event);
                self.tracker.apply(&event);
            }
            Fate::Lost => {
                self.lost += 1;
                let loss = Loss { ring_full: self.lost, ..Loss::default() };
                self.tracker.note_loss(loss, BootNs(self.now));
            }
            Fate::Late => self.late.push(event),
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Connect { tuple, process, fate } => self.connect(tuple, process, fate),
            Step::Refused { tuple, process, fate } => {
                if self.live.contains_key(&tuple) {
                    return;
                }
                let Some(sk) = self.free.first().copied() else { return };
                let birth = self.tick();
                self.tick();
                let truth = Truth { sk, birth, established: BootNs(0), process, state: TcpState::Close, cookie: 0 };
                self.failed += 1;
                let event = self.event(SocketEventKind::End, tuple, &truth, TcpState::Close, false);
                self.send(event, fate);
            }
            Step::PeerCloses { tuple, fate } => {
                self.tick();
                let Some(truth) = self.live.get_mut(&tuple) else { return };
                truth.state = TcpState::CloseWait;
                let truth = *truth;
                let event = self.event(SocketEventKind::State, tuple, &truth, TcpState::CloseWait, true);
                self.send(event, fate);
            }
            Step::Ends { tuple, fates } => {
                let Some(truth) = self.live.remove(&tuple) else { return };
                self.tick();
                let event = self.event(SocketEventKind::State, tuple, &truth, TcpState::FinWait1, true);
                self.send(event, fates.0);
                self.tick();
                let event = self.event(SocketEventKind::End, tuple, &truth, TcpState::Close, true);
                self.send(event, fates.1);
                self.closed += 1;
                self.free.push(truth.sk);
            }
            Step::Look => self.look_until_settled(),
        }
    }

    fn connect(&mut self, tuple: usize, process: u32, fate: Fate) {
        if self.live.contains_key(&tuple) {
            return;
        }
        let Some(sk) = self.free.pop() else { return };
        let birth = self.tick();
        let established = self.tick();
        self.cookies += 1;
        let state = TcpState::Established;
        let truth = Truth { sk, birth, established, process, state, cookie: self.cookies };
        self.live.insert(tuple, truth);
        self.opened += 1;
        let event = self.event(SocketEventKind::Open, tuple, &truth, TcpState::Established, true);
        self.send(event, fate);
    }

    fn look(&mut self) {
        let started = self.tick();
        let finished = self.tick();
        let row = |(index, truth): (&usize, &Truth)| SocketRow {
            tuple: tuple(*index),
            role: Role::Client,
            certainty: Certainty::Sure,
            state: truth.state,
            uid: 0,
            inode: truth.cookie,
            cookie: truth.cookie,
            info: None,
            holders: [Holder { process: process(truth.process), fd: 3 }].into_iter().collect(),
        };
        let sockets = self.live.iter().map(row).collect();
        self.tracker.apply_inventory(Inventory::of(Table {
            netns: NETNS,
            started,
            finished,
            sockets,
            ..Table::default()
        }));
    }

    /// Two looks far enough apart that nothing can be on the way any more.
    fn look_until_settled(&mut self) {
        self.look();
        self.now += 2_000_000_000;
        self.look();
    }

    fn deliver_late(&mut self) {
        for event in std::mem::take(&mut self.late) {
            self.tracker.apply(&event);
        }
    }

    /// What must hold at any moment.
    fn check_always(&self) {
        for endpoint in self.tracker.endpoints() {
            assert_eq!(u64::from(endpoint.open), endpoint.opened_total - endpoint.closed_total, "{endpoint:?}");
            let live = self.tracker.sockets().filter(|socket| socket.is_open()).count();
            assert_eq!(usize::try_from(endpoint.open).unwrap(), live);
        }
        for process in self.tracker.processes().values() {
            for account in process.accounts.values() {
                assert!(account.closed_total <= account.opened_total, "{process:?}");
            }
        }
    }

    /// What must hold after a look.
    fn check_repaired(&self) {
        let mut seen: Vec<(Tuple, TcpState)> = Vec::new();
        for socket in self.tracker.sockets() {
            seen.push((socket.tuple, socket.state));
            let index = usize::from(socket.tuple.local().port() - 40_000);
            let truth = self.live[&index];
            if let Some(opener) = socket.opener {
                assert_eq!(opener.id, process(truth.process), "wrong opener of {:?}", socket.tuple);
            }
            match socket.began() {
                Began::At(at) => assert_eq!(at, truth.established),
                Began::Before(at) => assert!(at >= truth.established, "an age above the truth"),
            }
        }
        seen.sort_unstable();
        let truth: Vec<_> = self.live.iter().map(|(index, truth)| (tuple(*index), truth.state)).collect();
        assert_eq!(seen, truth);
    }

    /// What must hold when nothing went wrong on the way.
    fn check_exact(&self) {
        let sum =
            |of: fn(&tracer_core::endpoint::Endpoint) -> u64| -> u64 { self.tracker.endpoints().iter().map(of).sum() };
        assert_eq!(sum(|endpoint| endpoint.opened_total), self.opened);
        assert_eq!(sum(|endpoint| endpoint.closed_total), self.closed);
        assert_eq!(sum(|endpoint| endpoint.failed_total), self.failed);
        assert!(self.tracker.sockets().all(|socket| matches!(socket.began(), Began::At(_))));
        let loss = self.tracker.loss();
        assert_eq!((loss.missed_opens, loss.missed_closes, loss.resyncs), (0, 0, 0));
        for (id, process) in self.tracker.processes() {
            let live = self.live.values().filter(|truth| truth.process == id.pid).count();
            let open: u64 = process.accounts.values().map(tracer_core::process::Account::open).sum();
            assert_eq!(open, u64::try_from(live).unwrap(), "{process:?}");
        }
    }
}

fn fate(faulty: bool) -> BoxedStrategy<Fate> {
    if faulty {
        prop_oneof![6 => Just(Fate::Arrives), 1 => Just(Fate::Lost), 1 => Just(Fate::Twice), 1 => Just(Fate::Late)]
            .boxed()
    } else {
        Just(Fate::Arrives).boxed()
    }
}

fn step(faulty: bool) -> impl Strategy<Value = Step> {
    let tuples = 0..TUPLES;
    prop_oneof![
        4 => (tuples.clone(), 1..5u32, fate(faulty))
            .prop_map(|(tuple, process, fate)| Step::Connect { tuple, process, fate }),
        1 => (tuples.clone(), 1..5u32, fate(faulty))
            .prop_map(|(tuple, process, fate)| Step::Refused { tuple, process, fate }),
        1 => (tuples.clone(), fate(faulty)).prop_map(|(tuple, fate)| Step::PeerCloses { tuple, fate }),
        3 => (tuples, fate(faulty), fate(faulty))
            .prop_map(|(tuple, first, second)| Step::Ends { tuple, fates: (first, second) }),
        1 => Just(Step::Look),
    ]
}

fn play(steps: &[Step], bounds: Bounds) -> Kernel {
    let mut kernel = Kernel::new(bounds);
    for step in steps {
        kernel.take(step);
        kernel.check_always();
        if matches!(step, Step::Look) && kernel.late.is_empty() {
            kernel.check_repaired();
        }
        if kernel.late.len() > 4 {
            kernel.deliver_late();
            kernel.check_always();
        }
    }
    kernel.deliver_late();
    kernel.look_until_settled();
    kernel.check_always();
    kernel.check_repaired();
    kernel
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn without_faults_everything_is_exact(steps in prop::collection::vec(step(false), 1..80)) {
        let kernel = play(&steps, Bounds::default());
        prop_assert!(!kernel.faults);
        kernel.check_exact();
    }

    #[test]
    fn with_faults_a_look_repairs_the_live_set(steps in prop::collection::vec(step(true), 1..80)) {
        play(&steps, Bounds::default());
    }

    #[test]
    fn a_short_memory_of_ends_still_converges(steps in prop::collection::vec(step(true), 1..80)) {
        // Without delays: a delay longer than the memory is indistinguishable from a new life until the next look.
        let steps: Vec<Step> = steps.into_iter().map(without_delay).collect();
        play(&steps, Bounds { tombstones: 2, ..Bounds::default() });
    }
}

fn without_delay(step: Step) -> Step {
    let now = |fate| if fate == Fate::Late { Fate::Arrives } else { fate };
    match step {
        Step::Connect { tuple, process, fate } => Step::Connect { tuple, process, fate: now(fate) },
        Step::Refused { tuple, process, fate } => Step::Refused { tuple, process, fate: now(fate) },
        Step::PeerCloses { tuple, fate } => Step::PeerCloses { tuple, fate: now(fate) },
        Step::Ends { tuple, fates } => Step::Ends { tuple, fates: (now(fates.0), now(fates.1)) },
        Step::Look => Step::Look,
    }
}
