//! A pool as drivers have them: how many it keeps, which member it hands out, when it closes one, when it opens another.

use std::collections::VecDeque;

use tracer_core::event::ProcessId;

use crate::host::{ConnId, Host};
use crate::rng::Rng;

/// Which member is handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The one used last: MongoDB drivers, node-postgres, HikariCP nearly.
    Lifo,
    /// The one used longest ago: SQLAlchemy.
    Fifo,
    /// That of the thread the request lands on: Django with threads.
    Threads,
}

/// What the driver was told, times in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub name: &'static str,
    pub order: Order,
    /// Opened at once and kept.
    pub min: usize,
    pub max: usize,
    /// Members above `min` are closed after so long without use.
    pub idle_timeout: Option<u64>,
    /// No more than so many idle members are kept: one that is returned when there are as many is closed, whichever it
    /// is. SQLAlchemy's `pool_size`.
    pub most_idle: Option<usize>,
    /// Members are closed at that age.
    pub lifetime: Option<u64>,
    /// Whether one closed for its age is replaced at once, or when it is needed.
    pub refill: bool,
    /// Members idle for so long are pinged.
    pub ping: Option<u64>,
    /// So many idle ones are kept ready.
    pub spare: usize,
    /// Seconds between two members when it fills.
    pub fill_s: u64,
}

/// In place of a connection that is gone without the pool having noticed.
const BROKEN: ConnId = 0;

struct Member {
    conn: ConnId,
    /// Second it is closed for its age.
    expires: u64,
    /// Last use or ping, and last use.
    touched: u64,
    used: u64,
    /// A request is out until then.
    busy_until: u64,
    thread: usize,
}

/// One pool of one process.
pub struct Pool {
    pub shape: Shape,
    endpoint: usize,
    members: VecDeque<Member>,
}

/// What is asked of a pool in a second.
#[derive(Clone, Copy, Debug, Default)]
pub struct Demand {
    /// Most at once.
    pub concurrency: usize,
    /// Requests in all.
    pub requests: usize,
    /// Requests that take long: how many begin, and how many seconds each takes.
    pub long: Option<u64>,
}

impl Pool {
    pub fn new(shape: Shape, endpoint: usize) -> Self {
        Self { shape, endpoint, members: VecDeque::new() }
    }

    fn add(&mut self, host: &mut Host, owner: ProcessId, second: u64, rng: &mut Rng, thread: usize) {
        // Lifetimes are spread a little, as HikariCP does.
        let lifetime = self.shape.lifetime.map_or(u64::MAX / 2, |lifetime| lifetime - rng.within(0, lifetime / 20 + 1));
        let conn = host.open(owner, self.endpoint);
        let expires = second + lifetime;
        self.members.push_back(Member { conn, expires, touched: second, used: second, busy_until: 0, thread });
    }

    /// The database is gone: every member is closed. A pool that does not fill itself notices when it hands one out.
    pub fn cut(&mut self, host: &mut Host) {
        for member in &mut self.members {
            host.close(member.conn);
            (member.conn, member.busy_until) = (BROKEN, 0);
        }
        if self.shape.refill {
            self.members.clear();
        }
    }

    /// Connections it has open.
    pub fn open(&self) -> usize {
        self.members.iter().filter(|member| member.conn != BROKEN).count()
    }

    /// One second of the pool's life.
    pub fn second(
        &mut self,
        host: &mut Host,
        owner: ProcessId,
        (second, up): (u64, bool),
        demand: Demand,
        rng: &mut Rng,
    ) {
        if !up {
            if demand.requests > 0 || self.shape.refill {
                host.refused(owner, self.endpoint);
            }
            return;
        }
        self.answer(host, second);
        self.expire(host, second);
        self.fill(host, owner, second, rng);
        match self.shape.order {
            Order::Threads => self.by_threads(host, owner, second, demand, rng),
            Order::Lifo | Order::Fifo => self.by_queue(host, owner, second, demand, rng),
        }
        if let Some(most) = self.shape.most_idle {
            self.overflow(host, second, most, rng);
        }
    }

    /// Answers that are due come in.
    fn answer(&mut self, host: &mut Host, second: u64) {
        for member in self.members.iter_mut().filter(|member| member.busy_until > 0 && member.busy_until <= second) {
            host.exchange(member.conn, 1);
            (member.busy_until, member.touched, member.used) = (0, second, second);
        }
    }

    /// Opens what it keeps ready.
    fn fill(&mut self, host: &mut Host, owner: ProcessId, second: u64, rng: &mut Rng) {
        let busy = self.members.iter().filter(|member| member.busy_until > 0).count();
        let wanted = self.shape.min.max(if self.shape.spare > 0 { busy + self.shape.spare } else { 0 });
        while self.shape.refill && self.members.len() < wanted.min(self.shape.max) {
            if self.shape.fill_s > 0 && !second.is_multiple_of(self.shape.fill_s) {
                return;
            }
            self.add(host, owner, second, rng, 0);
            if self.shape.fill_s > 0 {
                return;
            }
        }
    }

    /// Closes what is too old or idle for too long, and pings.
    fn expire(&mut self, host: &mut Host, second: u64) {
        self.members.retain(|member| {
            let keep = member.busy_until > 0 || member.expires > second;
            if !keep {
                host.close(member.conn);
            }
            keep
        });
        if self.shape.idle_timeout.is_some() {
            self.shrink(host, second);
        }
        if let Some(ping) = self.shape.ping {
            for member in self.members.iter_mut().filter(|member| member.touched + ping <= second) {
                host.exchange(member.conn, 1);
                member.touched = second;
            }
        }
    }

    /// Closes idle members above the floor, the longest unused first.
    fn shrink(&mut self, host: &mut Host, second: u64) {
        let timeout = self.shape.idle_timeout.unwrap_or(0);
        while self.members.len() > self.shape.min.max(self.shape.spare) {
            let idle = |member: &&Member| member.busy_until == 0 && member.used + timeout <= second;
            let oldest = self.members.iter().filter(idle).map(|member| (member.used, member.conn)).min();
            let Some((_, conn)) = oldest else { return };
            host.close(conn);
            self.members.retain(|member| member.conn != conn);
        }
    }

    /// Closes what was returned this second and found no room. Requests end in any order.
    fn overflow(&mut self, host: &mut Host, second: u64, most: usize, rng: &mut Rng) {
        let mut idle = self.members.iter().filter(|member| member.busy_until == 0).count();
        while idle > most {
            let returned = |(_, member): &(usize, &Member)| member.busy_until == 0 && member.used == second;
            let returned: Vec<usize> = self.members.iter().enumerate().filter(returned).map(|(at, _)| at).collect();
            let Some(at) = rng.pick(&returned) else { return };
            if let Some(member) = self.members.remove(at) {
                host.close(member.conn);
            }
            idle -= 1;
        }
    }

    fn by_queue(&mut self, host: &mut Host, owner: ProcessId, second: u64, demand: Demand, rng: &mut Rng) {
        let busy = self.members.iter().filter(|member| member.busy_until > 0).count();
        let wanted = demand.concurrency.min(self.shape.max.saturating_sub(busy));
        while self.members.len() < busy + wanted {
            self.add(host, owner, second, rng, 0);
        }
        if wanted == 0 {
            return;
        }
        // Each touch takes the next idle member: the same few, or all in turn.
        let touches = match self.shape.order {
            Order::Fifo => demand.requests.min(self.members.len() - busy).max(wanted),
            _ => wanted,
        };
        let each = u64::try_from(demand.requests.div_ceil(touches)).unwrap();
        let mut used = Vec::with_capacity(touches);
        for _ in 0..touches {
            let idle = |member: &Member| member.busy_until == 0;
            let at = match self.shape.order {
                Order::Lifo => self.members.iter().rposition(idle),
                _ => self.members.iter().position(idle),
            };
            let Some(mut member) = at.and_then(|at| self.members.remove(at)) else { break };
            self.touch((host, owner), &mut member, second, each, rng);
            used.push(member);
        }
        if let (Some(long), Some(first)) = (demand.long, used.first_mut()) {
            host.request(first.conn);
            first.busy_until = second + long;
        }
        used.reverse();
        self.members.extend(used);
    }

    fn by_threads(&mut self, host: &mut Host, owner: ProcessId, second: u64, demand: Demand, rng: &mut Rng) {
        for _ in 0..demand.requests.min(self.shape.max) {
            let thread = rng.below(self.shape.max);
            let at = match self.members.iter().position(|member| member.thread == thread) {
                Some(at) => at,
                None => {
                    self.add(host, owner, second, rng, thread);
                    self.members.len() - 1
                }
            };
            let mut member = self.members.remove(at).unwrap();
            if member.busy_until == 0 {
                self.touch((host, owner), &mut member, second, 1, rng);
            }
            self.members.push_back(member);
        }
    }

    /// Requests on one member; at the end of the second one may still be out.
    fn touch(
        &self,
        (host, owner): (&mut Host, ProcessId),
        member: &mut Member,
        second: u64,
        requests: u64,
        rng: &mut Rng,
    ) {
        if member.conn == BROKEN {
            member.conn = host.open(owner, self.endpoint);
        }
        host.exchange(member.conn, requests);
        (member.touched, member.used) = (second, second);
        if rng.chance(400) {
            host.request(member.conn);
            member.busy_until = second + 1;
        }
    }
}
