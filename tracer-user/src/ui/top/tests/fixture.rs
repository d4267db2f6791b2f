//! A host with two databases, three processes, and something wrong with one of them. Some of its names are hostile.

use std::collections::BTreeMap;

use tracer_core::event::Role;
use tracer_core::finding::{Evidence, EvidenceValue, Finding, Kind, Severity, Status, Subject};
use tracer_core::identity::Ancestor;
use tracer_core::snapshot::{
    Age, Capture, Completeness, ConfigInForce, Connection, Endpoint, HolderFd, Host, LauncherGroup, Limit, LimitSource,
    Loss, Mode, Opener, Process, ProcessConnections, Series,
};
use tracer_core::tcp::TcpState;
use tracer_core::time::WallTime;

use super::Overview;

/// 2026-11-21T20:41:07Z
pub const AT: WallTime = WallTime { unix_ms: 1_795_293_667_000 };
pub const ORDERS: &str = "10.0.0.5:5432";
pub const CACHE: &str = "127.0.0.1:6379@netns:4026532281";
/// Moves the cursor, turns the text round, is wider than it looks.
pub const HOSTILE: &str = "\u{1b}[2J\u{202e}数据\nx\u{301}";

pub fn before(s: i64) -> WallTime {
    WallTime { unix_ms: AT.unix_ms - s * 1_000 }
}

pub fn overview() -> Overview {
    Overview {
        captured_at: AT,
        host: Host {
            hostname: "db-host".to_owned(),
            kernel: "6.12.0".to_owned(),
            arch: "x86_64".to_owned(),
            boot_id: "b".to_owned(),
            socklife_version: "0.1.0".to_owned(),
        },
        capture: capture(),
        endpoints: vec![
            endpoint(ORDERS, "orders-db", "postgres", 96, Some(100)),
            endpoint(CACHE, CACHE, "redis", 3, None),
        ],
        processes: vec![
            process(412, "python3", Some("/srv/app/route_builder_launcher.py"), "g1", ORDERS, 90),
            process(433, "python3", Some("/srv/app/route_builder_launcher.py"), "g1", ORDERS, 6),
            Process { alive: false, ..process(518, HOSTILE, None, "g2", CACHE, 3) },
        ],
        launcher_groups: vec![
            group("g1", "route_builder_launcher.py", &[412, 433], 96, ORDERS),
            group("g2", HOSTILE, &[518], 3, CACHE),
        ],
        findings: findings(),
    }
}

pub fn capture() -> Capture {
    Capture {
        mode: Mode::Ebpf,
        started_at: before(3_600),
        probes: Vec::new(),
        loss: Loss::default(),
        completeness: Completeness::Exact,
        totals: Completeness::Exact,
        holders: Completeness::Exact,
        unreadable_processes: 0,
        hidden_processes: false,
        host_pids: true,
        config: ConfigInForce { generation: 1, hash: "c".to_owned(), loaded_at: before(3_600), file: None },
        namespaces: 1,
        unreachable_namespaces: 0,
        recognized_ports: Vec::new(),
        recognized_without_room: 0,
        drops_untold: 0,
        findings_without_room: 0,
        findings_ignored: 0,
        accounts_without_history: 0,
        closers_without_room: 0,
    }
}

fn endpoint(id: &str, name: &str, database: &str, open: u32, limit: Option<u32>) -> Endpoint {
    let steps = 60;
    let rising: Vec<u32> = (0..steps).map(|step| open * (step + 1) / steps).collect();
    let series = |step_s: u32| Series {
        step_s,
        start: before(i64::from(step_s * steps)),
        open: rising.clone(),
        opened: vec![1; steps as usize],
        closed: vec![0; steps as usize],
        in_use: vec![1; steps as usize],
    };
    Endpoint {
        id: id.to_owned(),
        name: name.to_owned(),
        database: database.to_owned(),
        role: Role::Client,
        limit: limit.map(|value| Limit { value, source: LimitSource::Config }),
        open,
        in_use_peak: 2,
        open_peak: open + 1,
        opened_total: 120,
        closed_total: 120 - u64::from(open),
        failed_total: 7,
        by_state: BTreeMap::from([(TcpState::Established, open.saturating_sub(2)), (TcpState::CloseWait, 2)]),
        drops: Vec::new(),
        series: vec![series(1), series(10)],
    }
}

fn process(pid: u32, comm: &str, script: Option<&str>, group: &str, endpoint: &str, open: u32) -> Process {
    Process {
        pid,
        ns_pid: (pid == 518).then_some(7),
        start_time: before(7_200),
        comm: comm.to_owned(),
        exe: Some("/usr/bin/python3.13".to_owned()),
        script: script.map(str::to_owned),
        cmdline: None,
        ppid: Some(1),
        ancestors: vec![
            Ancestor { pid: 300, comm: "cron".to_owned() },
            Ancestor { pid: 1, comm: "systemd".to_owned() },
        ],
        uid: Some(1_000),
        user: Some("app".to_owned()),
        cgroup: None,
        container_id: None,
        systemd_unit: Some("routes.service".to_owned()),
        launcher_group: Some(group.to_owned()),
        alive: true,
        accepted_total: None,
        connections: vec![ProcessConnections {
            endpoint: endpoint.to_owned(),
            role: Role::Client,
            open,
            opened_total: 100,
            closed_total: 10,
            failed_total: 0,
            in_use_peak: 2,
            last_active_at: Some(before(75)),
            estimated_server_memory_bytes: None,
        }],
    }
}

fn group(id: &str, label: &str, pids: &[u32], open: u32, endpoint: &str) -> LauncherGroup {
    LauncherGroup {
        id: id.to_owned(),
        label: label.to_owned(),
        instances: pids.len() as u32,
        pids: pids.to_vec(),
        open,
        endpoints: vec![endpoint.to_owned()],
    }
}

pub fn findings() -> Vec<Finding> {
    let leak = Finding {
        id: "f1".to_owned(),
        kind: Kind::ConnectionLeak,
        severity: Severity::Critical,
        confidence: 0.89,
        status: Status::Open,
        first_seen: before(300),
        last_seen: AT,
        subject: Subject { endpoint: Some(ORDERS.to_owned()), pids: vec![412], launcher_group: Some("g1".to_owned()) },
        summary: "route_builder_launcher.py (pid 412) leaves connections to orders-db open: 88 of 90 idle".to_owned(),
        evidence: vec![
            Evidence { fact: "open".to_owned(), value: EvidenceValue::Integer(90), unit: "connections".to_owned() },
            Evidence { fact: "rate".to_owned(), value: EvidenceValue::Number(240.5), unit: "connections/h".to_owned() },
            Evidence { fact: "name".to_owned(), value: EvidenceValue::Text(HOSTILE.to_owned()), unit: String::new() },
        ],
        ruled_out: vec!["use after a pause: those that were left are still open and idle".to_owned()],
        related: vec!["f2".to_owned()],
        cause: None,
        ignored: None,
        remedy: "Close or return each connection on every path, errors included, or use a pool".to_owned(),
        verify: "ss -Htnp dst 10.0.0.5:5432 | grep -c pid=412,".to_owned(),
    };
    let pressure = Finding {
        id: "f2".to_owned(),
        kind: Kind::LimitPressure,
        severity: Severity::Warning,
        confidence: 1.0,
        subject: Subject { endpoint: Some(ORDERS.to_owned()), pids: vec![412, 433], launcher_group: None },
        summary: "orders-db 96 of 100 open, +4/min, full in about 1 min".to_owned(),
        cause: Some("f1".to_owned()),
        ..leak.clone()
    };
    let unused = Finding {
        id: "f3".to_owned(),
        kind: Kind::UnusedConnection,
        severity: Severity::Info,
        subject: Subject { endpoint: Some(CACHE.to_owned()), pids: vec![518], launcher_group: None },
        summary: format!("{HOSTILE} never used 3 connections"),
        related: Vec::new(),
        cause: None,
        ..pressure.clone()
    };
    vec![leak, pressure, unused]
}

pub fn connections() -> Vec<Connection> {
    let of =
        |n: u32, pid: u32, endpoint: &str| connection(n, pid, if pid == 518 { HOSTILE } else { "python3" }, endpoint);
    let mut all: Vec<Connection> = (0..90).map(|n| of(n, 412, ORDERS)).collect();
    all.extend((90..96).map(|n| of(n, 433, ORDERS)));
    all.extend((96..99).map(|n| of(n, 518, CACHE)));
    all
}

pub fn connection(n: u32, pid: u32, comm: &str, endpoint: &str) -> Connection {
    Connection {
        id: format!("c{n:04}"),
        netns: 4_026_531_840,
        local: format!("10.0.0.1:{}", 40_000 + n),
        remote: endpoint.split('@').next().unwrap_or_default().to_owned(),
        endpoint: endpoint.to_owned(),
        database: "postgres".to_owned(),
        role: Role::Client,
        state: if n % 45 == 1 { TcpState::CloseWait } else { TcpState::Established },
        state_since: Some(before(60)),
        opened_at: (n > 0).then(|| before(3_600 - i64::from(n))),
        age_s: u64::from(3_600 - n.min(3_599)),
        age: if n == 0 { Age::AtLeast } else { Age::Exact },
        opener: (n != 2).then(|| Opener { pid, comm: comm.to_owned() }),
        holders: vec![HolderFd { pid, fd: 3 + n }],
        inode: Some(77_000 + n),
        idle_s: Some(u64::from(n)),
        bytes_sent: u64::from(n) * 1_000,
        bytes_received: 2_048,
        srtt_us: Some(850 + n),
        retransmits: n % 3,
        consecutive_rtos: 0,
        unacked: 0,
        keepalive: Some(n.is_multiple_of(2)),
        unanswered_probes: 0,
        heard_s: Some(u64::from(n)),
        closer_pid: None,
    }
}
