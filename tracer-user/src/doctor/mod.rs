//! What this host offers socklife, and what is in the way. [`host`] reads, this module judges, [`text`] shows.

pub mod host;
pub mod text;

use std::collections::BTreeMap;

use serde::Serialize;
use tracer_core::snapshot::{Mode, Probe, ProbeState};
use tracer_core::time::WallTime;

use crate::capture::without_hooks;

/// The `schema` of a report.
pub const DOCTOR_SCHEMA: &str = "socklife.doctor/v1";

/// What a kernel with system call filters can do to a call; one without has no such setting.
pub const SECCOMP: &str = "kernel.seccomp.actions_avail";

/// Everything `socklife doctor` says.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`DOCTOR_SCHEMA`].
    pub schema: &'static str,
    /// Whether the daemon could work here.
    pub works: bool,
    /// How: with kernel events, or from the socket table alone; null if not at all.
    pub mode: Option<Mode>,
    /// What is in the way, worst first.
    pub problems: Vec<Problem>,
    /// Version of this command.
    pub socklife_version: &'static str,
    /// The host.
    #[serde(flatten)]
    pub host: Host,
    /// How each fact would be had; empty if nothing could be loaded.
    pub probes: Vec<Probe>,
    /// Who answers on the control socket.
    pub daemon: Daemon,
}

/// One thing that is in the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Whether the daemon cannot work because of it; else it works, and sees less.
    pub fatal: bool,
    /// What is so.
    pub fact: String,
    /// Why that matters, or where it comes from.
    pub reason: String,
    /// What to do.
    pub next_step: String,
}

/// What the host says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Host {
    /// The kernel.
    pub kernel: Kernel,
    /// What this process may do.
    pub privileges: Privileges,
    /// Inode number of this process' network namespace.
    pub netns: Option<u64>,
    /// Whether /proc numbers processes as kernel events do, in the initial pid namespace.
    pub host_pids: bool,
    /// Kernel settings that bear on what is seen; null if this kernel has none of that name.
    pub sysctls: BTreeMap<String, Option<String>>,
    /// The clocks.
    pub clock: Clock,
    /// Soft limit of locked memory in bytes, which old kernels charge maps to; null is unlimited.
    pub memlock_bytes: Option<u64>,
}

/// The kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Kernel {
    /// Its release.
    pub release: String,
    /// Machine type.
    pub arch: String,
    /// Whether it publishes its types.
    pub btf: bool,
    /// Lockdown mode, where there is one.
    pub lockdown: Option<String>,
}

/// What this process may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Privileges {
    /// Effective user id.
    pub euid: u32,
    /// The capabilities that matter here, and whether they are effective; null if unknown.
    pub capabilities: BTreeMap<String, Option<bool>>,
}

impl Privileges {
    fn may(&self, capability: &str) -> bool {
        // Unknown is no ground to call it missing.
        self.capabilities.get(capability).copied().flatten().unwrap_or(true)
    }
}

/// The clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Clock {
    /// Wall time.
    pub wall: WallTime,
    /// Seconds since boot.
    pub boottime_s: u64,
    /// Of these, asleep.
    pub suspended_s: u64,
}

/// Who answers on the control socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Daemon {
    /// The socket.
    pub socket: String,
    /// Whether a daemon answers.
    pub running: bool,
    /// Its version and state, or why there is no answer.
    pub detail: String,
}

impl Report {
    /// Puts the parts together and judges them. `loaded` is what came of really loading and attaching.
    #[must_use]
    pub fn new(host: Host, loaded: Result<Vec<Probe>, String>, daemon: Daemon) -> Self {
        let mut problems = Vec::new();
        privileges(&host.privileges, &mut problems);
        if !host.host_pids {
            problems.push(Problem {
                fatal: true,
                fact: "/proc is that of another pid namespace than the host's".to_owned(),
                reason: "kernel events number processes in the host's, and the two must not be mixed".to_owned(),
                next_step: "run in the host's pid namespace (docker run --pid=host, Kubernetes hostPID: true)"
                    .to_owned(),
            });
        }
        kernel(&host.kernel, &mut problems);
        // Not asked for is no ground to call it missing.
        if host.sysctls.get(SECCOMP).is_some_and(Option::is_none) {
            problems.push(Problem {
                fatal: false,
                fact: "the kernel has no system call filters".to_owned(),
                reason: "the daemon gives up its capabilities, and keeps system calls that it never needs".to_owned(),
                next_step: "a kernel built with CONFIG_SECCOMP_FILTER has them".to_owned(),
            });
        }
        let probes = match loaded {
            Ok(probes) => {
                facts(&probes, &mut problems);
                probes
            }
            Err(error) => {
                // Only where nothing above explains it already.
                if !problems.iter().any(|problem| problem.fatal) {
                    problems.push(Problem {
                        fatal: false,
                        fact: "the eBPF programs do not load".to_owned(),
                        reason: error.clone(),
                        next_step: POLLS.to_owned(),
                    });
                }
                without_hooks(&error)
            }
        };
        problems.sort_by_key(|problem| !problem.fatal);
        let works = !problems.iter().any(|problem| problem.fatal);
        let has_events = probes.iter().any(|probe| probe.fact == "state_change" && probe.state != ProbeState::Missing);
        let mode = works.then_some(if has_events { Mode::Ebpf } else { Mode::Poll });
        let socklife_version = env!("CARGO_PKG_VERSION");
        Self { schema: DOCTOR_SCHEMA, works, mode, problems, socklife_version, host, probes, daemon }
    }
}

fn privileges(privileges: &Privileges, problems: &mut Vec<Problem>) {
    let bpf = privileges.may("CAP_SYS_ADMIN") || (privileges.may("CAP_BPF") && privileges.may("CAP_PERFMON"));
    if !bpf {
        problems.push(Problem {
            fatal: true,
            fact: "no privilege to load eBPF programs".to_owned(),
            reason: "neither CAP_SYS_ADMIN nor both CAP_BPF and CAP_PERFMON are effective".to_owned(),
            next_step: "run as root, such as `sudo socklife doctor`".to_owned(),
        });
    }
    for (capability, what) in [
        ("CAP_SYS_PTRACE", "who holds a connection is unknown for processes of other users"),
        ("CAP_SYS_ADMIN", "the socket tables of other network namespaces are not looked at"),
        ("CAP_DAC_READ_SEARCH", "program files and scripts of other users may stay unread"),
    ] {
        // Of no interest to who lacks everything.
        if bpf && !privileges.may(capability) {
            problems.push(Problem {
                fatal: false,
                fact: format!("{capability} is not effective"),
                reason: what.to_owned(),
                next_step: "run as root, or grant the capability".to_owned(),
            });
        }
    }
}

fn kernel(kernel: &Kernel, problems: &mut Vec<Problem>) {
    if !kernel.btf {
        problems.push(Problem {
            fatal: false,
            fact: "the kernel does not publish its types (/sys/kernel/btf/vmlinux is missing)".to_owned(),
            reason: "socklife reads the layout of kernel structures from them".to_owned(),
            next_step: format!("{POLLS}; a kernel built with CONFIG_DEBUG_INFO_BTF, Linux 5.8 or later, has them"),
        });
    }
    if kernel.lockdown.as_deref() == Some("confidentiality") {
        problems.push(Problem {
            fatal: false,
            fact: "kernel lockdown is in confidentiality mode".to_owned(),
            reason: "eBPF programs may not read kernel memory then".to_owned(),
            next_step: format!("{POLLS}; lockdown=integrity allows them"),
        });
    }
}

/// What the daemon does without kernel events.
const POLLS: &str =
    "socklife works from the socket table alone then: nothing between two looks, no openers, no exact ages";

/// Every fact has a lesser way to be had.
fn facts(probes: &[Probe], problems: &mut Vec<Problem>) {
    for probe in probes.iter().filter(|probe| probe.state == ProbeState::Missing) {
        problems.push(Problem {
            fatal: false,
            fact: format!("no hook delivers {}", probe.fact),
            reason: probe.reason.clone(),
            next_step: "another kernel may offer one".to_owned(),
        });
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn host() -> Host {
        let capabilities = host::CAPABILITIES.iter().map(|(_, name)| ((*name).to_owned(), Some(true))).collect();
        Host {
            kernel: Kernel { release: "6.18.0".to_owned(), arch: "x86_64".to_owned(), btf: true, lockdown: None },
            privileges: Privileges { euid: 0, capabilities },
            netns: Some(4_026_531_840),
            host_pids: true,
            sysctls: [("net.ipv4.tcp_retries2", Some("15")), ("net.core.bpf_jit_enable", None)]
                .map(|(name, value)| (name.to_owned(), value.map(str::to_owned)))
                .into(),
            clock: Clock { wall: WallTime { unix_ms: 1_795_293_667_000 }, boottime_s: 7_200, suspended_s: 60 },
            memlock_bytes: None,
        }
    }

    pub(crate) fn probe(fact: &str, state: ProbeState, reason: &str) -> Probe {
        Probe { fact: fact.to_owned(), via: "raw_tp something".to_owned(), state, reason: reason.to_owned() }
    }

    pub(crate) fn absent() -> Daemon {
        Daemon { socket: "/run/s.sock".to_owned(), running: false, detail: "no daemon answers".to_owned() }
    }

    fn without(host: Host, capabilities: &[&str]) -> Host {
        let mut host = host;
        for name in capabilities {
            host.privileges.capabilities.insert((*name).to_owned(), Some(false));
        }
        host
    }

    fn good() -> Vec<Probe> {
        vec![probe("state_change", ProbeState::Attached, ""), probe("accept", ProbeState::Degraded, "x")]
    }

    /// `(mode, facts)`
    fn judged(host: Host, loaded: Result<Vec<Probe>, String>) -> (Option<Mode>, Vec<String>) {
        let report = Report::new(host, loaded, absent());
        assert_eq!(report.works, report.mode.is_some());
        (report.mode, report.problems.into_iter().map(|problem| problem.fact).collect())
    }

    #[test]
    fn a_good_host_has_no_problems() {
        assert_eq!(judged(host(), Ok(good())), (Some(Mode::Ebpf), vec![]));
    }

    #[test]
    fn what_is_missing_is_named_once() {
        let refused = || Err("no permission".to_owned());
        let no_bpf = ["CAP_SYS_ADMIN", "CAP_BPF", "CAP_SYS_PTRACE"];
        let privilege = "no privilege to load eBPF programs".to_owned();
        assert_eq!(judged(without(host(), &no_bpf), refused()), (None, vec![privilege]));
        let works = Some(Mode::Ebpf);
        let namespaces = "CAP_SYS_ADMIN is not effective".to_owned();
        assert_eq!(judged(without(host(), &["CAP_SYS_ADMIN"]), Ok(good())), (works, vec![namespaces]));
        let inside = Host { host_pids: false, ..host() };
        let pids = "/proc is that of another pid namespace than the host's".to_owned();
        assert_eq!(judged(inside, Ok(good())), (None, vec![pids]));
        assert_eq!(judged(without(host(), &["CAP_BPF", "CAP_PERFMON"]), Ok(good())), (works, vec![]));
        let ptrace = "CAP_SYS_PTRACE is not effective".to_owned();
        assert_eq!(judged(without(host(), &["CAP_SYS_PTRACE"]), Ok(good())), (works, vec![ptrace]));
        let load = "the eBPF programs do not load".to_owned();
        assert_eq!(judged(host(), refused()), (Some(Mode::Poll), vec![load]));
    }

    #[test]
    fn a_kernel_without_filters_works() {
        let mut bare = host();
        bare.sysctls.insert(SECCOMP.to_owned(), None);
        assert_eq!(
            judged(bare, Ok(good())),
            (Some(Mode::Ebpf), vec!["the kernel has no system call filters".to_owned()])
        );
    }

    #[test]
    fn kernels_that_can_only_be_polled() {
        let mut no_btf = host();
        no_btf.kernel.btf = false;
        let types = "the kernel does not publish its types (/sys/kernel/btf/vmlinux is missing)".to_owned();
        let refused = Err("x".to_owned());
        let (mode, facts) = judged(no_btf, refused);
        assert_eq!((mode, facts.first()), (Some(Mode::Poll), Some(&types)));
        for (lockdown, problems) in [("none", 0), ("integrity", 0), ("confidentiality", 1)] {
            let mut locked = host();
            locked.kernel.lockdown = Some(lockdown.to_owned());
            assert_eq!(judged(locked, Ok(good())).1.len(), problems, "{lockdown}");
        }
    }

    #[test]
    fn without_state_changes_there_are_no_events() {
        for (fact, mode) in [("state_change", Mode::Poll), ("accept", Mode::Ebpf), ("process_exec", Mode::Ebpf)] {
            let mut probes = good();
            probes.retain(|probe| probe.fact != fact);
            probes.push(probe(fact, ProbeState::Missing, "not there"));
            assert_eq!(judged(host(), Ok(probes)), (Some(mode), vec![format!("no hook delivers {fact}")]));
        }
    }
}
