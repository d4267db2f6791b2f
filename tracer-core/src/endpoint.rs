//! A database as one side of this host sees it.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use crate::event::Role;
use crate::series::Series;
use crate::snapshot::Limit;
use crate::time::BootNs;

/// Failed attempts remembered by time.
const FAILURES_KEPT: usize = 256;

/// Reasons for throwing packets away that are told apart.
const DROP_REASONS_KEPT: usize = 256;

/// Counts of one endpoint.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Address of the database; `None` for the one that gathers what exceeds the bound.
    pub addr: Option<SocketAddr>,
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
    pub(crate) fn new(addr: Option<SocketAddr>, role: Role, database: String) -> Self {
        Self {
            addr,
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

    /// `IP:PORT`.
    #[must_use]
    pub fn id(&self) -> String {
        self.addr.map_or_else(|| "other".to_owned(), |addr| addr.to_string())
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
