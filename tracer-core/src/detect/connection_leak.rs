//! `connection_leak`: the staircase, a process' connections to an endpoint only pile up.
//!
//! Trigger: over at least `windows` whole steps, at any of four scales (the window, 6, 60 and 360 of them), the low-water
//! mark of what the process has open climbs, by more than use explains, and the connections behind the rise are
//! abandoned: used when they were new, idle since, passed over while others were opened. Some begin in each step, and
//! about as many in the newer half as in the older. The finest scale that is sure speaks. From eight steps on the marks
//! may rest and dip a little, so that a leak beneath a busy pool is found. While a process is young (it may be warming
//! up), while fewer are used again than are left, and while so many idle ones are no great chance by how long those rest
//! that have worked for long (threads that have a connection each use them at random), more are needed, nearly all opened
//! meanwhile, and left at once.
//!
//! Holds through a pause of the climb, as long as at least half of what was left idle is still open. Clears two windows
//! after that, or when the process ends.
//!
//! Confidence: 0.5 to 1 by the share of connections opened meanwhile that are abandoned, times n/(n+1) for n steps, times
//! the completeness factor; half way to 1 if an earlier process of the same launcher group climbed and its end freed what
//! it held.
//!
//! Critical if the endpoint has a limit that the climb reaches within an hour.
//!
//! Look-alikes: a warm-up flattens; members of a pool that grows with load were taken when the next was opened; a
//! sawtooth, and a pool that fills again after its database restarted, end where they were before; a bigger fixed pool
//! is one step; members that are replaced by age leave the count as it was; members that take turns are used again.
//! What looks the same until it ends: a warm-up of 18 or more at a steady pace whose members nobody uses, and the first
//! requests of a server with a connection for each of a hundred threads or more.

use std::collections::BTreeMap;
use std::time::Duration;

use super::abandoned::{Rule, Run, spread};
use super::restart_drop::{self, Freed};
use super::staircase::{self, COURSES, Climb, LONG};
use super::survey::Held;
use super::{Carried, Context, DetectConfig, Detector, Threshold, Verdict, count, plural, spoken, text};
use crate::endpoint::Endpoint;
use crate::event::{ProcessId, Role};
use crate::finding::{Evidence, EvidenceValue, Kind, Severity, Subject};
use crate::process::{Account, Process};
use crate::time::BootNs;

/// Fewest abandoned connections behind a short climb, and a long one.
const FEWEST: (u32, u32) = (12, 8);
/// The same while the process is young, or members that work rest as long or are few: more than threads make by chance. And at the
/// coarsest scale, where a server fills up in many hours only.
const FEWEST_IN_DOUBT: (u32, u32) = (18, 14);
/// What is less likely than e to the power of minus this is no chance. At a finer scale there are more chances in a day.
const IMPROBABLE: [f64; COURSES] = [13.0, 11.0, 9.0, 7.0];
/// Uses of other connections for each that is left: with fewer, its turn may only not have come. At
/// the finest scale one is enough: nobody waits a minute for a leak that is so fast.
const TURNS: u64 = 4;
/// Fewest left for a finding to stay open.
const FEWEST_HELD: u32 = 5;
/// Lengths of climbs that are tried, in steps, above `windows`.
const LENGTHS: [usize; 10] = [5, 6, 8, 10, 12, 16, 20, 24, 36, 48];
/// A limit that is reached within this is critical, and a little longer once it was.
const SOON: (Duration, Duration) = (Duration::from_secs(3_600), Duration::from_secs(4_500));
/// Most bytes each way of a login and one exchange.
const ONE_EXCHANGE: u64 = 16 << 10;

const WINDOWS: Threshold = Threshold {
    key: "windows",
    default: 4,
    bounds: (3, 30),
    meaning: "Over how many steps in a row, at some scale of time, the count must climb.",
};

pub(super) struct ConnectionLeak;

/// Under what key a finding about this process and endpoint is.
pub(super) fn key(id: ProcessId, endpoint: &Endpoint) -> String {
    format!("{}@{} {}", id.pid, { id.start_ticks }, endpoint.id())
}

/// One process at one endpoint.
struct Suspect<'a, 'b> {
    id: ProcessId,
    process: &'b Process,
    account: &'b Account,
    endpoint: &'b Endpoint,
    index: usize,
    held: &'b [Held<'a>],
}

/// What makes it sure.
struct Proof {
    scale: usize,
    steps: usize,
    climb: Climb,
    /// Of the connections opened meanwhile and still open, how many are abandoned, of how many.
    share: (u32, u32),
}

impl Detector for ConnectionLeak {
    fn kind(&self) -> Kind {
        Kind::ConnectionLeak
    }

    fn thresholds(&self) -> &'static [Threshold] {
        const { &[WINDOWS] }
    }

    fn clear_after(&self, config: &DetectConfig) -> Duration {
        config.window * 2
    }

    fn detect(&self, context: &Context<'_>) -> Vec<Verdict> {
        let mut freed = None;
        let mut verdicts = Vec::new();
        for (id, index, held) in context.survey.holders() {
            if held.len() < FEWEST_HELD as usize {
                continue;
            }
            let Some(process) = context.tracker.processes().get(&id) else { continue };
            let Some(account) = process.accounts.get(&index) else { continue };
            let Some(endpoint) = context.tracker.endpoints().get(index) else { continue };
            if endpoint.role != Role::Client || process.ended.is_some() {
                continue;
            }
            let suspect = Suspect { id, process, account, endpoint, index, held };
            if let Some((proof, run)) = judge(context, &suspect) {
                let freed = freed.get_or_insert_with(|| restart_drop::freed_by_group(context));
                verdicts.push(verdict(context, &suspect, proof.as_ref(), &run, freed));
            }
        }
        verdicts
    }

    fn may_hold(&self, context: &Context<'_>, carried: &Carried<'_>) -> bool {
        // As through a pause: half of what was left idle is open still, and nobody used it.
        carried.unused(context).saturating_mul(2) >= carried.verdict.number("idle").max(1)
    }

    fn resolved_summary(&self, context: &Context<'_>, last: &Verdict) -> String {
        let (who, endpoint) = (last.text("process"), last.text("endpoint"));
        let was = last.number("idle");
        let live = context.survey.holders().find_map(|(id, index, held)| {
            let endpoint = context.tracker.endpoints().get(index)?;
            (key(id, endpoint) == last.key).then_some(held.len())
        });
        match live {
            Some(open) => {
                format!("{who} has {open} connections to {endpoint} open, no longer climbing (was {was} idle)")
            }
            None => format!("{who} holds no connection to {endpoint} any more (was {was} idle)"),
        }
    }
}

/// Whether it leaks, and the connections it left; without a proof if an open finding holds through a pause.
fn judge<'a, 'b>(context: &Context<'_>, suspect: &Suspect<'a, 'b>) -> Option<(Option<Proof>, Run<'a, 'b>)> {
    let looked_at = context.tracker.looked_at();
    let windows = context.config.get(Kind::ConnectionLeak, &WINDOWS) as usize;
    let mut coarsest = None;
    for scale in 0..COURSES {
        let rule = Rule::new(staircase::step_of(context.config.window, scale), looked_at, suspect.held);
        let (steps, found) = spread(rule, suspect.held, windows.max(FEWEST.1 as usize));
        if steps < 2 || found < FEWEST_HELD as usize {
            continue;
        }
        if steps + 1 >= windows
            && found >= FEWEST.1 as usize
            && let Some(proof) = prove(context, suspect, scale, rule, windows)
        {
            return Some((Some(proof), Run::of(rule, suspect.held)));
        }
        coarsest = Some(rule);
    }
    let is_open = || (context.before)(Kind::ConnectionLeak, &key(suspect.id, suspect.endpoint)).is_some();
    if !is_open() {
        return None;
    }
    let rest = coarsest.map(|rule| Run::of(rule, suspect.held))?;
    (rest.len() >= FEWEST_HELD && !has_fallen(context, suspect)).then_some((None, rest))
}

fn prove(context: &Context<'_>, suspect: &Suspect<'_, '_>, scale: usize, rule: Rule, windows: usize) -> Option<Proof> {
    let history = suspect.account.history.as_deref()?;
    let course = staircase::course(history, scale, context.now, suspect.account.open_u32());
    let longest = course.steps.len();
    std::iter::once(windows).chain(LENGTHS).filter(|count| *count >= windows && *count <= longest).find_map(|steps| {
        let climb = staircase::climb(&course.steps, steps)?;
        let begin = course.end.minus(course.step.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX)));
        let births = Births::count(rule, suspect.held, begin, course.step, steps);
        // With a doubt it takes more, never less: most are told without one.
        if !births.are_steady(&climb, None) {
            return None;
        }
        let young = begin.since(history.began()) < course.end.since(begin);
        let expected = expected_idle(rule, suspect.held, begin, course.end);
        let by_chance = births.improbable(expected) < IMPROBABLE.get(scale).copied().unwrap_or(f64::MAX);
        // Where hardly anything is used again, each may wait for its turn.
        let turns = if scale == 0 { 1 } else { TURNS };
        let at_rest = staircase::reuses_since(history, begin) < turns * u64::from(births.left());
        let doubt = match (young || by_chance || at_rest, scale + 1 == COURSES) {
            (true, true) => Some(FEWEST_IN_DOUBT.1),
            (true, false) => Some(FEWEST_IN_DOUBT.0),
            (false, _) => None,
        };
        births.are_steady(&climb, doubt).then_some(Proof { scale, steps, climb, share: (births.left(), births.ripe) })
    })
}

/// How many of those that began in the span would lie idle by chance if they were used like those that have worked for
/// long: threads that have a connection each use them at random.
fn expected_idle(rule: Rule, held: &[Held<'_>], begin: BootNs, end: BootNs) -> f64 {
    let mut idle: Vec<Duration> =
        held.iter().filter(|held| rule.has_worked(held)).map(|held| rule.idle_for(held)).collect();
    idle.sort_unstable();
    let working = f64::from(u32::try_from(idle.len()).unwrap_or(u32::MAX)).max(1.0);
    let born = held.iter().filter(|held| (begin..end).contains(&held.began) && rule.is_ripe(held));
    let resting = born.map(|held| idle.len() - idle.partition_point(|idle| *idle < rule.age(held)));
    f64::from(u32::try_from(resting.sum::<usize>()).unwrap_or(u32::MAX)) / working
}

/// Abandoned connections by the step they began in.
struct Births {
    by_step: Vec<u32>,
    /// Old enough to be judged, of those that began in these steps.
    ripe: u32,
    /// Of those abandoned, the ones whose use was over at once.
    prompt: u32,
}

impl Births {
    fn count(rule: Rule, held: &[Held<'_>], begin: BootNs, step: Duration, steps: usize) -> Self {
        let mut births = Self { by_step: vec![0; steps], ripe: 0, prompt: 0 };
        let step_ns = u64::try_from(step.as_nanos()).unwrap_or(u64::MAX).max(1);
        let from = held.partition_point(|held| held.began < begin);
        for one in &held[from..] {
            let number = usize::try_from((one.began.0 - begin.0) / step_ns).unwrap_or(usize::MAX);
            let Some(count) = births.by_step.get_mut(number).filter(|_| rule.is_ripe(one)) else { continue };
            births.ripe += 1;
            let abandoned = rule.is_abandoned(one);
            *count += u32::from(abandoned);
            births.prompt += u32::from(abandoned && rule.was_prompt(one));
        }
        births
    }

    fn left(&self) -> u32 {
        self.by_step.iter().sum()
    }

    /// How improbable it is that so many are idle if `expected` are by chance: the exponent in Chernoff's bound on the tail
    /// of a binomial distribution.
    fn improbable(&self, expected: f64) -> f64 {
        let all = f64::from(self.ripe);
        let (is, chance) = (f64::from(self.left()) / all.max(1.0), (expected + 0.5) / (all + 1.0));
        if is <= chance {
            return 0.0;
        }
        let others = if is < 1.0 { (1.0 - is) * ((1.0 - is) / (1.0 - chance)).ln() } else { 0.0 };
        all * (is * (is / chance).ln() + others)
    }

    /// They explain the rise, some are of every step, and they do not become fewer.
    fn are_steady(&self, climb: &Climb, doubt: Option<u32>) -> bool {
        let (steps, left) = (self.by_step.len(), self.left());
        let long = steps >= LONG;
        let cautious = doubt.is_some() || !long;
        // Those of the last step are too young to be sure of.
        let judged = &self.by_step[..steps - 1];
        let covered = judged.iter().filter(|count| **count > 0).count();
        let everywhere = if long { covered * 3 >= judged.len() * 2 } else { covered == judged.len() };
        let half = judged.len() / 2;
        let (older, newer) = (&judged[..half], &judged[judged.len() - half..]);
        let (older, newer): (u32, u32) = (older.iter().sum(), newer.iter().sum());
        let flattening = u64::from(newer) * 20 < u64::from(older) * if cautious { 16 } else { 13 };
        let enough = left >= if long { FEWEST.1 } else { FEWEST.0 };
        // From mark to mark: half of the first step's and of the last's.
        let ends = self.by_step.first().unwrap_or(&0) + self.by_step.last().unwrap_or(&0);
        let between = f64::from(left) - f64::from(ends) / 2.0;
        let explained = between >= climb.unused * 0.5 && (long || climb.unused >= between * 0.6);
        let risen = climb.unused >= f64::from(FEWEST.1) * 0.75;
        let sure = doubt
            .is_none_or(|fewest| self.prompt >= fewest && u64::from(self.prompt) * 20 >= u64::from(self.ripe) * 17);
        everywhere && !flattening && enough && explained && risen && sure
    }
}

/// Whether more of what was idle at the top is gone than is left, whatever use explains taken off.
fn has_fallen(context: &Context<'_>, suspect: &Suspect<'_, '_>) -> bool {
    let Some(history) = suspect.account.history.as_deref() else { return true };
    let open = suspect.account.open_u32();
    let course = staircase::course(history, 1, context.now, open);
    let fine = staircase::course(history, 0, context.now, open);
    let steps = || course.steps.iter().chain(&fine.steps);
    let top = steps().map(|step| step.low).max().unwrap_or(0);
    let used = steps().map(|step| step.used).max().unwrap_or(0);
    let used_now = fine.steps.iter().rev().take(3).map(|step| step.used).max().unwrap_or(used);
    let gone = top.saturating_sub(open).saturating_sub(used.saturating_sub(used_now));
    let looked_at = context.tracker.looked_at();
    let lies = |held: &&Held<'_>| {
        let idle = looked_at.since(held.idle_since());
        !held.in_use && idle * 2 >= looked_at.since(held.began)
    };
    gone as usize > suspect.held.iter().filter(lies).count()
}

fn verdict(
    context: &Context<'_>,
    suspect: &Suspect<'_, '_>,
    proof: Option<&Proof>,
    run: &Run<'_, '_>,
    freed: &BTreeMap<(String, usize), Freed>,
) -> Verdict {
    let label = suspect.process.label();
    let who = format!("{label} (pid {})", suspect.id.pid);
    let name = suspect.endpoint.display_name();
    let open = u32::try_from(suspect.held.len()).unwrap_or(u32::MAX);
    let idle = run.len();
    let since = context.now.since(run.since().unwrap_or(context.now));
    let rate = run.rate(context.now);
    let group = suspect.process.identity.as_ref().map(|identity| identity.group.id.clone());
    let freed = group.as_ref().and_then(|group| freed.get(&(group.clone(), suspect.index)));
    let (steps, share) =
        proof.map_or((LONG, 1.0), |proof| (proof.steps, f64::from(proof.share.0) / f64::from(proof.share.1.max(1))));
    let steps = f64::from(u32::try_from(steps).unwrap_or(u32::MAX));
    let mut confidence = (0.5 + 0.5 * share) * steps / (steps + 1.0);
    if freed.is_some() {
        confidence += (1.0 - confidence) / 2.0;
    }
    let key = key(suspect.id, suspect.endpoint);
    let full_in = full_in(context, suspect.endpoint, rate);
    let was_critical = (context.before)(Kind::ConnectionLeak, &key) == Some(Severity::Critical);
    let soon = if was_critical { SOON.1 } else { SOON.0 };
    let pause = if proof.is_some() { "" } else { ", none lately" };
    let left = format!("leaves connections to {name} open: {idle} of {open} idle since soon after they began");
    Verdict {
        severity: if full_in.is_some_and(|time| time <= soon) { Severity::Critical } else { Severity::Warning },
        confidence: confidence * context.completeness_factor(),
        subject: Subject { endpoint: Some(suspect.endpoint.id()), pids: vec![suspect.id.pid], launcher_group: group },
        summary: format!(
            "{who} {left}, from {} to {open} in {}, {}{pause}",
            open.saturating_sub(idle),
            spoken(since),
            per_time(rate)
        ),
        news: format!("{who} {}", coarse(idle)),
        evidence: evidence(context, suspect, proof, run, (&who, freed)),
        ruled_out: ruled_out(proof, rate),
        remedy: format!("Close or return each connection in {label} on every path, errors included, or use its pool"),
        verify: format!("ss -Htnp dst {} | grep -c pid={},", suspect.endpoint.id(), suspect.id.pid),
        key,
    }
}

/// When the endpoint is full at this rate, if it has a limit.
fn full_in(context: &Context<'_>, endpoint: &Endpoint, rate: f64) -> Option<Duration> {
    let left = context.limit(endpoint)?.value.saturating_sub(endpoint.open);
    let seconds = f64::from(left) / rate;
    (seconds < 1e9).then(|| Duration::from_secs_f64(seconds))
}

fn evidence(
    context: &Context<'_>,
    suspect: &Suspect<'_, '_>,
    proof: Option<&Proof>,
    run: &Run<'_, '_>,
    (who, freed): (&str, Option<&Freed>),
) -> Vec<Evidence> {
    let open = u32::try_from(suspect.held.len()).unwrap_or(u32::MAX);
    let mut all = vec![
        text("process", who),
        text("endpoint", suspect.endpoint.display_name()),
        count("open", open, "connections"),
        count("idle", run.len(), "connections"),
        count("since", context.now.since(run.since().unwrap_or(context.now)).as_secs(), "s ago"),
        Evidence {
            fact: "rate".to_owned(),
            value: EvidenceValue::Number((run.rate(context.now) * 36_000.0).round() / 10.0),
            unit: "connections/h".to_owned(),
        },
        count("step", run.step.as_secs(), "s"),
    ];
    if let Some(proof) = proof {
        all.push(count("steps", proof.steps, "that climb"));
        all.push(text("low_water_mark", format!("{} to {}", proof.climb.from, proof.climb.to)));
        all.push(text("abandoned_share", format!("{} of {} opened meanwhile", proof.share.0, proof.share.1)));
    }
    if let Some((sent, received)) = run.bytes() {
        let one = sent.1 <= ONE_EXCHANGE && received.1 <= ONE_EXCHANGE && sent.0 > 0 && received.0 > 0;
        let meaning = if one { ", about a login and one exchange" } else { "" };
        let range = |(low, high): (u64, u64)| if low == high { low.to_string() } else { format!("{low} to {high}") };
        all.push(text("bytes_each", format!("{} sent, {} received{meaning}", range(sent), range(received))));
    }
    if let Some(freed) = freed {
        let (held, ago) = (freed.held, spoken(context.now.since(freed.at)));
        all.push(text("restart_freed", format!("{held} connections {ago} ago, when pid {} ended", freed.pid)));
    }
    all
}

fn ruled_out(proof: Option<&Proof>, rate: f64) -> Vec<String> {
    let Some(proof) = proof else {
        return vec!["use after a pause: those that were left are still open and idle".to_owned()];
    };
    let (left, ripe) = proof.share;
    let scale = ["the smallest scale", "6 windows", "60 windows", "360 windows"].get(proof.scale).unwrap_or(&"");
    vec![
        format!(
            "a warm-up that flattens: it climbed through {} steps of {scale}, {} to the end",
            proof.steps,
            per_time(rate)
        ),
        format!("growth with load: {left} of {ripe} opened meanwhile lay idle while others were opened"),
        format!(
            "a sawtooth, or filling up again: the low-water mark went from {} to {}, above where it had been",
            proof.climb.from, proof.climb.to
        ),
    ]
}

/// `+30/min`, `+2/h`, `+0.5/h`.
pub(super) fn per_time(per_second: f64) -> String {
    let (per_min, per_hour) = (per_second * 60.0, per_second * 3_600.0);
    if per_min >= 1.0 {
        format!("+{per_min:.0}/min")
    } else if per_hour >= 1.0 {
        format!("+{per_hour:.0}/h")
    } else {
        format!("+{per_hour:.1}/h")
    }
}

/// The number as exact as news of it is wanted: to the next lower of about a dozen in each power of ten.
fn coarse(number: u32) -> String {
    let unit = 10u32.pow(number.max(1).ilog10()).max(10) / 10;
    let unit = if number >= 10 { unit * 5 } else { unit };
    plural(number / unit * unit, "connection")
}
