//! What the host's own network knows of single connections: what its connection tracking has of them, and whether there is
//! a way to the peer. Asked only about connections that are idle or in trouble.

use serde::{Deserialize, Serialize};

use crate::event::Tuple;

/// What was asked about one connection, in its own network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathRow {
    /// Both ends.
    pub tuple: Tuple,
    /// What connection tracking has of it; `None` if that cannot be known.
    pub tracked: Option<Tracked>,
    /// The errno with which the kernel finds no way to the peer, if it finds none.
    pub no_route: Option<u16>,
}

/// Whether connection tracking has an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tracked {
    /// None. That says nothing of a connection that it never had one of.
    Absent,
    /// One.
    Entry(Entry),
}

/// An entry of connection tracking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What it takes the connection's state to be.
    pub state: EntryState,
    /// Seconds until it is forgotten, if nothing passes.
    pub left_s: u32,
    /// An address or a port is translated by it.
    pub translated: bool,
}

/// `enum tcp_conntrack` (`include/uapi/linux/netfilter/nf_conntrack_tcp.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryState(pub u8);

impl EntryState {
    /// Both sides have spoken, and neither has closed.
    pub const ESTABLISHED: Self = Self(3);

    /// Its name, as `conntrack -L` shows it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            0 => "NONE",
            1 => "SYN_SENT",
            2 => "SYN_RECV",
            3 => "ESTABLISHED",
            4 => "FIN_WAIT",
            5 => "CLOSE_WAIT",
            6 => "LAST_ACK",
            7 => "TIME_WAIT",
            8 => "CLOSE",
            9 => "SYN_SENT2",
            _ => "unknown",
        }
    }

    /// It takes the connection for closed, or for being closed.
    #[must_use]
    pub fn is_closing(self) -> bool {
        (4..=8).contains(&self.0)
    }
}
