//! Raw tracepoint `inet_sock_set_state`: births, openings, closings and ends.
//!
//! Where a caller exists (net/ipv4/tcp.c, tcp_ipv4.c): CLOSE -> SYN_SENT runs in connect(2); -> FIN_WAIT1 and
//! -> LAST_ACK run in close(2), shutdown(2) or exit; -> CLOSE only when [`sock::closed_by_caller`]. All else may run in
//! softirq and names no process.
//!
//! What a life is made of is kept in `OWNERS` and told by one record at its end. User space learns of the living by
//! looking at the map when `UNTOLD` says that there is something new; only while somebody watches events live are
//! openings and state changes told one by one.

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use tracer_common::{Owner, counter, flag, kind, role};

use super::{EMPTY, emit_socket, now_ns, remember, tcp};
use crate::maps::{HANDLED, OWNERS, count, has_connect_hook, is_live};
use crate::sock::{self, Head, Ports, Sock};
use crate::{filter, task};

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
fn connect(ctx: &RawTracePointContext, sk: Sock) {
    let Some(head) = Head::read(sk) else { return };
    let ports = head.ports();
    if !filter::watched(ports.remote) || !sock::is_tcp(sk, ports) {
        return;
    }
    let netns = head.netns();
    if !filter::watched_netns(netns) {
        return;
    }
    let at_ns = now_ns();
    let mut owner = Owner {
        birth_ns: at_ns,
        state_ns: at_ns,
        role: role::CLIENT,
        state: tcp::SYN_SENT,
        netns,
        inode: sock::inode(sk),
        ..EMPTY
    };
    head.fill(&mut owner);
    task::watched(&mut owner.opener);
    remember(ctx, sk, &owner);
}

#[inline(always)]
fn established(ctx: &RawTracePointContext, sk: Sock, old: u8) {
    let Some(ports) = sock::ports(sk) else { return };
    let client = old == tcp::SYN_SENT || old == tcp::SYN_RECV;
    // A simultaneous open goes SYN_SENT -> SYN_RECV -> ESTABLISHED: it has an entry since its connect.
    if client
        && filter::watched(ports.remote)
        && let Some(known) = OWNERS.get_ptr_mut(sk)
    {
        let at_ns = now_ns();
        // SAFETY: the entry is live; only this socket's own transitions write it, and those are serialised by the
        // kernel's socket lock.
        let owner = unsafe { &mut *known };
        owner.established_ns = at_ns;
        owner.local_port = ports.local;
        owner.state = tcp::ESTABLISHED;
        owner.state_ns = at_ns;
        tell_move(sk, owner, old, kind::OPEN);
        return;
    }
    let side = match old {
        tcp::SYN_SENT if filter::watched(ports.remote) => role::CLIENT,
        tcp::SYN_RECV if filter::watched(ports.local) => role::SERVER,
        _ => return,
    };
    // A server's side begins here. A client without an entry connected before tracing, or found the map full: its
    // opener is unknown.
    let Some(mut owner) = describe(sk, ports, side) else { return };
    let at_ns = now_ns();
    if side == role::SERVER {
        owner.birth_ns = at_ns;
        owner.flags = if sock::send_shutdown(sk) { flag::CLOSED_EARLY } else { 0 };
    }
    owner.established_ns = at_ns;
    owner.state = tcp::ESTABLISHED;
    owner.state_ns = at_ns;
    remember(ctx, sk, &owner);
    tell_move(sk, &owner, old, kind::OPEN);
}

#[inline(always)]
fn leaving(ctx: &RawTracePointContext, sk: Sock, old: u8, new: u8) {
    let Some(ports) = sock::ports(sk) else { return };
    let at_ns = now_ns();
    if let Some(known) = OWNERS.get_ptr_mut(sk) {
        // SAFETY: as in `established`.
        let owner = unsafe { &mut *known };
        leave(owner, new, at_ns);
        tell_move(sk, owner, old, kind::STATE);
        return;
    }
    let Some(side) = side_by_ports(ports) else { return };
    let Some(mut owner) = describe(sk, ports, side) else { return };
    leave(&mut owner, new, at_ns);
    remember(ctx, sk, &owner);
    tell_move(sk, &owner, old, kind::STATE);
}

#[inline(always)]
fn leave(owner: &mut Owner, new: u8, at_ns: u64) {
    if new != tcp::CLOSE_WAIT && owner.flags & flag::CLOSED_EARLY == 0 {
        (owner.closer_tgid, owner.closer_start_ns) = task::current_id();
    }
    owner.state = new;
    owner.state_ns = at_ns;
}

/// Tells a change of state as `kind` if somebody watches. The entry has it already: whoever reads the map after the
/// counter has moved finds it.
#[inline(always)]
fn tell_move(sk: Sock, owner: &Owner, old: u8, kind: u8) {
    if is_live() {
        emit_socket(kind, sk, owner.state_ns, owner, old, false);
    } else {
        count(counter::UNTOLD);
    }
}

#[inline(always)]
fn end(sk: Sock, old: u8) {
    let Some(ports) = sock::ports(sk) else { return };
    let direct = matches!(old, tcp::ESTABLISHED | tcp::CLOSE_WAIT | tcp::SYN_SENT | tcp::SYN_RECV);
    if let Some(known) = OWNERS.get_ptr_mut(sk) {
        // SAFETY: as in `established`.
        let owner = unsafe { &mut *known };
        if owner.local_port == 0 {
            owner.local_port = last_port(sk, ports);
        }
        if fails_within_call(sk, old) {
            owner.state = tcp::CLOSE;
            return;
        }
        tell_end(sk, owner, old, direct);
        // Another CPU cannot have removed it: this is the socket's last transition.
        let _ = OWNERS.remove(sk);
        return;
    }
    // Never remembered.
    let Some(side) = side_by_ports(Ports { local: last_port(sk, ports), ..ports }) else { return };
    let Some(mut owner) = describe(sk, ports, side) else { return };
    owner.local_port = last_port(sk, ports);
    tell_end(sk, &mut owner, old, direct);
}

/// The connect failed within the call, after the change to SYN_SENT: there is no error on the socket, no close, and the
/// call has not returned (a disconnect of a connect that hangs looks the same otherwise). `connect` knows the errno.
#[inline(always)]
fn fails_within_call(sk: Sock, old: u8) -> bool {
    old == tcp::SYN_SENT
        && has_connect_hook()
        && sock::error(sk) == 0
        && !sock::closed_by_caller(sk)
        && sock::is_unconnected(sk)
}

#[inline(always)]
fn tell_end(sk: Sock, owner: &mut Owner, old: u8, direct: bool) {
    if direct && sock::closed_by_caller(sk) {
        (owner.closer_tgid, owner.closer_start_ns) = task::current_id();
    }
    let at_ns = now_ns();
    owner.state = tcp::CLOSE;
    owner.state_ns = at_ns;
    emit_socket(kind::END, sk, at_ns, owner, old, true);
}

/// `skc_num` is cleared before the last transition is reported; `inet_sport` still has the port.
#[inline(always)]
fn last_port(sk: Sock, ports: Ports) -> u16 {
    if ports.local == 0 { sock::inet_sport(sk) } else { ports.local }
}

/// The role of a socket older than the tracing, by its ports: user space ignores what does not belong to a connection
/// it knows.
#[inline(always)]
fn side_by_ports(ports: Ports) -> Option<u8> {
    if filter::watched(ports.remote) {
        Some(role::CLIENT)
    } else if filter::watched(ports.local) {
        Some(role::SERVER)
    } else {
        None
    }
}

/// An entry with what the socket itself tells; `None` if it is not to be watched.
#[inline(always)]
fn describe(sk: Sock, ports: Ports, side: u8) -> Option<Owner> {
    let head = Head::read(sk)?;
    if !sock::is_tcp(sk, ports) {
        return None;
    }
    let netns = head.netns();
    if !filter::watched_netns(netns) {
        return None;
    }
    let mut owner = Owner { role: side, netns, inode: sock::inode(sk), ..EMPTY };
    head.fill(&mut owner);
    Some(owner)
}
