//! What the kernel says is true right now: the socket tables of all network namespaces and who holds which descriptor.
//! Gathered by `tracer-user`'s inventory, applied by the tracker.

use std::collections::BTreeMap;

mod paths;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use std::fmt;
use std::net::IpAddr;
use std::ops::{Deref, DerefMut};

use crate::event::{ProcessId, Role, Tuple};
use crate::tcp::TcpState;
use crate::time::BootNs;

pub use paths::{Entry, EntryState, PathRow, Tracked};

/// One look at the host.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Inventory {
    /// Before the first namespace was looked for.
    pub started: BootNs,
    /// After the last byte of the last table arrived (holders are read later).
    pub finished: BootNs,
    /// The tables that were read, one a namespace.
    pub tables: Vec<Table>,
    /// Namespaces (inode numbers) that are there and could not be entered or read: nothing is known of their sockets.
    pub unreachable: Vec<u32>,
    /// Namespaces that are there and were left for a later look, because they had nothing to watch at the last one.
    pub skipped: Vec<u32>,
    /// Sockets that were asked for by their inode number, and who has them open: perhaps nobody.
    pub held: BTreeMap<u64, Vec<Holder>>,
    /// Processes whose descriptors could not be read: their sockets appear without that holder.
    pub unreadable_processes: u32,
    /// /proc hides the processes of others (`hidepid`): nobody knows how many hold what.
    pub hidden_processes: bool,
    /// Database servers found listening on ports that were not watched; they are from the next look on.
    pub recognized: Vec<RecognizedPort>,
    /// Such servers found after the bound was reached, since the start; their ports are not watched.
    pub recognized_without_room: u32,
}

/// The socket table of one network namespace: every full socket with a watched port (no listeners, no TIME_WAIT, no
/// request sockets).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Table {
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Before the first byte of the dump was asked for.
    pub started: BootNs,
    /// After its last byte arrived.
    pub finished: BootNs,
    /// The sockets, in the kernel's order.
    pub sockets: Vec<SocketRow>,
    /// What the namespace does with its connections, where it has some.
    pub network: Option<Network>,
    /// What was asked about connections that are idle or in trouble.
    pub paths: Vec<PathRow>,
}

/// Routes of a namespace that are kept; a peer beyond those counts as not on its link.
pub const MOST_LINKS: usize = 64;

/// What a network namespace does with quiet connections, and who is near, as far as /proc tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// `net.ipv4.tcp_keepalive_time`: the idle time of sockets that did not choose one of their own.
    pub keepalive_idle_s: Option<u32>,
    /// `net.ipv4.tcp_keepalive_intvl`.
    pub keepalive_interval_s: Option<u32>,
    /// `net.ipv4.tcp_keepalive_probes`.
    pub keepalive_probes: Option<u32>,
    /// `net.ipv4.tcp_retries2`: time-outs before an open connection is given up.
    pub retries: Option<u32>,
    /// `net.netfilter.nf_conntrack_tcp_timeout_established`, where connections are tracked at all.
    pub conntrack_s: Option<u32>,
    /// `net.netfilter.nf_conntrack_count`: connections that are tracked.
    pub tracked: Option<u32>,
    /// `net.netfilter.nf_conntrack_max`: how many may be.
    pub tracked_most: Option<u32>,
    /// Packets that were thrown away because there was no room for their connection, since the namespace exists.
    pub untracked_drops: Option<u64>,
    /// Networks that are reached without a router: address and length of the prefix.
    pub links: Vec<(IpAddr, u8)>,
}

impl Network {
    /// Whether that address is reached without a router.
    #[must_use]
    pub fn is_near(&self, addr: IpAddr) -> bool {
        self.links.iter().any(|(network, length)| match (network, addr) {
            (IpAddr::V4(network), IpAddr::V4(addr)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(*length).min(32)).unwrap_or(0);
                network.to_bits() & mask == addr.to_bits() & mask
            }
            (IpAddr::V6(network), IpAddr::V6(addr)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(*length).min(128)).unwrap_or(0);
                network.to_bits() & mask == addr.to_bits() & mask
            }
            _ => false,
        })
    }
}

/// A look at some sockets alone, between two looks at the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Glance {
    /// Before the first was asked about.
    pub started: BootNs,
    /// After the last answer.
    pub finished: BootNs,
    /// Those that are there.
    pub sockets: Vec<GlanceRow>,
    /// What was asked about their ways.
    pub paths: Vec<PathRow>,
}

/// One socket of a [`Glance`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GlanceRow {
    /// Both ends.
    pub tuple: Tuple,
    /// The kernel's own identity of this life.
    pub cookie: u64,
    /// Its state.
    pub state: TcpState,
    /// Counters.
    pub info: SocketInfo,
}

/// A port that is watched because a database server listens on it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct RecognizedPort {
    /// The port, watched in every network namespace.
    pub port: u16,
    /// Which database, by its program.
    pub database: String,
    /// The program's file name.
    pub program: String,
    /// The process that listened when it was found.
    pub pid: u32,
    /// Inode number of the network namespace it listened in.
    pub netns: u32,
}

impl Inventory {
    /// A look that found this one namespace, and everybody readable.
    #[must_use]
    pub fn of(table: Table) -> Self {
        Self { started: table.started, finished: table.finished, tables: vec![table], ..Self::default() }
    }

    /// Every row of every table.
    pub fn sockets(&self) -> impl Iterator<Item = &SocketRow> {
        self.tables.iter().flat_map(|table| &table.sockets)
    }
}

/// One socket of the table.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
    pub holders: Holders,
}

/// What a row's role is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Certainty {
    /// The ports and listeners leave no other reading.
    Sure,
    /// The watched port may be a client's own. True only of a socket that events have told of.
    Doubtful,
}

/// `struct tcp_info` and its neighbours, as far as the kernel has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// `tcpi_probes`: keepalives or window probes without an answer.
    pub probes: u8,
    /// `tcpi_backoff`: how often the time-out was doubled.
    pub backoff: u8,
    /// `tcpi_rto`, the present time-out.
    pub rto_ms: u32,
    /// `tcpi_segs_in`: segments of the peer, whatever they were; 0 where the kernel does not count them.
    pub segments_received: u32,
    /// Which timer is armed.
    pub timer: Timer,
    /// How long until it fires.
    pub timer_ms: u32,
}

/// The timer of a socket that is armed (`idiag_timer`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Timer {
    /// None.
    #[default]
    Off,
    /// Data or a FIN waits for its acknowledgement.
    Retransmit,
    /// Keepalive, or the end of FIN_WAIT2.
    Keepalive,
    /// The peer's window is closed.
    Probe,
}

impl SocketInfo {
    /// Milliseconds since anything of the peer's was received, as far as the kernel keeps it: its bare keepalives are not
    /// in there.
    #[must_use]
    pub fn heard_ms(&self) -> u32 {
        self.last_ack_received_ms.min(self.last_data_received_ms)
    }

    /// Milliseconds that what waits for an acknowledgement has waited, at least. Each time-out took twice as long as the one
    /// before it (`tcp_retransmit_timer`, net/ipv4/tcp_timer.c), up to a limit; so the first is known by the present one.
    #[must_use]
    pub fn unacked_ms(&self) -> u32 {
        if self.unacked == 0 && self.timer != Timer::Retransmit {
            return 0;
        }
        let doubled = u32::from(self.backoff.min(self.consecutive_rtos)).min(31);
        let first = self.rto_ms.checked_shr(u32::from(self.backoff)).unwrap_or(0);
        let constant = u32::from(self.consecutive_rtos).saturating_sub(doubled);
        let passed = first.saturating_mul((1_u32 << doubled) - 1 + constant);
        match self.timer {
            Timer::Retransmit => passed.saturating_add(self.rto_ms.saturating_sub(self.timer_ms)),
            _ => passed,
        }
    }
}

/// A process that has a socket open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Holder {
    /// Who.
    pub process: ProcessId,
    /// Its lowest descriptor for the socket.
    pub fd: u32,
}

/// Who has a socket open. Nearly always one process: that one is kept in place.
#[derive(Clone)]
pub struct Holders(Held);

#[derive(Clone)]
enum Held {
    One(Holder),
    Any(Vec<Holder>),
}

impl Default for Holders {
    fn default() -> Self {
        Self(Held::Any(Vec::new()))
    }
}

impl Holders {
    /// One more.
    pub fn push(&mut self, holder: Holder) {
        match &mut self.0 {
            Held::Any(all) if all.is_empty() => self.0 = Held::One(holder),
            Held::Any(all) => all.push(holder),
            Held::One(first) => self.0 = Held::Any(vec![*first, holder]),
        }
    }
}

impl Deref for Holders {
    type Target = [Holder];

    fn deref(&self) -> &[Holder] {
        match &self.0 {
            Held::One(holder) => std::slice::from_ref(holder),
            Held::Any(all) => all,
        }
    }
}

impl DerefMut for Holders {
    fn deref_mut(&mut self) -> &mut [Holder] {
        match &mut self.0 {
            Held::One(holder) => std::slice::from_mut(holder),
            Held::Any(all) => all,
        }
    }
}

impl FromIterator<Holder> for Holders {
    fn from_iter<I: IntoIterator<Item = Holder>>(holders: I) -> Self {
        let mut all = Self::default();
        holders.into_iter().for_each(|holder| all.push(holder));
        all
    }
}

impl Serialize for Holders {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Holders {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::<Holder>::deserialize(deserializer)?.into_iter().collect())
    }
}

impl<const N: usize> PartialEq<[Holder; N]> for Holders {
    fn eq(&self, other: &[Holder; N]) -> bool {
        **self == *other
    }
}

impl fmt::Debug for Holders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_has_waited_for_all_its_time_outs() {
        let check = |rtos: u8, backoff: u8, rto_ms: u32, timer_ms: u32, expected: u32| {
            let timer = Timer::Retransmit;
            let info = SocketInfo { consecutive_rtos: rtos, backoff, rto_ms, timer_ms, timer, ..SocketInfo::default() };
            assert_eq!(info.unacked_ms(), expected, "{info:?}");
        };
        check(0, 0, 200, 150, 50);
        check(1, 1, 400, 400, 200);
        check(3, 3, 1_600, 600, 1_400 + 1_000);
        // Thin streams do not double at first.
        check(3, 1, 400, 400, 600);
        check(255, 255, u32::MAX, 0, u32::MAX);
        assert_eq!(SocketInfo { rto_ms: 200, consecutive_rtos: 3, ..SocketInfo::default() }.unacked_ms(), 0);
    }

    #[test]
    fn who_is_near_shares_a_link() {
        let network = |links: &[(&str, u8)]| Network {
            links: links.iter().map(|(addr, length)| (addr.parse().unwrap(), *length)).collect(),
            ..Network::default()
        };
        let check = |links: &[(&str, u8)], addr: &str, expected: bool| {
            assert_eq!(network(links).is_near(addr.parse().unwrap()), expected, "{links:?} {addr}");
        };
        check(&[("10.0.1.0", 24)], "10.0.1.9", true);
        check(&[("10.0.1.0", 24)], "10.0.2.9", false);
        check(&[("10.0.1.7", 32)], "10.0.1.7", true);
        check(&[("10.0.1.7", 32)], "10.0.1.6", false);
        check(&[("0.0.0.0", 0)], "10.0.2.9", true);
        check(&[("fd00::", 64), ("10.0.0.0", 8)], "fd00::1", true);
        check(&[("fd00::", 64)], "fd00:0:0:1::1", false);
        check(&[], "10.0.1.9", false);
    }

    #[test]
    fn holders_keep_one_in_place_and_any_number() {
        assert_eq!((size_of::<Holder>(), size_of::<Holders>()), (16, 24));
        let holder = |pid| Holder { process: ProcessId { pid, start_ticks: 7 }, fd: 3 };
        let mut holders = Holders::default();
        assert!(holders.is_empty());
        for pid in (1..=4).rev() {
            holders.push(holder(pid));
        }
        holders.sort_unstable();
        assert_eq!(holders, [holder(1), holder(2), holder(3), holder(4)]);
    }
}
