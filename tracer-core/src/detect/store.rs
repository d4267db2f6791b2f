//! Findings over time: opened when a verdict first holds, updated when its numbers move, resolved when it has not held
//! for long enough.

use std::collections::{BTreeMap, BTreeSet};

use super::carried::{self, Carried};
use super::relations::{About, Related, Relations};
use super::scoped::Scoped;
use super::survey::Survey;
use super::{Context, DETECTORS, DetectConfig, Detector, Ignore, Verdict};
use crate::finding::{Change, FINDING_SCHEMA, Finding, FindingLine, Ignored, Kind, Status, Subject};
use crate::identity::stable_id;
use crate::snapshot::Completeness;
use crate::state::FindingState;
use crate::time::{BootNs, WallAnchor, WallTime};
use crate::tracker::Tracker;

/// Open findings kept; more are counted.
const MOST_OPEN: usize = 10_000;

#[derive(Clone, Debug)]
struct Entry {
    id: String,
    first_seen: BootNs,
    last_seen: BootNs,
    last_told: BootNs,
    /// The news as last told.
    told: String,
    verdict: Verdict,
    /// From before a restart of the daemon, and not seen true since.
    carried: bool,
    /// It is not told, for this reason.
    ignored: Option<Ignored>,
}

/// The open findings.
#[derive(Debug, Default)]
pub struct Store {
    open: BTreeMap<(Kind, String), Entry>,
    without_room: u64,
    /// Since the restart of the daemon: when a look was first known, and when all that a look can tell was.
    looked: Option<BootNs>,
    sighted: Option<BootNs>,
}

impl Store {
    /// Verdicts of the last run that found no room among the open findings.
    #[must_use]
    pub fn without_room(&self) -> u64 {
        self.without_room
    }

    /// Open findings that are not told.
    #[must_use]
    pub fn ignored(&self) -> usize {
        self.open.values().filter(|entry| entry.ignored.is_some()).count()
    }

    /// The open findings as far as they outlive the daemon.
    #[must_use]
    pub fn keep(&self) -> Vec<FindingState> {
        let one = |((kind, _), entry): (&(Kind, String), &Entry)| FindingState {
            kind: *kind,
            first_seen: entry.first_seen,
            last_seen: entry.last_seen,
            verdict: entry.verdict.clone(),
        };
        self.open.iter().map(one).collect()
    }

    /// What was open before the daemon was restarted is open still, as it was: until it shows again, or all is in sight
    /// and it does not. Call it before the first run.
    pub fn go_on_from(&mut self, findings: Vec<FindingState>) {
        for FindingState { kind, first_seen, last_seen, verdict } in findings.into_iter().take(MOST_OPEN) {
            let (id, told, carried) = (stable_id(&[kind.name(), &verdict.key]), verdict.news.clone(), true);
            let key = (kind, verdict.key.clone());
            let ignored = None;
            self.open.insert(
                key,
                Entry { id, first_seen, last_seen, last_told: last_seen, told, verdict, carried, ignored },
            );
        }
    }

    /// Runs every detector and returns what changed, in a stable order.
    pub fn run(
        &mut self,
        tracker: &Tracker,
        config: &DetectConfig,
        now: BootNs,
        anchor: &WallAnchor,
    ) -> Vec<FindingLine> {
        let mut news = Vec::new();
        self.without_room = 0;
        let survey = Survey::of(tracker);
        let carried = self.look_for_carried(tracker, config, &survey, now);
        let scoped = Scoped::of(config, tracker);
        // Those of before a restart come without what the rules say of them.
        for ((kind, _), entry) in self.open.iter_mut().filter(|(_, entry)| entry.carried) {
            entry.ignored = ignored(config, &scoped, *kind, &entry.verdict.subject, anchor.wall(now));
        }
        for detector in DETECTORS {
            let kind = detector.kind();
            let open = &self.open;
            let before = |kind: Kind, key: &str| open.get(&(kind, key.to_owned())).map(|entry| entry.verdict.severity);
            let context = Context { tracker, now, config, survey: &survey, before: &before };
            let verdicts = scoped.detect(detector, &context);
            let holding: BTreeSet<&str> = verdicts.iter().map(|verdict| verdict.key.as_str()).collect();
            let cleared: Vec<(String, String)> = open
                .range((kind, String::new())..)
                .take_while(|((of, _), _)| *of == kind)
                .filter(|((_, key), _)| !holding.contains(key.as_str()))
                .filter_map(|((_, key), entry)| {
                    let its = scoped.config_for(kind, &entry.verdict.subject);
                    let context = Context { config: its.as_ref().unwrap_or(config), ..context };
                    let summary = || (key.clone(), detector.resolved_summary(&context, &entry.verdict));
                    entry.is_over(detector, &context, carried.as_ref()).then(summary)
                })
                .collect();
            for verdict in verdicts {
                let ignored = ignored(config, &scoped, kind, &verdict.subject, anchor.wall(now));
                news.extend(self.take(kind, verdict, ignored, (config, now)));
            }
            for (key, summary) in cleared {
                news.extend(self.resolve(kind, key, &summary, now));
            }
        }
        self.lines(news, anchor.wall(now), anchor)
    }

    /// What is in sight to judge findings from before a restart by; nothing while too little is, or there are none.
    fn look_for_carried(
        &mut self,
        tracker: &Tracker,
        config: &DetectConfig,
        survey: &Survey<'_>,
        now: BootNs,
    ) -> Option<Sight> {
        if tracker.completeness() == Completeness::Unknown || !self.open.values().any(|entry| entry.carried) {
            return None;
        }
        let looked = *self.looked.get_or_insert(now);
        let context = Context { tracker, now, config, survey, before: &|_, _| None };
        if self.sighted.is_none() && carried::is_in_sight(&context, now.since(looked)) {
            self.sighted = Some(now);
        }
        self.sighted.map(|since| Sight { since, places: carried::places(tracker) })
    }

    fn take(
        &mut self,
        kind: Kind,
        verdict: Verdict,
        ignored: Option<Ignored>,
        (config, now): (&DetectConfig, BootNs),
    ) -> Option<News> {
        let key = (kind, verdict.key.clone());
        let full = self.open.len() >= MOST_OPEN;
        let Some(entry) = self.open.get_mut(&key) else {
            if full {
                self.without_room += 1;
                return None;
            }
            let id = stable_id(&[kind.name(), &verdict.key]);
            let (told, carried) = (verdict.news.clone(), false);
            let (first_seen, last_seen, last_told) = (now, now, now);
            let is_told = ignored.is_none();
            let entry = Entry { id, first_seen, last_seen, last_told, told, verdict, carried, ignored };
            self.open.insert(key.clone(), entry);
            return is_told.then_some(News::Opened(key));
        };
        let news = entry.verdict.severity != verdict.severity
            || (entry.told != verdict.news && now.since(entry.last_told) >= config.window);
        entry.last_seen = now;
        entry.carried = false;
        entry.verdict = verdict;
        let was_told = entry.ignored.is_none();
        entry.ignored = ignored;
        match (was_told, entry.ignored.is_none()) {
            (true, true) if news => {}
            // That it is not told from now on is the last that is told.
            (true, false) => return Some(News::Updated(key)),
            (false, true) => {
                entry.last_told = now;
                entry.told.clone_from(&entry.verdict.news);
                return Some(News::Opened(key));
            }
            _ => return None,
        }
        entry.last_told = now;
        entry.told.clone_from(&entry.verdict.news);
        Some(News::Updated(key))
    }

    fn resolve(&mut self, kind: Kind, key: String, summary: &str, now: BootNs) -> Option<News> {
        let mut entry = self.open.remove(&(kind, key))?;
        let open_for = super::spoken(now.since(entry.first_seen));
        entry.verdict.summary = format!("{summary}, open for {open_for}");
        entry.ignored.is_none().then_some(News::Resolved(kind, Box::new(entry)))
    }

    /// What is told, with what it is related to when all is known.
    fn lines(&self, news: Vec<News>, at: WallTime, anchor: &WallAnchor) -> Vec<FindingLine> {
        if news.is_empty() {
            return Vec::new();
        }
        let relations = self.relations();
        let line = |change, status, kind, entry: &Entry| FindingLine {
            schema: FINDING_SCHEMA.to_owned(),
            change,
            at,
            finding: finding(kind, entry, status, &relations, anchor),
        };
        let told = |news: &News| match news {
            News::Opened(key) => Some(line(Change::Opened, Status::Open, key.0, self.open.get(key)?)),
            News::Updated(key) => Some(line(Change::Updated, Status::Open, key.0, self.open.get(key)?)),
            News::Resolved(kind, entry) => Some(line(Change::Resolved, Status::Resolved, *kind, entry)),
        };
        news.iter().filter_map(told).collect()
    }

    fn relations(&self) -> Relations<'_> {
        // What is not told explains nothing that is.
        let told = self.open.iter().filter(|(_, entry)| entry.ignored.is_none());
        Relations::of(told.map(|((kind, _), entry)| about(*kind, entry)))
    }

    /// The open findings, worst first.
    #[must_use]
    pub fn findings(&self, anchor: &WallAnchor) -> Vec<Finding> {
        let relations = self.relations();
        let one =
            |((kind, _), entry): (&(Kind, String), &Entry)| finding(*kind, entry, Status::Open, &relations, anchor);
        let mut all: Vec<Finding> = self.open.iter().map(one).collect();
        all.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| (a.kind, &a.id).cmp(&(b.kind, &b.id))));
        all
    }
}

/// Why a finding about that subject is not told, if a rule says so.
fn ignored(
    config: &DetectConfig,
    scoped: &Scoped<'_>,
    kind: Kind,
    subject: &Subject,
    now: WallTime,
) -> Option<Ignored> {
    let whom = scoped.groups().filter(|_| !config.ignores.is_empty())?.whom(subject);
    config.ignores.iter().find(|ignore| ignore.takes(kind, &whom, now)).map(Ignore::as_said)
}

/// What is known again after a restart.
struct Sight {
    since: BootNs,
    /// Endpoints by id.
    places: BTreeMap<String, usize>,
}

impl Entry {
    /// Whether it has not held for long enough to be resolved.
    fn is_over(&self, detector: &dyn Detector, context: &Context<'_>, sight: Option<&Sight>) -> bool {
        let (now, config) = (context.now, context.config);
        let clear_after = detector.clear_after(config);
        match (self.carried, sight) {
            (false, _) => now.since(self.last_seen) >= clear_after,
            (true, None) => false,
            (true, Some(sight)) => {
                now.since(sight.since) >= clear_after
                    && !(config.is_enabled(detector.kind()) && detector.may_hold(context, &self.carried(sight)))
            }
        }
    }

    fn carried(&self, sight: &Sight) -> Carried<'_> {
        let endpoint = self.verdict.subject.endpoint.as_ref();
        Carried {
            verdict: &self.verdict,
            first_seen: self.first_seen,
            last_seen: self.last_seen,
            sighted: sight.since,
            endpoint: endpoint.and_then(|id| sight.places.get(id)).copied(),
        }
    }
}

/// What is worth telling.
enum News {
    Opened((Kind, String)),
    Updated((Kind, String)),
    Resolved(Kind, Box<Entry>),
}

fn about(kind: Kind, entry: &Entry) -> About<'_> {
    About { kind, id: &entry.id, subject: &entry.verdict.subject }
}

fn finding(kind: Kind, entry: &Entry, status: Status, relations: &Relations<'_>, anchor: &WallAnchor) -> Finding {
    let verdict = entry.verdict.clone();
    let Related { ids, cause } = relations.related(about(kind, entry));
    Finding {
        id: entry.id.clone(),
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
        related: ids,
        cause,
        remedy: verdict.remedy,
        verify: verdict.verify,
        ignored: entry.ignored.clone(),
    }
}
