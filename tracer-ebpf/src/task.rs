//! The current process, where a caller exists. Never call this from softirq: there the current task is whoever was
//! interrupted.

use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid, generated};
use tracer_common::{TaskRecord, counter};

use crate::maps::{PROCESSES, count, offset};
use crate::sock::read;

const PF_KTHREAD: u32 = 0x0020_0000;
const E2BIG: i32 = -7;

/// Nobody.
pub const NOBODY: TaskRecord = TaskRecord { tgid: 0, uid: 0, start_ns: 0, comm: [0; 16] };

/// The running process, with the name that the first of its threads had which connected or accepted. From now on its
/// exec and exit are reported. All zero for a kernel thread (a deferred close runs in one).
#[inline(always)]
pub fn watched(record: &mut TaskRecord) {
    let tgid = current_tgid();
    // Entries go when the process ends, so a known tgid is the process it was.
    // SAFETY: the value is copied out at once; another thread of the process may replace it meanwhile by the same.
    if let Some(known) = unsafe { PROCESSES.get(tgid) }
        && known.comm[0] != 0
    {
        *record = *known;
        // The element may have become another process' while it was copied: another thread replaced it.
        if record.tgid == tgid {
            return;
        }
        *record = NOBODY;
    }
    fill_current(record);
    if record.tgid != 0 && PROCESSES.insert(tgid, *record, 0) == Err(E2BIG) {
        count(counter::PROCESSES_FULL);
    }
}

/// Fills in the running process; leaves the record alone for a kernel thread.
#[inline(always)]
pub fn fill_current(record: &mut TaskRecord) {
    let task = current_task();
    if is_kernel_thread(task) {
        return;
    }
    record.uid = bpf_get_current_uid_gid() as u32;
    record.start_ns = start_ns(task);
    // Fails for a zero-sized buffer only.
    record.comm = bpf_get_current_comm().unwrap_or([0; 16]);
    record.tgid = current_tgid();
}

/// Pid and start of the running process; zeros for a kernel thread.
#[inline(always)]
pub fn current_id() -> (u32, u64) {
    let tgid = current_tgid();
    // SAFETY: as in `watched`.
    if let Some(known) = unsafe { PROCESSES.get(tgid) }
        && known.comm[0] != 0
    {
        return (tgid, known.start_ns);
    }
    let task = current_task();
    if is_kernel_thread(task) { (0, 0) } else { (tgid, start_ns(task)) }
}

#[inline(always)]
pub fn current_tgid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

#[inline(always)]
pub fn current_task() -> u64 {
    // SAFETY: the helper takes no argument and always returns the running task.
    unsafe { generated::bpf_get_current_task() }
}

#[inline(always)]
fn is_kernel_thread(task: u64) -> bool {
    read::<u32>(task, offset!(task_flags)).is_none_or(|flags| flags & PF_KTHREAD != 0)
}

#[inline(always)]
pub fn start_ns(task: u64) -> u64 {
    read::<u64>(task, offset!(task_group_leader))
        .and_then(|leader| read::<u64>(leader, offset!(task_start_boottime)))
        .unwrap_or(0)
}
