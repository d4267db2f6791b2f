//! What changed from one snapshot to another: what opened, closed, grew, appeared and cleared. Shapes here, the
//! comparison in `compare`.
//!
//! Pure: two snapshots in, one value out. They may be of different runs of the daemon, or one of them standalone: so
//! lives are told apart by what the host says of them, not by what one daemon calls them.

mod compare;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::Role;
use crate::finding::{Finding, Kind, Severity};
use crate::snapshot::{Completeness, Limit, Opener};
use crate::tcp::TcpState;
use crate::time::WallTime;

/// The `schema` of a [`Diff`].
pub const DIFF_SCHEMA: &str = "socklife.diff/v1";

/// What changed between two snapshots. Lists hold what changed and nothing else, the largest change first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Diff {
    /// [`DIFF_SCHEMA`].
    pub schema: String,
    /// The first snapshot.
    pub before: Side,
    /// The second.
    pub after: Side,
    /// From the first to the second in seconds; negative if the second is older.
    pub elapsed_s: i64,
    /// Whether both are of one host.
    pub same_host: bool,
    /// Whether both are of one run of a daemon: only then totals can be compared.
    pub same_run: bool,
    /// Databases.
    pub endpoints: Vec<EndpointChange>,
    /// Programs by the way they were started.
    pub launcher_groups: Vec<GroupChange>,
    /// Processes.
    pub processes: Vec<ProcessChange>,
    /// Connections that are in the second snapshot only, oldest first.
    pub opened: Vec<ConnectionRef>,
    /// Connections that are in the first snapshot only, oldest first.
    pub closed: Vec<ConnectionRef>,
    /// Connections in both.
    pub kept: u64,
    /// Findings that are open in the second snapshot only, worst first.
    pub appeared: Vec<Finding>,
    /// Findings that are open in the first snapshot only, worst first.
    pub cleared: Vec<Finding>,
    /// Findings that are open in both and say something else now.
    pub changed: Vec<FindingChange>,
}

/// One of the two snapshots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Side {
    /// When it was taken.
    pub captured_at: WallTime,
    /// Of which host.
    pub hostname: String,
    /// What its counts are worth.
    pub completeness: Completeness,
}

/// What became of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// In the second snapshot only.
    Appeared,
    /// In the first snapshot only.
    Gone,
    /// In both, with other numbers.
    Changed,
}

/// A number in both snapshots; 0 where its owner is in one alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Pair {
    pub before: u64,
    pub after: u64,
}

/// A limit in both snapshots; null where it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the names say it")]
pub struct LimitPair {
    pub before: Option<Limit>,
    pub after: Option<Limit>,
}

/// How a database changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EndpointChange {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// This host's side.
    pub role: Role,
    /// What became of it.
    pub fate: Fate,
    /// The most it takes, as each snapshot has it.
    pub limit: LimitPair,
    /// Open connections.
    pub open: Pair,
    /// Opened in between; null if the snapshots are of different runs.
    pub opened: Option<u64>,
    /// Closed in between; null if the snapshots are of different runs.
    pub closed: Option<u64>,
    /// Attempts that failed in between; null if the snapshots are of different runs.
    pub failed: Option<u64>,
}

/// How a launcher group changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GroupChange {
    /// Its id.
    pub id: String,
    /// What people call it.
    pub label: String,
    /// What became of it.
    pub fate: Fate,
    /// Live members with connections.
    pub instances: Pair,
    /// Open connections.
    pub open: Pair,
    /// Members in the second snapshot only, ascending.
    pub pids_appeared: Vec<u32>,
    /// Members in the first snapshot only, ascending.
    pub pids_gone: Vec<u32>,
}

/// How a process changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProcessChange {
    /// Its pid.
    pub pid: u32,
    /// When it started.
    pub start_time: WallTime,
    /// What people call it: its script, else its name.
    pub label: String,
    /// What became of it.
    pub fate: Fate,
    /// Open connections, all endpoints together.
    pub open: Pair,
    /// Whether it still ran at the second snapshot.
    pub alive: bool,
}

/// A connection in one of the snapshots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConnectionRef {
    /// Inode number of its network namespace.
    pub netns: u32,
    /// This end.
    pub local: String,
    /// The other end.
    pub remote: String,
    /// Endpoint id.
    pub endpoint: String,
    /// This side.
    pub role: Role,
    /// Its TCP state there.
    pub state: TcpState,
    /// When it was established, if seen.
    pub opened_at: Option<WallTime>,
    /// Who opened or accepted it, if seen.
    pub opener: Option<Opener>,
    /// Who had it open, ascending.
    pub holder_pids: Vec<u32>,
}

/// A finding that says something else now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FindingChange {
    /// Its id.
    pub id: String,
    /// Which verdict.
    pub kind: Kind,
    /// Severity in the first snapshot.
    pub severity_before: Severity,
    /// Severity in the second.
    pub severity_after: Severity,
    /// Its sentence in the first snapshot.
    pub summary_before: String,
    /// Its sentence in the second.
    pub summary_after: String,
}
