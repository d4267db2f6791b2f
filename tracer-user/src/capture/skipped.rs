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
    programs: Vec<ProgramFd>,
}

impl Skipped {
    /// Of the programs whose skipped runs cost something: the second instance of `set_state` is skipped only where the
    /// first one runs, `destroy` is a safety net, `retransmit` repeats itself.
    pub(super) fn new(ebpf: &Ebpf) -> std::io::Result<Self> {
        let mut programs = Vec::new();
        for name in ["set_state", "accept", "accept4", "exec", "exit"] {
            if let Some(Ok(fd)) = ebpf.program(name).map(aya::programs::Program::fd) {
                programs.push(fd.try_clone()?);
            }
        }
        Ok(Self { programs })
    }

    /// Skipped runs of all programs since they were loaded; 0 before Linux 5.12, which does not count them.
    pub(super) fn total(&self) -> std::io::Result<u64> {
        self.programs.iter().map(|program| info(program).map(|info| info.recursion_misses)).sum()
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
