//! `connect_failures`.

use std::collections::BTreeMap;

use tracer_core::event::Role;
use tracer_core::finding::{Change, Finding, Kind, Severity};
use tracer_core::inventory::Network;
use tracer_core::snapshot::Loss;

use crate::scene::{Scene, listed, number, said};

const REFUSED: u16 = 111;
const TIMED_OUT: u16 = 110;

fn found(scene: &Scene) -> Option<Finding> {
    scene.findings().into_iter().find(|finding| finding.kind == Kind::ConnectFailures)
}

/// So many failures a second, for so long.
fn fail(scene: &mut Scene, seconds: u64, each: usize, error: u16) {
    for _ in 0..seconds {
        (0..each).for_each(|_| scene.fail_with(412, error));
        scene.pass(1);
    }
}

#[test]
fn connect_failures_are_critical_while_nothing_gets_through() {
    let mut scene = Scene::new(None);
    scene.fail_with(412, REFUSED);
    scene.name(412, "worker.py");
    scene.pass(100);
    fail(&mut scene, 10, 1, REFUSED);
    assert!(scene.lines.is_empty(), "one window is no proof");
    fail(&mut scene, 10, 1, REFUSED);
    let finding = scene.only();
    assert_eq!((finding.kind, finding.severity), (Kind::ConnectFailures, Severity::Critical));
    assert!(
        finding.summary.starts_with("orders-db 10.0.0.5:5432 takes no connections: ")
            && finding.summary.ends_with(" refused); tried by worker.py (pid 412)"),
        "{}",
        finding.summary
    );
    assert_eq!(finding.subject.pids, [412]);
    assert_eq!(number(&finding, "got_through"), 0);
    assert!((finding.confidence - 1.0).abs() < f64::EPSILON);
    assert!(finding.remedy.contains("nothing listens"), "{}", finding.remedy);
    scene.open(Role::Client, 412, 5);
    scene.pass(20);
    assert_eq!(scene.changes().last(), Some(&Change::Resolved));
    assert!(scene.findings().is_empty());
    let last = &scene.lines.last().unwrap().finding.summary;
    assert!(last.starts_with("orders-db 10.0.0.5:5432 takes connections again (was "), "{last}");
    assert_eq!(scene.changes().iter().filter(|change| **change == Change::Opened).count(), 1);
}

#[test]
fn connect_failures_beside_successes_are_a_warning() {
    let mut scene = Scene::new(None);
    for _ in 0..30 {
        scene.fail_with(412, TIMED_OUT);
        scene.open(Role::Client, 500, 1);
        scene.pass(1);
    }
    let finding = found(&scene).unwrap();
    assert_eq!(finding.severity, Severity::Warning);
    assert!(
        finding.summary.contains("20 of 40 connects failed in the last 20 s (20 timed out)"),
        "{}",
        finding.summary
    );
}

#[test]
fn connect_failures_count_clients_that_the_database_hangs_up_on() {
    let mut scene = Scene::new(None);
    for _ in 0..30 {
        scene.turn_away(412);
        scene.pass(1);
    }
    let finding = found(&scene).unwrap();
    assert_eq!(finding.severity, Severity::Critical, "established, and still in vain");
    assert!(finding.summary.contains("(20 hung up on at once)"), "{}", finding.summary);
    assert!(finding.remedy.contains("too many of them"), "{}", finding.remedy);
    assert_eq!((number(&finding, "hung_up"), number(&finding, "failed")), (20, 0));
    assert!((finding.confidence - 0.9).abs() < 1e-9);
    for _ in 0..60 {
        (0..5).for_each(|_| scene.turn_away(412));
        scene.pass(1);
    }
    assert_eq!(scene.findings().len(), 1, "who is turned away has no client per request");
}

#[test]
fn connect_failures_are_silent_for_one_restart_of_the_database() {
    let mut scene = Scene::new(None);
    let ports = scene.open(Role::Client, 412, 20);
    scene.pass(60);
    scene.close(&ports);
    fail(&mut scene, 9, 20, REFUSED);
    scene.open(Role::Client, 412, 20);
    scene.pass(60);
    assert_eq!(found(&scene), None);
    assert!(!scene.lines.iter().any(|line| line.finding.kind == Kind::ConnectFailures));
}

#[test]
fn connect_failures_are_silent_for_any_restart_shorter_than_two_windows() {
    for (before, lasts) in (0..10).flat_map(|before| [15, 17, 19].map(|lasts| (before, lasts))) {
        let mut scene = Scene::new(None);
        let ports = scene.open(Role::Client, 412, 20);
        scene.pass(60 + before);
        scene.close(&ports);
        fail(&mut scene, lasts, 20, REFUSED);
        // It takes some seconds until somebody comes back.
        scene.pass(3);
        scene.open(Role::Client, 412, 20);
        scene.pass(60);
        assert!(!scene.lines.iter().any(|line| line.finding.kind == Kind::ConnectFailures), "{before} {lasts}");
    }
}

#[test]
fn connect_failures_are_silent_for_a_few_among_many() {
    let mut scene = Scene::new(None);
    for _ in 0..40 {
        scene.fail_with(412, TIMED_OUT);
        let ports = scene.open(Role::Client, 412, 40);
        scene.close(&ports);
        scene.pass(1);
    }
    assert!(!scene.lines.iter().any(|line| line.finding.kind == Kind::ConnectFailures));
}

#[test]
fn connect_failures_see_clients_that_retry_slowly() {
    let mut scene = Scene::new(None);
    for _ in 0..5 {
        scene.fail_with(412, REFUSED);
        scene.pass(12);
    }
    assert_eq!(found(&scene).unwrap().severity, Severity::Critical);
    scene.open(Role::Client, 412, 1);
    scene.pass(1);
    assert_eq!(found(&scene), None, "it answers");
}

#[test]
fn connect_failures_do_not_flap_while_retries_vary() {
    let mut scene = Scene::new(None);
    for round in 0..60 {
        fail(&mut scene, 5, if round % 2 == 0 { 3 } else { 1 }, REFUSED);
    }
    assert_eq!(scene.changes(), [Change::Opened]);
}

#[test]
fn connect_failures_name_each_reason_and_survive_loss() {
    let mut scene = Scene::new(None);
    scene.name(412, "worker.py");
    scene.tracker.note_loss(Loss { ring_full: 5, ..Loss::default() }, scene.now);
    fail(&mut scene, 20, 1, REFUSED);
    let refused = found(&scene).unwrap();
    assert!((refused.confidence - 0.9).abs() < 1e-9);
    fail(&mut scene, 20, 2, 113);
    let finding = found(&scene).unwrap();
    assert!(finding.summary.contains("without a route"), "{}", finding.summary);
    assert!(finding.remedy.starts_with("Repair the route"), "{}", finding.remedy);
    assert_eq!(finding.id, refused.id);
}

#[test]
fn connect_failures_are_silent_for_the_address_that_is_tried_first() {
    let mut scene = Scene::new(None);
    for second in 0..60 {
        scene.fail_v6(412, REFUSED);
        if second < 30 {
            let ports = scene.open(Role::Client, 412, 1);
            scene.close(&ports);
        }
        scene.pass(1);
        if second == 29 {
            assert_eq!(scene.changes(), [], "the other address answers");
        }
    }
    assert_eq!(found(&scene).unwrap().subject.endpoint.as_deref(), Some("[fd00::5]:5432"), "and now it does not");
}

#[test]
fn connect_failures_say_what_the_path_did() {
    let check = |error: u16, errno: &str, path: &str, remedy: &str| {
        let mut scene = Scene::new(None);
        fail(&mut scene, 40, 1, error);
        let finding = found(&scene).unwrap();
        assert_eq!(listed(&finding, "errnos"), [errno], "{error}");
        assert!(said(&finding, "path").contains(path), "{error}: {}", said(&finding, "path"));
        assert!(finding.remedy.contains(remedy), "{error}: {}", finding.remedy);
    };
    check(TIMED_OUT, "ETIMEDOUT 20", "no answer came: the packets are lost beyond this host", "firewall that drops");
    check(REFUSED, "ECONNREFUSED 20", "an answer came", "nothing listens");
    check(104, "ECONNRESET 20", "answers come", "See the log");
    check(113, "EHOSTUNREACH 20", "has no way there", "Repair the route");
    check(1, "EPERM 20", "nothing was sent", "own firewall");
    check(99, "EADDRNOTAVAIL 20", "nothing was sent", "ip_local_port_range");
    check(0, "none 20", "no answer came", "firewall that drops");
}

#[test]
fn connect_failures_name_this_hosts_own_drops() {
    let mut scene = Scene::new(None);
    scene.tracker.set_drop_reasons(BTreeMap::from([(8, "NETFILTER_DROP".to_owned())]));
    scene.drops(&[9_999], 8);
    fail(&mut scene, 40, 1, TIMED_OUT);
    assert!(
        found(&scene).unwrap().remedy.contains("firewall that drops"),
        "that was before, and nobody's endpoint yet"
    );
    scene.drops(&[10_040, 10_039], 8);
    scene.fail_with(412, TIMED_OUT);
    scene.pass(1);
    let finding = found(&scene).unwrap();
    assert_eq!(said(&finding, "path"), "no answer came: this host drops their packets (NETFILTER_DROP)");
    assert!(finding.remedy.contains("this host's firewall"), "{}", finding.remedy);
}

#[test]
fn connect_failures_tell_a_full_connection_tracking_table_from_a_rule() {
    let check = |tracked: u32, expected: &str, remedy: &str| {
        let mut scene = Scene::new(None);
        scene.tracker.set_drop_reasons(BTreeMap::from([(8, "NETFILTER_DROP".to_owned())]));
        scene.network = Some(Network {
            tracked: Some(tracked),
            tracked_most: Some(100),
            untracked_drops: Some(7),
            ..Network::default()
        });
        scene.fail_with(412, TIMED_OUT);
        for _ in 0..5 {
            fail(&mut scene, 8, 1, TIMED_OUT);
            scene.drops(&[10_000], 8);
            scene.look();
        }
        scene.pass(1);
        let finding = found(&scene).unwrap();
        assert_eq!(said(&finding, "path"), format!("no answer came: {expected}"));
        assert!(finding.summary.ends_with(&format!("; {expected}")), "{}", finding.summary);
        assert!(finding.remedy.contains(remedy), "{}", finding.remedy);
    };
    let full = "this host's connection tracking table is full (100 of 100): it drops their packets (NETFILTER_DROP)";
    check(100, full, "nf_conntrack_max");
    check(99, "this host drops their packets (NETFILTER_DROP)", "this host's firewall");
}
