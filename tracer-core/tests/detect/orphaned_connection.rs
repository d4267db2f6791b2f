//! `orphaned_connection`.

use tracer_core::event::Role;
use tracer_core::finding::{Change, Finding, Kind, Severity};
use tracer_core::identity::Ancestor;
use tracer_core::snapshot::Loss;

use crate::scene::{Scene, number};

fn orphans(scene: &Scene) -> Vec<Finding> {
    scene.findings().into_iter().filter(|finding| finding.kind == Kind::OrphanedConnection).collect()
}

#[track_caller]
fn only(scene: &Scene) -> Finding {
    let mut all = orphans(scene);
    assert_eq!(all.len(), 1, "{all:#?}");
    all.remove(0)
}

/// `deploy.py` opens three and starts `watch.py`, which inherits them.
fn inherited() -> (Scene, Vec<u16>) {
    let mut scene = Scene::new(None);
    let ports = scene.open(Role::Client, 412, 3);
    scene.name(412, "deploy.py");
    for port in &ports {
        scene.holders.insert(*port, vec![412, 500]);
    }
    scene.look();
    scene.name(500, "watch.py");
    (scene, ports)
}

/// The process ends, and what others hold stays.
fn ends(scene: &mut Scene, pid: u32, ports: &[u16], left: &[u32]) {
    for port in ports {
        scene.holders.insert(*port, left.to_vec());
    }
    scene.exit_leaving(pid, ports);
}

#[test]
fn what_another_program_inherited_is_nobodys() {
    let (mut scene, ports) = inherited();
    scene.pass_looking(120);
    assert_eq!(orphans(&scene), [], "its opener minds it");
    scene.exchange(&ports);
    ends(&mut scene, 412, &ports, &[500]);
    scene.pass_looking(50);
    assert_eq!(orphans(&scene), []);
    scene.pass_looking(30);
    let finding = only(&scene);
    assert_eq!((finding.severity, number(&finding, "connections")), (Severity::Warning, 3));
    assert_eq!(finding.subject.pids, [500]);
    assert_eq!(
        finding.summary,
        "3 connections to orders-db, opened by deploy.py (pid 412), which ended, held by watch.py (pid 500); unused for 1 min"
    );
    assert!((finding.confidence - 0.95).abs() < 1e-9);
    // One more look loses events: a lower confidence, the same verdict.
    scene.tracker.note_loss(Loss { ring_full: 1, ..Loss::default() }, scene.now);
    scene.pass(1);
    assert!((only(&scene).confidence - 0.855).abs() < 1e-9);
    scene.close(&ports);
    scene.pass(1);
    let last = scene.lines.iter().rev().find(|line| line.finding.kind == Kind::OrphanedConnection).unwrap();
    assert_eq!(last.change, Change::Resolved);
    assert!(last.finding.summary.starts_with("3 connections to 10.0.0.5:5432, opened by deploy.py"));
}

#[test]
fn a_holder_that_uses_it_minds_it() {
    let (mut scene, ports) = inherited();
    ends(&mut scene, 412, &ports, &[500]);
    for _ in 0..20 {
        scene.exchange(&ports);
        scene.pass_looking(30);
    }
    assert_eq!(orphans(&scene), []);
}

#[test]
fn a_daemon_that_forked_twice_runs_the_same_program() {
    let (mut scene, ports) = inherited();
    scene.name(500, "deploy.py");
    ends(&mut scene, 412, &ports, &[500]);
    scene.pass_looking(600);
    assert_eq!(orphans(&scene), []);
    // A process that gave itself a title has no script to tell it by.
    scene.identify(500, "deploy.py: worker", |identity| identity.script = None);
    scene.pass_looking(120);
    assert_eq!(orphans(&scene), []);
}

#[test]
fn an_unknown_opener_or_holder_is_no_other_program() {
    let mut scene = Scene::new(None);
    let ports = scene.open(Role::Client, 412, 3);
    scene.name(412, "deploy.py");
    ends(&mut scene, 412, &ports, &[500]);
    scene.pass_looking(600);
    assert_eq!(orphans(&scene), []);
}

#[test]
fn an_opener_that_lives_on_without_it_is_less_sure() {
    let (mut scene, ports) = inherited();
    for port in &ports[..2] {
        scene.holders.insert(*port, vec![500]);
    }
    scene.pass_looking(120);
    let finding = only(&scene);
    assert!((finding.confidence - 0.75).abs() < 1e-9);
    assert_eq!(number(&finding, "connections"), 2);
}

#[test]
fn what_nobody_holds_takes_two_looks_that_see_everybody() {
    let mut scene = Scene::new(None);
    let ports = scene.open(Role::Client, 412, 2);
    scene.name(412, "deploy.py");
    scene.pass_looking(300);
    ends(&mut scene, 412, &ports, &[]);
    scene.look();
    scene.pass(1);
    assert_eq!(orphans(&scene), [], "it may be on its way to another process");
    scene.unreadable = 1;
    scene.pass_looking(60);
    assert_eq!(orphans(&scene), [], "its holder may be one that cannot be read");
    scene.unreadable = 0;
    scene.pass_looking(10);
    let finding = only(&scene);
    assert!(finding.summary.contains("opened by deploy.py (pid 412), which ended, held by nobody"));
    assert_eq!((finding.subject.pids.len(), finding.severity), (0, Severity::Warning));
    // Somebody has received it.
    for port in &ports {
        scene.holders.insert(*port, vec![500]);
    }
    scene.pass_looking(10);
    assert_eq!(orphans(&scene), []);
}

#[test]
fn an_opener_that_lives_and_is_not_found_holding_it_proves_nothing() {
    let mut scene = Scene::new(None);
    let ports = scene.open(Role::Client, 412, 2);
    scene.name(412, "server");
    for port in &ports {
        scene.holders.insert(*port, Vec::new());
    }
    scene.pass_looking(600);
    assert_eq!(orphans(&scene), [], "its first thread may have ended, or it registered the file");
}

#[test]
fn left_behind_by_its_parent_and_idle_for_an_hour() {
    let check = |ppid: u32, unit: Option<&str>, used: bool, expected: usize| {
        let mut scene = Scene::new(None);
        let ports = scene.open(Role::Client, 412, 4);
        scene.identify(412, "import.py", |identity| {
            identity.ppid = Some(ppid);
            identity.systemd_unit = unit.map(str::to_owned);
        });
        scene.pass_looking(3_000);
        assert_eq!(orphans(&scene), []);
        if used {
            scene.exchange(&ports[..1]);
        }
        scene.pass_looking(800);
        assert_eq!(orphans(&scene).len(), expected, "{ppid} {unit:?} {used}");
        assert!(orphans(&scene).iter().all(|finding| finding.severity == Severity::Info));
    };
    check(1, None, false, 1);
    check(1, Some("session-4.scope"), false, 1);
    check(1, Some("import.service"), false, 0);
    check(1, None, true, 0);
    check(300, None, false, 0);
}

/// `job.py` holds four, and its parent has that pid.
fn child(ppid: u32) -> (Scene, Vec<u16>) {
    let mut scene = Scene::new(None);
    let ports = scene.open(Role::Client, 412, 4);
    scene.identify(412, "job.py", |identity| {
        identity.ppid = Some(ppid);
        identity.ancestors = vec![Ancestor { pid: ppid, comm: "bash".to_owned() }];
    });
    (scene, ports)
}

#[test]
fn left_behind_by_a_parent_that_ends_later() {
    for adopted_by in [1, 77] {
        let (mut scene, ports) = child(300);
        scene.pass_looking(4_000);
        assert_eq!(orphans(&scene), [], "its parent may use it through the child");
        scene.identify(412, "job.py", |identity| identity.ppid = Some(adopted_by));
        scene.pass_looking(10);
        let finding = only(&scene);
        assert_eq!((finding.severity, &finding.subject.pids), (Severity::Info, &vec![412]));
        assert!(finding.summary.contains("held by job.py (pid 412), which lost its parent"), "{}", finding.summary);
        let told: Vec<Option<u32>> = scene.tracker.identities().map(|identity| identity.ppid).collect();
        assert_eq!(told, [Some(300), Some(adopted_by)], "a recording that begins now tells both");
        scene.exchange(&ports[..1]);
        scene.pass_looking(10);
        assert_eq!(orphans(&scene), [], "it works");
    }
}

#[test]
fn the_same_parent_told_again_is_no_loss() {
    let (mut scene, _) = child(300);
    scene.identify(412, "job.py", |identity| identity.ppid = Some(300));
    scene.pass_looking(4_000);
    assert_eq!(orphans(&scene), []);
}

#[test]
fn children_are_asked_about_when_their_parent_ends() {
    let (mut scene, _) = child(300);
    scene.open(Role::Client, 300, 1);
    scene.identify(300, "shell.py", |identity| identity.ppid = Some(299));
    let asked =
        |scene: &mut Scene| -> Vec<u32> { scene.tracker.take_unidentified().into_iter().map(|id| id.pid).collect() };
    assert_eq!(asked(&mut scene), [412, 300], "who are they");
    scene.exit(300);
    assert_eq!(asked(&mut scene), [412], "who is its parent now");
    scene.exit(412);
    assert!(asked(&mut scene).is_empty());
}

#[test]
fn holders_are_asked_for_their_parents_in_turn() {
    let mut scene = Scene::new(None);
    for pid in 400..405 {
        scene.open(Role::Client, pid, 1);
        scene.identify(pid, "job.py", |identity| identity.ppid = Some(pid - 100));
    }
    scene.open(Role::Client, 405, 1);
    let kin = |scene: &mut Scene| -> Vec<(u32, u32)> {
        scene.tracker.take_kin(2).into_iter().map(|(id, ppid)| (id.pid, ppid)).collect()
    };
    assert_eq!(kin(&mut scene), [], "no look found them holding anything");
    scene.look();
    assert_eq!(kin(&mut scene), [(400, 300), (401, 301)]);
    assert_eq!(kin(&mut scene), [(402, 302), (403, 303)]);
    assert_eq!(kin(&mut scene), [(404, 304)], "the last one's parent is not known");
    assert_eq!(kin(&mut scene), [(400, 300), (401, 301)]);
}
