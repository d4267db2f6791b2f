//! Which process took a connection off its listener's queue: by the return of `inet_csk_accept` (fexit, kretprobe),
//! else by the tracepoints `sys_exit_accept` and `sys_exit_accept4`, whose descriptor is followed to its socket.
//!
//! None of these runs under the socket's lock: the connection may end on another CPU meanwhile and its entry in
//! `OWNERS` may already belong to another socket. So entries are read with care here and never written. The socket
//! itself stays, because the process has it.
//!
//! What a process that owns watched sockets accepts on any other port is a request to it, more or less: that is counted
//! by process, and not told one by one. A connection that is kept alive carries many requests.

use core::arch::asm;

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::{fexit, kretprobe, tracepoint};
use aya_ebpf::programs::{FExitContext, RetProbeContext, TracePointContext};
use tracer_common::{AcceptRecord, Owner, counter, kind, role};

use super::{EMPTY, emit_socket, now_ns, tcp};
use crate::maps::{ACCEPTS, OWNERS, PROCESSES, count, offset};
use crate::sock::{Head, Ports, Sock, read};
use crate::{filter, sock, task};

/// Offset of `ret` in every `sys_exit_*` record: 8 bytes of common fields, then `int nr` padded to 8.
const RET_OFFSET: usize = 16;

/// Only if there is no such entry yet.
const BPF_NOEXIST: u64 = 1;
const EEXIST: i32 = -17;

/// Before Linux 6.10: `inet_csk_accept(sk, flags, err, kern)`.
#[fexit(function = "inet_csk_accept")]
pub fn accept_exit_4(ctx: FExitContext) -> i32 {
    accepted(ctx.arg::<u64>(4), 0);
    0
}

/// Since Linux 6.10: `inet_csk_accept(sk, arg)`.
#[fexit(function = "inet_csk_accept")]
pub fn accept_exit_2(ctx: FExitContext) -> i32 {
    accepted(ctx.arg::<u64>(2), 0);
    0
}

#[kretprobe(function = "inet_csk_accept")]
pub fn accept_return(ctx: RetProbeContext) -> u32 {
    if let Some(sk) = read::<u64>(ctx.as_ptr() as u64, offset!(regs_returned)) {
        accepted(sk, 0);
    }
    0
}

#[tracepoint(category = "syscalls", name = "sys_exit_accept")]
pub fn accept(ctx: TracePointContext) -> u32 {
    accepted_fd(&ctx);
    0
}

#[tracepoint(category = "syscalls", name = "sys_exit_accept4")]
pub fn accept4(ctx: TracePointContext) -> u32 {
    accepted_fd(&ctx);
    0
}

#[inline(always)]
fn accepted_fd(ctx: &TracePointContext) {
    let fd = returned(ctx);
    if fd >= 0
        && let Some(socket) = socket_of(fd as u64)
        && let Some(sk) = read(socket, offset!(socket_sk))
    {
        accepted(sk, socket);
    }
}

/// What the system call returns.
#[inline(always)]
pub fn returned(ctx: &TracePointContext) -> i64 {
    // SAFETY: a constant offset within the record of every `sys_exit_*`, which the verifier checks.
    unsafe { ctx.as_ptr().byte_add(RET_OFFSET).cast::<i64>().read() }
}

#[inline(always)]
fn accepted(sk: Sock, socket: u64) {
    if sk == 0 {
        return;
    }
    let Some(ports) = sock::ports(sk) else { return };
    if !filter::watched(ports.local) {
        inbound(sk, ports);
        return;
    }
    let Some(head) = Head::read(sk) else { return };
    let ports = head.ports();
    if !sock::is_tcp(sk, ports) {
        return;
    }
    let netns = head.netns();
    let state = ports.state;
    if !filter::watched_netns(netns) || state == tcp::CLOSE {
        return;
    }
    // Not known yet where the kernel function returns: it is given its descriptor afterwards.
    let inode = if socket == 0 { 0 } else { sock::inode_of(socket) };
    let mut owner = Owner { role: role::SERVER, netns, state, inode, ..EMPTY };
    head.fill(&mut owner);
    (owner.birth_ns, owner.established_ns) = beginning(sk);
    task::watched(&mut owner.opener);
    emit_socket(kind::ACCEPT, sk, now_ns(), &owner, state, false);
}

/// Counts an accept of a process that owns watched sockets. Whoever owns none pays for one look into a map.
#[inline(always)]
fn inbound(sk: Sock, ports: Ports) {
    let tgid = task::current_tgid();
    if PROCESSES.get_ptr(tgid).is_none() || !sock::is_tcp(sk, ports) {
        return;
    }
    if add_accept(tgid) {
        return;
    }
    let first = AcceptRecord { start_ns: task::start_ns(task::current_task()), accepts: 1 };
    match ACCEPTS.insert(tgid, first, BPF_NOEXIST) {
        Ok(()) => {
            count(counter::ACCEPTS);
        }
        // Another thread of the process came first.
        Err(EEXIST) => {
            add_accept(tgid);
        }
        Err(_) => {
            count(counter::ACCEPTS_FULL);
        }
    }
}

/// Adds one to what the process accepted; false if it has no entry yet.
#[inline(always)]
fn add_accept(tgid: u32) -> bool {
    let Some(known) = ACCEPTS.get_ptr_mut(tgid) else { return false };
    // SAFETY: an aligned integer of a live map. The entry is this process' own and stays while one of its threads runs
    // here: it goes when the last one has ended. In one instruction, because these threads may be here together; it is one
    // that kernels before 5.12 know, which those are not that would also give what was there.
    unsafe {
        let accepts = &raw mut (*known).accepts;
        asm!("lock *(u64 *)({accepts} + 0) += {one}", accepts = in(reg) accepts, one = in(reg) 1u64);
    }
    count(counter::ACCEPTS);
    true
}

/// When the life in the socket's entry began. An entry that is still the same after it was read was this socket's all
/// the time: it could have become another's in between, but not this one's again.
#[inline(always)]
fn beginning(sk: Sock) -> (u64, u64) {
    let Some(known) = OWNERS.get_ptr(sk) else { return (0, 0) };
    // SAFETY: memory of a live map; the check below throws away what was not this socket's.
    let times = unsafe { ((*known).birth_ns, (*known).established_ns) };
    if OWNERS.get_ptr(sk) == Some(known) { times } else { (0, 0) }
}

/// `current->files->fdt->fd[fd]->private_data`, a `struct socket`. The descriptor is this very call's: it is within the
/// table, which never shrinks.
#[inline(always)]
pub fn socket_of(fd: u64) -> Option<u64> {
    let files: u64 = read(task::current_task(), offset!(task_files))?;
    let table: u64 = read(files, offset!(files_fdt))?;
    let array: u64 = read(table, offset!(fdt_fd))?;
    let file: u64 = read(array, fd as usize * 8)?;
    read(file, offset!(file_private_data))
}
