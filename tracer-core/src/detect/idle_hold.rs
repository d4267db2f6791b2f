//! `idle_hold`: held and not used.
//!
//! Trigger: connections of a process are idle for longer than `after_s` (300 s) and were passed over: while they were idle
//! the process came to hold more connections than it had when they went idle (its low-water mark of the last window is
//! above the high-water mark of that time). A pool takes an idle member before it opens another, so these are not for
//! taking: sessions that were never returned. They came about one by one: some went idle, others were opened, some went
//! idle, and so on, in at least `connections` (6) rounds with as many held, over `after_s` and more: info; a floor of idle
//! members is rarely above five. At least `many` (10) of both: warning. And since each went idle, others were used
//! [`TURNS`] times as often as the process has connections: had all taken turns, its turn would have come.
//!
//! From outside nobody sees a transaction: "held" says that the connection is not used and not available, no more.
//!
//! Confidence: 1 - 1 / (1 + rounds), at most 0.95, times the completeness factor.
//!
//! Look-alikes, all silent: a pool at rest of any size (its count is what it was when its members went idle), a pool that
//! recycles members by age (each opening has a close, so the count does not rise), a last-in-first-out pool that leaves
//! its oldest members alone, a pool that grew with load (its members were all in use when the last was opened), several
//! pools in one process (when one goes to rest and another is opened, that is one round), a pool that fills itself over a
//! minute, a connection for each thread (a thread that had nothing to do for minutes has its turn later). What is
//! held within a pool that does not grow looks like a resting member and is not told.
//!
//! Clears after a window in which it was untrue.

use std::time::Duration;

use super::rest::{local_ports, rounds};
use super::survey::Held;
use super::{Carried, Context, DetectConfig, Detector, Holding, Threshold, Verdict, count, list, plural, spoken, text};
use crate::endpoint::Endpoint;
use crate::event::ProcessId;
use crate::finding::{Kind, Severity, Subject};
use crate::history::{History, SCALES, Step};
use crate::process::{Account, Process};
use crate::time::BootNs;

const AFTER: Threshold = Threshold {
    key: "after_s",
    default: 300,
    bounds: (1, 86_400),
    meaning: "How long a connection must be idle to count as held.",
};
const CONNECTIONS: Threshold = Threshold {
    key: "connections",
    default: 6,
    bounds: (2, 10_000),
    meaning: "How many connections must have been passed over, in as many rounds.",
};
const MANY: Threshold =
    Threshold { key: "many", default: 10, bounds: (2, 10_000), meaning: "From how many of them it warns." };

/// Uses of other connections, for each that is open, after which one that was not used is not for taking. Were the next
/// always any of them, 14 in 100 would be left out for so long.
const TURNS: u64 = 2;

pub(super) struct IdleHold;

/// Held connections of one process at one endpoint.
struct Found<'a, 'b> {
    held: Vec<&'b Held<'a>>,
    /// How often some went idle and others were opened.
    rounds: usize,
    /// Most it had when the first of them went idle, and fewest of late.
    before: u32,
    now: u32,
    /// All connections, and those used lately.
    open: usize,
    used: usize,
}

impl Detector for IdleHold {
    fn kind(&self) -> Kind {
        Kind::IdleHold
    }

    fn thresholds(&self) -> &'static [Threshold] {
        const { &[AFTER, CONNECTIONS, MANY] }
    }

    fn clear_after(&self, config: &DetectConfig) -> Duration {
        config.window
    }

    fn detect(&self, context: &Context<'_>) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for Holding { id, index, process, endpoint, held } in context.living() {
            let Some(account) = process.accounts.get(&index) else { continue };
            if let Some(found) = judge(context, account, held) {
                verdicts.push(verdict(context, id, process, endpoint, &found));
            }
        }
        verdicts
    }

    fn may_hold(&self, context: &Context<'_>, carried: &Carried<'_>) -> bool {
        carried.lie_unused(context)
    }

    fn resolved_summary(&self, context: &Context<'_>, last: &Verdict) -> String {
        let pid = last.subject.pids.first().copied().unwrap_or_default();
        let open: usize = context
            .survey
            .holders()
            .filter(|(id, endpoint, _)| {
                let name = context.tracker.endpoints().get(*endpoint).map(Endpoint::id);
                id.pid == pid && name == last.subject.endpoint
            })
            .map(|(.., held)| held.len())
            .sum();
        let open = plural(u32::try_from(open).unwrap_or(u32::MAX), "connection");
        let (who, was, was_open) = (last.text("process"), last.number("held"), last.number("open"));
        format!("{who} {open} (was {was_open}, {was} of them held)")
    }
}

/// What of these is held.
fn judge<'a, 'b>(context: &Context<'_>, account: &Account, held: &'b [Held<'a>]) -> Option<Found<'a, 'b>> {
    let least = usize::try_from(context.config.get(Kind::IdleHold, &CONNECTIONS)).unwrap_or(usize::MAX);
    let idle_before = context.tracker.looked_at().minus(context.config.time(Kind::IdleHold, &AFTER));
    let is_idle = |held: &&Held<'_>| !held.in_use && held.last_active.is_some() && held.idle_since() <= idle_before;
    let idle = held.iter().filter(is_idle);
    if idle.clone().take(least).count() < least {
        return None;
    }
    let settle = context.config.window / 5;
    // Most is at rest, and nothing was opened since.
    let first = idle.clone().map(Held::idle_since).min()?;
    if held.iter().rev().nth(least - 1)?.began < first.plus(settle) {
        return None;
    }
    let marks = Marks::of(account.history.as_deref()?, context.now, account.open_u32());
    let turned = marks.turned(TURNS.saturating_mul(u64::try_from(held.len()).unwrap_or(u64::MAX)))?;
    let is_passed_over = |held: &&Held<'_>| {
        let since = held.idle_since();
        since <= turned && marks.high_at(since).is_some_and(|high| marks.lately > high)
    };
    let passed_over: Vec<&Held<'_>> = idle.filter(is_passed_over).collect();
    let mut ends: Vec<BootNs> = passed_over.iter().map(|held| held.idle_since()).collect();
    ends.sort_unstable();
    let (first, last) = (*ends.first()?, *ends.last()?);
    if last.since(first) < context.config.time(Kind::IdleHold, &AFTER) {
        return None;
    }
    let before = marks.high_at(first)?;
    let rounds = rounds(&ends, held.iter().map(|held| held.began), settle);
    let used = held.iter().filter(|held| held.in_use || held.idle_since() > idle_before).count();
    let found = Found { held: passed_over, rounds, before, now: marks.lately, open: held.len(), used };
    (rounds.min(found.held.len()) >= least).then_some(found)
}

/// Water marks of a history.
struct Marks {
    now: BootNs,
    /// Length of a step in ns, and all whole steps, oldest first.
    scales: [(u64, Vec<Step>); SCALES.len()],
    /// Fewest open in the last whole step and now.
    lately: u32,
}

impl Marks {
    fn of(history: &History, now: BootNs, open: u32) -> Self {
        let lately = history.steps(0, now, open, 1).first().map_or(open, |step| step.low.min(open));
        let scales = std::array::from_fn(|scale| {
            let step = u64::try_from(history.step(scale).as_nanos()).unwrap_or(u64::MAX).max(1);
            (step, history.steps(scale, now, open, usize::MAX))
        });
        Self { now, scales, lately }
    }

    /// Most open in the step that `at` lies in, by the finest scale that has it whole.
    fn high_at(&self, at: BootNs) -> Option<u32> {
        self.scales.iter().find_map(|(step, steps)| {
            let back = usize::try_from((self.now.0 / step).checked_sub(at.0 / step)?).ok().filter(|back| *back > 0)?;
            Some(steps.get(steps.len().checked_sub(back)?)?.high)
        })
    }

    /// The latest moment since when connections were used `turns` times: each look that saw one used, and each step of the
    /// past, counts once, and those that were just opened are left out. At least so often was one taken. By the finest
    /// scale that has the time.
    fn turned(&self, turns: u64) -> Option<BootNs> {
        let (mut uses, mut until) = (0, self.now);
        for (step, steps) in &self.scales {
            let current = self.now.0 / step;
            for (back, one) in (1u64..).zip(steps.iter().rev()) {
                let began = BootNs(current.saturating_sub(back).saturating_mul(*step));
                if began.plus(Duration::from_nanos(*step)) > until {
                    continue;
                }
                uses += u64::from(one.reused);
                until = began;
                if uses >= turns {
                    return Some(began);
                }
            }
        }
        None
    }
}

fn verdict(
    context: &Context<'_>,
    id: ProcessId,
    process: &Process,
    endpoint: &Endpoint,
    found: &Found<'_, '_>,
) -> Verdict {
    let name = process.label();
    let who = format!("{name} (pid {})", id.pid);
    let many = usize::try_from(context.config.get(Kind::IdleHold, &MANY)).unwrap_or(usize::MAX);
    let held = u32::try_from(found.held.len()).unwrap_or(u32::MAX);
    let idle = |held: Option<BootNs>| held.map_or(Duration::ZERO, |since| context.now.since(since));
    let longest = idle(found.held.iter().map(|held| held.idle_since()).min());
    let shortest = idle(found.held.iter().map(|held| held.idle_since()).max());
    let rounds = u32::try_from(found.rounds).unwrap_or(u32::MAX);
    Verdict {
        key: format!("{}@{} {}", id.pid, { id.start_ticks }, endpoint.id()),
        severity: if found.rounds.min(found.held.len()) >= many { Severity::Warning } else { Severity::Info },
        confidence: (1.0 - 1.0 / (1.0 + f64::from(rounds))).min(0.95) * context.completeness_factor(),
        subject: Subject {
            endpoint: Some(endpoint.id()),
            pids: vec![id.pid],
            launcher_group: process.identity.as_ref().map(|identity| identity.group.id.clone()),
        },
        news: format!("{who} {held}"),
        summary: format!(
            "{who} holds {} to {} that it does not use, idle for {} to {}; it opened others instead ({} before, {} now)",
            plural(held, "connection"),
            endpoint.display_name(),
            spoken(shortest),
            spoken(longest),
            found.before,
            found.now
        ),
        evidence: vec![
            count("held", held, "connections"),
            count("rounds", found.rounds, "times some went idle and others were opened"),
            count("open", found.open, "connections"),
            count("open_before", found.before, "connections when the first went idle"),
            count("open_lately", found.now, "connections at least, in the last window"),
            count("used", found.used, "connections lately"),
            count("longest_idle", longest.as_secs(), "s"),
            text("process", who),
            list("local_ports", local_ports(found.held.iter().copied())),
        ],
        ruled_out: vec![
            format!("a pool at rest: it grew from {} to {} while these were idle", found.before, found.now),
            format!("members that take turns: no byte on these for {}", spoken(shortest)),
            format!("a connection for each thread: others were used {TURNS} times for each of the {} open", found.open),
            format!("two pools, one at rest: in {} rounds some went idle and others were opened", found.rounds),
        ],
        remedy: format!(
            "Return sessions in {name} when their work is done, on the error path too, and bound their age"
        ),
        verify: format!("ss -tinpo dst {} | grep -A1 pid={},", endpoint.id(), id.pid),
    }
}
