use proptest::prelude::*;
use tracer_core::ports::PortMap;

use super::*;

const SEQUENCE: u32 = 7;

/// `struct tcp_info` of Linux 5.10 to 6.x as far as it is read, cut to `len` bytes.
fn tcp_info_bytes(len: usize) -> Vec<u8> {
    let mut bytes = vec![0u8; 232];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(2, &[3, 2, 5]);
    put(8, &400_000u32.to_ne_bytes());
    put(24, &4u32.to_ne_bytes());
    put(44, &1_000u32.to_ne_bytes());
    put(52, &2_000u32.to_ne_bytes());
    put(56, &3_000u32.to_ne_bytes());
    put(68, &250u32.to_ne_bytes());
    put(100, &9u32.to_ne_bytes());
    put(120, &5_555u64.to_ne_bytes());
    put(128, &7_777u64.to_ne_bytes());
    put(140, &12u32.to_ne_bytes());
    put(200, &6_666u64.to_ne_bytes());
    bytes.truncate(len);
    bytes
}

fn attribute_bytes(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut out = u16::try_from(4 + value.len()).unwrap().to_ne_bytes().to_vec();
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(value);
    out.resize(align(out.len()), 0);
    out
}

#[derive(Clone, Copy)]
struct Fixture {
    family: i32,
    state: TcpState,
    timer: u8,
    local: [u8; 16],
    remote: [u8; 16],
}

const V4: Fixture = Fixture {
    family: libc::AF_INET,
    state: TcpState::Established,
    timer: 0,
    local: [10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    remote: [10, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
};

impl Fixture {
    fn body(&self, attributes: &[u8]) -> Vec<u8> {
        let mut out = vec![u8::try_from(self.family).unwrap(), self.state as u8, self.timer, 0];
        out.extend_from_slice(&40_000u16.to_be_bytes());
        out.extend_from_slice(&5_432u16.to_be_bytes());
        out.extend_from_slice(&self.local);
        out.extend_from_slice(&self.remote);
        // Interface, cookie (two words), expires, receive queue, send queue, uid, inode.
        for word in [0u32, 0xdead_beef, 0x1, 0, 0, 0, 1_000, 424_242] {
            out.extend_from_slice(&word.to_ne_bytes());
        }
        assert_eq!(out.len(), MESSAGE_LEN);
        out.extend_from_slice(attributes);
        out
    }

    fn message(&self, attributes: &[u8]) -> Vec<u8> {
        message_bytes(TCPDIAG_GETSOCK, libc::NLM_F_MULTI, &self.body(attributes))
    }
}

fn message_bytes(kind: u16, flags: i32, body: &[u8]) -> Vec<u8> {
    let mut out = u32::try_from(HEADER_LEN + body.len()).unwrap().to_ne_bytes().to_vec();
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&u16::try_from(flags).unwrap().to_ne_bytes());
    out.extend_from_slice(&SEQUENCE.to_ne_bytes());
    out.extend_from_slice(&99u32.to_ne_bytes());
    out.extend_from_slice(body);
    out.resize(align(out.len()), 0);
    out
}

fn control(kind: i32, code: i32) -> Vec<u8> {
    message_bytes(u16::try_from(kind).unwrap(), libc::NLM_F_MULTI, &code.to_ne_bytes())
}

fn read(datagram: &[u8]) -> Result<(Vec<DiagRow>, Progress), WireError> {
    let mut rows = Vec::new();
    let progress = parse(datagram, SEQUENCE, |row| rows.push(row))?;
    Ok((rows, progress))
}

#[test]
fn a_request_has_the_kernels_layout() {
    let filter = crate::inventory::port_filter::PortFilter::new(&PortMap::default());
    let bytes = request(SEQUENCE, filter.bytecode());
    let word = |at: usize| u32::from_ne_bytes(*bytes[at..].first_chunk().unwrap());
    let half = |at: usize| u16::from_ne_bytes(*bytes[at..].first_chunk().unwrap());
    assert_eq!(word(0) as usize, bytes.len());
    assert_eq!((half(4), half(6), word(8), word(12)), (18, 0x301, SEQUENCE, 0));
    assert_eq!(bytes[16..20], [0, 0, 0, 2]);
    assert!(bytes[20..68].iter().all(|byte| *byte == 0));
    // ESTABLISHED, SYN_SENT, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, LISTEN, CLOSING.
    assert_eq!((word(68), word(72)), (0b1111_0011_0110, 0));
    assert_eq!((usize::from(half(76)), half(78)), (bytes.len() - 76, 1));
    assert_eq!(&bytes[80..], filter.bytecode());
}

#[test]
fn a_request_for_one_socket_has_the_kernels_layout() {
    let check = |local: &str, remote: &str, family: i32, addresses: [&[u8]; 2]| {
        let tuple = Tuple::new(7, local.parse().unwrap(), remote.parse().unwrap());
        let bytes = request_one(SEQUENCE, &tuple, 0x1_dead_beef);
        let word = |at: usize| u32::from_ne_bytes(*bytes[at..].first_chunk().unwrap());
        assert_eq!((word(0) as usize, bytes.len()), (76, 76));
        assert_eq!(bytes[4..8], [18, 0, 1, 0], "TCPDIAG_GETSOCK, NLM_F_REQUEST alone");
        assert_eq!(bytes[16..20], [u8::try_from(family).unwrap(), 0, 0, 2]);
        assert_eq!(bytes[20..24], [0x9c, 0x40, 0x15, 0x38], "ports are big-endian");
        assert_eq!([&bytes[24..24 + addresses[0].len()], &bytes[40..40 + addresses[1].len()]], addresses);
        assert_eq!((word(56), word(60), word(64), word(68)), (0, 0xdead_beef, 1, STATES));
        let any = request_one(SEQUENCE, &tuple, 0);
        assert_eq!(any[60..68], [0xff; 8]);
    };
    check("10.0.0.1:40000", "10.0.0.2:5432", libc::AF_INET, [&[10, 0, 0, 1, 0, 0], &[10, 0, 0, 2, 0, 0]]);
    let (one, two) = ("fd00::1".parse::<Ipv6Addr>().unwrap(), "fd00::2".parse::<Ipv6Addr>().unwrap());
    check("[fd00::1]:40000", "[fd00::2]:5432", libc::AF_INET6, [&one.octets(), &two.octets()]);
}

#[test]
fn the_armed_timer_and_when_it_fires() {
    let check = |timer: u8, expected: Timer| {
        let info = attribute_bytes(ATTR_INFO, &tcp_info_bytes(232));
        let mut body = Fixture { timer, ..V4 }.body(&info);
        body[52..56].copy_from_slice(&1_500u32.to_ne_bytes());
        let rows = read(&message_bytes(TCPDIAG_GETSOCK, libc::NLM_F_MULTI, &body)).unwrap().0;
        let info = rows[0].info.unwrap();
        assert_eq!((info.timer, info.timer_ms), (expected, 1_500), "{timer}");
    };
    check(0, Timer::Off);
    check(1, Timer::Retransmit);
    check(2, Timer::Keepalive);
    check(4, Timer::Probe);
}

#[test]
fn a_socket_with_everything() {
    let info = attribute_bytes(ATTR_INFO, &tcp_info_bytes(232));
    let mut attributes = attribute_bytes(8, &[0]);
    attributes.extend_from_slice(&info);
    let mut datagram = V4.message(&attributes);
    datagram.extend_from_slice(&control(libc::NLMSG_DONE, 0));
    let (rows, progress) = read(&datagram).unwrap();
    assert_eq!(progress, Progress { done: true, interrupted: false });
    let expected = DiagRow {
        state: TcpState::Established,
        local: "10.0.0.1:40000".parse().unwrap(),
        remote: "10.0.0.2:5432".parse().unwrap(),
        uid: 1_000,
        inode: 424_242,
        cookie: 0x1_dead_beef,
        info: Some(SocketInfo {
            bytes_sent: 6_666,
            bytes_received: 7_777,
            srtt_us: Some(250),
            retransmits: 9,
            consecutive_rtos: 3,
            unacked: 4,
            last_data_sent_ms: 1_000,
            last_data_received_ms: 2_000,
            last_ack_received_ms: 3_000,
            keepalive: Some(false),
            probes: 2,
            backoff: 5,
            rto_ms: 400,
            segments_received: 12,
            timer: Timer::Off,
            timer_ms: 0,
        }),
    };
    assert_eq!(rows, [expected]);
}

#[test]
fn addresses_of_both_families() {
    let check = |local: &str, shown: &str| {
        let local: Ipv6Addr = local.parse().unwrap();
        let socket = Fixture { family: libc::AF_INET6, local: local.octets(), remote: [0; 16], ..V4 };
        assert_eq!(read(&socket.message(&[])).unwrap().0[0].local.to_string(), shown);
    };
    check("2001:db8::1", "[2001:db8::1]:40000");
    check("::ffff:10.0.0.1", "10.0.0.1:40000");
    check("::1", "[::1]:40000");
    check("::", "[::]:40000");
    let unix = Fixture { family: libc::AF_UNIX, ..V4 };
    assert_eq!(read(&unix.message(&[])), Err(WireError::Unexpected { what: "address family", value: 1 }));
}

#[test]
fn only_full_sockets_that_were_asked_for() {
    let check = |state: TcpState, timer: u8, expected: bool| {
        let rows = read(&Fixture { state, timer, ..V4 }.message(&[])).unwrap().0;
        assert_eq!(!rows.is_empty(), expected, "{state} timer {timer}");
    };
    for state in TcpState::ALL {
        let asked = state.is_open() || matches!(state, TcpState::SynSent | TcpState::Listen);
        check(state, 0, asked);
        check(state, 3, false);
    }
    check(TcpState::FinWait2, 2, true);
}

#[test]
fn keepalive_as_far_as_the_timer_tells() {
    let check = |state: TcpState, timer: u8, expected: Option<bool>| {
        let info = attribute_bytes(ATTR_INFO, &tcp_info_bytes(232));
        let rows = read(&Fixture { state, timer, ..V4 }.message(&info)).unwrap().0;
        assert_eq!(rows[0].info.unwrap().keepalive, expected, "{state} timer {timer}");
    };
    check(TcpState::Established, 0, Some(false));
    check(TcpState::Established, 1, None);
    check(TcpState::Established, 2, Some(true));
    check(TcpState::Established, 4, None);
    check(TcpState::CloseWait, 2, Some(true));
    check(TcpState::FinWait2, 2, None);
    check(TcpState::SynSent, 1, None);
}

#[test]
fn tcp_info_of_every_length() {
    for len in 0..=232 {
        let message = V4.message(&attribute_bytes(ATTR_INFO, &tcp_info_bytes(len)));
        let info = read(&message).unwrap().0[0].info.unwrap();
        let if_longer = |end: usize, value: u64| if len >= end { value } else { 0 };
        assert_eq!(u64::from(info.consecutive_rtos), if_longer(3, 3));
        assert_eq!(u64::from(info.unacked), if_longer(28, 4));
        assert_eq!(u64::from(info.last_data_sent_ms), if_longer(48, 1_000));
        assert_eq!(u64::from(info.last_data_received_ms), if_longer(56, 2_000));
        assert_eq!(u64::from(info.last_ack_received_ms), if_longer(60, 3_000));
        assert_eq!((u64::from(info.probes), u64::from(info.backoff)), (if_longer(4, 2), if_longer(5, 5)));
        assert_eq!(u64::from(info.rto_ms), if_longer(12, 400));
        assert_eq!(u64::from(info.segments_received), if_longer(144, 12));
        assert_eq!(info.srtt_us, (len >= 72).then_some(250));
        assert_eq!(u64::from(info.retransmits), if_longer(104, 9));
        assert_eq!(info.bytes_received, if_longer(136, 7_777));
        assert_eq!(info.bytes_sent, if len >= 208 { 6_666 } else { if_longer(128, 5_555) });
    }
    assert_eq!(read(&V4.message(&[])).unwrap().0[0].info, None);
}

#[test]
fn the_end_of_a_dump_and_its_errors() {
    let check = |datagram: Vec<u8>, expected: Result<Progress, WireError>| {
        assert_eq!(read(&datagram).map(|(_, progress)| progress), expected);
    };
    let done = Progress { done: true, interrupted: false };
    check(Vec::new(), Ok(Progress::default()));
    check(control(libc::NLMSG_DONE, 0), Ok(done));
    check(message_bytes(3, 2, &[]), Ok(done));
    check(message_bytes(3, 2 | libc::NLM_F_DUMP_INTR, &[0; 4]), Ok(Progress { interrupted: true, ..done }));
    check(control(libc::NLMSG_DONE, -libc::ENOMEM), Err(WireError::Kernel(libc::ENOMEM)));
    check(control(libc::NLMSG_ERROR, -libc::EINVAL), Err(WireError::Kernel(libc::EINVAL)));
    check(message_bytes(2, 0, &[0; 3]), Err(WireError::Truncated { what: "a netlink error", need: 4, have: 3 }));
    check(control(libc::NLMSG_OVERRUN, 0), Err(WireError::Overrun));
    check(control(libc::NLMSG_NOOP, 0), Ok(Progress::default()));
    check(control(77, 0), Err(WireError::Unexpected { what: "netlink message type", value: 77 }));
    check(
        [control(libc::NLMSG_DONE, 0), vec![1, 2, 3]].concat(),
        Err(WireError::Unexpected { what: "bytes after the end of the dump:", value: 3 }),
    );
    let mut other = control(libc::NLMSG_ERROR, -libc::EINVAL);
    other[8] = 0xff;
    check(other, Ok(Progress::default()));
    assert_eq!(WireError::Kernel(libc::EPERM).to_string(), "the kernel answered: Operation not permitted (os error 1)");
}

#[test]
fn an_interrupted_dump_is_seen_on_any_message() {
    let body = V4.body(&[]);
    let datagram = message_bytes(TCPDIAG_GETSOCK, libc::NLM_F_MULTI | libc::NLM_F_DUMP_INTR, &body);
    let (rows, progress) = read(&datagram).unwrap();
    assert_eq!((rows.len(), progress), (1, Progress { done: false, interrupted: true }));
}

#[test]
fn every_truncation_is_an_error() {
    let message = V4.message(&attribute_bytes(ATTR_INFO, &tcp_info_bytes(232)));
    for len in 1..message.len() {
        assert!(matches!(read(&message[..len]), Err(WireError::Truncated { .. })), "datagram cut to {len}");
    }
    // The same with a header that admits the cut: the message or its attribute ends early.
    for len in HEADER_LEN..message.len() {
        let mut cut = message[..len].to_vec();
        cut[..4].copy_from_slice(&u32::try_from(len).unwrap().to_ne_bytes());
        let whole_without_attribute = len == HEADER_LEN + MESSAGE_LEN;
        assert_eq!(read(&cut).is_ok(), whole_without_attribute, "message cut to {len}");
    }
}

#[test]
fn impossible_lengths_are_errors() {
    let mut message = V4.message(&[]);
    for len in 0..16u32 {
        message[..4].copy_from_slice(&len.to_ne_bytes());
        assert_eq!(read(&message), Err(WireError::BadLength { what: "a netlink message", len: len as usize }));
    }
    message[..4].copy_from_slice(&u32::MAX.to_ne_bytes());
    assert!(matches!(read(&message), Err(WireError::Truncated { .. })));
    for len in 0..4u16 {
        let attribute = [len.to_ne_bytes(), [1, 0]].concat();
        assert_eq!(
            read(&V4.message(&attribute)),
            Err(WireError::BadLength { what: "an attribute", len: usize::from(len) })
        );
    }
}

fn valid_dump() -> Vec<u8> {
    let info = attribute_bytes(ATTR_INFO, &tcp_info_bytes(232));
    let v6 = Fixture { family: libc::AF_INET6, timer: 2, ..V4 };
    [V4.message(&info), v6.message(&info), control(libc::NLMSG_DONE, 0)].concat()
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), sequence in 0u32..9) {
        let _outcome = parse(&bytes, sequence, |_| {});
    }

    #[test]
    fn a_dump_with_flipped_bytes_never_panics(flips in proptest::collection::vec((0usize..700, any::<u8>()), 1..12)) {
        let mut bytes = valid_dump();
        let len = bytes.len();
        for (at, value) in flips {
            bytes[at % len] = value;
        }
        let mut rows = 0;
        let _outcome = parse(&bytes, SEQUENCE, |_| rows += 1);
        prop_assert!(rows <= len / HEADER_LEN);
    }

    #[test]
    fn a_dump_followed_by_garbage_is_an_error(garbage in proptest::collection::vec(any::<u8>(), 1..200)) {
        let bytes = [valid_dump(), garbage].concat();
        prop_assert!(read(&bytes).is_err());
    }
}
