//! What became of one process' connections to one endpoint, over time and at several scales: the low and high water
//! marks from which a staircase is told from a pool. In rings of fixed size.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ring::Ring;
use crate::time::BootNs;

/// Lengths of a step, in windows, and how many steps each ring keeps. With the default window of 10 s: 6 minutes, 1
/// hour, 24 hours.
pub const SCALES: [(u32, usize); 3] = [(1, 36), (6, 60), (60, 144)];

/// One step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Fewest open at any moment.
    pub low: u32,
    /// Most open at any moment.
    pub high: u32,
    /// Opened.
    pub opened: u32,
    /// Ended.
    pub closed: u32,
    /// Looks at the socket table.
    pub looks: u32,
    /// Most in use at one of these looks: a lower bound of how many were needed at once.
    pub in_use: u32,
    /// In use at these looks, added up: over `looks` it is the mean.
    pub in_use_sum: u32,
    /// Most that had moved a byte since the look before, at one of these looks.
    pub used: u32,
    /// The same without those that began since the look before: a login is no use.
    pub reused: u32,
}

impl Step {
    fn quiet(open: u32) -> Self {
        Self { low: open, high: open, ..Self::default() }
    }
}

/// What is known of a connection when it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// How long it was open, if that was seen.
    pub lasted: Option<Duration>,
    /// Bytes sent and received, if the end told.
    pub bytes: Option<(u64, u64)>,
    /// The other side ended it: it hung up first, or reset.
    pub ended_by_peer: bool,
}

impl Life {
    /// Of one whose end was not seen.
    pub const UNSEEN: Self = Self { lasted: None, bytes: None, ended_by_peer: false };
    /// Longest life of a connection that carries one request.
    pub const BRIEF: Duration = Duration::from_secs(5);
    /// Most bytes each way in one exchange, login included.
    pub const BRIEF_BYTES: u64 = 256 << 10;

    /// It was used for one short exchange: both sides spoke, little was said, and it was over soon.
    #[must_use]
    pub fn is_brief(&self) -> bool {
        let spoke = |bytes: u64| (1..=Self::BRIEF_BYTES).contains(&bytes);
        self.lasted.is_some_and(|lasted| lasted <= Self::BRIEF)
            && self.bytes.is_some_and(|(sent, received)| spoke(sent) && spoke(received))
    }
}

/// Windows whose brief lives are kept apart from the others.
pub const FLOWS_KEPT: usize = 20;

/// Powers of two up to [`Life::BRIEF`] in milliseconds, and 0.
const LENGTHS: usize = 14;

/// Lives of one short exchange (see [`Life::is_brief`]), by how long they lasted: so many between two powers of two of
/// milliseconds, and these added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brief {
    lengths: [(u32, u32); LENGTHS],
    /// Bytes both ways on them, added up.
    pub bytes: u64,
}

impl Brief {
    fn count(&mut self, ms: u32, bytes: u64) {
        let length = usize::try_from(u32::BITS - ms.leading_zeros()).unwrap_or(LENGTHS).min(LENGTHS - 1);
        if let Some((lives, sum)) = self.lengths.get_mut(length) {
            (*lives, *sum) = (lives.saturating_add(1), sum.saturating_add(ms));
        }
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Adds those of another time, or of another account.
    pub fn add(&mut self, other: &Self) {
        for ((lives, sum), (more, longer)) in self.lengths.iter_mut().zip(other.lengths) {
            (*lives, *sum) = (lives.saturating_add(more), sum.saturating_add(longer));
        }
        self.bytes = self.bytes.saturating_add(other.bytes);
    }

    /// How many.
    #[must_use]
    pub fn lives(&self) -> u32 {
        self.lengths.iter().fold(0, |all, (lives, _)| all.saturating_add(*lives))
    }

    /// How long they lasted, added up, in milliseconds.
    #[must_use]
    pub fn total_ms(&self) -> u64 {
        self.lengths.iter().map(|(_, sum)| u64::from(*sum)).sum()
    }

    /// How long half of them lasted at most: exact if those of a like length were of one length, else that between the
    /// same two powers of two which they had on average. `None` without any.
    #[must_use]
    pub fn median_ms(&self) -> Option<u64> {
        let middle = self.lives().div_ceil(2).max(1);
        let mut up_to = 0u32;
        let (lives, sum) = self.lengths.iter().find(|(lives, _)| {
            up_to = up_to.saturating_add(*lives);
            up_to >= middle
        })?;
        Some(u64::from(sum / lives.max(&1)))
    }
}

/// The history of one account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    began: BootNs,
    rings: [Ring<Step>; SCALES.len()],
    brief: Ring<Brief>,
}

impl History {
    /// An empty one with steps of `window`, aligned to boot time.
    #[must_use]
    pub fn new(window: Duration, now: BootNs) -> Self {
        let window = window.max(Duration::from_nanos(1));
        let ring = |(windows, capacity)| Ring::new(window.saturating_mul(windows), capacity);
        // The current window beside those that are over.
        Self { began: now, rings: SCALES.map(ring), brief: Ring::new(window, FLOWS_KEPT + 1) }
    }

    /// When it began.
    #[must_use]
    pub fn began(&self) -> BootNs {
        self.began
    }

    /// One opened; `open` is the count before it.
    pub fn opened(&mut self, now: BootNs, open: u32) {
        self.each(now, open, |step| {
            step.opened = step.opened.saturating_add(1);
            step.high = step.high.max(open.saturating_add(1));
        });
    }

    /// One ended; `open` is the count before it.
    pub fn closed(&mut self, now: BootNs, open: u32, life: Life) {
        self.each(now, open, |step| {
            step.closed = step.closed.saturating_add(1);
            step.low = step.low.min(open.saturating_sub(1));
        });
        if life.is_brief()
            && let (Some(lasted), Some((sent, received))) = (life.lasted, life.bytes)
            && let Some(brief) = self.brief.at(now, Brief::default())
        {
            brief.count(u32::try_from(lasted.as_millis()).unwrap_or(u32::MAX), sent.saturating_add(received));
        }
    }

    /// A look found so many in use, so many that had moved a byte since the look before, and so many of these that had
    /// been there then.
    pub fn looked(&mut self, now: BootNs, open: u32, (in_use, used, reused): (u32, u32, u32)) {
        self.each(now, open, |step| {
            step.looks = step.looks.saturating_add(1);
            step.in_use = step.in_use.max(in_use);
            step.in_use_sum = step.in_use_sum.saturating_add(in_use);
            step.used = step.used.max(used);
            step.reused = step.reused.max(reused);
        });
    }

    /// Nothing is known of the time until `now`, when there are `open`: that is taken for quiet.
    pub(crate) fn resume(&mut self, now: BootNs, open: u32) {
        self.each(now, open, |_| {});
    }

    /// Whether its steps are of this window, and not more than it keeps.
    pub(crate) fn is_sound(&self, window: Duration) -> bool {
        let fresh = Self::new(window, self.began);
        self.rings.iter().zip(&fresh.rings).all(|(ring, fresh)| ring.is_like(fresh)) && self.brief.is_like(&fresh.brief)
    }

    fn each(&mut self, now: BootNs, open: u32, change: impl Fn(&mut Step)) {
        for ring in &mut self.rings {
            if let Some(step) = ring.at(now, Step::quiet(open)) {
                change(step);
            }
        }
    }

    /// How long a step of that scale is.
    #[must_use]
    pub fn step(&self, scale: usize) -> Duration {
        Duration::from_nanos(self.rings.get(scale).map_or(0, Ring::step_ns))
    }

    /// The steps of a scale that are over at `now`, oldest first, at most `most`; `open` is the count now. Steps since the
    /// last change were quiet. The first step that the history began in is left out: it was not seen whole.
    #[must_use]
    pub fn steps(&self, scale: usize, now: BootNs, open: u32, most: usize) -> Vec<Step> {
        let Some((ring, oldest)) = self.rings.get(scale).and_then(|ring| Some((ring, ring.oldest()?))) else {
            return Vec::new();
        };
        let current = now.0 / ring.step_ns();
        let whole = self.began.0.div_ceil(ring.step_ns());
        let first = oldest.max(whole).max(current.saturating_sub(u64::try_from(most).unwrap_or(u64::MAX)));
        (first..current).map(|number| ring.get(number).copied().unwrap_or(Step::quiet(open))).collect()
    }

    /// Every step of a scale up to the last change, oldest first, each with when it began: the first and the last are parts
    /// of a step.
    pub fn kept(&self, scale: usize) -> impl Iterator<Item = (BootNs, &Step)> {
        self.rings.get(scale).into_iter().flat_map(Ring::kept)
    }

    /// What happened in the last `most` windows that are over at `now`, oldest first, each with how many windows ago it
    /// was over (0: just now): the one that the history began in is among them, those where nothing happened are not.
    pub fn flows(&self, now: BootNs, most: usize) -> impl Iterator<Item = (usize, Step)> {
        self.rings[0].over(now, most)
    }

    /// The brief lives that ended in these windows, of which the last [`FLOWS_KEPT`] are kept.
    pub fn briefs(&self, now: BootNs, most: usize) -> impl Iterator<Item = (usize, Brief)> {
        self.brief.over(now, most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> BootNs {
        BootNs(seconds * 1_000_000_000)
    }

    fn closed(history: &mut History, now: BootNs, open: u32) {
        history.closed(now, open, Life::UNSEEN);
    }

    #[test]
    fn marks_are_of_whole_steps_and_quiet_ones_keep_the_count() {
        let mut history = History::new(WINDOW, at(95));
        for (second, open) in [(95, 0), (96, 1), (112, 2), (113, 3)] {
            history.opened(at(second), open);
        }
        closed(&mut history, at(114), 4);
        closed(&mut history, at(115), 3);
        let marks = |history: &History, now| -> Vec<(u32, u32)> {
            history.steps(0, at(now), 2, 100).iter().map(|step| (step.low, step.high)).collect()
        };
        // The step from 90 was not seen whole, that from 110 is not over.
        assert_eq!(marks(&history, 119), [(2, 2)]);
        assert_eq!(marks(&history, 120), [(2, 2), (2, 4)]);
        assert_eq!(marks(&history, 149), [(2, 2), (2, 4), (2, 2), (2, 2)]);
        assert_eq!(history.steps(0, at(149), 2, 3)[0].opened, 2);
        assert_eq!(history.steps(1, at(149), 2, 100), []);
        assert_eq!(history.step(2), Duration::from_secs(600));
    }

    #[test]
    fn steps_are_bounded_and_a_long_gap_is_cheap() {
        let mut history = History::new(WINDOW, at(0));
        history.opened(at(5), 0);
        history.opened(at(1_000_000_000), 1);
        for (scale, (_, capacity)) in SCALES.into_iter().enumerate() {
            let steps = history.steps(scale, at(1_000_000_000), 2, usize::MAX);
            assert_eq!(steps.len(), capacity - 1);
            assert!(steps.iter().all(|step| *step == Step::quiet(1)));
        }
    }

    #[test]
    fn looks_give_the_most_and_the_mean_in_use() {
        let mut history = History::new(WINDOW, at(100));
        for (second, counts) in [(100, (1, 2, 1)), (103, (4, 5, 3)), (106, (1, 1, 1))] {
            history.looked(at(second), 9, counts);
        }
        let step = history.steps(0, at(110), 9, 1)[0];
        assert_eq!((step.looks, step.in_use, step.in_use_sum, step.used, step.reused), (3, 4, 6, 5, 3));
    }

    #[test]
    fn brief_lives_are_counted_with_what_they_cost_from_the_very_first_window() {
        let mut history = History::new(WINDOW, at(95));
        let brief = Life { lasted: Some(Duration::from_millis(40)), bytes: Some((200, 900)), ended_by_peer: false };
        for second in [95, 96, 112] {
            history.opened(at(second), 0);
            history.closed(at(second), 1, brief);
        }
        history.opened(at(113), 0);
        history.closed(at(114), 1, Life { lasted: Some(Duration::from_secs(900)), ..brief });
        let flows: Vec<_> = history.flows(at(125), 3).map(|(ago, step)| (ago, step.opened, step.closed)).collect();
        assert_eq!(flows, [(2, 2, 2), (1, 0, 0), (0, 2, 2)]);
        let briefs: Vec<_> = history
            .briefs(at(125), 3)
            .map(|(ago, brief)| (ago, brief.lives(), brief.total_ms(), brief.bytes))
            .collect();
        assert_eq!(briefs, [(2, 2, 80, 2_200), (1, 0, 0, 0), (0, 1, 40, 1_100)]);
        assert_eq!(history.flows(at(125), 1).count(), 1);
        assert_eq!(history.flows(at(500), 3).count(), 0);
        let began: Vec<BootNs> = history.kept(0).map(|(began, _)| began).collect();
        assert_eq!(began, [at(90), at(100), at(110)]);
    }

    #[test]
    fn the_median_of_brief_lives_is_not_moved_by_a_few_long_ones() {
        let median = |lengths: &[u32]| {
            let mut brief = Brief::default();
            lengths.iter().for_each(|ms| brief.count(*ms, 1));
            brief.median_ms()
        };
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[0, 0, 1]), Some(0));
        assert_eq!(median(&[40; 9]), Some(40));
        assert_eq!(median(&[40, 40, 40, 4_900, 5_000]), Some(40));
        assert_eq!(median(&[1, 33, 35, 5_000]), Some(34), "those between 32 and 64 had 34 on average");
        assert_eq!(median(&[u32::MAX]), Some(u64::from(u32::MAX)));
        let mut sum = Brief::default();
        sum.count(40, 100);
        let mut other = sum;
        other.add(&sum);
        assert_eq!((other.lives(), other.total_ms(), other.bytes), (2, 80, 200));
    }

    #[test]
    fn a_brief_life_is_one_short_exchange() {
        let life = |seconds, sent, received| Life {
            lasted: Some(Duration::from_secs(seconds)),
            bytes: Some((sent, received)),
            ended_by_peer: false,
        };
        assert!(life(1, 200, 900).is_brief());
        assert!(!life(6, 200, 900).is_brief());
        assert!(!life(1, 0, 900).is_brief() && !life(1, 200, 0).is_brief());
        assert!(!life(1, 200, Life::BRIEF_BYTES + 1).is_brief());
        assert!(!Life { lasted: None, bytes: Some((1, 1)), ended_by_peer: false }.is_brief());
    }
}
