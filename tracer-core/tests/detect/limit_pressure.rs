//! `limit_pressure`, and what all findings share.

use tracer_core::event::Role;
use tracer_core::finding::{Change, Finding, Kind, Severity};
use tracer_core::snapshot::Loss;

use crate::scene::{Scene, anchor, number};

#[test]
fn limit_pressure_warns_at_80_percent_and_is_critical_at_95() {
    let check = |open: u16, expected: Option<Severity>| {
        let mut scene = Scene::new(Some(100));
        scene.open(Role::Client, 412, open);
        scene.pass(1);
        let found: Vec<Severity> = scene.findings().iter().map(|finding| finding.severity).collect();
        assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{open} open");
    };
    check(50, None);
    check(79, None);
    check(80, Some(Severity::Warning));
    check(94, Some(Severity::Warning));
    check(95, Some(Severity::Critical));
    check(120, Some(Severity::Critical));
}

#[test]
fn limit_pressure_says_who_holds_what() {
    let mut scene = Scene::new(Some(100));
    for pid in 400..425 {
        scene.open(Role::Client, pid, 3);
        scene.name(pid, "route_builder_launcher.py");
    }
    scene.open(Role::Client, 900, 21);
    scene.name(900, "report.py");
    scene.pass(1);
    let finding = scene.only();
    assert_eq!(
        finding.summary,
        "orders-db 10.0.0.5:5432 96 of 100 open; 25 copies of route_builder_launcher.py (pids 400, 401, 402, ... 22 \
         more) hold 75, report.py (pid 900) holds 21"
    );
    assert_eq!((number(&finding, "open"), number(&finding, "limit")), (96, 100));
    assert_eq!(finding.subject.pids.len(), 26);
    assert_eq!(finding.subject.endpoint.as_deref(), Some("10.0.0.5:5432"));
    assert!((finding.confidence - 1.0).abs() < f64::EPSILON);
}

#[test]
fn limit_pressure_counts_a_database_on_this_host_once() {
    let mut scene = Scene::new(Some(100));
    scene.open(Role::Client, 412, 60);
    scene.open(Role::Server, 0, 85);
    scene.name(412, "report.py");
    scene.pass(1);
    let finding = scene.only();
    assert_eq!(number(&finding, "open"), 85, "the database's side sees clients elsewhere too");
    assert_eq!(finding.subject.pids, [412], "the clients' side names the holder");
}

#[test]
fn limit_pressure_names_client_hosts_when_only_the_database_is_here() {
    let mut scene = Scene::new(Some(100));
    scene.open(Role::Server, 0, 85);
    scene.pass(1);
    let finding = scene.only();
    assert_eq!(finding.summary, "orders-db 10.0.0.5:5432 85 of 100 open; 10.0.0.9 holds 85");
    assert!(finding.subject.pids.is_empty());
}

#[test]
fn limit_pressure_without_a_limit_is_silent() {
    let mut scene = Scene::new(None);
    scene.open(Role::Client, 412, 500);
    scene.pass(30);
    assert!(scene.lines.is_empty());
}

#[test]
fn limit_pressure_does_not_flap_at_its_threshold() {
    let mut scene = Scene::new(Some(100));
    let mut ports = scene.open(Role::Client, 412, 80);
    scene.pass(1);
    for _ in 0..20 {
        scene.close(&ports.split_off(77));
        scene.pass(2);
        ports.extend(scene.open(Role::Client, 412, 3));
        scene.pass(2);
    }
    assert_eq!(scene.changes().iter().filter(|change| **change == Change::Opened).count(), 1);
    assert!(!scene.changes().contains(&Change::Resolved));
    assert_eq!(scene.findings().len(), 1);
}

#[test]
fn limit_pressure_survives_a_short_dip_and_resolves_after_a_window_below() {
    let mut scene = Scene::new(Some(100));
    let ports = scene.open(Role::Client, 412, 96);
    scene.pass(1);
    let id = scene.only().id;
    scene.close(&ports);
    scene.pass(9);
    let reopened = scene.open(Role::Client, 412, 96);
    scene.pass(1);
    assert_eq!(scene.only().id, id);
    scene.close(&reopened);
    scene.pass(10);
    assert!(scene.findings().is_empty());
    let last = scene.lines.last().unwrap();
    assert_eq!(last.change, Change::Resolved);
    assert_eq!(last.finding.id, id);
    assert_eq!(last.finding.summary, "orders-db 10.0.0.5:5432 0 of 100 open (was 96), open for 20 s");
    assert_eq!(last.at, anchor().wall(scene.now));
}

#[test]
fn limit_pressure_is_critical_at_a_flat_top_with_failed_connects() {
    let mut scene = Scene::new(Some(100));
    scene.open(Role::Client, 412, 85);
    scene.pass(15);
    assert_eq!(scene.only().severity, Severity::Warning);
    for _ in 0..3 {
        scene.fail(500);
    }
    scene.pass(1);
    assert_eq!(scene.only().severity, Severity::Critical);
    assert_eq!(number(&scene.only(), "failed_connects"), 3);
    scene.pass(15);
    assert_eq!(scene.only().severity, Severity::Warning, "the failures are over");
}

#[test]
fn limit_pressure_failed_connects_alone_are_not_pressure() {
    let mut scene = Scene::new(Some(100));
    scene.open(Role::Client, 412, 20);
    scene.pass(15);
    for _ in 0..50 {
        scene.fail(500);
    }
    scene.pass(2);
    assert!(scene.findings().is_empty());
}

#[test]
fn limit_pressure_forecasts_from_growth() {
    let mut scene = Scene::new(Some(100));
    scene.open(Role::Client, 412, 72);
    for _ in 0..16 {
        scene.open(Role::Client, 412, 1);
        scene.pass(4);
    }
    scene.open(Role::Client, 412, 1);
    scene.pass(1);
    let finding = scene.only();
    assert_eq!(number(&finding, "growth"), 15);
    assert!(finding.summary.contains("89 of 100 open, +15/min, full in about 44 s"), "{}", finding.summary);
}

#[test]
fn confidence_falls_while_counts_are_lower_bounds() {
    let mut scene = Scene::new(Some(100));
    scene.open(Role::Client, 412, 90);
    scene.tracker.note_loss(Loss { ring_full: 5, ..Loss::default() }, scene.now);
    scene.pass(1);
    assert!((scene.only().confidence - 0.9).abs() < f64::EPSILON);
    scene.pass(1);
    scene.look();
    scene.pass(1);
    assert!((scene.only().confidence - 1.0).abs() < f64::EPSILON, "a look repaired it");
    assert_eq!(scene.only().severity, Severity::Warning);
}

#[test]
fn findings_keep_their_id_across_a_restart() {
    let ids: Vec<String> = (0..2)
        .map(|_| {
            let mut scene = Scene::new(Some(100));
            scene.open(Role::Client, 412, 96);
            scene.pass(1);
            scene.only().id
        })
        .collect();
    assert_eq!(ids[0], ids[1]);
}

#[test]
fn disabled_detectors_resolve_what_they_had_open() {
    let mut scene = Scene::new(Some(10));
    scene.open(Role::Client, 412, 10);
    scene.pass(1);
    scene.config.enable(Kind::LimitPressure, false);
    scene.pass(11);
    assert!(scene.findings().is_empty());
}

#[test]
fn limit_pressure_severity_does_not_flap_at_the_critical_threshold() {
    let mut scene = Scene::new(Some(100));
    scene.open(Role::Client, 412, 94);
    for _ in 0..30 {
        let one = scene.open(Role::Client, 412, 1);
        scene.pass(1);
        scene.close(&one);
        scene.pass(1);
    }
    let updates = scene.changes().iter().filter(|change| **change == Change::Updated).count();
    assert!(updates <= 6, "{updates} updates in 60 s, with a window of 10 s");
    assert_eq!(scene.only().severity, Severity::Critical);
}

#[test]
fn limit_pressure_needs_a_whole_window_to_call_a_top_flat() {
    let mut scene = Scene::new(Some(100));
    scene.open(Role::Client, 412, 82);
    for _ in 0..5 {
        scene.fail(500);
    }
    scene.pass(1);
    assert_eq!(scene.only().severity, Severity::Warning, "one second is no plateau");
}

#[test]
fn holders_are_named_in_plain_sentences() {
    let mut scene = Scene::new(Some(10));
    for pid in 100..104 {
        scene.open(Role::Client, pid, 2);
        scene.name(pid, &format!("job{pid}.py"));
    }
    scene.pass(1);
    assert_eq!(
        scene.only().summary,
        "orders-db 10.0.0.5:5432 8 of 10 open; job100.py (pid 100) holds 2, job101.py (pid 101) holds 2, job102.py \
         (pid 102) holds 2, 1 other holds 2"
    );
}

/// Clients that fill the database, are turned away, leave, and do it again.
pub fn fill_twice(scene: &mut Scene, tops: [u16; 2]) {
    let mut ports = scene.open(Role::Client, 412, 5);
    for top in tops {
        ports.extend(scene.open(Role::Client, 412, top - u16::try_from(ports.len()).unwrap()));
        scene.pass(20);
        (0..5).for_each(|_| scene.turn_away(500));
        scene.pass(5);
        scene.close(&ports.split_off(5));
        scene.pass(60);
    }
    scene.open(Role::Client, 412, tops[0] - 5);
    scene.pass(1);
}

fn pressure(scene: &Scene) -> Option<Finding> {
    scene.findings().into_iter().find(|finding| finding.kind == Kind::LimitPressure)
}

#[test]
fn limit_pressure_infers_a_limit_from_where_clients_are_turned_away_twice() {
    let mut scene = Scene::new(None);
    fill_twice(&mut scene, [40, 40]);
    let finding = pressure(&scene).unwrap();
    assert_eq!(finding.severity, Severity::Critical);
    assert!(finding.summary.starts_with("orders-db 10.0.0.5:5432 40 of about 40 open"), "{}", finding.summary);
    assert!((finding.confidence - 0.7).abs() < 1e-9, "{}", finding.confidence);
    assert_eq!(number(&finding, "limit"), 40);
}

#[test]
fn limit_pressure_infers_no_limit_where_anything_speaks_against_it() {
    let check = |why: &str, play: &dyn Fn(&mut Scene)| {
        let mut scene = Scene::new(None);
        play(&mut scene);
        assert_eq!(pressure(&scene), None, "{why}");
    };
    check("the tops differ", &|scene| fill_twice(scene, [40, 50]));
    check("once is not twice", &|scene| {
        scene.open(Role::Client, 412, 40);
        scene.pass(20);
        (0..50).for_each(|_| scene.turn_away(500));
        scene.pass(1);
    });
    check("the pool never left its size: a client with a wrong password comes twice", &|scene| {
        scene.open(Role::Client, 412, 40);
        for _ in 0..3 {
            scene.pass(60);
            (0..5).for_each(|_| scene.turn_away(500));
        }
        scene.pass(1);
    });
    check("clients are turned away at smaller numbers, too", &|scene| {
        scene.open(Role::Client, 412, 20);
        scene.turn_away(500);
        scene.pass(60);
        fill_twice(scene, [40, 40]);
    });
    check("it was more since", &|scene| {
        fill_twice(scene, [40, 40]);
        scene.open(Role::Client, 412, 40);
        scene.pass(15);
    });
}

#[test]
fn limit_pressure_goes_by_the_limit_that_was_told() {
    let mut scene = Scene::new(Some(100));
    fill_twice(&mut scene, [40, 40]);
    assert_eq!(pressure(&scene), None);
}
