//! Connects that fail inside the call: no route, no free port. By the return of `tcp_v4_connect` and
//! `tcp_v6_connect` (fexit, kretprobe), else by the tracepoint `sys_exit_connect`.
//!
//! Failures after the SYN has left (refused, reset, timed out) are ends like any other and told by `state`. In between
//! are those that fail after the change to SYN_SENT, for lack of a free port: `state` leaves their entry in `OWNERS`, in
//! state CLOSE, for the programs here, which know the errno.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_probe_read_user, generated};
use aya_ebpf::macros::{fexit, kprobe, kretprobe, tracepoint};
use aya_ebpf::programs::{FExitContext, ProbeContext, RetProbeContext, TracePointContext};
use tracer_common::{Owner, SocketRecord, kind, role};

use super::{EMPTY, accept, now_ns, tcp};
use crate::emit::emit;
use crate::maps::{CONNECTING, OWNERS, offset};
use crate::sock::{Head, Sock, read};
use crate::{filter, sock, task};

/// Values of connect(2) that say nothing of a connect that ended: no socket or address at all (EBADF, EFAULT, ENOTSOCK),
/// interrupted (EINTR, ERESTARTSYS), under way (EALREADY, EINPROGRESS), done before (EISCONN).
const NO_END: [i64; 8] = [-9, -14, -88, -4, -512, -114, -115, -106];

/// `tcp_v4_connect(sk, uaddr, addr_len)`, returned value last.
#[fexit(function = "tcp_v4_connect")]
pub fn connect4_exit(ctx: FExitContext) -> i32 {
    // For a v4-mapped address `tcp_v6_connect` calls this one, and returns what it returns.
    if sock::is_ipv6(ctx.arg(0)) {
        return 0;
    }
    returned(ctx.arg::<u64>(0), ctx.arg::<u64>(1), i64::from(ctx.arg::<i32>(3)));
    0
}

#[fexit(function = "tcp_v6_connect")]
pub fn connect6_exit(ctx: FExitContext) -> i32 {
    returned(ctx.arg::<u64>(0), ctx.arg::<u64>(1), i64::from(ctx.arg::<i32>(3)));
    0
}

/// A return probe does not see the arguments: this one keeps them for it.
#[kprobe]
pub fn connect_enter(ctx: ProbeContext) -> u32 {
    let regs = ctx.as_ptr() as u64;
    let arguments = read::<u64>(regs, offset!(regs_first)).zip(read::<u64>(regs, offset!(regs_second)));
    if let Some((sk, address)) = arguments {
        // Full with calls that never return: then this call's failure is not told.
        let _ = CONNECTING.insert(bpf_get_current_pid_tgid(), [sk, address], 0);
    }
    0
}

#[kretprobe]
pub fn connect_return(ctx: RetProbeContext) -> u32 {
    let call = bpf_get_current_pid_tgid();
    // SAFETY: the value is copied out at once, and only this thread writes it.
    let Some([sk, address]) = (unsafe { CONNECTING.get(call) }).copied() else { return 0 };
    // There: this thread put it there.
    let _ = CONNECTING.remove(call);
    if let Some(returned_value) = read::<i32>(ctx.as_ptr() as u64, offset!(regs_returned)) {
        returned(sk, address, i64::from(returned_value));
    }
    0
}

#[inline(always)]
fn returned(sk: Sock, address: u64, value: i64) {
    if value >= 0 || told_by_entry(sk, value) {
        return;
    }
    let Some(port) = read::<u16>(address, 2) else { return };
    if filter::watched(u16::from_be(port)) {
        let family = read::<u16>(address, 0);
        let words = [read::<u64>(address, 0), read::<u64>(address, 8), read::<u64>(address, 16)];
        refused(sk, family, words, value);
    }
}

/// The call itself does not say which descriptor and address it had: the registers that it came with do.
#[tracepoint(category = "syscalls", name = "sys_exit_connect")]
pub fn connect(ctx: TracePointContext) -> u32 {
    let value = accept::returned(&ctx);
    if value >= 0 || NO_END.contains(&value) {
        return 0;
    }
    // SAFETY: the helpers take the running task, which is always there.
    let regs = unsafe { generated::bpf_task_pt_regs(generated::bpf_get_current_task_btf()) } as u64;
    let Some((fd, address)) = read::<u64>(regs, offset!(regs_call_first)).zip(read::<u64>(regs, offset!(regs_second)))
    else {
        return 0;
    };
    let Some(sk) = accept::socket_of(fd & 0xffff_ffff).and_then(|socket| read(socket, offset!(socket_sk))) else {
        return 0;
    };
    // A socket that has had a port got further than this program looks.
    if told_by_entry(sk, value) || sock::inet_sport(sk) != 0 {
        return 0;
    }
    // SAFETY: the helper checks the address itself and fails instead of faulting.
    let head = unsafe { bpf_probe_read_user::<u64>(address as *const u64) };
    let Ok(head) = head else { return 0 };
    if !filter::watched(u16::from_be((head >> 16) as u16)) {
        return 0;
    }
    // SAFETY: as above; an IPv4 address is shorter and may end where memory does.
    let (second, third) = unsafe {
        (bpf_probe_read_user::<u64>((address + 8) as *const u64), bpf_probe_read_user((address + 16) as *const u64))
    };
    refused(sk, Some(head as u16), [Some(head), second.ok(), third.ok()], value);
    0
}

/// Tells the end of a socket that changed to SYN_SENT and back within the call.
#[inline(always)]
fn told_by_entry(sk: Sock, value: i64) -> bool {
    // SAFETY: this thread's own call made the entry and left it.
    let Some(owner) = (unsafe { OWNERS.get(sk) }).copied() else { return false };
    if owner.state != tcp::CLOSE {
        return false;
    }
    tell(sk, &owner, tcp::SYN_SENT, kind::END, value);
    // Removed by nobody else: this call's socket has no other end.
    let _ = OWNERS.remove(sk);
    true
}

/// Tells a connect that failed before the socket changed its state. `address` is the start of its `struct sockaddr`.
#[inline(always)]
fn refused(sk: Sock, family: Option<u16>, address: [Option<u64>; 3], value: i64) {
    let Some(head) = Head::read(sk) else { return };
    if !sock::is_tcp(sk, head.ports()) {
        return;
    }
    let netns = head.netns();
    if !filter::watched_netns(netns) {
        return;
    }
    let [first, second, third] = address.map(|word| word.unwrap_or(0));
    let at_ns = now_ns();
    let mut owner = Owner { birth_ns: at_ns, state_ns: at_ns, role: role::CLIENT, state: tcp::CLOSE, netns, ..EMPTY };
    owner.remote_port = u16::from_be((first >> 16) as u16);
    sock::fill_remote(&mut owner, family, first, second, third);
    task::watched(&mut owner.opener);
    tell(sk, &owner, tcp::CLOSE, kind::REFUSED, value);
}

#[inline(always)]
fn tell(sk: Sock, owner: &Owner, old_state: u8, kind: u8, value: i64) {
    emit(kind, now_ns(), |header, slot| {
        slot.write(SocketRecord {
            header,
            sk,
            owner: *owner,
            bytes_sent: 0,
            bytes_received: 0,
            srtt_us: 0,
            retransmits: 0,
            error: -value as u16,
            old_state,
            new_state: tcp::CLOSE,
            rtos: 0,
            pad: [0; 3],
        });
    });
}
