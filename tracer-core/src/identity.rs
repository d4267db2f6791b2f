//! Who a process is, as read from /proc by `tracer-user`'s process module. All strings are the process' own and
//! hostile: escape them at output.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::ProcessId;

/// Everything known of one process. `None` means unknown, never "empty".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Its pid in its own pid namespace; `None` if that is the same.
    pub ns_pid: Option<u32>,
    /// Parent's pid.
    pub ppid: Option<u32>,
    /// Parents up to init, nearest first, at most 16.
    pub ancestors: Vec<Ancestor>,
    /// The outermost of these that runs the same program, if one does: the master of a worker, or a copy that started it.
    pub master: Option<u32>,
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
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LauncherGroup {
    /// Stable across restarts: a hash of what the members share, 16 hex digits.
    pub id: String,
    /// What people call it: the script's file name, else the program's.
    pub label: String,
}

/// A path that the kernel gave, without its mark for a file that was deleted meanwhile.
#[must_use]
pub fn undeleted(path: &str) -> &str {
    path.strip_suffix(" (deleted)").unwrap_or(path)
}

/// What follows the last slash: empty if nothing does, everything if there is none.
#[must_use]
pub fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// 64-bit FNV-1a: a hash that is the same on every host and in every version, for ids that users store. Shown as 16 hex
/// digits.
#[derive(Clone, Copy, Debug)]
pub struct Fnv1a(u64);

impl Default for Fnv1a {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv1a {
    /// Adds bytes. What keeps two fields apart is the caller's to add.
    pub fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

impl fmt::Display for Fnv1a {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A name for what the parts describe: [`Fnv1a`] over the parts, each ended by a NUL.
#[must_use]
pub fn stable_id(parts: &[&str]) -> String {
    let mut hash = Fnv1a::default();
    for part in parts {
        hash.write(part.as_bytes());
        hash.write(&[0]);
    }
    hash.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_program_files() {
        for (exe, name) in [("/usr/bin/psql", "psql"), ("/opt/a b (deleted)", "a b"), ("psql", "psql"), ("/opt/", "")] {
            assert_eq!(file_name(undeleted(exe)), name, "{exe}");
        }
        assert_eq!(undeleted("/a (deleted) (deleted)"), "/a (deleted)");
    }

    #[test]
    fn stable_ids_never_change_and_keep_parts_apart() {
        assert_eq!(stable_id(&["a"]), "089be207b544f1e4");
        assert_ne!(stable_id(&["ab", "c"]), stable_id(&["a", "bc"]));
    }

    #[test]
    fn the_hash_is_the_published_one() {
        let mut hash = Fnv1a::default();
        hash.write(b"foobar");
        assert_eq!(hash.to_string(), "85944171f73967e8", "the published FNV-1a test vector");
    }
}
