//! Who a process is, as read from /proc by `tracer-user`'s process module. All strings are the process' own and
//! hostile: escape them at output.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::ProcessId;

/// Everything known of one process. `None` means unknown, never "empty".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Which process.
    pub id: ProcessId,
    /// Its name (`/proc/PID/comm`).
    pub comm: String,
    /// Its program file (`/proc/PID/exe`), " (deleted)" kept.
    pub exe: Option<String>,
    /// The file an interpreter runs.
    pub script: Option<String>,
    /// Command line, only when configured on, redacted.
    pub cmdline: Option<String>,
    /// Parent's pid.
    pub ppid: Option<u32>,
    /// Parents up to init, nearest first, at most 16.
    pub ancestors: Vec<Ancestor>,
    /// Effective user id.
    pub uid: Option<u32>,
    /// That user's name.
    pub user: Option<String>,
    /// Control group path (v2, or the systemd hierarchy).
    pub cgroup: Option<String>,
    /// Container id taken from the control group path.
    pub container_id: Option<String>,
    /// systemd unit taken from the control group path.
    pub systemd_unit: Option<String>,
    /// Programs started the same way share a group.
    pub group: LauncherGroup,
}

/// A process above another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ancestor {
    /// Its pid.
    pub pid: u32,
    /// Its name.
    pub comm: String,
}

/// Processes of the same program, script, user and normalised arguments.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LauncherGroup {
    /// Stable across restarts: a hash of what the members share, 16 hex digits.
    pub id: String,
    /// What people call it: the script's file name, else the program's.
    pub label: String,
}
