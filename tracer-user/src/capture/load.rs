//! Loading the object, and what can be asked of it while it runs. Which hook delivers which fact is [`super::hooks`]'.

use std::collections::BTreeMap;
use std::path::PathBuf;

use aya::maps::{Array, HashMap, MapData};
use aya::{Ebpf, EbpfError, EbpfLoader};
use tracer_common::{Offsets, Owner, TaskRecord, control, role};
use tracer_core::decode;
use tracer_core::event::{Event, ProcessId, SocketEvent};
use tracer_core::ports::PortMap;
use tracer_core::snapshot::Probe;
use tracer_core::time::BootNs;

use super::accepts::Accepts;
use super::batch::Batched;
use super::counters::Counters;
use super::hooks::{Allowed, attach_all};
use super::offsets::{self, Types};
use super::ring::Ring;
use super::skipped::Skipped;
use super::{CaptureError, KernelCounters, chain, log};

static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../tracer-ebpf/object/tracer-ebpf.bpf.o");

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
    /// Which kinds of hooks may be used.
    pub hooks: Allowed,
    /// A fault for tests: so many in a hundred ends are lost as if the ring were full.
    pub lost_ends_percent: u32,
}

/// `Offsets` as aya wants it: bytes that may be copied into the object.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct PodOffsets(Offsets);

// SAFETY: `Offsets` is `repr(C)` and made of u32 only: no padding, no pointers, any bytes are a value.
unsafe impl aya::Pod for PodOffsets {}

/// `TaskRecord` as a map's value.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct PodTask(TaskRecord);

// SAFETY: as for `PodOffsets`; integers and bytes without padding.
unsafe impl aya::Pod for PodTask {}

/// `Owner` as a map's value.
#[repr(transparent)]
#[derive(Clone, Copy, Default)]
struct PodOwner(Owner);

// SAFETY: as for `PodOffsets`; integers and bytes, padding spelled out.
unsafe impl aya::Pod for PodOwner {}

/// The loaded, attached programs. Dropping it detaches and unloads everything: nothing is pinned.
pub struct Capture {
    ebpf: Ebpf,
    probes: Vec<Probe>,
    drop_reasons: BTreeMap<u32, String>,
    processes: HashMap<MapData, u32, PodTask>,
    control: Array<MapData, u64>,
    counters: Counters,
    owners: Batched<u64, PodOwner>,
    accepts: Accepts,
    skipped: Skipped,
    /// Changes of the owner map when it was last read, and when that was.
    told: Option<u64>,
    told_until: BootNs,
}

impl Capture {
    /// Loads and attaches. Events flow into the ring from now on.
    pub fn start(settings: &Settings, ports: &PortMap) -> Result<Self, CaptureError> {
        let Types { offsets, drop_reasons } = offsets::resolve(&settings.btf)?;
        let offsets = PodOffsets(offsets);
        raise_memlock_limit();
        let wake_bytes = settings.ring_bytes / 4;
        let processes = (settings.map_entries / 4).max(1024);
        let mut ebpf = EbpfLoader::new()
            // Only relocations against the kernel's types would need them; offsets come as globals.
            .btf(None)
            .override_global("OFFSETS", &offsets, true)
            .override_global("NETNS", &settings.netns, true)
            .override_global("WAKE_BYTES", &wake_bytes, true)
            .override_global("LOST_ENDS_PERCENT", &settings.lost_ends_percent, true)
            .map_max_entries("EVENTS", settings.ring_bytes)
            .map_max_entries("OWNERS", settings.map_entries)
            .map_max_entries("PROCESSES", processes)
            .map_max_entries("ACCEPTS", processes)
            .load(OBJECT)
            .map_err(load_error)?;
        set_bits(&mut ebpf, "PORTS", ports.iter().map(|(port, _)| u32::from(port)))?;
        set_bits(&mut ebpf, "DROP_BITS", drop_reasons.keys().copied())?;
        let mut control = Array::try_from(take_map(&mut ebpf, "CONTROL")?).map_err(in_map("CONTROL"))?;
        // Before any program runs: what fails in between is told by one of them, not by two.
        control.set(control::CONNECT, 1, 0).map_err(in_map("CONTROL"))?;
        let attached = attach_all(&mut ebpf, settings.hooks, &settings.btf)?;
        let counters = Counters::new(&mut ebpf)?;
        let owners = Batched::new(&mut ebpf, "OWNERS")?;
        let accepts = Accepts::new(&mut ebpf)?;
        let processes = HashMap::try_from(take_map(&mut ebpf, "PROCESSES")?).map_err(in_map("PROCESSES"))?;
        control.set(control::CONNECT, u64::from(attached.has_connect_hook), 0).map_err(in_map("CONTROL"))?;
        let skipped = Skipped::new(&ebpf).map_err(|error| CaptureError::Load(error.to_string()))?;
        let probes = attached.probes;
        Ok(Self {
            ebpf,
            probes,
            drop_reasons,
            processes,
            control,
            counters,
            owners,
            accepts,
            skipped,
            told: None,
            told_until: BootNs(0),
        })
    }

    /// Which hook delivers which fact.
    #[must_use]
    pub fn probes(&self) -> &[Probe] {
        &self.probes
    }

    /// The running kernel's reasons for throwing packets away that are told, by name.
    #[must_use]
    pub fn drop_reasons(&self) -> &BTreeMap<u32, String> {
        &self.drop_reasons
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
        let (state, others) = self.skipped.totals().map_err(|error| CaptureError::Load(error.to_string()))?;
        let mut counters = self.counters.read()?;
        counters.program_skipped = state.saturating_sub(counters.nested) + others;
        Ok(counters)
    }

    /// What no record told since the last call: openings, hanging connects, changes of state. With `all`, of every socket
    /// that the kernel side remembers. In no order. `now` reads the boot-time clock.
    pub fn untold(
        &mut self,
        all: bool,
        now: impl FnOnce() -> BootNs,
        mut each: impl FnMut(Result<SocketEvent, decode::DecodeError>),
    ) -> Result<(), CaptureError> {
        let changes = self.counters.untold()?;
        if !all && self.told == Some(changes) {
            return Ok(());
        }
        // Untold until it is read to its end.
        self.told = None;
        let since = if all { BootNs(0) } else { self.told_until.minus(IN_PROGRESS) };
        let started = now();
        self.owners.each(|sk, PodOwner(owner)| {
            if owner.state_ns.max(owner.retransmit_ns) >= since.0
                && let Some(event) = decode::remembered(sk, owner).transpose()
            {
                each(event);
            }
        })?;
        (self.told, self.told_until) = (Some(changes), started);
        Ok(())
    }

    /// How many connections each process has accepted on ports that are not watched, for those where it is more than at the
    /// last call.
    pub fn accepts(
        &mut self,
        at: BootNs,
        each: impl FnMut(Result<Event, decode::DecodeError>),
    ) -> Result<(), CaptureError> {
        let counted = self.counters.accepts()?;
        self.accepts.each_new(counted, at, each)
    }

    /// Whether openings and changes of state are told as they happen, at some cost each.
    pub fn set_live(&mut self, live: bool) -> Result<(), CaptureError> {
        self.control.set(control::LIVE, u64::from(live), 0).map_err(in_map("CONTROL"))
    }

    /// From now on report this process' exec and exit. A full map is not an error: the exit then shows at the next
    /// look at /proc.
    pub fn watch_process(&mut self, process: ProcessId) {
        let task = TaskRecord { tgid: process.pid, start_ns: process.start().0, ..TaskRecord::default() };
        // BPF_NOEXIST: what the kernel side knows is more exact. Already there is as good as inserted.
        let _ = self.processes.insert(process.pid, PodTask(task), 1);
    }

    /// From now on report sockets with this port on either end, too. Sockets that have it already are not announced.
    pub fn watch_port(&mut self, port: u16) -> Result<(), CaptureError> {
        set_bits(&mut self.ebpf, "PORTS", [u32::from(port)])
    }

    /// From now on report no socket with this port any more, unless its other end has a port that is watched.
    pub fn unwatch_port(&mut self, port: u16) -> Result<(), CaptureError> {
        let word = u32::from(port >> 6);
        let data = self.ebpf.map_mut("PORTS").ok_or_else(missing("PORTS"))?;
        let mut ports: Array<_, u64> = Array::try_from(data).map_err(in_map("PORTS"))?;
        let set = ports.get(&word, 0).map_err(in_map("PORTS"))?;
        ports.set(word, set & !(1 << (port & 63)), 0).map_err(in_map("PORTS"))?;
        // What the kernel side remembers it would tell the end of.
        let mut known = Vec::new();
        self.owners.each(|sk, PodOwner(owner)| {
            let side = if owner.role == role::SERVER { owner.local_port } else { owner.remote_port };
            if side == port {
                known.push(sk);
            }
        })?;
        known.iter().for_each(|sk| self.owners.remove(sk));
        Ok(())
    }

    /// The process is gone: its place is free again. The kernel side frees it itself if it saw the end.
    pub fn unwatch_process(&mut self, process: ProcessId) {
        self.accepts.forget(process);
        // A later process of that pid may be watched already.
        let known = self.processes.get(&process.pid, 0);
        if known.is_ok_and(|PodTask(task)| ProcessId::from_boot(process.pid, BootNs(task.start_ns)) == process) {
            // Gone meanwhile is as good.
            let _ = self.processes.remove(&process.pid);
        }
    }
}

/// An entry is in its map this long after the time it carries, at the latest: a program may be interrupted in between,
/// and a virtual machine's processor may be taken away.
const IN_PROGRESS: std::time::Duration = std::time::Duration::from_secs(2);

fn take_map(ebpf: &mut Ebpf, map: &'static str) -> Result<aya::maps::Map, CaptureError> {
    ebpf.take_map(map).ok_or_else(missing(map))
}

fn missing(map: &'static str) -> impl Fn() -> CaptureError {
    move || CaptureError::Map { map, reason: "missing".to_owned() }
}

fn in_map(map: &'static str) -> impl Fn(aya::maps::MapError) -> CaptureError {
    move |reason| CaptureError::Map { map, reason: reason.to_string() }
}

/// Loads and attaches everything with small maps, detaches again, and says how each fact would be had.
pub fn probe_host(btf: PathBuf, hooks: Allowed) -> Result<Vec<Probe>, CaptureError> {
    let settings = Settings { ring_bytes: 1 << 16, map_entries: 1024, netns: 0, btf, hooks, lost_ends_percent: 0 };
    Capture::start(&settings, &PortMap::default()).map(|capture| capture.probes.clone())
}

/// Sets these bits in a map of 64-bit words; the others stay as they are.
fn set_bits(ebpf: &mut Ebpf, map: &'static str, bits: impl IntoIterator<Item = u32>) -> Result<(), CaptureError> {
    let mut words = BTreeMap::<u32, u64>::new();
    for bit in bits {
        *words.entry(bit >> 6).or_default() |= 1 << (bit & 63);
    }
    let data = ebpf.map_mut(map).ok_or_else(missing(map))?;
    let mut array: Array<_, u64> = Array::try_from(data).map_err(in_map(map))?;
    for (index, word) in words {
        let set = array.get(&index, 0).map_err(in_map(map))?;
        array.set(index, set | word, 0).map_err(in_map(map))?;
    }
    Ok(())
}

fn load_error(error: EbpfError) -> CaptureError {
    let text = chain(&error);
    if is_permission(&text) { CaptureError::NoPrivilege } else { CaptureError::Load(text) }
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
