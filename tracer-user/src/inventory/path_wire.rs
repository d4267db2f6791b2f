//! The bytes of two questions about one connection: what connection tracking has of it (`NETLINK_NETFILTER`,
//! `IPCTNL_MSG_CT_GET`) and whether there is a way to the peer (`NETLINK_ROUTE`, `RTM_GETROUTE`).
//!
//! No IO here. Whatever bytes come in, the outcome is an answer or an error, never a panic. Layouts are from
//! `include/uapi/linux/{netlink,rtnetlink}.h` and `include/uapi/linux/netfilter/{nfnetlink,nfnetlink_conntrack,
//! nf_conntrack_common}.h`.

use std::net::IpAddr;

use tracer_core::event::Tuple;
use tracer_core::inventory::{Entry, EntryState, Tracked};

use super::inet_diag::{WireError, align, fixed, truncated};

/// `struct nlmsghdr`.
const HEADER_LEN: usize = 16;
/// `struct nfgenmsg`.
const NFGEN_LEN: usize = 4;
/// `struct nlattr`.
const ATTRIBUTE_LEN: usize = 4;
/// `NLA_F_NESTED`, and the attribute type without flags.
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET`, and the answer's `IPCTNL_MSG_CT_NEW`.
const CT_GET: u16 = 1 << 8 | 1;
const CT_NEW: u16 = 1 << 8;
/// Attributes of an entry.
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_STATUS: u16 = 3;
const CTA_PROTOINFO: u16 = 4;
const CTA_TIMEOUT: u16 = 7;
/// Of a tuple.
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
/// Of its addresses, source and destination: of IPv4, and of IPv6.
const CTA_IP_V4: [u16; 2] = [1, 2];
const CTA_IP_V6: [u16; 2] = [3, 4];
/// Of its protocol.
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_PORTS: [u16; 2] = [2, 3];
/// Of the protocol's state.
const CTA_PROTOINFO_TCP: u16 = 1;
const CTA_PROTOINFO_TCP_STATE: u16 = 1;
/// `IPS_SRC_NAT | IPS_DST_NAT`.
const TRANSLATED: u32 = 1 << 4 | 1 << 5;

/// `RTM_GETROUTE`, and the answer's `RTM_NEWROUTE`.
const GET_ROUTE: u16 = 26;
const NEW_ROUTE: u16 = 24;
/// `struct rtmsg`.
const RTMSG_LEN: usize = 12;
/// Attributes of a route. The ports are for policies that look at them (Linux 4.18); older kernels ignore them.
const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_IP_PROTO: u16 = 27;
const RTA_SPORT: u16 = 28;
const RTA_DPORT: u16 = 29;

const TCP: u8 = 6;

/// Asks for the entry of the connection with these ends. Either direction's ends lead to the entry, and a socket's own ends
/// are always those of one.
pub(super) fn ask_tracked(sequence: u32, tuple: &Tuple) -> Vec<u8> {
    let (local, remote) = (tuple.local(), tuple.remote());
    let (family, ips, types) = match (local.ip(), remote.ip()) {
        (IpAddr::V4(local), IpAddr::V4(remote)) => {
            (libc::AF_INET, [local.octets().to_vec(), remote.octets().to_vec()], CTA_IP_V4)
        }
        (local, remote) => (libc::AF_INET6, [octets_v6(local), octets_v6(remote)], CTA_IP_V6),
    };
    let addresses: Vec<u8> = types.iter().zip(&ips).flat_map(|(kind, ip)| attribute(*kind, ip)).collect();
    let ports = [local.port(), remote.port()];
    let ports = CTA_PROTO_PORTS.iter().zip(ports).flat_map(|(kind, port)| attribute(*kind, &port.to_be_bytes()));
    let protocol: Vec<u8> = attribute(CTA_PROTO_NUM, &[TCP]).into_iter().chain(ports).collect();
    let inner = [attribute(CTA_TUPLE_IP | NESTED, &addresses), attribute(CTA_TUPLE_PROTO | NESTED, &protocol)].concat();
    // struct nfgenmsg: family, version, resource id.
    let body = [vec![u8::try_from(family).unwrap_or(0), 0, 0, 0], attribute(CTA_TUPLE_ORIG | NESTED, &inner)].concat();
    message(CT_GET, sequence, &body)
}

/// What the answer says: the entry, or that there is none (`ENOENT`). Any other error is one.
pub(super) fn tracked(datagram: &[u8], sequence: u32) -> Result<Tracked, WireError> {
    let body = match answer(datagram, sequence, CT_NEW) {
        Err(WireError::Kernel(libc::ENOENT)) => return Ok(Tracked::Absent),
        other => other?,
    };
    let attributes =
        body.get(NFGEN_LEN..).ok_or_else(|| truncated("an entry of connection tracking", NFGEN_LEN, body))?;
    let (mut state, mut left_s, mut status) = (EntryState(0), 0, 0);
    each(attributes, |kind, value| {
        match kind {
            CTA_STATUS => status = u32::from_be_bytes(*fixed(value, 0, "a status")?),
            CTA_TIMEOUT => left_s = u32::from_be_bytes(*fixed(value, 0, "a time-out")?),
            CTA_PROTOINFO => each(value, |kind, value| match kind {
                CTA_PROTOINFO_TCP => each(value, |kind, value| {
                    if kind == CTA_PROTOINFO_TCP_STATE {
                        let [number] = *fixed(value, 0, "a state")?;
                        state = EntryState(number);
                    }
                    Ok(())
                }),
                _ => Ok(()),
            })?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(Tracked::Entry(Entry { state, left_s, translated: status & TRANSLATED != 0 }))
}

/// Asks for the way from one end to the other.
pub(super) fn ask_route(sequence: u32, tuple: &Tuple) -> Vec<u8> {
    let (local, remote) = (tuple.local(), tuple.remote());
    let (family, source, destination) = match (local.ip(), remote.ip()) {
        (IpAddr::V4(local), IpAddr::V4(remote)) => (libc::AF_INET, local.octets().to_vec(), remote.octets().to_vec()),
        (local, remote) => (libc::AF_INET6, octets_v6(local), octets_v6(remote)),
    };
    let bits = |ip: &[u8]| u8::try_from(ip.len() * 8).unwrap_or(0);
    // struct rtmsg: family, length of destination and source, then fields that are the answer's.
    let mut body = vec![u8::try_from(family).unwrap_or(0), bits(&destination), bits(&source)];
    body.resize(RTMSG_LEN, 0);
    for (kind, value) in [
        (RTA_DST, destination.as_slice()),
        (RTA_SRC, source.as_slice()),
        (RTA_IP_PROTO, &[TCP]),
        (RTA_SPORT, &local.port().to_be_bytes()),
        (RTA_DPORT, &remote.port().to_be_bytes()),
    ] {
        body.extend(attribute(kind, value));
    }
    message(GET_ROUTE, sequence, &body)
}

/// What the answer says: there is a way, or the errno that a connect there would get.
pub(super) fn no_route(datagram: &[u8], sequence: u32) -> Result<Option<u16>, WireError> {
    match answer(datagram, sequence, NEW_ROUTE) {
        Ok(body) => no_way(body),
        // What routes forbid (`fib_props`, net/ipv4/fib_semantics.c), or none that fits.
        Err(WireError::Kernel(errno @ (libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES))) => {
            Ok(u16::try_from(errno).ok())
        }
        Err(error) => Err(error),
    }
}

/// IPv6 answers with the route that forbids instead of its error: `RTA_METRICS` and such beside `rtm_type`.
fn no_way(body: &[u8]) -> Result<Option<u16>, WireError> {
    /// `RTN_UNREACHABLE` and `RTN_PROHIBIT`.
    const UNREACHABLE: u8 = 7;
    const PROHIBIT: u8 = 8;
    let head = fixed::<RTMSG_LEN>(body, 0, "a route")?;
    Ok(match head[7] {
        UNREACHABLE => u16::try_from(libc::EHOSTUNREACH).ok(),
        PROHIBIT => u16::try_from(libc::EACCES).ok(),
        _ => None,
    })
}

fn octets_v6(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn message(kind: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_LEN + body.len());
    out.extend_from_slice(&u32::try_from(HEADER_LEN + body.len()).unwrap_or(u32::MAX).to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&u16::try_from(libc::NLM_F_REQUEST).unwrap_or(0).to_ne_bytes());
    out.extend_from_slice(&sequence.to_ne_bytes());
    out.extend_from_slice(&0u32.to_ne_bytes());
    out.extend_from_slice(body);
    out
}

/// One attribute with its padding.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = ATTRIBUTE_LEN + value.len();
    let mut out = Vec::with_capacity(align(len));
    out.extend_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(value);
    out.resize(align(len), 0);
    out
}

/// The body of the first message that answers that request.
fn answer(datagram: &[u8], sequence: u32, wanted: u16) -> Result<&[u8], WireError> {
    let mut rest = datagram;
    while !rest.is_empty() {
        let header = fixed::<HEADER_LEN>(rest, 0, "a netlink header")?;
        let len = u32::from_ne_bytes(*fixed(header, 0, "a field")?) as usize;
        if len < HEADER_LEN {
            return Err(WireError::BadLength { what: "a netlink message", len });
        }
        let body = rest.get(HEADER_LEN..len).ok_or_else(|| truncated("a netlink message", len, rest))?;
        let kind = u16::from_ne_bytes(*fixed(header, 4, "a field")?);
        if u32::from_ne_bytes(*fixed(header, 8, "a field")?) == sequence {
            return match i32::from(kind) {
                libc::NLMSG_ERROR => {
                    let errno = i32::from_ne_bytes(*fixed(body, 0, "a netlink error")?);
                    Err(WireError::Kernel(errno.saturating_neg()))
                }
                _ if kind == wanted => Ok(body),
                _ => Err(WireError::Unexpected { what: "netlink message type", value: u32::from(kind) }),
            };
        }
        rest = rest.get(align(len)..).unwrap_or_default();
    }
    Err(truncated("the answer", HEADER_LEN, rest))
}

/// Each attribute's type and payload.
fn each(mut rest: &[u8], mut take: impl FnMut(u16, &[u8]) -> Result<(), WireError>) -> Result<(), WireError> {
    while !rest.is_empty() {
        let head = fixed::<ATTRIBUTE_LEN>(rest, 0, "an attribute header")?;
        let len = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        if len < ATTRIBUTE_LEN {
            return Err(WireError::BadLength { what: "an attribute", len });
        }
        let value = rest.get(ATTRIBUTE_LEN..len).ok_or_else(|| truncated("an attribute", len, rest))?;
        take(u16::from_ne_bytes([head[2], head[3]]) & TYPE_MASK, value)?;
        rest = rest.get(align(len)..).unwrap_or_default();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(local: &str, remote: &str) -> Tuple {
        Tuple::new(7, local.parse().unwrap(), remote.parse().unwrap())
    }

    fn nested(kind: u16, inner: &[Vec<u8>]) -> Vec<u8> {
        attribute(kind | NESTED, &inner.concat())
    }

    fn entry(state: u8, left_s: u32, status: u32) -> Vec<u8> {
        let tcp = nested(CTA_PROTOINFO_TCP, &[attribute(CTA_PROTOINFO_TCP_STATE, &[state])]);
        let body = [
            vec![2, 0, 0, 0],
            attribute(CTA_STATUS, &status.to_be_bytes()),
            attribute(CTA_TIMEOUT, &left_s.to_be_bytes()),
            nested(CTA_PROTOINFO, &[tcp]),
        ];
        message(CT_NEW, 4, &body.concat())
    }

    fn refused(errno: i32) -> Vec<u8> {
        message(2, 4, &[(-errno).to_ne_bytes().to_vec(), vec![0; 16]].concat())
    }

    #[test]
    fn a_question_names_both_ends() {
        let asked = ask_tracked(9, &tuple("10.0.0.9:40000", "10.0.0.5:5432"));
        let (ip, port) = (|ip: [u8; 4]| ip.to_vec(), |port: u16| port.to_be_bytes().to_vec());
        let addresses = [attribute(1, &ip([10, 0, 0, 9])), attribute(2, &ip([10, 0, 0, 5]))];
        let ports = [attribute(1, &[6]), attribute(2, &port(40_000)), attribute(3, &port(5_432))];
        let expected = [vec![2, 0, 0, 0], nested(1, &[nested(1, &addresses), nested(2, &ports)])].concat();
        assert_eq!(asked, message(0x101, 9, &expected));
        assert_eq!(asked.len(), 16 + 4 + 4 + 4 + 16 + 4 + 24);
        let v6 = ask_tracked(9, &tuple("[fd00::9]:40000", "[fd00::5]:5432"));
        assert_eq!((v6[16], v6.len()), (10, 16 + 4 + 4 + 4 + 40 + 4 + 24));
        assert_eq!(ask_route(9, &tuple("10.0.0.9:1", "10.0.0.5:2"))[16..20], [2, 32, 32, 0]);
        assert_eq!(ask_route(9, &tuple("[fd00::9]:1", "[fd00::5]:2"))[16..20], [10, 128, 128, 0]);
    }

    #[test]
    fn an_entry_has_a_state_a_time_out_and_whether_it_translates() {
        let check = |datagram: &[u8], expected: Result<Tracked, WireError>| {
            assert_eq!(tracked(datagram, 4), expected, "{datagram:?}");
        };
        let known = |state: u8, left_s: u32, translated: bool| {
            Ok(Tracked::Entry(Entry { state: EntryState(state), left_s, translated }))
        };
        check(&entry(3, 30, 0x0e), known(3, 30, false));
        check(&entry(8, 9, 0x1e), known(8, 9, true));
        check(&refused(libc::ENOENT), Ok(Tracked::Absent));
        check(&refused(libc::EPERM), Err(WireError::Kernel(libc::EPERM)));
        let whole = entry(3, 30, 0);
        for length in 0..whole.len() {
            assert!(tracked(&whole[..length], 4).is_err(), "{length} bytes");
        }
        assert!(tracked(&whole, 5).is_err(), "somebody else's");
    }

    #[test]
    fn no_way_is_told_by_its_errno() {
        let check = |datagram: &[u8], expected: Result<Option<u16>, WireError>| {
            assert_eq!(no_route(datagram, 4), expected, "{datagram:?}");
        };
        let route = |kind: u8| message(NEW_ROUTE, 4, &[2, 32, 0, 0, 254, 0, 0, kind, 0, 0, 0, 0]);
        check(&route(1), Ok(None));
        check(&route(7), Ok(Some(113)));
        check(&route(8), Ok(Some(13)));
        check(&refused(101), Ok(Some(101)));
        check(&refused(113), Ok(Some(113)));
        check(&refused(libc::EINVAL), Err(WireError::Kernel(libc::EINVAL)));
        check(&[], Err(truncated("the answer", HEADER_LEN, &[])));
    }
}
