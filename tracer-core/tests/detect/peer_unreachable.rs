//! `peer_unreachable`.

use std::collections::BTreeMap;

use tracer_core::event::Role;
use tracer_core::finding::{Change, Finding, Kind, Severity};
use tracer_core::inventory::{Entry, EntryState, Network, Timer, Tracked};
use tracer_core::snapshot::Loss;
use tracer_core::tcp::TcpState;

use crate::scene::{Scene, listed, number, said};

fn found(scene: &Scene) -> Option<Finding> {
    scene.findings().into_iter().find(|finding| finding.kind == Kind::PeerUnreachable)
}

fn was_silent(scene: &Scene) -> bool {
    !scene.lines.iter().any(|line| line.finding.kind == Kind::PeerUnreachable)
}

/// A pool of ten, seven of which have just sent a request into a path that is dead.
fn pool() -> (Scene, Vec<u16>) {
    let mut scene = Scene::new(None);
    let ports = scene.open(Role::Client, 412, 10);
    scene.name(412, "worker.py");
    scene.pass(20);
    scene.exchange(&ports[..7]);
    scene.look();
    scene.cut(&ports);
    scene.request_in_vain(&ports[..7]);
    (scene, ports)
}

/// Two time-outs later the kernel tells that segments were sent again; a daemon asks about these sockets from then on.
fn time_out(scene: &mut Scene, ports: &[u16]) {
    scene.pass(1);
    scene.retransmits(ports, Role::Client);
}

#[test]
fn peer_unreachable_speaks_as_soon_as_it_is_true() {
    let (mut scene, ports) = pool();
    time_out(&mut scene, &ports[..7]);
    scene.pass_glancing(3);
    assert_eq!(found(&scene), None, "time-outs, and 4 s of silence");
    scene.pass_glancing(2);
    let finding = scene.only();
    assert_eq!((finding.kind, finding.severity), (Kind::PeerUnreachable, Severity::Critical));
    assert_eq!(finding.subject.pids, [412]);
    assert_eq!(
        finding.summary,
        "worker.py (pid 412) holds 7 dead connections to orders-db: 4 time-outs in a row, data unacknowledged for at \
         least 5 s, nothing heard for 6 s; the packets are lost beyond this host; 3 idle there, unknown"
    );
    assert_eq!((number(&finding, "connections"), number(&finding, "unknown"), number(&finding, "alive")), (7, 3, 0));
    let text = |ports: &[u16]| ports.iter().map(u16::to_string).collect::<Vec<_>>();
    assert_eq!(listed(&finding, "local_ports"), text(&ports[..7]));
    assert_eq!(listed(&finding, "unknown_ports"), text(&ports[7..]));
    assert_eq!(said(&finding, "dropped_by"), "beyond this host");
    scene.pass_glancing(120);
    assert_eq!(scene.changes(), [Change::Opened], "it only ages");
}

#[test]
fn peer_unreachable_is_no_surprise_to_looks_alone() {
    let (mut scene, ports) = pool();
    scene.pass_looking(9);
    assert_eq!(found(&scene), None, "no look told");
    scene.pass_looking(2);
    assert_eq!(number(&found(&scene).unwrap(), "connections"), 7);
    scene.mend(&ports[..7]);
    scene.look();
    scene.pass(1);
    assert_eq!(found(&scene), None);
}

#[test]
fn peer_unreachable_clears_with_the_first_answer_and_does_not_flap() {
    let (mut scene, ports) = pool();
    time_out(&mut scene, &ports[..7]);
    scene.pass_glancing(30);
    scene.mend(&ports[..7]);
    scene.pass_glancing(30);
    assert_eq!(scene.changes(), [Change::Opened, Change::Resolved]);
    let last = &scene.lines.last().unwrap().finding.summary;
    assert_eq!(last, "worker.py (pid 412): 7 dead connections at 10.0.0.5:5432 answered or ended, open for 26 s");
    assert_eq!(scene.glance(), 0, "nobody is asked about any more");
}

#[test]
fn peer_unreachable_is_a_warning_while_others_get_through() {
    let (mut scene, ports) = pool();
    time_out(&mut scene, &ports[..7]);
    // A new one gets an answer: somebody else's state is lost, not the path.
    scene.open(Role::Client, 412, 1);
    scene.pass_glancing(6);
    let finding = found(&scene).unwrap();
    assert_eq!((finding.severity, number(&finding, "alive")), (Severity::Warning, 1));
}

#[test]
fn peer_unreachable_is_silent_for_lost_packets() {
    let (mut scene, ports) = pool();
    for _ in 0..30 {
        time_out(&mut scene, &ports[..7]);
        scene.mend(&ports[..7]);
        scene.pass_glancing(2);
        scene.cut(&ports);
        scene.request_in_vain(&ports[..7]);
    }
    assert!(was_silent(&scene));
}

#[test]
fn peer_unreachable_is_silent_for_a_peer_that_is_heard_of() {
    // Time-outs in a row, and every now and then a segment of the peer's: much is lost, not all.
    let (mut scene, ports) = pool();
    time_out(&mut scene, &ports[..7]);
    for _ in 0..40 {
        let now = scene.now;
        scene.worsen(&ports[..7], |fault| fault.heard = now);
        scene.pass_glancing(4);
    }
    assert!(was_silent(&scene));
    // The peer's own keepalives leave no time behind, and are counted.
    for _ in 0..40 {
        scene.worsen(&ports[..7], |fault| fault.segments += 1);
        scene.pass_glancing(4);
    }
    assert!(was_silent(&scene));
    scene.pass_glancing(10);
    assert!(!was_silent(&scene));
}

#[test]
fn peer_unreachable_is_silent_for_a_stopped_peer_whose_kernel_acknowledges() {
    let (mut scene, ports) = pool();
    // The window is closed: probes go out, and are answered.
    for _ in 0..60 {
        let now = scene.now;
        scene.worsen(&ports, |fault| {
            (fault.heard, fault.sent) = (now, None);
            fault.probes = (1, Timer::Probe);
        });
        scene.pass_glancing(8);
        scene.worsen(&ports, |fault| fault.probes = (0, Timer::Probe));
    }
    assert!(was_silent(&scene));
    // A request that takes for ever, all of it acknowledged.
    scene.worsen(&ports, |fault| fault.probes = (0, Timer::Off));
    scene.pass_glancing(600);
    assert!(was_silent(&scene));
    scene.worsen(&ports, |fault| fault.probes = (3, Timer::Probe));
    scene.pass_glancing(10);
    assert_eq!(number(&found(&scene).unwrap(), "unanswered_probes"), 3, "and now it does not answer");
}

#[test]
fn peer_unreachable_waits_for_a_path_that_is_slow() {
    let (mut scene, ports) = pool();
    scene.worsen(&ports, |fault| fault.srtt_us = Some(3_000_000));
    time_out(&mut scene, &ports[..7]);
    scene.pass_glancing(13);
    assert!(was_silent(&scene), "five round trips are 15 s");
    scene.pass_glancing(3);
    assert!(!was_silent(&scene));
}

#[test]
fn peer_unreachable_knows_keepalives_without_an_answer() {
    let (mut scene, ports) = pool();
    scene.worsen(&ports, |fault| (fault.sent, fault.probes) = (None, (1, Timer::Keepalive)));
    scene.look();
    scene.pass_glancing(9);
    assert!(was_silent(&scene), "one may be lost");
    scene.worsen(&ports[..1], |fault| fault.probes = (2, Timer::Keepalive));
    scene.pass_glancing(1);
    let finding = found(&scene).unwrap();
    assert_eq!((number(&finding, "connections"), number(&finding, "consecutive_rtos")), (1, 0));
    assert!(finding.summary.contains("2 probes unanswered"), "{}", finding.summary);
}

#[test]
fn peer_unreachable_says_when_this_host_drops_the_packets() {
    let (mut scene, ports) = pool();
    scene.tracker.set_drop_reasons(BTreeMap::from([(8, "NETFILTER_DROP".to_owned()), (3, "NO_SOCKET".to_owned())]));
    scene.drops(&ports[..7], 8);
    scene.drops(&[60_000], 9);
    scene.drops(&ports[..7], 3);
    time_out(&mut scene, &ports[..7]);
    scene.pass_glancing(6);
    let finding = found(&scene).unwrap();
    assert!(finding.summary.contains("this host drops their packets (NETFILTER_DROP)"), "{}", finding.summary);
    assert_eq!(said(&finding, "dropped_by"), "this host: NETFILTER_DROP (7 packets told of)");
    assert!((finding.confidence - 0.98).abs() < 1e-9 && finding.remedy.contains("this host's firewall"), "{finding:?}");
}

#[test]
fn peer_unreachable_is_less_sure_after_loss() {
    let (mut scene, ports) = pool();
    time_out(&mut scene, &ports[..7]);
    scene.pass_glancing(6);
    let sure = found(&scene).unwrap().confidence;
    scene.tracker.note_loss(Loss { ring_full: 5, ..Loss::default() }, scene.now);
    scene.pass(1);
    let unsure = found(&scene).unwrap().confidence;
    assert!((sure - 0.95).abs() < 1e-9 && (unsure - 0.9 * sure).abs() < 1e-9, "{sure} {unsure}");
}

#[test]
fn peer_unreachable_survives_a_restart() {
    let (mut scene, ports) = pool();
    time_out(&mut scene, &ports[..7]);
    scene.pass_glancing(20);
    let before = found(&scene).unwrap();
    let mut restarted = Scene::new(None);
    restarted.store.go_on_from(scene.store.keep());
    restarted.now = scene.now;
    restarted.take_over(&scene);
    restarted.name(412, "worker.py");
    restarted.pass(1);
    let after = found(&restarted).unwrap();
    assert_eq!((&after.id, after.first_seen), (&before.id, before.first_seen));
    assert_eq!((&after.subject, number(&after, "unknown")), (&before.subject, 3));
}

#[test]
fn peer_unreachable_shows_dead_clients_to_the_database() {
    let mut scene = Scene::new(None);
    let ports = scene.open(Role::Server, 77, 4);
    scene.pass(20);
    scene.cut(&ports);
    scene.request_in_vain(&ports[..3]);
    scene.pass(1);
    scene.retransmits(&ports[..3], Role::Server);
    scene.pass_glancing(6);
    let finding = found(&scene).unwrap();
    assert_eq!((finding.severity, &finding.subject.pids), (Severity::Warning, &vec![77]));
    assert!(finding.summary.starts_with("orders-db has 3 dead connections from 10.0.0.9: "), "{}", finding.summary);
    assert_eq!(listed(&finding, "local_ports").len(), 3);
}

#[test]
fn peer_unreachable_says_when_this_host_has_no_route() {
    let (mut scene, ports) = pool();
    // It cannot even be sent: the kernel tries again by the timer of window probes.
    scene.worsen(&ports[..7], |fault| (fault.sent, fault.probes) = (None, (3, Timer::Probe)));
    scene.passes(&ports[..7], None, Some(113));
    scene.look();
    scene.pass_glancing(6);
    let finding = found(&scene).unwrap();
    assert!(
        finding.summary.contains("3 attempts in a row to send in vain")
            && finding.summary.contains("this host has no route to the peer (EHOSTUNREACH)"),
        "{}",
        finding.summary
    );
    assert_eq!(said(&finding, "dropped_by"), "this host: no route (EHOSTUNREACH)");
    assert!((finding.confidence - 0.98).abs() < 1e-9 && finding.remedy.contains("route"), "{finding:?}");
    // The route is there again, and the packets are lost elsewhere.
    scene.passes(&ports[..7], None, None);
    scene.pass_glancing(2);
    assert_eq!(said(&found(&scene).unwrap(), "dropped_by"), "beyond this host");
}

/// Drops by the firewall, in a namespace that tracks that many connections of 100, and has thrown away that many packets
/// for want of room.
fn firewalled(scene: &mut Scene, ports: &[u16], tracked: u32, untracked: u64) {
    scene.tracker.set_drop_reasons(BTreeMap::from([(8, "NETFILTER_DROP".to_owned())]));
    scene.network = Some(Network {
        tracked: Some(tracked),
        tracked_most: Some(100),
        untracked_drops: Some(untracked),
        ..Network::default()
    });
    scene.drops(ports, 8);
    scene.look();
}

#[test]
fn peer_unreachable_tells_a_full_table_from_a_rule() {
    let check = |tracked: u32, untracked: u64, entry: Option<Tracked>, expected: &str| {
        let (mut scene, ports) = pool();
        firewalled(&mut scene, &ports[..7], 40, 7);
        scene.passes(&ports[..7], entry, None);
        time_out(&mut scene, &ports[..7]);
        firewalled(&mut scene, &ports[..7], tracked, untracked);
        scene.pass_glancing(6);
        let finding = found(&scene).unwrap();
        assert!(said(&finding, "dropped_by").starts_with(expected), "{tracked} {untracked} {entry:?}: {finding:?}");
    };
    let full = "this host: connection tracking full (100 of 100), NETFILTER_DROP";
    check(100, 7, None, full);
    check(99, 8, Some(Tracked::Absent), "this host: connection tracking full (99 of 100), NETFILTER_DROP");
    check(99, 7, None, "this host: NETFILTER_DROP");
    let entry = Entry { state: EntryState::ESTABLISHED, left_s: 100, translated: false };
    check(100, 9, Some(Tracked::Entry(entry)), "this host: NETFILTER_DROP");
}

#[test]
fn peer_unreachable_is_asked_about_when_this_host_drops_what_it_sends() {
    let (mut scene, ports) = pool();
    scene.worsen(&ports[..7], |fault| (fault.sent, fault.probes) = (None, (2, Timer::Probe)));
    firewalled(&mut scene, &ports[..7], 1, 0);
    scene.worsen(&ports[..7], |fault| fault.probes = (3, Timer::Probe));
    scene.drops(&ports[..7], 8);
    scene.pass_glancing(6);
    assert_eq!(number(&found(&scene).unwrap(), "connections"), 7);
}

#[test]
fn peer_unreachable_shows_closes_that_a_client_never_acknowledged() {
    let mut scene = Scene::new(None);
    let ports = scene.open(Role::Server, 77, 5);
    scene.pass(20);
    // The database ends three sessions; their FINs are not answered.
    scene.close_in_vain(&ports[..3], 77);
    scene.pass(1);
    scene.retransmits(&ports[..3], Role::Server);
    scene.pass_glancing(7);
    let finding = scene.only();
    assert_eq!((finding.kind, finding.severity), (Kind::PeerUnreachable, Severity::Warning));
    assert!(
        finding
            .summary
            .starts_with("orders-db closed 3 connections from 10.0.0.9, and the client never acknowledged it: "),
        "{}",
        finding.summary
    );
    assert_eq!((number(&finding, "connections"), number(&finding, "closed")), (3, 3));
    // An open one gets no acknowledgement either.
    scene.cut(&ports[3..]);
    scene.request_in_vain(&ports[3..4]);
    scene.pass(1);
    scene.retransmits(&ports[3..4], Role::Server);
    scene.pass_glancing(8);
    let both = found(&scene).unwrap().summary;
    assert!(both.starts_with("orders-db has 4 dead connections from 10.0.0.9, 3 of them closed"), "{both}");
    // The kernel gives up: nothing is left of them.
    scene.give_up(&ports[..3], TcpState::FinWait1, 110, 8);
    scene.mend(&ports[3..4]);
    scene.pass_glancing(2);
    assert_eq!((found(&scene), scene.changes().last()), (None, Some(&Change::Resolved)));
}

#[test]
fn peer_unreachable_is_silent_for_slow_closes_of_a_database() {
    let mut scene = Scene::new(None);
    let ports = scene.open(Role::Server, 77, 5);
    scene.pass(20);
    scene.close_in_vain(&ports, 77);
    scene.pass(1);
    scene.retransmits(&ports, Role::Server);
    scene.pass_glancing(3);
    scene.close_heard(&ports);
    scene.pass_glancing(20);
    assert!(was_silent(&scene));
}
