//! `duplicate_launchers`: N copies of L hold M connections to E.
//!
//! Trigger: at least `instances` (3) live processes of one launcher group hold connections to one endpoint, and they
//! were started at that many different moments (a tenth of a window apart). What is counted together is what somebody
//! started side by side without a plan that says so: [`Copy::job`] tells which processes are. Warning; critical while
//! together they hold 80 % of a known limit (until 75 %). As many in different containers, but not in one, are
//! replicas: info. Clears after a window below the trigger.
//!
//! Confidence: 0.95; 0.8 if the parents of a copy are unknown (a common master cannot be excluded); 0.9 of that if the
//! group rests on a program without a script; times the completeness factor.
//!
//! Look-alikes: workers of a prefork server or a cluster (their master runs the same program, or a manager of workers
//! started them), copies that one command started in one moment, instances of a systemd template unit, programs of
//! supervisord, people with an interactive client.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hashbrown::HashMap;

use super::copies::{self, Copy, Job, Member};
use super::{Carried, Context, DetectConfig, Detector, Holding, Threshold, Verdict, count, list, plural, spoken, text};
use crate::endpoint::Endpoint;
use crate::finding::{Evidence, Kind, Severity, Subject};
use crate::memory;

/// Percent of the limit from which copies together are critical.
const CRITICAL_PERCENT: u64 = 80;
/// Percent of the limit below which they are no longer.
const RELIEF_PERCENT: u64 = 75;
/// Pids spelled out in the summary.
const PIDS_NAMED: usize = 3;
/// Pids listed in the subject.
const PIDS_LISTED: usize = 1_000;
/// Copies described in the evidence.
const COPIES_LISTED: usize = 50;

const INSTANCES: Threshold = Threshold {
    key: "instances",
    default: 3,
    bounds: (2, 1_000),
    meaning: "How many copies of one launcher, each holding connections to one endpoint, are too many.",
};

pub(super) struct DuplicateLaunchers;

/// The copies of one launcher at one endpoint.
struct Found<'a> {
    endpoint: &'a Endpoint,
    /// By start, oldest first.
    copies: Vec<Copy<'a>>,
    /// They are in different containers.
    replicas: bool,
    /// Processes of the group that are workers or instances by plan.
    set_aside: usize,
}

impl Detector for DuplicateLaunchers {
    fn kind(&self) -> Kind {
        Kind::DuplicateLaunchers
    }

    fn thresholds(&self) -> &'static [Threshold] {
        const { &[INSTANCES] }
    }

    fn clear_after(&self, config: &DetectConfig) -> Duration {
        config.window
    }

    fn detect(&self, context: &Context<'_>) -> Vec<Verdict> {
        let least = usize::try_from(context.config.get(Kind::DuplicateLaunchers, &INSTANCES)).unwrap_or(usize::MAX);
        let mut groups: Vec<_> = members(context).into_iter().filter(|(_, members)| members.len() >= least).collect();
        groups.sort_unstable_by_key(|(key, _)| *key);
        let found = groups.iter().filter_map(|((endpoint, _), members)| {
            judge(context, context.tracker.endpoints().get(*endpoint)?, members, least)
        });
        found.map(|found| verdict(context, &found)).collect()
    }

    fn may_hold(&self, _: &Context<'_>, _: &Carried<'_>) -> bool {
        // One look, and /proc, tell all of it.
        false
    }

    fn resolved_summary(&self, context: &Context<'_>, last: &Verdict) -> String {
        let left = members(context).into_iter().find(|((endpoint, group), _)| {
            let id = context.tracker.endpoints().get(*endpoint).map(Endpoint::id);
            last.subject.launcher_group.as_deref() == Some(group) && last.subject.endpoint == id
        });
        let copies = left.map(|(_, members)| copies::copies(context.now, &members)).unwrap_or_default();
        let open = plural(copies::connections(&copies), "connection");
        let (label, was, was_open) = (last.text("launcher"), last.number("copies"), last.number("connections"));
        format!("{label} {}, {open} (was {was}, {was_open})", copies_of(copies.len()))
    }
}

/// Live processes by endpoint and launcher group, with what they hold.
fn members<'a>(context: &Context<'a>) -> HashMap<(usize, &'a str), Vec<Member<'a>>> {
    let mut all = HashMap::<(usize, &str), Vec<Member<'_>>>::new();
    for Holding { index: endpoint, process, held, .. } in context.living() {
        let Some(identity) = process.identity.as_deref() else { continue };
        all.entry((endpoint, &identity.group.id)).or_default().push((process, identity, endpoint, held));
    }
    all
}

fn judge<'a>(context: &Context<'_>, endpoint: &'a Endpoint, members: &[Member<'a>], least: usize) -> Option<Found<'a>> {
    let moment = context.config.window / 10;
    let all = copies::copies(context.now, members);
    if all.len() < least || all.iter().all(Copy::is_interactive) {
        return None;
    }
    let total = all.len();
    let mut jobs = BTreeMap::<(Option<&str>, Option<&str>), Vec<Copy<'_>>>::new();
    for copy in all {
        if let Job::Of { container, unit } = copy.job() {
            jobs.entry((container, unit)).or_default().push(copy);
        }
    }
    let order = |copies: &mut Vec<Copy<'_>>| copies.sort_unstable_by_key(|copy| (copy.started, copy.pid));
    jobs.values_mut().for_each(order);
    let many = |copies: &[Copy<'_>]| copies.len() >= least && copies::moments(copies, moment) >= least;
    let crowded = jobs.values().any(|copies| many(copies));
    let containers: BTreeSet<&str> = jobs.keys().filter_map(|(container, _)| *container).collect();
    if !crowded && containers.len() < least {
        return None;
    }
    jobs.retain(|(container, _), copies| if crowded { many(copies) } else { container.is_some() });
    let mut copies: Vec<Copy<'_>> = jobs.into_values().flatten().collect();
    order(&mut copies);
    let set_aside = total.saturating_sub(copies.len());
    Some(Found { endpoint, copies, replicas: !crowded, set_aside })
}

fn verdict(context: &Context<'_>, found: &Found<'_>) -> Verdict {
    let Found { endpoint, copies, replicas, .. } = found;
    let group = copies.first().map(|copy| &copy.identity.group);
    let (label, id) = group.map_or(("", ""), |group| (group.label.as_str(), group.id.as_str()));
    let key = format!("{id} {}", endpoint.id());
    let open = copies::connections(copies);
    let mut pids: Vec<u32> = copies.iter().map(|copy| copy.pid).collect();
    pids.sort_unstable();
    let was_critical = (context.before)(Kind::DuplicateLaunchers, &key) == Some(Severity::Critical);
    let percent = if was_critical { RELIEF_PERCENT } else { CRITICAL_PERCENT };
    let full = context.limit(endpoint).is_some_and(|limit| u64::from(open) * 100 >= u64::from(limit.value) * percent);
    let severity = match (replicas, full) {
        (true, _) => Severity::Info,
        (false, true) => Severity::Critical,
        (false, false) => Severity::Warning,
    };
    let name = endpoint.display_name();
    let total = if *replicas { plural_of(copies.len(), "replica") } else { copies_of(copies.len()) };
    let (first, last) = ages(context, copies);
    Verdict {
        severity,
        confidence: confidence(context, copies),
        subject: Subject {
            endpoint: Some(endpoint.id()),
            pids: pids.iter().copied().take(PIDS_LISTED).collect(),
            launcher_group: Some(id.to_owned()),
        },
        summary: format!(
            "{label} {total} ({}), started {} to {} ago, {} to {name}",
            pids_named(&pids),
            spoken(first),
            spoken(last),
            plural(open, "connection")
        ),
        news: format!("{label} {total} {open}"),
        evidence: evidence(context, found, label, open),
        ruled_out: ruled_out(context, found),
        remedy: remedy(label, *replicas),
        verify: format!("ps -o pid,ppid,lstart,args -p {}", comma(pids.iter().take(COPIES_LISTED))),
        key,
    }
}

/// How long ago the first and the last were started.
fn ages(context: &Context<'_>, copies: &[Copy<'_>]) -> (Duration, Duration) {
    let age = |copy: Option<&Copy<'_>>| copy.map_or(Duration::ZERO, |copy| context.now.since(copy.started));
    (age(copies.first()), age(copies.last()))
}

fn confidence(context: &Context<'_>, copies: &[Copy<'_>]) -> f64 {
    let parents_known = copies.iter().all(|copy| !copy.identity.ancestors.is_empty());
    let has_script = copies.iter().all(|copy| copy.identity.script.is_some());
    let base = if parents_known { 0.95 } else { 0.8 };
    base * if has_script { 1.0 } else { 0.9 } * context.completeness_factor()
}

fn evidence(context: &Context<'_>, found: &Found<'_>, label: &str, open: u32) -> Vec<Evidence> {
    let Found { endpoint, copies, .. } = found;
    let (first, last) = ages(context, copies);
    let peaks: u32 = copies.iter().fold(0, |sum, copy| sum.saturating_add(copy.most));
    let mut facts = vec![
        text("launcher", label),
        count("copies", copies.len(), "copies"),
        count("connections", open, "connections"),
        count("could_hold", peaks, "connections, if each opens as many as it has had at once"),
        count("idle", copies.iter().map(|copy| copy.idle).sum::<usize>(), "connections for a minute or more"),
        count("first_started", first.as_secs(), "s ago"),
        count("last_started", last.as_secs(), "s ago"),
        list("processes", copies.iter().take(COPIES_LISTED).map(|copy| copy.described(context.now)).collect()),
    ];
    if let Some(limit) = context.limit(endpoint) {
        facts.push(count("limit", limit.value, "connections"));
    }
    if let Some(each) = memory::per_connection(&endpoint.database)
        && let Some(held) = memory::held(&endpoint.database, open)
    {
        facts.push(count("estimated_server_memory", held.value, "bytes"));
        let (min, max) = (memory::spoken(held.min), memory::spoken(held.max));
        facts.push(text("estimated_server_memory_range", format!("{min} to {max}, confidence {}", each.confidence)));
    }
    facts
}

fn ruled_out(context: &Context<'_>, found: &Found<'_>) -> Vec<String> {
    let moments = copies::moments(&found.copies, context.config.window / 10);
    let mut all = vec![format!("copies that one command started in one moment: there are {moments} moments")];
    if found.copies.iter().all(|copy| !copy.identity.ancestors.is_empty()) {
        all.push("workers of one master: no parent runs the same program or is a known manager of workers".to_owned());
    }
    if !found.replicas {
        all.push("replicas: the copies are not each in a container or a unit of its own".to_owned());
    }
    if found.set_aside > 0 {
        all.push(format!("{} more of the same launcher: workers, or instances by plan", found.set_aside));
    }
    all
}

fn remedy(label: &str, replicas: bool) -> String {
    if replicas {
        return format!("Nothing, if {label} is meant to run this often: size its pools for all replicas together");
    }
    format!("Stop all copies of {label} but the newest, and let one unit of a service manager start it")
}

fn copies_of(copies: usize) -> String {
    if copies == 1 { "1 copy".to_owned() } else { format!("{copies} copies") }
}

fn plural_of(count: usize, noun: &str) -> String {
    plural(u32::try_from(count).unwrap_or(u32::MAX), noun)
}

fn comma<'a>(pids: impl Iterator<Item = &'a u32>) -> String {
    pids.map(u32::to_string).collect::<Vec<_>>().join(",")
}

fn pids_named(pids: &[u32]) -> String {
    let named: Vec<String> = pids.iter().take(PIDS_NAMED).map(u32::to_string).collect();
    match pids.len().saturating_sub(PIDS_NAMED) {
        0 => named.join(", "),
        more => format!("{}, ... {more} more", named.join(", ")),
    }
}
