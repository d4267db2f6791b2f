//! A host with one database, made of events and looks at the socket table.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tracer_core::detect::{DetectConfig, Store};
use tracer_core::event::{Comm, Event, ProcessId, Role, SocketEvent, SocketEventKind, Task, Totals, Tuple};
use tracer_core::finding::{Change, EvidenceValue, Finding, FindingLine};
use tracer_core::identity::{Identity, LauncherGroup};
use tracer_core::inventory::{Certainty, Holder, Inventory, SocketRow, Table};
use tracer_core::ports::PortMap;
use tracer_core::snapshot::{Limit, LimitSource};
use tracer_core::tcp::TcpState;
use tracer_core::time::{BootNs, WallAnchor};
use tracer_core::tracker::{Bounds, EndpointRule, Tracker};

pub const NETNS: u32 = 7;

/// A host with one database at 10.0.0.5:5432.
pub struct Scene {
    pub now: BootNs,
    pub tracker: Tracker,
    pub store: Store,
    pub config: DetectConfig,
    next_port: u16,
    live: BTreeMap<u16, (Role, u32)>,
    opened_at: BTreeMap<u16, BootNs>,
    pub lines: Vec<FindingLine>,
}

pub fn database() -> SocketAddr {
    "10.0.0.5:5432".parse().unwrap()
}

pub fn anchor() -> WallAnchor {
    WallAnchor { boot: BootNs(0), unix_ns: 1_700_000_000_000_000_000 }
}

impl Scene {
    pub fn new(limit: Option<u32>) -> Self {
        let limit = limit.map(|value| Limit { value, source: LimitSource::Config });
        let rule = EndpointRule { name: Some("orders-db".to_owned()), limit, database: None };
        let mut scene = Self {
            now: BootNs(1_000_000_000_000),
            tracker: Tracker::new(Bounds::default(), PortMap::default(), BTreeMap::from([(database(), rule)])),
            store: Store::default(),
            config: DetectConfig::default(),
            next_port: 10_000,
            live: BTreeMap::new(),
            opened_at: BTreeMap::new(),
            lines: Vec::new(),
        };
        scene.look();
        scene
    }

    fn event(&self, kind: SocketEventKind, role: Role, port: u16, pid: u32, state: TcpState) -> SocketEvent {
        let client: SocketAddr = format!("10.0.0.9:{port}").parse().unwrap();
        let (local, remote) = match role {
            Role::Client => (client, database()),
            Role::Server => (database(), client),
        };
        let id = ProcessId { pid, start_ticks: 100 };
        let opened = self.opened_at.get(&port).copied().unwrap_or(self.now);
        SocketEvent {
            kind,
            at: self.now,
            sk: u64::from(port) * 64 + u64::from(role == Role::Server),
            birth: Some(opened),
            established: Some(opened),
            tuple: Tuple::new(NETNS, local, remote),
            role,
            old_state: TcpState::Established,
            new_state: state,
            opener: (pid != 0).then_some(Task { id, uid: 0, comm: Comm(*b"app\0\0\0\0\0\0\0\0\0\0\0\0\0") }),
            closer: None,
            inode: Some(u32::from(port)),
            error: 0,
            totals: Totals::default(),
        }
    }

    pub fn open(&mut self, role: Role, pid: u32, count: u16) -> Vec<u16> {
        let ports: Vec<u16> = (self.next_port..self.next_port + count).collect();
        self.next_port += count;
        for port in &ports {
            self.opened_at.insert(*port, self.now);
            let mut event = self.event(SocketEventKind::Open, role, *port, pid, TcpState::Established);
            event.old_state = TcpState::SynSent;
            self.tracker.apply(&Event::Socket(event));
            self.live.insert(*port, (role, pid));
        }
        ports
    }

    pub fn close(&mut self, ports: &[u16]) {
        for port in ports {
            let (role, pid) = self.live.remove(port).unwrap();
            let event = self.event(SocketEventKind::End, role, *port, pid, TcpState::Close);
            self.tracker.apply(&Event::Socket(event));
        }
    }

    pub fn peer_closes(&mut self, ports: &[u16]) {
        for port in ports {
            let (role, pid) = self.live[port];
            let event = self.event(SocketEventKind::State, role, *port, pid, TcpState::CloseWait);
            self.tracker.apply(&Event::Socket(event));
        }
    }

    pub fn fail(&mut self, pid: u32) {
        let port = self.next_port;
        self.next_port += 1;
        let mut event = self.event(SocketEventKind::End, Role::Client, port, pid, TcpState::Close);
        event.established = None;
        event.inode = None;
        event.old_state = TcpState::SynSent;
        self.tracker.apply(&Event::Socket(event));
    }

    pub fn name(&mut self, pid: u32, script: &str) {
        let id = ProcessId { pid, start_ticks: 100 };
        self.tracker.apply_identity(Identity {
            id,
            comm: "python3".to_owned(),
            exe: None,
            script: Some(script.to_owned()),
            cmdline: None,
            ns_pid: None,
            ppid: None,
            ancestors: Vec::new(),
            uid: None,
            user: None,
            cgroup: None,
            container_id: None,
            systemd_unit: None,
            group: LauncherGroup { id: format!("group-of-{script}"), label: script.to_owned() },
        });
    }

    /// A look at the socket table that finds what is live.
    pub fn look(&mut self) {
        let rows = self.live.iter().map(|(port, (role, pid))| {
            let event = self.event(SocketEventKind::Open, *role, *port, *pid, TcpState::Established);
            let process = ProcessId { pid: *pid, start_ticks: 100 };
            let state = self.tracker.sockets().find(|socket| socket.tuple == event.tuple).map(|socket| socket.state);
            SocketRow {
                tuple: event.tuple,
                role: *role,
                certainty: Certainty::Sure,
                state: state.unwrap_or(TcpState::Established),
                uid: 0,
                inode: u64::from(*port),
                cookie: u64::from(*port),
                info: None,
                holders: [Holder { process, fd: 3 }].into_iter().collect(),
            }
        });
        let sockets = rows.collect();
        let (started, finished) = (self.now, self.now.plus(Duration::from_millis(1)));
        self.tracker.apply_inventory(Inventory::of(Table { netns: NETNS, started, finished, sockets }));
        self.now = finished;
    }

    /// Lets time pass a second at a time, detecting at each.
    pub fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now = self.now.plus(Duration::from_secs(1));
            let lines = self.store.run(&self.tracker, &self.config, self.now, &anchor());
            self.lines.extend(lines);
        }
    }

    pub fn findings(&self) -> Vec<Finding> {
        self.store.findings(&anchor())
    }

    pub fn only(&self) -> Finding {
        let mut findings = self.findings();
        assert_eq!(findings.len(), 1, "{findings:#?}");
        findings.remove(0)
    }

    pub fn changes(&self) -> Vec<Change> {
        self.lines.iter().map(|line| line.change).collect()
    }
}

pub fn number(finding: &Finding, fact: &str) -> i64 {
    match &finding.evidence.iter().find(|evidence| evidence.fact == fact).unwrap().value {
        EvidenceValue::Integer(value) => *value,
        other => panic!("{fact} is {other:?}"),
    }
}
