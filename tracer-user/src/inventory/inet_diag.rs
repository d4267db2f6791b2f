//! The bytes of `NETLINK_SOCK_DIAG`: the dump request with its port filter, and the kernel's answers.
//!
//! No IO here. Whatever bytes come in, the outcome is rows or an error, never a panic. Layouts are from
//! `include/uapi/linux/{netlink,inet_diag,tcp}.h`; integers are the host's except ports and addresses.
//!
//! Written by hand because the netlink crates carry no `INET_DIAG_REQ_BYTECODE`, demand the newest `tcp_info`, and
//! allocate for each attribute of each socket.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tracer_core::event::Tuple;
use tracer_core::inventory::{SocketInfo, Timer};
use tracer_core::tcp::TcpState;

/// `TCPDIAG_GETSOCK`: the request of before Linux 3.3, which every kernel still answers. Unlike `SOCK_DIAG_BY_FAMILY` it
/// takes no address family and gives all of them (`inet_diag_dump_compat`): one walk over the hash table instead of two.
/// The table is the whole host's, and it is walked once for each network namespace.
const TCPDIAG_GETSOCK: u16 = 18;
/// `struct nlmsghdr`.
const HEADER_LEN: usize = 16;
/// `struct inet_diag_req`.
const REQUEST_LEN: usize = 60;
/// `struct inet_diag_msg`.
const MESSAGE_LEN: usize = 72;
/// `struct nlattr`.
const ATTRIBUTE_LEN: usize = 4;
/// `INET_DIAG_REQ_BYTECODE`, an attribute of the request.
const REQ_BYTECODE: u16 = 1;
/// `INET_DIAG_INFO`, an attribute of the answer: `struct tcp_info`.
const ATTR_INFO: u16 = 2;
/// The attribute type without `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
const ATTR_TYPE_MASK: u16 = 0x3fff;
/// `idiag_timer` of a TIME_WAIT mini-socket, whatever its `idiag_state` says.
const TIMER_TIME_WAIT: u8 = 3;
/// `idiag_timer` while `sk_timer` is armed: keepalive, or the FIN_WAIT2 time-out.
const TIMER_KEEPALIVE: u8 = 2;
/// `idiag_timer` while something waits for its acknowledgement, and while the peer's window is closed.
const TIMER_RETRANSMIT: u8 = 1;
const TIMER_PROBE: u8 = 4;
/// `INET_DIAG_NOCOOKIE`: whichever life it is.
const NO_COOKIE: u64 = u64::MAX;

/// States asked for: every full socket that is not closed, listeners first. Without SYN_RECV the kernel leaves out
/// request sockets, too.
pub(super) const STATES: u32 = 1 << TcpState::Listen as u32
    | 1 << TcpState::Established as u32
    | 1 << TcpState::SynSent as u32
    | 1 << TcpState::FinWait1 as u32
    | 1 << TcpState::FinWait2 as u32
    | 1 << TcpState::CloseWait as u32
    | 1 << TcpState::LastAck as u32
    | 1 << TcpState::Closing as u32;

/// Why the kernel's answer cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Bytes end before what they announce.
    #[error("{what} ends after {have} of {need} bytes")]
    Truncated {
        /// Which structure.
        what: &'static str,
        /// Bytes it needs.
        need: usize,
        /// Bytes there are.
        have: usize,
    },
    /// A length field smaller than the structure that carries it.
    #[error("{what} announces an impossible length of {len} bytes")]
    BadLength {
        /// Which structure.
        what: &'static str,
        /// The length it announces.
        len: usize,
    },
    /// A message type or an address family that does not belong into the answer.
    #[error("unexpected {what} {value}")]
    Unexpected {
        /// Which field.
        what: &'static str,
        /// Its value.
        value: u32,
    },
    /// The kernel refused or broke off the dump.
    #[error("the kernel answered: {}", std::io::Error::from_raw_os_error(*.0))]
    Kernel(i32),
    /// The kernel dropped part of the answer (`NLMSG_OVERRUN`).
    #[error("the kernel lost part of the answer")]
    Overrun,
}

/// One socket as the dump has it, before anybody asked which side it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DiagRow {
    pub state: TcpState,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub uid: u32,
    pub inode: u32,
    pub cookie: u64,
    pub info: Option<SocketInfo>,
}

/// What one datagram said about the dump as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// `NLMSG_DONE` was in it.
    pub done: bool,
    /// The table changed under the dump (`NLM_F_DUMP_INTR`): rows may be missing.
    pub interrupted: bool,
}

/// A request for one socket, by its ends and its cookie (0 for any). The answer is one message without an end, or an error:
/// `ENOENT` if there is no such socket, `ESTALE` if it is a later one.
pub(super) fn request_one(sequence: u32, tuple: &Tuple, cookie: u64) -> Vec<u8> {
    let len = HEADER_LEN + REQUEST_LEN;
    let mut out = Vec::with_capacity(len);
    out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_ne_bytes());
    out.extend_from_slice(&TCPDIAG_GETSOCK.to_ne_bytes());
    out.extend_from_slice(&u16::try_from(libc::NLM_F_REQUEST).unwrap_or(0).to_ne_bytes());
    out.extend_from_slice(&sequence.to_ne_bytes());
    out.extend_from_slice(&0u32.to_ne_bytes());
    // struct inet_diag_req: family, address lengths, extensions, struct inet_diag_sockid, states, `idiag_dbs`.
    let (local, remote) = (tuple.local(), tuple.remote());
    let family = if local.is_ipv4() && remote.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    out.extend_from_slice(&[u8::try_from(family).unwrap_or(0), 0, 0, 1u8 << (ATTR_INFO - 1)]);
    out.extend_from_slice(&local.port().to_be_bytes());
    out.extend_from_slice(&remote.port().to_be_bytes());
    for addr in [local.ip(), remote.ip()] {
        let bytes = match (family, addr) {
            (libc::AF_INET, IpAddr::V4(ip)) => {
                let [a, b, c, d] = ip.octets();
                [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
            }
            (_, IpAddr::V4(ip)) => ip.to_ipv6_mapped().octets(),
            (_, IpAddr::V6(ip)) => ip.octets(),
        };
        out.extend_from_slice(&bytes);
    }
    out.extend_from_slice(&0u32.to_ne_bytes());
    let cookie = if cookie == 0 { NO_COOKIE } else { cookie };
    // The lower half comes first (`sock_diag_check_cookie`).
    out.extend_from_slice(&u32::try_from(cookie & 0xffff_ffff).unwrap_or(0).to_ne_bytes());
    out.extend_from_slice(&u32::try_from(cookie >> 32).unwrap_or(0).to_ne_bytes());
    out.extend_from_slice(&STATES.to_ne_bytes());
    out.resize(len, 0);
    out
}

/// A dump request for [`STATES`] of both address families, with a port filter unless `bytecode` is empty.
pub(super) fn request(sequence: u32, bytecode: &[u8]) -> Vec<u8> {
    let attribute = if bytecode.is_empty() { 0 } else { ATTRIBUTE_LEN + bytecode.len() };
    let len = HEADER_LEN + REQUEST_LEN + attribute;
    let mut out = Vec::with_capacity(len);
    // struct nlmsghdr; the filter's bound keeps every length here far below 2^16.
    out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_ne_bytes());
    out.extend_from_slice(&TCPDIAG_GETSOCK.to_ne_bytes());
    let flags = u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_DUMP).unwrap_or(0);
    out.extend_from_slice(&flags.to_ne_bytes());
    out.extend_from_slice(&sequence.to_ne_bytes());
    out.extend_from_slice(&0u32.to_ne_bytes());
    // struct inet_diag_req: family and address lengths, which are ignored, extensions, an empty socket id, states, and
    // `idiag_dbs`, which is ignored.
    let extensions = 1u8 << (ATTR_INFO - 1);
    out.extend_from_slice(&[0, 0, 0, extensions]);
    out.resize(HEADER_LEN + REQUEST_LEN - 8, 0);
    out.extend_from_slice(&STATES.to_ne_bytes());
    out.resize(HEADER_LEN + REQUEST_LEN, 0);
    if attribute > 0 {
        out.extend_from_slice(&u16::try_from(attribute).unwrap_or(u16::MAX).to_ne_bytes());
        out.extend_from_slice(&REQ_BYTECODE.to_ne_bytes());
        out.extend_from_slice(bytecode);
    }
    out
}

/// Walks the messages of one datagram. Messages of another `sequence` are leftovers of an earlier request and skipped.
pub(super) fn parse(datagram: &[u8], sequence: u32, mut row: impl FnMut(DiagRow)) -> Result<Progress, WireError> {
    let mut progress = Progress::default();
    let mut rest = datagram;
    while !rest.is_empty() {
        if progress.done {
            return Err(WireError::Unexpected { what: "bytes after the end of the dump:", value: len_u32(rest) });
        }
        let header = fixed::<HEADER_LEN>(rest, 0, "a netlink header")?;
        let len = u32_at(header, 0)? as usize;
        if len < HEADER_LEN {
            return Err(WireError::BadLength { what: "a netlink message", len });
        }
        let body = rest.get(HEADER_LEN..len).ok_or_else(|| truncated("a netlink message", len, rest))?;
        let kind = u16_at(header, 4)?;
        let flags = i32::from(u16_at(header, 6)?);
        if u32_at(header, 8)? == sequence {
            progress.interrupted |= flags & libc::NLM_F_DUMP_INTR != 0;
            progress.done = message(kind, body, &mut row)?;
        }
        // The last message need not be padded.
        rest = rest.get(align(len)..).unwrap_or_default();
    }
    Ok(progress)
}

/// One message; whether it ends the dump.
fn message(kind: u16, body: &[u8], row: &mut impl FnMut(DiagRow)) -> Result<bool, WireError> {
    match i32::from(kind) {
        libc::NLMSG_NOOP => Ok(false),
        libc::NLMSG_OVERRUN => Err(WireError::Overrun),
        libc::NLMSG_ERROR => Err(WireError::Kernel(errno(body)?)),
        libc::NLMSG_DONE => {
            // Carries the dump's own error since Linux 4.16, nothing before.
            match if body.is_empty() { 0 } else { errno(body)? } {
                0 => Ok(true),
                number => Err(WireError::Kernel(number)),
            }
        }
        _ if kind == TCPDIAG_GETSOCK => {
            if let Some(found) = socket(body)? {
                row(found);
            }
            Ok(false)
        }
        _ => Err(WireError::Unexpected { what: "netlink message type", value: u32::from(kind) }),
    }
}

/// The error number at the start of `body`; the kernel sends it negated.
fn errno(body: &[u8]) -> Result<i32, WireError> {
    let value = i32::from_ne_bytes(*fixed::<4>(body, 0, "a netlink error")?);
    Ok(if value < 0 { value.saturating_neg() } else { 0 })
}

/// One `inet_diag_msg`. `None` for what is no full socket: TIME_WAIT mini-sockets are reported under their substate,
/// FIN_WAIT2, too, and only the timer tells them apart.
fn socket(body: &[u8]) -> Result<Option<DiagRow>, WireError> {
    let head = fixed::<MESSAGE_LEN>(body, 0, "a socket message")?;
    let [family, state, timer, ..] = *head;
    let Some(state) = TcpState::from_kernel(state) else { return Ok(None) };
    if timer == TIMER_TIME_WAIT || STATES & (1 << state as u32) == 0 {
        return Ok(None);
    }
    let local = address(family, head, 8, 4)?;
    let remote = address(family, head, 24, 6)?;
    let cookie = u64::from(u32_at(head, 44)?) | u64::from(u32_at(head, 48)?) << 32;
    let timer_ms = u32_at(head, 52)?;
    let info = attribute(body.get(MESSAGE_LEN..).unwrap_or_default(), ATTR_INFO)?
        .map(|bytes| SocketInfo {
            keepalive: keepalive(timer, state),
            timer: armed(timer),
            timer_ms,
            ..tcp_info(bytes)
        })
        .map(|info| SocketInfo { bytes_received: without_fin(info.bytes_received, state), ..info });
    Ok(Some(DiagRow { state, local, remote, uid: u32_at(head, 64)?, inode: u32_at(head, 68)?, cookie, info }))
}

/// The kernel counts the peer's FIN as one byte received; in these states it has come.
fn without_fin(bytes_received: u64, state: TcpState) -> u64 {
    match state {
        TcpState::CloseWait | TcpState::LastAck | TcpState::Closing => bytes_received.saturating_sub(1),
        _ => bytes_received,
    }
}

/// Whether keepalive is on, as far as the armed timer tells. A retransmission or probe timer hides it, and in
/// FIN_WAIT2 the same timer is the state's own time-out.
fn keepalive(timer: u8, state: TcpState) -> Option<bool> {
    match (timer, state) {
        (0, _) => Some(false),
        (TIMER_KEEPALIVE, TcpState::Established | TcpState::CloseWait) => Some(true),
        _ => None,
    }
}

/// The timer that is armed.
fn armed(timer: u8) -> Timer {
    match timer {
        TIMER_RETRANSMIT => Timer::Retransmit,
        TIMER_KEEPALIVE => Timer::Keepalive,
        TIMER_PROBE => Timer::Probe,
        _ => Timer::Off,
    }
}

/// An address of `inet_diag_sockid`; a v4-mapped IPv6 address becomes IPv4, as in the kernel side's events.
fn address(family: u8, head: &[u8; MESSAGE_LEN], at: usize, port_at: usize) -> Result<SocketAddr, WireError> {
    let port = u16::from_be_bytes(*fixed::<2>(head, port_at, "a port")?);
    let ip = match i32::from(family) {
        libc::AF_INET => IpAddr::V4(Ipv4Addr::from(*fixed::<4>(head, at, "an address")?)),
        libc::AF_INET6 => IpAddr::V6(Ipv6Addr::from(*fixed::<16>(head, at, "an address")?)).to_canonical(),
        _ => return Err(WireError::Unexpected { what: "address family", value: u32::from(family) }),
    };
    Ok(SocketAddr::new(ip, port))
}

/// `struct tcp_info`: it grows with the kernel, so a field counts only if the attribute is long enough to have it.
pub(crate) fn tcp_info(bytes: &[u8]) -> SocketInfo {
    let word = |at: usize| part::<4>(bytes, at).map(|raw| u32::from_ne_bytes(*raw));
    let long = |at: usize| part::<8>(bytes, at).map(|raw| u64::from_ne_bytes(*raw));
    SocketInfo {
        // tcpi_bytes_sent came with Linux 4.19, tcpi_bytes_acked and tcpi_bytes_received with 4.1.
        bytes_sent: long(200).or_else(|| long(120)).unwrap_or(0),
        bytes_received: long(128).unwrap_or(0),
        srtt_us: word(68).filter(|rtt| *rtt > 0),
        retransmits: word(100).unwrap_or(0),
        consecutive_rtos: bytes.get(2).copied().unwrap_or(0),
        unacked: word(24).unwrap_or(0),
        last_data_sent_ms: word(44).unwrap_or(0),
        last_data_received_ms: word(52).unwrap_or(0),
        last_ack_received_ms: word(56).unwrap_or(0),
        keepalive: None,
        probes: bytes.get(3).copied().unwrap_or(0),
        backoff: bytes.get(4).copied().unwrap_or(0),
        rto_ms: word(8).unwrap_or(0) / 1_000,
        // Since Linux 4.2.
        segments_received: word(140).unwrap_or(0),
        timer: Timer::Off,
        timer_ms: 0,
    }
}

/// The payload of the first attribute of type `wanted`.
fn attribute(mut rest: &[u8], wanted: u16) -> Result<Option<&[u8]>, WireError> {
    while !rest.is_empty() {
        let head = fixed::<ATTRIBUTE_LEN>(rest, 0, "an attribute header")?;
        let len = usize::from(u16_at(head, 0)?);
        if len < ATTRIBUTE_LEN {
            return Err(WireError::BadLength { what: "an attribute", len });
        }
        let value = rest.get(ATTRIBUTE_LEN..len).ok_or_else(|| truncated("an attribute", len, rest))?;
        if u16_at(head, 2)? & ATTR_TYPE_MASK == wanted {
            return Ok(Some(value));
        }
        rest = rest.get(align(len)..).unwrap_or_default();
    }
    Ok(None)
}

/// Netlink aligns messages and attributes to 4 bytes.
pub(super) fn align(len: usize) -> usize {
    len.saturating_add(3) & !3
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> Option<&[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>()
}

pub(super) fn fixed<'a, const N: usize>(
    bytes: &'a [u8],
    at: usize,
    what: &'static str,
) -> Result<&'a [u8; N], WireError> {
    part(bytes, at).ok_or_else(|| truncated(what, at.saturating_add(N), bytes))
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, WireError> {
    Ok(u16::from_ne_bytes(*fixed(bytes, at, "a field")?))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, WireError> {
    Ok(u32::from_ne_bytes(*fixed(bytes, at, "a field")?))
}

pub(super) fn truncated(what: &'static str, need: usize, have: &[u8]) -> WireError {
    WireError::Truncated { what, need, have: have.len() }
}

fn len_u32(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
