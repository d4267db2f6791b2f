//! `limit_pressure`: the hard ceiling, an endpoint is at N of L.
//!
//! Trigger: open connections reach `warn_percent` of the limit (warning); `critical_percent`, or a flat top with failed
//! connects within the last window (critical). The limit is the user's, else one inferred from where the database turned
//! clients away ([`Endpoint::known_limit`]). Clears 5 points below the threshold, and only after it has stayed there for
//! one window. Where both sides of the connections are on this host, the database's side
//! counts (it sees clients elsewhere too) and the clients' side names who holds them.
//!
//! Confidence: 1 with exact counts; 0.9 while counts are lower bounds (the truth can only be nearer to the limit), 0.6
//! before the first look at the socket table; 0.7 of that when the limit is inferred.
//!
//! Look-alike: a high but bounded pool far below the limit stays below the threshold.

use std::time::Duration;

use super::blame::{self, Culprit};
use super::{Carried, Context, DetectConfig, Detector, Threshold, Verdict, count, list, spoken, text};
use crate::endpoint::{Endpoint, Place};
use crate::event::Role;
use crate::finding::{Evidence, Kind, Severity, Subject};
use crate::snapshot::{Limit, LimitSource};
use crate::time::BootNs;

/// Points of percent below a threshold before it lets go.
const HYSTERESIS_POINTS: u32 = 5;
/// Growth is measured over this time.
const TREND: Duration = Duration::from_secs(60);
/// A forecast further away than this is not worth a word here.
const FORECAST_MOST_MIN: f64 = 24.0 * 60.0;
/// Failed connects within the window that make a flat top critical.
const FAILURES: usize = 3;
/// Pids listed in the subject.
const PIDS_LISTED: usize = 1_000;

const WARN_PERCENT: Threshold = Threshold {
    key: "warn_percent",
    default: 80,
    bounds: (1, 100),
    meaning: "Percent of the limit from which it warns.",
};
const CRITICAL_PERCENT: Threshold = Threshold {
    key: "critical_percent",
    default: 95,
    bounds: (1, 100),
    meaning: "Percent of the limit from which it is critical.",
};

pub(super) struct LimitPressure;

/// From which percentages of the limit it warns and is critical.
pub(super) fn percents(get: impl Fn(&Threshold) -> u32) -> (u32, u32) {
    (get(&WARN_PERCENT), get(&CRITICAL_PERCENT))
}

/// One database under a limit, both sides together.
struct Ceiling<'a> {
    place: Place,
    limit: Limit,
    /// The side that counts.
    counting: &'a Endpoint,
    /// The side that names holders.
    blamed: (usize, Role),
}

impl Detector for LimitPressure {
    fn kind(&self) -> Kind {
        Kind::LimitPressure
    }

    fn thresholds(&self) -> &'static [Threshold] {
        const { &[WARN_PERCENT, CRITICAL_PERCENT] }
    }

    fn clear_after(&self, config: &DetectConfig) -> Duration {
        config.window
    }

    fn detect(&self, context: &Context<'_>) -> Vec<Verdict> {
        ceilings(context).into_iter().filter_map(|ceiling| judge(context, &ceiling)).collect()
    }

    fn may_hold(&self, _: &Context<'_>, _: &Carried<'_>) -> bool {
        // Counts and limits are known at once.
        false
    }

    fn resolved_summary(&self, context: &Context<'_>, last: &Verdict) -> String {
        let ceiling = ceilings(context).into_iter().find(|ceiling| ceiling.place.to_string() == last.key);
        let was = last.number("open");
        match ceiling {
            Some(ceiling) => {
                let (name, open) = (label(ceiling.counting), ceiling.counting.open);
                format!("{name} {open} of {} open (was {was})", ceiling.limit.value)
            }
            None => format!("{} is gone (was {was} open)", last.key),
        }
    }
}

/// Every endpoint with a limit, once a place.
fn ceilings<'a>(context: &Context<'a>) -> Vec<Ceiling<'a>> {
    let tracker = context.tracker;
    let mut all = Vec::new();
    for endpoint in tracker.endpoints() {
        let (Some(place), Some(limit)) = (endpoint.place, context.limit(endpoint)) else { continue };
        let client = tracker.endpoint(place, Role::Client).filter(|(_, side)| side.open > 0);
        let server = tracker.endpoint(place, Role::Server).filter(|(_, side)| side.open > 0);
        // Both sides have an entry: speak once, on the client's turn.
        let both = tracker.endpoint(place, Role::Client).is_some() && tracker.endpoint(place, Role::Server).is_some();
        if both && endpoint.role == Role::Server {
            continue;
        }
        let counting = match (client, server) {
            // What was inferred is about this host's clients.
            _ if limit.source == LimitSource::Inferred => endpoint,
            (Some((_, client)), Some((_, server))) if client.open > server.open => client,
            (_, Some((_, server))) => server,
            (Some((_, client)), None) => client,
            (None, None) => endpoint,
        };
        let Some(blamed) = client.or(server).or_else(|| tracker.endpoint(place, endpoint.role)) else { continue };
        all.push(Ceiling { place, limit, counting, blamed: (blamed.0, blamed.1.role) });
    }
    all
}

fn judge(context: &Context<'_>, ceiling: &Ceiling<'_>) -> Option<Verdict> {
    let set = |threshold| context.config.get(Kind::LimitPressure, threshold);
    let key = ceiling.place.to_string();
    let open = ceiling.counting.open;
    let before = (context.before)(Kind::LimitPressure, &key);
    let slack = |held: bool| if held { HYSTERESIS_POINTS } else { 0 };
    let threshold = |threshold, held: bool| set(threshold).saturating_sub(slack(held));
    let reaches = |percent: u32| u64::from(open) * 100 >= u64::from(ceiling.limit.value) * u64::from(percent);
    if ceiling.limit.value == 0 || !reaches(threshold(&WARN_PERCENT, before.is_some())) {
        return None;
    }
    let failed = failed_lately(context, ceiling);
    let was_critical = before == Some(Severity::Critical);
    let flat_top = failed >= if was_critical { 1 } else { FAILURES } && is_flat(context, ceiling);
    let critical = reaches(threshold(&CRITICAL_PERCENT, was_critical)) || flat_top;
    let culprits = blame::culprits(context, ceiling.blamed.0, ceiling.blamed.1);
    let growth = growth_per_min(ceiling.counting, context.now);
    let summary = summary(ceiling, open, growth, failed, &culprits);
    let mut ruled_out = vec![format!(
        "a high but bounded pool far below the limit: it is at {} %",
        u64::from(open) * 100 / u64::from(ceiling.limit.value)
    )];
    if critical && !flat_top {
        ruled_out.push("connects refused for another reason: the verdict does not rest on failed connects".to_owned());
    }
    let is_inferred = ceiling.limit.source == LimitSource::Inferred;
    if is_inferred {
        ruled_out.push(format!(
            "clients turned away for another reason: it happened at {} open, twice, and never below",
            ceiling.limit.value
        ));
    }
    Some(Verdict {
        severity: if critical { Severity::Critical } else { Severity::Warning },
        confidence: if is_inferred { 0.7 } else { 1.0 } * context.completeness_factor(),
        subject: subject(&key, &culprits),
        news: summary.clone(),
        summary,
        evidence: evidence(ceiling, open, growth, failed, &culprits),
        ruled_out,
        remedy:
            "Stop or restart what holds the most connections, then cap its pool so that all instances together stay \
                 below the limit"
                .to_owned(),
        verify: verify(ceiling),
        key,
    })
}

fn failed_lately(context: &Context<'_>, ceiling: &Ceiling<'_>) -> usize {
    let since = context.now.minus(context.config.window);
    let (index, _) = ceiling.blamed;
    context.tracker.endpoints().get(index).map_or(0, |endpoint| endpoint.failed_since(since))
}

/// Over the whole last window the count moved by at most one.
fn is_flat(context: &Context<'_>, ceiling: &Ceiling<'_>) -> bool {
    let (step_s, open) = ceiling.counting.series.open_within(context.config.window, context.now);
    if u64::try_from(open.len()).unwrap_or(0) * u64::from(step_s) < context.config.window.as_secs() {
        return false;
    }
    let (low, high) = open.into_iter().fold((u32::MAX, 0), |(low, high), open| (low.min(open), high.max(open)));
    high.saturating_sub(low) <= 1
}

/// Connections more each minute, over the last minute; 0 while less of it was seen.
fn growth_per_min(endpoint: &Endpoint, now: BootNs) -> f64 {
    let (step_s, open) = endpoint.series.open_within(TREND, now);
    let (Some(first), Some(last)) = (open.first(), open.last()) else { return 0.0 };
    let seconds = f64::from(step_s) * f64::from(u32::try_from(open.len() - 1).unwrap_or(u32::MAX));
    if seconds < 10.0 { 0.0 } else { (f64::from(*last) - f64::from(*first)) * 60.0 / seconds }
}

fn label(endpoint: &Endpoint) -> String {
    match &endpoint.name {
        Some(name) => format!("{name} {}", endpoint.id()),
        None => endpoint.id(),
    }
}

fn summary(ceiling: &Ceiling<'_>, open: u32, growth: f64, failed: usize, culprits: &[Culprit]) -> String {
    let limit = ceiling.limit.value;
    let about = if ceiling.limit.source == LimitSource::Inferred { "about " } else { "" };
    let mut text = format!("{} {open} of {about}{limit} open", label(ceiling.counting));
    if growth >= 1.0 {
        text.push_str(&format!(", +{growth:.0}/min"));
        let left_min = f64::from(limit.saturating_sub(open)) / growth;
        if open < limit && left_min <= FORECAST_MOST_MIN {
            let left = Duration::from_secs_f64((left_min * 60.0).max(1.0));
            text.push_str(&format!(", full in about {}", spoken(left)));
        }
    }
    if failed > 0 {
        text.push_str(&format!(", {failed} failed connects lately"));
    }
    if !culprits.is_empty() {
        text.push_str("; ");
        text.push_str(&blame::sentence(culprits));
    }
    text
}

fn subject(endpoint: &str, culprits: &[Culprit]) -> Subject {
    let mut pids: Vec<u32> =
        culprits.iter().flat_map(|culprit| culprit.pids.iter().copied()).take(PIDS_LISTED).collect();
    pids.sort_unstable();
    pids.dedup();
    let group = match culprits {
        [only] => only.group.clone(),
        _ => None,
    };
    Subject { endpoint: Some(endpoint.to_owned()), pids, launcher_group: group }
}

fn evidence(ceiling: &Ceiling<'_>, open: u32, growth: f64, failed: usize, culprits: &[Culprit]) -> Vec<Evidence> {
    let holders = culprits.iter().take(20).map(|culprit| blame::sentence(std::slice::from_ref(culprit))).collect();
    vec![
        count("open", open, "connections"),
        count("limit", ceiling.limit.value, "connections"),
        text("limit_source", ceiling.limit.source.name()),
        text(
            "counted_on",
            if ceiling.counting.role == Role::Server { "the database's side" } else { "the clients' side" },
        ),
        #[expect(clippy::cast_possible_truncation, reason = "a rounded rate of connections fits")]
        count("growth", growth.round() as i64, "connections/min"),
        count("failed_connects", failed, "in the last window"),
        list("holders", holders),
    ]
}

fn verify(ceiling: &Ceiling<'_>) -> String {
    let port = ceiling.place.addr.port();
    match ceiling.counting.role {
        Role::Client => format!("ss -Htnp dst {}", ceiling.place.addr),
        Role::Server => format!("ss -Htn sport = :{port} | wc -l"),
    }
}
