//! Reads of kernel socket structures, by offsets that user space resolved from the running kernel's BTF.

use aya_ebpf::helpers::{bpf_probe_read_kernel, bpf_probe_read_kernel_buf};
use tracer_common::{SocketRecord, counter};

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
}

/// `skc_dport`, `skc_num` and `skc_family` lie side by side in every kernel since 3.13; user space checks that before
/// it loads this program.
#[inline(always)]
pub fn ports(sk: Sock) -> Option<Ports> {
    let head: u64 = read(sk, offset!(skc_dport))?;
    let bytes = head.to_ne_bytes();
    Some(Ports {
        remote: u16::from_be_bytes([bytes[0], bytes[1]]),
        local: u16::from_ne_bytes([bytes[2], bytes[3]]),
        family: u16::from_ne_bytes([bytes[4], bytes[5]]),
    })
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

/// Inode number of the socket's network namespace; 0 if unreadable.
#[inline(always)]
pub fn netns(sk: Sock) -> u32 {
    read::<u64>(sk, offset!(skc_net)).and_then(|net| read::<u32>(net, offset!(net_inum))).unwrap_or(0)
}

/// Inode number of the socket; 0 while no process has taken it off the listener's queue, and once it is orphaned.
#[inline(always)]
pub fn inode(sk: Sock) -> u32 {
    match read::<u64>(sk, offset!(sk_socket)) {
        None | Some(0) => 0,
        Some(socket) => read::<u64>(socket, offset!(socket_ino)).unwrap_or(0) as u32,
    }
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

/// Fills the addresses and the family; a v4-mapped IPv6 socket is reported as IPv4.
#[inline(always)]
pub fn fill_addresses(record: &mut SocketRecord, sk: Sock, family: u16) {
    if family == AF_INET6 {
        let mut remote = [0u8; 16];
        let at = (sk as usize + offset!(skc_v6_daddr)) as *const u8;
        // SAFETY: the helper checks the address itself and fails instead of faulting.
        if unsafe { bpf_probe_read_kernel_buf(at, &mut remote) }.is_err() {
            count(counter::READ_FAILED);
        }
        let mapped = u64::from_ne_bytes([
            remote[0], remote[1], remote[2], remote[3], remote[4], remote[5], remote[6], remote[7],
        ]) == 0
            && u32::from_ne_bytes([remote[8], remote[9], remote[10], remote[11]]) == u32::from_be(0x0000_ffff);
        if !mapped {
            record.family = 6;
            record.remote = remote;
            let at = (sk as usize + offset!(skc_v6_rcv_saddr)) as *const u8;
            // SAFETY: as above.
            if unsafe { bpf_probe_read_kernel_buf(at, &mut record.local) }.is_err() {
                count(counter::READ_FAILED);
            }
            return;
        }
    }
    record.family = 4;
    let remote: [u8; 4] = read(sk, offset!(skc_daddr)).unwrap_or([0; 4]);
    let local: [u8; 4] = read(sk, offset!(skc_rcv_saddr)).unwrap_or([0; 4]);
    record.remote[0] = remote[0];
    record.remote[1] = remote[1];
    record.remote[2] = remote[2];
    record.remote[3] = remote[3];
    record.local[0] = local[0];
    record.local[1] = local[1];
    record.local[2] = local[2];
    record.local[3] = local[3];
}

/// `SOCK_DONE`, bit 1 of `enum sock_flags`, is set by `tcp_fin`, and the FIN has moved `rcv_nxt` and so
/// `bytes_received` by one (net/ipv4/tcp_input.c).
#[inline(always)]
fn fin_received(sk: Sock) -> bool {
    const SOCK_DONE: u64 = 1 << 1;
    read::<u64>(sk, offset!(skc_flags)).is_some_and(|flags| flags & SOCK_DONE != 0)
}

/// Fills what the kernel counted over the socket's life.
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
