//! What becomes of open findings when the daemon is restarted: what is true goes on under its id, what may be true stays as
//! it was, and what is visibly over is resolved.

use tracer_core::event::Role;
use tracer_core::finding::{Change, Finding, FindingLine, Kind};

use crate::scene::{Scene, number};

/// A way to get a finding of that kind.
struct Case {
    kind: Kind,
    /// Makes it true, and returns the connections that it is about.
    play: fn(&mut Scene) -> Vec<u16>,
    /// What goes on in each second after the restart, so that it stays true.
    goes_on: fn(&mut Scene, &[u16]),
    /// How long it stays as it was.
    lasts_s: u64,
}

fn nothing(_: &mut Scene, _: &[u16]) {}

fn one_at_a_time(scene: &mut Scene, count: u64, apart_s: u64) -> Vec<u16> {
    let mut ports = Vec::new();
    for turn in 0..count {
        ports.extend(scene.open(Role::Client, 412, 1));
        scene.name(412, "worker.py");
        scene.pass_looking_from(turn * apart_s, apart_s);
    }
    ports
}

const CASES: &[Case] = &[
    Case {
        kind: Kind::LimitPressure,
        play: |scene| {
            let ports = scene.open(Role::Client, 412, 90);
            scene.name(412, "worker.py");
            ports
        },
        goes_on: nothing,
        lasts_s: 600,
    },
    Case { kind: Kind::ConnectionLeak, play: |scene| one_at_a_time(scene, 60, 2), goes_on: nothing, lasts_s: 7_200 },
    Case {
        kind: Kind::DuplicateLaunchers,
        play: |scene| {
            let mut ports = Vec::new();
            for pid in 400..405 {
                scene.starts.insert(pid, u64::from(pid) * 1_000);
                ports.extend(scene.open(Role::Client, pid, 3));
                scene.name(pid, "route_builder_launcher.py");
            }
            ports
        },
        goes_on: nothing,
        lasts_s: 600,
    },
    Case {
        kind: Kind::OrphanedConnection,
        play: |scene| {
            let ports = scene.open(Role::Client, 412, 3);
            scene.name(412, "deploy.py");
            scene.open(Role::Client, 500, 1);
            scene.name(500, "watch.py");
            ports.iter().for_each(|port| drop(scene.holders.insert(*port, vec![500])));
            scene.look();
            scene.exit_leaving(412, &ports);
            scene.pass_looking(90);
            ports
        },
        goes_on: nothing,
        lasts_s: 7_200,
    },
    Case {
        kind: Kind::UnusedConnection,
        play: |scene| {
            let ports = one_at_a_time(scene, 4, 30);
            scene.pass_looking(120);
            ports
        },
        goes_on: nothing,
        lasts_s: 7_200,
    },
    Case {
        kind: Kind::CloseWaitLeak,
        play: |scene| {
            let ports = scene.open(Role::Client, 412, 3);
            scene.name(412, "worker.py");
            scene.peer_closes(&ports);
            scene.pass_looking(70);
            ports
        },
        goes_on: nothing,
        lasts_s: 600,
    },
    Case {
        kind: Kind::PoolSprawl,
        play: |scene| {
            let mut ports = Vec::new();
            for pool in 0..12 {
                ports.extend(scene.open(Role::Client, 412, 5));
                scene.pass_looking_from(pool * 3, 3);
            }
            scene.name(412, "api.js");
            scene.pass_looking(90);
            ports
        },
        goes_on: nothing,
        lasts_s: 7_200,
    },
    Case {
        kind: Kind::ConnectFailures,
        play: |scene| {
            let ports = scene.open(Role::Client, 412, 1);
            scene.name(412, "worker.py");
            (0..30).for_each(|_| {
                scene.fail_with(412, 111);
                scene.pass(1);
            });
            ports
        },
        goes_on: |scene, _| scene.fail_with(412, 111),
        lasts_s: 120,
    },
];

fn found(scene: &Scene, kind: Kind) -> Option<Finding> {
    scene.findings().into_iter().find(|finding| finding.kind == kind)
}

fn lines(scene: &Scene, kind: Kind) -> Vec<&FindingLine> {
    scene.lines.iter().filter(|line| line.finding.kind == kind && line.change != Change::Updated).collect()
}

/// The scene in which it is true, what it is about, and the finding.
fn begin(case: &Case) -> (Scene, Vec<u16>, Finding) {
    let limit = (case.kind == Kind::LimitPressure).then_some(100);
    let mut scene = Scene::new(limit);
    let ports = (case.play)(&mut scene);
    scene.pass(1);
    let finding = found(&scene, case.kind);
    (scene, ports, finding.unwrap_or_else(|| panic!("{:?} is not found", case.kind)))
}

#[test]
fn what_goes_on_keeps_its_id_and_since_when() {
    for case in CASES {
        let (mut scene, ports, before) = begin(case);
        scene.restart();
        assert_eq!(found(&scene, case.kind).as_ref(), Some(&before), "as it was");
        scene.pass(3);
        scene.first_look();
        for second in 1..=case.lasts_s {
            (case.goes_on)(&mut scene, &ports);
            scene.pass_looking_from(second, 1);
        }
        let after = found(&scene, case.kind);
        let is_same = |after: &Finding| (&after.id, after.first_seen) == (&before.id, before.first_seen);
        assert!(after.as_ref().is_some_and(is_same), "{before:#?}\n{after:#?}\n{:#?}", scene.lines);
        assert!(lines(&scene, case.kind).is_empty(), "{:#?}", scene.lines);
    }
}

#[test]
fn what_ended_meanwhile_is_resolved_when_everything_is_in_sight() {
    for case in CASES {
        let (mut scene, ports, before) = begin(case);
        scene.restart();
        scene.end_unseen(&ports);
        scene.pass(60);
        assert_eq!(found(&scene, case.kind).as_ref(), Some(&before), "nothing was looked at yet");
        scene.first_look();
        scene.pass_looking(70);
        let told = lines(&scene, case.kind);
        assert_eq!(told.len(), 1, "{before:#?}\n{told:#?}");
        assert_eq!((told[0].change, &told[0].finding.id), (Change::Resolved, &before.id));
        assert_eq!((told[0].finding.first_seen, told[0].finding.last_seen), (before.first_seen, before.last_seen));
        assert_eq!(found(&scene, case.kind), None);
    }
}

#[test]
fn what_ends_after_the_restart_is_resolved_then() {
    for case in CASES {
        let (mut scene, ports, before) = begin(case);
        scene.restart();
        scene.first_look();
        scene.pass_looking(20);
        assert!(found(&scene, case.kind).is_some(), "{before:#?}");
        scene.close(&ports);
        scene.pass_looking_from(20, 70);
        let told = lines(&scene, case.kind);
        assert_eq!(told.len(), 1, "{before:#?}\n{told:#?}");
        assert_eq!((told[0].change, &told[0].finding.id), (Change::Resolved, &before.id));
    }
}

#[test]
fn the_last_words_are_of_now_and_since_when_it_was_true() {
    let (mut scene, ports, _) = begin(&CASES[0]);
    scene.pass(100);
    scene.restart();
    scene.end_unseen(&ports[5..]);
    scene.first_look();
    scene.pass_looking(12);
    let [line] = lines(&scene, Kind::LimitPressure)[..] else { panic!("{:#?}", scene.lines) };
    assert_eq!(line.finding.summary, "orders-db 10.0.0.5:5432 5 of 100 open (was 90), open for 1 min");
}

#[test]
fn nobody_is_resolved_before_it_is_known_who_they_are() {
    let (mut scene, _, _) = begin(&CASES[2]);
    scene.restart();
    scene.look();
    scene.pass_looking(25);
    assert_eq!(number(&found(&scene, Kind::DuplicateLaunchers).unwrap(), "copies"), 5);
    assert!(scene.lines.is_empty(), "{:#?}", scene.lines);
    scene.pass_looking_from(25, 20);
    assert_eq!(found(&scene, Kind::DuplicateLaunchers), None, "/proc does not say");
}

#[test]
fn use_of_what_lay_unused_resolves_it() {
    for case in CASES.iter().filter(|case| [Kind::OrphanedConnection, Kind::UnusedConnection].contains(&case.kind)) {
        let (mut scene, ports, before) = begin(case);
        scene.restart();
        scene.first_look();
        scene.pass_looking(60);
        scene.exchange(&ports);
        scene.pass_looking(30);
        let told = lines(&scene, case.kind);
        assert_eq!(told.len(), 1, "{before:#?}\n{told:#?}");
        assert_eq!(told[0].change, Change::Resolved);
    }
}

#[test]
fn what_is_switched_off_at_the_restart_is_resolved() {
    let (mut scene, _, _) = begin(&CASES[1]);
    scene.config.enable(Kind::ConnectionLeak, false);
    scene.restart();
    scene.first_look();
    scene.pass_looking(30);
    assert_eq!(lines(&scene, Kind::ConnectionLeak).len(), 1);
}

#[test]
fn two_restarts_are_as_one() {
    let (mut scene, _, before) = begin(&CASES[1]);
    for _ in 0..2 {
        scene.restart();
        scene.first_look();
        scene.pass_looking(50);
    }
    let after = found(&scene, Kind::ConnectionLeak).unwrap();
    assert_eq!((after.id, after.first_seen), (before.id, before.first_seen));
}
