//! What this process itself uses.

use std::path::Path;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::{SysconfVar, sysconf};

use crate::process::files::read_bounded;

/// Largest `statm`: seven numbers.
const STATM_BYTES_MAX: usize = 256;

/// What the process uses; what the system does not say is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnUse {
    /// Memory that is in place.
    pub resident_bytes: Option<u64>,
    /// Descriptors.
    pub open_fds: Option<u64>,
    /// Time on a CPU so far, in user mode and in the kernel.
    pub cpu: Option<Duration>,
}

/// As of now.
#[must_use]
pub fn own_use(proc_root: &Path) -> OwnUse {
    let own = proc_root.join("self");
    OwnUse {
        resident_bytes: resident_bytes(&own),
        open_fds: std::fs::read_dir(own.join("fd")).ok().and_then(|entries| u64::try_from(entries.count()).ok()),
        cpu: cpu(),
    }
}

/// The second number of `statm`, in pages (proc_pid_statm(5)).
fn resident_bytes(own: &Path) -> Option<u64> {
    let statm = read_bounded(&own.join("statm"), STATM_BYTES_MAX).ok()?;
    let pages: u64 = std::str::from_utf8(&statm.bytes).ok()?.split_whitespace().nth(1)?.parse().ok()?;
    let page_bytes = u64::try_from(sysconf(SysconfVar::PAGE_SIZE).ok()??).ok()?;
    pages.checked_mul(page_bytes)
}

fn cpu() -> Option<Duration> {
    let used = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let microseconds = [used.user_time(), used.system_time()].into_iter().map(|time| {
        let whole = u64::try_from(time.tv_sec()).ok()?.checked_mul(1_000_000)?;
        whole.checked_add(u64::try_from(time.tv_usec()).ok()?)
    });
    microseconds.sum::<Option<u64>>().map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let used = own_use(Path::new("/proc"));
        assert!(used.resident_bytes.unwrap() > 1 << 20);
        assert!(used.open_fds.unwrap() >= 3);
        assert!(used.cpu.is_some());
    }

    #[test]
    fn what_nobody_says_is_unknown() {
        let used = own_use(Path::new("/nonexistent"));
        assert_eq!((used.resident_bytes, used.open_fds), (None, None));
    }
}
