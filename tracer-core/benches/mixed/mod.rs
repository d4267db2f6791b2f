//! A busy host for the detectors: 100,000 connections of 1,000 processes in 50 launcher groups to 4 databases, some idle,
//! some at work, some opened in bursts or one after the other, some short, or all of them leaks; told by a quarter of an
//! hour of events and looks.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tracer_core::event::{Comm, Event, ProcessId, Role, SocketEvent, SocketEventKind, Task, Totals, Tuple};
use tracer_core::identity::{Identity, LauncherGroup};
use tracer_core::inventory::{Certainty, Holder, Inventory, SocketInfo, SocketRow, Table};
use tracer_core::ports::PortMap;
use tracer_core::snapshot::{Limit, LimitSource};
use tracer_core::tcp::TcpState;
use tracer_core::time::BootNs;
use tracer_core::tracker::{Bounds, EndpointRule, Tracker};

const SECOND: u64 = 1_000_000_000;
const NETNS: u32 = 4_026_531_840;
const PROCESSES: u32 = 1_000;
const EACH: u32 = 100;
const GROUPS: u32 = 50;
const DATABASES: u32 = 4;
/// When the first connection is opened, and how long the host is watched.
const BEGIN: u64 = 1_000 * SECOND;
const LOOKS: u64 = 90;

/// What a process does with its connections.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Idle,
    Used,
    InUse,
    Bursts,
    Staircase,
    Churn,
    HungUp,
}

/// What the processes of a host do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mix {
    /// Something of everything.
    Mixed,
    /// Every one of them leaks.
    Leaks,
}

fn shape(mix: Mix, process: u32) -> Shape {
    if mix == Mix::Leaks {
        return Shape::Staircase;
    }
    match process % 10 {
        0..3 => Shape::Idle,
        3..5 => Shape::Used,
        5 => Shape::InUse,
        6 => Shape::Bursts,
        7 => Shape::Staircase,
        8 => Shape::Churn,
        _ => Shape::HungUp,
    }
}

fn id(process: u32) -> ProcessId {
    ProcessId { pid: 1_000 + process, start_ticks: 100 }
}

fn tuple(number: u32) -> Tuple {
    let local = SocketAddr::from(([10, 0, 1, u8::try_from(number / 50_000).unwrap()], {
        u16::try_from(10_000 + number % 50_000).unwrap()
    }));
    let database = u8::try_from(5 + number / EACH % PROCESSES % DATABASES).unwrap();
    Tuple::new(NETNS, local, SocketAddr::from(([10, 0, 0, database], 5432)))
}

/// When the connection with that number is opened: processes take turns, so that neighbours are rarely of one.
fn opened(mix: Mix, number: u32) -> u64 {
    let (process, nth) = (number / EACH, u64::from(number % EACH));
    let after = match shape(mix, process) {
        Shape::Bursts => nth / 25 * 5 * SECOND,
        Shape::Staircase => nth * 8 * SECOND,
        _ => 0,
    };
    BEGIN + u64::from(process) * 1_000 + after + nth * 1_100_000
}

fn event(kind: SocketEventKind, number: u32, at: u64, established: u64) -> Event {
    let opener = Task { id: id(number / EACH % PROCESSES), uid: 0, comm: Comm(*b"worker.py\0\0\0\0\0\0\0") };
    let (old_state, new_state) = match kind {
        SocketEventKind::Open => (TcpState::SynSent, TcpState::Established),
        _ => (TcpState::FinWait2, TcpState::Close),
    };
    Event::Socket(SocketEvent {
        kind,
        at: BootNs(at),
        sk: 0xffff_8880_0000_0000 + u64::from(number) * 2_368,
        birth: Some(BootNs(established - 50_000)),
        established: Some(BootNs(established)),
        tuple: tuple(number),
        role: Role::Client,
        old_state,
        new_state,
        opener: Some(opener),
        closer: None,
        inode: Some(1_000 + number),
        error: 0,
        totals: Totals { bytes_sent: 200, bytes_received: 900, ..Totals::default() },
    })
}

fn row(mix: Mix, number: u32, at: u64) -> SocketRow {
    let (process, nth) = (number / EACH, number % EACH);
    let age_ms = u32::try_from((at - opened(mix, number)) / 1_000_000).unwrap();
    let (sent_ms, received_ms) = match shape(mix, process) {
        Shape::Used => (200.min(age_ms), 100.min(age_ms)),
        Shape::InUse if nth < 50 => (10.min(age_ms), 100.min(age_ms)),
        _ => (age_ms, age_ms),
    };
    let info = SocketInfo {
        bytes_sent: 200,
        bytes_received: 900,
        last_data_sent_ms: sent_ms,
        last_data_received_ms: received_ms,
        srtt_us: Some(300),
        ..SocketInfo::default()
    };
    SocketRow {
        tuple: tuple(number),
        role: Role::Client,
        certainty: Certainty::Sure,
        state: if shape(mix, process) == Shape::HungUp && nth == 0 {
            TcpState::CloseWait
        } else {
            TcpState::Established
        },
        uid: 0,
        inode: u64::from(1_000 + number),
        cookie: u64::from(1 + number),
        info: Some(info),
        holders: [Holder { process: id(process), fd: 3 + nth }].into_iter().collect(),
    }
}

fn identity(process: u32) -> Identity {
    let label = format!("worker{}.py", process % GROUPS);
    Identity {
        id: id(process),
        comm: "python3".to_owned(),
        exe: Some("/usr/bin/python3".to_owned()),
        script: Some(label.clone()),
        cmdline: None,
        ns_pid: None,
        ppid: Some(1),
        ancestors: Vec::new(),
        master: None,
        uid: Some(0),
        user: None,
        cgroup: None,
        container_id: None,
        systemd_unit: None,
        group: LauncherGroup { id: format!("group{}", process % GROUPS), label },
    }
}

/// The host, and the moment it was looked at last.
pub fn host(mix: Mix) -> (Tracker, BootNs) {
    let limit = Some(Limit { value: 30_000, source: LimitSource::Config });
    let rule =
        |last: u8| (SocketAddr::from(([10, 0, 0, last], 5432)), EndpointRule { limit, ..EndpointRule::default() });
    let rules = BTreeMap::from([rule(5), rule(6)]);
    let mut tracker = Tracker::new(Bounds::default(), PortMap::default(), rules);
    let all = PROCESSES * EACH;
    let look = |at: u64, open: &[u32]| {
        let sockets = open.iter().map(|number| row(mix, *number, at)).collect();
        Inventory::of(Table { netns: NETNS, started: BootNs(at), finished: BootNs(at), sockets, ..Table::default() })
    };
    tracker.apply_inventory(look(BEGIN - SECOND, &[]));
    let mut coming: Vec<u32> = (0..all).collect();
    coming.sort_by_key(|number| opened(mix, *number));
    let mut here = 0;
    for turn in 1..=LOOKS {
        let at = BEGIN + turn * 10 * SECOND;
        while let Some(number) = coming.get(here).filter(|number| opened(mix, **number) < at) {
            let when = opened(mix, *number);
            tracker.apply(&event(SocketEventKind::Open, *number, when, when));
            here += 1;
        }
        for process in (0..PROCESSES).filter(|process| shape(mix, *process) == Shape::Churn) {
            // Numbers beyond those that stay, of the same process.
            let number = all + process * EACH;
            for nth in 0..3u32 {
                let when = at - SECOND * u64::from(3 - nth) - u64::from(process);
                tracker.apply(&event(SocketEventKind::Open, number + nth, when, when));
                tracker.apply(&event(SocketEventKind::End, number + nth, when + SECOND / 20, when));
            }
        }
        tracker.apply_inventory(look(at, &coming[..here]));
        if turn == 1 {
            (0..PROCESSES).for_each(|process| tracker.apply_identity(identity(process)));
        }
    }
    (tracker, BootNs(BEGIN + LOOKS * 10 * SECOND).plus(Duration::from_secs(1)))
}
