//! The programs, one file a fact.

mod accept;
mod end;
mod path;
mod process;
mod state;

use aya_ebpf::helpers::generated;
use tracer_common::{Owner, SocketRecord, TaskRecord};

use crate::sock::Ports;
use crate::{emit, sock};

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
    opener: TaskRecord { tgid: 0, uid: 0, start_ns: 0, comm: [0; 16] },
    closer_start_ns: 0,
    closer_tgid: 0,
    local_port: 0,
    role: 0,
    closed_early: 0,
    retransmit_ns: 0,
    inode: 0,
    pad2: 0,
};

/// Boot-time clock: counts through suspend, never steps.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: the helper takes no argument.
    unsafe { generated::bpf_ktime_get_boot_ns() }
}

/// Emits a record of `kind` about `sk`, with its addresses and all that `owner` remembers; `more` adds the rest.
#[inline(always)]
pub fn emit_socket(
    kind: u8,
    sk: u64,
    at_ns: u64,
    owner: &Owner,
    states: (u8, u8),
    ports: Ports,
    more: impl FnOnce(&mut SocketRecord),
) {
    emit::emit(kind, at_ns, |record: &mut SocketRecord| {
        record.header.netns = sock::netns(sk);
        record.sk = sk;
        record.birth_ns = owner.birth_ns;
        record.established_ns = owner.established_ns;
        // The socket has its port until shortly before its end; what was seen before is the fallback.
        record.local_port = if ports.local != 0 { ports.local } else { owner.local_port };
        record.remote_port = ports.remote;
        record.role = owner.role;
        record.old_state = states.0;
        record.new_state = states.1;
        record.opener = owner.opener;
        record.closer_tgid = owner.closer_tgid;
        record.closer_start_ns = owner.closer_start_ns;
        record.inode = owner.inode;
        sock::fill_addresses(record, sk, ports.family);
        more(record);
    });
}
