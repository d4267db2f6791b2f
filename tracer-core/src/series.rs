//! Counts over time at several resolutions, in rings of fixed size.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::snapshot;
use crate::time::{BootNs, WallAnchor};

/// Step lengths in seconds and how many steps each ring keeps: 2 minutes, 1 hour, 6 hours, 24 hours.
pub const RESOLUTIONS: [(u32, usize); 4] = [(1, 120), (10, 360), (60, 360), (600, 144)];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Sample {
    open: u32,
    opened: u32,
    closed: u32,
    in_use: u32,
    failed: u16,
    hung_up: u16,
}

/// What came of connects in some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    /// Established, those that were hung up on included.
    pub opened: u64,
    /// Never established.
    pub failed: u64,
    /// Established, and the database hung up at once.
    pub hung_up: u64,
}

impl Attempts {
    /// Those that got what they wanted.
    #[must_use]
    pub fn succeeded(&self) -> u64 {
        self.opened.saturating_sub(self.hung_up)
    }

    /// Those that did not.
    #[must_use]
    pub fn in_vain(&self) -> u64 {
        self.failed + self.hung_up
    }
}

/// One resolution. Steps are aligned to boot time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Ring {
    step_s: u32,
    capacity: usize,
    /// Number of the step that the newest sample belongs to.
    newest: u64,
    samples: VecDeque<Sample>,
}

impl Ring {
    fn step_of(&self, now: BootNs) -> u64 {
        now.0 / (u64::from(self.step_s) * 1_000_000_000)
    }

    /// Open at the end of a step: what was last known for a step after the newest, nothing for one before the oldest.
    fn open_at(&self, step: u64) -> Option<u32> {
        let back = usize::try_from(self.newest.saturating_sub(step)).ok()?;
        let index = self.samples.len().checked_sub(back + 1)?;
        self.samples.get(index).map(|sample| sample.open)
    }

    /// The last `most` steps.
    fn to_snapshot(&self, most: usize, anchor: &WallAnchor) -> snapshot::Series {
        let skipped = self.samples.len().saturating_sub(most);
        let kept = u64::try_from(self.samples.len() - skipped).unwrap_or(0);
        let first = (self.newest + 1).saturating_sub(kept);
        let start = BootNs(first.saturating_mul(u64::from(self.step_s) * 1_000_000_000));
        let samples = || self.samples.iter().skip(skipped);
        snapshot::Series {
            step_s: self.step_s,
            start: anchor.wall(start),
            open: samples().map(|sample| sample.open).collect(),
            opened: samples().map(|sample| sample.opened).collect(),
            closed: samples().map(|sample| sample.closed).collect(),
            in_use: samples().map(|sample| sample.in_use).collect(),
        }
    }

    /// Fills the steps up to `now` with what was open all the while; returns the step of `now`. Time that runs
    /// backwards (events of several CPUs) lands in the newest step.
    fn at(&mut self, now: BootNs, open: u32) -> Option<&mut Sample> {
        let step = self.step_of(now);
        if self.samples.is_empty() {
            self.newest = step;
            self.samples.push_back(Sample { open, ..Sample::default() });
        } else if step > self.newest {
            let missing = usize::try_from(step - self.newest).unwrap_or(usize::MAX).min(self.capacity);
            for _ in 0..missing {
                if self.samples.len() == self.capacity {
                    self.samples.pop_front();
                }
                self.samples.push_back(Sample { open, ..Sample::default() });
            }
            self.newest = step;
        }
        self.samples.back_mut()
    }
}

/// The counts of one endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Series {
    rings: [Ring; RESOLUTIONS.len()],
}

impl Default for Series {
    fn default() -> Self {
        let ring = |(step_s, capacity)| Ring { step_s, capacity, newest: 0, samples: VecDeque::new() };
        Self { rings: RESOLUTIONS.map(ring) }
    }
}

impl Series {
    /// One connection opened; `open` is the count before it.
    pub fn opened(&mut self, now: BootNs, open: u32) {
        self.each(now, open, |sample| {
            sample.opened = sample.opened.saturating_add(1);
            sample.open = open.saturating_add(1);
        });
    }

    /// One connection closed; `open` is the count before it.
    pub fn closed(&mut self, now: BootNs, open: u32) {
        self.each(now, open, |sample| {
            sample.closed = sample.closed.saturating_add(1);
            sample.open = open.saturating_sub(1);
        });
    }

    /// A connect failed.
    pub fn failed(&mut self, now: BootNs, open: u32) {
        self.each(now, open, |sample| sample.failed = sample.failed.saturating_add(1));
    }

    /// The database hung up on a connection that it had just taken.
    pub fn hung_up(&mut self, now: BootNs, open: u32) {
        self.each(now, open, |sample| sample.hung_up = sample.hung_up.saturating_add(1));
    }

    /// What came of connects from one moment to another, to the step of the finest resolution that still has the time;
    /// the step that the end falls into is not over and not included.
    #[must_use]
    pub fn attempts(&self, from: BootNs, to: BootNs) -> Attempts {
        let covers = |ring: &&Ring| {
            let kept = u64::try_from(ring.capacity).unwrap_or(0);
            ring.newest < ring.step_of(from).saturating_add(kept)
        };
        let ring = self.rings.iter().find(covers).unwrap_or(&self.rings[RESOLUTIONS.len() - 1]);
        let kept = u64::try_from(ring.samples.len()).unwrap_or(0);
        let oldest = (ring.newest + 1).saturating_sub(kept);
        let mut sum = Attempts::default();
        for step in ring.step_of(from).max(oldest)..ring.step_of(to).min(ring.newest + 1) {
            let sample = usize::try_from(step - oldest).ok().and_then(|index| ring.samples.get(index));
            if let Some(sample) = sample {
                sum.opened += u64::from(sample.opened);
                sum.failed += u64::from(sample.failed);
                sum.hung_up += u64::from(sample.hung_up);
            }
        }
        sum
    }

    /// So many were seen in use at one look.
    pub fn in_use(&mut self, now: BootNs, open: u32, in_use: u32) {
        self.each(now, open, |sample| sample.in_use = sample.in_use.max(in_use));
    }

    /// Nothing happened until `now`.
    pub fn advance(&mut self, now: BootNs, open: u32) {
        self.each(now, open, |_| {});
    }

    /// Whether it has the rings that this version keeps, and not more in them than they hold.
    pub(crate) fn is_sound(&self) -> bool {
        self.rings.iter().zip(RESOLUTIONS).all(|(ring, (step_s, capacity))| {
            (ring.step_s, ring.capacity) == (step_s, capacity) && ring.samples.len() <= capacity
        })
    }

    fn each(&mut self, now: BootNs, open: u32, change: impl Fn(&mut Sample)) {
        for ring in &mut self.rings {
            if let Some(sample) = ring.at(now, open) {
                change(sample);
            }
        }
    }

    /// The open counts of the last `span` before `now`, as far as they are known, oldest first, at the finest resolution
    /// that covers it; with the length of a step in seconds.
    #[must_use]
    pub fn open_within(&self, span: Duration, now: BootNs) -> (u32, Vec<u32>) {
        let covering = self.rings.iter().find(|ring| {
            let covered = u64::from(ring.step_s) * u64::try_from(ring.capacity).unwrap_or(u64::MAX);
            covered >= span.as_secs()
        });
        let ring = covering.unwrap_or(&self.rings[RESOLUTIONS.len() - 1]);
        let last_step = ring.step_of(now);
        let first_step = last_step.saturating_sub(span.as_secs().div_ceil(u64::from(ring.step_s)));
        let open = (first_step..=last_step).filter_map(|step| ring.open_at(step)).collect();
        (ring.step_s, open)
    }

    /// For the snapshot, finest first.
    #[must_use]
    pub fn to_snapshot(&self, anchor: &WallAnchor) -> Vec<snapshot::Series> {
        self.rings.iter().map(|ring| ring.to_snapshot(usize::MAX, anchor)).collect()
    }

    /// The step of ten seconds that is under way and the one before it.
    #[must_use]
    pub fn latest(&self, anchor: &WallAnchor) -> Vec<snapshot::Series> {
        self.rings.iter().filter(|ring| ring.step_s == 10).map(|ring| ring.to_snapshot(2, anchor)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootNs {
        BootNs(seconds * 1_000_000_000)
    }

    #[test]
    fn quiet_steps_keep_the_open_count() {
        let mut series = Series::default();
        series.opened(at(100), 0);
        series.opened(at(100), 1);
        series.closed(at(103), 2);
        series.advance(at(105), 1);
        let anchor = WallAnchor { boot: BootNs(0), unix_ns: 0 };
        let finest = &series.to_snapshot(&anchor)[0];
        assert_eq!(finest.open, [2, 2, 2, 1, 1, 1]);
        assert_eq!(finest.opened, [2, 0, 0, 0, 0, 0]);
        assert_eq!(finest.closed, [0, 0, 0, 1, 0, 0]);
        assert_eq!(finest.start, anchor.wall(at(100)));
    }

    #[test]
    fn attempts_are_those_within_a_time() {
        let mut series = Series::default();
        for second in 100..110 {
            series.opened(at(second), 0);
            series.hung_up(at(second), 0);
            series.failed(at(second), 0);
            series.failed(at(second), 0);
        }
        let all = Attempts { opened: 10, failed: 20, hung_up: 10 };
        assert_eq!(series.attempts(at(100), at(110)), all);
        assert_eq!(series.attempts(at(104), at(106)), Attempts { opened: 2, failed: 4, hung_up: 2 });
        assert_eq!(series.attempts(at(110), at(120)), Attempts::default());
        assert_eq!((all.succeeded(), all.in_vain()), (0, 30));
        series.advance(at(400), 0);
        assert_eq!(series.attempts(at(100), at(400)), all, "from the steps of 10 s");
    }

    #[test]
    fn rings_are_bounded_and_long_gaps_are_cheap() {
        let mut series = Series::default();
        series.opened(at(10), 0);
        series.advance(at(10_000_000_000), 1);
        let anchor = WallAnchor { boot: BootNs(0), unix_ns: 0 };
        for (ring, (step_s, capacity)) in series.to_snapshot(&anchor).iter().zip(RESOLUTIONS) {
            assert_eq!((ring.step_s, ring.open.len()), (step_s, capacity));
            assert!(ring.open.iter().all(|open| *open == 1));
        }
    }

    #[test]
    fn time_that_runs_backwards_lands_in_the_newest_step() {
        let mut series = Series::default();
        series.opened(at(20), 0);
        series.opened(at(19), 1);
        assert_eq!(series.open_within(Duration::from_secs(5), at(20)), (1, vec![2]));
    }

    #[test]
    fn a_look_back_ends_now_and_not_at_the_last_change() {
        let mut series = Series::default();
        for second in 0..5 {
            series.opened(at(100 + second), u32::try_from(second).unwrap());
        }
        assert_eq!(series.open_within(Duration::from_secs(3), at(104)), (1, vec![2, 3, 4, 5]));
        assert_eq!(series.open_within(Duration::from_secs(3), at(106)), (1, vec![4, 5, 5, 5]));
        assert_eq!(series.open_within(Duration::from_secs(3), at(500)), (1, vec![5, 5, 5, 5]));
        assert_eq!(series.open_within(Duration::from_secs(300), at(104)), (10, vec![5]));
    }
}
