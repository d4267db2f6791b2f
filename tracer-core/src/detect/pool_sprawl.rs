//! `pool_sprawl`: many pools in one process.
//!
//! Trigger: what a process holds at one endpoint was opened in at least `bursts` (3) bursts of two or more, which are four
//! fifths of it; it holds twice what was ever seen in use at once; and the bursts are those of pools of their own: a
//! pool opens more when all it has is in use, but here all bursts but the first (as many as `bursts`, less one) came while
//! an older connection lay idle and was not touched since. Where every connection was used since, that cannot be told
//! any more: then twice as many bursts of one size speak, if no more was ever in use than one of them has. The last
//! burst is [`SETTLED`] windows old, and twice as old as the bursts were apart. Clears when less than that is true: one burst
//! less, and without the waiting.
//!
//! A burst: connections opened closer together than ten round trips, 250 ms at least. Only connections whose opening was
//! seen have one; a daemon that is started later than the process sees none.
//!
//! Confidence: 0.5; 0.2 more when the upper bound agrees, that is when no more than half moved a byte between two looks
//! since the last burst; up to 0.3 more by the part of the later bursts that came while an older connection was idle.
//! Times the completeness factor.
//!
//! Look-alikes: one pool that grew with load; a pool that replaces its members by age, and a reconnect (what closed is a
//! quarter of what is open, or more); a staircase or threads that open one each (no bursts, or small ones of different
//! sizes where some open together by chance); a leak in batches (it does not stop); pools to different endpoints, which
//! are judged one by one.

use std::time::Duration;

use super::survey::Held;
use super::usage::{Usage, measure};
use super::who::Who;
use super::{Carried, Context, DetectConfig, Detector, Threshold, Verdict, count, list, spoken, text};
use crate::event::ProcessId;
use crate::finding::{Kind, Severity};
use crate::time::BootNs;

/// Closest that two bursts can be, and the furthest that a slow network makes it.
const QUIET: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));
/// Connect latencies within a burst.
const LATENCIES: u32 = 10;
/// Sockets asked for their round trip.
const ASKED: usize = 16;
/// A pool is full sooner than this.
const FILLED_WITHIN: Duration = Duration::from_secs(5);
/// Windows after the last burst.
const SETTLED: u32 = 6;
/// Looks after the last burst.
const LOOKS: u32 = 3;
/// What was said last on a connection is known to the millisecond.
const RESOLUTION: Duration = Duration::from_millis(50);
/// Burst sizes named.
const SIZES_NAMED: usize = 12;

/// Bursts of fewer, on average, may be chance.
const SMALL: usize = 3;

const BURSTS: Threshold = Threshold {
    key: "bursts",
    default: 3,
    bounds: (2, 1_000),
    meaning: "Bursts of opened connections from which it is more than one pool.",
};

pub(super) struct PoolSprawl;

impl Detector for PoolSprawl {
    fn kind(&self) -> Kind {
        Kind::PoolSprawl
    }

    fn thresholds(&self) -> &'static [Threshold] {
        const { &[BURSTS] }
    }

    fn clear_after(&self, config: &DetectConfig) -> Duration {
        config.window * 3
    }

    fn detect(&self, context: &Context<'_>) -> Vec<Verdict> {
        let least = context.config.get(Kind::PoolSprawl, &BURSTS) as usize;
        let many =
            context.survey.holders().filter(|(_, _, held)| held.len() + 2 >= least * 2 && gaps(held) + 2 >= least);
        many.filter_map(|(id, endpoint, held)| judge(context, id, endpoint, held)).collect()
    }

    fn may_hold(&self, context: &Context<'_>, carried: &Carried<'_>) -> bool {
        // Bursts are not seen again: as long as the pools are there, they are many.
        carried.open(context).saturating_mul(5) >= carried.verdict.number("open").max(1).saturating_mul(4)
    }

    fn resolved_summary(&self, _: &Context<'_>, last: &Verdict) -> String {
        let (who, endpoint) = (last.text("process"), last.subject.endpoint.as_deref().unwrap_or(""));
        let (open, bursts) = (last.number("open"), last.number("bursts"));
        format!("{who} has no more pools to {endpoint} than it uses (was {open} in {bursts} bursts)")
    }
}

/// Connections opened within a moment.
#[derive(Clone, Copy, Debug)]
struct Burst {
    from: BootNs,
    until: BootNs,
    size: u32,
    /// An older connection was idle then, and was not used since.
    unforced: bool,
}

/// Openings that are far enough apart to be of two bursts, on the fastest network.
fn gaps(held: &[Held<'_>]) -> usize {
    held.windows(2).filter(|pair| pair[1].began.since(pair[0].began) > QUIET.0).count()
}

/// How far apart openings of one burst can be.
fn quiet(held: &[Held<'_>]) -> Duration {
    let every = held.len().div_ceil(ASKED).max(1);
    let srtt = |held: &Held<'_>| held.socket.counters.and_then(|counters| counters.srtt_us);
    let mut trips: Vec<u32> = held.iter().step_by(every).filter_map(srtt).map(u32::from).collect();
    trips.sort_unstable();
    let median = trips.get(trips.len() / 2).copied().unwrap_or(0);
    (Duration::from_micros(u64::from(median)) * LATENCIES).clamp(QUIET.0, QUIET.1)
}

/// The bursts of two and more that what is held was opened in, oldest first.
fn bursts(held: &[Held<'_>]) -> Vec<Burst> {
    let quiet = quiet(held);
    let mut all: Vec<Burst> = Vec::new();
    // Since when the idlest of the older ones was idle.
    let (mut idlest, mut idlest_in_burst) = (None::<BootNs>, None::<BootNs>);
    for held in held.iter().filter(|held| held.began_seen) {
        match all.last_mut() {
            Some(burst) if held.began.since(burst.until) <= quiet => {
                burst.until = held.began;
                burst.size = burst.size.saturating_add(1);
            }
            _ => {
                idlest = [idlest, idlest_in_burst.take()].into_iter().flatten().min();
                let unforced = idlest.is_some_and(|since| since.plus(RESOLUTION) < held.began);
                all.push(Burst { from: held.began, until: held.began, size: 1, unforced });
            }
        }
        if held.last_active.is_some() && !held.in_use {
            idlest_in_burst = Some(idlest_in_burst.map_or(held.idle_since(), |idle| idle.min(held.idle_since())));
        }
    }
    all.retain(|burst| burst.size >= 2 && burst.until.since(burst.from) <= FILLED_WITHIN);
    all
}

/// What the bursts say.
struct Pools {
    bursts: Vec<Burst>,
    /// Later bursts that came while an older connection was idle.
    unforced: u32,
    /// Since the last of them.
    settled: Duration,
}

/// The pools that what is held is made of, if it is.
fn pools(context: &Context<'_>, held: &[Held<'_>], most_in_use: u32, is_open: bool) -> Option<Pools> {
    let least = (context.config.get(Kind::PoolSprawl, &BURSTS) as usize).saturating_sub(usize::from(is_open)).max(2);
    let bursts = bursts(held);
    let within: usize = bursts.iter().map(|burst| burst.size as usize).sum();
    if bursts.len() < least || within * 5 < held.len() * 4 {
        return None;
    }
    let unforced = bursts.iter().skip(1).filter(|burst| burst.unforced).count();
    let (smallest, largest) =
        bursts.iter().fold((u32::MAX, 0), |(small, large), burst| (small.min(burst.size), large.max(burst.size)));
    let alike = bursts.len() >= least * 2 && smallest >= 3 && largest - smallest <= 1 && most_in_use <= smallest;
    if unforced + 1 < least && !alike {
        return None;
    }
    // Requests that come together by chance make small bursts of different sizes, and single ones between them.
    let chance = within < bursts.len() * SMALL && (smallest != largest || within < held.len());
    if chance {
        return None;
    }
    let apart = bursts.windows(2).map(|pair| pair[1].from.since(pair[0].until)).max().unwrap_or_default();
    let settled = context.now.since(bursts.last()?.until);
    if !is_open && settled < (apart * 2).max(context.config.window * SETTLED) {
        return None;
    }
    Some(Pools { bursts, unforced: u32::try_from(unforced).unwrap_or(u32::MAX), settled })
}

fn judge(context: &Context<'_>, id: ProcessId, index: usize, held: &[Held<'_>]) -> Option<Verdict> {
    let endpoint = context.tracker.endpoints().get(index)?;
    let process = context.tracker.processes().get(&id)?;
    let account = process.accounts.get(&index)?;
    let history = account.history.as_deref()?;
    let open = u32::try_from(held.len()).ok()?;
    if account.in_use_peak.saturating_mul(2) > open {
        return None;
    }
    let key = format!("{}@{} {}", id.pid, { id.start_ticks }, endpoint.id());
    let is_open = (context.before)(Kind::PoolSprawl, &key).is_some();
    if account.closed_total * if is_open { 2 } else { 4 } > u64::from(open) {
        return None;
    }
    let pools = pools(context, held, account.in_use_peak, is_open)?;
    let last = pools.bursts.last()?.until;
    let usage = Usage::since(last, history, account.open_u32());
    if (usage.looks < LOOKS && !is_open) || usage.mean * 4.0 > f64::from(open) {
        return None;
    }
    let mut who = Who::default();
    who.add(id, Some(process));
    let agrees = usage.used.saturating_mul(2) <= open;
    let later = u32::try_from(pools.bursts.len() - 1).unwrap_or(u32::MAX);
    let share = f64::from(pools.unforced) / f64::from(later.max(1));
    let confidence = 0.5 + if agrees { 0.2 } else { 0.0 } + 0.3 * share;
    let sizes = sizes(&pools.bursts);
    let (name, said) = (who.sentence(), pools.bursts.len());
    let news =
        format!("{name} holds {open} connections to {} opened in {said} bursts ({sizes})", endpoint.display_name());
    let most = account.in_use_peak;
    Some(Verdict {
        key,
        severity: Severity::Warning,
        confidence: confidence * context.completeness_factor(),
        subject: who.subject(endpoint.id()),
        summary: match most {
            0 => format!("{news}, none of them seen in use"),
            _ => format!("{news}, never more than {most} seen in use at once"),
        },
        news,
        evidence: vec![
            count("open", open, "connections"),
            count("bursts", said, "bursts"),
            list("burst_sizes", pools.bursts.iter().map(|burst| burst.size.to_string()).collect()),
            count("bursts_while_others_were_idle", pools.unforced, "bursts"),
            count("most_in_use", most, "connections"),
            count("most_used_between_looks", usage.used, "connections"),
            measure("mean_in_use", usage.mean, "connections"),
            count("looks", usage.looks, "looks"),
            count("since_last_burst", pools.settled.as_secs(), "s"),
            count("closed", account.closed_total, "connections"),
            text("process", name),
        ],
        ruled_out: ruled_out(&pools, open, account.closed_total),
        remedy: format!(
            "Make one client and share it in {}: one pool, as large as what is in use at once",
            process.label()
        ),
        verify: format!("ss -Htnp dst {} | grep -c pid={},", endpoint.id(), id.pid),
    })
}

/// `12 of 5`, or `20, 20, 25`.
fn sizes(bursts: &[Burst]) -> String {
    let first = bursts.first().map_or(0, |burst| burst.size);
    if bursts.iter().all(|burst| burst.size == first) {
        return format!("{} of {first}", bursts.len());
    }
    let named: Vec<String> = bursts.iter().take(SIZES_NAMED).map(|burst| burst.size.to_string()).collect();
    match bursts.len().saturating_sub(SIZES_NAMED) {
        0 => named.join(", "),
        more => format!("{}, ... {more} more", named.join(", ")),
    }
}

fn ruled_out(pools: &Pools, open: u32, closed: u64) -> Vec<String> {
    let later = pools.bursts.len() - 1;
    vec![
        match pools.unforced {
            0 => "one pool that grew with load: the bursts are all of one size, and no more was in use than one has"
                .to_owned(),
            unforced => format!(
                "one pool that grew with load: {unforced} of {later} later bursts came while an older connection was idle"
            ),
        },
        format!("a pool that replaces its members, or a reconnect: {closed} closed, {open} open"),
        format!("a leak in batches: none came for {}", spoken(pools.settled)),
    ]
}
