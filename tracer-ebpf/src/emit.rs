//! The only place that reserves and submits ring buffer records: every record is counted, and so is every one that
//! found no room.

use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use tracer_common::{ProcessRecord, RecordHeader, SocketRecord, WAKE_INTERVAL_NS, counter};

use crate::maps::{EVENTS, LAST, abi_version, count, wake_bytes};

/// Hands a record to user space: `fill` writes it in place, into zeroed memory of the ring. Nothing is read from the
/// socket when there is no room.
#[inline(always)]
pub fn emit<T: Record>(kind: u8, at_ns: u64, fill: impl FnOnce(&mut T)) {
    let Some(mut slot) = EVENTS.reserve::<T>(0) else {
        count(counter::RING_FULL + u32::from(kind));
        return;
    };
    let at = slot.as_mut_ptr();
    // SAFETY: the slot is `size_of::<T>()` bytes of writable ring memory, aligned to 8; all-zero bytes are a value of
    // every record type.
    let record = unsafe {
        core::ptr::write_bytes(at, 0, 1);
        &mut *at
    };
    *record.header() = RecordHeader { kind, version: abi_version(), len: size_of::<T>() as u16, netns: 0, at_ns };
    fill(record);
    slot.submit(wake(at_ns));
    count(counter::EMITTED + u32::from(kind));
}

/// What goes into the ring.
pub trait Record: 'static {
    fn header(&mut self) -> &mut RecordHeader;
}

impl Record for SocketRecord {
    #[inline(always)]
    fn header(&mut self) -> &mut RecordHeader {
        &mut self.header
    }
}

impl Record for ProcessRecord {
    #[inline(always)]
    fn header(&mut self) -> &mut RecordHeader {
        &mut self.header
    }
}

/// A wake-up costs about as much as three records. The reader looks again `WAKE_INTERVAL_NS` after each one, so only
/// the first record after that needs one, and any record while the ring runs full.
#[inline(always)]
fn wake(at_ns: u64) -> u64 {
    let Some(last) = LAST.get_ptr_mut(0) else { return 0 };
    // SAFETY: element 0 of an array map of u64; two CPUs that race here both wake, which is harmless.
    if at_ns.wrapping_sub(unsafe { *last }) >= WAKE_INTERVAL_NS {
        // SAFETY: as above.
        unsafe { *last = at_ns };
        return u64::from(BPF_RB_FORCE_WAKEUP);
    }
    if EVENTS.query(u64::from(BPF_RB_AVAIL_DATA)) >= wake_bytes() {
        u64::from(BPF_RB_FORCE_WAKEUP)
    } else {
        u64::from(BPF_RB_NO_WAKEUP)
    }
}
