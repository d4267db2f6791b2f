//! `unused_connection`.

use tracer_core::event::Role;
use tracer_core::finding::{Change, Finding, Kind, Severity};
use tracer_core::snapshot::Loss;

use crate::scene::{Scene, number};

fn unused(scene: &Scene) -> Vec<Finding> {
    scene.findings().into_iter().filter(|finding| finding.kind == Kind::UnusedConnection).collect()
}

#[track_caller]
fn only(scene: &Scene) -> Finding {
    let mut all = unused(scene);
    assert_eq!(all.len(), 1, "{all:#?}");
    all.remove(0)
}

/// A process that opens one every 30 s and uses none of them.
fn idle_clients(count: u16) -> (Scene, Vec<u16>) {
    let mut scene = Scene::new(None);
    let mut ports = Vec::new();
    for _ in 0..count {
        ports.extend(scene.open(Role::Client, 412, 1));
        scene.name(412, "import.py");
        scene.pass_looking(30);
    }
    (scene, ports)
}

#[test]
fn clients_that_are_opened_in_turn_and_never_used() {
    let (mut scene, ports) = idle_clients(3);
    scene.pass_looking(60);
    assert_eq!(unused(&scene), [], "the third is younger than 2 minutes");
    scene.pass_looking(60);
    let finding = only(&scene);
    assert_eq!(finding.severity, Severity::Info);
    assert_eq!((number(&finding, "unused"), number(&finding, "in_turn")), (3, 3));
    assert_eq!(
        finding.summary,
        "import.py (pid 412) opened 3 connections to orders-db and said nothing on them since, the oldest 3 min ago"
    );
    assert!((finding.confidence - 0.8).abs() < 1e-9);
    scene.tracker.note_loss(Loss { ring_full: 1, ..Loss::default() }, scene.now);
    scene.pass(1);
    assert!((only(&scene).confidence - 0.72).abs() < 1e-9);
    scene.exchange(&ports[..1]);
    scene.pass_looking(30);
    assert_eq!(unused(&scene), []);
    let last = scene.lines.iter().rev().find(|line| line.finding.kind == Kind::UnusedConnection).unwrap();
    assert_eq!(last.change, Change::Resolved);
    assert!(last.finding.summary.contains("has used or closed its connections to 10.0.0.5:5432 (was 3 never used)"));
}

#[test]
fn what_a_pool_opened_at_once_and_leaves_at_rest_is_healthy() {
    let mut scene = Scene::new(None);
    scene.open(Role::Client, 412, 10);
    scene.name(412, "server.js");
    scene.pass_looking(7_200);
    assert_eq!(unused(&scene), []);
}

#[test]
fn a_pool_that_works_with_few_of_its_members_is_told_after_an_hour() {
    let mut scene = Scene::new(None);
    let ports = scene.open(Role::Client, 412, 10);
    scene.name(412, "server.js");
    for _ in 0..110 {
        scene.pass_looking(30);
        scene.exchange(&ports[..3]);
    }
    assert_eq!(unused(&scene), []);
    for _ in 0..20 {
        scene.pass_looking(30);
        scene.exchange(&ports[..3]);
    }
    let finding = only(&scene);
    assert_eq!((finding.severity, number(&finding, "unused")), (Severity::Info, 7));
    assert!((finding.confidence - 0.6).abs() < 1e-9);
}

#[test]
fn a_pool_that_recycles_its_members_is_healthy() {
    let mut scene = Scene::new(None);
    let mut pool: Vec<u16> = scene.open(Role::Client, 412, 10);
    scene.name(412, "Server");
    // One after the other is replaced, every 3 minutes; three do all the work.
    for _ in 0..40 {
        for _ in 0..6 {
            scene.pass_looking(30);
            scene.exchange(&pool[..3]);
        }
        let old = pool.remove(3);
        scene.close(&[old]);
        pool.extend(scene.open(Role::Client, 412, 1));
    }
    assert!(scene.lines.iter().all(|line| line.finding.kind != Kind::UnusedConnection), "{:#?}", scene.lines);
}

#[test]
fn traffic_is_use() {
    // Replication, LISTEN with notifications, heartbeats.
    let (mut scene, ports) = idle_clients(3);
    for _ in 0..30 {
        scene.exchange(&ports);
        scene.pass_looking(10);
    }
    assert_eq!(unused(&scene), []);
}

#[test]
fn what_was_open_before_tracing_began_has_an_unknown_past() {
    let (mut scene, _) = idle_clients(3);
    let mut later = Scene::new(None);
    std::mem::swap(&mut scene.tracker, &mut later.tracker);
    scene.pass_looking(600);
    scene.name(412, "import.py");
    scene.pass_looking(60);
    assert_eq!(scene.tracker.sockets().count(), 3, "they were found");
    assert_eq!(unused(&scene), []);
}
