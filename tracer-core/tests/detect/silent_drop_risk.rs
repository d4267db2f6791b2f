//! `silent_drop_risk`.

use tracer_core::event::Role;
use tracer_core::finding::{Change, Finding, Kind, Severity};
use tracer_core::inventory::{Entry, EntryState, Network, Timer, Tracked};
use tracer_core::snapshot::Loss;

use crate::scene::{Scene, listed, number, said};

fn found(scene: &Scene) -> Option<Finding> {
    scene.findings().into_iter().find(|finding| finding.kind == Kind::SilentDropRisk)
}

fn was_silent(scene: &Scene) -> bool {
    !scene.lines.iter().any(|line| line.finding.kind == Kind::SilentDropRisk)
}

/// The database is behind a router, or on a link as long as that.
fn network(link: u8) -> Network {
    Network { keepalive_idle_s: Some(7_200), links: vec![("10.0.0.9".parse().unwrap(), link)], ..Network::default() }
}

fn idle_pool(network: Option<Network>) -> (Scene, Vec<u16>) {
    let mut scene = Scene::new(None);
    scene.config.enable(Kind::IdleHold, false);
    scene.config.enable(Kind::UnusedConnection, false);
    scene.network = network;
    let ports = scene.open(Role::Client, 412, 3);
    scene.name(412, "worker.py");
    (scene, ports)
}

#[test]
fn silent_drop_risk_is_a_warning_behind_a_router() {
    let (mut scene, ports) = idle_pool(Some(network(32)));
    scene.pass_looking(350);
    assert!(was_silent(&scene));
    scene.pass_looking(20);
    let finding = scene.only();
    assert_eq!((finding.kind, finding.severity), (Kind::SilentDropRisk, Severity::Warning));
    assert_eq!(
        finding.summary,
        "worker.py (pid 412) holds 3 idle connections to orders-db that may be forgotten on the way: nothing passed for \
         6 min and keepalive is too slow, longer than AWS' network load balancer remembers (5 min)"
    );
    assert_eq!(listed(&finding, "local_ports").len(), 3);
    assert_eq!(number(&finding, "host_keepalive_idle"), 7_200);
    scene.pass_looking(300);
    assert!(found(&scene).unwrap().summary.contains("Google Cloud's firewall"), "{}", found(&scene).unwrap().summary);
    // One is used, and answered: the network has remembered it for so long, and so will it the others.
    scene.exchange(&ports[..1]);
    scene.look();
    scene.pass(1);
    assert_eq!((found(&scene), scene.changes().last()), (None, Some(&Change::Resolved)));
    scene.pass_looking(600);
    assert_eq!(found(&scene), None, "it was heard of again after as long");
}

#[test]
fn silent_drop_risk_is_info_on_the_same_link_and_nothing_where_routes_are_unknown() {
    let (mut scene, _) = idle_pool(Some(network(24)));
    scene.pass_looking(400);
    let finding = scene.only();
    assert_eq!((finding.severity, said(&finding, "peer")), (Severity::Info, "on the same link"));
    let (mut scene, _) = idle_pool(None);
    scene.pass_looking(4_000);
    assert!(was_silent(&scene));
}

#[test]
fn silent_drop_risk_is_silent_while_keepalives_pass() {
    let (mut scene, ports) = idle_pool(Some(network(32)));
    scene.cut(&ports);
    scene.worsen(&ports, |fault| fault.probes = (0, Timer::Keepalive));
    for round in 0..20 {
        let now = scene.now;
        // Ours are answered; then the database's own come.
        match round < 10 {
            true => scene.worsen(&ports, |fault| fault.heard = now),
            false => scene.worsen(&ports, |fault| fault.segments += 1),
        }
        scene.pass_looking(300);
    }
    assert!(was_silent(&scene));
    scene.pass_looking(400);
    assert!(!was_silent(&scene), "they have stopped");
}

#[test]
fn silent_drop_risk_knows_what_this_host_forgets() {
    let tracked = Network { conntrack_s: Some(60), ..network(32) };
    let (mut scene, _) = idle_pool(Some(tracked));
    scene.pass_looking(80);
    let finding = scene.only();
    assert!(finding.summary.ends_with("this host's connection tracking remembers (1 min)"), "{}", finding.summary);
    assert!((finding.confidence - 0.9).abs() < 1e-9);
}

#[test]
fn silent_drop_risk_leaves_requests_that_wait_to_others() {
    let (mut scene, ports) = idle_pool(Some(network(32)));
    scene.cut(&ports);
    scene.request_in_vain(&ports);
    scene.pass_looking(1_000);
    assert!(was_silent(&scene));
}

#[test]
fn silent_drop_risk_survives_loss_and_a_restart() {
    let (mut scene, _) = idle_pool(Some(network(32)));
    scene.pass_looking(370);
    let before = found(&scene).unwrap();
    assert!((before.confidence - 0.6).abs() < 1e-9);
    scene.tracker.note_loss(Loss { ring_full: 5, ..Loss::default() }, scene.now);
    scene.pass(1);
    assert!((found(&scene).unwrap().confidence - 0.54).abs() < 1e-9);
    let mut restarted = Scene::new(None);
    restarted.store.go_on_from(scene.store.keep());
    restarted.now = scene.now;
    restarted.take_over(&scene);
    restarted.pass(1);
    let after = found(&restarted).unwrap();
    assert_eq!((after.id, after.first_seen), (before.id, before.first_seen));
}

fn entry(state: u8, left_s: u32) -> Option<Tracked> {
    Some(Tracked::Entry(Entry { state: EntryState(state), left_s, translated: true }))
}

/// Connections are tracked here, for five days unless something else was said of one.
fn tracking() -> Network {
    Network { conntrack_s: Some(432_000), tracked: Some(5), tracked_most: Some(262_144), ..network(32) }
}

#[test]
fn silent_drop_risk_sees_this_host_forget_a_connection() {
    let (mut scene, ports) = idle_pool(Some(tracking()));
    scene.pass(10);
    scene.passes(&ports, entry(3, 20), None);
    scene.look();
    // Silent for 20 s; what is left is told in whole seconds, and may be nearly 6.
    scene.passes(&ports[..2], entry(3, 5), None);
    scene.pass_looking(20);
    assert!(was_silent(&scene), "it is remembered");
    scene.passes(&ports[..2], Some(Tracked::Absent), None);
    scene.look();
    scene.pass(1);
    let finding = scene.only();
    assert_eq!((finding.kind, number(&finding, "connections")), (Kind::SilentDropRisk, 2));
    assert_eq!(listed(&finding, "local_ports"), [ports[0].to_string(), ports[1].to_string()]);
    assert!(
        finding.summary.ends_with("longer than this host's connection tracking remembers (26 s)"),
        "{}",
        finding.summary
    );
    assert_eq!(said(&finding, "conntrack"), "the entry is gone after 26 s (ESTABLISHED, translated)");
    assert!((finding.confidence - 0.95).abs() < 1e-9, "{finding:?}");
    // Used again: they are tracked anew, and stay so.
    scene.exchange(&ports);
    scene.passes(&ports, entry(3, 432_000), None);
    scene.look();
    scene.pass(1);
    assert_eq!((found(&scene), scene.changes().last()), (None, Some(&Change::Resolved)));
}

#[test]
fn silent_drop_risk_believes_an_entry_more_than_the_setting() {
    // The namespace forgets after a minute, and a rule has made these last longer.
    let (mut scene, ports) = idle_pool(Some(Network { conntrack_s: Some(60), ..tracking() }));
    scene.passes(&ports, entry(3, 9_000), None);
    scene.pass_looking(300);
    assert!(was_silent(&scene));
    // Nothing was ever seen of these: they may never have been tracked.
    let (mut scene, ports) = idle_pool(Some(tracking()));
    scene.passes(&ports, Some(Tracked::Absent), None);
    scene.pass_looking(300);
    assert!(was_silent(&scene));
}

#[test]
fn silent_drop_risk_sees_a_connection_that_this_host_takes_for_closed() {
    let (mut scene, ports) = idle_pool(Some(tracking()));
    scene.passes(&ports, entry(8, 8), None);
    scene.pass_looking(12);
    let finding = scene.only();
    assert!(finding.summary.ends_with("takes them for closed (CLOSE, translated, 8 s left)"), "{}", finding.summary);
}

#[test]
fn silent_drop_risk_knows_that_a_lost_entry_did_no_harm() {
    let (mut scene, ports) = idle_pool(Some(tracking()));
    scene.pass(10);
    scene.passes(&ports, entry(3, 20), None);
    scene.look();
    scene.passes(&ports, Some(Tracked::Absent), None);
    scene.pass_looking(40);
    assert!(found(&scene).is_some());
    // The next packet is taken in as if nothing had happened.
    scene.exchange(&ports[..1]);
    scene.look();
    scene.pass_looking(20);
    assert_eq!(found(&scene), None);
}
