//! What the kernel says is true right now: the socket table (sock_diag) and who holds which descriptor (/proc), in
//! the calling thread's own network namespace.
//!
//! Gathers, judges nothing: matching sockets to what events told is the tracker's work. The root of /proc is handed in.

mod dirents;
pub mod holders;
mod host;
mod inet_diag;
mod netns;
mod port_filter;
mod sock_diag;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use tracer_core::event::{Role, Tuple};
use tracer_core::inventory::{Certainty, Holders, Inventory, SocketRow};
use tracer_core::ports::PortMap;
use tracer_core::time::BootNs;

use crate::process::files::read_bounded;

pub use host::host;
pub use inet_diag::WireError;
pub use netns::own_netns;
pub use sock_diag::MAX_SOCKETS;

/// The kernel's default `net.ipv4.ip_local_port_range`.
const DEFAULT_LOCAL_PORTS: RangeInclusive<u16> = 32_768..=60_999;

/// What to look for, and where.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Ports that make a socket interesting, on either end.
    pub ports: &'a PortMap,
    /// Where /proc is mounted.
    pub proc_root: &'a Path,
    /// Whether to look up who holds each socket.
    pub with_holders: bool,
}

/// Why the kernel's view could not be had.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// A call on the netlink socket failed.
    #[error("cannot {step}: {source}")]
    Netlink {
        /// What was tried.
        step: &'static str,
        /// The kernel's reason.
        source: std::io::Error,
    },
    /// The kernel's answer makes no sense, or is an error.
    #[error("socket table: {0}")]
    Wire(#[from] WireError),
    /// The request left in part; sock_diag takes it whole or not at all.
    #[error("sent {sent} of {of} bytes of the sock_diag request")]
    ShortRequest {
        /// Bytes sent.
        sent: usize,
        /// Bytes of the request.
        of: usize,
    },
    /// The table changed under every attempt.
    #[error("the socket table changed under each of {attempts} dumps")]
    Interrupted {
        /// How many dumps were tried.
        attempts: u32,
    },
    /// More watched sockets than one look takes.
    #[error("more than {most} sockets have a watched port")]
    TooManySockets {
        /// The bound.
        most: usize,
    },
    /// A file below /proc that has to be there cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Proc {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file below /proc does not have the kernel's format.
    #[error("{} is not what the kernel writes", path.display())]
    ProcFormat {
        /// Which.
        path: PathBuf,
    },
}

/// One look: the socket table between two readings of `now`, then the holders if asked for.
pub fn collect(request: &Request<'_>, now: impl Fn() -> BootNs) -> Result<Inventory, InventoryError> {
    let netns = own_netns(request.proc_root)?;
    let filter = port_filter::PortFilter::new(request.ports);
    let local_ports =
        LocalPorts { listening: sock_diag::listening_ports()?, chosen: local_port_range(request.proc_root) };
    let role = |local: SocketAddr, remote: SocketAddr| local_ports.role(request.ports, local, remote);

    let started = now();
    let rows = sock_diag::dump(&filter, |row| role(row.local, row.remote).is_some())?;
    let finished = now();

    let sockets = rows.into_iter().filter_map(|row| {
        let (role, certainty) = role(row.local, row.remote)?;
        Some(SocketRow {
            role,
            certainty,
            tuple: Tuple::new(netns, row.local, row.remote),
            state: row.state,
            uid: row.uid,
            inode: u64::from(row.inode),
            cookie: row.cookie,
            info: row.info,
            holders: Holders::default(),
        })
    });
    let mut inventory = Inventory { started, finished, netns, sockets: sockets.collect(), unreadable_processes: 0 };
    if request.with_holders {
        add_holders(&mut inventory, request.proc_root)?;
    }
    Ok(inventory)
}

/// Looks up who holds the sockets of `inventory`.
fn add_holders(inventory: &mut Inventory, proc_root: &Path) -> Result<(), InventoryError> {
    let rows: HashMap<u64, usize> = inventory
        .sockets
        .iter()
        .enumerate()
        .filter(|(_, socket)| socket.inode != 0)
        .map(|(row, socket)| (socket.inode, row))
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    let found = holders::find(proc_root, |inode| rows.contains_key(&inode))?;
    inventory.unreadable_processes = found.unreadable_processes;
    for (inode, holder) in found.holders {
        if let Some(socket) = rows.get(&inode).and_then(|row| inventory.sockets.get_mut(*row)) {
            socket.holders.push(holder);
        }
    }
    Ok(())
}

/// What tells a socket that was accepted from one that connected; the table itself does not say.
struct LocalPorts {
    /// Ports that somebody listens on.
    listening: HashSet<u16>,
    /// Ports that the kernel chooses for clients, `ip_local_port_range`.
    chosen: RangeInclusive<u16>,
}

impl LocalPorts {
    /// Which side a socket is, and whether that is sure; `None` if it is no database connection. A socket whose port has
    /// a listener was accepted, any other one connected; on one host the other end's listener tells as much. Where a
    /// listener may have closed since, a port outside `ip_local_port_range` is a server's. The rest is doubtful: some
    /// database ports (33060, 50000) lie in the default range, and all of them do in a wide one.
    fn role(&self, ports: &PortMap, local: SocketAddr, remote: SocketAddr) -> Option<(Role, Certainty)> {
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

/// `net.ipv4.ip_local_port_range` of this namespace; the kernel's default where it cannot be read.
fn local_port_range(proc_root: &Path) -> RangeInclusive<u16> {
    let parse = |bytes: Vec<u8>| {
        let text = String::from_utf8(bytes).ok()?;
        let mut ports = text.split_ascii_whitespace().map(str::parse);
        Some(ports.next()?.ok()?..=ports.next()?.ok()?)
    };
    let file = read_bounded(&proc_root.join("sys/net/ipv4/ip_local_port_range"), 64).ok();
    file.and_then(|file| parse(file.bytes)).unwrap_or(DEFAULT_LOCAL_PORTS)
}

#[cfg(test)]
mod tests;
