//! Snapshots to report on: a small incident, one whose every string is hostile, and one of any size.

use std::collections::BTreeMap;

use tracer_core::event::Role;
use tracer_core::finding::{Evidence, EvidenceValue, Finding, Kind, Severity, Status, Subject};
use tracer_core::identity::Ancestor;
use tracer_core::snapshot::{
    Age, Capture, Completeness, ConfigInForce, Connection, Drops, Endpoint, HolderFd, Host, LauncherGroup, Limit,
    LimitSource, Loss, MemoryEstimate, Mode, Opener, Probe, ProbeState, Process, ProcessConnections, SNAPSHOT_SCHEMA,
    Series, Snapshot,
};
use tracer_core::tcp::TcpState;
use tracer_core::time::WallTime;

/// 2026-11-21T20:41:07Z
pub const AT: WallTime = WallTime { unix_ms: 1_795_293_667_000 };
const DATABASE: &str = "10.0.0.5:5432";

fn before(s: i64) -> WallTime {
    WallTime { unix_ms: AT.unix_ms - s * 1_000 }
}

/// Copies of a launcher that hold 96 of 100 connections, a worker beside them that never closes, and a restart.
pub fn incident() -> Snapshot {
    incident_of(96, 24)
}

/// The same with as many connections and processes.
pub fn incident_of(connections: u32, processes: u32) -> Snapshot {
    let mut snapshot = large(connections, processes);
    snapshot.findings = findings();
    snapshot.capture.loss = Loss { ring_full: 312, ends: 40, ..Loss::default() };
    snapshot.capture.totals = Completeness::LowerBound;
    snapshot
}

fn findings() -> Vec<Finding> {
    let fact = |fact: &str, value, unit: &str| Evidence { fact: fact.to_owned(), value, unit: unit.to_owned() };
    let pressure = Finding {
        evidence: vec![
            fact("open", EvidenceValue::Integer(96), "connections"),
            fact("limit", EvidenceValue::Integer(100), "connections"),
            fact("full_in", EvidenceValue::Integer(61), "s"),
        ],
        related: vec!["copies".to_owned()],
        cause: Some("copies".to_owned()),
        ..finding("pressure", Kind::LimitPressure, Severity::Critical, 40, "orders-db 96 of 100 open, +4/min")
    };
    let copies = Finding {
        evidence: vec![
            fact("copies", EvidenceValue::Integer(24), "copies"),
            fact("processes", EvidenceValue::List((400..424).map(|pid| format!("pid {pid}")).collect()), ""),
            fact("estimated_server_memory", EvidenceValue::Integer(503_000_000), "bytes"),
        ],
        related: vec!["pressure".to_owned()],
        ruled_out: vec!["workers of one master: each was started by another shell".to_owned()],
        ..finding("copies", Kind::DuplicateLaunchers, Severity::Warning, 300, "route_builder_launcher.py 24 copies")
    };
    let drop = Finding {
        evidence: vec![fact("ended_ago", EvidenceValue::Integer(900), "s")],
        ..finding("drop", Kind::RestartDrop, Severity::Info, 890, "a restart freed 60 connections of worker.py")
    };
    vec![pressure, copies, drop]
}

fn finding(id: &str, kind: Kind, severity: Severity, since_s: i64, summary: &str) -> Finding {
    let subject = Subject {
        endpoint: Some(DATABASE.to_owned()),
        pids: (400..424).collect(),
        launcher_group: Some("g0".to_owned()),
    };
    Finding {
        id: id.to_owned(),
        kind,
        severity,
        confidence: 0.95,
        status: Status::Open,
        first_seen: before(since_s),
        last_seen: AT,
        subject,
        summary: summary.to_owned(),
        evidence: Vec::new(),
        ruled_out: Vec::new(),
        related: Vec::new(),
        cause: None,
        ignored: None,
        remedy: "Stop all copies but the newest".to_owned(),
        verify: "ss -Htnp dst 10.0.0.5:5432 | wc -l".to_owned(),
    }
}

/// `connections` of `processes`, which are ten to a launcher group, at four databases.
pub fn large(connections: u32, processes: u32) -> Snapshot {
    let groups = processes.div_ceil(10).max(1);
    let group = |at: u32| (at % processes / 10).min(groups - 1);
    Snapshot {
        schema: SNAPSHOT_SCHEMA.to_owned(),
        captured_at: AT,
        host: Host {
            hostname: "app-1".to_owned(),
            kernel: "6.1.0-18-amd64".to_owned(),
            arch: "x86_64".to_owned(),
            boot_id: "0c2ff1fe-65a6-4f3c-8d35-0b8c0b9c6a10".to_owned(),
            socklife_version: "0.1.0".to_owned(),
        },
        capture: capture(),
        endpoints: (0..connections.clamp(1, 4)).map(|at| endpoint(at, connections)).collect(),
        processes: (0..processes).map(|at| process(at, group(at), connections / processes.max(1))).collect(),
        launcher_groups: (0..groups)
            .map(|at| LauncherGroup {
                id: format!("g{at}"),
                label: if at == 0 { "route_builder_launcher.py".to_owned() } else { format!("worker_{at}.py") },
                instances: 10,
                pids: (0..10).map(|of| 400 + at * 10 + of).collect(),
                open: connections / groups,
                endpoints: vec![DATABASE.to_owned()],
            })
            .collect(),
        connections: (0..connections).map(|at| connection(at, processes)).collect(),
        findings: Vec::new(),
    }
}

fn address(at: u32) -> String {
    format!("10.0.0.{}:5432", 5 + at)
}

fn capture() -> Capture {
    let probe = |fact: &str, via: &str, state, reason: &str| Probe {
        fact: fact.to_owned(),
        via: via.to_owned(),
        state,
        reason: reason.to_owned(),
    };
    Capture {
        mode: Mode::Ebpf,
        started_at: before(3_000),
        probes: vec![
            probe("state_change", "tp_btf:inet_sock_set_state", ProbeState::Attached, ""),
            probe("accept", "sys_exit_accept", ProbeState::Degraded, "this kernel has no trampolines"),
        ],
        loss: Loss::default(),
        completeness: Completeness::Exact,
        totals: Completeness::Exact,
        holders: Completeness::Exact,
        unreadable_processes: 0,
        hidden_processes: false,
        host_pids: true,
        config: ConfigInForce { generation: 1, hash: "c".to_owned(), loaded_at: before(3_000), file: None },
        namespaces: 3,
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

fn endpoint(at: u32, connections: u32) -> Endpoint {
    let open = connections / connections.clamp(1, 4);
    let course = |step_s: u32, steps: u32| {
        let ends = move || (0..steps).rev().map(move |left| left * step_s);
        Series {
            step_s,
            start: before(i64::from(step_s * steps)),
            open: ends().map(|ago_s| open_before(ago_s, open)).collect(),
            opened: ends().map(|ago_s| u32::from(open_before(ago_s, open) > 0)).collect(),
            closed: vec![0; usize::try_from(steps).unwrap()],
            in_use: ends().map(|ago_s| (2 + ago_s / 600 % 2).min(open_before(ago_s, open))).collect(),
        }
    };
    let series = vec![course(1, 120), course(10, 360), course(60, 360), course(600, 144)];
    Endpoint {
        id: address(at),
        name: if at == 0 { "orders-db".to_owned() } else { address(at) },
        database: "postgres".to_owned(),
        role: Role::Client,
        limit: Some(Limit { value: open + open / 10, source: LimitSource::Config }),
        open,
        in_use_peak: 7,
        open_peak: open,
        opened_total: u64::from(open) * 2,
        closed_total: u64::from(open),
        failed_total: 3,
        by_state: BTreeMap::from([(TcpState::Established, open), (TcpState::CloseWait, 1)]),
        drops: vec![Drops { reason: "NETFILTER_DROP".to_owned(), packets: 12, last_at: before(30) }],
        series: if at == 0 { series } else { series.into_iter().take(2).collect() },
    }
}

/// Up for an hour and a half, down to a fifth by a restart, and up again to what it is now.
fn open_before(ago_s: u32, open: u32) -> u32 {
    match ago_s {
        0..900 => open / 5 + (open - open / 5) * (900 - ago_s) / 900,
        900..6_300 => open * (6_300 - ago_s) / 5_400,
        _ => 0,
    }
}

fn process(at: u32, group: u32, open: u32) -> Process {
    Process {
        pid: 400 + at,
        ns_pid: None,
        start_time: before(i64::from(at % 3_000) + 60),
        comm: "python3".to_owned(),
        exe: Some("/usr/bin/python3.11".to_owned()),
        script: Some(format!("/srv/app/worker_{group}.py")),
        cmdline: Some("python3 worker.py --db postgres://app:***@10.0.0.5/orders".to_owned()),
        ppid: Some(1),
        ancestors: vec![Ancestor { pid: 1, comm: "systemd".to_owned() }],
        uid: Some(33),
        user: Some("www-data".to_owned()),
        cgroup: Some("/system.slice/app.service".to_owned()),
        container_id: None,
        systemd_unit: Some("app.service".to_owned()),
        launcher_group: Some(format!("g{group}")),
        alive: true,
        accepted_total: Some(12),
        connections: vec![ProcessConnections {
            endpoint: address(0),
            role: Role::Client,
            open,
            opened_total: u64::from(open) * 2,
            closed_total: u64::from(open),
            failed_total: 0,
            in_use_peak: 1,
            last_active_at: Some(before(5)),
            estimated_server_memory_bytes: Some(MemoryEstimate { value: 5_000_000, min: 1_500_000, max: 15_000_000 }),
        }],
    }
}

fn connection(at: u32, processes: u32) -> Connection {
    let pid = 400 + at % processes.max(1);
    let age_s = u64::from(at % 3_000);
    Connection {
        id: format!("{at:016x}"),
        netns: 4_026_531_840,
        local: format!("10.0.{}.{}:{}", at / 60_000, at % 250, 1_024 + at % 60_000),
        remote: address(at % 4),
        endpoint: address(at % 4),
        database: "postgres".to_owned(),
        role: Role::Client,
        state: if at.is_multiple_of(50) { TcpState::CloseWait } else { TcpState::Established },
        state_since: Some(before(60)),
        opened_at: (!at.is_multiple_of(7)).then(|| before(i64::from(at % 3_000))),
        age_s,
        age: if at.is_multiple_of(7) { Age::AtLeast } else { Age::Exact },
        opener: Some(Opener { pid, comm: "python3".to_owned() }),
        holders: vec![HolderFd { pid, fd: 3 + at % 1_000 }],
        inode: Some(100_000 + at),
        idle_s: Some(age_s / 2),
        bytes_sent: 512 * u64::from(at),
        bytes_received: 2_048,
        srtt_us: Some(300),
        retransmits: at % 3,
        consecutive_rtos: 0,
        unacked: 0,
        keepalive: Some(at.is_multiple_of(2)),
        unanswered_probes: 0,
        heard_s: Some(age_s / 2),
        closer_pid: None,
    }
}

/// The incident, with every name in it replaced by `name`. Places that are looked up by are kept.
pub fn hostile(name: &str) -> Snapshot {
    let mut snapshot = incident();
    let put = |text: &mut String| *text = name.to_owned();
    let host = &mut snapshot.host;
    [&mut host.hostname, &mut host.kernel, &mut host.arch, &mut host.boot_id, &mut host.socklife_version]
        .into_iter()
        .for_each(put);
    for probe in &mut snapshot.capture.probes {
        [&mut probe.fact, &mut probe.via, &mut probe.reason].into_iter().for_each(put);
    }
    for endpoint in &mut snapshot.endpoints {
        [&mut endpoint.name, &mut endpoint.database].into_iter().for_each(put);
        endpoint.drops.iter_mut().for_each(|drops| put(&mut drops.reason));
    }
    for group in &mut snapshot.launcher_groups {
        put(&mut group.label);
        group.endpoints.iter_mut().for_each(put);
    }
    for process in &mut snapshot.processes {
        put(&mut process.comm);
        let texts = [&mut process.exe, &mut process.script, &mut process.cmdline, &mut process.user];
        texts.into_iter().flatten().for_each(put);
        let places = [&mut process.cgroup, &mut process.container_id, &mut process.systemd_unit];
        places.into_iter().flatten().for_each(put);
    }
    for connection in &mut snapshot.connections {
        [&mut connection.id, &mut connection.local, &mut connection.remote, &mut connection.database]
            .into_iter()
            .for_each(put);
        connection.opener.iter_mut().for_each(|opener| put(&mut opener.comm));
    }
    for found in &mut snapshot.findings {
        [&mut found.summary, &mut found.remedy, &mut found.verify].into_iter().for_each(put);
        found.ruled_out.iter_mut().for_each(put);
        for evidence in &mut found.evidence {
            [&mut evidence.fact, &mut evidence.unit].into_iter().for_each(put);
            evidence.value = EvidenceValue::Text(name.to_owned());
        }
    }
    snapshot
}
