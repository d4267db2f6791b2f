//! `close_wait_leak`, and the bound on findings.

use std::time::Duration;

use tracer_core::event::{ProcessId, Role};
use tracer_core::finding::{Change, Kind, Severity};
use tracer_core::inventory::{Certainty, Holder, Inventory, SocketRow, Table};

use crate::scene::{NETNS, Scene, number};

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
    assert!(!scene.lines.iter().any(|line| line.finding.kind == Kind::CloseWaitLeak));
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
            holders: [Holder { process: ProcessId { pid: 412, start_ticks: 100 }, fd: 5 }].into_iter().collect(),
        })
        .collect();
    let mut restarted = Scene::new(None);
    let (started, finished) = (restarted.now, restarted.now.plus(Duration::from_millis(1)));
    let look = Inventory::of(Table { netns: NETNS, started, finished, sockets: states, ..Table::default() });
    restarted.tracker.apply_inventory(look);
    restarted.pass(62);
    let finding = restarted.only();
    assert_eq!(finding.subject.pids, [412]);
    assert!(finding.summary.contains("the oldest at least 1 min ago"), "{}", finding.summary);
    assert!(finding.confidence < 1.0);
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
fn close_wait_leak_does_not_repeat_itself_while_it_only_ages() {
    let mut scene = Scene::new(None);
    let ports = scene.open(Role::Client, 412, 2);
    scene.peer_closes(&ports);
    scene.pass(600);
    assert_eq!(scene.changes(), [Change::Opened]);
}
