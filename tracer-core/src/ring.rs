//! Steps of equal length in a ring of fixed size, the newest last. Knows nothing of what a step has.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::BootNs;

/// The last steps, numbered from boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ring<S> {
    step_ns: u64,
    capacity: usize,
    /// Number of the newest step, counted from boot.
    newest: u64,
    steps: VecDeque<S>,
}

impl<S: Copy> Ring<S> {
    /// An empty one, with at most `capacity` steps of that length.
    pub fn new(step: Duration, capacity: usize) -> Self {
        let step_ns = u64::try_from(step.as_nanos()).unwrap_or(u64::MAX).max(1);
        Self { step_ns, capacity, newest: 0, steps: VecDeque::new() }
    }

    /// How long a step is, in nanoseconds.
    pub fn step_ns(&self) -> u64 {
        self.step_ns
    }

    /// Whether it is made like the other one, and has no more than it keeps.
    pub fn is_like(&self, other: &Self) -> bool {
        (self.step_ns, self.capacity) == (other.step_ns, other.capacity) && self.steps.len() <= self.capacity
    }

    /// Number of the oldest step; `None` if there is none.
    pub fn oldest(&self) -> Option<u64> {
        let before = u64::try_from(self.steps.len()).ok()?.checked_sub(1)?;
        Some(self.newest.saturating_sub(before))
    }

    /// The step of that number, if it is kept.
    pub fn get(&self, number: u64) -> Option<&S> {
        self.steps.get(usize::try_from(number.checked_sub(self.oldest()?)?).ok()?)
    }

    /// The step of `now`; it and what lies between it and the newest are `quiet` so far. Time that runs backwards lands in
    /// the newest step.
    pub fn at(&mut self, now: BootNs, quiet: S) -> Option<&mut S> {
        let step = now.0 / self.step_ns;
        if self.steps.is_empty() {
            self.newest = step;
            self.steps.push_back(quiet);
        } else if step > self.newest {
            let missing = usize::try_from(step - self.newest).unwrap_or(usize::MAX).min(self.capacity);
            for _ in 0..missing {
                if self.steps.len() == self.capacity {
                    self.steps.pop_front();
                }
                self.steps.push_back(quiet);
            }
            self.newest = step;
        }
        self.steps.back_mut()
    }

    /// Every step, oldest first, each with when it began.
    pub fn kept(&self) -> impl Iterator<Item = (BootNs, &S)> {
        let began = |number: u64| BootNs(number.saturating_mul(self.step_ns));
        (self.oldest().unwrap_or(0)..).map(began).zip(&self.steps)
    }

    /// Of the last `most` steps that are over at `now`, those that are kept, oldest first, each with how many steps ago it
    /// was over (0: just now).
    pub fn over(&self, now: BootNs, most: usize) -> impl Iterator<Item = (usize, S)> {
        let current = now.0 / self.step_ns;
        let first = current.saturating_sub(u64::try_from(most).unwrap_or(u64::MAX));
        let first = self.oldest().map_or(current, |oldest| oldest.max(first));
        (first..current.min(self.newest.saturating_add(1)))
            .filter_map(move |number| Some((usize::try_from(current - 1 - number).ok()?, *self.get(number)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_that_are_over_are_told_with_how_long_ago() {
        let mut ring = Ring::<u32>::new(Duration::from_secs(10), 4);
        let at = |seconds: u64| BootNs(seconds * 1_000_000_000);
        assert_eq!(ring.over(at(100), 9).count(), 0);
        for second in [95, 96, 112, 131] {
            *ring.at(at(second), 0).unwrap() += 1;
        }
        let over = |now: u64, most: usize| ring.over(at(now), most).collect::<Vec<_>>();
        assert_eq!(over(139, 9), [(2, 0), (1, 1), (0, 0)], "the one from 90 fell out, the one from 130 is not over");
        assert_eq!(over(140, 2), [(1, 0), (0, 1)]);
        assert_eq!(over(155, 9), [(4, 0), (3, 1), (2, 0), (1, 1)]);
        assert_eq!(over(155, 1), []);
        assert_eq!(ring.kept().map(|(began, _)| began).collect::<Vec<_>>(), [at(100), at(110), at(120), at(130)]);
    }
}
