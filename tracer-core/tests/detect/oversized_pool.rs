//! `oversized_pool`.

use tracer_core::event::Role;
use tracer_core::finding::{Change, Finding, Kind, Severity};
use tracer_core::snapshot::Loss;

use crate::scene::{Scene, number};

fn found(scene: &Scene) -> Option<Finding> {
    scene.findings().into_iter().find(|finding| finding.kind == Kind::OversizedPool)
}

fn changes(scene: &Scene) -> Vec<Change> {
    scene.lines.iter().filter(|line| line.finding.kind == Kind::OversizedPool).map(|line| line.change).collect()
}

/// These work, one after the other, for so long.
fn work(scene: &mut Scene, ports: &[u16], minutes: u64) {
    for _ in 0..minutes * 6 {
        scene.exchange(ports);
        scene.pass_looking(10);
    }
}

#[test]
fn oversized_pool_says_how_many_are_used() {
    let mut scene = Scene::new(None);
    let ports = scene.open(Role::Client, 412, 20);
    scene.name(412, "api.py");
    work(&mut scene, &ports[..2], 9);
    assert_eq!(found(&scene), None);
    work(&mut scene, &ports[..2], 3);
    let finding = found(&scene).unwrap();
    assert_eq!(
        finding.summary,
        "api.py (pid 412) keeps 20 connections to orders-db open and used at most 2 at once, seen for 12 min"
    );
    assert_eq!((finding.severity, &finding.subject.pids), (Severity::Info, &vec![412]));
    assert!((0.6..0.62).contains(&finding.confidence), "{}", finding.confidence);
    work(&mut scene, &ports[..2], 60);
    assert_eq!(changes(&scene), [Change::Opened]);
}

#[test]
fn oversized_pool_is_silent_in_a_short_quiet_spell() {
    let mut scene = Scene::new(None);
    let ports = scene.open(Role::Client, 412, 20);
    for _ in 0..6 {
        work(&mut scene, &ports[..15], 5);
        work(&mut scene, &ports[..1], 9);
    }
    assert_eq!(changes(&scene), []);
}

#[test]
fn oversized_pool_remembers_the_nightly_batch() {
    let mut scene = Scene::new(None);
    let ports = scene.open(Role::Client, 412, 20);
    work(&mut scene, &ports, 3);
    for _ in 0..23 * 6 {
        // Too long for one look a second: what matters is the history.
        work(&mut scene, &ports[..1], 1);
        scene.now = scene.now.plus(std::time::Duration::from_secs(540));
    }
    assert_eq!(changes(&scene), [], "it was needed 23 hours ago");
    for _ in 0..2 * 6 {
        work(&mut scene, &ports[..1], 1);
        scene.now = scene.now.plus(std::time::Duration::from_secs(540));
    }
    assert_eq!(changes(&scene), [Change::Opened], "a day and more without");
    work(&mut scene, &ports, 1);
    assert_eq!(changes(&scene).last(), Some(&Change::Resolved), "and here it is again");
    let last = &scene.lines.iter().rfind(|line| line.change == Change::Resolved).unwrap().finding.summary;
    assert!(last.contains("far larger than what it uses (was 20, 1 used)"), "{last}");
}

#[test]
fn oversized_pool_warns_when_all_instances_press_on_the_limit() {
    let mut scene = Scene::new(Some(100));
    for pid in 400..404 {
        scene.open(Role::Client, pid, 15);
        scene.name(pid, "route_builder.py");
    }
    scene.open(Role::Client, 900, 3);
    scene.pass_looking(700);
    let finding = found(&scene).unwrap();
    assert_eq!(finding.severity, Severity::Warning);
    assert_eq!(
        finding.summary,
        "4 copies of route_builder.py (pids 400, 401, 402, ... 1 more) keep 60 connections to orders-db open and used \
         none each; 4 pools hold 60 of 100, seen for 11 min"
    );
    assert_eq!((number(&finding, "instances_hold"), number(&finding, "limit")), (60, 100));
}

#[test]
fn oversized_pool_is_silent_for_small_pools_and_for_used_ones() {
    let mut scene = Scene::new(None);
    scene.open(Role::Client, 412, 3);
    let rotating = scene.open(Role::Client, 413, 20);
    let long = scene.open(Role::Client, 414, 20);
    for _ in 0..80 {
        scene.exchange(&rotating);
        scene.request(&long[..5]);
        scene.pass_looking(10);
    }
    assert_eq!(changes(&scene), []);
}

#[test]
fn oversized_pool_is_silent_until_enough_looks_tell_what_is_used() {
    let mut scene = Scene::new(None);
    let ports = scene.open(Role::Client, 412, 20);
    // All of them work; from five minutes to five minutes the first look tells nothing of it.
    for _ in 0..8 {
        scene.pass(300);
        scene.exchange(&ports);
        scene.look();
    }
    assert_eq!(changes(&scene), []);
    // One at rest: the sixth look says so.
    let mut idle = Scene::new(None);
    idle.open(Role::Client, 412, 20);
    for looks in 1..=8 {
        idle.pass(300);
        idle.look();
        idle.pass(1);
        assert_eq!(found(&idle).is_some(), looks >= 6, "after {looks} looks");
    }
}

#[test]
fn oversized_pool_is_silent_while_the_pool_shrinks_by_itself() {
    let mut scene = Scene::new(None);
    for _ in 0..8 {
        let ports = scene.open(Role::Client, 412, 20);
        work(&mut scene, &ports[..1], 8);
        scene.close(&ports[1..]);
        scene.pass_looking(20);
        scene.close(&ports[..1]);
    }
    assert_eq!(changes(&scene), []);
}

#[test]
fn oversized_pool_survives_loss_and_compressed_time() {
    let mut scene = Scene::new(None);
    scene.config.window = std::time::Duration::from_secs(1);
    scene.tracker.set_window(std::time::Duration::from_secs(1));
    scene.open(Role::Client, 412, 20);
    for _ in 0..62 {
        scene.look();
        scene.pass(1);
    }
    let exact = found(&scene).unwrap();
    scene.tracker.note_loss(Loss { ring_full: 5, ..Loss::default() }, scene.now);
    scene.pass(1);
    assert!(found(&scene).unwrap().confidence < exact.confidence);
}
