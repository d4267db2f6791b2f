//! `client_per_request`.

use std::time::Duration;

use tracer_core::event::{AcceptsEvent, Event, Role};
use tracer_core::finding::{Change, Finding, Kind, Severity};
use tracer_core::snapshot::Loss;
use tracer_core::tracker::Bounds;

use crate::scene::{Scene, number};

impl Scene {
    /// Accepts are counted from now on.
    pub fn count_accepts(&mut self) {
        self.tracker.set_counts_accepts(true);
    }

    /// Requests come in to the process.
    pub fn accept(&mut self, pid: u32, requests: u64) {
        let (at, process) = (self.now, self.id(pid));
        let total = self.accepted.entry(pid).or_default();
        *total += requests;
        let total = *total;
        self.tracker.apply(&Event::Accepts(AcceptsEvent { at, process, total }));
    }
}

fn found(scene: &Scene) -> Option<Finding> {
    scene.findings().into_iter().find(|finding| finding.kind == Kind::ClientPerRequest)
}

fn changes(scene: &Scene) -> Vec<Change> {
    scene.lines.iter().filter(|line| line.finding.kind == Kind::ClientPerRequest).map(|line| line.change).collect()
}

/// Requests with a connection each that is closed 40 ms later: so many a second, for so long.
fn churn(scene: &mut Scene, pid: u32, each: usize, seconds: u64) {
    for second in 0..seconds {
        if second % 10 == 0 {
            scene.look();
        }
        for _ in 0..each {
            let ports = scene.open(Role::Client, pid, 1);
            scene.now = scene.now.plus(Duration::from_millis(40));
            scene.close(&ports);
        }
        scene.pass(1);
    }
}

#[test]
fn client_per_request_says_how_many_and_how_long_they_live() {
    let mut scene = Scene::new(None);
    churn(&mut scene, 412, 5, 20);
    scene.name(412, "worker.py");
    assert_eq!(found(&scene), None);
    churn(&mut scene, 412, 5, 30);
    let finding = found(&scene).unwrap();
    assert_eq!(finding.severity, Severity::Warning);
    assert!(
        finding.summary.starts_with("worker.py (pid 412) opens a connection to orders-db for each request: 4.")
            && finding.summary.ends_with(" opens/s, 0 still open, median lifetime 40 ms, about 400 bytes each"),
        "{}",
        finding.summary
    );
    assert_eq!((number(&finding, "median_lifetime"), number(&finding, "mean_bytes")), (40, 400));
    assert!((finding.confidence - 0.9).abs() < 1e-9);
    assert!(finding.evidence.iter().all(|each| each.fact != "requests"), "nobody counts what comes in");
    churn(&mut scene, 412, 5, 100);
    assert_eq!(changes(&scene), [Change::Opened]);
    scene.pass_looking(90);
    assert_eq!(changes(&scene), [Change::Opened, Change::Resolved]);
    let last = &scene.lines.last().unwrap().finding.summary;
    assert!(last.starts_with("worker.py (pid 412) no longer opens a connection to 10.0.0.5:5432 for each"), "{last}");
}

/// A service that opens a connection for each of five requests a second, closed 40 ms later, a minute long; it is told
/// `accepts` of them a second.
fn serving(each: u64, accepts: impl Fn(u64) -> u64) -> Finding {
    let mut scene = Scene::new(None);
    scene.count_accepts();
    for second in 0..60 {
        churn(&mut scene, 412, usize::try_from(each).unwrap(), 1);
        scene.accept(412, accepts(second));
    }
    found(&scene).unwrap()
}

#[test]
fn client_per_request_is_surer_when_requests_come_in_as_often() {
    let check = |accepts: &dyn Fn(u64) -> u64, said: &str, confidence: f64| {
        let finding = serving(5, accepts);
        assert!(finding.summary.contains(said), "{said}: {}", finding.summary);
        assert!((finding.confidence - confidence).abs() < 0.01, "{said}: {}", finding.confidence);
    };
    check(&|_| 5, "each request: 4.2 opens/s against 4.2 requests/s, 0 still open, median lifetime 40 ms, ", 0.975);
    // Some of the requests come in on connections that are kept alive.
    check(&|second| 3 + second % 2, " opens/s against 2.9 requests/s, ", 0.952);
    check(&|_| 1, " opens/s against at least 0.8 requests/s, ", 0.9);
    check(&|_| 50, " opens/s against 42 requests/s, ", 0.9);
    check(&|second| u64::from(second == 45), " opens/s, hardly any inbound requests seen (1 in 30 s), ", 0.9);
    check(&|_| 0, " opens/s, no inbound requests seen, 0 still open, ", 0.9);
}

#[test]
fn client_per_request_says_what_it_went_by() {
    let finding = serving(5, |_| 5);
    let last = finding.ruled_out.last().unwrap();
    assert!(last.starts_with("a loop of its own: ") && last.contains(" requests came in and "), "{last}");
    assert!(finding.evidence.iter().any(|each| each.fact == "requests" && each.unit == "accepted connections/s"));
}

#[test]
fn client_per_request_is_silent_for_a_service_with_a_pool() {
    let mut scene = Scene::new(None);
    scene.count_accepts();
    let pool = scene.open(Role::Client, 412, 5);
    for second in 0..200 {
        scene.accept(412, 50);
        scene.exchange(&pool);
        // One is replaced now and then.
        if second % 20 == 0 {
            let ports = scene.open(Role::Client, 412, 1);
            scene.pass(1);
            scene.close(&ports);
        }
        scene.pass_looking_from(second, 1);
    }
    assert_eq!(changes(&scene), []);
}

#[test]
fn client_per_request_does_not_compare_with_what_was_not_counted() {
    let check = |loss: Loss, is_told: bool| {
        let mut scene = Scene::new(None);
        scene.count_accepts();
        scene.tracker.note_loss(loss, scene.now);
        churn(&mut scene, 412, 5, 60);
        let summary = found(&scene).unwrap().summary;
        assert_eq!(summary.contains("no inbound requests seen"), is_told, "{loss:?}: {summary}");
    };
    check(Loss::default(), true);
    check(Loss { accept_map_full: 1, ..Loss::default() }, false);
    check(Loss { process_map_full: 1, ..Loss::default() }, false);
}

#[test]
fn client_per_request_adds_up_what_the_workers_of_a_service_accept() {
    let mut scene = Scene::new(None);
    scene.count_accepts();
    for worker in 500..504 {
        scene.begin(worker);
    }
    for second in 0..80 {
        for worker in 500..504 {
            let ports = scene.open(Role::Client, worker, 1);
            scene.now = scene.now.plus(Duration::from_millis(20));
            scene.close(&ports);
            scene.name(worker, "api.py");
            scene.accept(worker, 1);
        }
        // One of them is replaced by another.
        if second == 40 {
            scene.exit(503);
        }
        scene.pass_looking_from(second, 1);
    }
    let summary = found(&scene).unwrap().summary;
    assert!(
        summary.starts_with("4 copies of api.py (pids ") && summary.contains("3.7 opens/s against 3.7"),
        "{summary}"
    );
}

/// Processes that each serve one request with one connection, five a second, for a minute.
fn pages(scene: &mut Scene, script: Option<&str>) {
    for pid in 1_000..1_300 {
        scene.begin(pid);
        let ports = scene.open(Role::Client, pid, 1);
        if let Some(script) = script {
            scene.name(pid, script);
        }
        scene.now = scene.now.plus(Duration::from_millis(30));
        scene.close(&ports);
        scene.exit(pid);
        if pid % 5 == 4 {
            scene.pass(1);
        }
    }
}

#[test]
fn client_per_request_adds_up_processes_that_each_serve_one_request() {
    for histories in [2_048, 0] {
        let mut scene = Scene::with(None, None, Bounds { histories, ..Bounds::default() });
        pages(&mut scene, Some("page.php"));
        let finding = found(&scene).unwrap();
        assert!(finding.summary.contains("copies of page.php (pids "), "{}", finding.summary);
        assert!(finding.summary.contains("open a connection to orders-db for each request"), "{}", finding.summary);
        assert!(finding.subject.pids.len() > 100, "those that are over count");
    }
}

#[test]
fn client_per_request_does_not_add_up_what_nothing_ties_together() {
    let mut scene = Scene::new(None);
    pages(&mut scene, None);
    assert_eq!(changes(&scene), []);
}

#[test]
fn client_per_request_is_told_with_less_confidence_when_they_pile_up() {
    let mut scene = Scene::new(None);
    scene.open(Role::Client, 412, 1);
    scene.name(412, "train.py");
    for _ in 0..12 {
        for _ in 0..10 {
            scene.open(Role::Client, 412, 4);
            scene.pass(1);
        }
        scene.look();
    }
    let finding = found(&scene).unwrap();
    assert!(
        finding.summary.starts_with(
            "train.py (pid 412) opens connections to orders-db for one exchange and keeps them: 4.0 opens/s, "
        ),
        "{}",
        finding.summary
    );
    assert!((finding.confidence - 0.6).abs() < 1e-9, "{}", finding.confidence);
    assert!(finding.summary.ends_with(" never used again, about 400 bytes each"), "{}", finding.summary);
}

/// A client a second that is never closed, for two minutes, with so many requests in that time.
fn piling(database: &str, each: u16, requests: u64) -> Finding {
    let mut scene = Scene::with(None, Some(database), Bounds::default());
    scene.count_accepts();
    scene.open(Role::Client, 412, 1);
    scene.name(412, "api.py");
    for second in 0..120 {
        scene.open(Role::Client, 412, each);
        scene.accept(412, requests);
        scene.pass_looking_from(second, 1);
    }
    found(&scene).unwrap()
}

#[test]
fn client_per_request_is_surer_of_a_pile_that_follows_requests() {
    let finding = piling("postgres", 3, 3);
    let begins = "api.py (pid 412) opens a connection to orders-db for each request and keeps it: 3.0 opens/s against 3.0 \
                  requests/s, ";
    assert!(finding.summary.starts_with(begins), "{}", finding.summary);
    assert!((finding.confidence - 0.9).abs() < 0.01, "{}", finding.confidence);
    let finding = piling("postgres", 3, 0);
    assert!(finding.summary.contains(" keeps them: 3.0 opens/s, no inbound requests seen, "), "{}", finding.summary);
    assert!((finding.confidence - 0.6).abs() < 1e-9, "{}", finding.confidence);
    // A client of MongoDB has three connections.
    assert!((piling("mongodb", 3, 1).confidence - 0.9).abs() < 0.01);
    assert!((piling("postgres", 3, 1).confidence - 0.6).abs() < 1e-9);
}

#[test]
fn client_per_request_knows_that_mongodb_clients_watch_their_server() {
    let check = |database: &str| {
        let mut scene = Scene::with(None, Some(database), Bounds::default());
        let mut watching = Vec::new();
        for second in 0..120 {
            // A request a second; its client brings two more connections, which ask how the server is.
            let client = scene.open(Role::Client, 412, 3);
            watching.extend_from_slice(&client[1..]);
            if second % 10 == 0 {
                scene.exchange(&watching);
                scene.look();
            }
            scene.pass(1);
        }
        found(&scene).map(|finding| number(&finding, "open"))
    };
    assert!(check("mongodb").is_some_and(|open| open >= 300));
    assert_eq!(check("postgres"), None);
}

#[test]
fn client_per_request_is_for_a_pooler_to_take() {
    let mut scene = Scene::with(None, Some("pgbouncer"), Bounds::default());
    churn(&mut scene, 412, 5, 60);
    assert_eq!(found(&scene).unwrap().severity, Severity::Info);
}

#[test]
fn client_per_request_is_silent_for_a_ramp_whose_connections_work() {
    let mut scene = Scene::new(None);
    let mut pool = Vec::new();
    for second in 0..120 {
        pool.extend(scene.open(Role::Client, 412, 4));
        scene.exchange(&pool);
        if second % 10 == 0 {
            scene.look();
        }
        scene.pass(1);
    }
    assert_eq!(changes(&scene), []);
}

#[test]
fn client_per_request_is_silent_for_jobs_and_health_checks() {
    let mut scene = Scene::new(None);
    for _ in 0..10 {
        // A cron job: many at once, and soon over.
        churn(&mut scene, 412, 10, 15);
        // A health check every second.
        churn(&mut scene, 500, 1, 60);
    }
    assert_eq!(changes(&scene), []);
}

#[test]
fn client_per_request_is_silent_for_members_replaced_by_age() {
    let mut scene = Scene::new(None);
    let mut pool = scene.open(Role::Client, 412, 100);
    for second in 0..300 {
        let old: Vec<u16> = pool.drain(..3).collect();
        scene.close(&old);
        pool.extend(scene.open(Role::Client, 412, 3));
        if second % 10 == 0 {
            scene.exchange(&pool);
            scene.look();
        }
        scene.pass(1);
    }
    assert_eq!(changes(&scene), [], "each lives for half a minute");
}

/// A pool of five, and connections beside it that live 40 ms, five a second; the pool works all the time, or once a minute.
fn beside_a_pool(is_full: bool) -> Vec<Change> {
    let mut scene = Scene::new(None);
    let pool = scene.open(Role::Client, 412, 5);
    scene.exchange(&pool);
    scene.pass_looking(60);
    for second in 0..120 {
        for _ in 0..5 {
            let ports = scene.open(Role::Client, 412, 1);
            scene.now = scene.now.plus(Duration::from_millis(40));
            scene.close(&ports);
        }
        if is_full || second % 60 == 0 {
            scene.exchange(&pool);
        }
        if is_full {
            scene.request(&pool[..3]);
        }
        if second % 10 == 0 {
            scene.look();
        }
        scene.pass(1);
    }
    changes(&scene)
}

#[test]
fn client_per_request_is_silent_for_the_overflow_of_a_full_pool() {
    assert_eq!(beside_a_pool(true), []);
    assert_eq!(beside_a_pool(false), [Change::Opened], "the pool has room");
}

#[test]
fn client_per_request_is_silent_for_a_warm_up() {
    let mut scene = Scene::new(None);
    for _ in 0..50 {
        scene.open(Role::Client, 412, 4);
        scene.pass_looking(1);
    }
    scene.pass_looking(300);
    assert_eq!(changes(&scene), []);
}

#[test]
fn client_per_request_keeps_its_verdict_at_half_the_rate_and_through_loss() {
    let mut scene = Scene::new(None);
    churn(&mut scene, 412, 4, 50);
    let before = found(&scene).unwrap();
    churn(&mut scene, 412, 2, 60);
    scene.tracker.note_loss(Loss { ring_full: 5, ..Loss::default() }, scene.now);
    churn(&mut scene, 412, 2, 5);
    let after = found(&scene).unwrap();
    assert!(after.id == before.id && after.confidence < before.confidence);
    assert_eq!(changes(&scene), [Change::Opened]);
}
