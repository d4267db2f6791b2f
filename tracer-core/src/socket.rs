//! One life of one socket.

use crate::event::{Comm, ProcessId, Role, Tuple};
use crate::inventory::{Holder, SocketInfo};
use crate::tcp::TcpState;
use crate::time::BootNs;

/// What is known of when a life began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Began {
    /// Established at this moment; seen.
    At(BootNs),
    /// Already there at this moment.
    Before(BootNs),
}

impl Began {
    /// The moment itself, or the latest it can be.
    #[must_use]
    pub fn moment(self) -> BootNs {
        match self {
            Self::At(at) | Self::Before(at) => at,
        }
    }
}

/// A look that did not see a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Absence {
    /// When the look began.
    pub since: BootNs,
    /// Whether events were known to be lost then.
    pub after_loss: bool,
}

/// Who opened or accepted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opener {
    /// Which process.
    pub id: ProcessId,
    /// The calling thread's name at that moment.
    pub comm: Comm,
}

/// A live socket.
#[derive(Clone, Debug)]
pub struct Socket {
    /// Both ends.
    pub tuple: Tuple,
    /// Which side.
    pub role: Role,
    /// Index of its endpoint in the tracker.
    pub endpoint: usize,
    /// TCP state.
    pub state: TcpState,
    /// When it got there, or the first time it was seen there.
    pub state_since: Began,
    /// When it began.
    pub began: Began,
    /// First moment anything was known of it.
    pub first_seen: BootNs,
    /// Last event about it; an older look at the socket table knows less.
    pub last_event: BootNs,
    /// Kernel address, once an event told.
    pub sk: Option<u64>,
    /// The kernel's identity of this life, once the socket table told.
    pub cookie: Option<u64>,
    /// Inode number, once an event or the table told; like the cookie it tells lives apart.
    pub inode: Option<u32>,
    /// Who opened or accepted it.
    pub opener: Option<Opener>,
    /// The process its counts are booked on: the opener, or the first holder seen.
    pub account: Option<ProcessId>,
    /// Who has it open, at the last look.
    pub holders: Vec<Holder>,
    /// Who closed it, once it is on its way out.
    pub closer: Option<ProcessId>,
    /// Counters at the last look.
    pub info: Option<SocketInfo>,
    /// When that look was.
    pub info_at: BootNs,
    /// Segments sent again, from an event newer than the last look.
    pub retransmits: u32,
    /// Number of the last look that saw it.
    pub look: u64,
    /// The first of the latest looks in a row that did not see it.
    pub absent: Option<Absence>,
}

impl Socket {
    /// A life of which no more is known than where it is, its state, and when it began.
    pub(crate) fn new(place: (Tuple, Role, usize), state: TcpState, began: Began, first_seen: BootNs) -> Self {
        let (tuple, role, endpoint) = place;
        Self {
            tuple,
            role,
            endpoint,
            state,
            state_since: began,
            began,
            first_seen,
            last_event: BootNs(0),
            sk: None,
            cookie: None,
            inode: None,
            opener: None,
            account: None,
            holders: Vec::new(),
            closer: None,
            info: None,
            info_at: BootNs(0),
            retransmits: 0,
            look: 0,
            absent: None,
        }
    }

    /// Past its handshake and not gone.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state.is_open()
    }

    /// The process that answers for it now: the opener while it still holds it or nobody is known to, else the holder
    /// with the lowest pid.
    #[must_use]
    pub fn responsible(&self) -> Option<ProcessId> {
        let opener = self.opener.map(|opener| opener.id);
        match (opener, self.holders.first()) {
            (Some(opener), Some(_)) if self.holders.iter().any(|holder| holder.process == opener) => Some(opener),
            (_, Some(first)) => Some(first.process),
            (opener, None) => opener,
        }
    }

    /// Last byte either way, as far as the last look told.
    #[must_use]
    pub fn last_active(&self) -> Option<BootNs> {
        self.info.map(|info| {
            let ago_ms = info.last_data_sent_ms.min(info.last_data_received_ms);
            self.info_at.minus(std::time::Duration::from_millis(u64::from(ago_ms)))
        })
    }

    /// A request is out and its answer is not in, at the last look: bytes sent after the last received, or data not
    /// acknowledged. The other way round on the database's side.
    #[must_use]
    pub fn in_use(&self) -> bool {
        self.info.is_some_and(|info| {
            let pending = match self.role {
                Role::Client => info.bytes_sent > 0 && info.last_data_sent_ms < info.last_data_received_ms,
                Role::Server => info.bytes_received > 0 && info.last_data_received_ms < info.last_data_sent_ms,
            };
            pending || info.unacked > 0
        })
    }
}
