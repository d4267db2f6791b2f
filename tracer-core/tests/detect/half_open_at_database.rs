//! `half_open_at_database`.

use tracer_core::event::Role;
use tracer_core::finding::{Change, Finding, Kind, Severity};
use tracer_core::inventory::Timer;
use tracer_core::snapshot::Loss;
use tracer_core::tcp::TcpState;
use tracer_core::tracker::Bounds;

use crate::scene::{Scene, listed, number, said};

const TIMED_OUT: u16 = 110;
const RESET: u16 = 104;

fn found(scene: &Scene) -> Option<Finding> {
    scene.findings().into_iter().find(|finding| finding.kind == Kind::HalfOpenAtDatabase)
}

fn was_silent(scene: &Scene) -> bool {
    !scene.lines.iter().any(|line| line.finding.kind == Kind::HalfOpenAtDatabase)
}

/// A process opened 20 connections, and another one, to which they were passed on, closes them; no FIN gets through.
fn closed() -> (Scene, Vec<u16>) {
    let mut scene = Scene::new(None);
    let ports = scene.open(Role::Client, 412, 20);
    scene.name(412, "worker.py");
    scene.pass(10);
    scene.close_in_vain(&ports, 500);
    scene.name(500, "closer.py");
    (scene, ports)
}

fn time_out(scene: &mut Scene, ports: &[u16]) {
    scene.pass(1);
    scene.retransmits(ports, Role::Client);
}

#[test]
fn half_open_at_database_names_who_closed_and_every_port() {
    let (mut scene, ports) = closed();
    time_out(&mut scene, &ports);
    scene.pass_glancing(7);
    let finding = scene.only();
    assert_eq!((finding.kind, finding.severity), (Kind::HalfOpenAtDatabase, Severity::Warning));
    assert_eq!(finding.subject.pids, [500], "not who opened them");
    assert!(
        finding.summary.starts_with("closer.py (pid 500) closed 20 connections")
            && finding.summary.contains("that orders-db never heard of"),
        "{}",
        finding.summary
    );
    assert_eq!(listed(&finding, "local_ports"), ports.iter().map(u16::to_string).collect::<Vec<_>>());
    assert_eq!((number(&finding, "waiting"), number(&finding, "given_up")), (20, 0));
    assert_eq!(said(&finding, "dropped_by"), "beyond this host");
    // The rule is lifted: the FINs get through.
    scene.close_heard(&ports);
    scene.pass(1);
    assert_eq!(scene.changes(), [Change::Opened, Change::Resolved]);
    let last = &scene.lines.last().unwrap().finding.summary;
    assert!(last.starts_with("10.0.0.5:5432 has noticed the end of 20 connections that closer.py (pid 500)"), "{last}");
}

#[test]
fn half_open_at_database_goes_on_when_the_kernel_gives_up() {
    let (mut scene, ports) = closed();
    time_out(&mut scene, &ports);
    scene.pass_glancing(10);
    scene.give_up(&ports[..15], TcpState::FinWait1, TIMED_OUT, 8);
    scene.give_up(&ports[15..], TcpState::FinWait1, 113, 8);
    scene.pass_glancing(10);
    let finding = found(&scene).unwrap();
    assert_eq!((number(&finding, "waiting"), number(&finding, "given_up")), (0, 20));
    assert_eq!((finding.subject.pids.as_slice(), listed(&finding, "local_ports").len()), (&[500][..], 20));
    scene.pass_at_once(7_000);
    assert!(found(&scene).is_some());
    scene.pass_at_once(900);
    assert_eq!(found(&scene), None, "the database's keepalive has ended them");
    assert_eq!(scene.changes().iter().filter(|change| **change == Change::Opened).count(), 1);
}

#[test]
fn half_open_at_database_sees_the_database_notice_on_the_same_host() {
    let (mut scene, ports) = closed();
    scene.has_twins(&ports, 77);
    time_out(&mut scene, &ports);
    scene.pass_glancing(7);
    assert_eq!(number(&found(&scene).unwrap(), "seen_at_database"), 20);
    assert!((found(&scene).unwrap().confidence - 1.0).abs() < 1e-9);
    scene.give_up(&ports, TcpState::FinWait1, TIMED_OUT, 8);
    scene.pass_glancing(5);
    assert!(found(&scene).unwrap().summary.ends_with("20 still open in the database"));
    scene.twins_end(&ports[..19]);
    scene.pass(1);
    assert_eq!(listed(&found(&scene).unwrap(), "local_ports"), [ports[19].to_string()]);
    scene.twins_end(&ports[19..]);
    scene.pass(1);
    assert_eq!(found(&scene), None);
}

#[test]
fn half_open_at_database_forgets_ports_that_are_used_again() {
    let (mut scene, ports) = closed();
    scene.give_up(&ports[..2], TcpState::LastAck, TIMED_OUT, 8);
    scene.close_heard(&ports[2..]);
    scene.pass(1);
    assert_eq!(number(&found(&scene).unwrap(), "connections"), 2);
    scene.pass(1);
    scene.open_ports(Role::Client, 412, &ports[..1]);
    scene.pass(1);
    assert_eq!(listed(&found(&scene).unwrap(), "local_ports"), [ports[1].to_string()]);
}

#[test]
fn half_open_at_database_knows_a_reset_into_the_void() {
    let mut scene = Scene::new(None);
    let ports = scene.open(Role::Client, 412, 3);
    scene.pass(5);
    scene.give_up_by_close(&ports[..1], 412, 5);
    scene.give_up_by_close(&ports[1..], 412, 0);
    scene.pass(1);
    let finding = found(&scene).unwrap();
    assert_eq!(listed(&finding, "local_ports"), [ports[0].to_string()], "the others got through, for all we know");
}

#[test]
fn half_open_at_database_is_silent_for_slow_closes() {
    let (mut scene, ports) = closed();
    // The FIN is lost three times, and then gets through.
    time_out(&mut scene, &ports);
    scene.pass_glancing(3);
    scene.close_heard(&ports);
    scene.pass(20);
    // Time-outs, while the peer is heard of: it still sends what it has.
    let ports = scene.open(Role::Client, 412, 5);
    scene.pass(10);
    scene.close_in_vain(&ports, 412);
    time_out(&mut scene, &ports);
    for _ in 0..10 {
        let now = scene.now;
        scene.worsen(&ports, |fault| fault.heard = now);
        scene.pass_glancing(4);
    }
    assert!(was_silent(&scene));
}

#[test]
fn half_open_at_database_asks_for_silence_after_the_close_too() {
    let mut scene = Scene::new(None);
    let ports = scene.open(Role::Client, 412, 3);
    scene.pass(5);
    // The path dies under requests, long before the process gives up.
    scene.cut(&ports);
    scene.request_in_vain(&ports);
    let requested = scene.now;
    time_out(&mut scene, &ports);
    scene.pass_glancing(60);
    scene.close_in_vain(&ports, 412);
    scene.worsen(&ports, |fault| fault.sent = Some(requested));
    scene.pass_glancing(4);
    assert!(was_silent(&scene), "that is what peer_unreachable says");
    scene.pass_glancing(2);
    assert_eq!(number(&found(&scene).unwrap(), "connections"), 3);
}

#[test]
fn half_open_at_database_is_silent_when_the_peer_answered() {
    let (mut scene, ports) = closed();
    // It knows of no such connection any more; or it acknowledged, and never closed its side.
    scene.give_up(&ports[..10], TcpState::FinWait1, RESET, 4);
    scene.give_up(&ports[10..], TcpState::FinWait2, 0, 0);
    scene.pass(20);
    assert!(was_silent(&scene));
}

#[test]
fn half_open_at_database_is_not_about_what_the_path_took_from_an_open_connection() {
    let mut scene = Scene::new(None);
    let ports = scene.open(Role::Client, 412, 3);
    scene.pass(5);
    scene.give_up(&ports, TcpState::Established, TIMED_OUT, 15);
    scene.pass(5);
    assert!(was_silent(&scene), "nobody closed it");
}

#[test]
fn half_open_at_database_survives_loss_and_a_restart() {
    let (mut scene, ports) = closed();
    time_out(&mut scene, &ports);
    scene.pass_glancing(7);
    let sure = found(&scene).unwrap().confidence;
    scene.tracker.note_loss(Loss { ring_full: 5, ..Loss::default() }, scene.now);
    scene.pass(1);
    assert!((found(&scene).unwrap().confidence - 0.9 * sure).abs() < 1e-9);
    scene.give_up(&ports[..8], TcpState::FinWait1, TIMED_OUT, 8);
    scene.pass(1);
    let before = found(&scene).unwrap();

    let mut restarted = Scene::fresh(None, None, Bounds::default());
    restarted.tracker.go_on_from(&scene.tracker.keep("boot", scene.now));
    restarted.store.go_on_from(scene.store.keep());
    restarted.now = scene.now;
    restarted.take_over(&scene);
    restarted.pass_glancing(1);
    let after = found(&restarted).unwrap();
    assert_eq!((&after.id, after.first_seen), (&before.id, before.first_seen));
    assert_eq!(listed(&after, "local_ports"), listed(&before, "local_ports"));
    assert_eq!((number(&after, "waiting"), number(&after, "given_up")), (12, 8));
    assert!(restarted.tracker.take_unidentified().iter().any(|id| id.pid == 500), "/proc is asked who that was");
}

#[test]
fn half_open_at_database_knows_a_fin_that_this_host_does_not_let_out() {
    let (mut scene, ports) = closed();
    scene.worsen(&ports, |fault| (fault.sent, fault.probes) = (None, (2, Timer::Probe)));
    scene.look();
    scene.pass_glancing(7);
    assert!(was_silent(&scene));
    scene.worsen(&ports, |fault| fault.probes = (3, Timer::Probe));
    scene.passes(&ports, None, Some(101));
    scene.pass_glancing(2);
    let finding = found(&scene).unwrap();
    assert_eq!((number(&finding, "connections"), number(&finding, "consecutive_rtos")), (20, 3));
    assert_eq!(said(&finding, "dropped_by"), "this host: no route (ENETUNREACH)");
}
