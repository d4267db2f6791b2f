//! The programs, one file a fact.

mod accept;
mod connect;
mod discard;
mod end;
mod path;
mod process;
mod state;

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated;
use aya_log_ebpf::warn;
use tracer_common::{Owner, SocketRecord, counter};

use crate::maps::{LAST, OWNERS, count};
use crate::sock::Sock;
use crate::{emit, sock, task};

const E2BIG: i32 = -7;
const LOG_INTERVAL_NS: u64 = 1_000_000_000;

/// TCP states, `include/net/tcp_states.h`.
pub mod tcp {
    pub const ESTABLISHED: u8 = 1;
    pub const SYN_SENT: u8 = 2;
    pub const SYN_RECV: u8 = 3;
    pub const FIN_WAIT1: u8 = 4;
    pub const CLOSE: u8 = 7;
    pub const CLOSE_WAIT: u8 = 8;
    pub const LAST_ACK: u8 = 9;
    pub const LISTEN: u8 = 10;
}

/// An entry that knows nothing.
pub const EMPTY: Owner = Owner {
    birth_ns: 0,
    established_ns: 0,
    state_ns: 0,
    retransmit_ns: 0,
    closer_start_ns: 0,
    opener: task::NOBODY,
    local: [0; 16],
    remote: [0; 16],
    closer_tgid: 0,
    netns: 0,
    inode: 0,
    local_port: 0,
    remote_port: 0,
    family: 0,
    role: 0,
    state: 0,
    flags: 0,
    pad: 0,
};

/// Boot-time clock: counts through suspend, never steps.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: the helper takes no argument.
    unsafe { generated::bpf_ktime_get_boot_ns() }
}

/// Emits a record of `kind` about `sk`: all that `owner` remembers, the state before, and the counters if asked for.
#[inline(always)]
pub fn emit_socket(kind: u8, sk: Sock, at_ns: u64, owner: &Owner, old_state: u8, with_totals: bool) {
    emit::emit(kind, at_ns, |header, slot| {
        let record = slot.write(SocketRecord {
            header,
            sk,
            owner: *owner,
            bytes_sent: 0,
            bytes_received: 0,
            srtt_us: 0,
            retransmits: 0,
            error: 0,
            old_state,
            new_state: owner.state,
            rtos: 0,
            pad: [0; 3],
        });
        if with_totals {
            sock::fill_totals(record, sk);
        }
    });
}

/// Keeps `owner` for the socket; a full map is counted.
#[inline(always)]
pub fn remember<C: EbpfContext>(ctx: &C, sk: Sock, owner: &Owner) {
    match OWNERS.insert(sk, owner, 0) {
        Ok(()) => {}
        Err(error) => {
            count(counter::OWNERS_FULL);
            if error != E2BIG {
                log_rarely(ctx, error);
            }
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
