//! Clocks that step and hosts that sleep: boot time jumps by hours, wall time goes back and forth. Ages stay right,
//! series stay bounded, findings do not flap.
#![expect(clippy::unwrap_used, reason = "a scene that cannot be built fails its test")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tracer_core::detect::{DetectConfig, Store};
use tracer_core::event::{Event, Role, SocketEvent, SocketEventKind, Totals, Tuple};
use tracer_core::finding::Change;
use tracer_core::inventory::{Inventory, Table};
use tracer_core::ports::PortMap;
use tracer_core::snapshot::{Age, Host, Limit, LimitSource, Mode};
use tracer_core::tcp::TcpState;
use tracer_core::time::{BootNs, WallAnchor};
use tracer_core::tracker::{About, Bounds, EndpointRule, Tracker};

const S: u64 = 1_000_000_000;
const HOUR: u64 = 3_600 * S;
/// 2023-11-14T22:13:20Z at boot.
const BOOTED: i64 = 1_700_000_000 * 1_000_000_000;

fn database() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 5], 5432))
}

fn event(kind: SocketEventKind, port: u16, at: u64, established: u64) -> Event {
    let (old_state, new_state) = match kind {
        SocketEventKind::Open => (TcpState::SynSent, TcpState::Established),
        _ => (TcpState::FinWait2, TcpState::Close),
    };
    Event::Socket(SocketEvent {
        kind,
        at: BootNs(at),
        sk: 64 * u64::from(port),
        birth: Some(BootNs(established)),
        established: Some(BootNs(established)),
        tuple: Tuple::new(7, SocketAddr::from(([10, 0, 0, 9], port)), database()),
        role: Role::Client,
        old_state,
        new_state,
        opener: None,
        closer: None,
        inode: Some(u32::from(port)),
        error: 0,
        totals: Totals::default(),
    })
}

/// 90 of 100 connections, opened in the tenth second.
fn crowded() -> Tracker {
    let limit = Some(Limit { value: 100, source: LimitSource::Config });
    let rules = BTreeMap::from([(database(), EndpointRule { limit, ..EndpointRule::default() })]);
    let mut tracker = Tracker::new(Bounds::default(), PortMap::default(), rules);
    let (started, finished) = (BootNs(S), BootNs(2 * S));
    tracker.apply_inventory(Inventory::of(Table {
        netns: 7,
        started,
        finished,
        sockets: Vec::new(),
        ..Table::default()
    }));
    for port in 1..=90 {
        tracker.apply(&event(SocketEventKind::Open, port, 10 * S, 10 * S));
    }
    tracker
}

fn about() -> About {
    let none = String::new;
    let host = Host { hostname: none(), kernel: none(), arch: none(), boot_id: none(), socklife_version: none() };
    let (probes, drop_reasons) = (Vec::new(), Default::default());
    About {
        host,
        mode: Mode::Ebpf,
        started: BootNs(S),
        probes,
        drop_reasons,
        host_pids: true,
        config: tracer_core::setup::InForce::default(),
    }
}

/// The wall clock is wrong by so many seconds.
fn anchor(now: u64, wrong_s: i64) -> WallAnchor {
    WallAnchor { boot: BootNs(now), unix_ns: BOOTED + i64::try_from(now).unwrap() + wrong_s * 1_000_000_000 }
}

#[test]
fn a_host_that_slept_counts_the_hours() {
    let mut tracker = crowded();
    // Boot time goes on through suspend: the next event is hours later.
    let woken = 10 * S + 100_000 * HOUR;
    tracker.apply(&event(SocketEventKind::Open, 91, woken, woken));
    tracker.apply(&event(SocketEventKind::End, 1, woken + S, 10 * S));
    let snapshot = tracker.snapshot(&about(), &Store::default(), BootNs(woken + 2 * S), &anchor(woken + 2 * S, 0));
    let ages: Vec<u64> = snapshot.connections.iter().map(|connection| connection.age_s).collect();
    assert_eq!((ages.len(), ages[0], ages[89]), (90, 100_000 * 3_600 + 2, 2));
    assert!(snapshot.connections.iter().all(|connection| connection.age == Age::Exact));
    for (series, most) in snapshot.endpoints[0].series.iter().zip([120, 360, 360, 144]) {
        assert_eq!(series.open.len(), most, "the sleep fills the ring and no more");
        assert_eq!(series.open[0], 90, "and everything stayed open through it");
    }
}

#[test]
fn a_wall_clock_that_steps_moves_what_is_shown_and_nothing_else() {
    let tracker = crowded();
    let now = 70 * S;
    let shown = |wrong_s| {
        let snapshot = tracker.snapshot(&about(), &Store::default(), BootNs(now), &anchor(now, wrong_s));
        let connection = snapshot.connections[0].clone();
        (connection.opened_at.unwrap().unix_ms, connection.age_s, connection.id)
    };
    let (opened, age, id) = shown(0);
    assert_eq!((opened, age), ((BOOTED / 1_000_000) + 10_000, 60));
    for wrong_s in [-86_400, -1, 1, 3_600, -1_700_000_000, 9_000_000_000 - 1_700_000_000] {
        assert_eq!(shown(wrong_s), (opened + wrong_s * 1_000, age, id.clone()));
    }
}

#[test]
fn findings_do_not_flap_while_clocks_step_and_the_host_sleeps() {
    let tracker = crowded();
    let (config, mut store) = (DetectConfig::default(), Store::default());
    let mut changes = Vec::new();
    let mut now = BootNs(20 * S);
    for second in 0..300u64 {
        // Every minute the host sleeps for an hour, and every other second the wall clock jumps by a day.
        let slept = if second.is_multiple_of(60) { HOUR } else { 0 };
        now = now.plus(Duration::from_nanos(S + slept));
        let wrong_s = if second.is_multiple_of(2) { 86_400 } else { -86_400 };
        let lines = store.run(&tracker, &config, now, &anchor(now.0, wrong_s));
        changes.extend(lines.into_iter().map(|line| line.change));
    }
    assert_eq!(changes, [Change::Opened], "nothing changed but the clocks");
    let finding = &store.findings(&anchor(now.0, 0))[0];
    let open_ms = finding.last_seen.unix_ms - finding.first_seen.unix_ms;
    assert_eq!(open_ms, 299_000 + 4 * 3_600_000, "seen by one anchor");
}
