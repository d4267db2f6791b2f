//! Raw tracepoint `tcp_retransmit_skb`: signs of a path in trouble, at most one report a second a socket.

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use tracer_common::{counter, kind};

use super::{emit_socket, now_ns};
use crate::maps::{OWNERS, count};
use crate::sock;

const REPORT_INTERVAL_NS: u64 = 1_000_000_000;

#[raw_tracepoint(tracepoint = "tcp_retransmit_skb")]
pub fn retransmit(ctx: RawTracePointContext) -> i32 {
    let sk: u64 = ctx.arg(0);
    let Some(known) = OWNERS.get_ptr_mut(sk) else { return 0 };
    let at_ns = now_ns();
    // SAFETY: the entry is live; the socket lock serialises this socket's own events.
    let owner = unsafe { &mut *known };
    if at_ns.wrapping_sub(owner.retransmit_ns) < REPORT_INTERVAL_NS {
        return 0;
    }
    owner.retransmit_ns = at_ns;
    let Some(ports) = sock::ports(sk) else { return 0 };
    if owner.local_port == 0 {
        // A connect gets its port after the change to SYN_SENT. One that hangs is seen here, at its second SYN.
        owner.local_port = ports.local;
        count(counter::UNTOLD);
    }
    // The entry may be stale in what no hook tells, such as FIN_WAIT2.
    owner.state = ports.state;
    emit_socket(kind::RETRANSMIT, sk, at_ns, owner, ports.state, true);
    0
}
