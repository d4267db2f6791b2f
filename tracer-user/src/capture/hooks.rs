//! Which hook delivers which fact on this host: the ladder, and the way down it.
//!
//! A fact has rungs, best first. The first one that really loads and attaches is taken, whatever the kernel's version;
//! why the better ones were not goes into the report.

use std::path::Path;

use aya::programs::{FExit, KProbe, Program, ProgramError, RawTracePoint, TracePoint};
use aya::{Btf, Ebpf, Endianness};
use aya_obj::btf::BtfKind;
use tracer_core::snapshot::{Probe, ProbeState};

use super::{CaptureError, tracefs};

/// A kind of hook; each kind can be left out by configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// BPF trampolines at a function's return.
    Fexit,
    /// Return probes, and probes at entry where they need one.
    Kretprobe,
    /// Raw tracepoints.
    RawTp,
    /// Tracepoints of system calls.
    Syscall,
}

/// Kinds with the names that users have for them, best first.
pub const KINDS: [(Kind, &str); 4] =
    [(Kind::Fexit, "fexit"), (Kind::Kretprobe, "kretprobe"), (Kind::RawTp, "raw_tp"), (Kind::Syscall, "syscall")];

/// What may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed([bool; KINDS.len()]);

impl Default for Allowed {
    fn default() -> Self {
        Self([true; KINDS.len()])
    }
}

impl Allowed {
    /// Nothing: the socket table alone.
    pub const NOTHING: Self = Self([false; KINDS.len()]);

    /// The same, and this kind.
    #[must_use]
    pub fn and(mut self, kind: Kind) -> Self {
        self.0[kind as usize] = true;
        self
    }

    /// Whether this kind may be used.
    #[must_use]
    pub fn has(self, kind: Kind) -> bool {
        self.0[kind as usize]
    }
}

struct Fact {
    name: &'static str,
    rungs: &'static [Rung],
    /// Who tells the fact when no rung does, and how well.
    otherwise: &'static str,
    /// Capture is pointless without it.
    required: bool,
}

/// Programs that deliver a fact together.
struct Rung {
    kind: Kind,
    parts: &'static [Part],
    /// What this rung does not see, as against the first.
    short: &'static str,
}

struct Part {
    program: &'static str,
    targets: &'static [&'static str],
}

const fn one(kind: Kind, parts: &'static [Part]) -> Rung {
    Rung { kind, parts, short: "" }
}

const FACTS: &[Fact] = &[
    Fact {
        name: "state_change",
        // In this order: the second does what the first one is skipped for.
        rungs: &[one(
            Kind::RawTp,
            &[
                Part { program: "set_state", targets: &["inet_sock_set_state"] },
                Part { program: "set_state_nested", targets: &["inet_sock_set_state"] },
            ],
        )],
        otherwise: "the socket table at each look",
        required: true,
    },
    Fact {
        name: "process_exit",
        rungs: &[one(Kind::RawTp, &[Part { program: "exit", targets: &["sched_process_exit"] }])],
        otherwise: "/proc at each look",
        // A pid that is reused would be taken for the process that had it before.
        required: true,
    },
    Fact {
        name: "process_exec",
        rungs: &[one(Kind::RawTp, &[Part { program: "exec", targets: &["sched_process_exec"] }])],
        otherwise: "nobody: a process keeps the program it was first seen with",
        required: false,
    },
    Fact {
        name: "end_of_life",
        rungs: &[one(Kind::RawTp, &[Part { program: "destroy", targets: &["tcp_destroy_sock"] }])],
        otherwise: "the change to CLOSE alone",
        required: false,
    },
    Fact {
        name: "path_trouble",
        rungs: &[one(Kind::RawTp, &[Part { program: "retransmit", targets: &["tcp_retransmit_skb"] }])],
        otherwise: "the socket table at each look",
        required: false,
    },
    Fact {
        name: "packet_drop",
        rungs: &[one(Kind::RawTp, &[Part { program: "discard", targets: &["kfree_skb"] }])],
        otherwise: "nobody: the kernel gives reasons since Linux 5.17",
        required: false,
    },
    Fact {
        name: "accept",
        rungs: &[
            one(Kind::Fexit, &[Part { program: "accept_exit_4", targets: &["inet_csk_accept"] }]),
            one(Kind::Fexit, &[Part { program: "accept_exit_2", targets: &["inet_csk_accept"] }]),
            Rung {
                kind: Kind::Kretprobe,
                parts: &[Part { program: "accept_return", targets: &["inet_csk_accept"] }],
                short: "where more accepts wait at a time than the kernel keeps return probes for, some are not seen",
            },
            Rung {
                kind: Kind::Syscall,
                parts: &[
                    Part { program: "accept", targets: &["sys_exit_accept"] },
                    Part { program: "accept4", targets: &["sys_exit_accept4"] },
                ],
                short: "accepts through io_uring are not seen, and every system call of the host costs a little more",
            },
        ],
        otherwise: "the holder at the next look; requests that come in to a process are not counted",
        required: false,
    },
    Fact {
        name: "connect",
        rungs: &[
            one(
                Kind::Fexit,
                &[
                    Part { program: "connect4_exit", targets: &["tcp_v4_connect"] },
                    Part { program: "connect6_exit", targets: &["tcp_v6_connect"] },
                ],
            ),
            one(
                Kind::Kretprobe,
                &[
                    Part { program: "connect_enter", targets: &["tcp_v4_connect", "tcp_v6_connect"] },
                    Part { program: "connect_return", targets: &["tcp_v4_connect", "tcp_v6_connect"] },
                ],
            ),
            Rung {
                kind: Kind::Syscall,
                parts: &[Part { program: "connect", targets: &["sys_exit_connect"] }],
                short: "connects that fail at once are not seen through io_uring, nor on sockets that had a port before",
            },
        ],
        otherwise: "nobody: a connect that fails before its SYN is not counted",
        required: false,
    },
];

/// The ladder's report, and whether connects that fail within the call are told.
pub(super) struct Attached {
    pub probes: Vec<Probe>,
    pub has_connect_hook: bool,
}

/// Walks the ladder of every fact. An error only if a required fact has no rung.
pub(super) fn attach_all(ebpf: &mut Ebpf, allowed: Allowed, btf: &Path) -> Result<Attached, CaptureError> {
    let mut host = Host { ebpf, btf_path: btf, btf: None };
    let mut probes = Vec::new();
    for fact in FACTS {
        let probe = walk(&mut host, fact, allowed);
        if fact.required && probe.state == ProbeState::Missing {
            return Err(CaptureError::Attach { fact: fact.name, reason: probe.reason });
        }
        probes.push(probe);
        if fact.name == "state_change" {
            probes.extend(close_probe(&probes));
        }
    }
    let has_connect_hook = probes.iter().any(|probe| probe.fact == "connect" && probe.state != ProbeState::Missing);
    Ok(Attached { probes, has_connect_hook })
}

/// What is reported when nothing is attached at all.
#[must_use]
pub fn without_hooks(reason: &str) -> Vec<Probe> {
    let missing = |fact: &Fact| missing(fact, reason);
    FACTS.iter().map(missing).collect()
}

/// Who closed is told by the state change that close itself makes, in its caller: under the socket's lock, and without a
/// further hook. A probe on `tcp_close` would run before the lock is taken.
fn close_probe(probes: &[Probe]) -> Option<Probe> {
    let told = probes.iter().find(|probe| probe.fact == "state_change")?;
    Some(Probe { fact: "close".to_owned(), ..told.clone() })
}

fn missing(fact: &Fact, reason: &str) -> Probe {
    Probe {
        fact: fact.name.to_owned(),
        via: "none".to_owned(),
        state: ProbeState::Missing,
        reason: format!("{reason}; told by {}", fact.otherwise),
    }
}

fn walk(host: &mut Host<'_>, fact: &Fact, allowed: Allowed) -> Probe {
    let mut why_not: Vec<(Kind, String)> = Vec::new();
    let mut unfit: Vec<Kind> = Vec::new();
    for rung in fact.rungs {
        if unfit.contains(&rung.kind) {
            continue;
        }
        let outcome = match allowed.has(rung.kind) {
            true => host.attach(rung),
            false => Err(Failure { reason: "left out by capture.hooks".to_owned(), was_loaded: false }),
        };
        match outcome {
            Ok(()) => return taken(fact, rung, &why_not),
            // Of several programs of one kind the last one's reason counts: they are for different kernels. A program that
            // the kernel took was the right one, and another would read the wrong arguments.
            Err(Failure { reason, was_loaded }) => {
                why_not.retain(|(kind, _)| *kind != rung.kind);
                why_not.push((rung.kind, reason));
                unfit.extend(was_loaded.then_some(rung.kind));
            }
        }
    }
    missing(fact, &reasons(&why_not))
}

fn taken(fact: &Fact, rung: &Rung, why_not: &[(Kind, String)]) -> Probe {
    let better: Vec<_> = why_not.iter().filter(|(kind, _)| *kind != rung.kind).cloned().collect();
    let (state, reason) = match better.is_empty() {
        true => (ProbeState::Attached, String::new()),
        false if rung.short.is_empty() => (ProbeState::Degraded, reasons(&better)),
        false => (ProbeState::Degraded, format!("{}: {}", reasons(&better), rung.short)),
    };
    Probe { fact: fact.name.to_owned(), via: via(rung), state, reason }
}

fn via(rung: &Rung) -> String {
    let prefix = match rung.kind {
        Kind::Syscall => "tracepoint",
        kind => name(kind),
    };
    let mut targets: Vec<&str> = rung.parts.iter().flat_map(|part| part.targets).copied().collect();
    targets.dedup();
    // A probe at entry that serves the one at the return has the same targets.
    let half = targets.len() / 2;
    if targets.len() > 2 && targets[..half] == targets[half..] {
        targets.truncate(half);
    }
    targets.iter().map(|target| format!("{prefix}:{target}")).collect::<Vec<_>>().join(", ")
}

fn name(kind: Kind) -> &'static str {
    KINDS.iter().find(|(known, _)| *known == kind).map_or("", |(_, name)| name)
}

fn reasons(why_not: &[(Kind, String)]) -> String {
    why_not.iter().map(|(kind, reason)| format!("{}: {reason}", name(*kind))).collect::<Vec<_>>().join("; ")
}

/// Why a rung is not taken.
struct Failure {
    reason: String,
    /// The kernel took the program and refused to attach it.
    was_loaded: bool,
}

struct Host<'a> {
    ebpf: &'a mut Ebpf,
    btf_path: &'a Path,
    /// Read when the first trampoline is tried.
    btf: Option<Result<Btf, String>>,
}

impl Host<'_> {
    /// Loads and attaches all parts, or none.
    fn attach(&mut self, rung: &Rung) -> Result<(), Failure> {
        for (index, part) in rung.parts.iter().enumerate() {
            if let Err(reason) = self.attach_part(rung.kind, part) {
                let was_loaded = self.ebpf.program(part.program).is_some_and(|program| program.fd().is_ok());
                for loaded in &rung.parts[..=index] {
                    self.unload(loaded.program);
                }
                return Err(Failure { reason, was_loaded });
            }
        }
        Ok(())
    }

    fn attach_part(&mut self, kind: Kind, part: &Part) -> Result<(), String> {
        let btf = match kind {
            Kind::Fexit => {
                Some(self.btf.get_or_insert_with(|| read_btf(self.btf_path)).as_ref().map_err(Clone::clone)?)
            }
            _ => None,
        };
        let program = self.ebpf.program_mut(part.program).ok_or("not in the object")?;
        match kind {
            Kind::Fexit => {
                let program: &mut FExit = program.try_into().map_err(program_error)?;
                let (function, btf) = part.targets.first().zip(btf).ok_or("no target")?;
                program.load(function, btf).map_err(program_error)?;
                program.attach().map_err(program_error)?;
            }
            Kind::Kretprobe => {
                let program: &mut KProbe = program.try_into().map_err(program_error)?;
                program.load().map_err(program_error)?;
                for function in part.targets {
                    program.attach(*function, 0).map_err(program_error)?;
                }
            }
            Kind::RawTp => {
                let program: &mut RawTracePoint = program.try_into().map_err(program_error)?;
                program.load().map_err(program_error)?;
                for name in part.targets {
                    program.attach(name).map_err(program_error)?;
                }
            }
            Kind::Syscall => {
                let program: &mut TracePoint = program.try_into().map_err(program_error)?;
                program.load().map_err(program_error)?;
                for name in part.targets {
                    tracefs::with(|| program.attach("syscalls", name).map_err(program_error))??;
                }
            }
        }
        Ok(())
    }

    /// Detaches, too. What was not loaded cannot be unloaded, which is as good.
    fn unload(&mut self, program: &str) {
        let _ = match self.ebpf.program_mut(program) {
            Some(Program::FExit(program)) => program.unload(),
            Some(Program::KProbe(program)) => program.unload(),
            Some(Program::RawTracePoint(program)) => program.unload(),
            Some(Program::TracePoint(program)) => program.unload(),
            _ => Ok(()),
        };
    }
}

/// The kernel's types, if it can be trusted with trampolines: before "bpf: Fix fexit trampoline." (Linux 5.12 and 5.10.28,
/// which brought `struct bpf_tramp_image`) a detach frees one that a process waiting in accept(2) still returns to.
fn read_btf(path: &Path) -> Result<Btf, String> {
    let btf = Btf::parse_file(path, Endianness::default()).map_err(|error| error.to_string())?;
    match btf.id_by_type_name_kind("bpf_tramp_image", BtfKind::Struct) {
        Ok(_) => Ok(btf),
        Err(_) => Err("this kernel frees trampolines that are in use".to_owned()),
    }
}

fn program_error(error: ProgramError) -> String {
    match error {
        // The verifier's log is long; its last lines say what it refused.
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let tail: Vec<&str> = log.lines().rev().filter(|line| !line.is_empty()).take(3).collect();
            let tail = tail.into_iter().rev().collect::<Vec<_>>().join(" / ");
            if tail.is_empty() { io_error.to_string() } else { format!("{io_error}: {tail}") }
        }
        error => super::chain(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reports_name_every_target_once() {
        let accept = FACTS.iter().find(|fact| fact.name == "accept").unwrap();
        let named: Vec<String> = accept.rungs.iter().map(via).collect();
        assert_eq!(
            named,
            [
                "fexit:inet_csk_accept",
                "fexit:inet_csk_accept",
                "kretprobe:inet_csk_accept",
                "tracepoint:sys_exit_accept, tracepoint:sys_exit_accept4"
            ]
        );
        let connect = FACTS.iter().find(|fact| fact.name == "connect").unwrap();
        assert_eq!(via(&connect.rungs[1]), "kretprobe:tcp_v4_connect, kretprobe:tcp_v6_connect");
    }

    #[test]
    fn a_lower_rung_says_why_and_what_it_misses() {
        let accept = FACTS.iter().find(|fact| fact.name == "accept").unwrap();
        let why = [(Kind::Fexit, "no".to_owned()), (Kind::Kretprobe, "never".to_owned())];
        let syscall = taken(accept, &accept.rungs[3], &why);
        assert_eq!(syscall.state, ProbeState::Degraded);
        assert!(
            syscall.reason.starts_with("fexit: no; kretprobe: never: accepts through io_uring"),
            "{}",
            syscall.reason
        );
        // Another signature of the same function is no lower rung.
        let second = taken(accept, &accept.rungs[1], &why[..1]);
        assert_eq!((second.state, second.reason.as_str()), (ProbeState::Attached, ""));
    }

    #[test]
    fn allowing_is_by_kind() {
        let some = Allowed::NOTHING.and(Kind::RawTp).and(Kind::Syscall);
        assert!(some.has(Kind::RawTp) && some.has(Kind::Syscall) && !some.has(Kind::Fexit));
        assert!(KINDS.iter().all(|(kind, _)| Allowed::default().has(*kind)));
        assert!(KINDS.iter().enumerate().all(|(index, (kind, _))| *kind as usize == index));
    }
}
