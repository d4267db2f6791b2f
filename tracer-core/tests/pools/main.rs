//! Detectors against a seeded model of pools: what services, batches, cron jobs and checks do to their databases for days,
//! in simulated time. Healthy ones give no warning; whatever leaks is found, and nobody else is blamed.
//! `SOCKLIFE_SEED=N` runs other seeds, `SOCKLIFE_ROUNDS=N` more or fewer of them.
#![expect(clippy::unwrap_used, reason = "the model panics where it cannot count")]
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the model deals in small numbers"
)]

mod host;
mod pool;
#[path = "../host/rng.rs"]
mod rng;
mod service;

use std::collections::BTreeMap;
use std::time::Duration;

use host::Host;
use rng::Rng;
use service::{Check, DAY, HOUR, Job, Leak, SHAPES, Service, Style};
use tracer_core::finding::{Change, FindingLine, Kind, Severity};
use tracer_core::time::BootNs;

/// Looks and passes of the detectors.
const LOOK_S: u64 = 10;
/// Seeds of a run.
const ROUNDS: u64 = 20;
/// Pool-hours that many of them make at least.
const POOL_HOURS: u64 = 10_000;
/// A database that is away for so long, two windows, is no restart: failed connects are then a true finding.
const AWAY_S: u64 = 20;
/// Failures are told of until a window passed without, and the finding resolves at the pass after that.
const SETTLES_S: u64 = 30;
/// Between two connections that leak.
const PERIODS: [u64; 7] = [2, 7, 20, 60, 240, 900, 3_600];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// A host and what runs on it.
struct World {
    host: Host,
    rng: Rng,
    services: Vec<Service>,
    jobs: Vec<Job>,
    checks: Vec<Check>,
    /// When a database goes away, which, and for how long.
    outages: Vec<(u64, usize, u64)>,
    endpoints: usize,
    start: u64,
    second: u64,
    pool_seconds: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed.wrapping_mul(0x1_0000_01b3) ^ 0x5eed);
        let limits = [Some(400), Some(600), None];
        // Any hour of some day.
        let start = 10 * DAY + rng.within(0, DAY);
        Self {
            host: Host::new(BootNs(start * 1_000_000_000), &limits),
            rng,
            services: Vec::new(),
            jobs: Vec::new(),
            checks: Vec::new(),
            outages: Vec::new(),
            endpoints: limits.len(),
            start,
            second: start,
            pool_seconds: 0,
        }
    }

    /// Every kind of pool, and all that goes on beside them, for that long.
    fn healthy(seed: u64, seconds: u64) -> Self {
        let mut world = Self::new(seed);
        let end = world.start + seconds;
        for (number, shape) in SHAPES.iter().enumerate() {
            let rng = &mut world.rng;
            let style = match rng.below(5) {
                0 => Style::Prefork(2 + rng.below(3)),
                1 => Style::Replicas(2 + rng.below(2)),
                _ => Style::Single,
            };
            let mut service = Service::new(number, style, *shape, rng.below(world.endpoints), rng);
            service.deploys = (0..rng.below(4)).map(|_| rng.within(world.start + HOUR, end)).collect();
            service.deploys.sort_unstable_by(|a, b| b.cmp(a));
            world.services.push(service);
        }
        let rng = &mut world.rng;
        let place = |rng: &mut Rng| rng.below(3);
        world.jobs = vec![
            Job::new("nightly.py", place(rng), (DAY, 2 * HOUR), rng.within(600, 3_600), 4 + rng.below(12)),
            Job::new("hourly.py", place(rng), (HOUR, rng.within(0, HOUR)), rng.within(20, 400), 1 + rng.below(4)),
            Job::new("cron.py", place(rng), (300, rng.within(0, 300)), rng.within(2, 40), 1 + rng.below(2)),
        ];
        world.checks = vec![Check::new(place(rng), rng.within(15, 60))];
        for endpoint in 0..world.endpoints {
            if world.rng.chance(500) {
                let at = world.rng.within(world.start + HOUR, end);
                world.outages.push((at, endpoint, world.rng.within(2, 25)));
            }
        }
        world
    }

    /// A pool of that shape with a leak on top, beside two that are healthy.
    fn leaking(seed: u64, shape: usize, period: u64) -> Self {
        let mut world = Self::new(seed);
        for (number, shape) in [shape, (shape + 3) % SHAPES.len(), (shape + 5) % SHAPES.len()].into_iter().enumerate() {
            let service = Service::new(number, Style::Single, SHAPES[shape], number % 2, &mut world.rng);
            world.services.push(service);
        }
        let since = world.start + world.rng.within(60, 2 * HOUR);
        world.services[0].leak = Some(Leak::new(period, since));
        world
    }

    /// Ten seconds, a look, and a pass of the detectors.
    fn step(&mut self) {
        for _ in 0..LOOK_S {
            self.second += 1;
            let second = self.second;
            self.host.reach(BootNs(second * 1_000_000_000));
            let is_out = |endpoint: usize| {
                self.outages.iter().any(|(at, of, lasts)| *of == endpoint && (*at..at + lasts).contains(&second))
            };
            let up: Vec<bool> = (0..self.endpoints).map(|endpoint| !is_out(endpoint)).collect();
            for (at, endpoint, _) in self.outages.iter().filter(|(at, ..)| *at == second) {
                debug_assert!(*at == second);
                self.services.iter_mut().for_each(|service| service.cut(&mut self.host, *endpoint));
                self.jobs.iter_mut().for_each(|job| job.cut(&mut self.host, *endpoint));
            }
            for service in &mut self.services {
                self.pool_seconds += service.second(&mut self.host, second, &up, &mut self.rng);
            }
            self.jobs.iter_mut().for_each(|job| job.second(&mut self.host, second, &up, &mut self.rng));
            self.checks.iter_mut().for_each(|check| check.second(&mut self.host, second, &up));
        }
        self.host.reach(BootNs(self.second * 1_000_000_000).plus(Duration::from_millis(900)));
        self.host.look();
        self.host.detect();
    }

    /// Whether this says that connects fail at a database which is away, or was just now, for longer than a restart takes.
    fn is_true(&self, line: &FindingLine) -> bool {
        let finding = &line.finding;
        finding.kind == Kind::ConnectFailures
            && self.outages.iter().any(|(at, endpoint, lasts)| {
                // The pass is in the second that it is told in.
                let span = at + AWAY_S..=at + lasts + SETTLES_S;
                *lasts >= AWAY_S
                    && finding.subject.endpoint == Some(self.host.endpoint(*endpoint))
                    && span.contains(&(((line.at.unix_ms - 1_700_000_000_000) / 1_000) as u64))
            })
    }

    /// What was told at that severity or above and is wrong, each subject once; and how many lines were right.
    fn told(&self, least: Severity) -> (Vec<String>, usize) {
        let (mut once, mut right) = (BTreeMap::new(), 0);
        for line in self.host.lines.iter().filter(|line| line.finding.severity >= least) {
            if self.is_true(line) {
                right += usize::from(line.change == Change::Opened);
                continue;
            }
            let finding = &line.finding;
            let hours = (line.at.unix_ms - 1_700_000_000_000) as f64 / 3.6e6 - self.start as f64 / HOUR as f64;
            let text = format!("{hours:.2} h {:?} {} {}", finding.severity, finding.kind.name(), finding.summary);
            once.entry((finding.kind, finding.id.clone())).or_insert(text);
        }
        (once.into_values().collect(), right)
    }
}

#[test]
fn healthy_pools_give_no_warning() {
    let first = number("SOCKLIFE_SEED").unwrap_or(1);
    let rounds = number("SOCKLIFE_ROUNDS").unwrap_or(ROUNDS);
    let (mut pool_seconds, mut wrong, mut outages_told) = (0, Vec::new(), 0);
    let mut infos = BTreeMap::<Kind, u32>::new();
    for seed in first..first + rounds {
        let mut world = World::healthy(seed, DAY);
        for _ in 0..DAY / LOOK_S {
            world.step();
        }
        let (open, known) = world.host.open_counts();
        assert_eq!(open, known, "seed {seed}: the tracker has what is open");
        pool_seconds += world.pool_seconds;
        let (told, right) = world.told(Severity::Warning);
        outages_told += right;
        for line in world.host.lines.iter().filter(|line| line.finding.severity == Severity::Info) {
            *infos.entry(line.finding.kind).or_default() += 1;
        }
        if !told.is_empty() {
            let services: Vec<String> = world.services.iter().map(Service::describe).collect();
            let outages = world.outages.iter().map(|(at, endpoint, lasts)| (at - world.start, endpoint, lasts));
            let outages: Vec<_> = outages.collect();
            wrong.push(format!(
                "seed {seed}:\n  {}\n in\n  {}\n  outages {outages:?}",
                told.join("\n  "),
                services.join("\n  ")
            ));
        }
    }
    let hours = pool_seconds / HOUR;
    println!("{hours} pool-hours, {outages_told} long outages told, lines of info findings: {infos:?}");
    assert!(wrong.is_empty(), "{} of {rounds} seeds\n{}", wrong.len(), wrong.join("\n"));
    assert!(rounds < ROUNDS || hours >= POOL_HOURS * rounds / ROUNDS, "{hours} pool-hours");
}

#[test]
fn every_leak_is_found_and_nobody_else_is_blamed() {
    let first = number("SOCKLIFE_SEED").unwrap_or(1);
    let mut wrong = Vec::new();
    for period in PERIODS {
        let mut times = Vec::new();
        for (shape, known) in SHAPES.iter().enumerate() {
            let mut world = World::leaking(first + shape as u64, shape, period);
            let since = world.services[0].leak.unwrap().since;
            // Patience for each period, and never more than a day.
            let until = since + (period * 60).clamp(600, DAY);
            let blamed = loop {
                world.step();
                let findings = world.host.findings();
                let leaks = findings.into_iter().find(|finding| finding.kind == Kind::ConnectionLeak);
                if leaks.is_some() || world.second >= until {
                    break leaks;
                }
            };
            let leaker = world.services[0].leaker().unwrap().pid;
            match blamed {
                Some(finding) if finding.subject.pids == [leaker] && world.second >= since => {
                    times.push(world.second - since);
                }
                Some(finding) => wrong.push(format!("{} every {period} s: {}", known.name, finding.summary)),
                None => wrong.push(format!("{} every {period} s: not found", known.name)),
            }
        }
        println!("one every {period} s: found after {times:?} s");
    }
    assert!(wrong.is_empty(), "seed {first}:\n{}", wrong.join("\n"));
}
