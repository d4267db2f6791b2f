//! A process that opened, accepted or holds a watched socket.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::event::{Comm, ProcessId};
use crate::history::{History, Life};
use crate::identity::{Ancestor, Identity};
use crate::inbound::Inbound;
use crate::time::BootNs;

/// Counts of one process on one endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Seen open, those found at start included.
    pub opened_total: u64,
    /// Of those, gone.
    pub closed_total: u64,
    /// Attempts that failed.
    pub failed_total: u64,
    /// Most open at once.
    pub open_peak: u32,
    /// Most seen in use at one look.
    pub in_use_peak: u32,
    /// Last byte either way on any of them.
    pub last_active: Option<BootNs>,
    /// Open when the process ended.
    pub open_at_end: u64,
    /// Its course over time; a client's only, and only while there is room. Shared with a state that is being written: what
    /// changes meanwhile is copied first.
    pub history: Option<Arc<History>>,
}

impl Account {
    /// Opened by it and not gone.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.opened_total.saturating_sub(self.closed_total)
    }

    /// The same as far as a history can tell it.
    #[must_use]
    pub fn open_u32(&self) -> u32 {
        u32::try_from(self.open()).unwrap_or(u32::MAX)
    }

    pub(crate) fn history_mut(&mut self) -> Option<&mut History> {
        self.history.as_mut().map(Arc::make_mut)
    }

    pub(crate) fn count_opened(&mut self, at: BootNs) {
        let open = self.open_u32();
        if let Some(history) = self.history_mut() {
            history.opened(at, open);
        }
        self.opened_total += 1;
        self.open_peak = self.open_peak.max(self.open_u32());
    }

    pub(crate) fn count_closed(&mut self, at: BootNs, life: Life) {
        let open = self.open_u32();
        if let Some(history) = self.history_mut() {
            history.closed(at, open, life);
        }
        self.closed_total += 1;
    }
}

/// Who started a process that has another parent now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Parents up to init, nearest first.
    pub ancestors: Vec<Ancestor>,
    /// See [`Identity::master`].
    pub master: Option<u32>,
}

/// One process.
#[derive(Clone, Debug)]
pub struct Process {
    /// Which.
    pub id: ProcessId,
    /// Its name as the first event had it.
    pub comm: Option<Comm>,
    /// Its user as the first event had it.
    pub uid: Option<u32>,
    /// What /proc said, once it was read.
    pub identity: Option<Box<Identity>>,
    /// Its parent ended after it was read, and another process has adopted it.
    pub lost_parent: bool,
    /// Its parents before that.
    pub origin: Option<Box<Origin>>,
    /// When it ended, if it did.
    pub ended: Option<BootNs>,
    /// Counts by endpoint index.
    pub accounts: BTreeMap<usize, Account>,
    /// What it accepted on ports that are not watched; nothing is known yet, or there was nothing, without one.
    pub inbound: Option<Box<Inbound>>,
    /// Number of the last look that found it holding a socket.
    pub seen_look: u32,
}

impl Process {
    pub(crate) fn new(id: ProcessId) -> Self {
        Self {
            id,
            comm: None,
            uid: None,
            identity: None,
            lost_parent: false,
            origin: None,
            ended: None,
            accounts: BTreeMap::new(),
            inbound: None,
            seen_look: 0,
        }
    }

    /// Its parent's pid, if it is known.
    #[must_use]
    pub fn ppid(&self) -> Option<u32> {
        self.identity.as_deref()?.ppid
    }

    /// Who started it, nearest first, whoever its parents are now.
    #[must_use]
    pub fn starters(&self) -> &[Ancestor] {
        let now = self.identity.as_deref().map(|identity| &identity.ancestors);
        self.origin.as_deref().map(|origin| &origin.ancestors).or(now).map_or(&[], Vec::as_slice)
    }

    /// The master that started it, if one did: a worker stays one when its master is gone.
    #[must_use]
    pub fn master(&self) -> Option<u32> {
        match self.origin.as_deref() {
            Some(origin) => origin.master,
            None => self.identity.as_deref()?.master,
        }
    }

    /// Its name: /proc's if it was read, else the event's, else unknown.
    #[must_use]
    pub fn name(&self) -> String {
        match (&self.identity, self.comm) {
            (Some(identity), _) => identity.comm.clone(),
            (None, Some(comm)) => comm.to_text().into_owned(),
            (None, None) => String::new(),
        }
    }

    /// What people call it: its launcher group's label, else its name.
    #[must_use]
    pub fn label(&self) -> String {
        match &self.identity {
            Some(identity) if !identity.group.label.is_empty() => identity.group.label.clone(),
            _ => Some(self.name()).filter(|name| !name.is_empty()).unwrap_or_else(|| "an unnamed process".to_owned()),
        }
    }

    /// Whether anything booked on it is still open.
    #[must_use]
    pub fn has_open(&self) -> bool {
        self.accounts.values().any(|account| account.open() > 0)
    }
}
