//! What the kernel reported, in the domain's words. Made by [`crate::decode`], consumed by the tracker.

use std::fmt;
use std::net::SocketAddr;

use crate::tcp::TcpState;
use crate::time::BootNs;

/// Which side of the connection a socket is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A client of a database.
    Client,
    /// The database's own side.
    Server,
}

/// One end of a connection inside one network namespace. Unique among live sockets, reused over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// Inode number of the network namespace.
    pub netns: u32,
    /// This end. v4-mapped IPv6 addresses are IPv4 here.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
}

impl Tuple {
    /// The database's address as this socket sees it: the remote end for a client, the local end for a server.
    #[must_use]
    pub fn database(&self, role: Role) -> SocketAddr {
        match role {
            Role::Client => self.remote,
            Role::Server => self.local,
        }
    }
}

/// A process: a pid alone is reused, a pid and its start time are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Start in clock ticks (1/100 s) of boot time: field 22 of `/proc/PID/stat`.
    pub start_ticks: u64,
}

impl ProcessId {
    /// Nanoseconds in a clock tick: the kernel's `NSEC_PER_SEC / USER_HZ`.
    pub const TICK_NS: u64 = 10_000_000;

    /// From the kernel's nanoseconds, rounded as the kernel rounds for `/proc`.
    #[must_use]
    pub fn from_boot(pid: u32, start: BootNs) -> Self {
        Self { pid, start_ticks: start.0 / Self::TICK_NS }
    }

    /// Start of the process, to the tick.
    #[must_use]
    pub fn start(&self) -> BootNs {
        BootNs(self.start_ticks.saturating_mul(Self::TICK_NS))
    }
}

/// A thread's name as the kernel has it: 15 bytes at most, any bytes. Escape it at output.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Comm(pub [u8; 16]);

impl Comm {
    /// The name up to its NUL, invalid UTF-8 replaced.
    #[must_use]
    pub fn to_text(&self) -> String {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        String::from_utf8_lossy(&self.0[..end]).into_owned()
    }
}

impl fmt::Debug for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Comm({:?})", self.to_text())
    }
}

/// A process as an event names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// Which process.
    pub id: ProcessId,
    /// Effective user id.
    pub uid: u32,
    /// The calling thread's name.
    pub comm: Comm,
}

/// What a socket event says happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SocketEventKind {
    /// A connect is under way, and has been for a while.
    Connect,
    /// ESTABLISHED reached, or found to be reached.
    Open,
    /// CLOSE_WAIT, FIN_WAIT1 or LAST_ACK reached.
    State,
    /// The kernel released the socket.
    End,
    /// A process took it off the listener's queue.
    Accept,
    /// A segment was sent again.
    Retransmit,
}

/// Counters of a socket at the moment of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bytes sent, retransmissions included.
    pub bytes_sent: u64,
    /// Bytes received and acknowledged.
    pub bytes_received: u64,
    /// Smoothed round-trip time in microseconds.
    pub srtt_us: Option<u32>,
    /// Segments sent again over the whole life.
    pub retransmits: u32,
    /// Consecutive retransmission time-outs now.
    pub consecutive_rtos: u8,
}

/// One fact about one socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketEvent {
    /// What happened.
    pub kind: SocketEventKind,
    /// When.
    pub at: BootNs,
    /// Kernel address: ties the events of one life together; reused by later lives.
    pub sk: u64,
    /// When the life began, if tracing saw it.
    pub birth: Option<BootNs>,
    /// When ESTABLISHED was reached, if tracing saw it.
    pub established: Option<BootNs>,
    /// Both ends. The local port is 0 in an [`SocketEventKind::End`] of a life whose port was never seen.
    pub tuple: Tuple,
    /// Which side.
    pub role: Role,
    /// State before.
    pub old_state: TcpState,
    /// State after.
    pub new_state: TcpState,
    /// Who opened or accepted it, if seen.
    pub opener: Option<Task>,
    /// Who closed it, if a process did and it was seen.
    pub closer: Option<ProcessId>,
    /// Inode number of the socket, once a process has it.
    pub inode: Option<u32>,
    /// `sk_err`, an errno; 0 none.
    pub error: u16,
    /// Counters now.
    pub totals: Totals,
}

/// What a process event says happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessEventKind {
    /// Started another program.
    Exec,
    /// Its last thread ended.
    Exit,
}

/// One fact about one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessEvent {
    /// What happened.
    pub kind: ProcessEventKind,
    /// When.
    pub at: BootNs,
    /// Who.
    pub task: Task,
}

/// A packet of a watched port that this host threw away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropEvent {
    /// When.
    pub at: BootNs,
    /// Where it came from.
    pub source: SocketAddr,
    /// Where it was to go.
    pub destination: SocketAddr,
    /// The running kernel's number of the reason.
    pub reason: u32,
}

/// Anything the kernel side reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// About a packet.
    Drop(DropEvent),
    /// About a socket.
    Socket(SocketEvent),
    /// About a process.
    Process(ProcessEvent),
}
