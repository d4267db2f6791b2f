//! `headroom_forecast`: at this rate an endpoint is full at a time that can be told, as an interval.
//!
//! Trigger: the low-water marks of an endpoint with a limit, told or inferred ([`Endpoint::known_limit`]), rise over at least four whole steps, at one of four scales
//! (the window, 6, 60 and 360 of them), and a line through them reaches the limit within `within_s` and within ten times
//! the time that they cover. Growth that no open `connection_leak` explains is told from `from_percent` of the limit on:
//! before that it is as likely a service that has just been started, or the morning. The interval spans the line's slope, twice its standard error either way, and the slopes of
//! the older and the newer half. Silent from `limit_pressure`'s warning on: that finding has a forecast of its own. Clears
//! after six windows without a trend.
//!
//! Info; warning if a process there has an open `connection_leak`.
//!
//! Confidence: how well the line fits (r squared), times n/(n+1) for n steps, times the completeness factor; 0.7 of
//! that when the limit is inferred.
//!
//! Look-alikes: growth that flattens (its newer half is slower), a count that only comes back to where it was, a trend
//! shorter than four steps; a ramp or a warm-up far below the limit.

use std::time::Duration;

use super::connection_leak::{self, per_time};
use super::staircase::{self, COURSES, growth, mean};
use super::{Context, DetectConfig, Detector, Threshold, Verdict, count, limit_pressure, spoken, text};
use crate::endpoint::{Endpoint, Place};
use crate::event::Role;
use crate::finding::{Evidence, EvidenceValue, Kind, Severity, Subject};
use crate::snapshot::LimitSource;

/// Fewest and most steps in a trend.
const STEPS: (usize, usize) = (4, 12);
/// Steps before a trend that are looked at: a count that comes back has been there.
const BEFORE: usize = 24;
/// How far ahead a trend is believed, in its own lengths.
const AHEAD: f64 = 10.0;
/// Smallest rise that is a trend, in connections.
const LEAST_RISE: f64 = 4.0;
/// From so many connections a step on a flat step is no chance.
const CLEAR_RISE: f64 = 3.0;
/// Smallest part of the older half's slope that the newer half must keep.
const KEEPS: f64 = 0.6;
/// Windows without a trend after which it resolves.
const CLEAR_WINDOWS: u32 = 6;

const WITHIN: Threshold = Threshold {
    key: "within_s",
    default: 86_400,
    bounds: (60, 604_800),
    meaning: "How far ahead a full endpoint is told, in seconds.",
};

const FROM_PERCENT: Threshold = Threshold {
    key: "from_percent",
    default: 50,
    bounds: (0, 100),
    meaning: "Percent of the limit that must be open before growth that no leak explains is worth a forecast.",
};

pub(super) struct HeadroomForecast;

/// A line through low-water marks.
struct Trend {
    /// Connections a second: as fitted, slowest and fastest.
    slope: f64,
    slowest: f64,
    fastest: f64,
    /// Part of the marks' variance that the line explains.
    fit: f64,
    steps: usize,
    step: Duration,
    from: f64,
    to: f64,
}

impl Detector for HeadroomForecast {
    fn kind(&self) -> Kind {
        Kind::HeadroomForecast
    }

    fn thresholds(&self) -> &'static [Threshold] {
        const { &[WITHIN, FROM_PERCENT] }
    }

    fn clear_after(&self, config: &DetectConfig) -> Duration {
        config.window * CLEAR_WINDOWS
    }

    fn detect(&self, context: &Context<'_>) -> Vec<Verdict> {
        let endpoints = context.tracker.endpoints().iter().enumerate();
        endpoints.filter_map(|(index, endpoint)| judge(context, index, endpoint)).collect()
    }

    fn resolved_summary(&self, context: &Context<'_>, last: &Verdict) -> String {
        let name = last.text("endpoint");
        let is_it = |endpoint: &&Endpoint| Some(endpoint.id()) == last.subject.endpoint;
        let open = context.tracker.endpoints().iter().filter(is_it).map(|endpoint| endpoint.open).max().unwrap_or(0);
        let (limit, was) = (last.number("limit"), last.text("full_in"));
        format!("{name} {open} of {limit} open, not growing as it was (was to be full {was})")
    }
}

/// The database's own side sees clients elsewhere too; else the clients' side counts.
fn is_counting(context: &Context<'_>, place: Place, endpoint: &Endpoint) -> bool {
    let other = if endpoint.role == Role::Client { Role::Server } else { Role::Client };
    let other_open = context.tracker.endpoint(place, other).map_or(0, |(_, other)| other.open);
    endpoint.open > other_open || (endpoint.open == other_open && (endpoint.role == Role::Client || other_open == 0))
}

fn judge(context: &Context<'_>, index: usize, endpoint: &Endpoint) -> Option<Verdict> {
    let (place, limit) = (endpoint.place?, context.limit(endpoint)?);
    let (warn_percent, _) = limit_pressure::percents(|of| context.config.get(Kind::LimitPressure, of));
    let under_pressure = u64::from(endpoint.open) * 100 >= u64::from(limit.value) * u64::from(warn_percent)
        || (context.before)(Kind::LimitPressure, &place.to_string()).is_some();
    if under_pressure || endpoint.open == 0 || !is_counting(context, place, endpoint) {
        return None;
    }
    let left = f64::from(limit.value.saturating_sub(endpoint.open));
    let within = context.config.time(Kind::HeadroomForecast, &WITHIN).as_secs_f64();
    let is_near = |trend: &Trend| {
        let covered = trend.step.as_secs_f64() * f64::from(u32::try_from(trend.steps).unwrap_or(u32::MAX));
        left / trend.slope <= within.min(covered * AHEAD)
    };
    let trend = (0..COURSES).find_map(|scale| trend(context, endpoint, scale).filter(is_near))?;
    let (soonest, latest) = (seconds(left / trend.fastest), seconds(left / trend.slowest));
    let full_in = interval(soonest, latest);
    let leaker = leaker(context, index, endpoint);
    // Once said, it is not taken back for a few connections less.
    let is_said = (context.before)(Kind::HeadroomForecast, &place.to_string()).is_some();
    let from_percent = u64::from(context.config.get(Kind::HeadroomForecast, &FROM_PERCENT));
    let is_much = u64::from(endpoint.open) * 100 >= u64::from(limit.value) * from_percent;
    if leaker.is_none() && !is_much && !is_said {
        return None;
    }
    let name = match &endpoint.name {
        Some(name) => format!("{name} {place}"),
        None => place.to_string(),
    };
    let rate = per_time(trend.slope);
    let (about, certainty) = if limit.source == LimitSource::Inferred { ("about ", 0.7) } else { ("", 1.0) };
    let steps = f64::from(u32::try_from(trend.steps).unwrap_or(u32::MAX));
    Some(Verdict {
        key: place.to_string(),
        severity: if leaker.is_some() { Severity::Warning } else { Severity::Info },
        confidence: trend.fit * steps / (steps + 1.0) * certainty * context.completeness_factor(),
        subject: Subject {
            endpoint: Some(endpoint.id()),
            pids: leaker.iter().map(|(pid, _)| *pid).collect(),
            launcher_group: None,
        },
        summary: format!(
            "{name} {} of {about}{} open, {rate}, full {full_in}{}",
            endpoint.open,
            limit.value,
            leaker.as_ref().map_or_else(String::new, |(pid, who)| format!("; {who} (pid {pid}) leaks"))
        ),
        news: format!("{name} {}", order(soonest)),
        evidence: vec![
            text("endpoint", name),
            count("open", endpoint.open, "connections"),
            count("limit", limit.value, "connections"),
            text("limit_source", limit.source.name()),
            number("rate", trend.slope * 3_600.0, "connections/h"),
            number("rate_slowest", trend.slowest * 3_600.0, "connections/h"),
            number("rate_fastest", trend.fastest * 3_600.0, "connections/h"),
            text("full_in", full_in),
            count("step", trend.step.as_secs(), "s"),
            count("steps", trend.steps, "that rise"),
            text("low_water_mark", format!("{:.0} to {:.0}", trend.from, trend.to)),
        ],
        ruled_out: vec![
            format!("growth that flattens: its slowest half gives {}", per_time(trend.slowest)),
            format!("a short rise: it holds for {}", spoken(trend.step * u32::try_from(trend.steps).unwrap_or(1))),
        ],
        remedy: "Find what grows and cap its pool, or raise the limit before it is reached".to_owned(),
        verify: match endpoint.role {
            Role::Client => format!("watch 'ss -Htn dst {} | wc -l'", place.addr),
            Role::Server => format!("watch 'ss -Htn sport = :{} | wc -l'", place.addr.port()),
        },
    })
}

/// The process with an open leak there that holds the most.
fn leaker(context: &Context<'_>, index: usize, endpoint: &Endpoint) -> Option<(u32, String)> {
    let holders = context.survey.holders().filter(|(_, at, _)| *at == index);
    let leaks = holders
        .filter(|(id, ..)| (context.before)(Kind::ConnectionLeak, &connection_leak::key(*id, endpoint)).is_some());
    let (id, ..) = leaks.max_by_key(|(id, _, held)| (held.len(), *id))?;
    context.tracker.processes().get(&id).map(|process| (id.pid, process.label()))
}

/// The trend at a scale, if there is one that does not flatten.
fn trend(context: &Context<'_>, endpoint: &Endpoint, scale: usize) -> Option<Trend> {
    let step = staircase::step_of(context.config.window, scale);
    let (step, lows) = low_marks(context, endpoint, step);
    let lengths = [STEPS.0, 5, 6, 8, 10, STEPS.1];
    lengths.into_iter().rev().filter(|count| *count <= lows.len()).find_map(|count| {
        let (before, last) = lows.split_at(lows.len() - count);
        let trend = fit(last, step)?;
        let top = before.iter().copied().fold(last[0], f64::max);
        (last[count - 1] - top >= (last[count - 1] - last[0]) / 2.0).then_some(trend)
    })
}

/// Low-water marks of whole steps, oldest first, and how long each is: of the counts at the ends of the series' own
/// steps, of which there is one in each at least.
fn low_marks(context: &Context<'_>, endpoint: &Endpoint, step: Duration) -> (Duration, Vec<f64>) {
    let most = u32::try_from(STEPS.1 + BEFORE).unwrap_or(u32::MAX);
    let (step_s, mut open) = endpoint.series.open_within(step * most, context.now);
    let per_step = u32::try_from(step.as_secs() / u64::from(step_s.max(1))).unwrap_or(1).max(1);
    // The newest sample is not over, and the oldest may be of the moment it all began.
    open.pop();
    let open = open.get(1..).unwrap_or(&[]);
    let low = |samples: &[u32]| f64::from(samples.iter().copied().min().unwrap_or(0));
    let mut lows: Vec<f64> = open.rchunks_exact(per_step as usize).map(low).collect();
    lows.reverse();
    (Duration::from_secs(u64::from(per_step * step_s)), lows)
}

/// A line through the marks, if they rise throughout and as fast in their newer half.
fn fit(marks: &[f64], step: Duration) -> Option<Trend> {
    let count = f64::from(u32::try_from(marks.len()).ok()?);
    let (first, last) = (*marks.first()?, *marks.last()?);
    let falls = marks.windows(2).filter(|pair| pair[1] < pair[0]).count();
    let rises = marks.windows(2).filter(|pair| pair[1] > pair[0]).count();
    if falls > 0 || rises * 4 < (marks.len() - 1) * 3 || last - first < LEAST_RISE {
        return None;
    }
    let slope = slope(marks);
    // Where a step brings one or two it may be flat, also the last one; else a flat step at the end is the end.
    let flat_from = marks.len().checked_sub(if slope >= CLEAR_RISE { 2 } else { 3 })?;
    if marks[flat_from] >= last {
        return None;
    }
    let half = marks.len().div_ceil(2);
    let (older, newer) = (self::slope(&marks[..half]), self::slope(&marks[marks.len() - half..]));
    let middle = (mean(marks), (count - 1.0) / 2.0);
    let expected = |index: usize| middle.0 + slope * (f64::from(u32::try_from(index).unwrap_or(0)) - middle.1);
    let residual: f64 = marks.iter().enumerate().map(|(index, mark)| (mark - expected(index)).powi(2)).sum();
    let variance: f64 = marks.iter().map(|mark| (mark - middle.0).powi(2)).sum();
    let spread = (count * (count * count - 1.0) / 12.0).sqrt();
    let error = 2.0 * (residual / (count - 2.0).max(1.0)).sqrt() / spread;
    let slowest = older.min(newer).min(slope - error);
    let fastest = older.max(newer).max(slope + error);
    if newer < older * KEEPS || slowest <= slope / 4.0 || growth(marks) <= 0.0 {
        return None;
    }
    let per_second = 1.0 / step.as_secs_f64().max(1e-9);
    Some(Trend {
        slope: slope * per_second,
        slowest: slowest * per_second,
        fastest: fastest * per_second,
        fit: 1.0 - residual / variance.max(1e-9),
        steps: marks.len(),
        step,
        from: first,
        to: last,
    })
}

/// Least squares, a step apart.
fn slope(marks: &[f64]) -> f64 {
    let count = f64::from(u32::try_from(marks.len()).unwrap_or(u32::MAX));
    let middle = (count - 1.0) / 2.0;
    let at = |index: usize| f64::from(u32::try_from(index).unwrap_or(u32::MAX)) - middle;
    let sum: f64 = marks.iter().enumerate().map(|(index, mark)| at(index) * mark).sum();
    sum * 12.0 / (count * (count * count - 1.0)).max(1e-9)
}

fn number(fact: &str, value: f64, unit: &str) -> Evidence {
    let value = EvidenceValue::Number((value * 10.0).round() / 10.0);
    Evidence { fact: fact.to_owned(), value, unit: unit.to_owned() }
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.clamp(1.0, 1e9))
}

/// `in 8 to 11 h`, `in 40 min to 2 h`, `in about 5 min`.
fn interval(soonest: Duration, latest: Duration) -> String {
    let (from, to) = (rounded(soonest), rounded(latest));
    if from == to {
        return format!("in about {} {}", from.0, from.1);
    }
    if from.1 == to.1 {
        format!("in {} to {} {}", from.0, to.0, to.1)
    } else {
        format!("in {} {} to {} {}", from.0, from.1, to.0, to.1)
    }
}

/// A duration in its largest unit that leaves two or more, rounded.
fn rounded(duration: Duration) -> (u64, &'static str) {
    let seconds = duration.as_secs();
    match seconds {
        0..120 => (seconds, "s"),
        120..7_200 => ((seconds + 30) / 60, "min"),
        7_200..172_800 => ((seconds + 1_800) / 3_600, "h"),
        _ => ((seconds + 43_200) / 86_400, "days"),
    }
}

/// The order of magnitude of a time: news is when it halves.
fn order(duration: Duration) -> u32 {
    duration.as_secs().max(1).ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_gives_an_interval_around_its_slope() {
        let steady: Vec<f64> = (0..8u32).map(|step| f64::from(step * 6 + 5)).collect();
        let trend = fit(&steady, Duration::from_secs(3_600)).unwrap();
        assert!((trend.slope * 3_600.0 - 6.0).abs() < 1e-9 && (trend.slowest - trend.fastest).abs() < 1e-9);
        let uneven = [5.0, 9.0, 17.0, 22.0, 31.0, 34.0, 42.0, 46.0];
        let trend = fit(&uneven, Duration::from_secs(3_600)).unwrap();
        assert!(trend.slowest < trend.slope && trend.slope < trend.fastest && trend.fit > 0.9);
    }

    #[test]
    fn growth_that_flattens_or_falls_is_no_trend() {
        let check = |marks: &[f64]| assert!(fit(marks, Duration::from_secs(60)).is_none(), "{marks:?}");
        check(&[5.0, 25.0, 38.0, 45.0, 49.0, 51.0]);
        check(&[5.0, 10.0, 15.0, 14.0, 20.0]);
        check(&[5.0, 6.0, 7.0, 8.0]);
    }

    #[test]
    fn intervals_are_said_in_one_unit_if_they_can_be() {
        let said = |from, to| interval(Duration::from_secs(from), Duration::from_secs(to));
        assert_eq!(said(28_800, 39_600), "in 8 to 11 h");
        assert_eq!(said(2_400, 7_300), "in 40 min to 2 h");
        assert_eq!(said(300, 310), "in about 5 min");
        assert_eq!(said(50, 90), "in 50 to 90 s");
    }
}
