//! Loading and attaching: which hook delivers which fact on this host.

use std::path::PathBuf;

use aya::maps::{Array, HashMap, MapData};
use aya::programs::{ProgramError, RawTracePoint, TracePoint};
use aya::{Ebpf, EbpfError, EbpfLoader};
use tracer_common::Offsets;
use tracer_core::event::ProcessId;
use tracer_core::ports::PortMap;
use tracer_core::snapshot::{Probe, ProbeState};
use tracer_core::time::BootNs;

use super::counters::Counters;
use super::ring::Ring;
use super::skipped::Skipped;
use super::{CaptureError, KernelCounters, log, offsets, tracefs};

static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../tracer-ebpf/object/tracer-ebpf.bpf.o");

/// One fact and the program that delivers it.
struct Hook {
    fact: &'static str,
    program: &'static str,
    target: Target,
    /// Capture is pointless without it.
    required: bool,
}

enum Target {
    Raw(&'static str),
    Syscall(&'static str),
}

const HOOKS: &[Hook] = &[
    Hook { fact: "state_change", program: "set_state", target: Target::Raw("inet_sock_set_state"), required: true },
    // Second, and after the first: it does what the first one is skipped for.
    Hook {
        fact: "state_change",
        program: "set_state_nested",
        target: Target::Raw("inet_sock_set_state"),
        required: true,
    },
    Hook { fact: "end_of_life", program: "destroy", target: Target::Raw("tcp_destroy_sock"), required: false },
    Hook { fact: "path_trouble", program: "retransmit", target: Target::Raw("tcp_retransmit_skb"), required: false },
    Hook { fact: "process_exec", program: "exec", target: Target::Raw("sched_process_exec"), required: false },
    Hook { fact: "process_exit", program: "exit", target: Target::Raw("sched_process_exit"), required: false },
    Hook { fact: "accept", program: "accept", target: Target::Syscall("sys_exit_accept"), required: false },
    Hook { fact: "accept", program: "accept4", target: Target::Syscall("sys_exit_accept4"), required: false },
];

/// What to load.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Size of the ring buffer: a power of two, at least a page.
    pub ring_bytes: u32,
    /// Sockets the kernel side remembers.
    pub map_entries: u32,
    /// The only network namespace to watch; 0 watches all.
    pub netns: u32,
    /// The kernel's types.
    pub btf: PathBuf,
}

/// `Offsets` as aya wants it: bytes that may be copied into the object.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct PodOffsets(Offsets);

// SAFETY: `Offsets` is `repr(C)` and made of u32 only: no padding, no pointers, any bytes are a value.
unsafe impl aya::Pod for PodOffsets {}

/// The loaded, attached programs. Dropping it detaches and unloads everything: nothing is pinned.
pub struct Capture {
    ebpf: Ebpf,
    probes: Vec<Probe>,
    processes: Option<HashMap<MapData, u32, u64>>,
    counters: Counters,
    skipped: Skipped,
}

impl Capture {
    /// Loads and attaches. Events flow into the ring from now on.
    pub fn start(settings: &Settings, ports: &PortMap) -> Result<Self, CaptureError> {
        let offsets = PodOffsets(offsets::resolve(&settings.btf)?);
        raise_memlock_limit();
        let wake_bytes = settings.ring_bytes / 4;
        let processes = (settings.map_entries / 4).max(1024);
        let mut ebpf = EbpfLoader::new()
            // Only relocations against the kernel's types would need them; offsets come as globals.
            .btf(None)
            .override_global("OFFSETS", &offsets, true)
            .override_global("NETNS", &settings.netns, true)
            .override_global("WAKE_BYTES", &wake_bytes, true)
            .map_max_entries("EVENTS", settings.ring_bytes)
            .map_max_entries("OWNERS", settings.map_entries)
            .map_max_entries("PROCESSES", processes)
            .load(OBJECT)
            .map_err(load_error)?;
        set_ports(&mut ebpf, ports)?;
        let probes = attach_all(&mut ebpf)?;
        let counters = Counters::new(&mut ebpf)?;
        let processes = ebpf.take_map("PROCESSES").and_then(|map| HashMap::try_from(map).ok());
        let skipped = Skipped::new(&ebpf).map_err(|error| CaptureError::Load(error.to_string()))?;
        Ok(Self { ebpf, probes, processes, counters, skipped })
    }

    /// Which hook delivers which fact.
    #[must_use]
    pub fn probes(&self) -> &[Probe] {
        &self.probes
    }

    /// The ring's reading end; there is one.
    pub fn take_ring(&mut self) -> Result<Ring, CaptureError> {
        Ring::new(&mut self.ebpf)
    }

    /// Starts to pass on what the kernel side logs on its rare paths.
    pub fn spawn_log_reader(&mut self) -> Result<(), CaptureError> {
        log::spawn(&mut self.ebpf)
    }

    /// What the kernel side counted since the start.
    pub fn counters(&self) -> Result<KernelCounters, CaptureError> {
        // In this order: what is skipped now is not yet counted as made up for.
        let skipped = self.skipped.total().map_err(|error| CaptureError::Load(error.to_string()))?;
        let mut counters = self.counters.read()?;
        counters.program_skipped = skipped.saturating_sub(counters.nested);
        Ok(counters)
    }

    /// From now on report this process' exec and exit. A full map is not an error: the exit then shows at the next
    /// look at /proc.
    pub fn watch_process(&mut self, process: ProcessId) {
        if let Some(map) = &mut self.processes {
            // BPF_NOEXIST: what the kernel side knows is more exact. Already there is as good as inserted.
            let _ = map.insert(process.pid, process.start().0, 1);
        }
    }

    /// From now on report sockets with this port on either end, too. Sockets that have it already are not announced.
    pub fn watch_port(&mut self, port: u16) -> Result<(), CaptureError> {
        let map = self.ebpf.map_mut("PORTS").ok_or_else(|| ports_error("missing".to_owned()))?;
        let mut bits: Array<_, u64> = Array::try_from(map).map_err(|reason| ports_error(reason.to_string()))?;
        let index = u32::from(port >> 6);
        let word = bits.get(&index, 0).map_err(|reason| ports_error(reason.to_string()))?;
        bits.set(index, word | 1 << (port & 63), 0).map_err(|reason| ports_error(reason.to_string()))
    }

    /// The process is gone: its place is free again. The kernel side frees it itself if it saw the end.
    pub fn unwatch_process(&mut self, process: ProcessId) {
        if let Some(map) = &mut self.processes {
            // A later process of that pid may be watched already.
            let known = map.get(&process.pid, 0).map(|start| ProcessId::from_boot(process.pid, BootNs(start)));
            if known.is_ok_and(|known| known == process) {
                // Gone meanwhile is as good.
                let _ = map.remove(&process.pid);
            }
        }
    }
}

/// Loads and attaches everything with small maps, detaches again, and says how each fact would be had.
pub fn probe_host(btf: PathBuf) -> Result<Vec<Probe>, CaptureError> {
    let settings = Settings { ring_bytes: 1 << 16, map_entries: 1024, netns: 0, btf };
    Capture::start(&settings, &PortMap::default()).map(|capture| capture.probes.clone())
}

fn set_ports(ebpf: &mut Ebpf, ports: &PortMap) -> Result<(), CaptureError> {
    let map = ebpf.map_mut("PORTS").ok_or_else(|| ports_error("missing".to_owned()))?;
    let mut bits: Array<_, u64> = Array::try_from(map).map_err(|reason| ports_error(reason.to_string()))?;
    let mut words = std::collections::BTreeMap::<u32, u64>::new();
    for (port, _) in ports.iter() {
        *words.entry(u32::from(port >> 6)).or_default() |= 1 << (port & 63);
    }
    for (index, word) in words {
        bits.set(index, word, 0).map_err(|reason| ports_error(reason.to_string()))?;
    }
    Ok(())
}

fn ports_error(reason: String) -> CaptureError {
    CaptureError::Map { map: "PORTS", reason }
}

/// Attaches every hook; one report a fact. A missing optional hook is reported, a missing required one is an error.
fn attach_all(ebpf: &mut Ebpf) -> Result<Vec<Probe>, CaptureError> {
    let mut probes: Vec<Probe> = Vec::new();
    for hook in HOOKS {
        let outcome = attach(ebpf, hook);
        if hook.required
            && let Err(reason) = outcome
        {
            return Err(CaptureError::Attach { program: hook.program, reason });
        }
        let probe = report(hook, outcome);
        match probes.iter_mut().find(|known| known.fact == probe.fact) {
            Some(known) => merge(known, probe),
            None => probes.push(probe),
        }
    }
    let close = close_probe(&probes);
    probes.insert(1, close);
    Ok(probes)
}

fn attach(ebpf: &mut Ebpf, hook: &Hook) -> Result<(), String> {
    let program = ebpf.program_mut(hook.program).ok_or("not in the object")?;
    match hook.target {
        Target::Raw(name) => {
            let program: &mut RawTracePoint = program.try_into().map_err(program_error)?;
            program.load().map_err(program_error)?;
            program.attach(name).map_err(program_error)?;
        }
        Target::Syscall(name) => {
            let program: &mut TracePoint = program.try_into().map_err(program_error)?;
            program.load().map_err(program_error)?;
            tracefs::with(|| program.attach("syscalls", name).map_err(program_error))??;
        }
    }
    Ok(())
}

fn report(hook: &Hook, outcome: Result<(), String>) -> Probe {
    let (via, best) = match hook.target {
        Target::Raw(name) => (format!("raw_tp:{name}"), true),
        Target::Syscall(name) => (format!("tracepoint:{name}"), false),
    };
    let (state, reason) = match outcome {
        Ok(()) if best => (ProbeState::Attached, String::new()),
        Ok(()) => (
            ProbeState::Degraded,
            "fexit and kretprobe are not used by this version; accepts through io_uring are not seen".to_owned(),
        ),
        Err(reason) => (ProbeState::Missing, reason),
    };
    Probe { fact: hook.fact.to_owned(), via, state, reason }
}

/// Two hooks may share a fact; the fact is as good as the worse of them.
fn merge(known: &mut Probe, other: Probe) {
    if known.via == other.via {
        return;
    }
    known.via = format!("{}, {}", known.via, other.via);
    if known.state != ProbeState::Missing && other.state != ProbeState::Attached {
        known.state = other.state;
        known.reason = other.reason;
    }
}

/// Who closed is told by the state change that close itself makes.
fn close_probe(probes: &[Probe]) -> Probe {
    let via = probes.iter().find(|probe| probe.fact == "state_change").map_or(String::new(), |probe| probe.via.clone());
    Probe {
        fact: "close".to_owned(),
        via,
        state: ProbeState::Degraded,
        reason: "fentry and kprobe are not used by this version; the caller is taken from the state change that close \
                 makes, and is unknown when the peer or the kernel ended the connection first"
            .to_owned(),
    }
}

fn load_error(error: EbpfError) -> CaptureError {
    let text = chain(&error);
    if is_permission(&text) { CaptureError::NoPrivilege } else { CaptureError::Load(text) }
}

fn program_error(error: ProgramError) -> String {
    match error {
        // The verifier's log is long; its last lines say what it refused.
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let tail: Vec<&str> = log.lines().rev().take(3).collect();
            format!("{io_error}: {}", tail.into_iter().rev().collect::<Vec<_>>().join(" / "))
        }
        error => chain(&error),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

fn is_permission(text: &str) -> bool {
    text.contains("os error 1)") || text.contains("os error 13)")
}

/// Kernels before 5.11 charge maps to RLIMIT_MEMLOCK. Best effort: later kernels do not need it, and where it is needed
/// and refused, the load says so.
fn raise_memlock_limit() {
    let unlimited = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: setrlimit reads the struct, which outlives the call.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const unlimited) };
}
