//! What came in to a process from outside, as far as its accepts tell: TCP connections that it took on ports which are not
//! watched. Knows nothing of what the process did with them.
//!
//! A connection that is kept alive carries many requests, so accepts are a lower bound of these.

use std::time::Duration;

use crate::history::FLOWS_KEPT;
use crate::ring::Ring;
use crate::time::BootNs;

/// Accepts of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inbound {
    /// The kernel side's count.
    told: u64,
    /// The same when counting began.
    before: u64,
    windows: Ring<u32>,
}

impl Inbound {
    pub(crate) fn new(window: Duration) -> Self {
        Self { told: 0, before: 0, windows: Ring::new(window, FLOWS_KEPT + 1) }
    }

    /// The kernel side has counted `total` by `at`. What it says before counting begins is only remembered.
    pub(crate) fn tell(&mut self, total: u64, at: BootNs, counts: bool) {
        let new = total.saturating_sub(self.told);
        self.told += new;
        if !counts {
            self.before = self.told;
        } else if let Some(window) = self.windows.at(at, 0).filter(|_| new > 0) {
            *window = window.saturating_add(u32::try_from(new).unwrap_or(u32::MAX));
        }
    }

    /// As the kernel side has it, since the process was first watched.
    #[must_use]
    pub fn told(&self) -> u64 {
        self.told
    }

    /// Since counting began.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.told - self.before
    }

    /// In the last `most` windows that are over at `now`, at most [`FLOWS_KEPT`], each with how many windows ago it was
    /// over (0: just now); in those that are not among them, none.
    pub fn flows(&self, now: BootNs, most: usize) -> impl Iterator<Item = (usize, u32)> {
        self.windows.over(now, most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_become_counts_by_window() {
        let mut inbound = Inbound::new(Duration::from_secs(10));
        let at = |seconds: u64| BootNs(seconds * 1_000_000_000);
        inbound.tell(70, at(90), false);
        assert_eq!((inbound.told(), inbound.total()), (70, 0), "what came before counting began");
        // The third one says what was told before, and the last is late.
        for (second, total) in [(101, 72), (105, 75), (106, 75), (121, 80), (121, 79)] {
            inbound.tell(total, at(second), true);
        }
        assert_eq!((inbound.told(), inbound.total()), (80, 10));
        assert_eq!(inbound.flows(at(135), 9).collect::<Vec<_>>(), [(2, 5), (1, 0), (0, 5)]);
    }
}
