//! Which sockets are watched: by port, in both roles, and by network namespace.

use crate::maps::{PORTS, netns};

/// Whether the port belongs to a database.
#[inline(always)]
pub fn watched(port: u16) -> bool {
    match PORTS.get(u32::from(port >> 6)) {
        Some(bits) => bits & (1 << (port & 63)) != 0,
        None => false,
    }
}

/// Whether sockets of this network namespace are watched.
#[inline(always)]
pub fn watched_netns(inum: u32) -> bool {
    let only = netns();
    only == 0 || only == inum
}
