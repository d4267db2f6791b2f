//! What became of one process' connections to one endpoint, over time and at several scales: the low and high water
//! marks from which a staircase is told from a pool. In rings of fixed size.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

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
    /// Of these, lives of one short exchange: see [`Life::is_brief`].
    pub brief: u32,
    /// How long the brief ones lasted, added up, in milliseconds.
    pub brief_ms: u32,
    /// Bytes both ways on the brief ones, added up.
    pub brief_bytes: u32,
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

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Ring {
    step_ns: u64,
    capacity: usize,
    /// Number of the newest step, counted from boot.
    newest: u64,
    steps: VecDeque<Step>,
}

impl Ring {
    /// Number of the oldest step.
    fn oldest(&self) -> u64 {
        (self.newest + 1).saturating_sub(u64::try_from(self.steps.len()).unwrap_or(0))
    }

    /// The step of `now`, with `open` as of then; what lies between it and the newest was quiet. Time that runs backwards
    /// lands in the newest step.
    fn at(&mut self, now: BootNs, open: u32) -> Option<&mut Step> {
        let step = now.0 / self.step_ns;
        if self.steps.is_empty() {
            self.newest = step;
            self.steps.push_back(Step::quiet(open));
        } else if step > self.newest {
            let missing = usize::try_from(step - self.newest).unwrap_or(usize::MAX).min(self.capacity);
            for _ in 0..missing {
                if self.steps.len() == self.capacity {
                    self.steps.pop_front();
                }
                self.steps.push_back(Step::quiet(open));
            }
            self.newest = step;
        }
        self.steps.back_mut()
    }
}

/// The history of one account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    began: BootNs,
    rings: [Ring; SCALES.len()],
}

impl History {
    /// An empty one with steps of `window`, aligned to boot time.
    #[must_use]
    pub fn new(window: Duration, now: BootNs) -> Self {
        let window_ns = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX).max(1);
        let ring = |(windows, capacity)| Ring {
            step_ns: window_ns.saturating_mul(u64::from(windows)),
            capacity,
            newest: 0,
            steps: VecDeque::new(),
        };
        Self { began: now, rings: SCALES.map(ring) }
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
        let brief = u32::from(life.is_brief());
        let (lasted, (sent, received)) = (life.lasted.unwrap_or_default(), life.bytes.unwrap_or_default());
        // A brief life has a bound on both.
        let ms = brief * u32::try_from(lasted.as_millis()).unwrap_or(u32::MAX).min(u32::MAX >> 1);
        let bytes = brief * u32::try_from(sent.saturating_add(received)).unwrap_or(u32::MAX);
        self.each(now, open, |step| {
            step.closed = step.closed.saturating_add(1);
            step.brief = step.brief.saturating_add(brief);
            step.brief_ms = step.brief_ms.saturating_add(ms);
            step.brief_bytes = step.brief_bytes.saturating_add(bytes);
            step.low = step.low.min(open.saturating_sub(1));
        });
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
        self.rings.iter().zip(&fresh.rings).all(|(ring, fresh)| {
            (ring.step_ns, ring.capacity) == (fresh.step_ns, fresh.capacity) && ring.steps.len() <= ring.capacity
        })
    }

    fn each(&mut self, now: BootNs, open: u32, change: impl Fn(&mut Step)) {
        for ring in &mut self.rings {
            if let Some(step) = ring.at(now, open) {
                change(step);
            }
        }
    }

    /// How long a step of that scale is.
    #[must_use]
    pub fn step(&self, scale: usize) -> Duration {
        Duration::from_nanos(self.rings.get(scale).map_or(0, |ring| ring.step_ns))
    }

    /// The steps of a scale that are over at `now`, oldest first, at most `most`; `open` is the count now. Steps since the
    /// last change were quiet. The first step that the history began in is left out: it was not seen whole.
    #[must_use]
    pub fn steps(&self, scale: usize, now: BootNs, open: u32, most: usize) -> Vec<Step> {
        let Some(ring) = self.rings.get(scale).filter(|ring| !ring.steps.is_empty()) else { return Vec::new() };
        let (current, oldest) = (now.0 / ring.step_ns, ring.oldest());
        let whole = self.began.0.div_ceil(ring.step_ns);
        let first = oldest.max(whole).max(current.saturating_sub(u64::try_from(most).unwrap_or(u64::MAX)));
        let step = |number: u64| {
            let index = usize::try_from(number - oldest).ok()?;
            Some(ring.steps.get(index).copied().unwrap_or(Step::quiet(open)))
        };
        (first..current).filter_map(step).collect()
    }

    /// Every step of a scale up to the last change, oldest first, each with when it began: the first and the last are parts
    /// of a step.
    pub fn kept(&self, scale: usize) -> impl Iterator<Item = (BootNs, &Step)> {
        let ring = self.rings.get(scale);
        ring.into_iter().flat_map(|ring| {
            let began = |number: u64| BootNs(number.saturating_mul(ring.step_ns));
            (ring.oldest()..).map(began).zip(&ring.steps)
        })
    }

    /// What happened in the last `most` windows that are over at `now`, oldest first, each with how many windows ago it
    /// was over (0: just now): the one that the history began in is among them, those where nothing happened are not.
    pub fn flows(&self, now: BootNs, most: usize) -> impl Iterator<Item = (usize, Step)> {
        let ring = &self.rings[0];
        let current = now.0 / ring.step_ns;
        let first = ring.oldest().max(current.saturating_sub(u64::try_from(most).unwrap_or(u64::MAX)));
        (first..current).filter_map(move |number| {
            let step = *ring.steps.get(usize::try_from(number - ring.oldest()).ok()?)?;
            Some((usize::try_from(current - 1 - number).ok()?, step))
        })
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
        let flows: Vec<_> = history
            .flows(at(125), 3)
            .map(|(ago, step)| (ago, step.opened, step.brief, step.brief_ms, step.brief_bytes))
            .collect();
        assert_eq!(flows, [(2, 2, 2, 80, 2_200), (1, 0, 0, 0, 0), (0, 2, 1, 40, 1_100)]);
        assert_eq!(history.flows(at(125), 1).count(), 1);
        assert_eq!(history.flows(at(500), 3).count(), 0);
        let began: Vec<BootNs> = history.kept(0).map(|(began, _)| began).collect();
        assert_eq!(began, [at(90), at(100), at(110)]);
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
