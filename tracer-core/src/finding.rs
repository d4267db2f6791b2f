//! A finding: a verdict with its evidence. Shapes only; `detect` makes them.

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::time::WallTime;

/// The `schema` of a finding on a tail line.
pub const FINDING_SCHEMA: &str = "socklife.finding/v1";

/// Every verdict there is. Names are fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The staircase: connections only pile up.
    ConnectionLeak,
    /// The hard ceiling: an endpoint is at N of L.
    LimitPressure,
    /// At this rate an endpoint is full at a time that can be told.
    HeadroomForecast,
    /// A restart freed them: the leak is in the application.
    RestartDrop,
    /// A client, and so a connection, per request.
    ClientPerRequest,
    /// Held and not used.
    IdleHold,
    /// Opened, authenticated, never used.
    UnusedConnection,
    /// The database hung up, the process never closed.
    CloseWaitLeak,
    /// N copies of one launcher hold M connections.
    DuplicateLaunchers,
    /// Many pools in one process.
    PoolSprawl,
    /// The pool is K times what is used.
    OversizedPool,
    /// Nobody is minding it.
    OrphanedConnection,
    /// An endpoint refuses or does not answer.
    ConnectFailures,
    /// The path is dead, and the process does not know.
    PeerUnreachable,
    /// This side closed, and the database never heard of it.
    HalfOpenAtDatabase,
    /// Idle for longer than the network remembers.
    SilentDropRisk,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 16] = [
        Self::ConnectionLeak,
        Self::LimitPressure,
        Self::HeadroomForecast,
        Self::RestartDrop,
        Self::ClientPerRequest,
        Self::IdleHold,
        Self::UnusedConnection,
        Self::CloseWaitLeak,
        Self::DuplicateLaunchers,
        Self::PoolSprawl,
        Self::OversizedPool,
        Self::OrphanedConnection,
        Self::ConnectFailures,
        Self::PeerUnreachable,
        Self::HalfOpenAtDatabase,
        Self::SilentDropRisk,
    ];

    /// The name in JSON and configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ConnectionLeak => "connection_leak",
            Self::LimitPressure => "limit_pressure",
            Self::HeadroomForecast => "headroom_forecast",
            Self::RestartDrop => "restart_drop",
            Self::ClientPerRequest => "client_per_request",
            Self::IdleHold => "idle_hold",
            Self::UnusedConnection => "unused_connection",
            Self::CloseWaitLeak => "close_wait_leak",
            Self::DuplicateLaunchers => "duplicate_launchers",
            Self::PoolSprawl => "pool_sprawl",
            Self::OversizedPool => "oversized_pool",
            Self::OrphanedConnection => "orphaned_connection",
            Self::ConnectFailures => "connect_failures",
            Self::PeerUnreachable => "peer_unreachable",
            Self::HalfOpenAtDatabase => "half_open_at_database",
            Self::SilentDropRisk => "silent_drop_risk",
        }
    }

    /// By name, where bytes are kept: the order of kinds is no promise.
    pub(crate) fn serialize_name<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }

    pub(crate) fn deserialize_name<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        Self::from_name(&name).ok_or_else(|| D::Error::custom("no kind of finding"))
    }

    /// The kind of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Will hurt.
    Warning,
    /// Hurts now.
    Critical,
}

impl Severity {
    /// The name in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// Whether it is still true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// True now.
    Open,
    /// Was true.
    Resolved,
}

/// What a tail line says happened to a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It became true.
    Opened,
    /// Its numbers or severity changed.
    Updated,
    /// It is no longer true.
    Resolved,
}

/// What a finding is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Subject {
    /// The endpoint, `IP:PORT`.
    pub endpoint: Option<String>,
    /// The processes, ascending.
    pub pids: Vec<u32>,
    /// The launcher group's id.
    pub launcher_group: Option<String>,
}

/// A number or a text that supports the verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// What was measured, snake_case.
    pub fact: String,
    /// The value: a number, a text or a list.
    pub value: EvidenceValue,
    /// The unit, empty for plain text.
    pub unit: String,
}

/// The value of an [`Evidence`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[expect(missing_docs, reason = "the variants are JSON's types")]
pub enum EvidenceValue {
    Integer(i64),
    Number(f64),
    Text(String),
    List(Vec<String>),
}

/// A verdict with its evidence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// Stable while the finding stays open, and across a daemon restart.
    pub id: String,
    /// Which verdict.
    pub kind: Kind,
    /// How much it matters.
    pub severity: Severity,
    /// 0 to 1, computed from the evidence; how is documented at each kind.
    pub confidence: f64,
    /// Whether it is still true.
    pub status: Status,
    /// When it became true.
    pub first_seen: WallTime,
    /// When it was last true.
    pub last_seen: WallTime,
    /// What it is about.
    pub subject: Subject,
    /// One sentence with the numbers.
    pub summary: String,
    /// The facts behind it.
    pub evidence: Vec<Evidence>,
    /// Look-alikes that were checked and excluded.
    pub ruled_out: Vec<String>,
    /// Ids of open findings about the same endpoint and a process or launcher group of this one's, ascending.
    #[serde(default)]
    pub related: Vec<String>,
    /// Of these, the one that brings this one about; null if it stands for itself.
    pub cause: Option<String>,
    /// What to do, one sentence.
    pub remedy: String,
    /// A command that shows the same fact with another tool.
    pub verify: String,
    /// Why it is not told, if a rule of the configuration says so; null if it is told.
    pub ignored: Option<Ignored>,
}

/// A finding that is not told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ignored {
    /// Why, as the configuration says.
    pub reason: String,
    /// From then on it is told; null if never.
    pub until: Option<WallTime>,
}

/// One line of `tail --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FindingLine {
    /// [`FINDING_SCHEMA`].
    pub schema: String,
    /// What happened to it.
    pub change: Change,
    /// When.
    pub at: WallTime,
    /// The finding as it is now.
    #[serde(flatten)]
    pub finding: Finding,
}
