//! What the kernel side counted of accepts, by process: read when its counter says that there is something new, and only
//! what is new is told.

use std::collections::HashMap;

use aya::Ebpf;
use tracer_common::AcceptRecord;
use tracer_core::decode::{self, DecodeError};
use tracer_core::event::{Event, ProcessId};
use tracer_core::time::BootNs;

use super::CaptureError;
use super::batch::Batched;

/// [`AcceptRecord`] as a map's value.
#[repr(transparent)]
#[derive(Clone, Copy, Default)]
struct PodAccepts(AcceptRecord);

// SAFETY: `AcceptRecord` is `repr(C)` and made of u64 only: no padding, no pointers, any bytes are a value.
unsafe impl aya::Pod for PodAccepts {}

/// The map of accepts.
pub struct Accepts {
    map: Batched<u32, PodAccepts>,
    /// What each entry was when it was last read.
    told: HashMap<u32, AcceptRecord>,
    /// The counter when the map was last read.
    counted: Option<u64>,
}

impl Accepts {
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self, CaptureError> {
        Ok(Self { map: Batched::new(ebpf, "ACCEPTS")?, told: HashMap::new(), counted: Some(0) })
    }

    /// Hands what is new to `each`, as of `at`. `counted` was read before, and counts what is in the map already.
    pub(super) fn each_new(
        &mut self,
        counted: u64,
        at: BootNs,
        mut each: impl FnMut(Result<Event, DecodeError>),
    ) -> Result<(), CaptureError> {
        if self.counted == Some(counted) {
            return Ok(());
        }
        // Not read until it is read to its end.
        self.counted = None;
        let mut now = HashMap::with_capacity(self.told.len());
        self.map.each(|tgid, PodAccepts(record)| {
            if self.told.get(&tgid) != Some(record) {
                each(decode::accepted(at, tgid, record));
            }
            now.insert(tgid, *record);
        })?;
        (self.told, self.counted) = (now, Some(counted));
        Ok(())
    }

    /// The process is gone: its place is free again, if the kernel side did not see to that.
    pub(super) fn forget(&mut self, process: ProcessId) {
        // A later process of that pid may have the place.
        let known = self.map.get(&process.pid);
        if known.is_some_and(|PodAccepts(record)| ProcessId::from_boot(process.pid, BootNs(record.start_ns)) == process)
        {
            self.map.remove(&process.pid);
        }
    }
}
