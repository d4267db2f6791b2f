//! Verdicts. Each kind is one file: a pure function of the tracker and `now`. The [`Store`] turns what is true now into
//! findings that open, change and resolve.

mod abandoned;
mod blame;
mod carried;
mod client_per_request;
mod close_wait_leak;
mod config;
mod connect_failures;
mod connection_leak;
mod copies;
mod duplicate_launchers;
mod facts;
mod half_open_at_database;
mod headroom_forecast;
mod idle_hold;
mod ignore;
mod limit_pressure;
mod orphaned_connection;
mod oversized_pool;
mod path;
mod peer_unreachable;
mod pool_sprawl;
mod relations;
mod requests;
mod rest;
mod restart_drop;
mod scoped;
mod silent_drop_risk;
mod staircase;
mod store;
mod survey;
mod unused_connection;
mod usage;
mod who;
mod whom;

use std::time::Duration;

pub use carried::Carried;
pub use config::{Changes, DetectConfig, KeptChanges, Of, Scope, SettingError, Settings, Threshold, thresholds};
pub use ignore::Ignore;
pub use store::Store;

use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;
use crate::event::ProcessId;
use crate::finding::{Evidence, EvidenceValue, Kind, Severity, Subject};
use crate::process::Process;
use crate::snapshot::{Completeness, Limit};
use crate::time::BootNs;
use crate::tracker::Tracker;
use survey::{Held, Survey};

/// Windows in which a course that goes on shows again after a restart of the daemon.
const SHOWS_WINDOWS: u32 = 6;

/// What a detector may look at.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// What is true now.
    pub tracker: &'a Tracker,
    /// Now.
    pub now: BootNs,
    /// Thresholds.
    pub config: &'a DetectConfig,
    /// What each process holds.
    pub(crate) survey: &'a Survey<'a>,
    /// Severity of the finding of this kind and key if it is open already: detectors let go later than they seize.
    pub before: &'a dyn Fn(Kind, &str) -> Option<Severity>,
}

/// What a living process holds at an endpoint.
#[derive(Clone, Copy)]
pub(crate) struct Holding<'a> {
    pub id: ProcessId,
    /// Of the endpoint, in the tracker.
    pub index: usize,
    pub process: &'a Process,
    pub endpoint: &'a Endpoint,
    /// Oldest first.
    pub held: &'a [Held<'a>],
}

impl<'a> Context<'a> {
    /// What each living process holds, in order.
    pub(crate) fn living(&self) -> impl Iterator<Item = Holding<'a>> {
        let tracker = self.tracker;
        self.survey.holders().filter_map(|(id, index, held)| {
            let process = tracker.processes().get(&id).filter(|process| process.ended.is_none())?;
            Some(Holding { id, index, process, endpoint: tracker.endpoints().get(index)?, held })
        })
    }
}

impl Context<'_> {
    /// The most that an endpoint takes, as far as it is known.
    pub(crate) fn limit(&self, endpoint: &Endpoint) -> Option<Limit> {
        endpoint.known_limit(self.now)
    }

    /// Factor on a confidence when counts may be short.
    #[must_use]
    pub fn completeness_factor(&self) -> f64 {
        match self.tracker.completeness() {
            Completeness::Exact => 1.0,
            Completeness::LowerBound => 0.9,
            Completeness::Unknown => 0.6,
        }
    }
}

/// Something that is true now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Tells findings of one kind apart and stays the same while one is open, and across restarts.
    pub key: String,
    /// How much it matters.
    pub severity: Severity,
    /// 0 to 1.
    pub confidence: f64,
    /// What it is about.
    pub subject: Subject,
    /// One sentence with the numbers.
    pub summary: String,
    /// An update is worth telling when this changes: the summary, less what merely passes, like an age.
    pub news: String,
    /// The facts behind it.
    #[serde(with = "facts")]
    pub evidence: Vec<Evidence>,
    /// Look-alikes that were checked and excluded.
    pub ruled_out: Vec<String>,
    /// What to do.
    pub remedy: String,
    /// How to see the same with another tool.
    pub verify: String,
}

/// One kind of verdict.
pub trait Detector: Send + Sync {
    /// Which.
    fn kind(&self) -> Kind;

    /// What the user may set.
    fn thresholds(&self) -> &'static [Threshold];

    /// How long it must have been untrue before the finding resolves.
    fn clear_after(&self, config: &DetectConfig) -> Duration;

    /// All that is true now.
    fn detect(&self, context: &Context<'_>) -> Vec<Verdict>;

    /// Whether a finding from before a restart of the daemon may be true although it does not show yet. What has to be
    /// seen anew takes some windows, unless those that it names are gone.
    fn may_hold(&self, context: &Context<'_>, carried: &Carried<'_>) -> bool {
        carried.is_within(context, context.config.window * SHOWS_WINDOWS) && carried.open(context) > 0
    }

    /// The last words of a finding: what is true of its subject now that it is resolved, and what was true last.
    fn resolved_summary(&self, context: &Context<'_>, last: &Verdict) -> String;
}

/// Every detector, in the order of [`Kind::ALL`].
pub const DETECTORS: [&dyn Detector; Kind::ALL.len()] = [
    &connection_leak::ConnectionLeak,
    &limit_pressure::LimitPressure,
    &headroom_forecast::HeadroomForecast,
    &restart_drop::RestartDrop,
    &client_per_request::ClientPerRequest,
    &idle_hold::IdleHold,
    &unused_connection::UnusedConnection,
    &close_wait_leak::CloseWaitLeak,
    &duplicate_launchers::DuplicateLaunchers,
    &pool_sprawl::PoolSprawl,
    &oversized_pool::OversizedPool,
    &orphaned_connection::OrphanedConnection,
    &connect_failures::ConnectFailures,
    &peer_unreachable::PeerUnreachable,
    &half_open_at_database::HalfOpenAtDatabase,
    &silent_drop_risk::SilentDropRisk,
];

/// A whole number as evidence.
fn count(fact: &str, value: impl TryInto<i64>, unit: &str) -> Evidence {
    let value = EvidenceValue::Integer(value.try_into().unwrap_or(i64::MAX));
    Evidence { fact: fact.to_owned(), value, unit: unit.to_owned() }
}

impl Verdict {
    fn fact(&self, name: &str) -> Option<&EvidenceValue> {
        self.evidence.iter().find(|evidence| evidence.fact == name).map(|evidence| &evidence.value)
    }

    /// The whole number behind a fact; 0 if there is none.
    fn number(&self, fact: &str) -> i64 {
        match self.fact(fact) {
            Some(EvidenceValue::Integer(value)) => *value,
            _ => 0,
        }
    }

    /// The text behind a fact; empty if there is none.
    fn text(&self, fact: &str) -> &str {
        match self.fact(fact) {
            Some(EvidenceValue::Text(value)) => value,
            _ => "",
        }
    }
}

/// A text as evidence.
fn text(fact: &str, value: impl Into<String>) -> Evidence {
    Evidence { fact: fact.to_owned(), value: EvidenceValue::Text(value.into()), unit: String::new() }
}

/// A list as evidence.
fn list(fact: &str, values: Vec<String>) -> Evidence {
    Evidence { fact: fact.to_owned(), value: EvidenceValue::List(values), unit: String::new() }
}

/// A duration as people say it: the two largest units.
fn spoken(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// `1 connection`, `2 connections`.
fn plural(count: u32, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
