//! The event ABI shared by the kernel programs and user space.
//!
//! Raw integers only, explicit padding, sizes asserted at compile time: the two sides are built by different
//! compilers for different targets. Nothing here may allocate, read a clock or know what a record means; meaning
//! starts in `tracer-core`'s decode.
#![no_std]

/// Bumped whenever a record's layout or a map's meaning changes; decode refuses a record of another version.
pub const ABI_VERSION: u32 = 3;

/// `RecordHeader::kind` values. Never renumbered.
pub mod kind {
    /// A connection reached ESTABLISHED; only while somebody watches events live. [`super::SocketRecord`].
    pub const OPEN: u8 = 1;
    /// A connection changed to a state on its way out: CLOSE_WAIT, FIN_WAIT1, LAST_ACK; only while somebody watches
    /// events live. [`super::SocketRecord`].
    pub const STATE: u8 = 2;
    /// The kernel released the socket (or it left TCP for good). [`super::SocketRecord`] of the whole life.
    pub const END: u8 = 3;
    /// A process took a connection off its listener's queue. [`super::SocketRecord`].
    pub const ACCEPT: u8 = 4;
    /// The kernel sent a segment again; at most one a second a socket. [`super::SocketRecord`].
    pub const RETRANSMIT: u8 = 5;
    /// A process that owns watched sockets started another program. [`super::ProcessRecord`].
    pub const EXEC: u8 = 6;
    /// The last thread of a process that owns watched sockets ended. [`super::ProcessRecord`].
    pub const EXIT: u8 = 7;
    /// A connect that failed before the socket changed its state: no route, no address. [`super::SocketRecord`].
    pub const REFUSED: u8 = 8;
    /// The kernel threw a packet of a watched port away. [`super::DropRecord`].
    pub const DROP: u8 = 9;
    /// One more than the largest kind: the length of per-kind counters.
    pub const COUNT: usize = 10;
}

/// Which side of the connection this socket is.
pub mod role {
    /// The remote port is a watched database port.
    pub const CLIENT: u8 = 1;
    /// The local port is a watched database port.
    pub const SERVER: u8 = 2;
}

/// Indices of the per-CPU counter map.
pub mod counter {
    use super::kind;

    /// `RING_FULL + kind`: records that found the ring buffer full.
    pub const RING_FULL: u32 = 0;
    /// `EMITTED + kind`: records handed to the ring buffer.
    pub const EMITTED: u32 = kind::COUNT as u32;
    /// Sockets that found the owner map full.
    pub const OWNERS_FULL: u32 = 2 * kind::COUNT as u32;
    /// Processes that found the watched-process map full.
    pub const PROCESSES_FULL: u32 = OWNERS_FULL + 1;
    /// Reads of kernel memory that failed.
    pub const READ_FAILED: u32 = OWNERS_FULL + 2;
    /// State changes that the second instance of the program handled, because the first was running on that CPU.
    pub const NESTED: u32 = OWNERS_FULL + 3;
    /// Changes of the owner map that no record told of.
    pub const UNTOLD: u32 = OWNERS_FULL + 4;
    /// Packets that were thrown away too soon after another one to be told.
    pub const DROPS_UNTOLD: u32 = OWNERS_FULL + 5;
    /// Accepts counted in the map of accepts.
    pub const ACCEPTS: u32 = OWNERS_FULL + 6;
    /// Accepts that found the map of accepts full.
    pub const ACCEPTS_FULL: u32 = OWNERS_FULL + 7;
    /// Number of counters.
    pub const COUNT: u32 = OWNERS_FULL + 8;
}

/// Indices of the control map, which user space writes while the programs run.
pub mod control {
    /// Not 0 while somebody watches events live: openings and state changes are then told one by one, instead of being
    /// left in the owner map until the next look at it.
    pub const LIVE: u32 = 0;
    /// Not 0 while a program on the return of connect tells of those that fail within the call.
    pub const CONNECT: u32 = 1;
    /// Number of controls.
    pub const COUNT: u32 = 2;
}

/// Bits of [`Owner::flags`].
pub mod flag {
    /// Shut down before its handshake ended: then the close runs without a caller.
    pub const CLOSED_EARLY: u8 = 1;
}

/// Reasons for throwing packets away that fit into the kernel side's set of interesting ones; larger ones (from
/// subsystems of their own) are of none.
pub const DROP_REASONS: usize = 256;

/// The kernel wakes the reader at most once in this time, except when the ring runs full; the reader looks again
/// for this long after a wake-up, and once more. A wake-up and the switch to the reader cost as much as some twenty records.
pub const WAKE_INTERVAL_NS: u64 = 50_000_000;

/// First bytes of every record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordHeader {
    /// One of [`kind`].
    pub kind: u8,
    /// [`ABI_VERSION`], truncated: a record of another version is a decode error.
    pub version: u8,
    /// Whole length of the record in bytes.
    pub len: u16,
    /// Explicit padding, zero.
    pub pad: u32,
    /// `bpf_ktime_get_boot_ns` when it happened.
    pub at_ns: u64,
}

/// A process as the kernel named it in process context. `tgid` 0 means unknown.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskRecord {
    /// Process id in the initial pid namespace.
    pub tgid: u32,
    /// Real user id.
    pub uid: u32,
    /// Start of the process' first thread, boot-time nanoseconds (`task_struct.start_boottime`).
    pub start_ns: u64,
    /// The thread's name, NUL padded, not necessarily UTF-8.
    pub comm: [u8; 16],
}

/// What a process that owns watched sockets accepted on ports that are not watched, keyed by its tgid.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AcceptRecord {
    /// Start of the process, boot-time nanoseconds.
    pub start_ns: u64,
    /// TCP connections since it was first watched.
    pub accepts: u64,
}

/// What the kernel side remembers of a watched socket from birth to release, keyed by its kernel address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// When the connect (client) or the handshake's end (server) was seen; 0 if before tracing began.
    pub birth_ns: u64,
    /// When ESTABLISHED was reached; 0 if never or before tracing began.
    pub established_ns: u64,
    /// When `state` was reached; 0 if before tracing began.
    pub state_ns: u64,
    /// When the last [`kind::RETRANSMIT`] was sent for it.
    pub retransmit_ns: u64,
    /// Start of the closing process, boot-time nanoseconds.
    pub closer_start_ns: u64,
    /// Who opened it (client), or who accepted it (server; in [`kind::ACCEPT`] only).
    pub opener: TaskRecord,
    /// Local address; IPv4 in the first four bytes, the rest zero.
    pub local: [u8; 16],
    /// Remote address, same shape.
    pub remote: [u8; 16],
    /// Process that closed it; 0 unknown (peer, kernel, or not seen).
    pub closer_tgid: u32,
    /// Inode number of the socket's network namespace.
    pub netns: u32,
    /// Inode number of the socket; 0 while no process has taken it. With it a look at the socket table tells lives of
    /// one tuple apart.
    pub inode: u32,
    /// Local port, host order; 0 until the kernel has chosen one.
    pub local_port: u16,
    /// Remote port, host order.
    pub remote_port: u16,
    /// 4 or 6; a v4-mapped IPv6 socket is reported as 4.
    pub family: u8,
    /// One of [`role`].
    pub role: u8,
    /// TCP state, `include/net/tcp_states.h` numbering.
    pub state: u8,
    /// Bits of [`flag`].
    pub flags: u8,
    /// Explicit padding, zero.
    pub pad: u32,
}

/// One fact about one TCP socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketRecord {
    /// Kind, version, length, time.
    pub header: RecordHeader,
    /// Kernel address of the socket: the same for all events of one life, reused by later lives.
    pub sk: u64,
    /// All that is remembered of the life.
    pub owner: Owner,
    /// `tcp_sock.bytes_sent`; like the rest, 0 where it is of no interest: in [`kind::OPEN`], [`kind::STATE`],
    /// [`kind::ACCEPT`].
    pub bytes_sent: u64,
    /// `tcp_sock.bytes_received` less the one that the kernel counts for the peer's FIN.
    pub bytes_received: u64,
    /// Smoothed round-trip time in microseconds; 0 none yet.
    pub srtt_us: u32,
    /// `tcp_sock.total_retrans`.
    pub retransmits: u32,
    /// `sk_err` at the moment, an errno; 0 none.
    pub error: u16,
    /// TCP state before.
    pub old_state: u8,
    /// TCP state after.
    pub new_state: u8,
    /// Consecutive retransmission time-outs (`icsk_retransmits`).
    pub rtos: u8,
    /// Explicit padding, zero.
    pub pad: [u8; 3],
}

/// One fact about one process.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessRecord {
    /// Kind, version, length, time.
    pub header: RecordHeader,
    /// The process.
    pub task: TaskRecord,
    /// As [`AcceptRecord::accepts`], up to now.
    pub accepts: u64,
}

/// A packet of a watched port that the kernel threw away.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropRecord {
    /// Kind, version, length, time.
    pub header: RecordHeader,
    /// Source address as in the packet; IPv4 in the first four bytes, the rest zero.
    pub source: [u8; 16],
    /// Destination address, same shape.
    pub destination: [u8; 16],
    /// Source port, host order.
    pub source_port: u16,
    /// Destination port, host order.
    pub destination_port: u16,
    /// 4 or 6.
    pub family: u8,
    /// Explicit padding, zero.
    pub pad: [u8; 3],
    /// The running kernel's `enum skb_drop_reason`.
    pub reason: u32,
    /// Explicit padding, zero.
    pub pad2: u32,
}

/// Offsets into the running kernel's structures, in bytes, resolved from its BTF at start.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    /// `sock_common.skc_daddr`; `skc_rcv_saddr` follows it.
    pub skc_daddr: u32,
    /// `sock_common.skc_rcv_saddr`.
    pub skc_rcv_saddr: u32,
    /// `sock_common.skc_dport`; `skc_num`, `skc_family` and `skc_state` follow within 8 bytes.
    pub skc_dport: u32,
    /// `sock_common.skc_num`.
    pub skc_num: u32,
    /// `sock_common.skc_family`.
    pub skc_family: u32,
    /// `sock_common.skc_net.net`.
    pub skc_net: u32,
    /// `sock_common.skc_v6_daddr`.
    pub skc_v6_daddr: u32,
    /// `sock_common.skc_v6_rcv_saddr`.
    pub skc_v6_rcv_saddr: u32,
    /// `sock_common.skc_flags`.
    pub skc_flags: u32,
    /// `net.ns.inum`.
    pub net_inum: u32,
    /// `sock.sk_protocol`, 16 bits since Linux 5.6.
    pub sk_protocol: u32,
    /// `sock.sk_shutdown`.
    pub sk_shutdown: u32,
    /// `sock.sk_err`.
    pub sk_err: u32,
    /// `inet_sock.inet_sport`.
    pub inet_sport: u32,
    /// `inet_connection_sock.icsk_retransmits`.
    pub icsk_retransmits: u32,
    /// `tcp_sock.bytes_sent`.
    pub tcp_bytes_sent: u32,
    /// `tcp_sock.bytes_received`.
    pub tcp_bytes_received: u32,
    /// `tcp_sock.srtt_us` (shifted left by 3).
    pub tcp_srtt_us: u32,
    /// `tcp_sock.total_retrans`.
    pub tcp_total_retrans: u32,
    /// `task_struct.group_leader`.
    pub task_group_leader: u32,
    /// `task_struct.start_boottime`.
    pub task_start_boottime: u32,
    /// `task_struct.signal`.
    pub task_signal: u32,
    /// `signal_struct.live`.
    pub signal_live: u32,
    /// `task_struct.flags`.
    pub task_flags: u32,
    /// `task_struct.files`.
    pub task_files: u32,
    /// `files_struct.fdt`.
    pub files_fdt: u32,
    /// `fdtable.fd`.
    pub fdt_fd: u32,
    /// `file.private_data`.
    pub file_private_data: u32,
    /// `socket.sk`.
    pub socket_sk: u32,
    /// `sock.sk_socket`.
    pub sk_socket: u32,
    /// `inode.i_ino` of the inode that follows a `struct socket` in its `struct socket_alloc`.
    pub socket_ino: u32,
    /// `socket.state`, an `enum socket_state`.
    pub socket_state: u32,
    /// `sk_buff.head`.
    pub skb_head: u32,
    /// `sk_buff.network_header`.
    pub skb_network_header: u32,
    /// First argument of a function in `pt_regs`.
    pub regs_first: u32,
    /// Second argument of a function in `pt_regs`.
    pub regs_second: u32,
    /// Returned value in `pt_regs`.
    pub regs_returned: u32,
    /// First argument of a system call in `pt_regs`, where its returned value does not overwrite it.
    pub regs_call_first: u32,
}

const _: () = {
    assert!(size_of::<RecordHeader>() == 16);
    assert!(size_of::<TaskRecord>() == 32);
    assert!(size_of::<Owner>() == 128);
    assert!(size_of::<SocketRecord>() == 184);
    assert!(size_of::<DropRecord>() == 64);
    assert!(size_of::<ProcessRecord>() == 56);
    assert!(size_of::<AcceptRecord>() == 16);
    assert!(size_of::<Offsets>() == 38 * 4);
    assert!(ABI_VERSION <= u8::MAX as u32);
};
