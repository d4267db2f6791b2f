//! What a network namespace does with quiet connections, and which networks it reaches without a router. What
//! cannot be read is not known.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tracer_core::inventory::{MOST_LINKS, Network};

use super::place::Place;

/// Bytes of a setting.
const SETTING_BYTES: usize = 64;
/// Bytes of a list of routes that are read: some hundred lines.
const ROUTES_BYTES: usize = 64 * 1024;

/// Statistics of connection tracking that are read: a line of 160 bytes a CPU.
const STATISTICS_BYTES: usize = 128 * 1024;
/// How many connections are tracked.
const TRACKED: &str = "netfilter/nf_conntrack_count";

/// Flags of a route (`include/uapi/linux/route.h`): it is in use, it leads to a router, it forbids.
const UP: u32 = 1;
const GATEWAY: u32 = 2;
const REJECT: u32 = 0x200;

/// What is always read.
const FILES: [&str; 9] = [
    "sys/net/ipv4/tcp_keepalive_time",
    "sys/net/ipv4/tcp_keepalive_intvl",
    "sys/net/ipv4/tcp_keepalive_probes",
    "sys/net/ipv4/tcp_retries2",
    "sys/net/netfilter/nf_conntrack_count",
    "sys/net/netfilter/nf_conntrack_max",
    "thread-self/net/stat/nf_conntrack",
    "thread-self/net/route",
    "thread-self/net/ipv6_route",
];

/// Reads it.
pub(super) fn read(place: &Place<'_>) -> Network {
    place.ahead(&FILES);
    let setting = |path: &str| setting(place, path);
    let routes = |file: &str| {
        let text = place.read(&format!("thread-self/net/{file}"), ROUTES_BYTES);
        text.map_or_else(|_| String::new(), |text| String::from_utf8_lossy(&text.bytes).into_owned())
    };
    let links = links_v4(&routes("route")).into_iter().chain(links_v6(&routes("ipv6_route")));
    let tracked = setting(TRACKED);
    Network {
        keepalive_idle_s: setting("ipv4/tcp_keepalive_time"),
        keepalive_interval_s: setting("ipv4/tcp_keepalive_intvl"),
        keepalive_probes: setting("ipv4/tcp_keepalive_probes"),
        retries: setting("ipv4/tcp_retries2"),
        // The settings are there as soon as the module is; connections are tracked where some are.
        conntrack_s: tracked
            .filter(|tracked| *tracked > 0)
            .and_then(|_| setting("netfilter/nf_conntrack_tcp_timeout_established")),
        tracked,
        tracked_most: setting("netfilter/nf_conntrack_max"),
        untracked_drops: untracked_drops(place),
        links: links.take(MOST_LINKS).collect(),
    }
}

/// Whether connections are tracked here.
pub(super) fn tracks(place: &Place<'_>) -> bool {
    setting(place, TRACKED).is_some_and(|tracked| tracked > 0)
}

fn setting(place: &Place<'_>, path: &str) -> Option<u32> {
    let text = place.read(&format!("sys/net/{path}"), SETTING_BYTES).ok()?;
    String::from_utf8_lossy(&text.bytes).trim().parse().ok()
}

/// Of `/proc/net/stat/nf_conntrack`: a line of names, then one of hexadecimal numbers for each CPU. `drop` is counted when
/// there is no room for an entry (`nf_conntrack_in`).
fn untracked_drops(place: &Place<'_>) -> Option<u64> {
    let text = place.read("thread-self/net/stat/nf_conntrack", STATISTICS_BYTES).ok()?;
    let text = String::from_utf8_lossy(&text.bytes);
    let mut lines = text.lines();
    let column = lines.next()?.split_ascii_whitespace().position(|name| name == "drop")?;
    let dropped = |line: &str| u64::from_str_radix(line.split_ascii_whitespace().nth(column)?, 16).ok();
    Some(lines.filter_map(dropped).sum())
}

/// Of `/proc/net/route`: addresses are words of the kernel's memory in hexadecimal.
fn links_v4(text: &str) -> Vec<(IpAddr, u8)> {
    let link = |line: &str| -> Option<(IpAddr, u8)> {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let mut word = |skip: usize| u32::from_str_radix(fields.nth(skip)?, 16).ok();
        let (network, _gateway, flags) = (word(0)?, word(0)?, word(0)?);
        let mask = word(3)?;
        let length = u8::try_from(mask.count_ones()).ok()?;
        let is_link = flags & (UP | GATEWAY | REJECT) == UP && length > 0;
        is_link.then(|| (Ipv4Addr::from(network.to_ne_bytes()).into(), length))
    };
    text.lines().skip(1).filter_map(link).collect()
}

/// Of `/proc/net/ipv6_route`: destination, length, source, length, next hop, metric, counts, flags, device.
fn links_v6(text: &str) -> Vec<(IpAddr, u8)> {
    let link = |line: &str| -> Option<(IpAddr, u8)> {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [network, length, _, _, _, _, _, _, flags, ..] = fields.as_slice() else { return None };
        let network = Ipv6Addr::from(u128::from_str_radix(network, 16).ok()?);
        let length = u8::from_str_radix(length, 16).ok()?;
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let is_link = flags & (UP | GATEWAY | REJECT) == UP && length > 0;
        is_link.then_some((network.into(), length))
    };
    text.lines().filter_map(link).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn links_are_the_routes_without_a_router() {
        let header = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
        let word = |ip: &str| format!("{:08X}", u32::from_ne_bytes(ip.parse::<Ipv4Addr>().unwrap().octets()));
        let line = |to: &str, via: &str, flags: &str, mask: &str| {
            format!("eth0\t{}\t{}\t{flags}\t0\t0\t0\t{}\t0\t0\t0\n", word(to), word(via), word(mask))
        };
        let text = [
            header.to_owned(),
            line("0.0.0.0", "10.0.1.1", "0003", "0.0.0.0"),
            line("10.0.1.0", "0.0.0.0", "0001", "255.255.255.0"),
            line("10.9.0.0", "10.0.1.1", "0003", "255.255.0.0"),
            line("192.0.2.7", "0.0.0.0", "0005", "255.255.255.255"),
            line("198.51.100.0", "0.0.0.0", "0201", "255.255.255.0"),
            "tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0\n".to_owned(),
            "cut\t00".to_owned(),
        ]
        .concat();
        let expected = [("10.0.1.0", 24), ("192.0.2.7", 32)].map(|(ip, length)| (ip.parse().unwrap(), length));
        assert_eq!(links_v4(&text), expected);
    }

    #[test]
    fn links_of_ipv6() {
        let zero = "0".repeat(32);
        let line = |to: &str, length: &str, via: &str, flags: &str| {
            format!("{to} {length} {zero} 00 {via} 00000100 00000001 00000000 {flags}     eth0\n")
        };
        let net = "fd000000000000010000000000000000";
        let text = [
            line(net, "40", &zero, "00000001"),
            line(&zero, "00", "fd000000000000010000000000000001", "00000003"),
            line(&zero, "00", &zero, "00200200"),
            "garbage\n".to_owned(),
        ]
        .concat();
        assert_eq!(links_v6(&text), [("fd00:0:0:1::".parse().unwrap(), 64)]);
    }

    #[test]
    fn settings_are_read_and_connections_are_tracked_where_some_are() {
        let root = tempfile::tempdir().unwrap();
        let read = || read(&Place::here(root.path()));
        assert_eq!(read(), Network::default());
        let set = |path: &str, text: &str| {
            let path = root.path().join("sys/net").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        set("ipv4/tcp_keepalive_time", "7200\n");
        set("ipv4/tcp_keepalive_intvl", "75\n");
        set("ipv4/tcp_keepalive_probes", "9\n");
        set("ipv4/tcp_retries2", "-1\n");
        set("netfilter/nf_conntrack_count", "0\n");
        set("netfilter/nf_conntrack_tcp_timeout_established", "432000\n");
        let known = Network {
            keepalive_idle_s: Some(7_200),
            keepalive_interval_s: Some(75),
            keepalive_probes: Some(9),
            tracked: Some(0),
            ..Network::default()
        };
        assert_eq!(read(), known);
        set("netfilter/nf_conntrack_count", "3\n");
        set("netfilter/nf_conntrack_max", "262144\n");
        let statistics = "entries  found new drop early_drop\n00000002  00000000 00000000 00000010 00000001\n\
                          00000002  00000000 00000000 00000002 00000000\n";
        let dir = root.path().join("thread-self/net/stat");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("nf_conntrack"), statistics).unwrap();
        let tracks = Network {
            conntrack_s: Some(432_000),
            tracked: Some(3),
            tracked_most: Some(262_144),
            untracked_drops: Some(18),
            ..known
        };
        assert_eq!(read(), tracks);
    }
}
