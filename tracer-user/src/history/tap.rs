//! Where the actor's state branches off to the store: batches of a second, an outline every ten, a checkpoint now and
//! then. Everything has a rate it does not exceed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracer_core::detect::Store as Findings;
use tracer_core::event::Event;
use tracer_core::finding::{Change, FindingLine};
use tracer_core::snapshot::{Completeness, Loss};
use tracer_core::time::{BootNs, WallAnchor, WallTime};
use tracer_core::tracker::{About, Effect, Extent, LineRoom, Tracker};

use super::writer::{Entry, Writer};
use super::{CHECKPOINT_EVERY, Closed, SAMPLE_EVERY, SMALL_CHECKPOINT_EVERY, Status};

/// Closed connections kept one by one, a second; of those beyond the number alone.
pub const CLOSED_PER_S_MAX: usize = 1_000;
/// Changes of findings kept a second.
const FINDINGS_PER_S_MAX: usize = 1_000;
/// Connections of a checkpoint that takes some 20 KB at most.
const SMALL_CHECKPOINT: usize = 200;
/// Checkpoints when a finding opens: what led to it goes on, and what opens is known by its end or the next checkpoint.
const CHECKPOINTS_A_FINDING: u8 = 2;
/// Connections in a checkpoint.
const CHECKPOINT_CONNECTIONS_MAX: usize = 20_000;

/// What happened within a second.
#[derive(Clone, Debug, Default)]
pub struct Second {
    /// Its end.
    pub at: WallTime,
    /// Connections that closed.
    pub closed: Vec<Closed>,
    /// How many more did.
    pub summarised: u64,
    /// Changes of findings.
    pub findings: Vec<FindingLine>,
    /// What was lost since the start, if that is news.
    pub loss: Option<Loss>,
}

impl Second {
    pub(super) fn rows(&self) -> u64 {
        (self.closed.len() + self.findings.len()) as u64
    }
}

/// The tracker's side.
#[derive(Debug)]
pub struct Tap {
    writer: Writer,
    status: Arc<Status>,
    pending: Second,
    room: LineRoom,
    lost: Loss,
    next_outline: BootNs,
    next_checkpoint: BootNs,
    /// Checkpoints that are wanted because a finding opened.
    news: u8,
}

impl Tap {
    /// Into that writer.
    #[must_use]
    pub fn new(writer: Writer) -> Self {
        Self {
            status: Arc::clone(writer.status()),
            writer,
            pending: Second::default(),
            room: LineRoom::default(),
            lost: Loss::default(),
            next_outline: BootNs(0),
            next_checkpoint: BootNs(0),
            news: 0,
        }
    }

    /// The last second: what is open at the end is kept, too.
    pub fn last(&mut self, tracker: &Tracker, told: (&About, &Findings), now: BootNs, anchor: &WallAnchor) {
        (self.next_outline, self.next_checkpoint) = (BootNs(0), BootNs(0));
        self.second(tracker, told, now, anchor);
    }

    /// Has everything written, as far as the disk takes it. Blocks.
    pub fn finish(self) {
        self.writer.finish();
    }

    /// The tracker took an event in.
    pub fn event(&mut self, tracker: &Tracker, event: &Event, effect: Effect, anchor: &WallAnchor) {
        if !matches!(effect, Effect::Closed { .. }) {
            return;
        }
        if self.pending.closed.len() >= CLOSED_PER_S_MAX {
            self.pending.summarised += 1;
            return;
        }
        self.pending.closed.extend(Closed::of(tracker, event, effect, anchor, &mut self.room));
    }

    /// A finding changed.
    pub fn finding(&mut self, line: &FindingLine) {
        if line.change == Change::Opened {
            self.news = CHECKPOINTS_A_FINDING;
        }
        if self.pending.findings.len() < FINDINGS_PER_S_MAX {
            self.pending.findings.push(line.clone());
        } else {
            self.status.count_not_kept(1);
        }
    }

    /// A second is over; what there is of it goes to the writer.
    pub fn second(&mut self, tracker: &Tracker, told: (&About, &Findings), now: BootNs, anchor: &WallAnchor) {
        let loss = tracker.loss();
        if loss != self.lost {
            self.lost = loss;
            self.pending.loss = Some(loss);
        }
        self.pending.at = anchor.wall(now);
        self.status.count_summarised(self.pending.summarised);
        self.writer.send(Entry::Second(std::mem::take(&mut self.pending)));
        // Before the first look nothing is known.
        if now < self.next_outline || tracker.completeness() == Completeness::Unknown {
            return;
        }
        let is_again = self.status.wants_checkpoint.swap(false, Ordering::AcqRel);
        let wants_checkpoint = self.news > 0 || is_again || now >= self.next_checkpoint;
        let is_checkpoint = wants_checkpoint && self.writer.takes_checkpoint();
        let extent = if is_checkpoint { Extent::Connections(CHECKPOINT_CONNECTIONS_MAX) } else { Extent::Outline };
        let snapshot = Box::new(tracker.snapshot_of(extent, told, now, anchor));
        self.next_outline = now.plus(SAMPLE_EVERY);
        if is_checkpoint {
            self.news = self.news.saturating_sub(1);
            let is_small = snapshot.connections.len() <= SMALL_CHECKPOINT;
            self.next_checkpoint = now.plus(if is_small { SMALL_CHECKPOINT_EVERY } else { CHECKPOINT_EVERY });
        }
        self.writer.send(if is_checkpoint { Entry::Checkpoint(snapshot) } else { Entry::Outline(snapshot) });
    }
}
