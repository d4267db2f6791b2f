//! How often the kernel skipped programs of ours.
//!
//! A raw tracepoint program does not nest: when an interrupt hits the same tracepoint on a CPU where the program is
//! running, that run is skipped (`__bpf_trace_run`, since Linux 6.1; before that it nests). The kernel counts it per
//! program and nobody else sees it.

use std::os::fd::{AsFd, AsRawFd};

use aya::Ebpf;
use aya::programs::ProgramFd;
use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_prog_info};

/// The loaded programs.
pub struct Skipped {
    state: Option<ProgramFd>,
    others: Vec<ProgramFd>,
}

impl Skipped {
    /// Of the programs whose skipped runs cost something: the second instance of `set_state` is skipped only where the
    /// first one runs, `destroy` is a safety net, `retransmit` and `discard` repeat themselves.
    pub(super) fn new(ebpf: &Ebpf) -> std::io::Result<Self> {
        let mut state = None;
        let mut others = Vec::new();
        for (name, program) in ebpf.programs() {
            // Not every rung of the ladder is loaded.
            let Ok(fd) = program.fd() else { continue };
            match name {
                "set_state" => state = Some(fd.try_clone()?),
                "set_state_nested" | "destroy" | "retransmit" | "discard" => {}
                _ => others.push(fd.try_clone()?),
            }
        }
        Ok(Self { state, others })
    }

    /// Skipped runs of `set_state`, and of all others, since they were loaded; 0 before Linux 5.12, which does not count
    /// them.
    pub(super) fn totals(&self) -> std::io::Result<(u64, u64)> {
        let misses = |program: &ProgramFd| info(program).map(|info| info.recursion_misses);
        let state = self.state.as_ref().map_or(Ok(0), misses)?;
        let others = self.others.iter().map(misses).sum::<std::io::Result<u64>>()?;
        Ok((state, others))
    }
}

fn info(program: &ProgramFd) -> std::io::Result<bpf_prog_info> {
    // SAFETY: both are plain C structures of integers and addresses, for which all-zero bytes are a value.
    let (mut info, mut attr) = unsafe { (std::mem::zeroed::<bpf_prog_info>(), std::mem::zeroed::<bpf_attr>()) };
    attr.info.bpf_fd = u32::try_from(program.as_fd().as_raw_fd()).unwrap_or(u32::MAX);
    attr.info.info_len = u32::try_from(size_of::<bpf_prog_info>()).unwrap_or(0);
    attr.info.info = (&raw mut info) as u64;
    // SAFETY: the kernel reads `attr`, and writes at most `info_len` bytes to `info`, which outlives the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &raw mut attr, size_of::<bpf_attr>()) };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(info) }
}
