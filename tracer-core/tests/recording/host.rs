//! A host with pools of connections to one database, as a recording of any length: frames come one after the other, so
//! that a day of them needs no memory.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tracer_core::detect::DetectConfig;
use tracer_core::event::{
    Comm, Event, ProcessEvent, ProcessEventKind, ProcessId, Role, SocketEvent, SocketEventKind, Task, Totals, Tuple,
};
use tracer_core::identity::{Identity, LauncherGroup};
use tracer_core::inventory::{Certainty, Holder, Inventory, SocketInfo, SocketRow, Table};
use tracer_core::ports::PortMap;
use tracer_core::recording::{Frame, Header};
use tracer_core::snapshot::{Host, Limit, LimitSource, Mode};
use tracer_core::tcp::TcpState;
use tracer_core::time::{BootNs, WallAnchor};
use tracer_core::tracker::{About, Bounds, EndpointRule, Tracker};

pub const NETNS: u32 = 4_026_531_840;
const SECOND: Duration = Duration::from_secs(1);

pub fn database() -> SocketAddr {
    "10.0.0.5:5432".parse().unwrap()
}

fn id(process: u16) -> ProcessId {
    ProcessId { pid: 1_000 + u32::from(process), start_ticks: 90_000 }
}

/// A live connection.
#[derive(Clone, Copy)]
struct Live {
    process: u16,
    opened: BootNs,
    bytes: u64,
    active: BootNs,
}

pub struct Recorded {
    pub now: BootNs,
    processes: u16,
    live: BTreeMap<u16, Live>,
    next_port: u16,
    /// A linear congruential generator is random enough here.
    random: u64,
}

pub fn header() -> Header {
    let limit = Some(Limit { value: 400, source: LimitSource::Config });
    let rule = EndpointRule { name: Some("orders-db".to_owned()), limit, database: None };
    let tracker = Tracker::new(Bounds::default(), PortMap::default(), BTreeMap::from([(database(), rule)]));
    let host = Host {
        hostname: "shop-1".to_owned(),
        kernel: "6.12.0".to_owned(),
        arch: "x86_64".to_owned(),
        boot_id: "b".to_owned(),
        socklife_version: "0.1.0".to_owned(),
    };
    let (started, probes) = (BootNs(900_000_000_000), Vec::new());
    let drop_reasons = BTreeMap::from([(3, "NETFILTER_DROP".to_owned())]);
    let about = About {
        host,
        mode: Mode::Ebpf,
        started,
        probes,
        drop_reasons,
        host_pids: true,
        config: tracer_core::setup::InForce::default(),
    };
    let anchor = WallAnchor { boot: BootNs(1_000_000_000_000), unix_ns: 1_795_293_667_000_000_000 };
    tracker.header(&about, &DetectConfig::default(), anchor)
}

impl Recorded {
    /// `processes` pools of `each` connections, and the first frames of their recording.
    pub fn begin(processes: u16, each: u16, tell: &mut impl FnMut(Frame<'static>)) -> Self {
        let header = header();
        let now = header.anchor.boot.plus(Duration::from_millis(3));
        tell(Frame::Header(Cow::Owned(header)));
        let mut host = Self { now, processes, live: BTreeMap::new(), next_port: 10_000, random: 42 };
        host.look(tell);
        for process in 0..processes {
            for _ in 0..each {
                host.open(process, tell);
            }
            let identity = Cow::Owned(host.identity(process));
            tell(Frame::Identity { at: host.now, identity });
        }
        host
    }

    fn identity(&self, process: u16) -> Identity {
        let script = format!("worker_{}.py", process % 5);
        Identity {
            id: id(process),
            comm: "python3".to_owned(),
            exe: Some("/usr/bin/python3".to_owned()),
            script: Some(script.clone()),
            cmdline: None,
            ns_pid: None,
            ppid: Some(1),
            ancestors: Vec::new(),
            master: None,
            uid: Some(1_000),
            user: Some("app".to_owned()),
            cgroup: Some("/system.slice/app.service".to_owned()),
            container_id: None,
            systemd_unit: Some("app.service".to_owned()),
            group: LauncherGroup { id: format!("g{script}"), label: script },
        }
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % sides
    }

    fn event(&self, kind: SocketEventKind, port: u16, live: Live) -> SocketEvent {
        let end = kind == SocketEventKind::End;
        let client = SocketAddr::new("10.0.0.9".parse().unwrap(), port);
        let task = Task { id: id(live.process), uid: 1_000, comm: Comm(*b"python3\0\0\0\0\0\0\0\0\0") };
        SocketEvent {
            kind,
            at: self.now,
            sk: 0xffff_8880_0000_0000 + u64::from(port) * 2_048,
            birth: Some(live.opened),
            established: Some(live.opened),
            tuple: Tuple::new(NETNS, client, database()),
            role: Role::Client,
            old_state: if end { TcpState::Established } else { TcpState::SynSent },
            new_state: if end { TcpState::Close } else { TcpState::Established },
            opener: Some(task),
            closer: end.then(|| id(live.process)),
            inode: Some(100_000 + u32::from(port)),
            error: 0,
            totals: Totals { bytes_sent: live.bytes, bytes_received: 3 * live.bytes, ..Totals::default() },
        }
    }

    pub fn open(&mut self, process: u16, tell: &mut impl FnMut(Frame<'static>)) {
        while self.live.contains_key(&self.next_port) {
            self.next_port = if self.next_port == 60_000 { 10_000 } else { self.next_port + 1 };
        }
        let port = self.next_port;
        self.next_port = if port == 60_000 { 10_000 } else { port + 1 };
        let live = Live { process, opened: self.now, bytes: 100, active: self.now };
        self.live.insert(port, live);
        let event = Event::Socket(self.event(SocketEventKind::Open, port, live));
        tell(Frame::Events { at: self.now.plus(Duration::from_millis(40)), events: Cow::Owned(vec![event]) });
    }

    pub fn close_oldest(&mut self, process: u16, tell: &mut impl FnMut(Frame<'static>)) {
        let oldest = self.live.iter().filter(|(_, live)| live.process == process).min_by_key(|(_, live)| live.opened);
        let Some((port, live)) = oldest.map(|(port, live)| (*port, *live)) else { return };
        self.live.remove(&port);
        let event = Event::Socket(self.event(SocketEventKind::End, port, live));
        tell(Frame::Events { at: self.now.plus(Duration::from_millis(40)), events: Cow::Owned(vec![event]) });
    }

    pub fn exit(&mut self, process: u16, tell: &mut impl FnMut(Frame<'static>)) {
        let task = Task { id: id(process), uid: 1_000, comm: Comm::default() };
        let event = Event::Process(ProcessEvent { kind: ProcessEventKind::Exit, at: self.now, task, accepts: 0 });
        tell(Frame::Events { at: self.now.plus(Duration::from_millis(40)), events: Cow::Owned(vec![event]) });
        while self.live.values().any(|live| live.process == process) {
            self.close_oldest(process, tell);
        }
    }

    pub fn look(&mut self, tell: &mut impl FnMut(Frame<'static>)) {
        let now = self.now;
        let rows = self.live.iter().map(|(port, live)| {
            let event = self.event(SocketEventKind::Open, *port, *live);
            let ago = u32::try_from(now.since(live.active).as_millis()).unwrap_or(u32::MAX);
            let info = SocketInfo {
                bytes_sent: live.bytes,
                bytes_received: 3 * live.bytes,
                srtt_us: Some(250),
                last_data_sent_ms: ago,
                last_data_received_ms: ago,
                last_ack_received_ms: ago,
                keepalive: Some(true),
                ..SocketInfo::default()
            };
            SocketRow {
                tuple: event.tuple,
                role: Role::Client,
                certainty: Certainty::Sure,
                state: TcpState::Established,
                uid: 1_000,
                inode: 100_000 + u64::from(*port),
                cookie: u64::from(*port) ^ live.opened.0 >> 20,
                info: Some(info),
                holders: [Holder { process: id(live.process), fd: u32::from(port % 900) }].into_iter().collect(),
            }
        });
        let sockets = rows.collect();
        let finished = now.plus(Duration::from_millis(1));
        let look = Inventory::of(Table { netns: NETNS, started: now, finished, sockets, ..Table::default() });
        self.now = finished;
        tell(Frame::Look { at: finished.plus(Duration::from_millis(2)), look: Cow::Owned(look) });
    }

    /// Time goes by: requests on some connections, a connection recycled now and then, a look every ten seconds, and
    /// process 0 leaks one every `leak_s` seconds.
    pub fn pass(&mut self, seconds: u64, leak_s: u64, tell: &mut impl FnMut(Frame<'static>)) {
        for second in 1..=seconds {
            self.now = self.now.plus(SECOND);
            for _ in 0..self.live.len() / 10 {
                let nth = usize::try_from(self.roll(self.live.len() as u64)).unwrap();
                let now = self.now;
                if let Some(live) = self.live.values_mut().nth(nth).filter(|live| live.process != 0) {
                    (live.bytes, live.active) = (live.bytes + 120, now);
                }
            }
            if self.roll(5) == 0 && self.processes > 1 {
                let process = 1 + u16::try_from(self.roll(u64::from(self.processes) - 1)).unwrap();
                self.close_oldest(process, tell);
                self.open(process, tell);
            }
            if second % leak_s == 0 {
                self.open(0, tell);
            }
            if second % 10 == 0 {
                self.look(tell);
            }
        }
    }
}
