//! Pools as drivers make them, under loads as services have them: nothing that is kept for later is a finding.

use tracer_core::event::Role;
use tracer_core::finding::{FindingLine, Kind, Severity};

use crate::scene::Scene;

/// Pools that are tried.
const SEEDS: u64 = 40;

/// A small generator of numbers: the same every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(u64::try_from(of.len()).unwrap())).unwrap()]
    }
}

/// How a pool behaves.
#[derive(Clone, Copy, Debug)]
struct Habits {
    most: usize,
    /// Idle members it always keeps, whatever is in use.
    floor: usize,
    last_in_first_out: bool,
    /// Seconds after which an idle member is replaced or dropped.
    lifetime: u64,
    idle_timeout: u64,
    /// Seconds from one peak of the load to the next, and the peak.
    period: u64,
    peak: u64,
}

impl Habits {
    fn any(numbers: &mut Numbers) -> Self {
        let most = numbers.pick(&[2, 5, 10, 15, 30]);
        Self {
            most,
            floor: numbers.pick(&[0, 0, 2, 5, most]).min(most),
            last_in_first_out: numbers.below(2) == 0,
            lifetime: numbers.pick(&[u64::MAX, 600, 1_800]),
            idle_timeout: numbers.pick(&[u64::MAX, u64::MAX, 10, 300, 600]),
            period: numbers.pick(&[60, 600, 1_800, 3_600]),
            peak: numbers.below(u64::try_from(most).unwrap() * 2),
        }
    }
}

/// An idle member: its port, when it was opened and last used.
type Member = (u16, u64, u64);

/// Two hours of one pool, of which every so many seconds a session that works is not returned, and another is opened when
/// it is needed.
fn live(seed: u64, lost_every: u64) -> (Habits, Scene, usize) {
    let mut numbers = Numbers(seed);
    let habits = Habits::any(&mut numbers);
    let mut scene = Scene::new(None);
    let mut free: Vec<Member> = Vec::new();
    let (mut lost, mut lost_at) = (0, 0);
    for second in 0..7_200 {
        let phase = second % habits.period;
        // A ramp, a fall, silence for half of the time; and bursts now and then.
        let ramp = habits.period / 4;
        let load = match phase / ramp.max(1) {
            0 => habits.peak * phase / ramp,
            1 => habits.peak - habits.peak * (phase - ramp) / ramp,
            _ if numbers.below(300) == 0 => habits.peak,
            _ => 0,
        };
        let wanted = usize::try_from(numbers.below(load + 1)).unwrap().min(habits.most);
        let mut taken: Vec<Member> = Vec::new();
        for _ in 0..wanted {
            let member = match (free.is_empty(), habits.last_in_first_out) {
                (true, _) => (scene.open(Role::Client, 412, 1)[0], second, second),
                (false, true) => free.pop().unwrap(),
                (false, false) => free.remove(0),
            };
            taken.push((member.0, member.1, second));
        }
        scene.exchange(&taken.iter().map(|member| member.0).collect::<Vec<_>>());
        let in_use = taken.len();
        // The floor is kept while members are in use, one more a second.
        if free.len() < habits.floor && free.len() + in_use < habits.most {
            free.insert(0, (scene.open(Role::Client, 412, 1)[0], second, second));
        }
        if second - lost_at >= lost_every && !taken.is_empty() {
            taken.pop();
            (lost, lost_at) = (lost + 1, second);
        }
        free.extend(taken);
        let over = |member: &Member| {
            let jitter = u64::from(member.0 % 30);
            second - member.1 > habits.lifetime.saturating_sub(jitter) || second - member.2 > habits.idle_timeout
        };
        if let Some(at) = free.iter().position(over).filter(|_| free.len() > habits.floor || habits.lifetime < u64::MAX)
        {
            scene.close(&[free.remove(at).0]);
        }
        if second == 1 {
            scene.name(412, "service");
        }
        if second % 10 == 0 {
            scene.look();
        }
        scene.pass(1);
    }
    (habits, scene, lost)
}

/// Findings of the kinds that are about what is kept and not used.
fn told(scene: &Scene) -> Vec<&FindingLine> {
    const KINDS: [Kind; 4] =
        [Kind::IdleHold, Kind::UnusedConnection, Kind::OrphanedConnection, Kind::DuplicateLaunchers];
    scene.lines.iter().filter(|line| KINDS.contains(&line.finding.kind)).collect()
}

#[test]
fn nothing_is_found_in_healthy_pools() {
    for seed in 0..SEEDS {
        let (habits, scene, _) = live(seed * 7_919 + 1, u64::MAX);
        // A pool that is larger than its load ever was has members that are never used: worth a word.
        let oversized = u64::try_from(habits.floor).unwrap() > habits.peak;
        let is_word =
            |line: &FindingLine| (line.finding.kind, line.finding.severity) == (Kind::UnusedConnection, Severity::Info);
        let told: Vec<_> = told(&scene).into_iter().filter(|line| !(oversized && is_word(line))).collect();
        assert!(told.is_empty(), "{habits:?} {told:#?}");
    }
}

#[test]
fn the_same_pools_are_told_when_they_lose_sessions() {
    let mut leaks = 0;
    for seed in 0..SEEDS {
        let (habits, scene, lost) = live(seed * 7_919 + 1, 240);
        let found = told(&scene).iter().any(|line| line.finding.kind == Kind::IdleHold);
        assert!(found || lost < 12, "{lost} lost, {habits:?}");
        leaks += usize::from(lost >= 12);
    }
    assert!(leaks > 30, "{leaks}");
}
