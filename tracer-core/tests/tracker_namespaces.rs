//! Sockets in several network namespaces: which looks can see which of them, and what is told apart.
#![expect(clippy::unwrap_used, reason = "a case that cannot be built fails its test")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use tracer_core::event::{Comm, Event, ProcessId, Role, SocketEvent, SocketEventKind as K, Task, Totals, Tuple};
use tracer_core::inventory::{Certainty, Holder, Inventory, RecognizedPort, SocketRow, Table};
use tracer_core::ports::PortMap;
use tracer_core::snapshot::{Completeness, Limit, LimitSource, Loss};
use tracer_core::tcp::TcpState::{self, Established, FinWait1};
use tracer_core::time::BootNs;
use tracer_core::tracker::{Bounds, EndpointRule, Tracker};

const S: u64 = 1_000_000_000;
const HOME: u32 = 7;
const AWAY: u32 = 8;

fn holder(pid: u32) -> Holder {
    Holder { process: ProcessId { pid, start_ticks: 1 }, fd: 3 }
}

fn tuple(netns: u32, port: u16, database: &str) -> Tuple {
    Tuple::new(netns, SocketAddr::from(([10, 0, 0, 9], port)), database.parse().unwrap())
}

/// An event of the life on that port, which was established at 2 s by process 42.
fn event(kind: K, at: u64, tuple: Tuple, states: (TcpState, TcpState)) -> Event {
    Event::Socket(SocketEvent {
        kind,
        at: BootNs(at),
        sk: u64::from(tuple.local().port()),
        birth: Some(BootNs(2 * S - 5)),
        established: Some(BootNs(2 * S)),
        tuple,
        role: Role::Client,
        old_state: states.0,
        new_state: states.1,
        opener: Some(Task { id: ProcessId { pid: 42, start_ticks: 1 }, uid: 0, comm: Comm::default() }),
        closer: None,
        inode: Some(u32::from(tuple.local().port())),
        error: 0,
        totals: Totals::default(),
    })
}

fn row(tuple: Tuple, holders: Vec<Holder>) -> SocketRow {
    SocketRow {
        tuple,
        role: Role::Client,
        certainty: Certainty::Sure,
        state: Established,
        uid: 0,
        inode: u64::from(tuple.local().port()),
        cookie: u64::from(tuple.local().port()),
        info: None,
        holders: holders.into_iter().collect(),
    }
}

fn table(netns: u32, at: u64, sockets: Vec<SocketRow>) -> Table {
    Table { netns, started: BootNs(at), finished: BootNs(at + 1), sockets, ..Table::default() }
}

fn look(tables: Vec<Table>) -> Inventory {
    let (started, finished) = (tables[0].started, tables.last().unwrap().finished);
    Inventory { started, finished, tables, ..Inventory::default() }
}

fn tracker() -> Tracker {
    let mut tracker = Tracker::new(Bounds::default(), PortMap::default(), BTreeMap::new());
    tracker.set_home(HOME);
    tracker.apply_inventory(look(vec![table(HOME, S, vec![])]));
    tracker
}

/// `(id, open, opened, closed)` of each endpoint, conserved.
fn counts(tracker: &Tracker) -> Vec<(String, u32, u64, u64)> {
    let all = tracker.endpoints().iter();
    let counts: Vec<_> = all.map(|each| (each.id(), each.open, each.opened_total, each.closed_total)).collect();
    assert!(counts.iter().all(|(_, open, opened, closed)| u64::from(*open) + closed == *opened), "{counts:?}");
    counts
}

#[test]
fn the_same_loopback_address_is_a_database_in_each_namespace() {
    let rule = EndpointRule {
        name: Some("orders".to_owned()),
        limit: Some(Limit { value: 100, source: LimitSource::Config }),
        database: None,
    };
    let rules = BTreeMap::from([("127.0.0.1:5432".parse().unwrap(), rule)]);
    let mut tracker = Tracker::new(Bounds::default(), PortMap::default(), rules);
    tracker.set_home(HOME);
    let of = |netns, port| {
        row(tuple(netns, port, if port < 3000 { "127.0.0.1:5432" } else { "10.0.0.5:5432" }), vec![holder(42)])
    };
    tracker.apply_inventory(look(vec![
        table(HOME, S, vec![of(HOME, 1000), of(HOME, 3000)]),
        table(AWAY, S, vec![of(AWAY, 1000), of(AWAY, 2000), of(AWAY, 3000)]),
    ]));
    assert_eq!(
        counts(&tracker),
        [
            ("127.0.0.1:5432".to_owned(), 1, 1, 0),
            ("10.0.0.5:5432".to_owned(), 2, 2, 0),
            ("127.0.0.1:5432@netns:8".to_owned(), 2, 2, 0),
        ]
    );
    let names: Vec<_> = tracker.endpoints().iter().map(|each| (each.display_name(), each.limit.is_some())).collect();
    assert_eq!(names[0], ("orders".to_owned(), true));
    assert_eq!(names[2], ("127.0.0.1:5432@netns:8".to_owned(), false), "the rule is for the daemon's own loopback");
}

#[test]
fn absence_is_judged_by_the_look_at_the_sockets_own_namespace() {
    let mut tracker = tracker();
    let home = tuple(HOME, 1000, "10.0.0.5:5432");
    let away = tuple(AWAY, 1001, "10.0.0.5:5432");
    for each in [home, away] {
        tracker.apply(&event(K::Open, 2 * S, each, (TcpState::SynSent, Established)));
    }
    // The dump at home began before the opening, the one away after it.
    assert!(tracker.apply_inventory(look(vec![table(HOME, S, vec![]), table(AWAY, 3 * S, vec![])])));
    assert!(tracker.apply_inventory(look(vec![table(HOME, 5 * S, vec![]), table(AWAY, 5 * S, vec![])])));
    assert_eq!(counts(&tracker)[0], ("10.0.0.5:5432".to_owned(), 1, 2, 1), "home is missing once, away twice");
    tracker.apply_inventory(look(vec![table(HOME, 7 * S, vec![]), table(AWAY, 7 * S, vec![])]));
    assert_eq!(counts(&tracker)[0], ("10.0.0.5:5432".to_owned(), 0, 2, 2));
    assert_eq!(tracker.loss().missed_closes, 2);
}

#[test]
fn of_a_namespace_that_cannot_be_entered_nothing_ends_and_completeness_says_so() {
    let mut tracker = tracker();
    assert_eq!(tracker.completeness(), Completeness::Exact);
    let away = tuple(AWAY, 1001, "10.0.0.5:5432");
    tracker.apply(&event(K::Open, 2 * S, away, (TcpState::SynSent, Established)));
    for at in [3, 5, 7] {
        let closed = Inventory { unreachable: vec![AWAY], ..look(vec![table(HOME, at * S, vec![])]) };
        assert!(!tracker.apply_inventory(closed));
    }
    assert_eq!(counts(&tracker)[0].1, 1);
    assert_eq!(tracker.completeness(), Completeness::LowerBound);
    assert_eq!(tracker.unseen_inodes(), BTreeSet::from([(AWAY, 1001)]));
}

#[test]
fn out_of_sight_a_holder_keeps_a_socket_and_its_end_ends_it() {
    let mut tracker = tracker();
    let away = tuple(AWAY, 1001, "10.0.0.5:5432");
    tracker.apply(&event(K::Open, 2 * S, away, (TcpState::SynSent, Established)));
    // The opener has passed it on and is gone, and with it the way into its namespace.
    assert!(tracker.apply_inventory(look(vec![table(HOME, 3 * S, vec![])])), "a second look asks who holds it");
    assert_eq!(tracker.unseen_inodes(), BTreeSet::from([(AWAY, 1001)]));
    for at in [4, 10, 20] {
        let held = BTreeMap::from([(1001, vec![holder(50)])]);
        assert!(!tracker.apply_inventory(Inventory { held, ..look(vec![table(HOME, at * S, vec![])]) }));
        let socket = tracker.sockets().next().unwrap();
        assert_eq!((socket.opener.unwrap().id.pid, &*socket.holders), (42, &[holder(50)][..]));
    }
    // In flight between two processes nobody holds it.
    let held = BTreeMap::from([(1001, vec![])]);
    for at in [30, 40, 50] {
        tracker.apply_inventory(Inventory { held: held.clone(), ..look(vec![table(HOME, at * S, vec![])]) });
        assert!(tracker.sockets().next().unwrap().holders.is_empty());
    }
    assert_eq!(counts(&tracker)[0].1, 1);
    tracker.apply(&event(K::End, 60 * S, away, (FinWait1, TcpState::Close)));
    assert_eq!(counts(&tracker)[0], ("10.0.0.5:5432".to_owned(), 0, 1, 1));
    assert_eq!((tracker.loss().missed_closes, tracker.unseen_inodes().len()), (0, 0));
}

/// Looks at home once a second from `from` on until nothing is left away; when that was.
fn gone_at(tracker: &mut Tracker, from: u64) -> u64 {
    let mut at = from;
    while counts(tracker)[0].1 > 0 {
        assert!(at < 2_000, "never");
        tracker.apply_inventory(look(vec![table(HOME, at * S, vec![])]));
        at += 1;
    }
    at - 1
}

#[test]
fn a_namespace_that_is_gone_takes_its_sockets_along() {
    let away = tuple(AWAY, 1001, "10.0.0.5:5432");
    // Only looks have told of it.
    let mut by_look = tracker();
    by_look.apply_inventory(look(vec![table(HOME, 3 * S, vec![]), table(AWAY, 3 * S, vec![row(away, vec![])])]));
    assert_eq!(gone_at(&mut by_look, 4), 5, "two looks in a row, a second apart");
    assert_eq!((by_look.loss().missed_opens, by_look.loss().missed_closes), (0, 1));
    // Events have: their word is waited for, unless some were lost.
    let told = || {
        let mut tracker = tracker();
        tracker.apply(&event(K::Open, 2 * S, away, (TcpState::SynSent, Established)));
        tracker
    };
    assert_eq!(gone_at(&mut told(), 4), 604);
    let mut lossy = told();
    lossy.apply_inventory(look(vec![table(HOME, 3 * S, vec![])]));
    lossy.note_loss(Loss { ring_full: 1, ..Loss::default() }, BootNs(10 * S));
    assert_eq!(gone_at(&mut lossy, 11), 12);
}

#[test]
fn what_a_namespace_held_before_it_came_into_sight_was_not_missed() {
    let away = |port| row(tuple(AWAY, port, "10.0.0.5:5432"), vec![]);
    let mut late = tracker();
    late.apply_inventory(look(vec![table(HOME, 3 * S, vec![]), table(AWAY, 3 * S, vec![away(1001)])]));
    assert_eq!(late.loss().missed_opens, 0);
    late.apply_inventory(look(vec![table(HOME, 4 * S, vec![]), table(AWAY, 4 * S, vec![away(1001), away(1002)])]));
    assert_eq!(late.loss().missed_opens, 0, "it may be told yet");
    late.apply_inventory(look(vec![table(HOME, 7 * S, vec![]), table(AWAY, 7 * S, vec![away(1001), away(1002)])]));
    assert_eq!(late.loss().missed_opens, 1, "in sight, every opening is told");
    let mut lossy = tracker();
    lossy.note_loss(Loss { ring_full: 1, ..Loss::default() }, BootNs(2 * S));
    lossy.apply_inventory(look(vec![table(HOME, 3 * S, vec![]), table(AWAY, 3 * S, vec![away(1001)])]));
    lossy.apply_inventory(look(vec![table(HOME, 6 * S, vec![]), table(AWAY, 6 * S, vec![away(1001)])]));
    assert_eq!(lossy.loss().missed_opens, 1, "with a loss known it may be that");
}

#[test]
fn what_a_recognized_port_had_before_is_filled_in_and_not_missed() {
    let mut tracker = tracker();
    let at_port = |port| row(tuple(HOME, port, "10.0.0.5:5499"), vec![]);
    // An event that was faster than the look which names the database.
    tracker.apply(&event(K::Open, 2 * S, tuple(HOME, 1000, "10.0.0.5:5499"), (TcpState::SynSent, Established)));
    assert_eq!(tracker.endpoints()[0].database, "other");
    let found = RecognizedPort {
        port: 5499,
        database: "postgres".to_owned(),
        program: "postgres".to_owned(),
        pid: 9,
        netns: HOME,
    };
    let recognized = vec![found];
    tracker.apply_inventory(Inventory { recognized, ..look(vec![table(HOME, 3 * S, vec![at_port(1000)])]) });
    assert_eq!(tracker.endpoints()[0].database, "postgres");
    let rows = vec![at_port(1000), at_port(1001), at_port(1002)];
    tracker.apply_inventory(look(vec![table(HOME, 4 * S, rows)]));
    assert_eq!((counts(&tracker)[0].1, tracker.loss().missed_opens), (3, 0));
    let rows = vec![at_port(1000), at_port(1001), at_port(1002), at_port(1003)];
    tracker.apply_inventory(look(vec![table(HOME, 5 * S, rows.clone())]));
    tracker.apply_inventory(look(vec![table(HOME, 8 * S, rows)]));
    assert_eq!((counts(&tracker)[0].1, tracker.loss().missed_opens), (4, 1));
}

#[test]
fn a_namespace_left_for_later_is_in_sight_and_proves_nothing() {
    let mut tracker = tracker();
    let away = tuple(AWAY, 1001, "10.0.0.5:5432");
    tracker.apply(&event(K::Open, 2 * S, away, (TcpState::SynSent, Established)));
    for at in [3, 5, 7] {
        let skipping = Inventory { skipped: vec![AWAY], ..look(vec![table(HOME, at * S, vec![])]) };
        assert!(!tracker.apply_inventory(skipping));
        assert_eq!(tracker.unseen_inodes(), BTreeSet::from([(AWAY, 1001)]), "its table is wanted next");
    }
    assert_eq!((counts(&tracker)[0].1, tracker.completeness()), (1, Completeness::Exact));
    // It was in sight all the time: what events did not tell was missed.
    let rows = vec![row(away, vec![holder(42)]), row(tuple(AWAY, 1002, "10.0.0.5:5432"), vec![])];
    for at in [9, 12] {
        tracker.apply_inventory(look(vec![table(HOME, at * S, vec![]), table(AWAY, at * S, rows.clone())]));
    }
    assert_eq!((counts(&tracker)[0].1, tracker.loss().missed_opens), (2, 1));
}
