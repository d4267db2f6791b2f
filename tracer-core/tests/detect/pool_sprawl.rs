//! `pool_sprawl`.

use tracer_core::event::Role;
use tracer_core::finding::{Change, Finding, Kind, Severity};
use tracer_core::snapshot::Loss;

use crate::scene::{Scene, number};

fn found(scene: &Scene) -> Option<Finding> {
    scene.findings().into_iter().find(|finding| finding.kind == Kind::PoolSprawl)
}

fn changes(scene: &Scene) -> Vec<Change> {
    scene.lines.iter().filter(|line| line.finding.kind == Kind::PoolSprawl).map(|line| line.change).collect()
}

/// Pools that fill at once, so many seconds apart.
fn pools(scene: &mut Scene, sizes: &[u16], apart: u64) -> Vec<Vec<u16>> {
    let open = |size: &u16| {
        let ports = scene.open(Role::Client, 412, *size);
        scene.pass_looking(apart);
        ports
    };
    let all = sizes.iter().map(open).collect();
    scene.name(412, "api.js");
    all
}

/// Each pool works with its first connection.
fn work(scene: &mut Scene, pools: &[Vec<u16>], rounds: usize) {
    for round in 0..rounds {
        let hot: Vec<u16> = pools.iter().map(|pool| pool[0]).collect();
        scene.exchange(&hot);
        scene.request(&[pools[round % pools.len()][0]]);
        scene.pass_looking(10);
        scene.exchange(&hot);
    }
}

#[test]
fn pool_sprawl_names_twelve_pools_in_one_process() {
    let mut scene = Scene::new(Some(100));
    let pools = pools(&mut scene, &[5; 12], 3);
    work(&mut scene, &pools, 5);
    assert_eq!(found(&scene), None, "more may come");
    work(&mut scene, &pools, 4);
    let finding = found(&scene).unwrap();
    assert_eq!(
        finding.summary,
        "api.js (pid 412) holds 60 connections to orders-db opened in 12 bursts (12 of 5), never more than 1 seen in \
         use at once"
    );
    assert_eq!((finding.severity, &finding.subject.pids), (Severity::Warning, &vec![412]));
    assert_eq!(
        (number(&finding, "bursts_while_others_were_idle"), number(&finding, "most_used_between_looks")),
        (11, 12)
    );
    assert!((finding.confidence - 1.0).abs() < 1e-9, "{}", finding.confidence);
    work(&mut scene, &pools, 60);
    assert_eq!(changes(&scene), [Change::Opened]);
}

#[test]
fn pool_sprawl_names_three_pools_of_different_sizes() {
    let mut scene = Scene::new(None);
    let pools = pools(&mut scene, &[20, 20, 25], 1);
    work(&mut scene, &pools, 12);
    let finding = found(&scene).unwrap();
    assert!(finding.summary.contains("65 connections to orders-db opened in 3 bursts (20, 20, 25)"), "{finding:#?}");
}

#[test]
fn pool_sprawl_is_told_by_even_bursts_where_every_connection_was_used_since() {
    let mut scene = Scene::new(None);
    let pools = pools(&mut scene, &[5; 12], 3);
    for _ in 0..12 {
        // Pools that take turns among their members.
        pools.iter().for_each(|pool| scene.exchange(pool));
        scene.pass_looking(10);
    }
    let finding = found(&scene).unwrap();
    assert_eq!(number(&finding, "bursts_while_others_were_idle"), 0);
    assert!((finding.confidence - 0.5).abs() < 1e-9, "{}", finding.confidence);
}

#[test]
fn pool_sprawl_is_silent_for_one_pool_that_grew_with_load() {
    let mut scene = Scene::new(None);
    let mut pool: Vec<u16> = Vec::new();
    for _ in 0..4 {
        // All are out when more are opened.
        scene.request(&pool);
        scene.pass_looking(2);
        pool.extend(scene.open(Role::Client, 412, 5));
        scene.pass_looking(2);
        scene.exchange(&pool);
        scene.pass_looking(30);
    }
    for _ in 0..100 {
        scene.exchange(&pool[..2]);
        scene.pass_looking(10);
    }
    assert_eq!(changes(&scene), []);
}

#[test]
fn pool_sprawl_is_silent_for_members_replaced_by_age() {
    let mut scene = Scene::new(None);
    let mut pool = scene.open(Role::Client, 412, 20);
    for _ in 0..60 {
        scene.pass_looking(60);
        let old: Vec<u16> = pool.drain(..3).collect();
        scene.close(&old);
        pool.extend(scene.open(Role::Client, 412, 3));
        scene.exchange(&pool[..1]);
    }
    scene.pass_looking(600);
    assert_eq!(changes(&scene), []);
}

#[test]
fn pool_sprawl_is_silent_for_reconnects() {
    let mut scene = Scene::new(None);
    let mut pool = scene.open(Role::Client, 412, 20);
    for _ in 0..5 {
        scene.pass_looking(200);
        scene.close(&pool);
        pool = scene.open(Role::Client, 412, 20);
    }
    scene.pass_looking(600);
    assert_eq!(changes(&scene), []);
}

#[test]
fn pool_sprawl_is_silent_for_connections_that_come_one_by_one() {
    let mut scene = Scene::new(None);
    for _ in 0..40 {
        scene.open(Role::Client, 412, 1);
        scene.pass_looking(5);
    }
    scene.pass_looking(600);
    assert_eq!(changes(&scene), []);
}

#[test]
fn pool_sprawl_is_silent_for_threads_that_open_together_by_chance() {
    let mut scene = Scene::new(None);
    for size in [3, 3, 1, 2, 2, 4, 1, 2, 2, 3, 1, 2, 2] {
        let ports = scene.open(Role::Client, 412, size);
        scene.exchange(&ports);
        scene.pass_looking(10);
    }
    scene.pass_looking(600);
    assert_eq!(changes(&scene), []);
}

#[test]
fn pool_sprawl_leaves_a_leak_in_batches_to_others() {
    let mut scene = Scene::new(None);
    for _ in 0..20 {
        scene.open(Role::Client, 412, 4);
        scene.pass_looking(100);
    }
    assert_eq!(changes(&scene), []);
}

#[test]
fn pool_sprawl_is_about_one_endpoint() {
    let mut scene = Scene::new(None);
    for _ in 0..2 {
        scene.open(Role::Client, 412, 10);
        scene.pass_looking(5);
        scene.open_elsewhere(412, 10);
        scene.pass_looking(5);
    }
    scene.pass_looking(600);
    assert_eq!(changes(&scene), []);
    assert_eq!(scene.tracker.endpoints().len(), 2);
}

#[test]
fn pool_sprawl_is_silent_while_the_connections_are_needed() {
    let mut scene = Scene::new(None);
    let pools = pools(&mut scene, &[5; 4], 3);
    for _ in 0..30 {
        pools.iter().for_each(|pool| scene.request(&pool[..3]));
        scene.pass_looking(10);
        pools.iter().for_each(|pool| scene.exchange(pool));
    }
    assert_eq!(changes(&scene), [], "12 of 20 in use at once");
}

#[test]
fn pool_sprawl_survives_loss_and_resolves_with_the_pools() {
    let mut scene = Scene::new(None);
    let pools = pools(&mut scene, &[6, 5, 7, 5], 4);
    work(&mut scene, &pools, 12);
    let exact = found(&scene).unwrap();
    scene.tracker.note_loss(Loss { ring_full: 5, ..Loss::default() }, scene.now);
    scene.pass(1);
    let after = found(&scene).unwrap();
    assert!(after.confidence < exact.confidence && after.id == exact.id);
    // One more pool, and one less: still the same finding.
    scene.open(Role::Client, 412, 5);
    scene.pass_looking(10);
    scene.close(&pools[1]);
    scene.pass_looking(60);
    assert_eq!(found(&scene).unwrap().id, exact.id);
    pools.iter().skip(2).for_each(|pool| scene.close(pool));
    scene.pass_looking(40);
    assert_eq!(found(&scene), None);
    let last = scene.lines.iter().rfind(|line| line.finding.kind == Kind::PoolSprawl).unwrap();
    assert_eq!(last.change, Change::Resolved);
    assert!(last.finding.summary.starts_with("api.js (pid 412) has no more pools to 10.0.0.5:5432 than it uses (was "));
}

#[test]
fn pool_sprawl_does_not_guess_at_connections_older_than_the_daemon() {
    let mut scene = Scene::new(None);
    pools(&mut scene, &[5; 12], 3);
    let mut restarted = Scene::new(None);
    restarted.now = scene.now;
    restarted.take_over(&scene);
    restarted.pass_looking(600);
    assert_eq!(restarted.tracker.sockets().count(), 60);
    assert_eq!(changes(&restarted), []);
}
