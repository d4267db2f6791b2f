//! Reads what the host says of itself. Besides `inventory` and `process` the only place that touches /proc: it looks at
//! this process and at kernel settings, never at other processes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::time::{ClockId, clock_gettime};
use procfs::FromRead as _;
use procfs::process::Status;
use tracer_core::time::WallTime;

use super::{Clock, Host, Kernel, Privileges};

/// The capabilities that matter here, by number (`include/uapi/linux/capability.h`).
pub const CAPABILITIES: [(u32, &str); 6] = [
    (2, "CAP_DAC_READ_SEARCH"),
    (12, "CAP_NET_ADMIN"),
    (19, "CAP_SYS_PTRACE"),
    (21, "CAP_SYS_ADMIN"),
    (38, "CAP_PERFMON"),
    (39, "CAP_BPF"),
];

/// Settings that decide when a dead peer is noticed, how ports are chosen, and what eBPF may do.
pub const SYSCTLS: [&str; 10] = [
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_retries2",
    "net.ipv4.tcp_syn_retries",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.ip_local_port_range",
    "kernel.unprivileged_bpf_disabled",
    super::SECCOMP,
    "net.core.bpf_jit_enable",
];

/// Where to look.
#[derive(Clone, Debug)]
pub struct Roots {
    /// Mount point of procfs.
    pub proc: PathBuf,
    /// Mount point of sysfs.
    pub sys: PathBuf,
    /// The kernel's types.
    pub btf: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        let btf = PathBuf::from(crate::capture::VMLINUX_BTF);
        Self { proc: PathBuf::from("/proc"), sys: PathBuf::from("/sys"), btf }
    }
}

/// Reads it all. What cannot be read is left unknown.
#[must_use]
pub fn read(roots: &Roots) -> Host {
    let sysctl = |name: &str| text(&roots.proc.join("sys").join(name.replace('.', "/")));
    Host {
        kernel: Kernel {
            release: sysctl("kernel.osrelease").unwrap_or_default(),
            arch: nix::sys::utsname::uname()
                .map(|uname| uname.machine().to_string_lossy().into_owned())
                .unwrap_or_default(),
            btf: roots.btf.is_file(),
            lockdown: text(&roots.sys.join("kernel/security/lockdown")).and_then(|modes| chosen(&modes)),
        },
        privileges: Privileges {
            euid: nix::unistd::Uid::effective().as_raw(),
            capabilities: capabilities(std::fs::read_to_string(roots.proc.join("self/status")).ok().as_deref()),
        },
        netns: netns(&roots.proc.join("self/ns/net")),
        host_pids: crate::inventory::host_pids(&roots.proc),
        sysctls: SYSCTLS.iter().map(|name| ((*name).to_owned(), sysctl(name))).collect(),
        clock: clock(),
        memlock_bytes: getrlimit(Resource::RLIMIT_MEMLOCK)
            .ok()
            .and_then(|(soft, _)| (soft != RLIM_INFINITY).then_some(soft)),
    }
}

/// A short file on one line.
fn text(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The mode in brackets: `none [integrity] confidentiality`.
fn chosen(modes: &str) -> Option<String> {
    let (_, rest) = modes.split_once('[')?;
    rest.split_once(']').map(|(mode, _)| mode.to_owned())
}

fn capabilities(status: Option<&str>) -> std::collections::BTreeMap<String, Option<bool>> {
    let mask = status.and_then(|status| Status::from_read(status.as_bytes()).ok()).map(|status| status.capeff);
    CAPABILITIES.iter().map(|(bit, name)| ((*name).to_owned(), mask.map(|mask| mask >> bit & 1 == 1))).collect()
}

/// `net:[4026531840]`
fn netns(link: &Path) -> Option<u64> {
    let target = link.read_link().ok()?;
    target.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

fn clock() -> Clock {
    let read = |clock| clock_gettime(clock).map(Duration::from).unwrap_or_default();
    let (awake, since_boot) = (read(ClockId::CLOCK_MONOTONIC), read(ClockId::CLOCK_BOOTTIME));
    Clock {
        wall: WallTime { unix_ms: i64::try_from(read(ClockId::CLOCK_REALTIME).as_millis()).unwrap_or(i64::MAX) },
        boottime_s: since_boot.as_secs(),
        suspended_s: since_boot.saturating_sub(awake).as_secs(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_up_host() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("proc/sys/kernel/osrelease", "5.10.0-test\n");
        put("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n");
        // A whole file of this kernel's with another mask: the reader wants all that the kernel writes.
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let with_mask = |line: &str| match line.starts_with("CapEff:") {
            true => "CapEff:\t0000008000001004\n".to_owned(),
            false => format!("{line}\n"),
        };
        put("proc/self/status", &status.lines().map(with_mask).collect::<String>());
        put("sys/kernel/security/lockdown", "none [integrity] confidentiality\n");
        std::fs::create_dir_all(dir.path().join("proc/self/ns")).unwrap();
        std::os::unix::fs::symlink("net:[4026531840]", dir.path().join("proc/self/ns/net")).unwrap();
        let roots =
            Roots { proc: dir.path().join("proc"), sys: dir.path().join("sys"), btf: dir.path().join("no-btf") };
        let host = read(&roots);
        assert_eq!(host.kernel.release, "5.10.0-test");
        assert_eq!((host.kernel.btf, host.kernel.lockdown.as_deref()), (false, Some("integrity")));
        assert_eq!(host.netns, Some(4_026_531_840));
        assert_eq!(host.sysctls["net.ipv4.ip_local_port_range"].as_deref(), Some("32768 60999"));
        assert_eq!(host.sysctls["net.ipv4.tcp_retries2"], None);
        let effective: Vec<&str> = host
            .privileges
            .capabilities
            .iter()
            .filter_map(|(name, effective)| (*effective == Some(true)).then_some(name.as_str()))
            .collect();
        assert_eq!(effective, ["CAP_BPF", "CAP_DAC_READ_SEARCH", "CAP_NET_ADMIN"]);
    }

    #[test]
    fn what_cannot_be_read_is_unknown() {
        let nowhere = PathBuf::from("/nonexistent");
        let host = read(&Roots { proc: nowhere.clone(), sys: nowhere.clone(), btf: nowhere });
        assert_eq!((host.netns, host.kernel.lockdown), (None, None));
        assert!(host.privileges.capabilities.values().all(Option::is_none));
        assert!(host.sysctls.values().all(Option::is_none));
    }

    #[test]
    fn the_clocks_run() {
        let clock = clock();
        assert!(clock.boottime_s >= clock.suspended_s && clock.boottime_s > 0 && clock.wall.unix_ms > 0);
    }
}
