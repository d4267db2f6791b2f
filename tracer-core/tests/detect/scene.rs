//! A host with one database, made of events and looks at the socket table.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use tracer_core::detect::{DetectConfig, Store};
use tracer_core::event::{
    Comm, Event, ProcessEvent, ProcessEventKind, ProcessId, Role, SocketEvent, SocketEventKind, Task, Totals, Tuple,
};
use tracer_core::finding::{Change, EvidenceValue, Finding, FindingLine};
use tracer_core::identity::{Identity, LauncherGroup};
use tracer_core::inventory::{Certainty, Holder, Inventory, Network, SocketInfo, SocketRow, Table, Tracked};
use tracer_core::ports::PortMap;
use tracer_core::snapshot::{Host, Limit, LimitSource, Mode, Snapshot};
use tracer_core::state::State;
use tracer_core::tcp::TcpState;
use tracer_core::time::{BootNs, WallAnchor};
use tracer_core::tracker::{About, Bounds, EndpointRule, Tracker};

mod path;

use path::Fault;

pub const NETNS: u32 = 7;

/// What was said on a connection.
#[derive(Clone, Copy, Default)]
struct Traffic {
    sent: u64,
    received: u64,
    sent_at: BootNs,
    received_at: BootNs,
}

/// A host with one database at 10.0.0.5:5432.
pub struct Scene {
    pub now: BootNs,
    pub tracker: Tracker,
    pub store: Store,
    pub config: DetectConfig,
    next_port: u16,
    live: BTreeMap<u16, (Role, u32)>,
    opened_at: BTreeMap<u16, BootNs>,
    traffic: BTreeMap<u16, Traffic>,
    /// Local ports of connections that the database has closed.
    hung_up: BTreeSet<u16>,
    /// When processes were started, in clock ticks; 100 for the rest.
    pub starts: BTreeMap<u32, u64>,
    /// Who holds what, where that is not its opener.
    pub holders: BTreeMap<u16, Vec<u32>>,
    /// Processes whose descriptors cannot be read.
    pub unreadable: u32,
    /// Local ports of connections to the second database.
    elsewhere: BTreeSet<u16>,
    /// What is wrong with the path of some connections.
    faults: BTreeMap<u16, Fault>,
    /// Whose other end is on this host, too: the process that has it.
    twins: BTreeMap<u16, u32>,
    /// What connection tracking and routes say of some.
    passages: BTreeMap<u16, (Option<Tracked>, Option<u16>)>,
    /// What is known of the namespace.
    pub network: Option<Network>,
    pub lines: Vec<FindingLine>,
    /// What each process accepted on ports that are not watched.
    pub accepted: BTreeMap<u32, u64>,
    setup: (Bounds, BTreeMap<SocketAddr, EndpointRule>),
    /// What /proc said of everybody before a restart.
    known: Vec<Identity>,
}

pub fn database() -> SocketAddr {
    "10.0.0.5:5432".parse().unwrap()
}

pub fn second_database() -> SocketAddr {
    "10.0.0.6:5432".parse().unwrap()
}

/// Both ends may be here.
fn inode(role: Role, port: u16) -> u32 {
    u32::from(port) + if role == Role::Server { 100_000 } else { 0 }
}

pub fn process(pid: u32) -> ProcessId {
    ProcessId { pid, start_ticks: 100 }
}

pub fn anchor() -> WallAnchor {
    WallAnchor { boot: BootNs(0), unix_ns: 1_700_000_000_000_000_000 }
}

impl Scene {
    pub fn new(limit: Option<u32>) -> Self {
        Self::with(limit, None, Bounds::default())
    }

    /// The same with another database than the port says, or a tracker that keeps so much.
    pub fn with(limit: Option<u32>, kind: Option<&str>, bounds: Bounds) -> Self {
        let mut scene = Self::fresh(limit, kind, bounds);
        scene.look();
        scene
    }

    /// The same before its tracker has looked for the first time.
    pub fn fresh(limit: Option<u32>, kind: Option<&str>, bounds: Bounds) -> Self {
        let limit = limit.map(|value| Limit { value, source: LimitSource::Config });
        let rule = EndpointRule { name: Some("orders-db".to_owned()), limit, database: kind.map(str::to_owned) };
        let rules = BTreeMap::from([(database(), rule)]);
        Self {
            now: BootNs(1_000_000_000_000),
            tracker: Tracker::new(bounds, PortMap::default(), rules.clone()),
            setup: (bounds, rules),
            known: Vec::new(),
            store: Store::default(),
            config: DetectConfig::default(),
            next_port: 10_000,
            live: BTreeMap::new(),
            opened_at: BTreeMap::new(),
            traffic: BTreeMap::new(),
            hung_up: BTreeSet::new(),
            starts: BTreeMap::new(),
            holders: BTreeMap::new(),
            unreadable: 0,
            elsewhere: BTreeSet::new(),
            faults: BTreeMap::new(),
            twins: BTreeMap::new(),
            passages: BTreeMap::new(),
            network: None,
            lines: Vec::new(),
            accepted: BTreeMap::new(),
        }
    }

    fn event(&self, kind: SocketEventKind, role: Role, port: u16, pid: u32, state: TcpState) -> SocketEvent {
        let client: SocketAddr = format!("10.0.0.9:{port}").parse().unwrap();
        let server = if self.elsewhere.contains(&port) { second_database() } else { database() };
        let (local, remote) = match role {
            Role::Client => (client, server),
            Role::Server => (server, client),
        };
        let id = self.id(pid);
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
            inode: Some(inode(role, port)),
            error: 0,
            totals: Totals {
                bytes_sent: self.traffic.get(&port).map_or(0, |traffic| traffic.sent),
                bytes_received: self.traffic.get(&port).map_or(0, |traffic| traffic.received),
                ..Totals::default()
            },
        }
    }

    pub fn open(&mut self, role: Role, pid: u32, count: u16) -> Vec<u16> {
        let ports: Vec<u16> = (0..count).map(|_| self.take_port()).collect();
        self.open_ports(role, pid, &ports);
        ports
    }

    /// The same at a second database.
    pub fn open_elsewhere(&mut self, pid: u32, count: u16) -> Vec<u16> {
        let ports: Vec<u16> = (0..count).map(|_| self.take_port()).collect();
        self.elsewhere.extend(&ports);
        self.open_ports(Role::Client, pid, &ports);
        ports
    }

    pub fn open_ports(&mut self, role: Role, pid: u32, ports: &[u16]) {
        for port in ports {
            self.opened_at.insert(*port, self.now);
            let mut event = self.event(SocketEventKind::Open, role, *port, pid, TcpState::Established);
            event.old_state = TcpState::SynSent;
            self.tracker.apply(&Event::Socket(event));
            self.live.insert(*port, (role, pid));
            // A login: the database speaks last.
            self.exchange(&[*port]);
        }
    }

    /// A request on each, and its answer.
    pub fn exchange(&mut self, ports: &[u16]) {
        for port in ports {
            let traffic = self.traffic.entry(*port).or_default();
            let Traffic { sent, received, .. } = *traffic;
            *traffic = Traffic { sent: sent + 100, received: received + 300, sent_at: self.now, received_at: self.now };
        }
    }

    /// A request on each, whose answer is still out.
    pub fn request(&mut self, ports: &[u16]) {
        for port in ports {
            let now = self.now;
            let traffic = self.traffic.entry(*port).or_default();
            traffic.sent += 100;
            // The answer to what came before is older by the resolution of the kernel's clock at least.
            traffic.received_at = traffic.received_at.min(now.minus(Duration::from_millis(1)));
            traffic.sent_at = now;
        }
    }

    /// The process ends; its connections close after that, as the kernel does it.
    pub fn exit(&mut self, pid: u32) {
        let task = Task { id: self.id(pid), uid: 0, comm: Comm::default() };
        let accepts = self.accepted.get(&pid).copied().unwrap_or(0);
        let exit = ProcessEvent { kind: ProcessEventKind::Exit, at: self.now, task, accepts };
        self.tracker.apply(&Event::Process(exit));
        let held: Vec<u16> = self.live.iter().filter(|(_, (_, by))| *by == pid).map(|(port, _)| *port).collect();
        self.close(&held);
    }

    /// The process ends, and others have these open still.
    pub fn exit_leaving(&mut self, pid: u32, ports: &[u16]) {
        let live: Vec<(u16, (Role, u32))> = ports.iter().filter_map(|port| self.live.remove_entry(port)).collect();
        self.exit(pid);
        self.live.extend(live);
    }

    pub fn close(&mut self, ports: &[u16]) {
        for port in ports {
            let (role, pid) = self.live.remove(port).unwrap();
            let event = self.event(SocketEventKind::End, role, *port, pid, TcpState::Close);
            self.tracker.apply(&Event::Socket(event));
            self.traffic.remove(port);
            self.hung_up.remove(port);
        }
    }

    pub fn peer_closes(&mut self, ports: &[u16]) {
        for port in ports {
            let (role, pid) = self.live[port];
            let event = self.event(SocketEventKind::State, role, *port, pid, TcpState::CloseWait);
            self.tracker.apply(&Event::Socket(event));
            self.hung_up.insert(*port);
        }
    }

    pub fn fail(&mut self, pid: u32) {
        self.fail_with(pid, 0);
    }

    /// A connect fails with that errno.
    pub fn fail_with(&mut self, pid: u32, error: u16) {
        let port = self.take_port();
        let mut event = self.event(SocketEventKind::End, Role::Client, port, pid, TcpState::Close);
        event.established = None;
        event.inode = None;
        event.old_state = TcpState::SynSent;
        event.error = error;
        self.tracker.apply(&Event::Socket(event));
    }

    /// The same at the database's IPv6 address.
    pub fn fail_v6(&mut self, pid: u32, error: u16) {
        let port = self.take_port();
        let mut event = self.event(SocketEventKind::End, Role::Client, port, pid, TcpState::Close);
        let client = format!("[fd00::9]:{port}").parse().unwrap();
        event.tuple = Tuple::new(NETNS, client, "[fd00::5]:5432".parse().unwrap());
        (event.established, event.inode) = (None, None);
        (event.old_state, event.error) = (TcpState::SynSent, error);
        self.tracker.apply(&Event::Socket(event));
    }

    /// The database takes a connection, says that it has too many, and hangs up.
    pub fn turn_away(&mut self, pid: u32) {
        let port = self.open(Role::Client, pid, 1)[0];
        self.live.remove(&port);
        let mut event = self.event(SocketEventKind::End, Role::Client, port, pid, TcpState::Close);
        event.at = self.now.plus(Duration::from_millis(3));
        event.old_state = TcpState::LastAck;
        event.totals = Totals { bytes_sent: 85, bytes_received: 93, ..Totals::default() };
        self.tracker.apply(&Event::Socket(event));
        self.traffic.remove(&port);
    }

    /// A free port of the client's.
    fn take_port(&mut self) -> u16 {
        self.next_port = self.next_port.checked_add(1).unwrap_or(10_000);
        let free = (self.next_port..).find(|port| !self.live.contains_key(port));
        self.next_port = free.unwrap();
        self.next_port
    }

    pub fn name(&mut self, pid: u32, script: &str) {
        self.identify(pid, script, |_| {});
    }

    /// The same, with more that /proc said.
    pub fn identify(&mut self, pid: u32, script: &str, more: impl FnOnce(&mut Identity)) {
        let mut identity = Identity { id: self.id(pid), ..Self::identity(pid, script) };
        more(&mut identity);
        self.tracker.apply_identity(identity);
    }

    /// A process with that pid begins now; all others began long ago.
    pub fn begin(&mut self, pid: u32) {
        self.starts.insert(pid, ProcessId::from_boot(pid, self.now).start_ticks);
    }

    pub fn id(&self, pid: u32) -> ProcessId {
        ProcessId { start_ticks: self.starts.get(&pid).copied().unwrap_or(100), ..process(pid) }
    }

    /// A process that runs that script, alone in its container and without parents that are known.
    pub fn identity(pid: u32, script: &str) -> Identity {
        Identity {
            id: process(pid),
            comm: "python3".to_owned(),
            exe: None,
            script: Some(script.to_owned()),
            cmdline: None,
            ns_pid: None,
            ppid: None,
            ancestors: Vec::new(),
            master: None,
            uid: None,
            user: None,
            cgroup: None,
            container_id: None,
            systemd_unit: None,
            group: LauncherGroup { id: format!("group-of-{script}"), label: script.to_owned() },
        }
    }

    /// A look at the socket table that finds what is live.
    pub fn look(&mut self) {
        let live = self.live.iter().map(|(port, (role, pid))| (*port, *role, *pid));
        let twins = self.twins.iter().map(|(port, pid)| (*port, Role::Server, *pid));
        let sockets: Vec<_> = live.chain(twins).map(|(port, role, pid)| self.row(port, role, pid)).collect();
        let paths = sockets.iter().filter_map(|row| self.path_row(row.tuple)).collect();
        let (started, finished) = (self.now, self.now.plus(Duration::from_millis(1)));
        let network = self.network.clone();
        let look = Inventory::of(Table { netns: NETNS, started, finished, sockets, network, paths });
        self.tracker.apply_inventory(Inventory { unreadable_processes: self.unreadable, ..look });
        self.now = finished;
    }

    /// These end while nobody watches.
    pub fn end_unseen(&mut self, ports: &[u16]) {
        self.live.retain(|port, _| !ports.contains(port));
    }

    /// The daemon is restarted: what it kept is all that is known until [`Self::first_look`].
    pub fn restart(&mut self) {
        let state = State { findings: self.store.keep(), ..self.tracker.keep("boot", self.now) };
        let state = State::decode(&state.encode().unwrap()).unwrap();
        self.known = self.tracker.identities().collect();
        let (bounds, rules) = self.setup.clone();
        self.tracker = Tracker::new(bounds, PortMap::default(), rules);
        self.tracker.go_on_from(&state);
        self.store = Store::default();
        self.store.go_on_from(state.findings);
        self.lines.clear();
    }

    /// The first look after a restart, and what /proc says of everybody it found.
    pub fn first_look(&mut self) {
        self.look();
        self.known.drain(..).for_each(|identity| self.tracker.apply_identity(identity));
    }

    fn row(&self, port: u16, role: Role, pid: u32) -> SocketRow {
        let event = self.event(SocketEventKind::Open, role, port, pid, TcpState::Established);
        let opener = [pid];
        let holders = self.holders.get(&port).map_or(&opener[..], Vec::as_slice).iter();
        let hung_up = self.hung_up.contains(&port).then_some(TcpState::CloseWait);
        let known = self.tracker.sockets().find(|socket| socket.tuple == event.tuple).map(|socket| socket.state);
        let parting = self.faults.get(&port).and_then(|fault| fault.state);
        SocketRow {
            tuple: event.tuple,
            role,
            certainty: Certainty::Sure,
            state: hung_up.or(known).or(parting).unwrap_or(TcpState::Established),
            uid: 0,
            inode: u64::from(inode(role, port)),
            cookie: u64::from(inode(role, port)),
            info: Some(self.info(port, role)),
            holders: holders.map(|pid| Holder { process: self.id(*pid), fd: 3 }).collect(),
        }
    }

    /// What the kernel says of a socket now.
    fn info(&self, port: u16, role: Role) -> SocketInfo {
        let traffic = self.traffic.get(&port).copied().unwrap_or_default();
        let ago = |at: BootNs| u32::try_from(self.now.since(at).as_millis()).unwrap_or(u32::MAX);
        // The kernel counts from the beginning of the connection, and each side from its own.
        let (sent, received) = match role {
            Role::Client => ((traffic.sent, traffic.sent_at), (traffic.received, traffic.received_at)),
            Role::Server => ((traffic.received, traffic.received_at), (traffic.sent, traffic.sent_at)),
        };
        let info = SocketInfo {
            bytes_sent: sent.0,
            bytes_received: received.0,
            last_data_sent_ms: ago(sent.1),
            last_data_received_ms: ago(received.1),
            last_ack_received_ms: ago(sent.1.max(received.1)),
            ..SocketInfo::default()
        };
        self.faults.get(&port).map_or(info, |fault| fault.show(info, self.now))
    }

    /// Lets time pass a second at a time, detecting at each, with a look every ten.
    pub fn pass_looking(&mut self, seconds: u64) {
        self.pass_looking_from(0, seconds);
    }

    /// The same for seconds that continue a count.
    pub fn pass_looking_from(&mut self, from: u64, seconds: u64) {
        for second in from..from + seconds {
            if second % 10 == 0 {
                self.look();
            }
            self.pass(1);
        }
    }

    /// Lets that many seconds pass and detects once.
    pub fn pass_at_once(&mut self, seconds: u64) {
        self.now = self.now.plus(Duration::from_secs(seconds - 1));
        self.pass(1);
    }

    /// Lets time pass a second at a time, detecting at each.
    pub fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now = self.now.plus(Duration::from_secs(1));
            self.judge();
        }
    }

    pub fn snapshot(&self) -> Snapshot {
        let text = String::new;
        let host = Host { hostname: text(), kernel: text(), arch: text(), boot_id: text(), socklife_version: text() };
        let (probes, drop_reasons, config) = (Vec::new(), BTreeMap::new(), Default::default());
        let about = About { host, mode: Mode::Ebpf, started: BootNs(0), probes, drop_reasons, host_pids: true, config };
        self.tracker.snapshot(&about, &self.store, self.now, &anchor())
    }

    fn judge(&mut self) {
        let lines = self.store.run(&self.tracker, &self.config, self.now, &anchor());
        self.lines.extend(lines);
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

/// The list behind a fact of its evidence.
pub fn listed(finding: &Finding, fact: &str) -> Vec<String> {
    match &finding.evidence.iter().find(|evidence| evidence.fact == fact).unwrap().value {
        EvidenceValue::List(values) => values.clone(),
        other => panic!("{fact} is {other:?}"),
    }
}

/// The text behind a fact of its evidence.
pub fn said<'a>(finding: &'a Finding, fact: &str) -> &'a str {
    match &finding.evidence.iter().find(|evidence| evidence.fact == fact).unwrap().value {
        EvidenceValue::Text(text) => text,
        other => panic!("{fact} is {other:?}"),
    }
}

pub fn number(finding: &Finding, fact: &str) -> i64 {
    match &finding.evidence.iter().find(|evidence| evidence.fact == fact).unwrap().value {
        EvidenceValue::Integer(value) => *value,
        other => panic!("{fact} is {other:?}"),
    }
}
