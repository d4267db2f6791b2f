//! A day on a host, as a recording: a pool of five, a short connection every ten seconds, and from 14:00 to 15:00 two
//! dozen launchers that open four connections each and keep them, at a database that takes 100.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use tracer_core::detect::DetectConfig;
use tracer_core::event::{
    Comm, Event, ProcessEvent, ProcessEventKind, ProcessId, Role, SocketEvent, SocketEventKind, Task, Totals, Tuple,
};
use tracer_core::identity::{Identity, LauncherGroup};
use tracer_core::inventory::Inventory;
use tracer_core::ports::PortMap;
use tracer_core::recording::{Frame, Header, encode, preamble};
use tracer_core::setup::InForce;
use tracer_core::snapshot::{Host, Limit, LimitSource, Mode};
use tracer_core::tcp::TcpState;
use tracer_core::time::{BootNs, WallAnchor};
use tracer_core::tracker::{About, Bounds, EndpointRule, Tracker};
use tracer_user::recording::Writer;

/// 2026-11-21T00:00:00Z
const MIDNIGHT_NS: i64 = 1_795_219_200_000_000_000;
const BEGIN: BootNs = BootNs(1_000_000_000_000);
/// The launchers' incident, in seconds of the day.
pub const INCIDENT: std::ops::Range<u64> = 14 * 3_600..15 * 3_600;
pub const LAUNCHERS: u64 = 24;
pub const POOL: u32 = 412;
pub const HOSTILE: &str = "evil\u{1b}[2J\u{202e}'); DROP TABLE run;--";

fn database() -> SocketAddr {
    "10.0.0.5:5432".parse().unwrap()
}

fn second(second: u64) -> BootNs {
    BootNs(BEGIN.0 + second * 1_000_000_000)
}

pub fn header() -> Header {
    let limit = Some(Limit { value: 100, source: LimitSource::Config });
    let rule = EndpointRule { name: Some("orders-db".to_owned()), limit, database: None };
    let tracker = Tracker::new(Bounds::default(), PortMap::default(), BTreeMap::from([(database(), rule)]));
    let own = str::to_owned;
    let host = Host {
        hostname: own("shop-1"),
        kernel: own("6.12"),
        arch: own("x86_64"),
        boot_id: own("b"),
        socklife_version: own("0.1.0"),
    };
    let (probes, drop_reasons) = (Vec::new(), BTreeMap::new());
    let config = InForce::default();
    let about = About { host, mode: Mode::Ebpf, started: BEGIN, probes, drop_reasons, host_pids: true, config };
    tracker.header(&about, &DetectConfig::default(), WallAnchor { boot: BEGIN, unix_ns: MIDNIGHT_NS })
}

/// A recording being written.
pub struct Day {
    writer: Writer,
    ports: u16,
    live: BTreeMap<u16, (u32, BootNs)>,
}

impl Day {
    pub fn begin(path: &Path) -> Self {
        let mut day = Self { writer: Writer::create(path, true).unwrap(), ports: 10_000, live: BTreeMap::new() };
        day.writer.write(&preamble()).unwrap();
        day.frame(&Frame::Header(Cow::Owned(header())));
        let look = Inventory { started: second(1), finished: second(1), ..Inventory::default() };
        day.frame(&Frame::Look { at: second(1), look: Cow::Owned(look) });
        day
    }

    fn frame(&mut self, frame: &Frame<'_>) {
        self.writer.write(&encode(frame).unwrap()).unwrap();
    }

    pub fn end(mut self, at: u64) {
        self.frame(&Frame::End { at: second(at) });
        self.writer.finish().unwrap();
    }

    fn task(pid: u32) -> Task {
        // Launchers are started when they come, one after the other.
        let since = u64::from(pid).checked_sub(900).map(|number| INCIDENT.start + number * 120);
        let start_ticks = since.map_or(90_000, |since| (1_000 + since) * 100);
        Task { id: ProcessId { pid, start_ticks }, uid: 0, comm: Comm(*b"python3\0\0\0\0\0\0\0\0\0") }
    }

    pub fn identify(&mut self, pid: u32, script: &str, at: u64) {
        let identity = Identity {
            id: Self::task(pid).id,
            comm: "python3".to_owned(),
            exe: Some("/usr/bin/python3".to_owned()),
            script: Some(format!("/srv/{script}")),
            cmdline: None,
            ns_pid: None,
            ppid: Some(1),
            ancestors: Vec::new(),
            master: None,
            uid: Some(1_000),
            user: Some("app".to_owned()),
            cgroup: None,
            container_id: None,
            systemd_unit: Some("app.service".to_owned()),
            group: LauncherGroup { id: format!("g-{script}"), label: script.to_owned() },
        };
        self.frame(&Frame::Identity { at: second(at), identity: Cow::Owned(identity) });
    }

    pub fn open(&mut self, pid: u32, at: u64) -> u16 {
        self.ports = if self.ports >= 60_000 { 10_000 } else { self.ports + 1 };
        while self.live.contains_key(&self.ports) {
            self.ports += 1;
        }
        let (port, opened) = (self.ports, second(at));
        self.live.insert(port, (pid, opened));
        self.event(port, at, SocketEventKind::Open);
        port
    }

    pub fn close(&mut self, port: u16, at: u64) {
        self.event(port, at, SocketEventKind::End);
        self.live.remove(&port);
    }

    /// Ends a process and all it has.
    pub fn exit(&mut self, pid: u32, at: u64) {
        let held: Vec<u16> = self.live.iter().filter(|(_, live)| live.0 == pid).map(|(port, _)| *port).collect();
        held.into_iter().for_each(|port| self.close(port, at));
        let exit = ProcessEvent { kind: ProcessEventKind::Exit, at: second(at), task: Self::task(pid), accepts: 0 };
        self.frame(&Frame::Events { at: second(at), events: Cow::Owned(vec![Event::Process(exit)]) });
    }

    fn event(&mut self, port: u16, at: u64, kind: SocketEventKind) {
        let (pid, opened) = self.live[&port];
        let is_end = kind == SocketEventKind::End;
        let task = Self::task(pid);
        let event = SocketEvent {
            kind,
            at: second(at),
            sk: u64::from(port) * 2_048,
            birth: Some(opened),
            established: Some(opened),
            tuple: Tuple::new(7, SocketAddr::new("10.0.0.9".parse().unwrap(), port), database()),
            role: Role::Client,
            old_state: if is_end { TcpState::Established } else { TcpState::SynSent },
            new_state: if is_end { TcpState::Close } else { TcpState::Established },
            opener: Some(task),
            closer: is_end.then_some(task.id),
            inode: Some(100_000 + u32::from(port)),
            error: 0,
            totals: Totals { bytes_sent: 1_000, bytes_received: 3_000, ..Totals::default() },
        };
        self.frame(&Frame::Events { at: second(at), events: Cow::Owned(vec![Event::Socket(event)]) });
    }
}

/// Writes the day.
pub fn write(path: &Path) {
    let mut day = Day::begin(path);
    for _ in 0..5 {
        day.open(POOL, 2);
    }
    day.identify(POOL, HOSTILE, 2);
    for at in 3..86_400 {
        if at % 10 == 0 {
            let port = day.open(POOL, at);
            day.close(port, at + 1);
        }
        if let Some(since) = at.checked_sub(INCIDENT.start).filter(|_| at < INCIDENT.end) {
            // A launcher every two minutes, and one connection of each every half a minute, four at most.
            for number in 0..LAUNCHERS {
                let age = since.checked_sub(number * 120);
                if age.is_some_and(|age| age % 30 == 5 && age / 30 < 4) {
                    day.open(launcher(number), at);
                    day.identify(launcher(number), "route_builder_launcher.py", at);
                }
            }
        }
        if at == INCIDENT.end {
            (0..LAUNCHERS).for_each(|number| day.exit(launcher(number), at));
        }
    }
    day.end(86_400);
}

fn launcher(number: u64) -> u32 {
    900 + u32::try_from(number).unwrap()
}
