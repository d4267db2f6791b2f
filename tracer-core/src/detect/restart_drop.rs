//! `restart_drop`: the restart freed them, so the leak is in the application.
//!
//! Trigger: processes of one launcher group that held at least `held` connections at an endpoint ended within the last
//! hour (together, if several did within 30 windows); before that their low-water marks had climbed by more than use
//! explains, and most of what they held was not used; others of the group go on, and the group's count there has been
//! lower by `drop_percent` for four windows. Clears an hour after the end, or when the group holds nearly as many again.
//!
//! Confidence: 0.6, and up to 0.9 by how much of what was held had been added by the climb; times the completeness
//! factor.
//!
//! Look-alikes: a deploy of a pool that comes back to its size did not climb, and is back; a service that is switched
//! off, and a batch that ends, have no successor.

use std::collections::BTreeMap;
use std::time::Duration;

use super::staircase::{self, COURSES};
use super::{Carried, Context, DetectConfig, Detector, Threshold, Verdict, count, spoken, text};
use crate::event::Role;
use crate::finding::{Kind, Severity, Subject};
use crate::history::Step;
use crate::process::Process;
use crate::time::BootNs;

/// An end that is older says nothing any more; histories are kept as long.
const RECENT: Duration = Duration::from_secs(3_600);
/// Ends within so many windows are one restart.
const TOGETHER: u32 = 30;
/// The count must stay low for so many windows.
const STAYS: u32 = 4;
/// The group is back when it holds this percentage of what it held.
const BACK_PERCENT: u64 = 80;
/// Smallest climb that counts, in connections, and in percent of what was held.
const CLIMB: (f64, f64) = (6.0, 30.0);
/// Lengths of climbs that are tried, in steps.
const LENGTHS: [usize; 11] = [4, 5, 6, 8, 10, 12, 16, 20, 24, 36, 48];
/// Steps of an orderly end: connections close before the process is gone.
const CLOSING: usize = 3;

const HELD: Threshold = Threshold {
    key: "held",
    default: 10,
    bounds: (2, 100_000),
    meaning: "Fewest connections that a restart must have freed.",
};
const DROP_PERCENT: Threshold = Threshold {
    key: "drop_percent",
    default: 80,
    bounds: (10, 100),
    meaning: "By how many percent the group's count must have fallen.",
};

pub(super) struct RestartDrop;

/// Connections that a climbing group gave up when processes of it ended.
pub(super) struct Freed {
    /// How many.
    pub held: u32,
    /// When the last of these processes ended.
    pub at: BootNs,
    /// The biggest of them.
    pub pid: u32,
    /// All of them, ascending.
    pids: Vec<u32>,
    /// By how many it had climbed.
    climbed: f64,
    label: String,
}

impl Detector for RestartDrop {
    fn kind(&self) -> Kind {
        Kind::RestartDrop
    }

    fn thresholds(&self) -> &'static [Threshold] {
        const { &[HELD, DROP_PERCENT] }
    }

    fn clear_after(&self, config: &DetectConfig) -> Duration {
        config.window
    }

    fn detect(&self, context: &Context<'_>) -> Vec<Verdict> {
        let freed = freed_by_group(context);
        freed.iter().filter_map(|((group, endpoint), freed)| judge(context, group, *endpoint, freed)).collect()
    }

    fn may_hold(&self, context: &Context<'_>, carried: &Carried<'_>) -> bool {
        // Who ended is not known any more, the successors are.
        let group = carried.verdict.subject.launcher_group.as_deref().unwrap_or("");
        let open = carried.endpoint.map_or(0, |endpoint| Group::of(context, group, endpoint).open);
        let before = u64::try_from(carried.verdict.number("before")).unwrap_or(0);
        let recent = context.now.since(carried.first_seen) <= RECENT;
        recent && open > 0 && open * 100 <= before * BACK_PERCENT
    }

    fn resolved_summary(&self, context: &Context<'_>, last: &Verdict) -> String {
        let (who, endpoint, before) = (last.text("group"), last.text("endpoint"), last.number("before"));
        let group = last.subject.launcher_group.as_deref().unwrap_or("");
        let index = context
            .tracker
            .endpoints()
            .iter()
            .position(|endpoint| endpoint.role == Role::Client && Some(endpoint.id()) == last.subject.endpoint);
        let now = index.map_or(0, |index| Group::of(context, group, index).open);
        format!("{who} holds {now} connections to {endpoint} (was {before} before its restart)")
    }
}

/// What the living of a group hold at an endpoint.
struct Group {
    open: u64,
    /// Held by those that were there before.
    pids: Vec<u32>,
}

impl Group {
    fn of(context: &Context<'_>, group: &str, endpoint: usize) -> Self {
        let mut all = Self { open: 0, pids: Vec::new() };
        for process in context.tracker.processes().values().filter(|process| process.ended.is_none()) {
            let Some(account) = process.accounts.get(&endpoint).filter(|account| account.open() > 0) else { continue };
            if group_of(process) == Some(group) {
                all.open += account.open();
                all.pids.push(process.id.pid);
            }
        }
        all
    }
}

fn group_of(process: &Process) -> Option<&str> {
    process.identity.as_deref().map(|identity| identity.group.id.as_str())
}

/// Groups and endpoints where ended processes had climbed and held enough.
pub(super) fn freed_by_group(context: &Context<'_>) -> BTreeMap<(String, usize), Freed> {
    let held_most = u64::from(context.config.get(Kind::RestartDrop, &HELD));
    let mut ended = BTreeMap::<(&str, usize), Vec<(BootNs, &Process)>>::new();
    for process in context.tracker.processes().values() {
        let Some(at) = process.ended.filter(|at| context.now.since(*at) <= RECENT) else { continue };
        let Some(group) = group_of(process) else { continue };
        for (endpoint, account) in &process.accounts {
            if account.history.is_some() {
                ended.entry((group, *endpoint)).or_default().push((at, process));
            }
        }
    }
    let mut freed = BTreeMap::new();
    for ((group, endpoint), mut processes) in ended {
        let opened: u64 = processes.iter().map(|(_, process)| process.accounts[&endpoint].opened_total).sum();
        if opened < held_most {
            continue;
        }
        let last = processes.iter().map(|(at, _)| *at).max().unwrap_or(context.now);
        processes.retain(|(at, _)| last.since(*at) <= context.config.window * TOGETHER);
        if let Some(one) = climbed(context, endpoint, last, &processes) {
            freed.insert((group.to_owned(), endpoint), one);
        }
    }
    freed
}

/// What these processes held when they ended, if they had climbed and held enough.
fn climbed(context: &Context<'_>, endpoint: usize, at: BootNs, processes: &[(BootNs, &Process)]) -> Option<Freed> {
    let mut held = Vec::new();
    for (ended, process) in processes {
        held.push((held_at_end(context, endpoint, *ended, process), *ended, *process));
    }
    held.retain(|(held, ..)| *held > 0);
    let total = held.iter().map(|(held, ..)| *held).fold(0u32, u32::saturating_add);
    let (_, _, biggest) = held.iter().max_by_key(|(held, ended, process)| (*held, *ended, process.id))?;
    if total < context.config.get(Kind::RestartDrop, &HELD) {
        return None;
    }
    let enough = CLIMB.0.max(f64::from(total) * CLIMB.1 / 100.0);
    let climbed = (0..COURSES).find_map(|scale| {
        let course = together(scale, endpoint, total, &held);
        let used = course.iter().rev().take(CLOSING).map(|step| step.used).max()?;
        let climbs = |count: &usize| staircase::climb(&course, *count).map(|climb| climb.unused);
        LENGTHS.iter().filter_map(climbs).find(|unused| *unused >= enough && used * 2 <= total)
    })?;
    let mut pids: Vec<u32> = held.iter().map(|(_, _, process)| process.id.pid).collect();
    pids.sort_unstable();
    pids.dedup();
    Some(Freed { held: total, at, pid: biggest.id.pid, pids, climbed, label: biggest.label() })
}

/// The most that was open in the last few windows: an orderly end closes before the process is gone.
fn held_at_end(context: &Context<'_>, endpoint: usize, ended: BootNs, process: &Process) -> u32 {
    let account = &process.accounts[&endpoint];
    let at_end = u32::try_from(account.open_at_end).unwrap_or(u32::MAX);
    let Some(history) = account.history.as_deref() else { return at_end };
    let course = staircase::course(history, 0, ended.plus(context.config.window), 0);
    let highest = course.steps.iter().rev().take(CLOSING + 1).map(|step| step.high).max();
    at_end.max(highest.unwrap_or(0))
}

/// The course of all together up to their ends, without the steps in which they were closing.
fn together(scale: usize, endpoint: usize, total: u32, held: &[(u32, BootNs, &Process)]) -> Vec<Step> {
    let mut sum: Vec<Step> = Vec::new();
    for (held, ended, process) in held {
        let account = &process.accounts[&endpoint];
        let Some(history) = account.history.as_deref() else { continue };
        let mut steps = staircase::course(history, scale, *ended, *held).steps;
        steps.reverse();
        for (index, step) in steps.into_iter().enumerate() {
            match sum.get_mut(index) {
                Some(into) => {
                    into.low = into.low.saturating_add(step.low);
                    into.high = into.high.saturating_add(step.high);
                    into.used = into.used.saturating_add(step.used);
                }
                None => sum.push(step),
            }
        }
    }
    let closing = sum.iter().take(CLOSING).take_while(|step| u64::from(step.low) * 2 < u64::from(total)).count();
    sum.drain(..closing);
    sum.reverse();
    sum
}

fn judge(context: &Context<'_>, group: &str, index: usize, freed: &Freed) -> Option<Verdict> {
    let endpoint = context.tracker.endpoints().get(index)?;
    let key = format!("{group} {}", endpoint.id());
    let ago = context.now.since(freed.at);
    let rest = Group::of(context, group, index);
    let others = others_before(context, group, index, freed.at);
    let before = u64::from(freed.held) + others;
    let is_open = (context.before)(Kind::RestartDrop, &key).is_some();
    let drop = u64::from(context.config.get(Kind::RestartDrop, &DROP_PERCENT));
    let most = if is_open { BACK_PERCENT } else { 100u64.saturating_sub(drop) };
    let low = rest.open * 100 <= before * most;
    // What ends without a successor was switched off.
    if !low || rest.open == 0 || ago < context.config.window * STAYS {
        return None;
    }
    let (who, name) = (&freed.label, endpoint.display_name());
    let mut pids: Vec<u32> = freed.pids.iter().copied().take(1_000).collect();
    pids.sort_unstable();
    let added = (freed.climbed / f64::from(freed.held.max(1))).min(1.0);
    let summary = format!(
        "{who} held {before} connections to {name} before {} ended, and {} after that: the climb was its own",
        ended(&freed.pids),
        rest.open
    );
    Some(Verdict {
        severity: Severity::Info,
        confidence: (0.6 + 0.3 * added) * context.completeness_factor(),
        subject: Subject { endpoint: Some(endpoint.id()), pids, launcher_group: Some(group.to_owned()) },
        news: format!("{who} {}", freed.at.0),
        summary,
        evidence: vec![
            text("group", who.clone()),
            text("endpoint", name),
            count("before", before, "connections"),
            count("after", rest.open, "connections"),
            count("ended", freed.pids.len(), "processes"),
            count("ended_ago", ago.as_secs(), "s"),
            #[expect(clippy::cast_possible_truncation, reason = "a rounded count of connections fits")]
            count("climbed", freed.climbed.round() as i64, "connections"),
        ],
        ruled_out: vec![
            format!("a pool that comes back to its size: {} of {before} after {}", rest.open, spoken(ago)),
            format!("a flat pool: it had climbed by {:.0} that were not used", freed.climbed),
            format!("a service switched off: pid {} goes on", rest.pids.first().copied().unwrap_or(0)),
        ],
        remedy: format!("Look for the path in {who} that opens connections and keeps them; a restart only buys time"),
        verify: format!("ss -Htnp dst {} | wc -l", endpoint.id()),
        key,
    })
}

/// What others of the group that were there before the end hold.
fn others_before(context: &Context<'_>, group: &str, endpoint: usize, ended: BootNs) -> u64 {
    let older = |process: &&Process| process.ended.is_none() && process.id.start() < ended;
    let processes = context.tracker.processes().values().filter(older);
    let held = processes.filter_map(|process| {
        let account = process.accounts.get(&endpoint)?;
        let was_there = account.history.as_deref().is_some_and(|history| history.began() < ended);
        (was_there && group_of(process) == Some(group)).then_some(account.open())
    });
    held.sum()
}

fn ended(pids: &[u32]) -> String {
    match pids {
        [pid] => format!("pid {pid}"),
        pids => format!("{} processes of it (pids {}, ...)", pids.len(), pids.first().copied().unwrap_or(0)),
    }
}
