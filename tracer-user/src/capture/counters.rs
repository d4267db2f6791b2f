//! The kernel side's own counters: what it emitted and what it could not.

use aya::Ebpf;
use aya::maps::{MapData, PerCpuArray};
use tracer_common::{counter, kind};

use super::CaptureError;

/// Sums over all CPUs since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelCounters {
    /// Records handed to the ring, by `tracer_common::kind`.
    pub emitted: [u64; kind::COUNT],
    /// Records that found the ring full, by kind.
    pub ring_full: [u64; kind::COUNT],
    /// Sockets that found their map full.
    pub map_full: u64,
    /// Processes that found their map full.
    pub process_map_full: u64,
    /// Accepts that found their map full.
    pub accept_map_full: u64,
    /// Reads of kernel memory that failed.
    pub read_failed: u64,
    /// Thrown away packets that were not told.
    pub drops_untold: u64,
    /// State changes that the second instance of the program handled because the first was skipped.
    pub nested: u64,
    /// Runs that the kernel skipped because an interrupt came while the program ran on that CPU, and nobody made up for.
    pub program_skipped: u64,
}

impl KernelCounters {
    /// Records of any kind that found the ring full.
    #[must_use]
    pub fn ring_full_total(&self) -> u64 {
        self.ring_full.iter().sum()
    }

    /// Records handed to the ring: the name of each kind, and how many.
    pub fn records(&self) -> impl Iterator<Item = (&'static str, u64)> {
        KINDS.into_iter().map(|(name, kind)| (name, self.emitted[usize::from(kind)]))
    }

    /// Of these, ends of connections.
    #[must_use]
    pub fn ends_lost(&self) -> u64 {
        self.ring_full[usize::from(kind::END)]
    }
}

/// What each kind of record is called in metrics.
const KINDS: [(&str, u8); 9] = [
    ("open", kind::OPEN),
    ("state", kind::STATE),
    ("end", kind::END),
    ("accept", kind::ACCEPT),
    ("retransmit", kind::RETRANSMIT),
    ("exec", kind::EXEC),
    ("exit", kind::EXIT),
    ("refused", kind::REFUSED),
    ("drop", kind::DROP),
];

/// The counter map.
pub struct Counters {
    map: PerCpuArray<MapData, u64>,
}

impl Counters {
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self, CaptureError> {
        let map = ebpf.take_map("COUNTERS").ok_or_else(|| error("missing".to_owned()))?;
        Ok(Self { map: PerCpuArray::try_from(map).map_err(|reason| error(reason.to_string()))? })
    }

    pub(super) fn read(&self) -> Result<KernelCounters, CaptureError> {
        let mut all = KernelCounters::default();
        for index in 0..kind::COUNT {
            let offset = u32::try_from(index).unwrap_or(u32::MAX);
            all.ring_full[index] = self.sum(counter::RING_FULL + offset)?;
            all.emitted[index] = self.sum(counter::EMITTED + offset)?;
        }
        all.map_full = self.sum(counter::OWNERS_FULL)?;
        all.process_map_full = self.sum(counter::PROCESSES_FULL)?;
        all.accept_map_full = self.sum(counter::ACCEPTS_FULL)?;
        all.read_failed = self.sum(counter::READ_FAILED)?;
        all.drops_untold = self.sum(counter::DROPS_UNTOLD)?;
        all.nested = self.sum(counter::NESTED)?;
        Ok(all)
    }

    /// Changes of the owner map that no record told of.
    pub(super) fn untold(&self) -> Result<u64, CaptureError> {
        self.sum(counter::UNTOLD)
    }

    /// Accepts in the map of them.
    pub(super) fn accepts(&self) -> Result<u64, CaptureError> {
        self.sum(counter::ACCEPTS)
    }

    fn sum(&self, index: u32) -> Result<u64, CaptureError> {
        let values = self.map.get(&index, 0).map_err(|reason| error(reason.to_string()))?;
        Ok(values.iter().sum())
    }
}

fn error(reason: String) -> CaptureError {
    CaptureError::Map { map: "COUNTERS", reason }
}
