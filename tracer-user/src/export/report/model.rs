//! What a report shows, as text and numbers: bounded, in the order of the page. Nothing is escaped here.

use std::collections::HashMap;

use serde::Serialize;
use tracer_core::finding::{Finding, Severity, Status};
use tracer_core::snapshot::Snapshot;

use super::connections::{Index, connections};
use super::findings::{Verdict, verdict};
use super::format::{TEXT_MAX, clip, duration, many, moment, name, of_them};
use super::quality::{about, caveats, lost, probes};
use super::tables::{drops, endpoints, groups, processes};
pub use super::timeline::Timeline;
use super::timeline::timelines;

/// Problems that get a sentence at the top.
pub const PROBLEMS_MAX: usize = 40;
/// Consequences named below one of them.
pub const CONSEQUENCES_MAX: usize = 12;
/// Findings with their evidence.
pub const VERDICTS_MAX: usize = 100;

/// Everything on the page.
#[derive(Debug, Serialize)]
pub struct Page {
    /// The host's name.
    pub hostname: String,
    /// When the snapshot was taken.
    pub captured_at: String,
    /// How long tracing had been going on.
    pub watched_for: String,
    /// The class of [`Page::headline`]: the worst severity, or `fine`.
    pub mood: &'static str,
    /// How many of what.
    pub headline: String,
    /// Reasons to trust the numbers less.
    pub caveats: Vec<String>,
    /// Causes with what they bring about, worst first.
    pub problems: Vec<Problem>,
    /// Problems that are not among these.
    pub problems_left_out: Option<String>,
    /// Endpoints over time.
    pub timelines: Vec<Timeline>,
    /// Endpoints with a course that are not among these.
    pub timelines_left_out: Option<String>,
    /// Findings with their evidence, causes before their consequences.
    pub verdicts: Vec<Verdict>,
    /// Findings that are not among these.
    pub verdicts_left_out: Option<String>,
    /// Endpoints, launcher groups, processes, connections.
    pub tables: Vec<Table>,
    /// What the numbers are worth, a sentence each.
    pub quality: Vec<String>,
    /// What was lost, and how facts were gathered.
    pub quality_tables: Vec<Table>,
    /// Host and capture: names and values.
    pub about: Vec<(&'static str, String)>,
}

/// One problem: a finding that no other brings about.
#[derive(Debug, Serialize)]
pub struct Problem {
    /// The finding.
    pub sentence: Sentence,
    /// What to do.
    pub remedy: String,
    /// What it brings about.
    pub consequences: Vec<Sentence>,
    /// Consequences that are not among these.
    pub left_out: Option<String>,
}

/// A finding in a line.
#[derive(Debug, Serialize)]
pub struct Sentence {
    /// Its number on the page.
    pub number: usize,
    /// Whether the page has its evidence.
    pub linked: bool,
    /// `critical`, `warning`, `info`, or `resolved`.
    pub severity: &'static str,
    /// Its kind.
    pub kind: &'static str,
    /// The sentence.
    pub text: String,
    /// Since when.
    pub since: String,
}

/// A table: what is in it, largest first, and how much is not.
#[derive(Debug, Serialize)]
pub struct Table {
    /// Its anchor.
    pub id: &'static str,
    /// Its title.
    pub title: &'static str,
    /// What it shows, where the title does not say it.
    pub note: String,
    /// Titles of columns.
    pub columns: Vec<Column>,
    /// Rows.
    pub rows: Vec<Vec<Cell>>,
    /// What is left out.
    pub left_out: Option<String>,
}

/// A column's title.
#[derive(Debug, Serialize)]
pub struct Column {
    /// What is in it.
    pub title: &'static str,
    /// `number` for numbers, else empty.
    pub class: &'static str,
}

/// One cell.
#[derive(Debug, Default, Serialize)]
pub struct Cell {
    /// What it says.
    pub text: String,
    /// A second, smaller line.
    pub more: String,
    /// `number`, `word` for what is never broken, a severity.
    pub class: &'static str,
}

impl Table {
    /// A table without rows. Titles of columns of numbers begin with `#`.
    pub(super) fn new(id: &'static str, title: &'static str, columns: &[&'static str]) -> Self {
        let column = |title: &&'static str| match title.strip_prefix('#') {
            Some(title) => Column { title, class: "number" },
            None => Column { title, class: "" },
        };
        let columns = columns.iter().map(column).collect();
        Self { id, title, note: String::new(), columns, rows: Vec::new(), left_out: None }
    }

    /// Says what is missing if there are more of them than rows.
    pub(super) fn of_all(mut self, all: usize) -> Self {
        self.left_out = left_out(all, self.rows.len());
        self
    }
}

impl Cell {
    /// A text.
    pub(super) fn text(text: &str) -> Self {
        Self { text: name(text), ..Self::default() }
    }

    /// A number, with its unit where it has one.
    pub(super) fn number(text: String) -> Self {
        Self { text, class: "number", ..Self::default() }
    }

    /// With a second line.
    pub(super) fn with(mut self, more: &str) -> Self {
        self.more = clip(more, TEXT_MAX);
        self
    }
}

/// `12 more are in the snapshot`.
pub(super) fn left_out(all: usize, shown: usize) -> Option<String> {
    let more = all.checked_sub(shown).filter(|more| *more > 0)?;
    let (is, of) = (if more == 1 { "is" } else { "are" }, many(all));
    Some(format!("{} more of {of} {is} in the snapshot, and not shown here.", many(more)))
}

impl Page {
    /// What is shown of `snapshot`.
    #[must_use]
    pub fn of(snapshot: &Snapshot) -> Self {
        // What the configuration says not to tell is counted, among what is missing.
        let told: Vec<&Finding> = snapshot.findings.iter().filter(|found| found.ignored.is_none()).collect();
        let families = families(&told);
        // Numbers follow the page's order: a cause, then what it brings about.
        let order: Vec<usize> = families.iter().flatten().copied().collect();
        let ordered: Vec<&Finding> = order.iter().filter_map(|at| told.get(*at).copied()).collect();
        let numbers: HashMap<&str, usize> =
            ordered.iter().enumerate().map(|(at, found)| (found.id.as_str(), at + 1)).collect();
        let index = Index::of(snapshot);
        let (timelines, more_timelines) = timelines(snapshot, &index, &ordered);
        let shown = ordered.iter().take(VERDICTS_MAX).enumerate();
        let verdicts: Vec<Verdict> =
            shown.map(|(at, found)| verdict(at + 1, found, snapshot, &index, &numbers)).collect();
        let mut tables = vec![endpoints(snapshot), groups(snapshot), processes(snapshot)];
        tables.extend(drops(snapshot));
        tables.extend(connections(snapshot, &index));
        let (mood, headline) = headline(&told, families.len());
        let watched_ms = snapshot.captured_at.unix_ms.saturating_sub(snapshot.capture.started_at.unix_ms);
        Self {
            hostname: name(&snapshot.host.hostname),
            captured_at: moment(snapshot.captured_at),
            watched_for: duration(u64::try_from(watched_ms / 1_000).unwrap_or(0)),
            mood,
            headline,
            caveats: caveats(&snapshot.capture),
            problems: problems(&families, &told),
            problems_left_out: left_out(families.len(), families.len().min(PROBLEMS_MAX)),
            timelines,
            timelines_left_out: more_timelines,
            verdicts_left_out: left_out(ordered.len(), verdicts.len()),
            verdicts,
            tables,
            quality: super::quality::sentences(&snapshot.capture),
            quality_tables: [lost(&snapshot.capture), Some(probes(&snapshot.capture))].into_iter().flatten().collect(),
            about: about(snapshot),
        }
    }
}

/// Places of findings that belong together, the cause first: the way `tail` folds them. The worst family comes first,
/// and what is still true before what was.
fn families(findings: &[&Finding]) -> Vec<Vec<usize>> {
    let places: HashMap<&str, usize> = findings.iter().enumerate().map(|(at, it)| (it.id.as_str(), at)).collect();
    let cause = |at: usize| findings.get(at)?.cause.as_deref().and_then(|id| places.get(id).copied());
    let root = |start: usize| {
        let mut at = start;
        // No chain is longer than there are kinds; one that goes in a circle stops somewhere on it, the same for each.
        for _ in 0..tracer_core::finding::Kind::ALL.len() {
            match cause(at) {
                Some(next) => at = next,
                None => return at,
            }
        }
        start
    };
    let mut members: HashMap<usize, Vec<usize>> = HashMap::new();
    for at in 0..findings.len() {
        members.entry(root(at)).or_default().push(at);
    }
    let rank = |at: &usize| {
        let open = |found: &Finding| (found.status == Status::Open, found.severity);
        std::cmp::Reverse(findings.get(*at).copied().map(open))
    };
    let mut families: Vec<Vec<usize>> = members
        .into_iter()
        .map(|(root, mut members)| {
            members.sort_by_key(|at| (*at != root, rank(at), *at));
            members
        })
        .collect();
    families.sort_by_key(|members| (members.iter().map(rank).min(), members.first().copied()));
    families
}

fn problems(families: &[Vec<usize>], findings: &[&Finding]) -> Vec<Problem> {
    let mut number = 0;
    let mut problems = Vec::new();
    for members in families.iter().take(PROBLEMS_MAX) {
        let mut sentences = members.iter().filter_map(|at| findings.get(*at)).map(|found| {
            number += 1;
            sentence(number, found)
        });
        let Some(first) = sentences.next() else { continue };
        let consequences: Vec<Sentence> = sentences.by_ref().take(CONSEQUENCES_MAX).collect();
        let uncounted = sentences.count();
        let remedy = members.first().and_then(|at| findings.get(*at)).map(|found| clip(&found.remedy, TEXT_MAX));
        problems.push(Problem {
            sentence: first,
            remedy: remedy.unwrap_or_default(),
            left_out: left_out(consequences.len() + uncounted, consequences.len()),
            consequences,
        });
    }
    problems
}

fn sentence(number: usize, found: &Finding) -> Sentence {
    Sentence {
        number,
        linked: number <= VERDICTS_MAX,
        severity: severity(found),
        kind: found.kind.name(),
        text: clip(&found.summary, TEXT_MAX),
        since: moment(found.first_seen),
    }
}

/// A finding's class and word.
pub(super) fn severity(found: &Finding) -> &'static str {
    match found.status {
        Status::Open => found.severity.name(),
        Status::Resolved => "resolved",
    }
}

/// The page's mood, and how many findings of each severity there are.
fn headline(findings: &[&Finding], problems: usize) -> (&'static str, String) {
    let open: Vec<Severity> =
        findings.iter().filter(|found| found.status == Status::Open).map(|found| found.severity).collect();
    let Some(worst) = open.iter().max() else {
        return ("fine", "Nothing was found: no finding was open at this moment.".to_owned());
    };
    let of = |severity: Severity| open.iter().filter(|it| **it == severity).count();
    let counts = [
        (of(Severity::Critical), "critical", "critical"),
        (of(Severity::Warning), "warning", "warnings"),
        (of(Severity::Info), "note", "notes"),
    ];
    let counts: Vec<String> =
        counts.into_iter().filter(|it| it.0 > 0).map(|(count, one, more)| of_them(count, one, more)).collect();
    let problems = of_them(problems, "problem", "problems");
    (worst.name(), format!("{problems}, {}: {}", of_them(open.len(), "finding", "findings"), counts.join(", ")))
}
