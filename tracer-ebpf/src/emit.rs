//! The only place that reserves and submits ring buffer records: every record is counted, and so is every one that
//! found no room.

use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::generated;
use tracer_common::{RecordHeader, WAKE_INTERVAL_NS, counter, kind};

use crate::maps::{EVENTS, LAST, abi_version, count, lost_ends_percent, wake_bytes};

/// Hands a record to user space: `fill` gives the ring's own memory every byte of its value. Nothing is read from the
/// socket when there is no room.
#[inline(always)]
pub fn emit<T: 'static>(kind: u8, at_ns: u64, fill: impl FnOnce(RecordHeader, &mut core::mem::MaybeUninit<T>)) {
    if pretends_full(kind) {
        count(counter::RING_FULL + u32::from(kind));
        return;
    }
    let Some(mut slot) = EVENTS.reserve::<T>(0) else {
        count(counter::RING_FULL + u32::from(kind));
        return;
    };
    fill(RecordHeader { kind, version: abi_version(), len: size_of::<T>() as u16, pad: 0, at_ns }, &mut slot);
    let emitted = count(counter::EMITTED + u32::from(kind));
    slot.submit(wake(at_ns, emitted));
}

/// A fault that tests switch on when they load the programs: so many in a hundred ends find the ring full. In any other
/// load the verifier removes this.
#[inline(always)]
fn pretends_full(kind: u8) -> bool {
    let percent = lost_ends_percent();
    // SAFETY: the helper takes no argument.
    percent != 0 && kind == kind::END && unsafe { generated::bpf_get_prandom_u32() } % 100 < percent
}

/// The reader looks again `WAKE_INTERVAL_NS` after each wake-up, so only the first record after that needs one, and some
/// while the ring runs full: one in 16 looks for that.
#[inline(always)]
fn wake(at_ns: u64, emitted: u64) -> u64 {
    let Some(last) = LAST.get_ptr_mut(0) else { return 0 };
    // SAFETY: element 0 of an array map of u64; two CPUs that race here both wake, which is harmless.
    if at_ns.wrapping_sub(unsafe { *last }) >= WAKE_INTERVAL_NS {
        // SAFETY: as above.
        unsafe { *last = at_ns };
        return u64::from(BPF_RB_FORCE_WAKEUP);
    }
    if emitted % 16 == 0 && EVENTS.query(u64::from(BPF_RB_AVAIL_DATA)) >= wake_bytes() {
        u64::from(BPF_RB_FORCE_WAKEUP)
    } else {
        u64::from(BPF_RB_NO_WAKEUP)
    }
}
