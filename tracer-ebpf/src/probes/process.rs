//! Raw tracepoints `sched_process_exec` and `sched_process_exit`: a new program or an end, of processes that own
//! watched sockets only.

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use tracer_common::{ProcessRecord, TaskRecord, kind};

use super::now_ns;
use crate::maps::{ACCEPTS, PROCESSES, offset};
use crate::sock::read;
use crate::{emit, task};

#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn exec(_ctx: RawTracePointContext) -> i32 {
    let tgid = task::current_tgid();
    if PROCESSES.get_ptr(tgid).is_some() {
        let record = report(kind::EXEC);
        // The name is another one from now on. The entry is there: this cannot run into the map's bound.
        let _ = PROCESSES.insert(tgid, record, 0);
    }
    0
}

#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn exit(_ctx: RawTracePointContext) -> i32 {
    let tgid = task::current_tgid();
    if PROCESSES.get_ptr(tgid).is_none() {
        return 0;
    }
    // Fires for every thread; `signal->live` is decremented before (kernel/exit.c, do_exit), so 0 means the last one.
    let live = read::<u64>(task::current_task(), offset!(task_signal))
        .and_then(|signal| read::<i32>(signal, offset!(signal_live)));
    if live != Some(0) {
        return 0;
    }
    report(kind::EXIT);
    // Before the process' own entry: while there is one there is room for it. Not there if it accepted nothing.
    let _ = ACCEPTS.remove(tgid);
    // Gone if another CPU's last thread came first, which cannot be: one thread is the last.
    let _ = PROCESSES.remove(tgid);
    0
}

#[inline(always)]
fn report(kind: u8) -> TaskRecord {
    let mut task = task::NOBODY;
    task::fill_current(&mut task);
    // SAFETY: an aligned integer of a live map. The element is this process' own, and goes at its end only.
    let accepts = unsafe { ACCEPTS.get(task::current_tgid()) }.map_or(0, |known| known.accepts);
    emit::emit(kind, now_ns(), |header, slot| {
        slot.write(ProcessRecord { header, task, accepts });
    });
    task
}
