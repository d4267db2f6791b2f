//! What runs on the host: services with their pools, their traffic and their deploys, batches, cron jobs and checks.

use tracer_core::event::ProcessId;

use crate::host::{ConnId, Host, Who};
use crate::pool::{Demand, Order, Pool, Shape};
use crate::rng::Rng;

pub const HOUR: u64 = 3_600;
pub const DAY: u64 = 24 * HOUR;

const PLAIN: Shape = Shape {
    name: "fixed",
    order: Order::Lifo,
    min: 0,
    max: 0,
    idle_timeout: None,
    most_idle: None,
    lifetime: None,
    refill: false,
    ping: None,
    spare: 0,
    fill_s: 0,
};

/// Pools as drivers have them by default, or as handbooks say.
pub const SHAPES: &[Shape] = &[
    Shape { name: "fixed, replaced by age", min: 10, max: 10, lifetime: Some(1_800), refill: true, ..PLAIN },
    Shape { name: "fixed, pinged", min: 8, max: 8, refill: true, ping: Some(120), ..PLAIN },
    Shape { name: "elastic, 10 s", max: 20, idle_timeout: Some(10), ..PLAIN },
    Shape { name: "elastic, 10 min", min: 2, max: 30, idle_timeout: Some(600), refill: true, ..PLAIN },
    Shape { name: "grows with the record", max: 60, ..PLAIN },
    Shape { name: "5 and 10 above", order: Order::Fifo, max: 15, most_idle: Some(5), ..PLAIN },
    Shape { name: "in turns, by age", order: Order::Fifo, min: 10, max: 10, lifetime: Some(900), ..PLAIN },
    Shape { name: "a thread each", order: Order::Threads, max: 8, lifetime: Some(600), ..PLAIN },
    Shape {
        name: "five spare",
        min: 5,
        max: 40,
        spare: 5,
        idle_timeout: Some(300),
        lifetime: Some(3_600),
        refill: true,
        ..PLAIN
    },
    Shape { name: "many in turns", order: Order::Fifo, min: 30, max: 30, ..PLAIN },
    Shape { name: "many threads", order: Order::Threads, max: 32, ..PLAIN },
    Shape { name: "slowly filled", min: 10, max: 10, lifetime: Some(2 * HOUR), refill: true, fill_s: 4, ..PLAIN },
    Shape { name: "hours old", min: 10, max: 10, lifetime: Some(4 * HOUR), refill: true, ..PLAIN },
];

/// How much a service has to do.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    /// Mean concurrency at the height of the day.
    peak: f64,
    /// What is left of it at night.
    night: f64,
    /// Hour of the height.
    noon: f64,
    /// Requests a second for each that runs at once.
    pace: f64,
    /// Bursts an hour.
    bursts: f64,
    level: f64,
    burst_until: u64,
}

impl Traffic {
    pub fn of(shape: &Shape, rng: &mut Rng) -> Self {
        let part = |from: u64, to: u64, rng: &mut Rng| rng.within(from, to) as f64 / 100.0;
        // Pools are sized so that their height is well used and not often too small.
        let size = if shape.max > 15 { shape.max / 3 } else { shape.max };
        let pace = match shape.order {
            // Few requests land on many threads.
            Order::Threads => rng.pick(&[0.02, 0.1, 1.0]).unwrap(),
            _ => rng.within(1, 20) as f64,
        };
        Self {
            peak: size as f64 * part(35, 65, rng),
            night: rng.pick(&[0.0, 0.02, 0.1, 0.4]).unwrap(),
            noon: rng.within(10, 17) as f64,
            pace,
            bursts: part(0, 300, rng),
            level: 1.0,
            burst_until: 0,
        }
    }

    pub fn demand(&mut self, second: u64, rng: &mut Rng) -> Demand {
        let hour = (second % DAY) as f64 / HOUR as f64;
        let height = ((hour - self.noon) / 24.0 * std::f64::consts::TAU).cos().mul_add(0.5, 0.5).powi(2);
        if second.is_multiple_of(20) {
            self.level = (self.level * 0.95 + rng.within(0, 200) as f64 / 100.0 * 0.05).clamp(0.6, 1.5);
            if rng.below(1_000_000) < (self.bursts * 20.0 / 3_600.0 * 1e6) as usize {
                self.burst_until = second + rng.within(5, 90);
            }
        }
        let burst = if second < self.burst_until { 1.8 } else { 1.0 };
        let mean = self.peak * (self.night + (1.0 - self.night) * height) * self.level * burst;
        let concurrency = poisson(mean, rng);
        let requests = poisson(mean * self.pace, rng);
        let concurrency = concurrency.min(requests.max(1));
        let long = (concurrency > 0 && rng.chance(3)).then(|| rng.within(5, 120));
        Demand { concurrency, requests, long }
    }
}

/// A number of arrivals; near enough for a large mean.
fn poisson(mean: f64, rng: &mut Rng) -> usize {
    let uniform = |rng: &mut Rng| (rng.next() >> 11) as f64 / (1u64 << 53) as f64;
    if mean < 0.001 && uniform(rng) > mean {
        return 0;
    }
    if mean > 30.0 {
        let sum: f64 = (0..12).map(|_| uniform(rng)).sum::<f64>() - 6.0;
        return (mean + sum * mean.sqrt()).round().max(0.0) as usize;
    }
    let (mut count, mut left, stop) = (0, 1.0, (-mean).exp());
    loop {
        left *= uniform(rng);
        if left <= stop {
            return count;
        }
        count += 1;
    }
}

/// A connection every so often that nobody gives back.
#[derive(Clone, Copy, Debug)]
pub struct Leak {
    pub period: u64,
    pub since: u64,
    next: u64,
}

impl Leak {
    pub fn new(period: u64, since: u64) -> Self {
        Self { period, since, next: since }
    }
}

struct Instance {
    id: ProcessId,
    pool: Pool,
    identified: bool,
    /// The last one leaked, and until when it is used.
    leaked: Option<(ConnId, u64)>,
}

/// What a service does besides serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Alone.
    Single,
    /// So many workers of one master.
    Prefork(usize),
    /// So many containers.
    Replicas(usize),
}

pub struct Service {
    script: String,
    style: Style,
    shape: Shape,
    endpoint: usize,
    traffic: Traffic,
    master: Option<u32>,
    instances: Vec<Instance>,
    /// Seconds at which one instance after another is replaced.
    pub deploys: Vec<u64>,
    pub leak: Option<Leak>,
}

impl Service {
    pub fn new(number: usize, style: Style, shape: Shape, endpoint: usize, rng: &mut Rng) -> Self {
        let traffic = Traffic::of(&shape, rng);
        let script = format!("service_{number}.py");
        Self {
            script,
            style,
            shape,
            endpoint,
            traffic,
            master: None,
            instances: Vec::new(),
            deploys: Vec::new(),
            leak: None,
        }
    }

    fn size(&self) -> usize {
        match self.style {
            Style::Single => 1,
            Style::Prefork(size) | Style::Replicas(size) => size,
        }
    }

    fn start(&mut self, host: &mut Host) {
        if matches!(self.style, Style::Prefork(_)) && self.master.is_none() {
            self.master = Some(host.start().pid);
        }
        let pool = Pool::new(self.shape, self.endpoint);
        self.instances.push(Instance { id: host.start(), pool, identified: false, leaked: None });
    }

    /// The process that leaks.
    pub fn leaker(&self) -> Option<ProcessId> {
        self.leak.and(self.instances.first()).map(|instance| instance.id)
    }

    pub fn cut(&mut self, host: &mut Host, endpoint: usize) {
        if self.endpoint == endpoint {
            self.instances.iter_mut().for_each(|instance| instance.pool.cut(host));
        }
    }

    pub fn describe(&self) -> String {
        let (name, style) = (self.shape.name, self.style);
        let Traffic { peak, night, noon, pace, .. } = self.traffic;
        format!(
            "{} {style:?} \"{name}\", {peak:.1} at once at {noon} h, {night} of it at night, each {pace}/s",
            self.script
        )
    }

    /// One second; how many pools there were.
    pub fn second(&mut self, host: &mut Host, second: u64, up: &[bool], rng: &mut Rng) -> u64 {
        let up = up[self.endpoint];
        if self.deploys.last().is_some_and(|at| *at <= second) {
            self.deploys.pop();
            if self.style == Style::Single {
                self.instances.drain(..).for_each(|instance| host.exit(instance.id));
            } else if !self.instances.is_empty() {
                host.exit(self.instances.remove(0).id);
            }
            return 0;
        }
        if self.instances.len() < self.size() {
            self.start(host);
        }
        let demand = self.traffic.demand(second, rng);
        let count = self.instances.len();
        for (number, instance) in self.instances.iter_mut().enumerate() {
            let own = if count == 1 { demand } else { self.traffic.demand(second, rng) };
            instance.pool.second(host, instance.id, (second, up), own, rng);
            if number == 0
                && up
                && let Some(leak) = &mut self.leak
            {
                leak.second(host, (instance, self.endpoint), second, rng);
            }
            if !instance.identified && instance.pool.open() > 0 {
                instance.identified = true;
                let container = matches!(self.style, Style::Replicas(_)).then(|| format!("{:064x}", instance.id.pid));
                let unit = self.master.is_none().then(|| format!("{}.service", self.script));
                host.identify(instance.id, &Who { script: &self.script, master: self.master, container, unit });
            }
        }
        u64::try_from(count).unwrap()
    }
}

impl Leak {
    fn second(&mut self, host: &mut Host, (instance, endpoint): (&mut Instance, usize), second: u64, rng: &mut Rng) {
        if let Some((conn, until)) = instance.leaked {
            host.exchange(conn, 1);
            instance.leaked = (second < until).then_some((conn, until));
        }
        if second >= self.next {
            let conn = host.open(instance.id, endpoint);
            host.exchange(conn, 1);
            // Used for a while before it is forgotten.
            instance.leaked = Some((conn, second + rng.within(0, self.period.min(20) / 2 + 1)));
            self.next = second + self.period.max(2) + rng.within(0, self.period / 3 + 1) - self.period / 6;
        }
    }
}

/// A job that comes and goes.
pub struct Job {
    script: String,
    endpoint: usize,
    pub every: u64,
    pub at: u64,
    pub lasts: u64,
    pub width: usize,
    running: Option<(ProcessId, Vec<ConnId>, u64)>,
}

impl Job {
    pub fn new(name: &str, endpoint: usize, (every, at): (u64, u64), lasts: u64, width: usize) -> Self {
        Self { script: name.to_owned(), endpoint, every, at, lasts, width, running: None }
    }

    pub fn cut(&mut self, host: &mut Host, endpoint: usize) {
        if self.endpoint == endpoint
            && let Some((id, ..)) = self.running.take()
        {
            host.exit(id);
        }
    }

    pub fn second(&mut self, host: &mut Host, second: u64, up: &[bool], rng: &mut Rng) {
        if second % self.every == self.at && up[self.endpoint] && self.running.is_none() {
            let id = host.start();
            let conns = vec![host.open(id, self.endpoint)];
            host.identify(id, &Who { script: &self.script, master: None, container: None, unit: None });
            self.running = Some((id, conns, second + self.lasts));
        }
        let Some((id, conns, until)) = &mut self.running else { return };
        if second >= *until {
            let id = *id;
            conns.drain(..).for_each(|conn| host.close(conn));
            host.exit(id);
            self.running = None;
            return;
        }
        // Workers start one after the other, and all work.
        if conns.len() < self.width && rng.chance(500) {
            conns.push(host.open(*id, self.endpoint));
        }
        for conn in conns.iter() {
            if rng.chance(400) {
                host.exchange(*conn, rng.within(1, 20));
                if rng.chance(500) {
                    host.request(*conn);
                }
            }
        }
    }
}

/// A check that connects, asks once and closes.
pub struct Check {
    pub endpoint: usize,
    pub every: u64,
    id: Option<ProcessId>,
}

impl Check {
    pub fn new(endpoint: usize, every: u64) -> Self {
        Self { endpoint, every, id: None }
    }

    pub fn second(&mut self, host: &mut Host, second: u64, up: &[bool]) {
        if !second.is_multiple_of(self.every) {
            return;
        }
        let id = *self.id.get_or_insert_with(|| host.start());
        if !up[self.endpoint] {
            host.refused(id, self.endpoint);
            return;
        }
        let conn = host.open(id, self.endpoint);
        host.exchange(conn, 1);
        host.identify(id, &Who { script: "check.py", master: None, container: None, unit: None });
        host.close(conn);
    }
}
