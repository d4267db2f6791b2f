//! The current process, where a caller exists. Never call this from softirq: there the current task is whoever was
//! interrupted.

use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid, generated};
use tracer_common::{TaskRecord, counter};

use crate::maps::{PROCESSES, count, offset};
use crate::sock::read;

const PF_KTHREAD: u32 = 0x0020_0000;
const E2BIG: i32 = -7;

/// Fills in the running process; leaves all zero for a kernel thread (a deferred close runs in one).
#[inline(always)]
pub fn fill_current(record: &mut TaskRecord) {
    let task = current_task();
    if read::<u32>(task, offset!(task_flags)).is_none_or(|flags| flags & PF_KTHREAD != 0) {
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
    let task = current_task();
    if read::<u32>(task, offset!(task_flags)).is_none_or(|flags| flags & PF_KTHREAD != 0) {
        return (0, 0);
    }
    (current_tgid(), start_ns(task))
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
fn start_ns(task: u64) -> u64 {
    read::<u64>(task, offset!(task_group_leader))
        .and_then(|leader| read::<u64>(leader, offset!(task_start_boottime)))
        .unwrap_or(0)
}

/// From now on report this process' exec and exit.
#[inline(always)]
pub fn watch(task: &TaskRecord) {
    if task.tgid == 0 {
        return;
    }
    // SAFETY: the value is copied out at once; another CPU may replace it meanwhile, with the same start time.
    if unsafe { PROCESSES.get(task.tgid) }.is_some_and(|start| *start == task.start_ns) {
        return;
    }
    if PROCESSES.insert(task.tgid, task.start_ns, 0) == Err(E2BIG) {
        count(counter::PROCESSES_FULL);
    }
}
