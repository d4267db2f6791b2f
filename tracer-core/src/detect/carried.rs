//! Findings that were open when the daemon was restarted: what can still be told of them while they do not show. A restart
//! loses when connections began and who opened them; what each holds, and when it last said a byte, the kernel knows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::survey::Held;
use super::{Context, Verdict};
use crate::endpoint::Endpoint;
use crate::event::Role;
use crate::finding::EvidenceValue;
use crate::time::BootNs;
use crate::tracker::Tracker;

/// A verdict from before the restart.
pub struct Carried<'a> {
    /// What was true.
    pub(super) verdict: &'a Verdict,
    /// Since when, and when last.
    pub(super) first_seen: BootNs,
    pub(super) last_seen: BootNs,
    /// Since when everything that one look can tell is known again.
    pub(super) sighted: BootNs,
    /// Index of its endpoint, if that is in sight.
    pub(super) endpoint: Option<usize>,
}

impl Carried<'_> {
    /// Whether everything has been in sight for less than that.
    pub(super) fn is_within(&self, context: &Context<'_>, time: Duration) -> bool {
        context.now.since(self.sighted) < time
    }

    /// What its processes hold at its endpoint now.
    fn held<'c>(&self, context: &Context<'c>) -> impl Iterator<Item = &'c Held<'c>> {
        let survey = context.survey;
        let pids = self.verdict.subject.pids.iter().copied();
        let at = move |pid| self.endpoint.into_iter().flat_map(move |endpoint| survey.held_by_pid(pid, endpoint));
        pids.flat_map(at)
    }

    /// How many these are.
    pub(super) fn open(&self, context: &Context<'_>) -> i64 {
        i64::try_from(self.held(context).count()).unwrap_or(i64::MAX)
    }

    /// Nothing was said on it since the finding was last true.
    fn is_unused(&self, held: &Held<'_>) -> bool {
        !held.in_use && held.last_active.is_some_and(|at| at <= self.last_seen)
    }

    /// How many of them have not been used since then.
    pub(super) fn unused(&self, context: &Context<'_>) -> i64 {
        i64::try_from(self.held(context).filter(|held| self.is_unused(held)).count()).unwrap_or(i64::MAX)
    }

    /// Whether of the connections that it lists half or more are open and have not been used since then; where it names no
    /// process, they are nobody's still.
    pub(super) fn lie_unused(&self, context: &Context<'_>) -> bool {
        let Some(EvidenceValue::List(listed)) = self.verdict.fact("local_ports") else { return false };
        let listed: BTreeSet<u16> = listed.iter().filter_map(|port| port.parse().ok()).collect();
        let lies = |held: &&Held<'_>| listed.contains(&held.port) && self.is_unused(held);
        let nobodys = context.survey.unknown().iter();
        let nobodys = nobodys
            .filter(|held| self.verdict.subject.pids.is_empty() && Some(held.socket.endpoint()) == self.endpoint);
        let unused = self.held(context).chain(nobodys).filter(lies).count();
        unused > 0 && unused * 2 >= listed.len()
    }
}

/// The clients' side of each endpoint, by its id.
pub(super) fn places(tracker: &Tracker) -> BTreeMap<String, usize> {
    let clients = tracker.endpoints().iter().enumerate().filter(|(_, endpoint)| endpoint.role == Role::Client);
    clients.map(|(index, endpoint): (usize, &Endpoint)| (endpoint.id(), index)).collect()
}

/// Whether all is known that one look can tell: what is open, who holds it, and who these are. /proc may stay silent on some.
pub(super) fn is_in_sight(context: &Context<'_>, since_look: Duration) -> bool {
    const ASKED_WITHIN: Duration = Duration::from_secs(30);
    since_look >= ASKED_WITHIN || context.living().all(|holding| holding.process.identity.is_some())
}
