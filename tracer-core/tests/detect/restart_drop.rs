//! `restart_drop`: a restart that freed a climb, and ends that say nothing.

use tracer_core::event::Role;
use tracer_core::finding::{Change, Finding, Kind, Severity};
use tracer_core::snapshot::Loss;

use crate::scene::{Scene, number};

fn drops(scene: &Scene) -> Vec<Finding> {
    scene.findings().into_iter().filter(|finding| finding.kind == Kind::RestartDrop).collect()
}

fn changes(scene: &Scene) -> Vec<Change> {
    let lines = scene.lines.iter().filter(|line| line.finding.kind == Kind::RestartDrop);
    lines.map(|line| line.change).filter(|change| *change != Change::Updated).collect()
}

/// Opens one every `period` seconds without using it.
fn climb(scene: &mut Scene, pid: u32, period: u64, seconds: u64) -> Vec<u16> {
    let mut all = Vec::new();
    for second in 0..seconds {
        if second % period == 0 {
            all.extend(scene.open(Role::Client, pid, 1));
            scene.name(pid, "worker.py");
        }
        scene.pass_looking_from(second, 1);
    }
    all
}

#[test]
fn restart_drop_says_how_many_a_restart_freed() {
    let mut scene = Scene::new(None);
    climb(&mut scene, 412, 4, 200);
    scene.exit(412);
    scene.open(Role::Client, 413, 2);
    scene.name(413, "worker.py");
    scene.pass_looking(39);
    assert!(drops(&scene).is_empty(), "it may be back in a moment");
    scene.pass_looking(5);
    let finding = drops(&scene).remove(0);
    assert_eq!((finding.severity, &finding.subject.pids), (Severity::Info, &vec![412]));
    assert_eq!((number(&finding, "before"), number(&finding, "after")), (50, 2));
    assert_eq!(
        finding.summary,
        "worker.py held 50 connections to orders-db before pid 412 ended, and 2 after that: the climb was its own"
    );
    scene.pass_looking(3_600);
    assert_eq!(changes(&scene), [Change::Opened, Change::Resolved], "an hour is enough");
    let last = &scene.lines.iter().rfind(|line| line.finding.kind == Kind::RestartDrop).unwrap().finding;
    assert!(last.summary.starts_with("worker.py holds 2 connections to orders-db (was 50"), "{}", last.summary);
}

#[test]
fn restart_drop_sees_an_orderly_end() {
    let mut scene = Scene::new(None);
    let mut ports = climb(&mut scene, 412, 4, 200);
    scene.open(Role::Client, 413, 2);
    scene.name(413, "worker.py");
    for _ in 0..5 {
        scene.close(&ports.split_off(ports.len() - 10));
        scene.pass(1);
    }
    scene.exit(412);
    scene.pass_looking(50);
    assert_eq!(number(&drops(&scene)[0], "before"), 52, "with what its successor had by then");
}

#[test]
fn restart_drop_clears_when_the_group_is_back_at_its_height() {
    let mut scene = Scene::new(None);
    climb(&mut scene, 412, 4, 200);
    scene.exit(412);
    scene.open(Role::Client, 413, 2);
    scene.name(413, "worker.py");
    scene.pass_looking(60);
    assert_eq!(drops(&scene).len(), 1);
    climb(&mut scene, 413, 4, 200);
    assert_eq!(changes(&scene), [Change::Opened, Change::Resolved]);
}

#[test]
fn restart_drop_is_of_a_group_whose_launchers_pile_up() {
    let mut scene = Scene::new(None);
    for pid in 400..420 {
        scene.open(Role::Client, pid, 3);
        scene.name(pid, "route_builder_launcher.py");
        scene.pass_looking(15);
    }
    for pid in 400..419 {
        scene.exit(pid);
    }
    scene.pass_looking(60);
    let finding = drops(&scene).remove(0);
    assert_eq!((number(&finding, "before"), number(&finding, "after")), (60, 3));
    assert_eq!(finding.subject.pids.len(), 19);
}

#[test]
fn restart_drop_is_less_sure_after_loss() {
    let mut scene = Scene::new(None);
    climb(&mut scene, 412, 4, 200);
    scene.exit(412);
    scene.open(Role::Client, 413, 2);
    scene.name(413, "worker.py");
    scene.pass_looking(60);
    let before = drops(&scene)[0].confidence;
    scene.tracker.note_loss(Loss { ring_full: 5, ..Loss::default() }, scene.now);
    scene.pass(1);
    assert!(drops(&scene)[0].confidence < before);
}

#[test]
fn restart_drop_is_silent_for_a_flat_pool_a_service_switched_off_and_few_connections() {
    let mut flat = Scene::new(None);
    flat.open(Role::Client, 412, 50);
    flat.name(412, "worker.py");
    flat.pass_looking(300);
    flat.exit(412);
    flat.open(Role::Client, 413, 5);
    flat.name(413, "worker.py");
    flat.pass_looking(300);
    assert!(changes(&flat).is_empty(), "a flat pool");

    let mut off = Scene::new(None);
    climb(&mut off, 412, 4, 200);
    off.exit(412);
    off.pass_looking(300);
    assert!(changes(&off).is_empty(), "switched off");

    let mut few = Scene::new(None);
    climb(&mut few, 412, 15, 134);
    few.exit(412);
    few.open(Role::Client, 413, 1);
    few.name(413, "worker.py");
    few.pass_looking(300);
    assert!(changes(&few).is_empty(), "nine");
}

#[test]
fn restart_drop_is_silent_for_a_deploy_that_comes_back_and_a_pool_that_grew_with_load() {
    let mut back = Scene::new(None);
    climb(&mut back, 412, 4, 200);
    back.exit(412);
    back.open(Role::Client, 413, 45);
    back.name(413, "worker.py");
    back.pass_looking(300);
    assert!(changes(&back).is_empty(), "it came back");

    let mut load = Scene::new(None);
    let mut pool = Vec::new();
    for second in 0..200 {
        if second % 4 == 0 {
            pool.extend(load.open(Role::Client, 412, 1));
            load.name(412, "worker.py");
        }
        load.exchange(&pool);
        load.pass_looking_from(second, 1);
    }
    load.exit(412);
    load.open(Role::Client, 413, 2);
    load.name(413, "worker.py");
    load.pass_looking(300);
    assert!(changes(&load).is_empty(), "all were used");
}
