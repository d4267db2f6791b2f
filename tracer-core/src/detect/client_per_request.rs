//! `client_per_request`: a client, and so a connection, per request.
//!
//! Trigger, one of two, for the processes of a launcher group together (a script that runs once a request is one):
//!
//! - churn: in each of the last `windows` (3) windows at least `opens` (20) connections to one endpoint were opened, in
//!   none less than half of what there was in another; at least half as many closed, and nine tenths of these carried one
//!   short exchange (see [`Life::is_brief`]);
//! - a pile: in each of twice as many windows as many were opened, hardly any closed, and nine tenths of those that were
//!   there for a window said all they had to say within [`Life::BRIEF`] of their beginning, about as much as one another,
//!   and nothing since. A MongoDB client brings two or three connections that watch the server and are never quiet:
//!   there one quarter is enough.
//!
//! Once open, half of `opens` keeps it so. Clears after `windows` windows without. A process that ended without a history
//! (there is room for some thousands) and lived shorter than a window counts as churn when it ended.
//!
//! Severity: a warning; info below one a second, and for pgbouncer, which is there to take such clients.
//!
//! Confidence: for churn 0.9 of the part of the closed ones that were brief; for a pile 0.6 of the part that was never used
//! again. If the same processes accept connections on ports of their own about as often as they open some to the endpoint
//! (within a factor of two; a MongoDB client opens up to three), each opening follows a request, and up to three quarters
//! of what is left of the doubt are gone. Accepts are a lower bound of requests, because a connection that is kept alive
//! carries many: without any the verdict says so, and its confidence stays what it is. All times the completeness factor.
//!
//! Look-alikes: a short batch and cron clients are over before `windows` windows are; health checks are fewer than
//! `opens`; members of a pool that are replaced by age, and a warm-up, live longer than one exchange; a pool that is full
//! and opens more for a while, and closes these as soon as they are returned (see [`is_overflow`]). `pgbench -C` and loops
//! of `psql` are churn and are named.

use std::collections::BTreeMap;
use std::time::Duration;

use super::requests::{ByWindow, Requests, per_second, rate};
use super::survey::Held;
use super::usage::measure;
use super::who::Who;
use super::{Context, DetectConfig, Detector, Threshold, Verdict, count, plural, spoken, text};
use crate::endpoint::Endpoint;
use crate::event::Role;
use crate::finding::{Evidence, Kind, Severity};
use crate::history::{Brief, FLOWS_KEPT, Life};
use crate::process::{Account, Process};
use crate::time::BootNs;

/// Most windows that are asked about.
const MOST_WINDOWS: usize = FLOWS_KEPT;
/// Connections of a process whose bytes are compared.
const COMPARED: usize = 256;

/// Most connections that a MongoDB client opens: one for requests, and two that watch the server.
const MONGODB_OPENS: u32 = 3;
/// Confidence of a churn, and of a pile, of which every connection carries one exchange, without a look at requests.
const MOST_FOR_CHURN: f64 = 0.9;
const MOST_FOR_PILE: f64 = 0.6;

/// Long-lived connections that can be a pool.
const LEAST_POOL: u32 = 2;
/// Times its size that a pool opens above it: a pool of 5 with an overflow of 10 is usual.
const MOST_OVERFLOW: f64 = 4.0;

const OPENS: Threshold = Threshold {
    key: "opens",
    default: 20,
    bounds: (2, 100_000),
    meaning: "Connections that must be opened in each window.",
};
const WINDOWS: Threshold =
    Threshold { key: "windows", default: 3, bounds: (2, 10), meaning: "Windows in a row with so many." };

pub(super) struct ClientPerRequest;

impl Detector for ClientPerRequest {
    fn kind(&self) -> Kind {
        Kind::ClientPerRequest
    }

    fn thresholds(&self) -> &'static [Threshold] {
        const { &[OPENS, WINDOWS] }
    }

    fn clear_after(&self, config: &DetectConfig) -> Duration {
        config.window * config.get(Kind::ClientPerRequest, &WINDOWS)
    }

    fn detect(&self, context: &Context<'_>) -> Vec<Verdict> {
        flows(context).iter().filter_map(|((key, endpoint), flow)| judge(context, key, *endpoint, flow)).collect()
    }

    fn resolved_summary(&self, _: &Context<'_>, last: &Verdict) -> String {
        let (who, endpoint) = (last.text("who"), last.subject.endpoint.as_deref().unwrap_or(""));
        format!("{who} no longer opens a connection to {endpoint} for each request (was {})", last.text("was"))
    }
}

/// What came and went between a group and an endpoint.
#[derive(Clone, Default)]
struct Flow {
    who: Who,
    /// By how many windows ago.
    opened: ByWindow,
    closed: ByWindow,
    brief: ByWindow,
    accepted: ByWindow,
    /// Nobody counts what one of the processes accepts.
    uncounted: bool,
    /// Brief lives whose time and bytes are known.
    lives: Brief,
    open: u64,
    /// Looks in that time, and what was in use at these, added up.
    looks: u32,
    in_use_sum: u32,
}

impl Flow {
    fn add(&mut self, other: &Self) {
        let each = |mine: &mut ByWindow, theirs: &ByWindow| {
            mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| *mine = mine.saturating_add(*theirs));
        };
        each(&mut self.opened, &other.opened);
        each(&mut self.closed, &other.closed);
        each(&mut self.brief, &other.brief);
        each(&mut self.accepted, &other.accepted);
        self.uncounted |= other.uncounted;
        self.lives.add(&other.lives);
        self.open += other.open;
        // Each process is looked at as often as the others: the mean is of one look at all of them.
        self.looks = self.looks.max(other.looks);
        self.in_use_sum = self.in_use_sum.saturating_add(other.in_use_sum);
    }

    /// Of an account in the last `windows` windows; nothing if nothing was opened.
    fn of(process: &Process, account: &Account, now: BootNs, window: Duration, windows: usize) -> Option<Self> {
        let mut flow = Self { open: account.open(), ..Self::default() };
        match (account.history.as_deref(), process.ended) {
            (Some(history), _) => {
                for (ago, step) in history.flows(now, windows) {
                    flow.opened[ago] = step.opened;
                    flow.closed[ago] = step.closed;
                    flow.looks = flow.looks.saturating_add(step.looks);
                    flow.in_use_sum = flow.in_use_sum.saturating_add(step.in_use_sum);
                }
                for (ago, brief) in history.briefs(now, windows) {
                    flow.brief[ago] = brief.lives();
                    flow.lives.add(&brief);
                }
            }
            (None, Some(ended)) => {
                let window_ns = u64::try_from(window.as_nanos()).ok()?.max(1);
                let ago = usize::try_from((now.0 / window_ns).checked_sub(ended.0 / window_ns + 1)?).ok()?;
                let lived = ended.since(process.id.start());
                if lived > window || ago >= windows {
                    return None;
                }
                let number = |total: u64| u32::try_from(total).unwrap_or(u32::MAX);
                flow.opened[ago] = number(account.opened_total);
                flow.closed[ago] = number(account.closed_total);
                flow.brief[ago] = if lived <= Life::BRIEF { flow.closed[ago] } else { 0 };
            }
            (None, None) => return None,
        }
        for (ago, accepted) in process.inbound.iter().flat_map(|inbound| inbound.flows(now, windows)) {
            flow.accepted[ago] = accepted;
        }
        flow.opened.iter().any(|opened| *opened > 0).then_some(flow)
    }
}

fn windows(context: &Context<'_>) -> usize {
    (context.config.get(Kind::ClientPerRequest, &WINDOWS) as usize).min(MOST_WINDOWS / 2)
}

/// What each group opened lately, those that have ended included.
fn flows(context: &Context<'_>) -> BTreeMap<(String, usize), Flow> {
    let (now, window, windows) = (context.now, context.config.window, windows(context) * 2);
    let oldest = now.minus(window * u32::try_from(windows + 1).unwrap_or(u32::MAX));
    let mut found = BTreeMap::<(String, usize), Flow>::new();
    for process in context.tracker.processes().values() {
        if process.ended.is_some_and(|ended| ended < oldest) {
            continue;
        }
        for (endpoint, account) in &process.accounts {
            let is_client = context.tracker.endpoints().get(*endpoint).is_some_and(|of| of.role == Role::Client);
            let flow = if is_client { Flow::of(process, account, now, window, windows) } else { None };
            if let Some(mut flow) = flow {
                flow.uncounted = context.tracker.accepts(process).is_none();
                let all = found.entry((Who::key(process.id, Some(process)), *endpoint)).or_default();
                all.add(&flow);
                all.who.add(process.id, Some(process));
            }
        }
    }
    found
}

/// What of a flow makes it a verdict.
enum Shape {
    Churn { opened: u32, closed: u32, brief: u32, windows: usize },
    Pile { opened: u32, closed: u32, judged: u32, done: u32, bytes: u64, windows: usize },
}

impl Shape {
    fn opened(&self) -> (u32, usize) {
        match *self {
            Self::Churn { opened, windows, .. } | Self::Pile { opened, windows, .. } => (opened, windows),
        }
    }

    fn closed(&self) -> u32 {
        match *self {
            Self::Churn { closed, .. } | Self::Pile { closed, .. } => closed,
        }
    }
}

fn judge(context: &Context<'_>, group: &str, index: usize, flow: &Flow) -> Option<Verdict> {
    let endpoint = context.tracker.endpoints().get(index)?;
    let key = format!("{group} {}", endpoint.id());
    let is_open = (context.before)(Kind::ClientPerRequest, &key).is_some();
    let opens = context.config.get(Kind::ClientPerRequest, &OPENS);
    let least = if is_open { opens.div_ceil(2) } else { opens };
    let windows = windows(context);
    let sustained = |windows: usize| is_sustained(&flow.opened[..windows], least, is_open);
    let churn = if sustained(windows) { churn(flow, windows) } else { None };
    if churn.is_some() && is_overflow(context, index, flow, windows) {
        return None;
    }
    let piles = churn.is_none() && sustained(windows * 2);
    let pile = if piles { pile(context, endpoint, index, flow, (least, windows * 2)) } else { None };
    let shape = churn.or(pile)?;
    Some(verdict(context, key, endpoint, flow, &shape))
}

/// Each window has so many, and none less than half of another's: what begins and ends within the first and the last of
/// them did not last that long.
fn is_sustained(opened: &[u32], least: u32, is_open: bool) -> bool {
    let (low, high) = opened.iter().fold((u32::MAX, 0), |(low, high), opened| (low.min(*opened), high.max(*opened)));
    low >= least && (is_open || low.saturating_mul(2) >= high)
}

fn churn(flow: &Flow, windows: usize) -> Option<Shape> {
    let sum = |of: &[u32]| of.iter().take(windows).fold(0, |sum: u32, one| sum.saturating_add(*one));
    let (opened, closed, brief) = (sum(&flow.opened), sum(&flow.closed), sum(&flow.brief));
    let is_churn = closed.saturating_mul(2) >= opened && u64::from(brief) * 10 >= u64::from(closed) * 9;
    is_churn.then_some(Shape::Churn { opened, closed, brief, windows })
}

/// Whether what is opened and closed is the overflow of a pool: beside it the same processes hold others that live long,
/// nearly all used in the last window, and no idle one was left to take. Half of these were busy just before the last
/// look, for as long back as the brief ones live, or on average at the looks, and no more than [`MOST_OVERFLOW`] times as
/// many brief ones are open at once. A pool that rests beside a client per request is not busy.
#[expect(clippy::cast_precision_loss, reason = "numbers of connections, and milliseconds of some minutes")]
fn is_overflow(context: &Context<'_>, index: usize, flow: &Flow, windows: usize) -> bool {
    let (window, looked) = (context.config.window, context.tracker.looked_at());
    let long = window * u32::try_from(windows.saturating_sub(1)).unwrap_or(u32::MAX);
    let life = Duration::from_millis(flow.lives.total_ms() / u64::from(flow.lives.lives().max(1)));
    let busy_after = looked.minus((life * 2).max(window / 20));
    let (mut residents, mut used, mut busy) = (0u32, 0u32, 0u32);
    for held in flow.who.members.iter().flat_map(|id| context.survey.held(*id, index)) {
        if context.now.since(held.began) < long {
            continue;
        }
        residents += 1;
        used += u32::from(held.in_use || held.idle_since() >= looked.minus(window));
        busy += u32::from(held.in_use || held.idle_since() >= busy_after);
    }
    if residents < LEAST_POOL || used * 5 < residents * 4 {
        return false;
    }
    // As many at once as come in a second, times how long each stays; over the windows that were added up.
    let added_up = flow.opened.iter().filter(|opened| **opened > 0).count();
    let at_once = flow.lives.total_ms() as f64 / 1_000.0 / (window.as_secs_f64() * added_up.max(1) as f64);
    let pooled = f64::from(flow.in_use_sum) / f64::from(flow.looks.max(1)) - at_once;
    let is_busy = busy * 2 >= residents || pooled * 2.0 >= f64::from(residents);
    is_busy && at_once <= MOST_OVERFLOW * f64::from(residents)
}

fn pile(
    context: &Context<'_>,
    endpoint: &Endpoint,
    index: usize,
    flow: &Flow,
    (least, windows): (u32, usize),
) -> Option<Shape> {
    let sum = |of: &[u32]| of.iter().take(windows).fold(0, |sum: u32, one| sum.saturating_add(*one));
    let (opened, closed) = (sum(&flow.opened), sum(&flow.closed));
    if closed.saturating_mul(10) > opened {
        return None;
    }
    let settled = context.tracker.looked_at().minus(context.config.window);
    let (mut judged, mut done, mut sent, mut both) = (0u32, 0u32, Vec::new(), Vec::new());
    for held in flow.who.members.iter().flat_map(|id| context.survey.held(*id, index)) {
        if !held.began_seen || held.began > settled || held.last_active.is_none() {
            continue;
        }
        judged += 1;
        if is_done(held) {
            done += 1;
            if let Some(counters) = held.socket.counters.filter(|_| sent.len() < COMPARED) {
                sent.push(counters.bytes_sent);
                both.push(counters.bytes_sent.saturating_add(counters.bytes_received));
            }
        }
    }
    let enough = if endpoint.database == "mongodb" { done * 4 >= judged } else { done * 10 >= judged * 9 };
    let many = u64::from(done) >= u64::from(least) * 2;
    both.sort_unstable();
    let bytes = both.get(both.len() / 2).copied().unwrap_or(0);
    (many && enough && are_alike(sent)).then_some(Shape::Pile { opened, closed, judged, done, bytes, windows })
}

/// All that was said on it was said at its beginning.
fn is_done(held: &Held<'_>) -> bool {
    !held.in_use && held.idle_since().since(held.began) <= Life::BRIEF
}

/// Four fifths are within twice and half of the middle one.
fn are_alike(mut sent: Vec<u64>) -> bool {
    sent.sort_unstable();
    let Some(middle) = sent.get(sent.len() / 2).copied().filter(|middle| *middle <= Life::BRIEF_BYTES) else {
        return false;
    };
    let near = sent.iter().filter(|sent| (middle / 2..=middle.saturating_mul(2)).contains(*sent)).count();
    near * 5 >= sent.len() * 4
}

/// `40 ms`, `1.2 s`.
fn lifetime(ms: u64) -> String {
    let duration = Duration::from_millis(ms);
    match ms {
        0 => "under 1 ms".to_owned(),
        1..1_000 => format!("{ms} ms"),
        _ => format!("{:.1} s", duration.as_secs_f64()),
    }
}

fn verdict(context: &Context<'_>, key: String, endpoint: &Endpoint, flow: &Flow, shape: &Shape) -> Verdict {
    let who = flow.who.sentence();
    let ((opened, windows), closed) = (shape.opened(), shape.closed());
    let rate = rate(opened, context.config.window, windows);
    let per_client = if endpoint.database == "mongodb" { MONGODB_OPENS } else { 1 };
    let requests =
        if flow.uncounted { None } else { Requests::of(context, (&flow.opened, &flow.accepted), windows, per_client) };
    let mut evidence = vec![
        measure("opens", rate, "connections/s"),
        count("opened", opened, "connections"),
        count("closed", closed, "connections"),
        count("within", context.config.window.as_secs() * u64::try_from(windows).unwrap_or(0), "s"),
        count("open", flow.open, "connections"),
    ];
    if let Some(requests) = requests {
        evidence.push(measure("requests", requests.rate(context), "accepted connections/s"));
    }
    let against = requests.map_or_else(String::new, |requests| requests.said(context));
    let rates = format!("{} opens/s{against}", per_second(rate));
    let is_matched = requests.is_some_and(|requests| requests.closeness().is_some());
    let (summary, confidence) = sentence(endpoint, flow, shape, (&rates, is_matched), &mut evidence);
    evidence.push(text("who", who));
    evidence.push(text("was", format!("{}/s", per_second(rate))));
    let is_small = rate < 1.0 || endpoint.database == "pgbouncer";
    Verdict {
        key,
        severity: if is_small { Severity::Info } else { Severity::Warning },
        confidence: requests.map_or(confidence, |requests| requests.confirm(confidence))
            * context.completeness_factor(),
        subject: flow.who.subject(endpoint.id()),
        news: format!("{} {}", flow.who.label, endpoint.display_name()),
        summary,
        evidence,
        ruled_out: ruled_out(context, shape, requests.filter(|_| is_matched)),
        remedy: format!(
            "Make one client when {} starts, share it among requests, and close it at the end; a program that runs once a \
             request needs a pooler",
            flow.who.label
        ),
        verify: endpoint
            .place
            .map_or_else(String::new, |place| format!("ss -Htan state time-wait state established dst {}", place.addr)),
    }
}

/// The summary and what it is worth without a look at requests; the facts behind it go into the evidence.
fn sentence(
    endpoint: &Endpoint,
    flow: &Flow,
    shape: &Shape,
    (rates, is_matched): (&str, bool),
    evidence: &mut Vec<Evidence>,
) -> (String, f64) {
    let (who, name, open) = (flow.who.sentence(), endpoint.display_name(), flow.open);
    let opens = if flow.who.members.len() > 1 { "open" } else { "opens" };
    match *shape {
        Shape::Churn { closed, brief, .. } => {
            evidence.push(count("brief", brief, "connections"));
            let mut text = format!("{who} {opens} a connection to {name} for each request: {rates}, {open} still open");
            if let Some(ms) = flow.lives.median_ms() {
                let bytes = flow.lives.bytes / u64::from(flow.lives.lives().max(1));
                evidence.push(count("median_lifetime", ms, "ms"));
                evidence.push(count("mean_bytes", bytes, "bytes"));
                text.push_str(&format!(", median lifetime {}, about {bytes} bytes each", lifetime(ms)));
            }
            (text, MOST_FOR_CHURN * f64::from(brief) / f64::from(closed.max(1)))
        }
        Shape::Pile { judged, done, bytes, .. } => {
            evidence.push(count("never_used_again", done, "connections"));
            evidence.push(count("judged", judged, "connections"));
            evidence.push(count("median_bytes", bytes, "bytes"));
            let what = if is_matched {
                format!("a connection to {name} for each request and keeps it")
            } else {
                format!("connections to {name} for one exchange and keeps them")
            };
            let share = f64::from(done) / f64::from(judged.max(1));
            let text = format!(
                "{who} {opens} {what}: {rates}, {open} open, {done} of {judged} never used again, about {bytes} bytes each"
            );
            (text, MOST_FOR_PILE * share.max(0.5))
        }
    }
}

fn ruled_out(context: &Context<'_>, shape: &Shape, matched: Option<Requests>) -> Vec<String> {
    let lasted = |windows: usize| spoken(context.config.window * u32::try_from(windows).unwrap_or(u32::MAX));
    let mut ruled_out = match *shape {
        Shape::Churn { closed, brief, windows, .. } => vec![
            format!("a short batch or a cron client: it goes on for {} and more", lasted(windows)),
            format!("a pool that replaces its members: {brief} of {closed} closed after one short exchange"),
            "a full pool that opens more for a while: no busy pool of connections that stay is beside them".to_owned(),
        ],
        Shape::Pile { closed, judged, done, windows, .. } => vec![
            format!("a pool that warms up or grows with load: {done} of {judged} were never used again"),
            format!("a pool that replaces its members: {} closed in {}", plural(closed, "connection"), lasted(windows)),
        ],
    };
    if let Some(Requests { accepted, opened, windows, .. }) = matched {
        let (came, opened) = (plural(accepted, "request"), plural(opened, "connection"));
        ruled_out.push(format!("a loop of its own: {came} came in and {opened} went out in {}", lasted(windows)));
    }
    ruled_out
}
