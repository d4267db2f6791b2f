//! What the tests of the API and of the commands share: a small snapshot and a daemon's end that answers with it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::{broadcast, watch};
use tracer_core::event::Role;
use tracer_core::finding::{Change, FINDING_SCHEMA, Finding, FindingLine, Kind, Severity, Status, Subject};
use tracer_core::snapshot::{
    Age, Capture, Completeness, ConfigInForce, Connection, EVENT_SCHEMA, Endpoint, EventLine, EventName, HolderFd,
    Host, Loss, LossLine, Mode, Opener, SNAPSHOT_SCHEMA, Snapshot,
};
use tracer_core::tcp::TcpState;
use tracer_core::time::WallTime;
use tracer_user::daemon::feed::{Batch, Feed};
use tracer_user::daemon::handle::{Figures, Handle, Request, Served, channel};
use tracer_user::daemon::record::{FrameSender, channel as channel_of_frames};

/// 2026-11-21T20:41:07Z
pub const AT: WallTime = WallTime { unix_ms: 1_795_293_667_000 };

pub fn finding(id: &str, severity: Severity, last_seen_s: i64) -> Finding {
    Finding {
        id: id.to_owned(),
        kind: Kind::LimitPressure,
        severity,
        confidence: 1.0,
        status: Status::Open,
        first_seen: AT,
        last_seen: WallTime { unix_ms: AT.unix_ms + last_seen_s * 1_000 },
        subject: Subject { endpoint: Some("10.0.0.5:5432".to_owned()), pids: vec![412], launcher_group: None },
        summary: "96 of 100 open".to_owned(),
        evidence: Vec::new(),
        ruled_out: Vec::new(),
        related: Vec::new(),
        cause: None,
        ignored: None,
        remedy: "close them".to_owned(),
        verify: "ss -tn".to_owned(),
    }
}

pub fn line(change: Change, finding: Finding) -> Arc<FindingLine> {
    let status = if change == Change::Resolved { Status::Resolved } else { Status::Open };
    let at = finding.last_seen;
    Arc::new(FindingLine { schema: FINDING_SCHEMA.to_owned(), change, at, finding: Finding { status, ..finding } })
}

pub fn event(pid: u32) -> EventLine {
    EventLine {
        schema: EVENT_SCHEMA.to_owned(),
        event: EventName::Opened,
        at: AT,
        endpoint: "10.0.0.5:5432".to_owned(),
        database: "postgres".to_owned(),
        role: Role::Client,
        local: "10.0.0.1:40222".to_owned(),
        remote: "10.0.0.5:5432".to_owned(),
        state: TcpState::Established,
        opener: Some(Opener { pid, comm: "python3".to_owned() }),
        closer_pid: None,
        age_ms: None,
        bytes_sent: 0,
        bytes_received: 0,
        retransmits: 0,
        consecutive_rtos: 0,
        error: None,
        reset: None,
    }
}

pub fn connection(id: &str, endpoint: &str, state: TcpState, opener: u32, holder: u32) -> Connection {
    Connection {
        id: id.to_owned(),
        netns: 1,
        local: "10.0.0.1:40222".to_owned(),
        remote: endpoint.to_owned(),
        endpoint: endpoint.to_owned(),
        database: "postgres".to_owned(),
        role: Role::Client,
        state,
        state_since: None,
        opened_at: Some(AT),
        age_s: 5,
        age: Age::Exact,
        opener: Some(Opener { pid: opener, comm: "python3".to_owned() }),
        holders: vec![HolderFd { pid: holder, fd: 3 }],
        inode: Some(77),
        idle_s: None,
        bytes_sent: 0,
        bytes_received: 0,
        srtt_us: None,
        retransmits: 0,
        consecutive_rtos: 0,
        unacked: 0,
        keepalive: None,
        unanswered_probes: 0,
        heard_s: None,
        closer_pid: None,
    }
}

fn endpoint(id: &str, name: &str) -> Endpoint {
    Endpoint {
        id: id.to_owned(),
        name: name.to_owned(),
        database: "postgres".to_owned(),
        role: Role::Client,
        limit: None,
        open: 1,
        in_use_peak: 0,
        open_peak: 1,
        opened_total: 1,
        closed_total: 0,
        failed_total: 0,
        by_state: BTreeMap::new(),
        drops: Vec::new(),
        series: Vec::new(),
    }
}

/// Two endpoints, three connections, the given findings.
pub fn snapshot(findings: Vec<Finding>) -> Snapshot {
    Snapshot {
        schema: SNAPSHOT_SCHEMA.to_owned(),
        captured_at: AT,
        host: Host {
            hostname: "host\u{202e}x".to_owned(),
            kernel: "6.18.0".to_owned(),
            arch: "x86_64".to_owned(),
            boot_id: "b".to_owned(),
            socklife_version: "0.1.0".to_owned(),
        },
        capture: Capture {
            mode: Mode::Ebpf,
            started_at: AT,
            probes: Vec::new(),
            loss: Loss::default(),
            completeness: Completeness::Exact,
            totals: Completeness::Exact,
            holders: Completeness::Exact,
            unreadable_processes: 0,
            hidden_processes: false,
            host_pids: true,
            config: ConfigInForce { generation: 1, hash: "c".to_owned(), loaded_at: AT, file: None },
            namespaces: 1,
            unreachable_namespaces: 0,
            recognized_ports: Vec::new(),
            recognized_without_room: 0,
            drops_untold: 0,
            findings_without_room: 0,
            findings_ignored: 0,
            accounts_without_history: 0,
            closers_without_room: 0,
        },
        endpoints: vec![endpoint("10.0.0.5:5432", "orders-db"), endpoint("10.0.0.6:5432", "10.0.0.6:5432")],
        processes: Vec::new(),
        launcher_groups: Vec::new(),
        connections: vec![
            connection("c1", "10.0.0.5:5432", TcpState::Established, 412, 412),
            connection("c2", "10.0.0.5:5432", TcpState::CloseWait, 412, 433),
            connection("c3", "10.0.0.6:5432", TcpState::Established, 500, 500),
        ],
        findings,
    }
}

/// The daemon's end, answering every request with one state.
pub struct Fake {
    pub handle: Handle,
    pub findings: broadcast::Sender<Arc<FindingLine>>,
    pub events: Arc<Feed>,
    pub loss: watch::Sender<Option<LossLine>>,
    pub shutdown: watch::Sender<bool>,
    /// Whether somebody has asked to follow events and been answered.
    pub followed: Arc<AtomicBool>,
    /// What is sent here is the recording of the one who asks for it; a second one finds no place.
    pub frames: FrameSender,
}

impl Fake {
    /// Tells a socket event to who listens.
    pub fn tell(&self, line: &EventLine) {
        let mut batch = Batch::default();
        batch.push(line);
        self.events.tell(&mut batch);
    }
}

/// A scrape is told that nothing is open.
pub fn fake(state: Snapshot) -> Fake {
    let (handle, Served { mut requests, findings, events, loss, shutdown }) = channel();
    let state = Arc::new(state);
    let followed = Arc::new(AtomicBool::new(false));
    let answered = Arc::clone(&followed);
    let (frames, recorded) = channel_of_frames();
    let recording = Mutex::new(Some(recorded));
    tokio::spawn(async move {
        while let Some(request) = requests.recv().await {
            match request {
                Request::Snapshot { reply } | Request::Known { reply, .. } => drop(reply.send(Arc::clone(&state))),
                Request::FollowEvents { reply } => {
                    let _ = reply.send(());
                    answered.store(true, Ordering::Release);
                }
                Request::Figures { reply } => {
                    let outline = Snapshot { connections: Vec::new(), ..(*state).clone() };
                    drop(reply.send(Figures { outline, open: Vec::new(), records: vec![("end", 5)] }));
                }
                Request::Record { reply } => {
                    let _ = reply.send(recording.lock().unwrap().take());
                }
                Request::OpenFindings { reply } => {
                    drop(reply.send(state.findings.iter().cloned().map(Arc::new).collect()));
                }
            }
        }
    });
    Fake { handle, findings, events, loss, shutdown, followed, frames }
}
