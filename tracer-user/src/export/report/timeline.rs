//! Endpoints over time: what was open and in use, each launcher group's staircase, and what happened when. Numbers and
//! moments; [`super::chart`] draws them.

use std::collections::HashMap;

use serde::Serialize;
use tracer_core::finding::{Evidence, EvidenceValue, Finding, Kind};
use tracer_core::snapshot::{Endpoint, Series, Snapshot};

use super::connections::Index;
use super::format::{count, duration, many, moment, name, of_them};
use super::model::{VERDICTS_MAX, left_out, severity};
use tracer_core::time::WallTime;

/// Endpoints with a timeline.
const TIMELINES_MAX: usize = 8;
/// Groups with a staircase in one of them.
pub const STAIRCASES_MAX: usize = 4;
/// Points of a line; a series as the tracker keeps it has 984.
const POINTS_MAX: usize = 2_000;
/// Steps of a staircase, of which there could be one for each connection.
const STEPS_MAX: usize = 400;
/// Marks, and process starts.
const MARKS_MAX: usize = 24;
const STARTS_MAX: usize = 400;
/// The least a timeline shows.
const SPAN_MIN_MS: i64 = 30_000;
/// A limit so many times what was open would press everything else to the ground.
const LIMIT_SHOWN: u32 = 4;

/// A moment in milliseconds since 1970, and how many from then on.
pub type Point = (i64, u32);

/// One endpoint over time.
#[derive(Debug, Serialize)]
pub struct Timeline {
    /// Whose.
    pub title: String,
    /// Which database, and which side this host is.
    pub kind: String,
    /// The first and the last moment, and the highest number.
    pub from_ms: i64,
    #[expect(missing_docs, reason = "above")]
    pub to_ms: i64,
    #[expect(missing_docs, reason = "above")]
    pub top: u32,
    /// Connections open.
    pub open: Vec<Point>,
    /// Of these, most seen in use; empty if none ever was.
    pub in_use: Vec<Point>,
    /// The limit, if it has its place among these numbers.
    pub limit: Option<u32>,
    /// The largest groups.
    pub staircases: Vec<Staircase>,
    /// When processes started that had connections here.
    pub starts: Vec<i64>,
    /// What happened.
    pub marks: Vec<Mark>,
    /// What else is to be said.
    pub notes: Vec<String>,
}

/// Connections of a launcher group that were open in the end, by when they were opened.
#[derive(Debug, Serialize)]
pub struct Staircase {
    /// Names the line in the chart.
    pub letter: char,
    /// The group's name.
    pub label: String,
    /// How many there are in the end.
    pub open: String,
    /// The stairs.
    pub points: Vec<Point>,
}

/// Something that happened.
#[derive(Debug, Serialize)]
pub struct Mark {
    /// When.
    pub at_ms: i64,
    /// The same for people.
    pub at: String,
    /// What stands in the chart: a finding's number, or a letter.
    pub sign: String,
    /// A severity, or `plain`.
    pub class: &'static str,
    /// The finding's number, if its evidence is on the page.
    pub number: Option<usize>,
    /// What it was.
    pub text: String,
}

/// The endpoints that matter most, those with the worst findings first; and what is left out.
pub fn timelines(snapshot: &Snapshot, index: &Index<'_>, findings: &[&Finding]) -> (Vec<Timeline>, Option<String>) {
    let mut best: HashMap<&str, usize> = HashMap::new();
    for (at, found) in findings.iter().enumerate() {
        if let Some(id) = &found.subject.endpoint {
            best.entry(id).or_insert(at);
        }
    }
    let mut all: Vec<&Endpoint> = snapshot.endpoints.iter().filter(|it| !merged(&it.series).is_empty()).collect();
    let rank = |it: &Endpoint| best.get(it.id.as_str()).copied().unwrap_or(usize::MAX);
    all.sort_by_key(|it| (rank(it), std::cmp::Reverse(it.open_peak), &it.id));
    let shown: Vec<Timeline> =
        all.iter().take(TIMELINES_MAX).map(|endpoint| timeline(endpoint, snapshot, index, findings)).collect();
    let more = left_out(all.len(), shown.len());
    (shown, more)
}

fn timeline(endpoint: &Endpoint, snapshot: &Snapshot, index: &Index<'_>, findings: &[&Finding]) -> Timeline {
    let points = merged(&endpoint.series);
    let end = snapshot.captured_at.unix_ms;
    let window = window(&points, end);
    let line = |of: fn(&Sample) -> u32| stairs(points.iter().map(|it| (it.at_ms, of(it))), window);
    let (open, mut in_use) = (line(|it| it.open), line(|it| it.in_use));
    if in_use.iter().all(|point| point.1 == 0) {
        in_use.clear();
    }
    let (staircases, groups) = staircases(endpoint, snapshot, index, window);
    let highest = open.iter().chain(staircases.iter().flat_map(|it| &it.points)).map(|it| it.1).max().unwrap_or(0);
    let value = endpoint.limit.map(|limit| limit.value);
    let limit = value.filter(|limit| *limit <= highest.max(1).saturating_mul(LIMIT_SHOWN));
    let mut notes = Vec::new();
    if let Some(value) = value.filter(|_| limit.is_none()) {
        notes.push(format!("The limit, {}, lies far above.", count(value)));
    }
    if let Some(more) = groups.checked_sub(staircases.len()).filter(|more| *more > 0) {
        notes.push(format!("{} with fewer connections are not drawn.", of_them(more, "group", "groups")));
    }
    let starts = starts(endpoint, snapshot, window);
    if !starts.is_empty() {
        notes.push(format!("▲ A process that had connections here started ({}).", many(starts.len())));
    }
    Timeline {
        title: index.endpoint_name(&endpoint.id),
        kind: format!("{}, {}", name(&endpoint.database), endpoint.role.name()),
        from_ms: window.0,
        to_ms: window.1,
        top: highest.max(limit.unwrap_or(0)).max(1),
        open,
        in_use,
        limit,
        staircases,
        starts,
        marks: marks(endpoint, snapshot, findings, window),
        notes,
    }
}

/// One step of a series.
struct Sample {
    /// Its end.
    at_ms: i64,
    open: u32,
    opened: u32,
    in_use: u32,
}

/// All that is known, each stretch at the finest resolution that has it.
fn merged(series: &[Series]) -> Vec<Sample> {
    let mut all: Vec<&Series> = series.iter().filter(|it| it.step_s > 0 && !it.open.is_empty()).collect();
    all.sort_by_key(|it| it.step_s);
    let mut samples: Vec<Sample> = Vec::new();
    let mut until = i64::MAX;
    for series in all {
        let step_ms = i64::from(series.step_s) * 1_000;
        let end = |at: usize| {
            let steps = i64::try_from(at).unwrap_or(i64::MAX).saturating_add(1);
            series.start.unix_ms.saturating_add(steps.saturating_mul(step_ms))
        };
        let number = |list: &[u32], at: usize| list.get(at).copied().unwrap_or(0);
        let skipped = series.open.len().saturating_sub(POINTS_MAX);
        let own = (skipped..series.open.len()).rev().filter(|at| end(*at) <= until).map(|at| Sample {
            at_ms: end(at),
            open: number(&series.open, at),
            opened: number(&series.opened, at),
            in_use: number(&series.in_use, at),
        });
        samples.extend(own);
        until = until.min(series.start.unix_ms);
    }
    samples.truncate(POINTS_MAX);
    samples.reverse();
    samples
}

/// From when anything was there until the end.
fn window(samples: &[Sample], end: i64) -> (i64, i64) {
    let busy = samples.iter().position(|it| it.open > 0 || it.opened > 0);
    let first = busy.and_then(|at| samples.get(at.saturating_sub(1))).map_or(end, |it| it.at_ms);
    let last = end.max(first.saturating_add(1));
    let from = first.min(last.saturating_sub(SPAN_MIN_MS));
    // A little before what there is.
    (from.saturating_sub((last.saturating_sub(from)) / 30), last)
}

/// Only the changes, from the window's beginning to its end.
fn stairs(points: impl Iterator<Item = Point>, (from, to): (i64, i64)) -> Vec<Point> {
    let mut line: Vec<Point> = Vec::new();
    for (at, number) in points {
        let at = at.min(to);
        if at <= from {
            line.clear();
            line.push((from, number));
        } else if line.last().is_none_or(|last| last.1 != number) {
            line.push((at, number));
        }
    }
    if let Some(last) = line.last().map(|it| it.1) {
        line.push((to, last));
    }
    line
}

/// The largest groups' staircases, and how many groups there are.
fn staircases(
    endpoint: &Endpoint,
    snapshot: &Snapshot,
    index: &Index<'_>,
    window: (i64, i64),
) -> (Vec<Staircase>, usize) {
    let mut opened: HashMap<&str, Vec<i64>> = HashMap::new();
    for connection in index.of_endpoint(snapshot, &endpoint.id).filter(|it| it.role == endpoint.role) {
        if let Some(group) = index.group(connection) {
            opened.entry(group).or_default().push(connection.opened_at.map_or(i64::MIN, |at| at.unix_ms));
        }
    }
    let groups = opened.len();
    let mut opened: Vec<(&str, Vec<i64>)> = opened.into_iter().collect();
    opened.sort_by_key(|(id, moments)| (std::cmp::Reverse(moments.len()), *id));
    let staircase = |((id, mut moments), letter): ((&str, Vec<i64>), char)| {
        moments.sort_unstable();
        // Of many stairs, some: the last of them is always there.
        let every = moments.len().div_ceil(STEPS_MAX).max(1);
        let all = moments.len();
        let numbered =
            moments.iter().enumerate().map(|(at, moment)| (*moment, u32::try_from(at + 1).unwrap_or(u32::MAX)));
        let kept = numbered.enumerate().filter(|(at, _)| (at + 1).is_multiple_of(every) || at + 1 == all);
        let from_nothing = std::iter::once((window.0, 0));
        let points = stairs(from_nothing.chain(kept.map(|it| it.1)), window);
        Staircase { letter, label: name(index.label(id).unwrap_or(id)), open: many(all), points }
    };
    (opened.into_iter().zip('A'..='Z').take(STAIRCASES_MAX).map(staircase).collect(), groups)
}

fn starts(endpoint: &Endpoint, snapshot: &Snapshot, (from, to): (i64, i64)) -> Vec<i64> {
    let here = snapshot
        .processes
        .iter()
        .filter(|process| process.connections.iter().any(|it| it.endpoint == endpoint.id && it.role == endpoint.role));
    let mut starts: Vec<i64> =
        here.map(|process| process.start_time.unix_ms).filter(|at| *at >= from && *at <= to).collect();
    starts.sort_unstable();
    starts.truncate(STARTS_MAX);
    starts
}

/// When findings became true, restarts, and the beginning of tracing.
fn marks(endpoint: &Endpoint, snapshot: &Snapshot, findings: &[&Finding], (from, to): (i64, i64)) -> Vec<Mark> {
    let mark = |at_ms: i64, sign: String, class, number, text| Mark {
        at_ms,
        at: moment(WallTime { unix_ms: at_ms }),
        sign,
        class,
        number,
        text,
    };
    let mut marks = Vec::new();
    let here = findings.iter().enumerate().filter(|(_, it)| it.subject.endpoint.as_ref() == Some(&endpoint.id));
    for (at, found) in here.take(MARKS_MAX) {
        let number = at + 1;
        let text = found.kind.name().to_owned();
        marks.push(mark(
            found.first_seen.unix_ms,
            number.to_string(),
            severity(found),
            (number <= VERDICTS_MAX).then_some(number),
            text,
        ));
        if let Some(ago) = restart_age_s(found) {
            let at_ms = found.last_seen.unix_ms.saturating_sub(ago.saturating_mul(1_000));
            let ago = duration(u64::try_from(ago).unwrap_or(0));
            let text = format!("a restart freed connections, {ago} before the finding was last looked at");
            marks.push(mark(at_ms, "R".to_owned(), "plain", None, text));
        }
    }
    let began = snapshot.capture.started_at.unix_ms;
    marks.push(mark(began, "T".to_owned(), "plain", None, "tracing began".to_owned()));
    marks.retain(|mark| mark.at_ms >= from && mark.at_ms <= to);
    marks.sort_by_key(|mark| mark.at_ms);
    marks
}

/// How long before a finding was last seen the restart was that it tells of.
fn restart_age_s(found: &Finding) -> Option<i64> {
    let of = |it: &&Evidence| found.kind == Kind::RestartDrop && it.fact == "ended_ago";
    match found.evidence.iter().find(of)?.value {
        EvidenceValue::Integer(s) => Some(s),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(step_s: u32, start_s: i64, open: &[u32]) -> Series {
        let start = WallTime { unix_ms: start_s * 1_000 };
        let none = vec![0; open.len()];
        Series { step_s, start, open: open.to_vec(), opened: none.clone(), closed: none.clone(), in_use: none }
    }

    #[test]
    fn each_stretch_is_shown_as_finely_as_it_is_known() {
        let all = [series(1, 120, &[7, 8]), series(10, 80, &[1, 2, 3, 4, 5])];
        let points: Vec<(i64, u32)> = merged(&all).iter().map(|it| (it.at_ms / 1_000, it.open)).collect();
        assert_eq!(points, [(90, 1), (100, 2), (110, 3), (120, 4), (121, 7), (122, 8)]);
    }

    #[test]
    fn a_strange_series_is_no_trouble() {
        let longest = Series { start: WallTime { unix_ms: i64::MAX }, ..series(u32::MAX, 0, &[1; 5_000]) };
        assert!(merged(&[longest, series(0, 0, &[1])]).len() <= POINTS_MAX);
    }

    #[test]
    fn stairs_are_changes_within_the_window() {
        let line = stairs([(0, 1), (10, 2), (20, 2), (30, 3), (99, 4)].into_iter(), (10, 40));
        assert_eq!(line, [(10, 2), (30, 3), (40, 4), (40, 4)]);
    }
}
