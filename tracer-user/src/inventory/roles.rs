//! Which side of a connection a socket is: what the socket table does not say and listeners tell, each network namespace
//! by its own.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use tracer_core::event::Role;
use tracer_core::inventory::Certainty;
use tracer_core::ports::PortMap;

use super::place::Place;

/// The kernel's default `net.ipv4.ip_local_port_range`.
pub(super) const DEFAULT_LOCAL_PORTS: RangeInclusive<u16> = 32_768..=60_999;

/// What tells a socket that was accepted from one that connected; the table itself does not say.
#[derive(Debug)]
pub(super) struct LocalPorts {
    /// Ports that somebody listens on.
    pub listening: HashSet<u16>,
    /// Ports that the kernel chooses for clients, `ip_local_port_range`.
    pub chosen: RangeInclusive<u16>,
}

impl LocalPorts {
    /// Which side a socket is, and whether that is sure; `None` if it is no database connection. A socket whose port has
    /// a listener was accepted, any other one connected; on one host the other end's listener tells as much. Where a
    /// listener may have closed since, a port outside `ip_local_port_range` is a server's. The rest is doubtful: some
    /// database ports (33060, 50000) lie in the default range, and all of them do in a wide one.
    pub fn role(&self, ports: &PortMap, local: SocketAddr, remote: SocketAddr) -> Option<(Role, Certainty)> {
        let is_database = |addr: SocketAddr| ports.contains(addr.port());
        let is_chosen = |addr: SocketAddr| self.chosen.contains(&addr.port());
        if self.listening.contains(&local.port()) {
            return is_database(local).then_some((Role::Server, Certainty::Sure));
        }
        let same_host = remote.ip() == local.ip() || remote.ip().is_loopback();
        if same_host && self.listening.contains(&remote.port()) {
            return is_database(remote).then_some((Role::Client, Certainty::Sure));
        }
        match (is_database(local), is_database(remote)) {
            (true, _) if !is_chosen(local) => Some((Role::Server, Certainty::Sure)),
            (_, true) if is_chosen(local) || !is_chosen(remote) => Some((Role::Client, Certainty::Sure)),
            (_, true) => Some((Role::Client, Certainty::Doubtful)),
            (true, false) => Some((Role::Server, Certainty::Doubtful)),
            (false, false) => None,
        }
    }
}

/// `net.ipv4.ip_local_port_range`; the kernel's default where it cannot be read.
pub(super) fn local_port_range(place: &Place<'_>) -> RangeInclusive<u16> {
    let parse = |bytes: Vec<u8>| {
        let text = String::from_utf8(bytes).ok()?;
        let mut ports = text.split_ascii_whitespace().map(str::parse);
        Some(ports.next()?.ok()?..=ports.next()?.ok()?)
    };
    let file = place.read("sys/net/ipv4/ip_local_port_range", 64).ok();
    file.and_then(|file| parse(file.bytes)).unwrap_or(DEFAULT_LOCAL_PORTS)
}
