//! The snapshot: everything socklife knows at one moment, in the shape users script against.
//!
//! Keys are fixed by the schema version; additions are allowed, renames are not. What was added is always written, and read
//! with a default where it is missing: a post-mortem's snapshot may be older than the command that reads it.

mod lines;

use std::collections::BTreeMap;

pub use lines::{EventLine, EventName, LOSS_SCHEMA, LossLine, Reset};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::Role;
use crate::finding::Finding;
use crate::identity::Ancestor;
use crate::inventory::RecognizedPort;
use crate::tcp::TcpState;
use crate::time::WallTime;

/// The `schema` of a snapshot.
pub const SNAPSHOT_SCHEMA: &str = "socklife.snapshot/v1";
/// The `schema` of a socket event on a tail line.
pub const EVENT_SCHEMA: &str = "socklife.event/v1";

/// One moment of a host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Snapshot {
    /// [`SNAPSHOT_SCHEMA`].
    pub schema: String,
    /// When it was taken.
    pub captured_at: WallTime,
    /// The host.
    pub host: Host,
    /// How it was seen and what was missed.
    pub capture: Capture,
    /// Databases, by address and role.
    pub endpoints: Vec<Endpoint>,
    /// Processes that opened or hold a connection, or did lately.
    pub processes: Vec<Process>,
    /// Processes started the same way.
    pub launcher_groups: Vec<LauncherGroup>,
    /// Live connections.
    pub connections: Vec<Connection>,
    /// Verdicts, worst first.
    pub findings: Vec<Finding>,
}

/// The host a snapshot was taken on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Host {
    /// Its name.
    pub hostname: String,
    /// Kernel release.
    pub kernel: String,
    /// Machine type.
    pub arch: String,
    /// Changes with every boot.
    pub boot_id: String,
    /// Version of the daemon (or of the command, for a standalone snapshot).
    pub socklife_version: String,
}

/// Where the facts come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Kernel events plus the socket table.
    Ebpf,
    /// The socket table alone.
    Poll,
}

/// Whether a hook delivers its fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProbeState {
    /// By the best hook there is.
    Attached,
    /// By a lesser hook; `reason` says why.
    Degraded,
    /// Not at all; `reason` says why.
    Missing,
}

/// How one fact reaches socklife on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Probe {
    /// The fact: `state_change`, `accept`, `close`, `end_of_life`, `path_trouble`, `process_life`.
    pub fact: String,
    /// The hook that delivers it.
    pub via: String,
    /// How well.
    pub state: ProbeState,
    /// Why not better; empty when attached.
    pub reason: String,
}

/// What was lost, by stage, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Loss {
    /// Records that found the ring buffer full.
    pub ring_full: u64,
    /// Of these, ends of connections: where the opening was told, a look finds the end (`missed_closes`), else the whole
    /// life is not in the totals.
    pub ends: u64,
    /// Reads of kernel memory that failed: a field of a record is 0, or a record is missing.
    pub read_failed: u64,
    /// Sockets that found the kernel side's map full.
    pub map_full: u64,
    /// Processes that found the kernel side's map full; their end shows at the next look.
    pub process_map_full: u64,
    /// Accepts that found the kernel side's map of them full: `accepted_total` of that process is short, or null.
    pub accept_map_full: u64,
    /// Times the kernel skipped a program because an interrupt came while it ran.
    pub program_skipped: u64,
    /// Events that found the queue to the tracker full.
    pub queue_full: u64,
    /// Records that could not be read.
    pub decode_errors: u64,
    /// Reconciles that had to repair the live set.
    pub resyncs: u64,
    /// Sockets a reconcile found that no event had announced.
    pub missed_opens: u64,
    /// Sockets a reconcile found gone that no event had ended.
    pub missed_closes: u64,
    /// Connections not tracked because the tracker was at its bound.
    pub tracker_full: u64,
}

/// What the counts are worth now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Completeness {
    /// Nothing was lost since the last reconcile.
    Exact,
    /// Something was lost or cannot be seen; counts may be short.
    LowerBound,
    /// The first look at the socket table is not done, or nothing is said of it.
    #[default]
    Unknown,
}

/// How the facts were gathered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Capture {
    /// Events or polling.
    pub mode: Mode,
    /// When tracing began.
    pub started_at: WallTime,
    /// Which hook delivers which fact.
    pub probes: Vec<Probe>,
    /// What was lost.
    pub loss: Loss,
    /// What the counts of what is open now are worth.
    pub completeness: Completeness,
    /// What the totals and series since the start are worth: a lower bound once any event was lost.
    #[serde(default)]
    pub totals: Completeness,
    /// What the connections' holders are worth: a lower bound while processes cannot be read or are hidden.
    #[serde(default)]
    pub holders: Completeness,
    /// Processes whose descriptors could not be read at the last look.
    #[serde(default)]
    pub unreadable_processes: u32,
    /// Whether /proc hides the processes of others (`hidepid`): then nobody knows how many hold what.
    #[serde(default)]
    pub hidden_processes: bool,
    /// Whether pids are those of the initial pid namespace; else of the one that a standalone snapshot was taken in.
    #[serde(default = "of_the_host")]
    pub host_pids: bool,
    /// Which configuration is in force.
    #[serde(default)]
    pub config: ConfigInForce,
    /// Network namespaces whose socket tables were read at the last look.
    #[serde(default)]
    pub namespaces: u32,
    /// Network namespaces that are there and could not be entered or read at the last look.
    #[serde(default)]
    pub unreachable_namespaces: u32,
    /// Ports that are watched because a known database server listened on them.
    #[serde(default)]
    pub recognized_ports: Vec<RecognizedPort>,
    /// Database servers whose ports found no room among the recognized ones.
    #[serde(default)]
    pub recognized_without_room: u32,
    /// Packets of watched ports that were thrown away too soon after another to be told: `endpoints[].drops` is short of
    /// them.
    #[serde(default)]
    pub drops_untold: u64,
    /// Verdicts that hold now but found no room among the open findings.
    #[serde(default)]
    pub findings_without_room: u64,
    /// Open findings that are not told, because a rule of the configuration says so; see `findings[].ignored`.
    #[serde(default)]
    pub findings_ignored: u32,
    /// Accounts of a process at an endpoint that found no room for a history: no trend is seen on these.
    #[serde(default)]
    pub accounts_without_history: u64,
    /// Closes that the peer had not acknowledged and of which it is not kept who did them, for want of room.
    #[serde(default)]
    pub closers_without_room: u64,
}

/// A snapshot that does not say it is of a daemon that had to see the host's pids.
fn of_the_host() -> bool {
    true
}

/// Which configuration is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigInForce {
    /// 1 from the start, one more with each reload that was applied; 0 where nothing is said of it.
    pub generation: u32,
    /// Names what is in force: the same settings have the same hash.
    pub hash: String,
    /// When it was loaded.
    pub loaded_at: WallTime,
    /// The file that it came from; null without one.
    pub file: Option<String>,
}

/// Where a limit comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitSource {
    /// The user said so.
    Config,
    /// The database said so.
    Database,
    /// From where clients were turned away twice: about so many.
    Inferred,
}

impl LimitSource {
    /// The name in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Database => "database",
            Self::Inferred => "inferred",
        }
    }
}

/// The most connections an endpoint takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Limit {
    /// Connections.
    pub value: u32,
    /// Who said so.
    pub source: LimitSource,
}

/// Counts over time at one resolution; the last value is the newest, possibly unfinished step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Series {
    /// Length of a step in seconds.
    pub step_s: u32,
    /// Start of the first step.
    pub start: WallTime,
    /// Open at the end of each step.
    pub open: Vec<u32>,
    /// Opened within each step.
    pub opened: Vec<u32>,
    /// Closed within each step.
    pub closed: Vec<u32>,
    /// Most connections seen in use at one look within each step (a lower bound; looks are `reconcile_s` apart).
    pub in_use: Vec<u32>,
}

/// Packets that this host threw away for one reason. At most a thousand a second and CPU are seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Drops {
    /// The kernel's name of the reason, such as `NETFILTER_DROP` (`enum skb_drop_reason`).
    pub reason: String,
    /// How many were seen.
    pub packets: u64,
    /// The last of them.
    pub last_at: WallTime,
}

/// A database as one side of this host sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Endpoint {
    /// `IP:PORT`, or `IP:PORT@netns:INODE` for a loopback address in another network namespace than the daemon's;
    /// `other` gathers what exceeds the bound on endpoints.
    pub id: String,
    /// Configured name, else the id.
    pub name: String,
    /// Which database.
    pub database: String,
    /// This host's side.
    pub role: Role,
    /// The most it takes: as somebody told, else as inferred; null if neither.
    pub limit: Option<Limit>,
    /// Connections past their handshake and not gone.
    pub open: u32,
    /// Most seen in use at one look: a lower bound of the true peak.
    pub in_use_peak: u32,
    /// Most open at once.
    pub open_peak: u32,
    /// Connections seen open, those found at start included.
    pub opened_total: u64,
    /// Of those, gone.
    pub closed_total: u64,
    /// Attempts that never reached ESTABLISHED.
    pub failed_total: u64,
    /// Live sockets by TCP state, those still connecting included.
    pub by_state: BTreeMap<TcpState, u32>,
    /// Packets from or to it that this host threw away, most first; where the kernel gives reasons (Linux 5.17).
    #[serde(default)]
    pub drops: Vec<Drops>,
    /// Counts over time, finest first.
    pub series: Vec<Series>,
}

/// A process that has or had connections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Process {
    /// Its pid in the initial pid namespace.
    pub pid: u32,
    /// Its pid in its own pid namespace, such as a container's; null if that is the same, or unknown.
    pub ns_pid: Option<u32>,
    /// When it started.
    pub start_time: WallTime,
    /// Its name.
    pub comm: String,
    /// Its program file; null if it ended before it could be read.
    pub exe: Option<String>,
    /// The file an interpreter runs.
    pub script: Option<String>,
    /// Redacted command line, if configured on.
    pub cmdline: Option<String>,
    /// Its parent.
    pub ppid: Option<u32>,
    /// Its parents, nearest first.
    pub ancestors: Vec<Ancestor>,
    /// Effective user id.
    pub uid: Option<u32>,
    /// That user's name.
    pub user: Option<String>,
    /// Control group path.
    pub cgroup: Option<String>,
    /// Container.
    pub container_id: Option<String>,
    /// systemd unit.
    pub systemd_unit: Option<String>,
    /// Id of its launcher group.
    pub launcher_group: Option<String>,
    /// Whether it still runs.
    pub alive: bool,
    /// TCP connections that it accepted on ports which are not watched, since it was known; null if nobody counts them.
    /// Requests are as many or more: a connection that is kept alive carries several.
    pub accepted_total: Option<u64>,
    /// What it opened, by endpoint.
    pub connections: Vec<ProcessConnections>,
}

/// One process' connections to one endpoint, as their opener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProcessConnections {
    /// Endpoint id.
    pub endpoint: String,
    /// Its side.
    pub role: Role,
    /// Open now.
    pub open: u32,
    /// Opened since tracing began, those found at start included.
    pub opened_total: u64,
    /// Of those, gone.
    pub closed_total: u64,
    /// Attempts that failed.
    pub failed_total: u64,
    /// Most seen in use at one look.
    pub in_use_peak: u32,
    /// Last byte either way on any of them, as far as was seen.
    pub last_active_at: Option<WallTime>,
    /// Memory the server holds for them; null when no estimate exists for the database.
    pub estimated_server_memory_bytes: Option<MemoryEstimate>,
}

/// An estimate with its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the names say it")]
pub struct MemoryEstimate {
    pub value: u64,
    pub min: u64,
    pub max: u64,
}

/// Processes started the same way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LauncherGroup {
    /// Stable across restarts.
    pub id: String,
    /// What people call it.
    pub label: String,
    /// Live members.
    pub instances: u32,
    /// Their pids, ascending.
    pub pids: Vec<u32>,
    /// Connections open, all members together.
    pub open: u32,
    /// Endpoint ids, ascending.
    pub endpoints: Vec<String>,
}

/// What is known of a connection's age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Age {
    /// Its opening was seen.
    Exact,
    /// It was there before tracing looked.
    AtLeast,
}

/// Who opened a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Opener")]
#[expect(missing_docs, reason = "the names say it")]
pub struct Opener<T = String> {
    pub pid: u32,
    pub comm: T,
}

/// Who has a connection open now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the names say it")]
pub struct HolderFd {
    pub pid: u32,
    pub fd: u32,
}

/// One live connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Connection {
    /// Names this life; stable while the daemon runs.
    pub id: String,
    /// Inode number of its network namespace.
    pub netns: u32,
    /// This end, `IP:PORT`.
    pub local: String,
    /// The other end.
    pub remote: String,
    /// Endpoint id.
    pub endpoint: String,
    /// Which database.
    pub database: String,
    /// This side.
    pub role: Role,
    /// TCP state.
    pub state: TcpState,
    /// Since when in this state, if seen.
    pub state_since: Option<WallTime>,
    /// When it was established; null if before tracing looked.
    pub opened_at: Option<WallTime>,
    /// Age in seconds, or its lower bound.
    pub age_s: u64,
    /// Which of the two.
    pub age: Age,
    /// Who opened or accepted it; null if not seen.
    pub opener: Option<Opener>,
    /// Who has it open, at the last look.
    pub holders: Vec<HolderFd>,
    /// Inode number of its socket, as `/proc/PID/fd` shows it while a process has it open; null while unknown.
    pub inode: Option<u32>,
    /// Seconds since the last byte either way, at the last look; null before the first look.
    pub idle_s: Option<u64>,
    /// Bytes sent at the last look.
    pub bytes_sent: u64,
    /// Bytes received at the last look.
    pub bytes_received: u64,
    /// Smoothed round-trip time.
    pub srtt_us: Option<u32>,
    /// Segments sent again.
    pub retransmits: u32,
    /// Consecutive retransmission time-outs.
    pub consecutive_rtos: u8,
    /// Segments sent and not acknowledged.
    pub unacked: u32,
    /// Keepalive on; null while unknown.
    pub keepalive: Option<bool>,
    /// Keepalives or window probes without an answer.
    #[serde(default)]
    pub unanswered_probes: u8,
    /// Seconds since anything was heard of the peer; null before the first look.
    pub heard_s: Option<u64>,
    /// The process that closed a client's side, while the peer has not closed its own; null if nobody did, or was seen to.
    pub closer_pid: Option<u32>,
}
