//! Reads of kernel socket structures, by offsets that user space resolved from the running kernel's BTF.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use tracer_common::{Owner, SocketRecord, counter};

use crate::maps::{count, offset};

/// `struct sock *` as a number.
pub type Sock = u64;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const IPPROTO_TCP: u16 = 6;

/// Reads a `T` at `base + offset`; counts a failure.
#[inline(always)]
pub fn read<T: Copy>(base: u64, offset: usize) -> Option<T> {
    // SAFETY: the helper checks the address itself and fails instead of faulting.
    match unsafe { bpf_probe_read_kernel::<T>((base as usize + offset) as *const T) } {
        Ok(value) => Some(value),
        Err(_) => {
            count(counter::READ_FAILED);
            None
        }
    }
}

/// Ports and family: what the filter needs, in one read.
#[derive(Clone, Copy)]
pub struct Ports {
    pub local: u16,
    pub remote: u16,
    pub family: u16,
    pub state: u8,
}

impl Ports {
    #[inline(always)]
    fn from_word(word: u64) -> Self {
        Self {
            remote: u16::from_be(word as u16),
            local: (word >> 16) as u16,
            family: (word >> 32) as u16,
            state: (word >> 48) as u8,
        }
    }
}

/// `skc_dport`, `skc_num`, `skc_family` and `skc_state` lie side by side in every kernel since 3.13; user space checks that before
/// it loads this program.
#[inline(always)]
pub fn ports(sk: Sock) -> Option<Ports> {
    read(sk, offset!(skc_dport)).map(Ports::from_word)
}

/// Bytes of `struct sock_common` that [`Head`] takes in one read; user space checks that what is wanted lies inside.
const HEAD_WORDS: usize = 13;

/// The start of a `struct sock`: ports, addresses, family, namespace.
pub struct Head([u64; HEAD_WORDS]);

impl Head {
    #[inline(always)]
    pub fn read(sk: Sock) -> Option<Self> {
        read(sk, 0).map(Self)
    }

    #[inline(always)]
    fn at<T: Copy>(&self, offset: usize) -> T {
        // SAFETY: user space checks that every offset used here, and what is read there, lies inside; the values are
        // integers and arrays of bytes.
        unsafe { self.0.as_ptr().byte_add(offset).cast::<T>().read_unaligned() }
    }

    #[inline(always)]
    pub fn ports(&self) -> Ports {
        Ports::from_word(self.at(offset!(skc_dport)))
    }

    /// Inode number of the socket's network namespace; 0 if unreadable.
    #[inline(always)]
    pub fn netns(&self) -> u32 {
        read::<u32>(self.at(offset!(skc_net)), offset!(net_inum)).unwrap_or(0)
    }

    /// Fills in addresses, ports and family; a v4-mapped IPv6 socket is reported as IPv4.
    #[inline(always)]
    pub fn fill(&self, owner: &mut Owner) {
        let ports = self.ports();
        owner.local_port = ports.local;
        owner.remote_port = ports.remote;
        if ports.family == AF_INET6 {
            let remote: [u64; 2] = self.at(offset!(skc_v6_daddr));
            if remote[0] != 0 || (remote[1] as u32) != u32::from_be(0x0000_ffff) {
                let local: [u64; 2] = self.at(offset!(skc_v6_rcv_saddr));
                owner.family = 6;
                owner.remote = words(remote);
                owner.local = words(local);
                return;
            }
        }
        owner.family = 4;
        owner.remote = words([u64::from(self.at::<u32>(offset!(skc_daddr))), 0]);
        owner.local = words([u64::from(self.at::<u32>(offset!(skc_rcv_saddr))), 0]);
    }
}

/// Both BPF targets that kernels run are little-endian here: the first byte of an address is the lowest.
#[inline(always)]
pub fn words(words: [u64; 2]) -> [u8; 16] {
    // SAFETY: both are 16 bytes without padding.
    unsafe { core::mem::transmute(words) }
}

/// MPTCP and DCCP run through the same tracepoints.
#[inline(always)]
pub fn is_tcp(sk: Sock, ports: Ports) -> bool {
    (ports.family == AF_INET || ports.family == AF_INET6) && read::<u16>(sk, offset!(sk_protocol)) == Some(IPPROTO_TCP)
}

/// The local port survives here when `skc_num` is already cleared, except after a disconnect.
#[inline(always)]
pub fn inet_sport(sk: Sock) -> u16 {
    read::<u16>(sk, offset!(inet_sport)).map_or(0, u16::from_be)
}

/// Inode number of the socket; 0 while no process has taken it off the listener's queue, and once it is orphaned.
#[inline(always)]
pub fn inode(sk: Sock) -> u32 {
    match read::<u64>(sk, offset!(sk_socket)) {
        None | Some(0) => 0,
        Some(socket) => inode_of(socket),
    }
}

/// Whether the socket's process is inside connect(2), before that has come to anything: `inet_stream_connect` and
/// `tcp_sendmsg_fastopen` set SS_CONNECTING after the protocol's connect has returned (net/ipv4/af_inet.c).
#[inline(always)]
pub fn is_unconnected(sk: Sock) -> bool {
    const SS_UNCONNECTED: u32 = 1;
    match read::<u64>(sk, offset!(sk_socket)) {
        None | Some(0) => false,
        Some(socket) => read::<u32>(socket, offset!(socket_state)) == Some(SS_UNCONNECTED),
    }
}

/// Whether this is an IPv6 socket, also one that talks to a v4-mapped address.
#[inline(always)]
pub fn is_ipv6(sk: Sock) -> bool {
    ports(sk).is_some_and(|ports| ports.family == AF_INET6)
}

/// Inode number of a `struct socket`.
#[inline(always)]
pub fn inode_of(socket: u64) -> u32 {
    read::<u64>(socket, offset!(socket_ino)).unwrap_or(0) as u32
}

/// `SHUTDOWN_MASK` is set and no error is: inside `__tcp_close`, which sets the mask before it changes the state. A
/// reset or a time-out sets `sk_err` first and the mask after (net/ipv4/tcp.c, tcp_input.c, tcp_timer.c).
#[inline(always)]
pub fn closed_by_caller(sk: Sock) -> bool {
    const SHUTDOWN_MASK: u8 = 3;
    read::<u8>(sk, offset!(sk_shutdown)) == Some(SHUTDOWN_MASK) && error(sk) == 0
}

/// This side was shut down before the handshake ended; the kernel then sends the FIN itself, in softirq
/// (`tcp_rcv_state_process`, since Linux 6.10 and in later stable releases), and no caller closes.
#[inline(always)]
pub fn send_shutdown(sk: Sock) -> bool {
    const SEND_SHUTDOWN: u8 = 2;
    read::<u8>(sk, offset!(sk_shutdown)).is_some_and(|shutdown| shutdown & SEND_SHUTDOWN != 0)
}

#[inline(always)]
pub fn error(sk: Sock) -> u16 {
    read::<i32>(sk, offset!(sk_err)).unwrap_or(0) as u16
}

/// Fills in the remote address from the words of a `struct sockaddr_in` (address at byte 4) or `sockaddr_in6` (at byte
/// 8); a v4-mapped address is reported as IPv4.
#[inline(always)]
pub fn fill_remote(owner: &mut Owner, family: Option<u16>, first: u64, second: u64, third: u64) {
    owner.family = 4;
    if family != Some(AF_INET6) {
        owner.remote = words([first >> 32, 0]);
    } else if second == 0 && third as u32 == u32::from_be(0x0000_ffff) {
        owner.remote = words([third >> 32, 0]);
    } else {
        owner.family = 6;
        owner.remote = words([second, third]);
    }
}

/// `SOCK_DONE`, bit 1 of `enum sock_flags`, is set by `tcp_fin`, and the FIN has moved `rcv_nxt` and so
/// `bytes_received` by one (net/ipv4/tcp_input.c).
#[inline(always)]
fn fin_received(sk: Sock) -> bool {
    const SOCK_DONE: u64 = 1 << 1;
    read::<u64>(sk, offset!(skc_flags)).is_some_and(|flags| flags & SOCK_DONE != 0)
}

/// Fills in what the kernel counted over the socket's life.
#[inline(always)]
pub fn fill_totals(record: &mut SocketRecord, sk: Sock) {
    record.bytes_sent = read(sk, offset!(tcp_bytes_sent)).unwrap_or(0);
    let received: u64 = read(sk, offset!(tcp_bytes_received)).unwrap_or(0);
    record.bytes_received = received.saturating_sub(u64::from(fin_received(sk)));
    // The kernel keeps eight times the smoothed round-trip time.
    record.srtt_us = read::<u32>(sk, offset!(tcp_srtt_us)).unwrap_or(0) >> 3;
    record.retransmits = read(sk, offset!(tcp_total_retrans)).unwrap_or(0);
    record.rtos = read(sk, offset!(icsk_retransmits)).unwrap_or(0);
    record.error = error(sk);
}
