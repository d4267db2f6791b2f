//! `duplicate_launchers`.

use tracer_core::event::Role;
use tracer_core::finding::{Change, Finding, Kind, Severity};
use tracer_core::identity::{Ancestor, Identity};
use tracer_core::snapshot::Loss;

use crate::scene::{Scene, number};

const LAUNCHER: &str = "route_builder_launcher.py";

/// Copies with these pids, each started so many seconds after the last; each opens `each` connections.
fn start(scene: &mut Scene, pids: std::ops::Range<u32>, apart: u64, each: u16, more: impl Fn(&mut Identity)) {
    for (nth, pid) in (0..).zip(pids) {
        scene.starts.insert(pid, 10_000 + nth * apart * 100);
        scene.open(Role::Client, pid, each);
        scene.identify(pid, LAUNCHER, |identity| {
            identity.ppid = Some(1);
            identity.ancestors = vec![ancestor(50, "bash"), ancestor(1, "systemd")];
            more(identity);
        });
    }
}

fn ancestor(pid: u32, comm: &str) -> Ancestor {
    Ancestor { pid, comm: comm.to_owned() }
}

fn duplicates(scene: &Scene) -> Vec<Finding> {
    scene.findings().into_iter().filter(|finding| finding.kind == Kind::DuplicateLaunchers).collect()
}

#[track_caller]
fn only(scene: &Scene) -> Finding {
    let mut all = duplicates(scene);
    assert_eq!(all.len(), 1, "{all:#?}");
    all.remove(0)
}

/// Nothing is found of such copies, neither at once nor later.
#[track_caller]
fn silent(scene: &mut Scene) {
    scene.pass_looking(120);
    assert_eq!(duplicates(scene), []);
}

#[test]
fn three_copies_are_found_within_a_second() {
    let mut scene = Scene::new(None);
    start(&mut scene, 412..414, 60, 4, |_| {});
    scene.pass(1);
    assert_eq!(duplicates(&scene), [], "two may be a deploy");
    start(&mut scene, 414..415, 60, 4, |_| {});
    // It was started at the same moment as the first.
    scene.pass(1);
    assert_eq!(duplicates(&scene), []);
    let mut scene = Scene::new(None);
    start(&mut scene, 412..415, 60, 4, |_| {});
    scene.pass(1);
    let finding = only(&scene);
    assert_eq!(finding.severity, Severity::Warning);
    assert_eq!(
        finding.summary,
        "route_builder_launcher.py 3 copies (412, 413, 414), started 15 min to 13 min ago, 12 connections to orders-db"
    );
    assert!((finding.confidence - 0.95).abs() < 1e-9);
}

#[test]
fn twenty_five_copies_hold_96_of_100() {
    let mut scene = Scene::new(Some(100));
    start(&mut scene, 401..425, 10, 4, |_| {});
    scene.open(Role::Client, 777, 1);
    scene.pass(1);
    assert_eq!(only(&scene).severity, Severity::Critical, "96 of 100");
    start(&mut scene, 425..426, 10, 4, |_| {});
    scene.pass_looking(60);
    let finding = only(&scene);
    assert!(finding.summary.starts_with("route_builder_launcher.py 25 copies (401, 402, 403, ... 22 more), started"));
    assert!(finding.summary.ends_with("100 connections to orders-db"), "{}", finding.summary);
    assert_eq!(finding.subject.pids, (401..426).collect::<Vec<u32>>());
    assert_eq!(finding.subject.launcher_group.as_deref(), Some("group-of-route_builder_launcher.py"));
    assert_eq!((number(&finding, "copies"), number(&finding, "connections")), (25, 100));
    assert_eq!(number(&finding, "could_hold"), 100);
    assert_eq!(number(&finding, "estimated_server_memory"), 100 * (5 << 20));
    // All but the last are killed.
    for pid in 401..425 {
        scene.exit(pid);
    }
    scene.pass(9);
    assert_eq!(duplicates(&scene).len(), 1, "a window below the trigger comes first");
    scene.pass(2);
    let lines = scene.lines.iter().filter(|line| line.finding.kind == Kind::DuplicateLaunchers);
    let changes: Vec<(Change, &str)> = lines.map(|line| (line.change, line.finding.summary.as_str())).collect();
    let (change, last) = changes.last().unwrap();
    assert_eq!(*change, Change::Resolved);
    assert_eq!(*last, "route_builder_launcher.py 1 copy, 4 connections (was 25, 100), open for 1 min");
}

#[test]
fn what_each_had_at_most_is_what_it_can_hold() {
    let mut scene = Scene::new(None);
    start(&mut scene, 401..404, 10, 4, |_| {});
    let more = scene.open(Role::Client, 401, 11);
    scene.close(&more);
    scene.pass(1);
    assert_eq!(number(&only(&scene), "could_hold"), 15 + 4 + 4);
    assert_eq!(number(&only(&scene), "idle"), 0);
    scene.pass_looking(61);
    assert_eq!(number(&only(&scene), "idle"), 12);
}

#[test]
fn copies_of_one_moment_are_workers_of_one_command() {
    let mut scene = Scene::new(None);
    start(&mut scene, 401..426, 0, 4, |_| {});
    silent(&mut scene);
}

#[test]
fn workers_of_a_master_are_one_copy() {
    // gunicorn, node's cluster: the parent runs the same program, and need not hold anything itself.
    let mut scene = Scene::new(None);
    start(&mut scene, 401..409, 30, 4, |identity| {
        identity.master = Some(400);
        identity.ancestors.insert(0, ancestor(400, "python3"));
    });
    silent(&mut scene);
    // Its master holds something, too.
    start(&mut scene, 400..401, 0, 1, |_| {});
    silent(&mut scene);
}

#[test]
fn descendants_of_one_copy_are_its_own() {
    let mut scene = Scene::new(None);
    start(&mut scene, 401..402, 30, 1, |_| {});
    start(&mut scene, 402..409, 30, 4, |identity| {
        identity.ancestors = vec![ancestor(55, "sh"), ancestor(401, "python3"), ancestor(1, "systemd")];
    });
    silent(&mut scene);
}

#[test]
fn three_masters_are_three_copies() {
    let mut scene = Scene::new(None);
    for (nth, master) in [400, 500, 600].into_iter().enumerate() {
        for worker in master + 1..master + 5 {
            scene.starts.insert(worker, 10_000 + u64::try_from(nth).unwrap() * 1_000);
            scene.open(Role::Client, worker, 2);
            scene.identify(worker, "gunicorn", |identity| {
                identity.master = Some(master);
                identity.ancestors = vec![ancestor(master, "gunicorn"), ancestor(50, "bash"), ancestor(1, "systemd")];
            });
        }
    }
    scene.pass(1);
    let finding = only(&scene);
    assert_eq!((finding.subject.pids, finding.severity), (vec![400, 500, 600], Severity::Warning));
    assert!(finding.summary.contains("gunicorn 3 copies") && finding.summary.contains("24 connections"));
}

#[test]
fn what_a_manager_of_workers_keeps_is_there_by_plan() {
    for manager in ["supervisord", "PM2 v5.3.0: God", "php-fpm8.2", "gunicorn", "xargs", "jupyter-lab"] {
        let mut scene = Scene::new(None);
        start(&mut scene, 401..409, 30, 4, |identity| {
            identity.ancestors = vec![ancestor(60, "sh"), ancestor(50, manager), ancestor(1, "systemd")];
        });
        silent(&mut scene);
    }
    for parent in ["bash", "tmux: server", "sshd", "cron", "nohup", "systemd", "python3"] {
        let mut scene = Scene::new(None);
        start(&mut scene, 401..409, 30, 4, |identity| identity.ancestors = vec![ancestor(50, parent)]);
        scene.pass(1);
        assert_eq!(only(&scene).subject.pids.len(), 8, "{parent}");
    }
}

#[test]
fn workers_stay_workers_when_their_master_ends_first() {
    let mut scene = Scene::new(None);
    start(&mut scene, 400..404, 60, 3, |identity| {
        (identity.ppid, identity.master) = (Some(90), Some(90));
        identity.ancestors.insert(0, ancestor(90, "python3"));
    });
    silent(&mut scene);
    for pid in 400..404 {
        scene.identify(pid, LAUNCHER, |identity| {
            (identity.ppid, identity.ancestors) = (Some(1), vec![ancestor(1, "systemd")]);
        });
    }
    silent(&mut scene);
}

#[test]
fn instances_of_units_are_different_jobs() {
    let mut scene = Scene::new(None);
    start(&mut scene, 401..409, 30, 4, |identity| {
        identity.systemd_unit = Some(format!("worker@{}.service", identity.id.pid));
    });
    silent(&mut scene);
    // Three that one unit's shell script left behind, and as many by hand, are none.
    for unit in [Some("worker.service"), Some("run-u12.service"), Some("vte-spawn-1.scope"), None] {
        let mut scene = Scene::new(None);
        start(&mut scene, 401..404, 30, 4, |identity| identity.systemd_unit = unit.map(str::to_owned));
        scene.pass(1);
        assert_eq!(only(&scene).subject.pids, [401, 402, 403], "{unit:?}");
    }
}

#[test]
fn replicas_in_containers_are_told_and_no_more() {
    let mut scene = Scene::new(Some(20));
    start(&mut scene, 401..406, 30, 4, |identity| {
        identity.container_id = Some(format!("c{}", identity.id.pid));
    });
    scene.pass(1);
    let finding = only(&scene);
    assert_eq!(finding.severity, Severity::Info, "even at the limit: that is limit_pressure's");
    assert!(finding.summary.contains("5 replicas (401, 402, 403, ... 2 more)"), "{}", finding.summary);
    // Several in one container are copies.
    let mut scene = Scene::new(None);
    start(&mut scene, 401..406, 30, 4, |identity| identity.container_id = Some("c1".to_owned()));
    scene.pass(1);
    assert_eq!(only(&scene).severity, Severity::Warning);
}

#[test]
fn people_with_a_client_are_no_copies() {
    let mut scene = Scene::new(None);
    for (nth, pid) in (401..409).enumerate() {
        scene.starts.insert(pid, 10_000 + u64::try_from(nth).unwrap() * 3_000);
        scene.open(Role::Client, pid, 1);
        scene.name(pid, "psql");
    }
    silent(&mut scene);
}

#[test]
fn different_groups_and_unknown_ones_are_no_copies() {
    let mut scene = Scene::new(None);
    for (nth, pid) in (401..409).enumerate() {
        scene.starts.insert(pid, 10_000 + u64::try_from(nth).unwrap() * 3_000);
        scene.open(Role::Client, pid, 4);
        if pid < 405 {
            scene.name(pid, &format!("job{pid}.py"));
        }
    }
    silent(&mut scene);
}

#[test]
fn loss_and_unknown_parents_lower_the_confidence_only() {
    let mut scene = Scene::new(None);
    start(&mut scene, 401..405, 30, 4, |identity| identity.ancestors.clear());
    scene.pass(1);
    assert!((only(&scene).confidence - 0.8).abs() < 1e-9);
    scene.tracker.note_loss(Loss { ring_full: 5, ..Loss::default() }, scene.now);
    scene.pass(1);
    assert!((only(&scene).confidence - 0.72).abs() < 1e-9);
    assert_eq!(only(&scene).subject.pids.len(), 4);
}

#[test]
fn a_copy_that_comes_and_goes_does_not_flap() {
    let mut scene = Scene::new(None);
    start(&mut scene, 401..404, 30, 1, |_| {});
    let mut ports = scene.open(Role::Client, 403, 0);
    for _ in 0..30 {
        ports.extend(scene.open(Role::Client, 404, 1));
        scene.identify(404, LAUNCHER, |_| {});
        scene.pass(2);
        scene.close(&ports.split_off(0));
        scene.pass(2);
    }
    let changes = scene.changes();
    assert_eq!(changes.iter().filter(|change| **change == Change::Opened).count(), 1);
    assert!(!changes.contains(&Change::Resolved));
    let pids = only(&scene).subject.pids;
    assert_eq!(pids, [401, 402, 403]);
}
