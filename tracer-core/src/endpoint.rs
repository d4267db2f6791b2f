//! A database as one side of this host sees it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::event::Role;
use crate::series::Series;
use crate::snapshot::Limit;
use crate::time::BootNs;

/// Failed attempts remembered by time.
const FAILURES_KEPT: usize = 256;

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
    /// The most it takes.
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
    /// When the latest attempts failed, oldest first.
    pub failures: VecDeque<BootNs>,
    /// Packets from or to it that this host threw away, by the kernel's reason: how many, and when the last.
    pub drops: BTreeMap<u32, (u64, BootNs)>,
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
            drops: BTreeMap::new(),
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

    pub(crate) fn count_opened(&mut self, at: BootNs) {
        self.series.opened(at, self.open);
        self.open = self.open.saturating_add(1);
        self.open_peak = self.open_peak.max(self.open);
        self.opened_total += 1;
    }

    pub(crate) fn count_closed(&mut self, at: BootNs) {
        self.series.closed(at, self.open);
        self.open = self.open.saturating_sub(1);
        self.closed_total += 1;
    }

    pub(crate) fn count_failed(&mut self, at: BootNs) {
        self.failed_total += 1;
        if self.failures.len() == FAILURES_KEPT {
            self.failures.pop_front();
        }
        self.failures.push_back(at);
    }

    pub(crate) fn count_drop(&mut self, reason: u32, at: BootNs) {
        // The kernel side tells of a bounded set of reasons; a record that says otherwise is not worth room.
        if self.drops.len() < DROP_REASONS_KEPT || self.drops.contains_key(&reason) {
            let (packets, last) = self.drops.entry(reason).or_insert((0, at));
            *packets += 1;
            *last = at.max(*last);
        }
    }

    /// Attempts that failed since `since`, as far as they are remembered.
    #[must_use]
    pub fn failed_since(&self, since: BootNs) -> usize {
        self.failures.iter().filter(|at| **at >= since).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
