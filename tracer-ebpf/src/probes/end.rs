//! Raw tracepoint `tcp_destroy_sock`: the last moment of a socket's address. The end was reported at the change to
//! CLOSE; an entry that is still here missed it.

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use tracer_common::kind;

use super::{emit_socket, now_ns, tcp};
use crate::maps::OWNERS;

#[raw_tracepoint(tracepoint = "tcp_destroy_sock")]
pub fn destroy(ctx: RawTracePointContext) -> i32 {
    let sk: u64 = ctx.arg(0);
    let Some(known) = OWNERS.get_ptr_mut(sk) else { return 0 };
    // SAFETY: the entry is live; nobody else writes the entry of a socket that is being destroyed.
    let owner = unsafe { &mut *known };
    let old = owner.state;
    owner.state = tcp::CLOSE;
    emit_socket(kind::END, sk, now_ns(), owner, old, true);
    // Removed by nobody else: a failure would mean it is gone, which is what is wanted.
    let _ = OWNERS.remove(sk);
    0
}
