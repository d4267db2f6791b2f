//! Connections of one process that were used when they were new and then passed over: it opened others while they lay
//! idle. A pool opens another only when all it has are taken; what keeps members idle on purpose keeps their number.

use std::time::Duration;

use super::survey::Held;
use crate::time::{BootNs, ns};

/// Longest use of a connection that is then left, in steps.
const USED_STEPS: u64 = 2;
/// Steps without a new one that end a run.
const GAP_STEPS: u32 = 3;

/// From the earlier moment to the later one; 0 if it is the other way round.
fn between(earlier: BootNs, later: BootNs) -> u64 {
    later.0.saturating_sub(earlier.0)
}

/// What tells abandoned connections of one holder from others, at one scale.
#[derive(Clone, Copy)]
pub(super) struct Rule {
    step: Duration,
    /// Half a step, and longest use of one that is left.
    half_ns: u64,
    used_ns: u64,
    /// The last look: what was idle is known as of then.
    looked_at: BootNs,
    /// The latest opening that this look could see.
    newest: BootNs,
}

impl Rule {
    pub(super) fn new(step: Duration, looked_at: BootNs, held: &[Held<'_>]) -> Self {
        let newest = held.iter().rev().map(|held| held.began).find(|began| *began <= looked_at);
        let (half_ns, used_ns) = (ns(step) / 2, ns(step).saturating_mul(USED_STEPS));
        Self { step, half_ns, used_ns, looked_at, newest: newest.unwrap_or(BootNs(0)) }
    }

    /// Old enough to be judged: what is younger may still be in its first use.
    pub(super) fn is_ripe(&self, held: &Held<'_>) -> bool {
        held.began_seen && held.last_active.is_some() && between(held.began, self.looked_at) >= self.half_ns
    }

    /// Its use was over within half a step.
    pub(super) fn was_prompt(&self, held: &Held<'_>) -> bool {
        between(held.began, held.idle_since()) <= self.half_ns
    }

    /// It was used for longer than one that is abandoned.
    pub(super) fn has_worked(&self, held: &Held<'_>) -> bool {
        between(held.began, held.idle_since()) > self.used_ns
    }

    /// How long nothing was said on it, as of the last look.
    pub(super) fn idle_for(&self, held: &Held<'_>) -> Duration {
        if held.in_use { Duration::ZERO } else { self.looked_at.since(held.idle_since()) }
    }

    /// How old it was at the last look.
    pub(super) fn age(&self, held: &Held<'_>) -> Duration {
        self.looked_at.since(held.began)
    }

    /// Idle since soon after it began, for half a step at least, while another was opened half a step after its last use.
    pub(super) fn is_abandoned(&self, held: &Held<'_>) -> bool {
        let idle_since = held.idle_since();
        self.is_ripe(held)
            && !held.in_use
            && between(held.began, idle_since) <= self.used_ns
            && between(idle_since, self.looked_at) >= self.half_ns
            && between(idle_since, self.newest) >= self.half_ns
    }
}

/// The latest of them without a long gap between any two, oldest first.
pub(super) struct Run<'a, 'b> {
    /// The connections.
    pub held: Vec<&'b Held<'a>>,
    /// Length of a step.
    pub step: Duration,
}

impl<'a, 'b> Run<'a, 'b> {
    pub(super) fn of(rule: Rule, all: &'b [Held<'a>]) -> Self {
        let mut held: Vec<&Held<'a>> = Vec::new();
        for one in all.iter().rev().filter(|held| rule.is_abandoned(held)) {
            if held.last().is_some_and(|later| later.began.since(one.began) > rule.step * GAP_STEPS) {
                break;
            }
            held.push(one);
        }
        held.reverse();
        Self { held, step: rule.step }
    }

    /// How many.
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.held.len()).unwrap_or(u32::MAX)
    }

    /// When the first began.
    pub(super) fn since(&self) -> Option<BootNs> {
        self.held.first().map(|held| held.began)
    }

    /// How many a second, up to the moment `until`: it falls while none follows.
    pub(super) fn rate(&self, until: BootNs) -> f64 {
        let (Some(first), Some(last)) = (self.held.first(), self.held.last()) else { return 0.0 };
        let more = f64::from(self.len().saturating_sub(1));
        let grown = last.began.since(first.began).as_secs_f64();
        // One more is due about now: until it is late its absence says nothing.
        let paused = until.since(last.began).saturating_sub(self.step * 2).as_secs_f64();
        if grown > 0.0 { more / (grown + paused) } else { 0.0 }
    }

    /// Fewest and most bytes on one, sent and received, among the latest few.
    pub(super) fn bytes(&self) -> Option<((u64, u64), (u64, u64))> {
        const LOOKED_AT: usize = 100;
        let all = self.held.iter().rev().take(LOOKED_AT);
        // A look has told of each: else it would not be known to be abandoned.
        let mut all = all.map(|held| (held.sent, held.received));
        let (sent, received) = all.next()?;
        Some(all.fold(((sent, sent), (received, received)), |(sent, received), one| {
            let widen = |(low, high): (u64, u64), bytes: u64| (low.min(bytes), high.max(bytes));
            (widen(sent, one.0), widen(received, one.1))
        }))
    }
}

/// In how many different steps those connections began that are abandoned, up to `most`.
pub(super) fn spread(rule: Rule, held: &[Held<'_>], most: usize) -> (usize, usize) {
    let step_ns = ns(rule.step).max(1);
    let (mut steps, mut count, mut last) = (0, 0, u64::MAX);
    for held in held.iter().filter(|held| rule.is_abandoned(held)) {
        let step = held.began.0 / step_ns;
        steps += usize::from(step != last);
        (count, last) = (count + 1, step);
        if steps >= most && count >= most {
            break;
        }
    }
    (steps, count)
}
