//! What `match` and `--limit` take: an address, a host name, a network or a range, and ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use tracer_core::rules::Matcher;

/// Looks up HOST.
pub type Resolver = dyn Fn(&str) -> std::io::Result<Vec<IpAddr>> + Send + Sync;

/// Most addresses one name may stand for.
const ADDRS_MAX: usize = 64;
/// Longest name of a host (RFC 1035).
const HOST_CHARS_MAX: usize = 253;

/// How it may be written.
const WANTS: &str = "write IP:PORT, HOST:PORT, 10.0.0.0/8:PORT, FIRST-LAST:PORT or *:PORT, IPv6 in brackets; PORT may be 5432-5439 or *";

/// Whose endpoints a rule is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    /// These addresses.
    Addresses(Matcher),
    /// Those that a name stands for.
    Host {
        /// The name.
        name: String,
        /// First and last port.
        ports: (u16, u16),
    },
}

impl Default for Whose {
    fn default() -> Self {
        Self::Addresses(Matcher { ips: None, ports: (1, u16::MAX) })
    }
}

impl Whose {
    /// First and last port.
    #[must_use]
    pub fn ports(&self) -> (u16, u16) {
        match self {
            Self::Addresses(matcher) => matcher.ports,
            Self::Host { ports, .. } => *ports,
        }
    }

    /// Reads what the user wrote.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (host, ports) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((inside, rest)) => {
                let ports = rest.strip_prefix(':').ok_or_else(|| format!("{text:?} has no port: {WANTS}"))?;
                // Brackets are for IPv6 alone.
                if !inside.contains(':') {
                    return Err(format!("{text:?} is no address: {WANTS}"));
                }
                (inside, ports)
            }
            None => {
                let (host, ports) = text.rsplit_once(':').ok_or_else(|| format!("{text:?} has no port: {WANTS}"))?;
                if host.contains([':', '[', ']']) {
                    return Err(format!("{text:?} is no address: {WANTS}"));
                }
                (host, ports)
            }
        };
        let ports = parse_ports(ports)?;
        if host == "*" {
            return Ok(Self::Addresses(Matcher { ips: None, ports }));
        }
        if let Some(ips) = parse_ips(host)? {
            return Ok(Self::Addresses(Matcher { ips: Some(ips), ports }));
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if host.is_empty() || host.len() > HOST_CHARS_MAX || !host.chars().all(is_name) {
            return Err(format!("{text:?} is no address: {WANTS}"));
        }
        if host.chars().all(|c| c.is_ascii_digit() || c == '.') {
            return Err(format!("{host:?} is no IP address"));
        }
        Ok(Self::Host { name: host.to_ascii_lowercase(), ports })
    }
}

/// First and last address; `None` if it is a name.
fn parse_ips(text: &str) -> Result<Option<(IpAddr, IpAddr)>, String> {
    let no_address = |part: &str| format!("{part:?} is no IP address");
    if let Some((network, bits)) = text.split_once('/') {
        let ip: IpAddr = network.parse().map_err(|_| no_address(network))?;
        return network_of(ip, bits, text).map(Some);
    }
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => match (first.parse::<IpAddr>(), last.parse::<IpAddr>()) {
            (Ok(first), Ok(last)) => (first.to_canonical(), last.to_canonical()),
            (Ok(_), Err(_)) => return Err(no_address(last)),
            (Err(_), Ok(_)) => return Err(no_address(first)),
            (Err(_), Err(_)) => return Ok(None),
        },
        None => match text.parse::<IpAddr>() {
            Ok(ip) => (ip.to_canonical(), ip.to_canonical()),
            Err(_) if text.contains(':') => return Err(no_address(text)),
            Err(_) => return Ok(None),
        },
    };
    if first.is_ipv4() != last.is_ipv4() {
        return Err(format!("{text:?} goes from one family of addresses to the other"));
    }
    if first > last {
        return Err(format!("{text:?} ends before it begins: write the lower address first"));
    }
    if first == last && first.is_unspecified() {
        return Err(format!(
            "{text:?} is no address that a connection has: name the one that clients connect to, or write * for all"
        ));
    }
    Ok(Some((first, last)))
}

/// First and last address of a network.
fn network_of(ip: IpAddr, bits: &str, text: &str) -> Result<(IpAddr, IpAddr), String> {
    let width: u32 = if ip.is_ipv4() { 32 } else { 128 };
    let bits = match bits.parse::<u32>() {
        Ok(bits) if bits <= width && bits.to_string() == text.rsplit('/').next().unwrap_or_default() => bits,
        _ => return Err(format!("{text:?} is no network: after the slash comes a number from 0 to {width}")),
    };
    let host_bits = width - bits;
    let (first, last): (IpAddr, IpAddr) = match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shr(bits).unwrap_or(0);
            let number = u32::from(ip);
            (Ipv4Addr::from(number & !mask).into(), Ipv4Addr::from(number | mask).into())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shr(bits).unwrap_or(0);
            let number = u128::from(ip);
            (Ipv6Addr::from(number & !mask).into(), Ipv6Addr::from(number | mask).into())
        }
    };
    if first != ip {
        return Err(format!("{text:?} has address bits among its last {host_bits}: write {first}/{bits}"));
    }
    Ok(match (first.to_canonical(), last.to_canonical()) {
        (first @ IpAddr::V4(_), last @ IpAddr::V4(_)) => (first, last),
        _ => (first, last),
    })
}

/// `5432`, `5432-5439` or `*`.
fn parse_ports(text: &str) -> Result<(u16, u16), String> {
    if text == "*" {
        return Ok((1, u16::MAX));
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let ports = (parse_port(first)?, parse_port(last)?);
    if ports.0 > ports.1 {
        return Err(format!("ports {text:?} end before they begin: write the lower one first"));
    }
    Ok(ports)
}

/// A port, 1 to 65535.
pub(super) fn parse_port(text: &str) -> Result<u16, String> {
    match text.parse::<u16>() {
        Ok(port) if port > 0 && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(port),
        _ => Err(format!("{text:?} is no port: ports go from 1 to 65535")),
    }
}

/// Asks the name service; blocks.
pub fn resolve(host: &str) -> std::io::Result<Vec<IpAddr>> {
    let addrs = (host, 0).to_socket_addrs()?;
    let mut ips: Vec<IpAddr> = addrs.take(ADDRS_MAX).map(|addr: SocketAddr| addr.ip().to_canonical()).collect();
    ips.sort_unstable();
    ips.dedup();
    if ips.is_empty() { Err(std::io::Error::other("it has no address")) } else { Ok(ips) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_matched() {
        let check = |text: &str, first: &str, last: &str, ports: (u16, u16)| {
            let ips = Some((first.parse().unwrap(), last.parse().unwrap()));
            assert_eq!(Whose::parse(text), Ok(Whose::Addresses(Matcher { ips, ports })), "{text}");
        };
        check("10.0.0.5:5432", "10.0.0.5", "10.0.0.5", (5432, 5432));
        check("[::1]:5432", "::1", "::1", (5432, 5432));
        check("[::ffff:10.0.0.5]:5432", "10.0.0.5", "10.0.0.5", (5432, 5432));
        check("10.0.0.5:5432-5439", "10.0.0.5", "10.0.0.5", (5432, 5439));
        check("10.0.0.5-10.0.0.9:5432", "10.0.0.5", "10.0.0.9", (5432, 5432));
        check("[fd00::1-fd00::9]:5432", "fd00::1", "fd00::9", (5432, 5432));
        check("10.0.0.0/8:5432", "10.0.0.0", "10.255.255.255", (5432, 5432));
        check("10.0.0.5/32:*", "10.0.0.5", "10.0.0.5", (1, 65_535));
        check("0.0.0.0/0:5432", "0.0.0.0", "255.255.255.255", (5432, 5432));
        check("[fd00::/8]:5432", "fd00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", (5432, 5432));
        check("[::/0]:5432", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", (5432, 5432));
        check("[::ffff:10.0.0.0/104]:5432", "10.0.0.0", "10.255.255.255", (5432, 5432));
        let any = Whose::Addresses(Matcher { ips: None, ports: (5432, 5432) });
        assert_eq!(Whose::parse("*:5432"), Ok(any));
        let host = Whose::Host { name: "orders-db.example".to_owned(), ports: (5432, 5432) };
        assert_eq!(Whose::parse("Orders-DB.example:5432"), Ok(host));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (text, sentence) in [
            ("10.0.0.5", "\"10.0.0.5\" has no port: write"),
            ("[::1]", "\"[::1]\" has no port: write"),
            ("::1:5432", "\"::1:5432\" is no address: write"),
            ("[10.0.0.5]:5432", "\"[10.0.0.5]:5432\" is no address: write"),
            ("a b:5432", "\"a b:5432\" is no address: write"),
            (":5432", "\":5432\" is no address: write"),
            ("10.0.0:5432", "\"10.0.0\" is no IP address"),
            ("[fe80::1%eth0]:5432", "\"fe80::1%eth0\" is no IP address"),
            ("10.0.0.5:0", "\"0\" is no port"),
            ("10.0.0.5:+5", "\"+5\" is no port"),
            ("10.0.0.5:5439-5432", "ports \"5439-5432\" end before they begin"),
            ("10.0.0.9-10.0.0.5:5432", "\"10.0.0.9-10.0.0.5\" ends before it begins"),
            ("10.0.0.5-x:5432", "\"x\" is no IP address"),
            ("[10.0.0.5-::1]:5432", "\"10.0.0.5-::1\" goes from one family"),
            ("10.0.0.5/8:5432", "\"10.0.0.5/8\" has address bits among its last 24: write 10.0.0.0/8"),
            ("10.0.0.0/33:5432", "\"10.0.0.0/33\" is no network: after the slash comes a number from 0 to 32"),
            ("10.0.0.0/:5432", "\"10.0.0.0/\" is no network"),
            ("orders/8:5432", "\"orders\" is no IP address"),
            ("0.0.0.0:5432", "\"0.0.0.0\" is no address that a connection has"),
        ] {
            let error = Whose::parse(text).unwrap_err();
            assert!(error.starts_with(sentence), "{text}: {error}");
        }
    }
}
