//! What the kernel says is true right now: the socket table and who holds which descriptor. Gathered by
//! `tracer-user`'s inventory, applied by the tracker.

use std::fmt;
use std::ops::{Deref, DerefMut};

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
    pub holders: Holders,
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
