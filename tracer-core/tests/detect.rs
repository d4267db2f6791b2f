//! Detectors over scenes made of events: each fires, stays silent for its look-alikes, clears without flapping, and
//! survives loss and a restart.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a scene that cannot be built fails its test")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tracer_core::detect::{DetectConfig, Store};
use tracer_core::event::{Comm, Event, ProcessId, Role, SocketEvent, SocketEventKind, Task, Totals, Tuple};
use tracer_core::finding::{Change, EvidenceValue, Finding, FindingLine, Kind, Severity};
use tracer_core::identity::{Identity, LauncherGroup};
use tracer_core::inventory::{Certainty, Holder, Inventory, SocketRow};
use tracer_core::ports::PortMap;
use tracer_core::snapshot::{Limit, LimitSource};
use tracer_core::tcp::TcpState;
use tracer_core::time::{BootNs, WallAnchor};
use tracer_core::tracker::{Bounds, EndpointRule, LossBefore, Tracker};

const NETNS: u32 = 7;

/// A host with one database at 10.0.0.5:5432.
struct Scene {
    now: BootNs,
    tracker: Tracker,
    store: Store,
    config: DetectConfig,
    next_port: u16,
    live: BTreeMap<u16, (Role, u32)>,
    opened_at: BTreeMap<u16, BootNs>,
    lines: Vec<FindingLine>,
}

fn database() -> SocketAddr {
    "10.0.0.5:5432".parse().unwrap()
}

fn anchor() -> WallAnchor {
    WallAnchor { boot: BootNs(0), unix_ns: 1_700_000_000_000_000_000 }
}

impl Scene {
    fn new(limit: Option<u32>) -> Self {
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
            tuple: Tuple { netns: NETNS, local, remote },
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

    fn open(&mut self, role: Role, pid: u32, count: u16) -> Vec<u16> {
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

    fn close(&mut self, ports: &[u16]) {
        for port in ports {
            let (role, pid) = self.live.remove(port).unwrap();
            let event = self.event(SocketEventKind::End, role, *port, pid, TcpState::Close);
            self.tracker.apply(&Event::Socket(event));
        }
    }

    fn peer_closes(&mut self, ports: &[u16]) {
        for port in ports {
            let (role, pid) = self.live[port];
            let event = self.event(SocketEventKind::State, role, *port, pid, TcpState::CloseWait);
            self.tracker.apply(&Event::Socket(event));
        }
    }

    fn fail(&mut self, pid: u32) {
        let port = self.next_port;
        self.next_port += 1;
        let mut event = self.event(SocketEventKind::End, Role::Client, port, pid, TcpState::Close);
        event.established = None;
        event.inode = None;
        event.old_state = TcpState::SynSent;
        self.tracker.apply(&Event::Socket(event));
    }

    fn name(&mut self, pid: u32, script: &str) {
        let id = ProcessId { pid, start_ticks: 100 };
        self.tracker.apply_identity(Identity {
            id,
            comm: "python3".to_owned(),
            exe: None,
            script: Some(script.to_owned()),
            cmdline: None,
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
    fn look(&mut self) {
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
                holders: vec![Holder { process, fd: 3 }],
            }
        });
        let sockets = rows.collect();
        let (started, finished) = (self.now, self.now.plus(Duration::from_millis(1)));
        self.tracker.apply_inventory(Inventory { started, finished, netns: NETNS, sockets, unreadable_processes: 0 });
        self.now = finished;
    }

    /// Lets time pass a second at a time, detecting at each.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now = self.now.plus(Duration::from_secs(1));
            let lines = self.store.run(&self.tracker, &self.config, self.now, &anchor());
            self.lines.extend(lines);
        }
    }

    fn findings(&self) -> Vec<Finding> {
        self.store.findings(&anchor())
    }

    fn only(&self) -> Finding {
        let mut findings = self.findings();
        assert_eq!(findings.len(), 1, "{findings:#?}");
        findings.remove(0)
    }

    fn changes(&self) -> Vec<Change> {
        self.lines.iter().map(|line| line.change).collect()
    }
}

fn number(finding: &Finding, fact: &str) -> i64 {
    match &finding.evidence.iter().find(|evidence| evidence.fact == fact).unwrap().value {
        EvidenceValue::Integer(value) => *value,
        other => panic!("{fact} is {other:?}"),
    }
}

#[test]
fn limit_pressure_warns_at_80_percent_and_is_critical_at_95() {
    let check = |open: u16, expected: Option<Severity>| {
        let mut scene = Scene::new(Some(100));
        scene.open(Role::Client, 412, open);
        scene.pass(1);
        let found: Vec<Severity> = scene.findings().iter().map(|finding| finding.severity).collect();
        assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{open} open");
    };
    check(50, None);
    check(79, None);
    check(80, Some(Severity::Warning));
    check(94, Some(Severity::Warning));
    check(95, Some(Severity::Critical));
    check(120, Some(Severity::Critical));
}

#[test]
fn limit_pressure_says_who_holds_what() {
    let mut scene = Scene::new(Some(100));
    for pid in 400..425 {
        scene.open(Role::Client, pid, 3);
        scene.name(pid, "route_builder_launcher.py");
    }
    scene.open(Role::Client, 900, 21);
    scene.name(900, "report.py");
    scene.pass(1);
    let finding = scene.only();
    assert_eq!(
        finding.summary,
        "orders-db 10.0.0.5:5432 96 of 100 open; 25 copies of route_builder_launcher.py (pids 400, 401, 402, ... 22 \
         more) hold 75, report.py (pid 900) holds 21"
    );
    assert_eq!((number(&finding, "open"), number(&finding, "limit")), (96, 100));
    assert_eq!(finding.subject.pids.len(), 26);
    assert_eq!(finding.subject.endpoint.as_deref(), Some("10.0.0.5:5432"));
    assert!((finding.confidence - 1.0).abs() < f64::EPSILON);
}

#[test]
fn limit_pressure_counts_a_database_on_this_host_once() {
    let mut scene = Scene::new(Some(100));
    scene.open(Role::Client, 412, 60);
    scene.open(Role::Server, 0, 85);
    scene.name(412, "report.py");
    scene.pass(1);
    let finding = scene.only();
    assert_eq!(number(&finding, "open"), 85, "the database's side sees clients elsewhere too");
    assert_eq!(finding.subject.pids, [412], "the clients' side names the holder");
}

#[test]
fn limit_pressure_names_client_hosts_when_only_the_database_is_here() {
    let mut scene = Scene::new(Some(100));
    scene.open(Role::Server, 0, 85);
    scene.pass(1);
    let finding = scene.only();
    assert_eq!(finding.summary, "orders-db 10.0.0.5:5432 85 of 100 open; 10.0.0.9 holds 85");
    assert!(finding.subject.pids.is_empty());
}

#[test]
fn limit_pressure_without_a_limit_is_silent() {
    let mut scene = Scene::new(None);
    scene.open(Role::Client, 412, 500);
    scene.pass(30);
    assert!(scene.lines.is_empty());
}

#[test]
fn limit_pressure_does_not_flap_at_its_threshold() {
    let mut scene = Scene::new(Some(100));
    let mut ports = scene.open(Role::Client, 412, 80);
    scene.pass(1);
    for _ in 0..20 {
        scene.close(&ports.split_off(77));
        scene.pass(2);
        ports.extend(scene.open(Role::Client, 412, 3));
        scene.pass(2);
    }
    assert_eq!(scene.changes().iter().filter(|change| **change == Change::Opened).count(), 1);
    assert!(!scene.changes().contains(&Change::Resolved));
    assert_eq!(scene.findings().len(), 1);
}

#[test]
fn limit_pressure_survives_a_short_dip_and_resolves_after_a_window_below() {
    let mut scene = Scene::new(Some(100));
    let ports = scene.open(Role::Client, 412, 96);
    scene.pass(1);
    let id = scene.only().id;
    scene.close(&ports);
    scene.pass(9);
    let reopened = scene.open(Role::Client, 412, 96);
    scene.pass(1);
    assert_eq!(scene.only().id, id);
    scene.close(&reopened);
    scene.pass(10);
    assert!(scene.findings().is_empty());
    let last = scene.lines.last().unwrap();
    assert_eq!(last.change, Change::Resolved);
    assert_eq!(last.finding.id, id);
    assert_eq!(last.finding.summary, "orders-db 10.0.0.5:5432 0 of 100 open (was 96), open for 20 s");
    assert_eq!(last.at, anchor().wall(scene.now));
}

#[test]
fn limit_pressure_is_critical_at_a_flat_top_with_failed_connects() {
    let mut scene = Scene::new(Some(100));
    scene.open(Role::Client, 412, 85);
    scene.pass(15);
    assert_eq!(scene.only().severity, Severity::Warning);
    for _ in 0..3 {
        scene.fail(500);
    }
    scene.pass(1);
    assert_eq!(scene.only().severity, Severity::Critical);
    assert_eq!(number(&scene.only(), "failed_connects"), 3);
    scene.pass(15);
    assert_eq!(scene.only().severity, Severity::Warning, "the failures are over");
}

#[test]
fn limit_pressure_failed_connects_alone_are_not_pressure() {
    let mut scene = Scene::new(Some(100));
    scene.open(Role::Client, 412, 20);
    scene.pass(15);
    for _ in 0..50 {
        scene.fail(500);
    }
    scene.pass(2);
    assert!(scene.findings().is_empty());
}

#[test]
fn limit_pressure_forecasts_from_growth() {
    let mut scene = Scene::new(Some(100));
    scene.open(Role::Client, 412, 72);
    for _ in 0..16 {
        scene.open(Role::Client, 412, 1);
        scene.pass(4);
    }
    scene.open(Role::Client, 412, 1);
    scene.pass(1);
    let finding = scene.only();
    assert_eq!(number(&finding, "growth"), 15);
    assert!(finding.summary.contains("89 of 100 open, +15/min, full in about 44 s"), "{}", finding.summary);
}

#[test]
fn confidence_falls_while_counts_are_lower_bounds() {
    let mut scene = Scene::new(Some(100));
    scene.open(Role::Client, 412, 90);
    scene.tracker.note_loss(LossBefore { ring_full: 5, ..LossBefore::default() }, scene.now);
    scene.pass(1);
    assert!((scene.only().confidence - 0.9).abs() < f64::EPSILON);
    scene.pass(1);
    scene.look();
    scene.pass(1);
    assert!((scene.only().confidence - 1.0).abs() < f64::EPSILON, "a look repaired it");
    assert_eq!(scene.only().severity, Severity::Warning);
}

#[test]
fn findings_keep_their_id_across_a_restart() {
    let ids: Vec<String> = (0..2)
        .map(|_| {
            let mut scene = Scene::new(Some(100));
            scene.open(Role::Client, 412, 96);
            scene.pass(1);
            scene.only().id
        })
        .collect();
    assert_eq!(ids[0], ids[1]);
}

#[test]
fn close_wait_leak_fires_after_60_s_and_clears_with_the_last_close() {
    let mut scene = Scene::new(None);
    let ports = scene.open(Role::Client, 412, 5);
    scene.name(412, "worker.py");
    scene.peer_closes(&ports[..3]);
    scene.pass(60);
    assert!(scene.findings().is_empty(), "a close that is being handled");
    scene.pass(1);
    let finding = scene.only();
    assert_eq!((finding.kind, finding.severity), (Kind::CloseWaitLeak, Severity::Warning));
    assert_eq!(
        finding.summary,
        "worker.py (pid 412) never closed 3 connections that orders-db closed, the oldest 1 min ago"
    );
    assert_eq!((number(&finding, "close_wait"), &finding.subject.pids), (3, &vec![412]));
    scene.close(&ports[..2]);
    scene.pass(1);
    assert_eq!(number(&scene.only(), "close_wait"), 1);
    scene.close(&ports[2..3]);
    scene.pass(1);
    assert!(scene.findings().is_empty());
    let last = scene.lines.last().unwrap();
    assert_eq!(last.change, Change::Resolved);
    assert_eq!(
        last.finding.summary,
        "worker.py (pid 412) has no connection to 10.0.0.5:5432 left in CLOSE_WAIT (was 1), open for 2 s"
    );
}

#[test]
fn close_wait_leak_is_silent_for_closes_that_are_handled() {
    let mut scene = Scene::new(None);
    for _ in 0..200 {
        let ports = scene.open(Role::Client, 412, 2);
        scene.peer_closes(&ports);
        scene.pass(1);
        scene.close(&ports);
    }
    assert!(scene.lines.is_empty());
}

#[test]
fn close_wait_leak_is_not_about_the_database_itself() {
    let mut scene = Scene::new(None);
    let ports = scene.open(Role::Server, 77, 3);
    scene.peer_closes(&ports);
    scene.pass(120);
    assert!(scene.lines.is_empty(), "a backend notices its client's end when its query is done");
}

#[test]
fn close_wait_leak_found_by_a_look_gives_a_lower_bound() {
    let mut scene = Scene::new(None);
    let ports = scene.open(Role::Client, 412, 1);
    scene.peer_closes(&ports);
    // The daemon restarts: events are gone, the table is still there.
    let states: Vec<SocketRow> = scene
        .tracker
        .sockets()
        .map(|socket| SocketRow {
            tuple: socket.tuple,
            role: socket.role,
            certainty: Certainty::Sure,
            state: socket.state,
            uid: 0,
            inode: 1,
            cookie: 1,
            info: None,
            holders: vec![Holder { process: ProcessId { pid: 412, start_ticks: 100 }, fd: 5 }],
        })
        .collect();
    let mut restarted = Scene::new(None);
    let (started, finished) = (restarted.now, restarted.now.plus(Duration::from_millis(1)));
    let look = Inventory { started, finished, netns: NETNS, sockets: states, unreadable_processes: 0 };
    restarted.tracker.apply_inventory(look);
    restarted.pass(62);
    let finding = restarted.only();
    assert_eq!(finding.subject.pids, [412]);
    assert!(finding.summary.contains("the oldest at least 1 min ago"), "{}", finding.summary);
    assert!(finding.confidence < 1.0);
}

#[test]
fn disabled_detectors_resolve_what_they_had_open() {
    let mut scene = Scene::new(Some(10));
    scene.open(Role::Client, 412, 10);
    scene.pass(1);
    scene.config.limit_pressure.enabled = false;
    scene.pass(11);
    assert!(scene.findings().is_empty());
}

#[test]
fn findings_are_bounded_and_the_rest_is_counted() {
    let mut scene = Scene::new(None);
    let ports: Vec<u16> = (0..10_050).flat_map(|pid| scene.open(Role::Client, 100_000 + pid, 1)).collect();
    scene.peer_closes(&ports);
    scene.pass(62);
    assert_eq!(scene.findings().len(), 10_000);
    assert_eq!(scene.store.without_room(), 50);
    scene.close(&ports[..100]);
    scene.pass(2);
    assert_eq!((scene.findings().len(), scene.store.without_room()), (9_950, 0));
}

#[test]
fn limit_pressure_severity_does_not_flap_at_the_critical_threshold() {
    let mut scene = Scene::new(Some(100));
    scene.open(Role::Client, 412, 94);
    for _ in 0..30 {
        let one = scene.open(Role::Client, 412, 1);
        scene.pass(1);
        scene.close(&one);
        scene.pass(1);
    }
    let updates = scene.changes().iter().filter(|change| **change == Change::Updated).count();
    assert!(updates <= 6, "{updates} updates in 60 s, with a window of 10 s");
    assert_eq!(scene.only().severity, Severity::Critical);
}

#[test]
fn limit_pressure_needs_a_whole_window_to_call_a_top_flat() {
    let mut scene = Scene::new(Some(100));
    scene.open(Role::Client, 412, 82);
    for _ in 0..5 {
        scene.fail(500);
    }
    scene.pass(1);
    assert_eq!(scene.only().severity, Severity::Warning, "one second is no plateau");
}

#[test]
fn close_wait_leak_does_not_repeat_itself_while_it_only_ages() {
    let mut scene = Scene::new(None);
    let ports = scene.open(Role::Client, 412, 2);
    scene.peer_closes(&ports);
    scene.pass(600);
    assert_eq!(scene.changes(), [Change::Opened]);
}

#[test]
fn holders_are_named_in_plain_sentences() {
    let mut scene = Scene::new(Some(10));
    for pid in 100..104 {
        scene.open(Role::Client, pid, 2);
        scene.name(pid, &format!("job{pid}.py"));
    }
    scene.pass(1);
    assert_eq!(
        scene.only().summary,
        "orders-db 10.0.0.5:5432 8 of 10 open; job100.py (pid 100) holds 2, job101.py (pid 101) holds 2, job102.py \
         (pid 102) holds 2, 1 other holds 2"
    );
}
