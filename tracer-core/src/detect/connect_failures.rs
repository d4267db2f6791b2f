//! `connect_failures`: an endpoint refuses or does not answer.
//!
//! Trigger: at least `failures` (5) connects came to nothing in each of the last `windows` (2) windows; they are one in
//! twenty or more of all, come in every half of these windows, began before these windows and go on (see [`lasts`]). Or
//! nothing got through for [`SLOW_WINDOWS`] windows, with as many failures spread over most of them: clients that wait
//! longer and longer between attempts. A connection that the database takes and ends at once, with an error or without a
//! word ("too many clients"), counts as a failure: see [`Endpoint::turned_away`]. Critical
//! while nothing gets through, a warning otherwise. Clears when a window has less than half of `failures`.
//!
//! The evidence tells time-outs from refusals, resets and routes by errno, and for time-outs who lost the packets: this host,
//! with the kernel's reason, or somebody beyond it.
//!
//! Confidence: what the failures themselves are worth, the mean of 1 for an errno, 0.9 for a hang-up (told from states
//! and byte counts) and 0.7 for a client that gave up or an end that nobody told; times the completeness factor.
//!
//! Look-alike: one restart of the database, whose failures fit into `windows` windows, wherever they begin; a few failures
//! among many connects; a name that resolves to an IPv6 and an IPv4 address, the first of which nobody serves: the same
//! port of the other family then takes about as many as fail here.

use std::collections::BTreeMap;
use std::time::Duration;

use super::path::Dropper;
use super::who::{self, Who};
use super::{Carried, Context, DetectConfig, Detector, Threshold, Verdict, count, list, spoken, text};
use crate::endpoint::{Endpoint, Failure, Why};
use crate::event::Role;
use crate::finding::{Kind, Severity, Subject};
use crate::series::Attempts;
use crate::time::BootNs;
use crate::tracker::errno_text;

/// Windows without a success that make few failures count.
const SLOW_WINDOWS: u32 = 6;
/// Of these, so many must have a failure.
const SLOW_SPREAD: usize = 4;
/// Failures that are a smaller part of all attempts are noise: one in so many.
const ONE_IN: u64 = 20;
/// Groups of processes named.
const NAMED: usize = 3;
/// Pids listed in the subject.
const PIDS_LISTED: usize = 1_000;

const FAILURES: Threshold = Threshold {
    key: "failures",
    default: 5,
    bounds: (1, 10_000),
    meaning: "Connects that must come to nothing in each window.",
};
const WINDOWS: Threshold = Threshold {
    key: "windows",
    default: 2,
    bounds: (1, SLOW_WINDOWS),
    meaning: "Windows in a row with so many failures.",
};

pub(super) struct ConnectFailures;

impl Detector for ConnectFailures {
    fn kind(&self) -> Kind {
        Kind::ConnectFailures
    }

    fn thresholds(&self) -> &'static [Threshold] {
        const { &[FAILURES, WINDOWS] }
    }

    fn clear_after(&self, _: &DetectConfig) -> Duration {
        // A whole window has to be better before it is not true any more.
        Duration::ZERO
    }

    fn detect(&self, context: &Context<'_>) -> Vec<Verdict> {
        let oldest = context.now.minus(context.config.window * SLOW_WINDOWS);
        let troubled = |endpoint: &&Endpoint| {
            let lately = endpoint.failures.back().is_some_and(|last| last.at >= oldest);
            endpoint.role == Role::Client && endpoint.place.is_some() && lately
        };
        context.tracker.endpoints().iter().filter(troubled).filter_map(|endpoint| judge(context, endpoint)).collect()
    }

    fn may_hold(&self, context: &Context<'_>, carried: &Carried<'_>) -> bool {
        // Nobody has to hold anything there for attempts to go on.
        carried.is_within(context, context.config.window * SLOW_WINDOWS)
    }

    fn resolved_summary(&self, context: &Context<'_>, last: &Verdict) -> String {
        let mut endpoints = context.tracker.endpoints().iter();
        let endpoint = endpoints.find(|endpoint| endpoint.role == Role::Client && endpoint.id() == last.key);
        let lately = endpoint.map(|of| of.series.attempts(context.now.minus(context.config.window), context.now));
        let (name, was) = (last.text("endpoint"), last.text("was"));
        match lately {
            Some(lately) if lately.succeeded() > 0 => format!("{name} takes connections again (was {was})"),
            _ => format!("nobody fails to connect to {name} any more (was {was})"),
        }
    }
}

/// What people call the reason.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reason {
    Refused,
    TimedOut,
    NoRoute,
    Forbidden,
    NoPort,
    Reset,
    HungUp,
    GivenUp,
    Errno(u16),
}

impl From<Why> for Reason {
    /// By Linux' numbers.
    fn from(why: Why) -> Self {
        match why {
            Why::HungUp => Self::HungUp,
            Why::Error(0) => Self::GivenUp,
            Why::Error(111) => Self::Refused,
            Why::Error(110) => Self::TimedOut,
            Why::Error(100 | 101 | 112 | 113) => Self::NoRoute,
            Why::Error(32 | 103 | 104) => Self::Reset,
            Why::Error(1 | 13) => Self::Forbidden,
            Why::Error(99) => Self::NoPort,
            Why::Error(errno) => Self::Errno(errno),
        }
    }
}

impl Reason {
    fn name(self) -> String {
        match self {
            Self::Refused => "refused".to_owned(),
            Self::TimedOut => "timed out".to_owned(),
            Self::NoRoute => "without a route".to_owned(),
            Self::Forbidden => "forbidden by this host".to_owned(),
            Self::NoPort => "without a free local port".to_owned(),
            Self::Reset => "reset".to_owned(),
            Self::HungUp => "hung up on at once".to_owned(),
            Self::GivenUp => "given up".to_owned(),
            Self::Errno(errno) => format!("with errno {errno}"),
        }
    }

    fn worth(self) -> f64 {
        match self {
            Self::HungUp => 0.9,
            Self::GivenUp => 0.7,
            _ => 1.0,
        }
    }

    fn remedy(self, endpoint: &Endpoint) -> String {
        let id = endpoint.id();
        match self {
            Self::Refused => format!("Start the database, or correct the address: nothing listens at {id}"),
            Self::TimedOut | Self::GivenUp => {
                format!("Look for a firewall that drops packets, a wrong address or a dead host on the way to {id}")
            }
            Self::NoRoute => format!("Repair the route to {id}, or correct the address"),
            Self::Forbidden => {
                format!("This host's own firewall or security policy forbids to connect to {id}: change that")
            }
            Self::NoPort => format!(
                "All local ports to {id} are taken: close what is not needed, or widen net.ipv4.ip_local_port_range"
            ),
            Self::HungUp => format!(
                "See the log of {id} for why it turns clients away: too many of them, a login that fails, or a \
                 database that is starting"
            ),
            Self::Reset | Self::Errno(_) => {
                format!(
                    "See the log of {id}, and of any proxy before it, for why connections end while they are set up"
                )
            }
        }
    }
}

/// What came of connects over the time that is judged.
struct Span {
    lasted: Duration,
    all: Attempts,
    /// In the latest window.
    latest: Attempts,
}

/// The time that makes it true, if one does.
fn span(context: &Context<'_>, endpoint: &Endpoint, held: bool) -> Option<Span> {
    let set = |threshold| context.config.get(Kind::ConnectFailures, threshold);
    let (least, window) = (u64::from(set(&FAILURES)), context.config.window);
    let of = |back: u32| {
        let to = context.now.minus(window * back);
        endpoint.series.attempts(to.minus(window), to)
    };
    let windows: Vec<Attempts> = (0..SLOW_WINDOWS).map(of).collect();
    let latest = windows[0];
    let sum = |count: u32| {
        let taken = windows.iter().take(count as usize);
        taken.fold(Attempts::default(), |sum, one| Attempts {
            opened: sum.opened + one.opened,
            failed: sum.failed + one.failed,
            hung_up: sum.hung_up + one.hung_up,
        })
    };
    let matters = |all: &Attempts| all.in_vain() * ONE_IN >= all.opened + all.failed;
    let count = set(&WINDOWS).min(SLOW_WINDOWS);
    let (quick, slow) = (sum(count), sum(SLOW_WINDOWS));
    let sustained =
        lasts(context, endpoint, count) && windows.iter().take(count as usize).all(|one| one.in_vain() >= least);
    let holds = held && latest.in_vain() >= (least / 2).max(1);
    if (sustained || holds) && matters(&quick) {
        return Some(Span { lasted: window * count, all: quick, latest });
    }
    let spread = windows.iter().filter(|one| one.in_vain() > 0).count();
    let is_slow =
        slow.succeeded() == 0 && slow.in_vain() >= least && spread >= SLOW_SPREAD.min(if held { 1 } else { 6 });
    is_slow.then_some(Span { lasted: window * SLOW_WINDOWS, all: slow, latest })
}

/// Whether it failed all over the last `count` windows, and not just somewhere in each of them: a short outage that lies
/// across a border is still a short one. Something failed when these windows began or a little before, in every half of
/// one since, and just now. To the second: that is how fine the counts are.
fn lasts(context: &Context<'_>, endpoint: &Endpoint, count: u32) -> bool {
    let (now, window) = (context.now, context.config.window);
    let (half, moment) = (window / 2, (window / 10).max(Duration::from_secs(1)));
    let fails = |from: BootNs, to: BootNs| endpoint.series.attempts(from, to).in_vain() > 0;
    let began = now.minus(window * count);
    let halves = half < Duration::from_secs(1)
        || (0..count * 2).all(|back| {
            let to = now.minus(half * back);
            fails(to.minus(half), to)
        });
    halves && fails(began.minus(half), began.plus(moment)) && fails(now.minus(moment), now)
}

fn judge(context: &Context<'_>, endpoint: &Endpoint) -> Option<Verdict> {
    let key = endpoint.id();
    let before = (context.before)(Kind::ConnectFailures, &key);
    let span = span(context, endpoint, before.is_some())?;
    if is_first_try(context, endpoint, &span) {
        return None;
    }
    let nothing = span.latest.succeeded() == 0 && (before == Some(Severity::Critical) || span.all.succeeded() == 0);
    let since = context.now.minus(span.lasted);
    let reasons = reasons(endpoint, since);
    let (main, _) = *reasons.first()?;
    let who = tried(context, endpoint, since);
    let name = endpoint.name.as_ref().map_or_else(|| key.clone(), |name| format!("{name} {key}"));
    let why: Vec<String> = reasons.iter().map(|(reason, times)| format!("{times} {}", reason.name())).collect();
    let (failed, all, lasted) = (span.all.in_vain(), span.all.opened + span.all.failed, spoken(span.lasted));
    let what = match nothing {
        true => format!("{name} takes no connections: {failed} connects failed in the last {lasted}"),
        false => format!("{name} {failed} of {all} connects failed in the last {lasted}"),
    };
    let by: Vec<String> = who.iter().take(NAMED).map(|(who, _)| who.sentence()).collect();
    let by = if by.is_empty() { String::new() } else { format!("; tried by {}", by.join(", ")) };
    let path = path_of(context, endpoint, since, main);
    let here = path.here.map(|here| format!("; {here}")).unwrap_or_default();
    let told: u32 = reasons.iter().map(|(_, times)| times).sum();
    Some(Verdict {
        severity: if nothing { Severity::Critical } else { Severity::Warning },
        confidence: worth(&reasons) * context.completeness_factor(),
        subject: subject(&key, &who),
        // Numbers come and go with the retries.
        news: format!("{} {by} {}", main.name(), path.gist),
        summary: format!("{what} ({}){by}{here}", why.join(", ")),
        evidence: vec![
            count("failed", span.all.failed, "connects"),
            count("hung_up", span.all.hung_up, "connects"),
            count("got_through", span.all.succeeded(), "connects"),
            count("within", span.lasted.as_secs(), "s"),
            list("reasons", why.clone()),
            list("errnos", errnos(endpoint, since)),
            text("path", path.said),
            count("reasons_of", told, "latest failures"),
            list("tried_by", who.iter().take(20).map(|(who, times)| format!("{} {times}", who.sentence())).collect()),
            count("open", endpoint.open, "connections"),
            text("endpoint", name),
            text("was", format!("{failed} failed in {lasted}: {}", why.join(", "))),
        ],
        ruled_out: ruled_out(&span, all),
        remedy: path.remedy.unwrap_or_else(|| main.remedy(endpoint)),
        verify: endpoint
            .place
            .map_or_else(String::new, |place| format!("nc -zvw 5 {} {}", place.addr.ip(), place.addr.port())),
        key,
    })
}

/// What the failures say of the path.
struct Way {
    /// Whether an answer came at all and who gave it, or who lost the packets.
    said: String,
    /// The remedy for that, and what this host did, if it was this host.
    remedy: Option<String>,
    here: Option<String>,
    gist: String,
}

fn path_of(context: &Context<'_>, endpoint: &Endpoint, from: BootNs, main: Reason) -> Way {
    let said = match main {
        Reason::TimedOut | Reason::GivenUp => {
            let dropper = Dropper::of_all(context, endpoint, from);
            let dropper = dropper.explained(context, since(endpoint, from).map(|failure| failure.tuple), from);
            let here = dropper.is_here();
            return Way {
                said: format!("no answer came: {}", dropper.sentence()),
                remedy: here.then(|| dropper.remedy()),
                here: here.then(|| dropper.sentence()),
                gist: dropper.gist(),
            };
        }
        Reason::NoRoute => "this host or a router on the way has no way there",
        Reason::Forbidden | Reason::NoPort => "nothing was sent: this host refused",
        Reason::Refused => "an answer came: the host is there, or a firewall answers for it",
        Reason::Reset | Reason::HungUp | Reason::Errno(_) => "answers come",
    };
    Way { said: said.to_owned(), remedy: None, here: None, gist: String::new() }
}

/// The errnos by number, the most frequent first; 0 is a client that gave up.
fn errnos(endpoint: &Endpoint, from: BootNs) -> Vec<String> {
    let mut times = BTreeMap::<u16, u32>::new();
    for failure in since(endpoint, from) {
        if let Why::Error(errno) = failure.why {
            *times.entry(errno).or_default() += 1;
        }
    }
    let mut times: Vec<(u16, u32)> = times.into_iter().collect();
    times.sort_by_key(|(errno, times)| (std::cmp::Reverse(*times), *errno));
    times.into_iter().map(|(errno, times)| format!("{} {times}", errno_text(errno))).collect()
}

/// Whether who fails here gets through at the other address of the same name: an endpoint of the other family with the
/// same port took half as many at least, and here nobody ever answers.
fn is_first_try(context: &Context<'_>, endpoint: &Endpoint, span: &Span) -> bool {
    let Some(here) = endpoint.place.filter(|_| endpoint.open == 0 && span.all.opened == 0) else { return false };
    let from = context.now.minus(span.lasted);
    context.tracker.endpoints().iter().filter(|other| other.role == Role::Client).any(|other| {
        let is_twin = other.place.is_some_and(|there| {
            there.addr.port() == here.addr.port()
                && there.addr.is_ipv4() != here.addr.is_ipv4()
                && there.netns == here.netns
                && there.addr.ip().is_loopback() == here.addr.ip().is_loopback()
        });
        is_twin && other.series.attempts(from, context.now).succeeded() * 2 >= span.all.in_vain()
    })
}

fn ruled_out(span: &Span, all: u64) -> Vec<String> {
    let (failed, lasted) = (span.all.in_vain(), spoken(span.lasted));
    vec![
        format!("a single restart of the database: connects fail all over the last {lasted}"),
        format!("a few failures among many connects: {failed} of {all}"),
    ]
}

fn since(endpoint: &Endpoint, since: BootNs) -> impl Iterator<Item = &Failure> + Clone {
    endpoint.failures.iter().filter(move |failure| failure.at >= since)
}

/// Why, the most frequent first.
fn reasons(endpoint: &Endpoint, from: BootNs) -> Vec<(Reason, u32)> {
    let mut times = BTreeMap::<Reason, u32>::new();
    for failure in since(endpoint, from) {
        *times.entry(failure.why.into()).or_default() += 1;
    }
    let mut times: Vec<(Reason, u32)> = times.into_iter().collect();
    times.sort_by_key(|(reason, times)| (std::cmp::Reverse(*times), *reason));
    times
}

fn worth(reasons: &[(Reason, u32)]) -> f64 {
    let times: u32 = reasons.iter().map(|(_, times)| times).sum();
    let worth: f64 = reasons.iter().map(|(reason, times)| reason.worth() * f64::from(*times)).sum();
    worth / f64::from(times.max(1))
}

/// Who tried, the most persistent first.
fn tried(context: &Context<'_>, endpoint: &Endpoint, from: BootNs) -> Vec<(Who, u32)> {
    let by = since(endpoint, from).filter_map(|failure| Some((failure.by?, 1)));
    who::gather(context.tracker, by)
}

fn subject(endpoint: &str, who: &[(Who, u32)]) -> Subject {
    let mut pids: Vec<u32> = who.iter().flat_map(|(who, _)| who.pids()).take(PIDS_LISTED).collect();
    pids.sort_unstable();
    pids.dedup();
    let group = match who {
        [(only, _)] => only.group.clone(),
        _ => None,
    };
    Subject { endpoint: Some(endpoint.to_owned()), pids, launcher_group: group }
}
