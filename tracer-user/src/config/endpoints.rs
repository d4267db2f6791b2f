//! Endpoint rules: what an address in the configuration means, and how a later rule overrides an earlier one.

use std::net::{SocketAddr, ToSocketAddrs};

use super::EndpointRule;

/// Looks up HOST:PORT.
pub(super) type Resolver = dyn Fn(&str, u16) -> std::io::Result<Vec<SocketAddr>>;

/// Most addresses one name may stand for.
const ADDRS_MAX: usize = 64;

/// The name service.
pub(super) fn resolve(host: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
    (host, port).to_socket_addrs().map(|addrs| addrs.take(ADDRS_MAX).collect())
}

/// `IP:PORT`, `[v6]:PORT` or `HOST:PORT`, as sockets show it: ascending, v4-mapped as IPv4, no scope.
pub(super) fn parse_address(text: &str, resolver: &Resolver) -> Result<Vec<SocketAddr>, String> {
    let found = match text.parse::<SocketAddr>() {
        Ok(addr) => vec![addr],
        Err(_) => {
            let wants = "write IP:PORT, [IPv6]:PORT or HOST:PORT";
            let (host, port) = text.rsplit_once(':').ok_or_else(|| format!("{text:?} has no port: {wants}"))?;
            if host.is_empty() || host.contains([':', '[', ']', '/']) || host.contains(char::is_whitespace) {
                return Err(format!("{text:?} is no address: {wants}"));
            }
            let port = parse_port(port)?;
            let found = resolver(host, port)
                .map_err(|error| format!("cannot resolve {host:?} ({error}): give its IP address or fix the name"))?;
            if found.is_empty() {
                return Err(format!("{host:?} has no address: give its IP address or fix the name"));
            }
            found
        }
    };
    let mut addrs: Vec<SocketAddr> =
        found.into_iter().map(|addr| SocketAddr::new(addr.ip().to_canonical(), addr.port())).collect();
    if addrs.iter().any(|addr| addr.port() == 0) {
        return Err(format!("{text:?} has port 0: ports go from 1 to 65535"));
    }
    if addrs.iter().any(|addr| addr.ip().is_unspecified()) {
        return Err(format!("{text:?} is no address that a connection has: name the one that clients connect to"));
    }
    addrs.sort_unstable();
    addrs.dedup();
    Ok(addrs)
}

/// A port, 1 to 65535.
pub(super) fn parse_port(text: &str) -> Result<u16, String> {
    match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("{text:?} is no port: ports go from 1 to 65535")),
    }
}

/// Adds `new`: for each of its addresses what it says replaces what earlier rules said, and what it leaves open stays.
pub(super) fn overlay(rules: &mut Vec<EndpointRule>, new: &EndpointRule) {
    let mut merged: Vec<EndpointRule> = Vec::new();
    for addr in &new.addrs {
        let mut rule = EndpointRule { addrs: vec![*addr], ..new.clone() };
        if let Some(old) = rules.iter_mut().find(|old| old.addrs.contains(addr)) {
            old.addrs.retain(|other| other != addr);
            rule.name = rule.name.or_else(|| old.name.clone());
            rule.limit = rule.limit.or(old.limit);
            rule.database = rule.database.or_else(|| old.database.clone());
        }
        let alike = merged
            .iter_mut()
            .find(|other| (&other.name, other.limit, &other.database) == (&rule.name, rule.limit, &rule.database));
        match alike {
            Some(other) => other.addrs.push(*addr),
            None => merged.push(rule),
        }
    }
    rules.retain(|rule| !rule.addrs.is_empty());
    rules.append(&mut merged);
}
