//! Reads the identity of one process from /proc. The only part of [`super`] that opens files, besides
//! [`super::files`].
//!
//! The `procfs` crate is not used: it takes names, arguments and control groups to be UTF-8 and fails the whole process
//! otherwise, and it reads arguments without a bound.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};
use tracer_core::event::ProcessId;
use tracer_core::identity::{Ancestor, Identity, undeleted};

use super::cgroup::Cgroup;
use super::files::{STAT_MAX, Stat, is_gone, read_bounded};
use super::launch::{Launched, Seen};
use super::{CmdlinePolicy, redact};

/// Most parents that are followed.
pub const ANCESTORS_MAX: usize = 16;
/// Bytes of a command line that are read.
const CMDLINE_MAX: usize = 128 * 1024;
/// Bytes of any text that is kept: the kernel's `PATH_MAX`.
const TEXT_MAX: usize = 4_096;
/// Bytes of `status` and `cgroup` that are read.
const FILE_MAX: usize = 64 * 1024;
/// User names remembered.
const USERS_MAX: usize = 1_024;
/// Readings of a process that starts other programs while it is read.
const ATTEMPTS: usize = 4;

/// Why a process that exists cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The kernel refused.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not the kernel's format.
    #[error("{} is not what the kernel writes", path.display())]
    Format {
        /// Which file.
        path: PathBuf,
    },
}

/// Reads identities. Keeps the names of users, whose look-up can be slow; parents are read each time, because the file
/// that could confirm a kept one (`stat`) is the one that holds everything there is to keep.
#[derive(Debug)]
pub struct IdentityReader {
    proc_root: PathBuf,
    policy: CmdlinePolicy,
    users: HashMap<u32, Option<String>>,
}

/// What tells one program of one process from the next.
#[derive(PartialEq, Eq)]
struct Version {
    start_ticks: u64,
    comm: Vec<u8>,
    exe: Option<String>,
}

impl IdentityReader {
    /// A reader of the /proc mounted at `proc_root`.
    #[must_use]
    pub fn new(proc_root: &Path, policy: CmdlinePolicy) -> Self {
        Self { proc_root: proc_root.to_owned(), policy, users: HashMap::new() }
    }

    /// Reads command lines, or does not, from now on.
    pub fn set_policy(&mut self, policy: CmdlinePolicy) {
        self.policy = policy;
    }

    /// Who `pid` is; `None` if there is no such process. What is read belongs to one process and, unless it starts one
    /// program after the other, to one program: start time, name and program file are the same before and after.
    pub fn read(&mut self, pid: u32) -> Result<Option<Identity>, IdentityError> {
        let dir = self.proc_root.join(pid.to_string());
        let Some(mut before) = stat(&dir)? else { return Ok(None) };
        let mut version = version(&dir, &before);
        for attempt in 1.. {
            let identity = self.once(&dir, pid, &before, version.exe.clone());
            let Some(after) = stat(&dir)? else { return Ok(None) };
            let now = self::version(&dir, &after);
            let settled = attempt >= ATTEMPTS && now.start_ticks == version.start_ticks;
            if now == version || settled {
                return Ok(Some(identity));
            }
            if attempt >= 2 * ATTEMPTS {
                break;
            }
            (before, version) = (after, now);
        }
        Ok(None)
    }

    /// Whether the process still runs; unreadable counts as running, an ended one that nobody has waited for does not.
    #[must_use]
    pub fn is_alive(&self, id: ProcessId) -> bool {
        match stat(&self.proc_root.join(id.pid.to_string())) {
            Ok(Some(stat)) => stat.start_ticks == id.start_ticks && !(stat.state == b'Z' && stat.threads <= 1),
            Ok(None) => false,
            Err(_) => true,
        }
    }

    /// Its parent's pid now; `None` if it is gone, or that cannot be read.
    #[must_use]
    pub fn parent(&self, id: ProcessId) -> Option<u32> {
        let stat = stat(&self.proc_root.join(id.pid.to_string())).ok().flatten()?;
        Some(stat.ppid).filter(|ppid| stat.start_ticks == id.start_ticks && *ppid != 0)
    }

    fn once(&mut self, dir: &Path, pid: u32, stat: &Stat, exe: Option<String>) -> Identity {
        let arguments = arguments(dir);
        let cwd = link(dir, "cwd");
        let comm = stat.comm_text();
        let status = text(dir, "status").unwrap_or_default();
        let uid = effective_uid(&status);
        let seen = Seen { exe: exe.as_deref(), comm: &comm, cwd: cwd.as_deref(), uid, arguments: &arguments };
        let launched = Launched::of(&seen);
        let ancestors = self.ancestors(stat.ppid);
        let master = exe.as_deref().and_then(|exe| self.master(&launched, exe, &ancestors));
        let cgroup = text(dir, "cgroup").map(|text| Cgroup::parse(&text)).unwrap_or_default();
        let keep_cmdline = self.policy == CmdlinePolicy::Redacted && !arguments.is_empty();
        Identity {
            id: ProcessId { pid, start_ticks: stat.start_ticks },
            comm,
            exe,
            script: launched.script.map(cut),
            cmdline: keep_cmdline.then(|| redact::cmdline(&arguments)),
            ns_pid: ns_pid(&status),
            ppid: Some(stat.ppid).filter(|ppid| *ppid != 0),
            ancestors,
            master,
            uid,
            user: uid.and_then(|uid| self.user(uid)),
            cgroup: cgroup.path.map(cut),
            container_id: cgroup.container_id.map(cut),
            systemd_unit: cgroup.systemd_unit.map(cut),
            group: launched.group,
        }
    }

    /// The parents from `pid` up, as far as they can be read.
    fn ancestors(&self, mut pid: u32) -> Vec<Ancestor> {
        let mut out = Vec::new();
        while pid != 0 && out.len() < ANCESTORS_MAX {
            let Ok(Some(stat)) = stat(&self.proc_root.join(pid.to_string())) else { break };
            out.push(Ancestor { pid, comm: stat.comm_text() });
            pid = stat.ppid;
        }
        out
    }

    /// The outermost of these that runs the same program.
    fn master(&self, launched: &Launched, exe: &str, ancestors: &[Ancestor]) -> Option<u32> {
        let same = |ancestor: &&Ancestor| {
            let dir = self.proc_root.join(ancestor.pid.to_string());
            // Few are of the same file: only their arguments are read.
            let Some(own) = link(&dir, "exe").filter(|own| undeleted(own) == undeleted(exe)) else { return false };
            let (arguments, cwd) = (arguments(&dir), link(&dir, "cwd"));
            let seen =
                Seen { exe: Some(&own), comm: &ancestor.comm, cwd: cwd.as_deref(), uid: None, arguments: &arguments };
            launched.is_child_of_same(&Launched::of(&seen))
        };
        ancestors.iter().rev().find(same).map(|ancestor| ancestor.pid)
    }

    fn user(&mut self, uid: u32) -> Option<String> {
        if self.users.len() >= USERS_MAX {
            self.users.clear();
        }
        let look_up = || User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| cut(user.name));
        self.users.entry(uid).or_insert_with(look_up).clone()
    }
}

fn version(dir: &Path, stat: &Stat) -> Version {
    Version { start_ticks: stat.start_ticks, comm: stat.comm.clone(), exe: link(dir, "exe") }
}

fn stat(dir: &Path) -> Result<Option<Stat>, IdentityError> {
    let path = dir.join("stat");
    match read_bounded(&path, STAT_MAX) {
        Ok(read) => match Stat::parse(&read.bytes) {
            Some(stat) => Ok(Some(stat)),
            None => Err(IdentityError::Format { path }),
        },
        Err(error) if is_gone(&error) => Ok(None),
        Err(source) => Err(IdentityError::Read { path, source }),
    }
}

/// Where a link below `/proc/PID` points, " (deleted)" kept; `None` for kernel threads and without the right to look.
fn link(dir: &Path, name: &str) -> Option<String> {
    let target = std::fs::read_link(dir.join(name)).ok()?;
    Some(cut(target.to_string_lossy().into_owned()))
}

fn text(dir: &Path, name: &str) -> Option<String> {
    let read = read_bounded(&dir.join(name), FILE_MAX).ok()?;
    Some(String::from_utf8_lossy(&read.bytes).into_owned())
}

/// The arguments. What the bound cuts off could be half a secret without what marks it as one, so a cut argument goes
/// whole.
fn arguments(dir: &Path) -> Vec<String> {
    let Ok(read) = read_bounded(&dir.join("cmdline"), CMDLINE_MAX) else { return Vec::new() };
    let mut bytes = read.bytes.as_slice();
    if read.truncated {
        let whole = bytes.iter().rposition(|byte| *byte == 0).map_or(0, |end| end + 1);
        bytes = bytes.get(..whole).unwrap_or_default();
    }
    if bytes.is_empty() {
        return Vec::new();
    }
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// The second number of `Uid:` in `status`.
fn effective_uid(status: &str) -> Option<u32> {
    let numbers = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    numbers.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The last number of `NSpid:` in `status`, if there are several: the pid in the innermost namespace. The first is the
/// one in this /proc's.
fn ns_pid(status: &str) -> Option<u32> {
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    numbers.split_ascii_whitespace().skip(1).last()?.parse().ok()
}

/// At most [`TEXT_MAX`] bytes of `text`.
fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_MAX));
    text
}

#[cfg(test)]
mod tests;
