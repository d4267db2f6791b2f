//! A database as one side of this host sees it.

mod inferred;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::event::{DropEvent, ProcessId, Role, Tuple};
use crate::history::Life;
use crate::series::Series;
use crate::snapshot::Limit;
use crate::time::BootNs;

/// Failed attempts remembered one by one.
const FAILURES_KEPT: usize = 256;

/// Spells of hang-ups remembered.
const SPELLS_KEPT: usize = 16;
/// Hang-ups further apart are of two spells.
const SPELL_QUIET: Duration = Duration::from_secs(5);

/// A connection that the database ends sooner than this, with little said, was turned away.
const TURNED_AWAY_WITHIN: Duration = Duration::from_secs(1);
/// Most that a PostgreSQL server says to turn a client away; a login that succeeds gets more.
const TURNED_AWAY_BYTES: u64 = 256;
/// Databases whose sessions only the client ends: there a hang-up after few words is an error.
const CLIENT_ENDS: [&str; 3] = ["postgres", "pgbouncer", "cockroachdb"];

/// Why a connect came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Never established: an errno, or 0 if the client gave up waiting or nobody told.
    Error(u16),
    /// Established, and the database hung up at once.
    HungUp,
}

/// A connect that came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// When it was over.
    pub at: BootNs,
    /// Why.
    pub why: Why,
    /// Who tried.
    pub by: Option<ProcessId>,
    /// Both ends.
    pub tuple: Tuple,
}

/// Hang-ups in quick succession.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spell {
    /// The first.
    pub from: BootNs,
    /// The last.
    pub until: BootNs,
    /// How many.
    pub hang_ups: u32,
    /// Fewest open just after one.
    pub low: u32,
    /// Fewest open since the spell before, or since this was first seen.
    pub fell_to: u32,
}

/// A packet between a client and the database that this host threw away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// When.
    pub at: BootNs,
    /// The client's end.
    pub client: SocketAddr,
    /// The kernel's number of the reason.
    pub reason: u32,
}

/// Packets that are remembered one by one.
const DROPPED_KEPT: usize = 256;

/// Reasons for throwing packets away that are told apart.
const DROP_REASONS_KEPT: usize = 256;

/// Where a database is. A loopback address means another database in each network namespace; any other address is
/// taken for the same one wherever it is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// Its address.
    pub addr: SocketAddr,
    /// Inode number of the network namespace, for a loopback address outside the observer's own.
    pub netns: Option<u32>,
}

impl Place {
    /// The place of `addr` as seen in `netns` by an observer at `home`. Without a home namespaces are not told apart.
    #[must_use]
    pub fn new(addr: SocketAddr, netns: u32, home: Option<u32>) -> Self {
        let elsewhere = addr.ip().is_loopback() && home.is_some_and(|home| home != netns);
        Self { addr, netns: elsewhere.then_some(netns) }
    }
}

impl From<SocketAddr> for Place {
    fn from(addr: SocketAddr) -> Self {
        Self { addr, netns: None }
    }
}

impl fmt::Display for Place {
    /// `IP:PORT`, or `IP:PORT@netns:INODE`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.netns {
            None => write!(f, "{}", self.addr),
            Some(netns) => write!(f, "{}@netns:{netns}", self.addr),
        }
    }
}

/// Counts of one endpoint.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Where the database is; `None` for the one that gathers what exceeds the bound.
    pub place: Option<Place>,
    /// This host's side.
    pub role: Role,
    /// Configured name.
    pub name: Option<String>,
    /// Which database.
    pub database: String,
    /// The most it takes, if somebody told.
    pub limit: Option<Limit>,
    /// Open now.
    pub open: u32,
    /// Most open at once.
    pub open_peak: u32,
    /// Most seen in use at one look.
    pub in_use_peak: u32,
    /// Seen open, those found at start included.
    pub opened_total: u64,
    /// Of those, gone.
    pub closed_total: u64,
    /// Attempts that failed.
    pub failed_total: u64,
    /// The latest attempts that came to nothing, oldest first, those included that the database took and hung up on.
    pub failures: VecDeque<Failure>,
    /// When the database hung up on clients lately, oldest first.
    pub spells: VecDeque<Spell>,
    /// Fewest open since the last of these.
    low_since: u32,
    /// Packets from or to it that this host threw away, by the kernel's reason: how many, and when the last.
    pub drops: BTreeMap<u32, (u64, BootNs)>,
    /// The latest of them, oldest first.
    pub dropped: VecDeque<Dropped>,
    /// The longest silence after which the other side was heard of again: the network remembers connections for so long.
    pub silence_survived: Duration,
    /// Counts over time.
    pub series: Series,
}

impl Endpoint {
    pub(crate) fn new(place: Option<Place>, role: Role, database: String) -> Self {
        Self {
            place,
            role,
            name: None,
            database,
            limit: None,
            open: 0,
            open_peak: 0,
            in_use_peak: 0,
            opened_total: 0,
            closed_total: 0,
            failed_total: 0,
            failures: VecDeque::new(),
            spells: VecDeque::new(),
            low_since: 0,
            drops: BTreeMap::new(),
            dropped: VecDeque::new(),
            silence_survived: Duration::ZERO,
            series: Series::default(),
        }
    }

    /// Its place in text, or `other`.
    #[must_use]
    pub fn id(&self) -> String {
        self.place.map_or_else(|| "other".to_owned(), |place| place.to_string())
    }

    /// The configured name, else the id.
    #[must_use]
    pub fn display_name(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.id())
    }

    /// The most it takes: as it was told, else as it shows from where clients were turned away.
    #[must_use]
    pub fn known_limit(&self, now: BootNs) -> Option<Limit> {
        self.limit.or_else(|| inferred::limit(self, now))
    }

    pub(crate) fn count_opened(&mut self, at: BootNs) {
        self.series.opened(at, self.open);
        self.open = self.open.saturating_add(1);
        self.open_peak = self.open_peak.max(self.open);
        self.opened_total += 1;
    }

    pub(crate) fn count_closed(&mut self, at: BootNs) {
        self.series.closed(at, self.open);
        self.open = self.open.saturating_sub(1);
        self.low_since = self.low_since.min(self.open);
        self.closed_total += 1;
    }

    pub(crate) fn count_failed(&mut self, at: BootNs, error: u16, by: Option<ProcessId>, tuple: Tuple) {
        self.failed_total += 1;
        self.series.failed(at, self.open);
        self.remember(Failure { at, why: Why::Error(error), by, tuple });
    }

    /// A client's connection that was taken and hung up on; it is counted as closed already.
    pub(crate) fn count_hung_up(&mut self, at: BootNs, by: Option<ProcessId>, tuple: Tuple) {
        self.series.hung_up(at, self.open);
        self.remember(Failure { at, why: Why::HungUp, by, tuple });
        match self.spells.back_mut() {
            Some(spell) if at.since(spell.until) <= SPELL_QUIET => {
                spell.until = spell.until.max(at);
                spell.hang_ups = spell.hang_ups.saturating_add(1);
                spell.low = spell.low.min(self.open);
            }
            _ => {
                if self.spells.len() == SPELLS_KEPT {
                    self.spells.pop_front();
                }
                let (low, fell_to) = (self.open, self.low_since);
                self.spells.push_back(Spell { from: at, until: at, hang_ups: 1, low, fell_to });
            }
        }
        self.low_since = self.open;
    }

    /// What was kept of the time before the daemon was restarted goes before what happened since.
    pub(crate) fn resume(&mut self, series: Series, spells: Vec<Spell>, now: BootNs) {
        self.series = series;
        self.series.advance(now, self.open);
        self.low_since = self.open;
        for spell in spells.into_iter().rev() {
            if self.spells.len() < SPELLS_KEPT {
                self.spells.push_front(spell);
            }
        }
    }

    fn remember(&mut self, failure: Failure) {
        if self.failures.len() == FAILURES_KEPT {
            self.failures.pop_front();
        }
        self.failures.push_back(failure);
    }

    /// Whether the database turned the client of this life away. Where the protocol lets a server end a session, only one
    /// where one of the two never spoke counts.
    #[must_use]
    pub fn turned_away(&self, life: &Life) -> bool {
        let Some((sent, received)) = life.bytes else { return false };
        // The kernel counts a FIN as a byte received.
        let mute = sent == 0 || received <= 1;
        let little = CLIENT_ENDS.contains(&self.database.as_str()) || mute;
        life.ended_by_peer
            && life.lasted.is_some_and(|lasted| lasted <= TURNED_AWAY_WITHIN)
            && received <= TURNED_AWAY_BYTES
            && little
    }

    pub(crate) fn count_drop(&mut self, event: &DropEvent) {
        let DropEvent { at, source, destination, reason } = *event;
        if self.dropped.len() == DROPPED_KEPT {
            self.dropped.pop_front();
        }
        let is_answer = self.place.is_some_and(|place| place.addr == source);
        self.dropped.push_back(Dropped { at, client: if is_answer { destination } else { source }, reason });
        // The kernel side tells of a bounded set of reasons; a record that says otherwise is not worth room.
        if self.drops.len() < DROP_REASONS_KEPT || self.drops.contains_key(&reason) {
            let (packets, last) = self.drops.entry(reason).or_insert((0, at));
            *packets += 1;
            *last = at.max(*last);
        }
    }

    /// Attempts that came to nothing since `since`, as far as they are remembered.
    #[must_use]
    pub fn failed_since(&self, since: BootNs) -> usize {
        self.failures.iter().filter(|failure| failure.at >= since).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple() -> Tuple {
        Tuple::new(7, "10.0.0.9:40000".parse().unwrap(), "10.0.0.5:5432".parse().unwrap())
    }

    #[test]
    fn a_client_is_turned_away_when_the_database_ends_what_has_hardly_begun() {
        let check = |database: &str, ms: u64, bytes: (u64, u64), by_peer: bool, expected: bool| {
            let endpoint = Endpoint::new(None, Role::Client, database.to_owned());
            let lasted = Some(Duration::from_millis(ms));
            let life = Life { lasted, bytes: Some(bytes), ended_by_peer: by_peer };
            assert_eq!(endpoint.turned_away(&life), expected, "{database} {ms} {bytes:?} {by_peer}");
        };
        check("postgres", 3, (85, 93), true, true);
        check("postgres", 3, (85, 93), false, false);
        check("postgres", 3, (85, 400), true, false);
        check("postgres", 30_000, (85, 93), true, false);
        check("mysql", 3, (0, 24), true, true);
        check("mysql", 3, (90, 170), true, false);
        check("mongodb", 3, (300, 1), true, true);
        check("redis", 3, (14, 12), true, false);
        assert!(!Endpoint::new(None, Role::Client, "postgres".to_owned()).turned_away(&Life::UNSEEN));
    }

    #[test]
    fn hang_ups_gather_in_spells_and_failures_are_bounded() {
        let mut endpoint = Endpoint::new(None, Role::Client, "postgres".to_owned());
        endpoint.open = 9;
        for second in [1, 2, 4, 20, 21] {
            endpoint.count_hung_up(BootNs(second * 1_000_000_000), None, tuple());
            endpoint.open -= 1;
        }
        let spells: Vec<_> = endpoint.spells.iter().map(|spell| (spell.hang_ups, spell.low)).collect();
        assert_eq!(spells, [(3, 7), (2, 5)]);
        for minute in 1..1_000 {
            endpoint.count_hung_up(BootNs(minute * 60_000_000_000), None, tuple());
        }
        assert_eq!((endpoint.spells.len(), endpoint.failures.len()), (SPELLS_KEPT, FAILURES_KEPT));
        assert_eq!(endpoint.failed_total, 0, "they were established");
    }

    #[test]
    fn loopback_elsewhere_is_another_database() {
        let check = |addr: &str, netns: u32, home: Option<u32>, expected: &str| {
            assert_eq!(Place::new(addr.parse().unwrap(), netns, home).to_string(), expected);
        };
        check("127.0.0.1:5432", 7, Some(7), "127.0.0.1:5432");
        check("127.0.0.1:5432", 8, Some(7), "127.0.0.1:5432@netns:8");
        check("127.8.0.1:5432", 8, Some(7), "127.8.0.1:5432@netns:8");
        check("[::1]:5432", 8, Some(7), "[::1]:5432@netns:8");
        check("10.0.0.5:5432", 8, Some(7), "10.0.0.5:5432");
        check("127.0.0.1:5432", 8, None, "127.0.0.1:5432");
    }
}
