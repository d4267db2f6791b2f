//! Maps and the read-only globals the loader fills in. Nothing evicts: a full map is counted and repaired from user
//! space.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, RingBuf};
use tracer_common::{ABI_VERSION, AcceptRecord, DROP_REASONS, Offsets, Owner, TaskRecord, control, counter};

/// Records for user space. Sized by the loader.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Watched sockets from birth to end, by kernel address. Sized by the loader. Preallocated: programs on tracepoints
/// must not allocate before Linux 6.1.
#[map]
pub static OWNERS: HashMap<u64, Owner> = HashMap::with_max_entries(65_536, 0);

/// Processes that own watched sockets, by tgid; without a name until the kernel side has seen one connect or accept.
/// Sized by the loader.
#[map]
pub static PROCESSES: HashMap<u32, TaskRecord> = HashMap::with_max_entries(16_384, 0);

/// What these processes accepted on ports that are not watched, by tgid; from the first such accept to the process' end.
/// As large as `PROCESSES`.
#[map]
pub static ACCEPTS: HashMap<u32, AcceptRecord> = HashMap::with_max_entries(16_384, 0);

/// Calls of connect(2) under way, by thread: socket and address. Only where the ladder needs a return probe for it.
#[map]
pub static CONNECTING: HashMap<u64, [u64; 2]> = HashMap::with_max_entries(4096, 0);

/// One bit for each watched port.
#[map]
pub static PORTS: Array<u64> = Array::with_max_entries(1024, 0);

/// See `tracer_common::control`.
#[map]
static CONTROL: Array<u64> = Array::with_max_entries(control::COUNT, 0);

/// See `tracer_common::counter`.
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(counter::COUNT, 0);

/// Element 0: when the reader was last woken. Element 1: when a rare path last logged.
#[map]
pub static LAST: Array<u64> = Array::with_max_entries(2, 0);

/// The state change that the first instance of `set_state` handled last on this CPU.
#[map]
pub static HANDLED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// When a thrown away packet was last told on this CPU.
#[map]
pub static DROPPED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Reasons for throwing packets away that are of interest, a bit each.
#[map]
static DROP_BITS: Array<u64> = Array::with_max_entries(DROP_REASONS as u32 / 64, 0);

/// Offsets into the running kernel's structures.
#[unsafe(no_mangle)]
static OFFSETS: Offsets = zero_offsets();

/// Inode number of the only network namespace to watch; 0 watches all.
#[unsafe(no_mangle)]
static NETNS: u32 = 0;

/// Wake the reader whatever the time once this many bytes wait in the ring.
#[unsafe(no_mangle)]
static WAKE_BYTES: u32 = 1 << 18;

/// So many in a hundred ends are treated as if the ring were full. Only tests set it.
#[unsafe(no_mangle)]
static LOST_ENDS_PERCENT: u32 = 0;

/// Goes into every record; decode refuses a record of another version.
#[unsafe(no_mangle)]
static ABI: u32 = ABI_VERSION;

const fn zero_offsets() -> Offsets {
    // SAFETY: `Offsets` is made of integers only, for which all-zero bytes are a value.
    unsafe { core::mem::zeroed() }
}

/// Reads one offset. Volatile: the loader changes the value after compilation.
macro_rules! offset {
    ($field:ident) => {
        $crate::maps::offset_at(core::mem::offset_of!(tracer_common::Offsets, $field))
    };
}
pub(crate) use offset;

#[inline(always)]
pub fn offset_at(field: usize) -> usize {
    let base = (&raw const OFFSETS).cast::<u8>();
    // SAFETY: `field` comes from `offset_of!(Offsets, ..)`, so it lies inside the static and is aligned for u32.
    unsafe { core::ptr::read_volatile(base.add(field).cast::<u32>()) as usize }
}

#[inline(always)]
pub fn netns() -> u32 {
    // SAFETY: a static is always readable.
    unsafe { core::ptr::read_volatile(&raw const NETNS) }
}

#[inline(always)]
pub fn lost_ends_percent() -> u32 {
    // SAFETY: a static is always readable.
    unsafe { core::ptr::read_volatile(&raw const LOST_ENDS_PERCENT) }
}

/// Whether it is of interest that a packet was thrown away for this reason.
#[inline(always)]
pub fn is_drop_reason(reason: u32) -> bool {
    DROP_BITS.get(reason >> 6).is_some_and(|bits| bits & (1 << (reason & 63)) != 0)
}

/// Whether somebody watches events as they happen.
#[inline(always)]
pub fn is_live() -> bool {
    CONTROL.get(control::LIVE).is_some_and(|value| *value != 0)
}

/// Whether a program waits for connects that fail after their change to SYN_SENT.
#[inline(always)]
pub fn has_connect_hook() -> bool {
    CONTROL.get(control::CONNECT).is_some_and(|value| *value != 0)
}

#[inline(always)]
pub fn wake_bytes() -> u64 {
    // SAFETY: a static is always readable.
    u64::from(unsafe { core::ptr::read_volatile(&raw const WAKE_BYTES) })
}

/// Keeps the version in the object: a static nobody reads is dropped by the linker.
#[inline(always)]
pub fn abi_version() -> u8 {
    // SAFETY: a static is always readable.
    unsafe { core::ptr::read_volatile(&raw const ABI) as u8 }
}

/// Adds one to a counter of this CPU; what it is now.
#[inline(always)]
pub fn count(index: u32) -> u64 {
    let Some(value) = COUNTERS.get_ptr_mut(index) else { return 0 };
    // SAFETY: the pointer is to this CPU's slot of a live map; programs of one CPU may nest (softirq over task), and then
    // an increment can be lost, never torn.
    unsafe {
        *value += 1;
        *value
    }
}
