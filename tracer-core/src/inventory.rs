//! What the kernel says is true right now: the socket table and who holds which descriptor. Gathered by
//! `tracer-user`'s inventory, applied by the tracker.

use crate::event::{ProcessId, Role, Tuple};
use crate::tcp::TcpState;
use crate::time::BootNs;

/// One look at the socket table of one network namespace, every full socket with a watched port (no listeners, no
/// TIME_WAIT, no request sockets).
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// Before the first byte of the dump was asked for.
    pub started: BootNs,
    /// After the last byte of the dump arrived (holders are read later).
    pub finished: BootNs,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// The sockets, in the kernel's order.
    pub sockets: Vec<SocketRow>,
    /// Processes whose descriptors could not be read: their sockets appear without that holder.
    pub unreadable_processes: u32,
}

/// One socket of the table.
#[derive(Clone, Debug)]
pub struct SocketRow {
    /// Both ends.
    pub tuple: Tuple,
    /// Which side.
    pub role: Role,
    /// Whether it is a database connection at all, and that side of it, as far as the table tells.
    pub certainty: Certainty,
    /// Its state; never LISTEN, TIME_WAIT or CLOSE.
    pub state: TcpState,
    /// Owner's user id.
    pub uid: u32,
    /// Inode of the socket; 0 when no process holds it any more.
    pub inode: u64,
    /// The kernel's own identity of this life (`SO_COOKIE`).
    pub cookie: u64,
    /// Counters, if the kernel gave them.
    pub info: Option<SocketInfo>,
    /// Who has it open now.
    pub holders: Vec<Holder>,
}

/// What a row's role is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// The ports and listeners leave no other reading.
    Sure,
    /// The watched port may be a client's own. True only of a socket that events have told of.
    Doubtful,
}

/// `struct tcp_info` and its neighbours, as far as the kernel has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketInfo {
    /// `tcpi_bytes_sent`, or `tcpi_bytes_acked` where that is missing.
    pub bytes_sent: u64,
    /// `tcpi_bytes_received` less the one that the kernel counts for the peer's FIN.
    pub bytes_received: u64,
    /// `tcpi_rtt`; `None` before the first measurement.
    pub srtt_us: Option<u32>,
    /// `tcpi_total_retrans`.
    pub retransmits: u32,
    /// `tcpi_retransmits`.
    pub consecutive_rtos: u8,
    /// `tcpi_unacked`, segments.
    pub unacked: u32,
    /// `tcpi_last_data_sent`, milliseconds ago.
    pub last_data_sent_ms: u32,
    /// `tcpi_last_data_recv`, milliseconds ago.
    pub last_data_received_ms: u32,
    /// `tcpi_last_ack_recv`, milliseconds ago.
    pub last_ack_received_ms: u32,
    /// Keepalive on, as far as the armed timer tells; `None` while another timer hides it.
    pub keepalive: Option<bool>,
}

/// A process that has a socket open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder {
    /// Who.
    pub process: ProcessId,
    /// Its lowest descriptor for the socket.
    pub fd: u32,
}
