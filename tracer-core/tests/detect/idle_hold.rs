//! `idle_hold`.

use tracer_core::event::Role;
use tracer_core::finding::{Change, Finding, Kind, Severity};
use tracer_core::snapshot::Loss;

use crate::scene::{Scene, number};

fn held(scene: &Scene) -> Vec<Finding> {
    scene.findings().into_iter().filter(|finding| finding.kind == Kind::IdleHold).collect()
}

#[track_caller]
fn only(scene: &Scene) -> Finding {
    let mut all = held(scene);
    assert_eq!(all.len(), 1, "{all:#?}");
    all.remove(0)
}

#[track_caller]
fn silent(scene: &Scene) {
    assert!(scene.lines.iter().all(|line| line.finding.kind != Kind::IdleHold), "{:#?}", scene.lines);
}

/// A pool of a process whose requests each take one member; some sessions are never returned.
struct Pool {
    scene: Scene,
    /// Idle members, the longest idle first.
    free: Vec<u16>,
    lost: Vec<u16>,
    last_in_first_out: bool,
}

impl Pool {
    fn new(members: u16, last_in_first_out: bool) -> Self {
        let mut scene = Scene::new(None);
        let free = scene.open(Role::Client, 412, members);
        scene.name(412, "api.py");
        Self { scene, free, lost: Vec::new(), last_in_first_out }
    }

    /// So many requests at once, and the next after `seconds`.
    fn requests(&mut self, count: usize, seconds: u64) {
        let mut taken = Vec::new();
        for _ in 0..count {
            let member = match (self.free.is_empty(), self.last_in_first_out) {
                (true, _) => self.scene.open(Role::Client, 412, 1)[0],
                (false, true) => self.free.pop().unwrap(),
                (false, false) => self.free.remove(0),
            };
            taken.push(member);
        }
        self.scene.exchange(&taken);
        self.free.extend(taken);
        self.scene.pass_looking(seconds);
    }

    /// A request whose session is never returned.
    fn lose(&mut self) {
        self.requests(1, 10);
        let member = self.free.pop().unwrap();
        self.lost.push(member);
    }
}

#[test]
fn sessions_that_are_never_returned_make_the_pool_grow() {
    for last_in_first_out in [false, true] {
        let mut pool = Pool::new(2, last_in_first_out);
        for nth in 0..18 {
            pool.lose();
            for _ in 0..12 {
                pool.requests(2, 10);
            }
            let kinds = held(&pool.scene).len();
            assert!(nth > 5 || kinds == 0, "few are a floor: {nth}");
        }
        let finding = only(&pool.scene);
        assert_eq!(finding.severity, Severity::Warning);
        assert!((12..=16).contains(&number(&finding, "held")), "{finding:#?}");
        assert_eq!(number(&finding, "open"), 20);
        assert!(finding.summary.starts_with("api.py (pid 412) holds"), "{}", finding.summary);
        assert!(!finding.summary.contains("transaction") && finding.confidence > 0.85);
        pool.scene.tracker.note_loss(Loss { ring_full: 1, ..Loss::default() }, pool.scene.now);
        pool.scene.pass(1);
        assert!(only(&pool.scene).confidence < finding.confidence);
        // They are closed: told once, and how it is now.
        let lost = std::mem::take(&mut pool.lost);
        pool.scene.close(&lost);
        pool.requests(2, 20);
        assert_eq!(held(&pool.scene), []);
        let lines: Vec<_> = pool.scene.lines.iter().filter(|line| line.finding.kind == Kind::IdleHold).collect();
        assert_eq!(lines.iter().filter(|line| line.change == Change::Opened).count(), 1);
        assert_eq!(lines.last().unwrap().change, Change::Resolved);
        assert!(lines.last().unwrap().finding.summary.starts_with("api.py (pid 412) 2 connections (was 20, "));
    }
}

#[test]
fn a_few_are_worth_a_word_only() {
    let mut pool = Pool::new(2, false);
    for _ in 0..8 {
        pool.lose();
        for _ in 0..12 {
            pool.requests(2, 10);
        }
    }
    for _ in 0..40 {
        pool.requests(2, 10);
    }
    assert_eq!(only(&pool.scene).severity, Severity::Info);
}

#[test]
fn a_pool_at_rest_is_healthy_whatever_its_size() {
    for members in [2, 10, 100] {
        let mut pool = Pool::new(members, false);
        pool.requests(usize::from(members), 7_200);
        silent(&pool.scene);
    }
}

#[test]
fn a_pool_that_grew_with_load_and_rests_is_healthy() {
    for last_in_first_out in [false, true] {
        let mut pool = Pool::new(1, last_in_first_out);
        // More and more at once, up to 20; then fewer and fewer, and a night of one request a minute.
        for at_once in (1..=20).chain((1..20).rev()) {
            for _ in 0..6 {
                pool.requests(at_once, 10);
            }
        }
        for _ in 0..120 {
            pool.requests(1, 60);
        }
        // The next morning it grows further.
        for at_once in (1..=25).chain((1..25).rev()) {
            pool.requests(at_once, 30);
        }
        pool.requests(1, 1_200);
        silent(&pool.scene);
    }
}

#[test]
fn members_that_are_recycled_by_age_are_healthy() {
    let mut pool = Pool::new(10, true);
    for _ in 0..120 {
        for _ in 0..6 {
            pool.requests(2, 30);
        }
        // The oldest goes, another comes; the bottom of the stack is never used.
        let old = pool.free.remove(0);
        pool.scene.close(&[old]);
        let new = pool.scene.open(Role::Client, 412, 1);
        pool.free.insert(0, new[0]);
    }
    silent(&pool.scene);
}

#[test]
fn a_floor_of_idle_members_that_grows_with_load_is_healthy() {
    // Keeps three idle beside those in use, each added when another is taken.
    let mut pool = Pool::new(3, true);
    for at_once in 1..=15 {
        for _ in 0..12 {
            pool.requests(at_once, 10);
        }
        while pool.free.len() < at_once + 3 {
            let new = pool.scene.open(Role::Client, 412, 1);
            pool.free.insert(0, new[0]);
            pool.scene.pass_looking(15);
        }
    }
    for _ in 0..60 {
        pool.requests(15, 20);
    }
    silent(&pool.scene);
}

#[test]
fn a_second_pool_beside_one_at_rest_is_healthy() {
    let mut pool = Pool::new(1, false);
    for at_once in 1..=10 {
        pool.requests(at_once, 30);
    }
    // Another pool of the same process opens and grows while the first rests.
    let first = std::mem::take(&mut pool.free);
    for at_once in 1..=10 {
        for _ in 0..6 {
            pool.requests(at_once, 20);
        }
    }
    assert_eq!(first.len(), 10);
    silent(&pool.scene);
}

#[test]
fn bursts_that_open_and_close_are_healthy() {
    let mut pool = Pool::new(5, true);
    for _ in 0..200 {
        pool.requests(5, 10);
        let overflow = pool.scene.open(Role::Client, 412, 10);
        pool.scene.pass_looking(5);
        pool.scene.close(&overflow);
        pool.requests(1, 25);
    }
    silent(&pool.scene);
}

#[test]
fn a_pool_that_fills_itself_slowly_and_works_with_few_is_healthy() {
    let mut pool = Pool::new(2, true);
    for _ in 0..10 {
        let new = pool.scene.open(Role::Client, 412, 1);
        pool.free.extend(new);
        pool.requests(2, 4);
    }
    for _ in 0..300 {
        pool.requests(2, 10);
    }
    silent(&pool.scene);
}

#[test]
fn threads_with_a_connection_each_take_turns_that_come_late() {
    let mut scene = Scene::new(None);
    let mut threads = [None; 32];
    // A request every ten seconds, on any thread: most threads wait for minutes.
    for request in 0..2_000usize {
        let thread = (request * request * 7 + request / 5) % 32;
        let port = *threads[thread].get_or_insert_with(|| scene.open(Role::Client, 412, 1)[0]);
        scene.exchange(&[port]);
        scene.pass_looking(10);
    }
    assert!(threads.iter().flatten().count() > 16);
    silent(&scene);
}
