//! Raw tracepoint `inet_sock_set_state`: births, openings, closings and ends.
//!
//! Where a caller exists (net/ipv4/tcp.c, tcp_ipv4.c): CLOSE -> SYN_SENT runs in connect(2); -> FIN_WAIT1 and
//! -> LAST_ACK run in close(2), shutdown(2) or exit; -> CLOSE only when [`sock::closed_by_caller`]. All else may run in
//! softirq and names no process.

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use aya_log_ebpf::warn;
use tracer_common::{Owner, counter, kind, role};

use super::{EMPTY, emit_socket, now_ns, tcp};
use crate::maps::{HANDLED, LAST, OWNERS, count};
use crate::sock::{self, Ports};
use crate::{filter, task};

const E2BIG: i32 = -7;
const LOG_INTERVAL_NS: u64 = 1_000_000_000;

#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn set_state(ctx: RawTracePointContext) -> i32 {
    handle(&ctx);
    if let Some(handled) = HANDLED.get_ptr_mut(0) {
        // SAFETY: this CPU's slot of a live map.
        unsafe { *handled = change(&ctx) };
    }
    0
}

/// The same program once more, attached second. Since Linux 6.1 a raw tracepoint program that is running on a CPU is
/// skipped when an interrupt there reaches the same tracepoint (`__bpf_trace_run`): a process in connect(2), interrupted
/// by a packet that closes another connection. This instance is free then. It does what the first one did not do;
/// deeper than that it cannot nest, because TCP changes states in tasks and in softirq only.
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn set_state_nested(ctx: RawTracePointContext) -> i32 {
    let Some(handled) = HANDLED.get_ptr_mut(0) else { return 0 };
    // SAFETY: this CPU's slot of a live map. Should an interrupt come between the two instances, the change is handled
    // twice, which user space takes as once.
    unsafe {
        if *handled == change(&ctx) {
            *handled = 0;
            return 0;
        }
    }
    count(counter::NESTED);
    handle(&ctx);
    0
}

/// Names a change: socket addresses are aligned, states fit into the free bits.
#[inline(always)]
fn change(ctx: &RawTracePointContext) -> u64 {
    ctx.arg::<u64>(0) | u64::from(ctx.arg::<i32>(2) as u8)
}

#[inline(always)]
fn handle(ctx: &RawTracePointContext) {
    let sk: u64 = ctx.arg(0);
    let old = ctx.arg::<i32>(1) as u8;
    let new = ctx.arg::<i32>(2) as u8;
    match new {
        tcp::SYN_SENT => connect(ctx, sk),
        tcp::ESTABLISHED => established(ctx, sk, old),
        tcp::CLOSE_WAIT | tcp::FIN_WAIT1 | tcp::LAST_ACK => leaving(ctx, sk, old, new),
        tcp::CLOSE if old != tcp::LISTEN => end(sk, old),
        _ => {}
    }
}

#[inline(always)]
fn connect(ctx: &RawTracePointContext, sk: u64) {
    let Some(ports) = sock::ports(sk) else { return };
    if !filter::watched(ports.remote) || !sock::is_tcp(sk, ports) || !filter::watched_netns(sock::netns(sk)) {
        return;
    }
    let mut owner = Owner { birth_ns: now_ns(), role: role::CLIENT, inode: sock::inode(sk), ..EMPTY };
    task::fill_current(&mut owner.opener);
    task::watch(&owner.opener);
    remember(ctx, sk, &owner);
}

#[inline(always)]
fn established(ctx: &RawTracePointContext, sk: u64, old: u8) {
    let Some(ports) = sock::ports(sk) else { return };
    let side = match old {
        tcp::SYN_SENT if filter::watched(ports.remote) => role::CLIENT,
        // A simultaneous open goes SYN_SENT -> SYN_RECV -> ESTABLISHED: it has an entry since its connect.
        tcp::SYN_RECV if filter::watched(ports.remote) && OWNERS.get_ptr(sk).is_some() => role::CLIENT,
        tcp::SYN_RECV if filter::watched(ports.local) => role::SERVER,
        _ => return,
    };
    if !sock::is_tcp(sk, ports) || !filter::watched_netns(sock::netns(sk)) {
        return;
    }
    let at_ns = now_ns();
    let states = (old, tcp::ESTABLISHED);
    if side == role::CLIENT
        && let Some(known) = OWNERS.get_ptr_mut(sk)
    {
        // SAFETY: the entry is live; only this socket's own transitions write it, and those are serialised by the
        // kernel's socket lock.
        let owner = unsafe { &mut *known };
        owner.established_ns = at_ns;
        owner.local_port = ports.local;
        emit_socket(kind::OPEN, sk, at_ns, owner, states, ports, |_| {});
        return;
    }
    // A server's side begins here. A client without an entry connected before tracing, or found the map full: its
    // opener is unknown.
    let birth_ns = if side == role::SERVER { at_ns } else { 0 };
    let owner = Owner {
        birth_ns,
        established_ns: at_ns,
        role: side,
        local_port: ports.local,
        inode: sock::inode(sk),
        closed_early: u8::from(old == tcp::SYN_RECV && sock::send_shutdown(sk)),
        ..EMPTY
    };
    remember(ctx, sk, &owner);
    emit_socket(kind::OPEN, sk, at_ns, &owner, states, ports, |_| {});
}

#[inline(always)]
fn leaving(ctx: &RawTracePointContext, sk: u64, old: u8, new: u8) {
    let Some(ports) = sock::ports(sk) else { return };
    if OWNERS.get_ptr(sk).is_none() {
        let Some(side) = side_by_ports(sk, ports) else { return };
        remember(ctx, sk, &Owner { role: side, local_port: ports.local, ..EMPTY });
    }
    let Some(known) = OWNERS.get_ptr_mut(sk) else { return };
    // SAFETY: as in `established`.
    let owner = unsafe { &mut *known };
    if new != tcp::CLOSE_WAIT && owner.closed_early == 0 {
        (owner.closer_tgid, owner.closer_start_ns) = task::current_id();
    }
    emit_socket(kind::STATE, sk, now_ns(), owner, (old, new), ports, |_| {});
}

#[inline(always)]
fn end(sk: u64, old: u8) {
    let Some(ports) = sock::ports(sk) else { return };
    // `skc_num` is cleared before this transition is reported; `inet_sport` still has the port.
    let ports = Ports { local: if ports.local == 0 { sock::inet_sport(sk) } else { ports.local }, ..ports };
    let states = (old, tcp::CLOSE);
    let direct = matches!(old, tcp::ESTABLISHED | tcp::CLOSE_WAIT | tcp::SYN_SENT | tcp::SYN_RECV);
    let closer = if let Some(known) = OWNERS.get_ptr_mut(sk) {
        // SAFETY: as in `established`.
        let owner = unsafe { &mut *known };
        if direct && sock::closed_by_caller(sk) {
            (owner.closer_tgid, owner.closer_start_ns) = task::current_id();
        }
        emit_socket(kind::END, sk, now_ns(), owner, states, ports, |record| sock::fill_totals(record, sk));
        // Another CPU cannot have removed it: this is the socket's last transition.
        let _ = OWNERS.remove(sk);
        return;
    } else if direct && sock::closed_by_caller(sk) {
        task::current_id()
    } else {
        (0, 0)
    };
    // Never remembered.
    let Some(side) = side_by_ports(sk, ports) else { return };
    let owner = Owner { role: side, closer_tgid: closer.0, closer_start_ns: closer.1, ..EMPTY };
    emit_socket(kind::END, sk, now_ns(), &owner, states, ports, |record| sock::fill_totals(record, sk));
}

/// The role of a socket older than the tracing, by its ports: user space ignores what does not belong to a connection
/// it knows.
#[inline(always)]
fn side_by_ports(sk: u64, ports: Ports) -> Option<u8> {
    let side = if filter::watched(ports.remote) {
        role::CLIENT
    } else if filter::watched(ports.local) {
        role::SERVER
    } else {
        return None;
    };
    (sock::is_tcp(sk, ports) && filter::watched_netns(sock::netns(sk))).then_some(side)
}

#[inline(always)]
fn remember(ctx: &RawTracePointContext, sk: u64, owner: &Owner) {
    match OWNERS.insert(sk, owner, 0) {
        Ok(()) => {}
        Err(E2BIG) => count(counter::OWNERS_FULL),
        Err(error) => {
            count(counter::OWNERS_FULL);
            log_rarely(ctx, error);
        }
    }
}

/// An insert that fails for another reason than a full map should not exist; at most one line a second says that it
/// does.
#[inline(never)]
fn log_rarely<C: EbpfContext>(ctx: &C, error: i32) {
    let at_ns = now_ns();
    let Some(last) = LAST.get_ptr_mut(1) else { return };
    // SAFETY: element 1 of an array map of u64; a race costs a second line.
    if at_ns.wrapping_sub(unsafe { *last }) < LOG_INTERVAL_NS {
        return;
    }
    // SAFETY: as above.
    unsafe { *last = at_ns };
    warn!(ctx, "owner map insert failed: {}", error);
}
