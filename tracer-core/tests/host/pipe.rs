//! What happens to events on their way from the kernel to the tracker.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use tracer_core::event::{Event, SocketEventKind};

use crate::rng::Rng;

const MS: u64 = 1_000_000;
/// Events lost in a row when the ring is full.
const BURST: u32 = 60;
/// An interrupted program holds its record back for less than this.
pub const HELD_BACK: u64 = 400 * MS;

/// A read of the map of owners takes less than this until it is applied.
pub const READ_TAKES: u64 = 20 * MS;

/// How often, in a thousand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// An event is lost.
    pub lose: u64,
    /// The end of a socket is lost.
    pub lose_end: u64,
    /// The ring is full for a while.
    pub burst: u64,
    /// An event is told twice, the second time up to seconds later.
    pub duplicate: u64,
    /// An event is held back for less than a second, and so are all later ones of its socket; others pass it.
    pub reorder: u64,
    /// An event comes seconds late, after looks and later events of its socket that knew better.
    pub late: u64,
    /// A look misses a live socket, though never twice in a row.
    pub miss_row: u64,
}

pub struct Pipe {
    faults: Faults,
    waiting: BinaryHeap<Reverse<(u64, usize)>>,
    sent: Vec<Event>,
    burst: u32,
    /// When the last event of each kernel address is due.
    due: HashMap<u64, u64>,
    pub lost: u64,
    pub late: u64,
    pub held: u64,
}

impl Pipe {
    pub fn new(faults: Faults) -> Self {
        Self {
            faults,
            waiting: BinaryHeap::new(),
            sent: Vec::new(),
            burst: 0,
            due: HashMap::new(),
            lost: 0,
            late: 0,
            held: 0,
        }
    }

    /// Through the ring.
    pub fn send(&mut self, event: Event, now: u64, rng: &mut Rng) {
        let faults = self.faults;
        let is_end = matches!(event, Event::Socket(event) if event.kind == SocketEventKind::End);
        if self.burst > 0 || rng.chance(faults.burst) {
            self.burst = if self.burst > 0 { self.burst - 1 } else { BURST };
            self.lost += 1;
            return;
        }
        if rng.chance(faults.lose) || (is_end && rng.chance(faults.lose_end)) {
            self.lost += 1;
            return;
        }
        let due = if rng.chance(faults.late) {
            self.late += 1;
            now + rng.within(1_500 * MS, 20_000 * MS)
        } else {
            let held = if rng.chance(faults.reorder) { rng.within(1, HELD_BACK) } else { 0 };
            self.held += u64::from(held > 0);
            let last = self.due.entry(address(&event)).or_default();
            *last = (now + held).max(*last);
            *last
        };
        self.wait(event, due);
        if rng.chance(faults.duplicate) {
            self.wait(event, due + rng.within(0, 5_000 * MS));
        }
    }

    /// From the map of owners, which loses nothing and takes its time.
    pub fn send_later(&mut self, event: Event, now: u64, rng: &mut Rng) {
        self.wait(event, now + rng.within(0, READ_TAKES));
    }

    fn wait(&mut self, event: Event, due: u64) {
        self.sent.push(event);
        self.waiting.push(Reverse((due, self.sent.len())));
    }

    /// The next event that is due.
    pub fn next(&mut self, now: u64) -> Option<Event> {
        let Reverse((due, number)) = *self.waiting.peek()?;
        if due > now {
            return None;
        }
        self.waiting.pop();
        self.sent.get(number - 1).copied()
    }
}

/// The kernel address whose events keep their order: a record is reserved in the ring before the address is reused.
fn address(event: &Event) -> u64 {
    match event {
        Event::Socket(event) => event.sk,
        Event::Process(event) => u64::from(event.task.id.pid),
        Event::Drop(_) | Event::Accepts(_) => 0,
    }
}
