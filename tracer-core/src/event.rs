//! What the kernel reported, in the domain's words. Made by [`crate::decode`], consumed by the tracker.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::tcp::TcpState;
use crate::time::BootNs;

/// Which side of the connection a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A client of a database.
    Client,
    /// The database's own side.
    Server,
}

impl Role {
    /// The name in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// One end of a connection inside one network namespace. Unique among live sockets, reused over time.
///
/// There is one for every socket, event and row: kept at 40 bytes, addresses as IPv6 with IPv4 mapped into it.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u32, SocketAddr, SocketAddr)", into = "(u32, SocketAddr, SocketAddr)")]
pub struct Tuple {
    netns: u32,
    local_port: u16,
    remote_port: u16,
    local: [u8; 16],
    remote: [u8; 16],
}

impl Tuple {
    /// `netns` is the inode number of the network namespace. v4-mapped IPv6 addresses become IPv4; flow labels and
    /// scopes are not kept.
    #[must_use]
    pub fn new(netns: u32, local: SocketAddr, remote: SocketAddr) -> Self {
        let (local_port, remote_port) = (local.port(), remote.port());
        Self { netns, local_port, remote_port, local: octets(local.ip()), remote: octets(remote.ip()) }
    }

    /// Inode number of the network namespace.
    #[must_use]
    pub fn netns(&self) -> u32 {
        self.netns
    }

    /// This end.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        SocketAddr::new(Ipv6Addr::from(self.local).to_canonical(), self.local_port)
    }

    /// The other end.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        SocketAddr::new(Ipv6Addr::from(self.remote).to_canonical(), self.remote_port)
    }

    /// The database's address as this socket sees it: the remote end for a client, the local end for a server.
    #[must_use]
    pub fn database(&self, role: Role) -> SocketAddr {
        match role {
            Role::Client => self.remote(),
            Role::Server => self.local(),
        }
    }
}

impl From<Tuple> for (u32, SocketAddr, SocketAddr) {
    fn from(tuple: Tuple) -> Self {
        (tuple.netns(), tuple.local(), tuple.remote())
    }
}

impl From<(u32, SocketAddr, SocketAddr)> for Tuple {
    fn from((netns, local, remote): (u32, SocketAddr, SocketAddr)) -> Self {
        Self::new(netns, local, remote)
    }
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// By namespace, then by this end, then by the other; IPv4 before IPv6.
impl Ord for Tuple {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |tuple: &Self| (tuple.netns, tuple.local(), tuple.remote());
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for Tuple {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for Tuple {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let ports = u64::from(self.local_port) << 16 | u64::from(self.remote_port);
        state.write_u64(u64::from(self.netns) << 32 | ports);
        state.write_u128(u128::from_ne_bytes(self.local));
        state.write_u128(u128::from_ne_bytes(self.remote));
    }
}

impl fmt::Debug for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {} in {}", self.local(), self.remote(), self.netns)
    }
}

/// A process: a pid alone is reused, a pid and its start time are not. Packed: sockets and rows have several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "(u32, u64)", into = "(u32, u64)")]
#[repr(Rust, packed(4))]
pub struct ProcessId {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Start in clock ticks (1/100 s) of boot time: field 22 of `/proc/PID/stat`.
    pub start_ticks: u64,
}

impl From<ProcessId> for (u32, u64) {
    fn from(id: ProcessId) -> Self {
        (id.pid, id.start_ticks)
    }
}

impl From<(u32, u64)> for ProcessId {
    fn from((pid, start_ticks): (u32, u64)) -> Self {
        Self { pid, start_ticks }
    }
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
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Comm(pub [u8; 16]);

impl Comm {
    /// The name up to its NUL, invalid UTF-8 replaced.
    #[must_use]
    pub fn to_text(&self) -> Cow<'_, str> {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        String::from_utf8_lossy(&self.0[..end])
    }
}

impl fmt::Debug for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Comm({:?})", self.to_text())
    }
}

/// A process as an event names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Which process.
    pub id: ProcessId,
    /// Effective user id.
    pub uid: u32,
    /// The calling thread's name.
    pub comm: Comm,
}

/// What a socket event says happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

impl SocketEvent {
    /// Whether it was read from what the kernel side remembers of living sockets: such an opening tells a state, no
    /// change, and it is as old as that state.
    #[must_use]
    pub fn is_remembered(&self) -> bool {
        self.kind == SocketEventKind::Open && self.old_state == self.new_state
    }
}

/// What a process event says happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProcessEventKind {
    /// Started another program.
    Exec,
    /// Its last thread ended.
    Exit,
}

/// One fact about one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessEvent {
    /// What happened.
    pub kind: ProcessEventKind,
    /// When.
    pub at: BootNs,
    /// Who.
    pub task: Task,
    /// What it had accepted, as in [`AcceptsEvent::total`]; 0 if nothing, or if nobody counted.
    pub accepts: u64,
}

/// How many TCP connections a process has accepted on ports that are not watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptsEvent {
    /// When it was counted.
    pub at: BootNs,
    /// Whose.
    pub process: ProcessId,
    /// Since it was first watched.
    pub total: u64,
}

/// A packet of a watched port that this host threw away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// About a packet.
    Drop(DropEvent),
    /// About a socket.
    Socket(SocketEvent),
    /// About a process.
    Process(ProcessEvent),
    /// About what comes in to a process.
    Accepts(AcceptsEvent),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn tuples_are_small_and_keep_their_addresses() {
        assert_eq!(size_of::<Tuple>(), 40);
        let ends = ["10.0.0.9:1", "127.0.0.1:65535", "[::1]:5432", "[2001:db8::1]:1", "[fe80::1]:9", "0.0.0.0:0"];
        for (local, remote) in ends.iter().zip(ends.iter().rev()) {
            let tuple = Tuple::new(7, addr(local), addr(remote));
            assert_eq!((tuple.netns(), tuple.local(), tuple.remote()), (7, addr(local), addr(remote)));
        }
        let mapped = Tuple::new(7, addr("[::ffff:10.0.0.9]:1"), addr("10.0.0.5:5432"));
        assert_eq!(mapped, Tuple::new(7, addr("10.0.0.9:1"), addr("10.0.0.5:5432")));
        assert_eq!(format!("{mapped:?}"), "10.0.0.9:1 -> 10.0.0.5:5432 in 7");
    }

    #[test]
    fn tuples_sort_by_address_as_people_expect() {
        let local = ["1.0.0.1:9", "9.0.0.1:1", "10.0.0.1:1", "10.0.0.1:2", "[::1]:1", "[2001:db8::1]:1"];
        let tuples: Vec<Tuple> = local.iter().map(|local| Tuple::new(7, addr(local), addr("1.1.1.1:1"))).collect();
        assert!(tuples.is_sorted());
        assert!(tuples.iter().all(|tuple| *tuple < Tuple::new(8, addr("0.0.0.0:0"), addr("0.0.0.0:0"))));
    }
}
