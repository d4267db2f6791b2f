//! `oversized_pool`: the pool is K times what is used.
//!
//! Trigger: for `after_s` (600, at a window of 10 s: it scales with the window) a process never had fewer than `connections`
//! (4) open at an endpoint, and `factor` (5) times the most that were used at once in all the history that is kept (24
//! hours at a window of 10 s). The most used is the upper bound: connections that moved a byte between two looks, a login not
//! counted, which takes [`LOOKS`] looks to say. A pool that was not used at all counts as one that used one. Processes of a
//! launcher group speak with one voice. Clears when the factor falls below three fifths, or the pool shrinks.
//!
//! Info; a warning when the group's instances hold half of the endpoint's known limit, or would exceed it if each grew to
//! the largest pool seen.
//!
//! Confidence: 0.6 for what was seen for `after_s`, growing to 0.95 with a whole kept history; times the completeness
//! factor.
//!
//! Look-alikes: a quiet spell shorter than `after_s`; a nightly batch within the kept history.

use std::collections::BTreeMap;
use std::time::Duration;

use super::survey::Held;
use super::usage::Usage;
use super::who::Who;
use super::{Context, DetectConfig, Detector, Threshold, Verdict, count, plural, spoken, text};
use crate::endpoint::Endpoint;
use crate::event::ProcessId;
use crate::finding::{Kind, Severity};
use crate::history::SCALES;
use crate::process::Account;
use crate::time::BootNs;

/// Fewest looks that tell what is used: a use is seen between two.
const LOOKS: u32 = 6;
/// The window that `after_s` is meant for.
const USUAL_WINDOW_S: u32 = 10;

const CONNECTIONS: Threshold = Threshold {
    key: "connections",
    default: 4,
    bounds: (2, 100_000),
    meaning: "Fewest open connections of a pool that is worth a word.",
};
const FACTOR: Threshold = Threshold {
    key: "factor",
    default: 5,
    bounds: (2, 1_000),
    meaning: "How many times what is used at once must be open.",
};
const AFTER: Threshold = Threshold {
    key: "after_s",
    default: 600,
    bounds: (60, 86_400),
    meaning: "How long that must have been so, at a window of 10 s; it scales with the window.",
};

pub(super) struct OversizedPool;

impl Detector for OversizedPool {
    fn kind(&self) -> Kind {
        Kind::OversizedPool
    }

    fn thresholds(&self) -> &'static [Threshold] {
        const { &[CONNECTIONS, FACTOR, AFTER] }
    }

    fn clear_after(&self, config: &DetectConfig) -> Duration {
        config.window
    }

    fn detect(&self, context: &Context<'_>) -> Vec<Verdict> {
        let mut pools = BTreeMap::<(String, usize), Pools>::new();
        for (id, endpoint, held) in context.survey.holders() {
            let Some(pool) = pool(context, id, endpoint, held) else { continue };
            let process = context.tracker.processes().get(&id);
            pools.entry((Who::key(id, process), endpoint)).or_default().add(id, process, &pool);
        }
        let mut instances = instances(context, &pools);
        pools
            .into_iter()
            .filter_map(|(of, pools)| {
                let all = instances.remove(&of).unwrap_or_default();
                judge(context, &of.0, context.tracker.endpoints().get(of.1)?, &pools, all)
            })
            .collect()
    }

    fn resolved_summary(&self, _: &Context<'_>, last: &Verdict) -> String {
        let (who, endpoint) = (last.text("who"), last.subject.endpoint.as_deref().unwrap_or(""));
        let (open, used) = (last.number("open"), last.number("most_used_at_once"));
        format!("{who} has no pool to {endpoint} that is far larger than what it uses (was {open}, {used} used)")
    }
}

/// One process' pool that is larger than what it uses.
struct Pool {
    open: u32,
    usage: Usage,
    /// Most used at once, as far as that is known.
    used: u32,
    seen: Duration,
}

/// Those of one launcher group.
#[derive(Default)]
struct Pools {
    who: Who,
    open: u32,
    low: u32,
    high: u32,
    in_use: u32,
    used: u32,
    seen: Duration,
}

impl Pools {
    fn add(&mut self, id: ProcessId, process: Option<&crate::process::Process>, pool: &Pool) {
        let is_first = self.who.members.is_empty();
        self.who.add(id, process);
        self.open += pool.open;
        self.low = if is_first { pool.usage.low } else { self.low.min(pool.usage.low) };
        self.high = self.high.max(pool.usage.high);
        self.in_use = self.in_use.max(pool.usage.in_use);
        self.used = self.used.max(pool.used);
        self.seen = if is_first { pool.seen } else { self.seen.min(pool.seen) };
    }
}

fn after(config: &DetectConfig) -> Duration {
    config.window * config.get(Kind::OversizedPool, &AFTER) / USUAL_WINDOW_S
}

fn account<'a>(context: &Context<'a>, id: ProcessId, endpoint: usize) -> Option<&'a Account> {
    context.tracker.processes().get(&id)?.accounts.get(&endpoint)
}

fn pool(context: &Context<'_>, id: ProcessId, index: usize, held: &[Held<'_>]) -> Option<Pool> {
    let set = |threshold| context.config.get(Kind::OversizedPool, threshold);
    let open = u32::try_from(held.len()).ok()?;
    let account = account(context, id, index)?;
    let history = account.history.as_deref()?;
    let (now, after) = (context.now, after(context.config));
    // The lower bound says no before the history is gone through: three fifths of the factor may be enough.
    let fits = |used: u32, factor: u32| open >= used.max(1).saturating_mul(factor);
    let let_go = (set(&FACTOR) * 3).div_ceil(5).max(2);
    if open < set(&CONNECTIONS) || now.since(history.began()) < after || !fits(account.in_use_peak, let_go) {
        return None;
    }
    let ever = Usage::since(BootNs(0), history, account.open_u32());
    let used = ever.used.max(account.in_use_peak);
    if ever.looks < LOOKS || !fits(used, let_go) {
        return None;
    }
    let key = key(&Who::key(id, context.tracker.processes().get(&id)), context.tracker.endpoints().get(index)?);
    let is_open = (context.before)(Kind::OversizedPool, &key).is_some();
    let factor = if is_open { let_go } else { set(&FACTOR) };
    let lately = Usage::since(now.minus(after), history, account.open_u32());
    let low = lately.low.min(open);
    let is_large = low >= set(&CONNECTIONS) && low >= used.max(1).saturating_mul(factor);
    let seen = now.since(history.began()).min(kept(context.config));
    is_large.then_some(Pool {
        open,
        usage: Usage { low, high: ever.high, in_use: account.in_use_peak, ..ever },
        used,
        seen,
    })
}

/// How long a history is kept.
fn kept(config: &DetectConfig) -> Duration {
    let (windows, steps) = SCALES[SCALES.len() - 1];
    config.window * windows * u32::try_from(steps).unwrap_or(u32::MAX)
}

fn key(group: &str, endpoint: &Endpoint) -> String {
    format!("{group} {}", endpoint.id())
}

/// Every instance of the groups that have a pool too large: how many, what they hold, and the largest pool seen.
fn instances(context: &Context<'_>, pools: &BTreeMap<(String, usize), Pools>) -> BTreeMap<(String, usize), Instances> {
    let mut all = BTreeMap::<(String, usize), Instances>::new();
    let limited = pools.keys().any(|(_, endpoint)| limit(context, *endpoint).is_some());
    if !limited {
        return all;
    }
    for (id, endpoint, held) in context.survey.holders() {
        let of = (Who::key(id, context.tracker.processes().get(&id)), endpoint);
        let Some(pools) = pools.get(&of) else { continue };
        let instances = all.entry(of).or_default();
        instances.count += 1;
        instances.open += u32::try_from(held.len()).unwrap_or(u32::MAX);
        instances.could = instances.could.saturating_add(pools.high);
    }
    all
}

#[derive(Clone, Copy, Default)]
struct Instances {
    count: u32,
    open: u32,
    /// If each grew to the largest pool.
    could: u32,
}

fn limit(context: &Context<'_>, endpoint: usize) -> Option<u32> {
    let limit = context.limit(context.tracker.endpoints().get(endpoint)?)?;
    Some(limit.value).filter(|limit| *limit > 0)
}

fn judge(
    context: &Context<'_>,
    group: &str,
    endpoint: &Endpoint,
    pools: &Pools,
    instances: Instances,
) -> Option<Verdict> {
    let limit = context.limit(endpoint).map(|limit| limit.value).filter(|limit| *limit > 0);
    let presses = limit.is_some_and(|limit| instances.open.saturating_mul(2) >= limit || instances.could > limit);
    let (who, name, seen) = (pools.who.sentence(), endpoint.display_name(), spoken(pools.seen));
    let members = u32::try_from(pools.who.members.len()).ok()?;
    let each = if members > 1 { " each" } else { "" };
    let keeps = if members > 1 { "keep" } else { "keeps" };
    let used = match pools.used {
        0 => format!("used none{each}"),
        used => format!("used at most {used}{each} at once"),
    };
    let mut news = format!("{who} {keeps} {} to {name} open and {used}", plural(pools.open, "connection"));
    if let Some(limit) = limit.filter(|_| presses) {
        let Instances { count, open, could } = instances;
        let all = if count > 1 { format!("{count} pools hold {open}") } else { format!("it holds {open}") };
        let more = if could > open { format!(" and could hold {could}") } else { String::new() };
        news.push_str(&format!("; {all}{more} of {limit}"));
    }
    #[expect(clippy::cast_precision_loss, reason = "seconds of a day")]
    let share = (pools.seen.as_secs() as f64 / kept(context.config).as_secs().max(1) as f64).min(1.0);
    let mut evidence = vec![
        count("open", pools.open, "connections"),
        count("fewest_open", pools.low, "connections of one process"),
        count("most_open", pools.high, "connections of one process"),
        count("most_used_at_once", pools.used, "connections of one process, at most"),
        count("most_in_use", pools.in_use, "connections of one process, at least"),
        count("seen_for", pools.seen.as_secs(), "s"),
        count("processes", members, "processes"),
        text("who", who),
    ];
    if let Some(limit) = limit {
        evidence.push(count("limit", limit, "connections"));
        evidence.push(count("instances_hold", instances.open, "connections"));
        evidence.push(count("instances_could_hold", instances.could, "connections"));
    }
    let sized = pools.used.saturating_mul(2).max(2);
    Some(Verdict {
        key: key(group, endpoint),
        severity: if presses { Severity::Warning } else { Severity::Info },
        confidence: (0.6 + 0.35 * share) * context.completeness_factor(),
        subject: pools.who.subject(endpoint.id()),
        summary: format!("{news}, seen for {seen}"),
        news,
        evidence,
        ruled_out: vec![
            format!("a short quiet spell: open and unused for {} and more", spoken(after(context.config))),
            format!("a batch now and then: no more were used in all of the last {seen}"),
        ],
        remedy: format!("Set the pool's maximum to about {sized} a process, and let it close what is idle"),
        verify: format!("ss -Htnpi dst {}   # lastsnd and lastrcv: when each was used last", endpoint.id()),
    })
}
