//! A host whose connections are told to the tracker as they come and go, with a look every ten seconds that shows what
//! was said on each. Knows nothing of pools.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use tracer_core::detect::{DetectConfig, Store};
use tracer_core::event::{
    Comm, Event, ProcessEvent, ProcessEventKind, ProcessId, Role, SocketEvent, SocketEventKind, Task, Totals, Tuple,
};
use tracer_core::finding::{Finding, FindingLine};
use tracer_core::identity::{Ancestor, Identity, LauncherGroup};
use tracer_core::inventory::{Certainty, Holder, Inventory, SocketInfo, SocketRow, Table};
use tracer_core::ports::PortMap;
use tracer_core::snapshot::{Limit, LimitSource};
use tracer_core::tcp::TcpState;
use tracer_core::time::{BootNs, WallAnchor};
use tracer_core::tracker::{Bounds, EndpointRule, Tracker};

const NETNS: u32 = 7;
/// Bytes of a login, each way.
const LOGIN: (u64, u64) = (120, 420);
/// Ticks of a process' start are told apart by its pid: each pid is used once.
const START_TICKS: u64 = 100;

/// A live connection.
struct Conn {
    tuple: Tuple,
    owner: ProcessId,
    serial: u32,
    opened: BootNs,
    sent: u64,
    received: u64,
    sent_at: BootNs,
    received_at: BootNs,
}

/// Names a live connection; 0 is none.
pub type ConnId = usize;

pub struct Host {
    pub now: BootNs,
    tracker: Tracker,
    store: Store,
    config: DetectConfig,
    endpoints: Vec<SocketAddr>,
    /// By id; what is gone leaves room for another.
    conns: Vec<Option<Conn>>,
    free: Vec<ConnId>,
    ports: VecDeque<u16>,
    next_conn: u32,
    next_pid: u32,
    /// Everything that was told of findings.
    pub lines: Vec<FindingLine>,
}

/// Who a process is.
pub struct Who<'a> {
    pub script: &'a str,
    pub master: Option<u32>,
    pub container: Option<String>,
    pub unit: Option<String>,
}

fn anchor() -> WallAnchor {
    WallAnchor { boot: BootNs(0), unix_ns: 1_700_000_000_000_000_000 }
}

fn task(id: ProcessId) -> Task {
    Task { id, uid: 1_000, comm: Comm(*b"app\0\0\0\0\0\0\0\0\0\0\0\0\0") }
}

impl Host {
    /// A host that talks to databases with these limits.
    pub fn new(start: BootNs, limits: &[Option<u32>]) -> Self {
        let endpoints: Vec<SocketAddr> =
            (0..limits.len()).map(|index| format!("10.0.1.{}:5432", index + 1).parse().unwrap()).collect();
        let rule = |limit: &Option<u32>| EndpointRule {
            limit: limit.map(|value| Limit { value, source: LimitSource::Config }),
            ..EndpointRule::default()
        };
        let rules: BTreeMap<SocketAddr, EndpointRule> =
            endpoints.iter().copied().zip(limits.iter().map(rule)).collect();
        let mut host = Self {
            now: start,
            tracker: Tracker::new(Bounds::default(), PortMap::default(), rules),
            store: Store::default(),
            config: DetectConfig::default(),
            endpoints,
            conns: vec![None],
            free: Vec::new(),
            ports: (10_000..60_000).collect(),
            next_conn: 1,
            next_pid: 400,
            lines: Vec::new(),
        };
        host.look();
        host
    }

    /// A new process.
    pub fn start(&mut self) -> ProcessId {
        self.next_pid += 1;
        ProcessId { pid: self.next_pid, start_ticks: START_TICKS + self.now.0 / ProcessId::TICK_NS }
    }

    /// Says who a process is, once it has opened something.
    pub fn identify(&mut self, id: ProcessId, who: &Who<'_>) {
        let above = [who.master.map(|pid| (pid, "master")), Some((1, "systemd"))];
        let ancestors = above.into_iter().flatten().map(|(pid, comm)| Ancestor { pid, comm: comm.to_owned() });
        let ancestors: Vec<Ancestor> = ancestors.collect();
        self.tracker.apply_identity(Identity {
            id,
            comm: "python3".to_owned(),
            exe: Some("/usr/bin/python3.12".to_owned()),
            script: Some(format!("/srv/{}", who.script)),
            cmdline: None,
            ns_pid: None,
            ppid: ancestors.first().map(|parent| parent.pid),
            ancestors,
            master: who.master,
            uid: Some(1_000),
            user: Some("app".to_owned()),
            cgroup: None,
            container_id: who.container.clone(),
            systemd_unit: who.unit.clone(),
            group: LauncherGroup { id: format!("group-of-{}", who.script), label: who.script.to_owned() },
        });
    }

    /// A moment passes: no two events are at the same one.
    fn tick(&mut self) -> BootNs {
        self.now = self.now.plus(Duration::from_micros(50));
        self.now
    }

    fn tell(&mut self, conn: &Conn, kind: SocketEventKind, states: (TcpState, TcpState)) {
        self.tracker.apply(&Event::Socket(SocketEvent {
            kind,
            at: self.now,
            sk: u64::from(conn.serial) * 64,
            birth: Some(conn.opened),
            established: (states.0 != TcpState::SynSent || states.1 == TcpState::Established).then_some(conn.opened),
            tuple: conn.tuple,
            role: Role::Client,
            old_state: states.0,
            new_state: states.1,
            opener: Some(task(conn.owner)),
            closer: None,
            inode: Some(conn.serial),
            error: 0,
            totals: Totals { bytes_sent: conn.sent, bytes_received: conn.received, ..Totals::default() },
        }));
    }

    fn conn(&mut self, owner: ProcessId, endpoint: usize) -> (u16, Conn) {
        let now = self.tick();
        let port = self.ports.pop_front().unwrap();
        self.next_conn += 1;
        let tuple = Tuple::new(NETNS, format!("10.0.0.9:{port}").parse().unwrap(), self.endpoints[endpoint]);
        let times = (now, now);
        let serial = self.next_conn;
        (port, Conn { tuple, owner, serial, opened: now, sent: 0, received: 0, sent_at: times.0, received_at: times.1 })
    }

    /// A connection with its login.
    pub fn open(&mut self, owner: ProcessId, endpoint: usize) -> ConnId {
        let (_, mut conn) = self.conn(owner, endpoint);
        self.tell(&conn, SocketEventKind::Open, (TcpState::SynSent, TcpState::Established));
        (conn.sent, conn.received) = LOGIN;
        match self.free.pop() {
            Some(id) => {
                self.conns[id] = Some(conn);
                id
            }
            None => {
                self.conns.push(Some(conn));
                self.conns.len() - 1
            }
        }
    }

    /// An attempt that is refused.
    pub fn refused(&mut self, owner: ProcessId, endpoint: usize) {
        let (port, conn) = self.conn(owner, endpoint);
        self.tell(&conn, SocketEventKind::End, (TcpState::SynSent, TcpState::Close));
        self.ports.push_back(port);
    }

    pub fn close(&mut self, id: ConnId) {
        self.tick();
        let Some(conn) = self.conns[id].take() else { return };
        self.free.push(id);
        self.tell(&conn, SocketEventKind::End, (TcpState::Established, TcpState::Close));
        self.ports.push_back(conn.tuple.local().port());
    }

    /// Requests and their answers, the last just now.
    pub fn exchange(&mut self, id: ConnId, requests: u64) {
        let (sent, received) = (self.now.minus(Duration::from_millis(2)), self.now);
        let Some(conn) = self.conns[id].as_mut() else { return };
        conn.sent += requests * 90;
        conn.received += requests * 700;
        (conn.sent_at, conn.received_at) = (sent.max(conn.opened), received);
    }

    /// A request whose answer is still out.
    pub fn request(&mut self, id: ConnId) {
        let now = self.now;
        let Some(conn) = self.conns[id].as_mut() else { return };
        conn.sent += 90;
        conn.received_at = conn.received_at.min(now.minus(Duration::from_millis(1)));
        conn.sent_at = now;
    }

    /// The process ends, and the kernel closes what it held.
    pub fn exit(&mut self, id: ProcessId) {
        let at = self.tick();
        self.tracker.apply(&Event::Process(ProcessEvent {
            kind: ProcessEventKind::Exit,
            at,
            task: task(id),
            accepts: 0,
        }));
        let live = self.conns.iter().enumerate().filter_map(|(at, conn)| conn.as_ref().map(|conn| (at, conn)));
        let held: Vec<ConnId> = live.filter(|(_, conn)| conn.owner == id).map(|(at, _)| at).collect();
        held.into_iter().for_each(|conn| self.close(conn));
    }

    /// Moves to that moment, if it is later.
    pub fn reach(&mut self, at: BootNs) {
        self.now = self.now.max(at);
    }

    /// What the socket table says now.
    pub fn look(&mut self) {
        let started = self.tick();
        let ago = |at: BootNs| u32::try_from(started.since(at).as_millis()).unwrap_or(u32::MAX);
        let rows = self.conns.iter().flatten().map(|conn| SocketRow {
            tuple: conn.tuple,
            role: Role::Client,
            certainty: Certainty::Sure,
            state: TcpState::Established,
            uid: 1_000,
            inode: u64::from(conn.serial),
            cookie: u64::from(conn.serial),
            info: Some(SocketInfo {
                bytes_sent: conn.sent,
                bytes_received: conn.received,
                srtt_us: Some(200),
                last_data_sent_ms: ago(conn.sent_at),
                last_data_received_ms: ago(conn.received_at),
                last_ack_received_ms: ago(conn.received_at),
                ..SocketInfo::default()
            }),
            holders: [Holder { process: conn.owner, fd: 3 }].into_iter().collect(),
        });
        let sockets = rows.collect();
        let finished = started.plus(Duration::from_micros(40));
        self.tracker.apply_inventory(Inventory::of(Table {
            netns: NETNS,
            started,
            finished,
            sockets,
            ..Table::default()
        }));
    }

    pub fn detect(&mut self) {
        self.tick();
        self.lines.extend(self.store.run(&self.tracker, &self.config, self.now, &anchor()));
    }

    pub fn findings(&self) -> Vec<Finding> {
        self.store.findings(&anchor())
    }

    /// What findings call that database.
    pub fn endpoint(&self, endpoint: usize) -> String {
        self.endpoints[endpoint].to_string()
    }

    /// Connections that are open, and those the tracker has.
    pub fn open_counts(&self) -> (usize, usize) {
        (self.conns.iter().flatten().count(), self.tracker.sockets().count())
    }
}
