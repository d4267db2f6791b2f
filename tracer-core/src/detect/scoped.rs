//! Thresholds for some endpoints or launcher groups alone. Detectors know one set of thresholds. So where there are several,
//! a detector runs once with each, and of each run those verdicts count whose subject goes by that set. Where there are
//! none, nothing is done.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::config::{Changes, DetectConfig, Of, Scope};
use super::whom::Groups;
use super::{Context, Detector, Verdict};
use crate::finding::{Kind, Subject};
use crate::tracker::Tracker;

/// The kinds whose settings a detector looks at.
fn kinds_of(kind: Kind) -> &'static [Kind] {
    match kind {
        // What is under pressure already needs no forecast.
        Kind::HeadroomForecast => &[Kind::HeadroomForecast, Kind::LimitPressure],
        _ => &[],
    }
}

/// Who goes by which thresholds.
pub(super) struct Scoped<'a> {
    config: &'a DetectConfig,
    tracker: &'a Tracker,
    /// Made only if there is something that is not for everybody.
    groups: Option<Groups<'a>>,
}

impl<'a> Scoped<'a> {
    pub fn of(config: &'a DetectConfig, tracker: &'a Tracker) -> Self {
        let needs_groups = !config.scopes.is_empty() || !config.ignores.is_empty();
        Self { config, tracker, groups: needs_groups.then(|| Groups::of(tracker)) }
    }

    /// Knows who subjects are; `None` if no rule of the configuration asks.
    pub fn groups(&self) -> Option<&Groups<'a>> {
        self.groups.as_ref()
    }

    /// The scopes with something for this detector.
    fn scopes(&self, kind: Kind) -> Vec<&'a Scope> {
        let concerns = |scope: &&Scope| concerns(&scope.changes, kind);
        self.config.scopes.iter().filter(concerns).collect()
    }

    /// Verdicts of a detector, each by the thresholds of its subject.
    pub fn detect(&self, detector: &dyn Detector, context: &Context<'_>) -> Vec<Verdict> {
        let kind = detector.kind();
        let run = |config: &DetectConfig| match config.is_enabled(kind) {
            true => detector.detect(&Context { config, ..*context }),
            false => Vec::new(),
        };
        let scopes = self.scopes(kind);
        let Some(groups) = self.groups.as_ref().filter(|_| !scopes.is_empty()) else { return run(self.config) };
        let mut all = Vec::new();
        for changes in self.sets(kind, &scopes, groups) {
            let mut verdicts = run(&self.config.with(&changes));
            verdicts.retain(|verdict| changes_for(kind, &scopes, groups, &verdict.subject) == changes);
            all.append(&mut verdicts);
        }
        all
    }

    /// The settings that a subject goes by; `None` if they are those of everybody.
    pub fn config_for(&self, kind: Kind, subject: &Subject) -> Option<DetectConfig> {
        let scopes = self.scopes(kind);
        let groups = self.groups.as_ref().filter(|_| !scopes.is_empty())?;
        Some(self.config.with(&changes_for(kind, &scopes, groups, subject)))
    }

    /// Every set of changes that somebody may go by.
    fn sets(&self, kind: Kind, scopes: &[&Scope], groups: &Groups<'_>) -> BTreeSet<Changes> {
        let places = self.tracker.endpoints().iter().filter_map(|endpoint| endpoint.place);
        let addrs = places.filter(|place| place.netns.is_none()).map(|place| Some(place.addr));
        let of_endpoints: BTreeSet<Changes> =
            addrs.chain([None]).map(|addr| changes(kind, scopes, addr, None)).collect();
        let labels = groups.labels().map(Some).chain([None]);
        let of_groups: BTreeSet<Changes> = labels.map(|label| changes(kind, scopes, None, label)).collect();
        let both = of_endpoints.iter().flat_map(|endpoint| {
            of_groups.iter().map(move |group| {
                let mut changes = endpoint.clone();
                changes.overlay(group);
                changes
            })
        });
        both.collect()
    }
}

fn concerns(changes: &Changes, kind: Kind) -> bool {
    changes.concern(kind) || kinds_of(kind).iter().any(|kind| changes.concern(*kind))
}

fn changes_for(kind: Kind, scopes: &[&Scope], groups: &Groups<'_>, subject: &Subject) -> Changes {
    let whom = groups.whom(subject);
    changes(kind, scopes, whom.addr, whom.label)
}

/// What is different there for the detector of a kind. The first scope that says something counts.
fn changes(kind: Kind, scopes: &[&Scope], addr: Option<SocketAddr>, label: Option<&str>) -> Changes {
    let mut all = Changes::default();
    for scope in scopes.iter().rev() {
        let is_its = match &scope.of {
            Of::Endpoint(matcher) => addr.is_some_and(|addr| matcher.matches(addr)),
            Of::Group(glob) => label.is_some_and(|label| glob.matches(label)),
        };
        if is_its {
            all.overlay(&scope.changes.only(|of| of == kind || kinds_of(kind).contains(&of)));
        }
    }
    all
}
