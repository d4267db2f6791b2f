//! One life of one socket. A host may have hundreds of thousands at once, so what is kept of each is packed: times as
//! one word, identities without padding, one holder in place.

use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use crate::event::{Comm, ProcessId, Role, Tuple};
use crate::inventory::{Holders, SocketInfo, Timer};
use crate::tcp::TcpState;
use crate::time::BootNs;

/// Most memory that the tracker spends on a live connection with one holder, in bytes: the socket and its places in the
/// indexes.
pub const BYTES_PER_CONNECTION: usize = 280;

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

/// A [`Began`] in one word: the top bit says `Before`. Boot time needs 63 bits after 292 years.
#[derive(Clone, Copy, Debug)]
struct PackedBegan(u64);

impl PackedBegan {
    const BEFORE: u64 = 1 << 63;
}

impl From<Began> for PackedBegan {
    fn from(began: Began) -> Self {
        let ns = began.moment().0.min(Self::BEFORE - 1);
        match began {
            Began::At(_) => Self(ns),
            Began::Before(_) => Self(ns | Self::BEFORE),
        }
    }
}

impl From<PackedBegan> for Began {
    fn from(PackedBegan(word): PackedBegan) -> Self {
        let at = BootNs(word & !PackedBegan::BEFORE);
        if word & PackedBegan::BEFORE == 0 { Self::At(at) } else { Self::Before(at) }
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

/// What is kept of a look's [`SocketInfo`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Smoothed round-trip time in microseconds.
    pub srtt_us: Option<NonZeroU32>,
    /// Segments sent and not acknowledged.
    pub unacked: u32,
    /// Milliseconds since data was sent.
    pub last_data_sent_ms: u32,
    /// Milliseconds since data was received.
    pub last_data_received_ms: u32,
    /// Consecutive retransmission time-outs.
    pub consecutive_rtos: u8,
    /// Keepalive on, if known.
    pub keepalive: Option<bool>,
    /// Keepalives or window probes without an answer.
    pub probes: u8,
    /// Which timer is armed.
    pub timer: Timer,
    /// Milliseconds that what waits for an acknowledgement has waited, at least.
    pub unacked_ms: u32,
    /// Milliseconds since anything came from the peer.
    pub heard_ms: u32,
    /// Segments of the peer.
    pub segments_received: u32,
}

impl Counters {
    /// What a look tells, so many milliseconds after the one `before`. The kernel does not keep when the peer's own
    /// keepalives came, but it counts them: what came since the look before may have come just now.
    #[must_use]
    pub fn new(info: &SocketInfo, before: Option<(Self, u32)>) -> Self {
        let told = info.heard_ms();
        let heard_ms = match before {
            Some((before, passed_ms)) => {
                let unheard_ms = before.heard_ms.saturating_add(passed_ms);
                let came = before.segments_received != info.segments_received;
                if came && told >= unheard_ms { 0 } else { told.min(unheard_ms) }
            }
            None => told,
        };
        Self {
            bytes_sent: info.bytes_sent,
            bytes_received: info.bytes_received,
            srtt_us: info.srtt_us.and_then(NonZeroU32::new),
            unacked: info.unacked,
            last_data_sent_ms: info.last_data_sent_ms,
            last_data_received_ms: info.last_data_received_ms,
            consecutive_rtos: info.consecutive_rtos,
            keepalive: info.keepalive,
            probes: info.probes,
            timer: info.timer,
            unacked_ms: info.unacked_ms(),
            heard_ms,
            segments_received: info.segments_received,
        }
    }

    /// Something waits for an answer that is overdue.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.consecutive_rtos > 0 || self.probes > 0
    }
}

/// A live socket.
#[derive(Clone, Debug)]
pub struct Socket {
    /// Both ends.
    pub tuple: Tuple,
    /// Which side.
    pub role: Role,
    /// TCP state.
    pub state: TcpState,
    endpoint: u32,
    state_since: PackedBegan,
    began: PackedBegan,
    /// First moment anything was known of it.
    pub first_seen: BootNs,
    /// Last event about it; an older look at the socket table knows less.
    pub last_event: BootNs,
    /// Kernel address, once an event told; only the tracker's index of addresses changes it.
    pub(crate) sk: Option<NonZeroU64>,
    /// The kernel's identity of this life, once the socket table told.
    pub cookie: Option<NonZeroU64>,
    /// Inode number, once an event or the table told; like the cookie it tells lives apart.
    pub inode: Option<NonZeroU32>,
    /// Who opened or accepted it.
    pub opener: Option<Opener>,
    /// The process its counts are booked on: the opener, or the first holder seen.
    pub account: Option<ProcessId>,
    /// Who has it open, at the last look, by pid.
    pub holders: Holders,
    /// Looks in a row that found nobody holding it.
    pub unheld_looks: u8,
    /// Counters at the last look.
    pub counters: Option<Counters>,
    /// When that look was.
    pub counters_at: BootNs,
    /// Segments sent again, the most that an event or a look told.
    pub retransmits: u32,
    /// Number of the last look that saw it.
    pub look: u32,
    /// It began when it was first seen or later: which is not known any more.
    pub(crate) doubted: bool,
    /// A look told its inode number.
    pub(crate) inode_seen: bool,
    /// A look found it open, and no event has told of it yet.
    pub(crate) unannounced: bool,
    /// As a [`Began`]: `Before` for an absence after a loss; 0 for none.
    absent: PackedBegan,
}

impl Socket {
    /// A life of which no more is known than where it is, its state, and when it began.
    pub(crate) fn new(place: (Tuple, Role, usize), state: TcpState, began: Began, first_seen: BootNs) -> Self {
        let (tuple, role, endpoint) = place;
        Self {
            tuple,
            role,
            // Endpoints are bounded far below this.
            endpoint: u32::try_from(endpoint).unwrap_or(u32::MAX),
            state,
            state_since: began.into(),
            began: began.into(),
            first_seen,
            last_event: BootNs(0),
            sk: None,
            cookie: None,
            inode: None,
            opener: None,
            account: None,
            holders: Holders::default(),
            unheld_looks: 0,
            counters: None,
            counters_at: BootNs(0),
            retransmits: 0,
            look: 0,
            doubted: false,
            inode_seen: false,
            unannounced: false,
            absent: PackedBegan(0),
        }
    }

    /// Index of its endpoint in the tracker.
    #[must_use]
    pub fn endpoint(&self) -> usize {
        self.endpoint as usize
    }

    /// When it began.
    #[must_use]
    pub fn began(&self) -> Began {
        self.began.into()
    }

    pub(crate) fn set_began(&mut self, began: Began) {
        self.began = began.into();
    }

    /// When it got to its state, or the first time it was seen there.
    #[must_use]
    pub fn state_since(&self) -> Began {
        self.state_since.into()
    }

    pub(crate) fn set_state(&mut self, state: TcpState, since: Began) {
        self.state = state;
        self.state_since = since.into();
    }

    /// The first of the latest looks in a row that did not see it.
    #[must_use]
    pub fn absent(&self) -> Option<Absence> {
        let PackedBegan(word) = self.absent;
        let after_loss = matches!(self.absent.into(), Began::Before(_));
        (word != 0).then(|| Absence { since: Began::from(self.absent).moment(), after_loss })
    }

    pub(crate) fn set_absent(&mut self, absent: Option<Absence>) {
        self.absent = match absent {
            // Without a loss since the boot itself would read as none: no look is that old.
            Some(Absence { since, after_loss: false }) => Began::At(since).into(),
            Some(Absence { since, after_loss: true }) => Began::Before(since).into(),
            None => PackedBegan(0),
        };
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
        self.counters.map(|counters| {
            let ago_ms = counters.last_data_sent_ms.min(counters.last_data_received_ms);
            self.counters_at.minus(Duration::from_millis(u64::from(ago_ms)))
        })
    }

    /// When the peer was last heard of, as far as the last look told.
    #[must_use]
    pub fn heard_at(&self) -> Option<BootNs> {
        let ago = self.counters.map(|counters| Duration::from_millis(u64::from(counters.heard_ms)))?;
        Some(self.counters_at.minus(ago))
    }

    /// This side has closed, and the peer has not acknowledged it.
    #[must_use]
    pub fn is_parting(&self) -> bool {
        matches!(self.state, TcpState::FinWait1 | TcpState::LastAck | TcpState::Closing)
    }

    /// Takes in what a look at `at` told.
    pub(crate) fn take_counters(&mut self, info: &SocketInfo, at: BootNs) {
        let passed = u32::try_from(at.since(self.counters_at).as_millis()).unwrap_or(u32::MAX);
        self.retransmits = self.retransmits.max(info.retransmits);
        self.counters = Some(Counters::new(info, self.counters.map(|before| (before, passed))));
        self.counters_at = at;
    }

    /// A request is out and its answer is not in, at the last look: bytes sent after the last received, or data not
    /// acknowledged. The other way round on the database's side.
    #[must_use]
    pub fn in_use(&self) -> bool {
        self.counters.is_some_and(|seen| {
            let pending = match self.role {
                Role::Client => seen.bytes_sent > 0 && seen.last_data_sent_ms < seen.last_data_received_ms,
                Role::Server => seen.bytes_received > 0 && seen.last_data_received_ms < seen.last_data_sent_ms,
            };
            pending || seen.unacked > 0
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_times_keep_what_they_say() {
        for moment in [0, 1, 1 << 62, (1 << 63) - 1] {
            for began in [Began::At(BootNs(moment)), Began::Before(BootNs(moment))] {
                assert_eq!(Began::from(PackedBegan::from(began)), began);
            }
        }
    }

    #[test]
    fn the_peers_own_keepalives_are_heard_though_the_kernel_does_not_keep_when() {
        let info = |segments_received: u32, ago_ms: u32| SocketInfo {
            segments_received,
            last_ack_received_ms: ago_ms,
            last_data_received_ms: ago_ms + 5,
            ..SocketInfo::default()
        };
        let check = |before: Option<(u32, u32, u32)>, now: (u32, u32), expected: u32| {
            let before = before.map(|(segments, ago, passed)| (Counters::new(&info(segments, ago), None), passed));
            assert_eq!(Counters::new(&info(now.0, now.1), before).heard_ms, expected, "{before:?} {now:?}");
        };
        check(None, (7, 4_000), 4_000);
        check(Some((7, 4_000, 1_000)), (7, 5_000), 5_000);
        check(Some((7, 4_000, 1_000)), (9, 200), 200);
        check(Some((7, 4_000, 1_000)), (8, 5_000), 0);
        // A kernel that counts neither.
        check(Some((0, 0, 1_000)), (0, 0), 0);
    }

    #[test]
    fn a_socket_is_small() {
        assert!(size_of::<Option<Socket>>() <= 256, "{} bytes", size_of::<Option<Socket>>());
    }
}
