//! Findings over time: opened when a verdict first holds, updated when its numbers move, resolved when it has not held
//! for long enough.

use std::collections::{BTreeMap, BTreeSet};

use super::survey::Survey;
use super::{Context, DETECTORS, DetectConfig, Verdict};
use crate::finding::{Change, FINDING_SCHEMA, Finding, FindingLine, Kind, Status};
use crate::identity::stable_id;
use crate::time::{BootNs, WallAnchor, WallTime};
use crate::tracker::Tracker;

/// Open findings kept; more are counted.
const MOST_OPEN: usize = 10_000;

#[derive(Clone, Debug)]
struct Entry {
    first_seen: BootNs,
    last_seen: BootNs,
    last_told: BootNs,
    /// The news as last told.
    told: String,
    verdict: Verdict,
}

/// The open findings.
#[derive(Debug, Default)]
pub struct Store {
    open: BTreeMap<(Kind, String), Entry>,
    without_room: u64,
}

impl Store {
    /// Verdicts of the last run that found no room among the open findings.
    #[must_use]
    pub fn without_room(&self) -> u64 {
        self.without_room
    }

    /// Runs every detector and returns what changed, in a stable order.
    pub fn run(
        &mut self,
        tracker: &Tracker,
        config: &DetectConfig,
        now: BootNs,
        anchor: &WallAnchor,
    ) -> Vec<FindingLine> {
        let mut lines = Vec::new();
        self.without_room = 0;
        let survey = Survey::of(tracker);
        for detector in DETECTORS {
            let kind = detector.kind();
            let open = &self.open;
            let before = |kind: Kind, key: &str| open.get(&(kind, key.to_owned())).map(|entry| entry.verdict.severity);
            let context = Context { tracker, now, config, survey: &survey, before: &before };
            let verdicts = if config.is_enabled(kind) { detector.detect(&context) } else { Vec::new() };
            let clear_after = detector.clear_after(config);
            let holding: BTreeSet<&str> = verdicts.iter().map(|verdict| verdict.key.as_str()).collect();
            let cleared: Vec<(String, String)> = open
                .range((kind, String::new())..)
                .take_while(|((of, _), _)| *of == kind)
                .filter(|((_, key), entry)| {
                    !holding.contains(key.as_str()) && now.since(entry.last_seen) >= clear_after
                })
                .map(|((_, key), entry)| (key.clone(), detector.resolved_summary(&context, &entry.verdict)))
                .collect();
            for verdict in verdicts {
                lines.extend(self.take(kind, verdict, config, now, anchor));
            }
            for (key, summary) in cleared {
                lines.extend(self.resolve(kind, key, summary, anchor, now));
            }
        }
        lines
    }

    fn take(
        &mut self,
        kind: Kind,
        verdict: Verdict,
        config: &DetectConfig,
        now: BootNs,
        anchor: &WallAnchor,
    ) -> Option<FindingLine> {
        let key = (kind, verdict.key.clone());
        let full = self.open.len() >= MOST_OPEN;
        let Some(entry) = self.open.get_mut(&key) else {
            if full {
                self.without_room += 1;
                return None;
            }
            let told = verdict.news.clone();
            let entry = Entry { first_seen: now, last_seen: now, last_told: now, told, verdict };
            let line = line(Change::Opened, finding(kind, &entry, Status::Open, anchor), anchor.wall(now));
            self.open.insert(key, entry);
            return Some(line);
        };
        let news = entry.verdict.severity != verdict.severity
            || (entry.told != verdict.news && now.since(entry.last_told) >= config.window);
        entry.last_seen = now;
        entry.verdict = verdict;
        if !news {
            return None;
        }
        entry.last_told = now;
        entry.told.clone_from(&entry.verdict.news);
        Some(line(Change::Updated, finding(kind, entry, Status::Open, anchor), anchor.wall(now)))
    }

    fn resolve(
        &mut self,
        kind: Kind,
        key: String,
        summary: String,
        anchor: &WallAnchor,
        now: BootNs,
    ) -> Option<FindingLine> {
        let mut entry = self.open.remove(&(kind, key))?;
        let open_for = super::spoken(now.since(entry.first_seen));
        entry.verdict.summary = format!("{summary}, open for {open_for}");
        Some(line(Change::Resolved, finding(kind, &entry, Status::Resolved, anchor), anchor.wall(now)))
    }

    /// The open findings, worst first.
    #[must_use]
    pub fn findings(&self, anchor: &WallAnchor) -> Vec<Finding> {
        let mut all: Vec<Finding> =
            self.open.iter().map(|((kind, _), entry)| finding(*kind, entry, Status::Open, anchor)).collect();
        all.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| (a.kind, &a.id).cmp(&(b.kind, &b.id))));
        all
    }
}

fn line(change: Change, finding: Finding, at: WallTime) -> FindingLine {
    FindingLine { schema: FINDING_SCHEMA.to_owned(), change, at, finding }
}

fn finding(kind: Kind, entry: &Entry, status: Status, anchor: &WallAnchor) -> Finding {
    let verdict = entry.verdict.clone();
    Finding {
        id: stable_id(&[kind.name(), &verdict.key]),
        kind,
        severity: verdict.severity,
        confidence: verdict.confidence,
        status,
        first_seen: anchor.wall(entry.first_seen),
        last_seen: anchor.wall(entry.last_seen),
        subject: verdict.subject,
        summary: verdict.summary,
        evidence: verdict.evidence,
        ruled_out: verdict.ruled_out,
        remedy: verdict.remedy,
        verify: verdict.verify,
    }
}
