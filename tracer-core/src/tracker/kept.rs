//! What of a tracker outlives the daemon, and how it comes back: after the first look, so that what that look finds is not
//! taken for newly opened.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Parting, Tracker};
use crate::endpoint::Place;
use crate::event::{ProcessId, Role, Tuple};
use crate::state::{AccountState, EndpointState, State};
use crate::time::BootNs;

/// Courses that wait for the first look.
#[derive(Debug, Default)]
pub(super) struct Kept {
    endpoints: BTreeMap<(Option<Place>, Role), EndpointState>,
    accounts: BTreeMap<(ProcessId, Option<Place>, Role), AccountState>,
    partings: Vec<(Tuple, Parting)>,
}

impl Tracker {
    /// What is worth keeping, in a stable order.
    #[must_use]
    pub fn keep(&self, boot_id: &str, now: BootNs) -> State {
        let endpoints = self.endpoints.iter().map(|endpoint| EndpointState {
            place: endpoint.place,
            role: endpoint.role,
            open_peak: endpoint.open_peak,
            in_use_peak: endpoint.in_use_peak,
            series: endpoint.series.clone(),
            spells: endpoint.spells.iter().copied().collect(),
        });
        let accounts = self.processes.values().filter(|process| process.ended.is_none()).flat_map(|process| {
            process.accounts.iter().filter_map(|(endpoint, account)| {
                let endpoint = self.endpoints.get(*endpoint)?;
                Some(AccountState {
                    process: process.id,
                    place: endpoint.place,
                    role: endpoint.role,
                    in_use_peak: account.in_use_peak,
                    history: Arc::clone(account.history.as_ref()?),
                })
            })
        });
        let mut partings: Vec<(Tuple, Parting)> = self.partings().map(|(tuple, parting)| (*tuple, *parting)).collect();
        partings.sort_unstable_by_key(|(tuple, _)| *tuple);
        State {
            boot_id: boot_id.to_owned(),
            saved_at: now,
            endpoints: endpoints.collect(),
            accounts: accounts.collect(),
            findings: Vec::new(),
            partings,
        }
    }

    /// Goes on from there with the first look. Call it before anything is applied; what does not fit is left out.
    pub fn go_on_from(&mut self, state: &State) {
        let endpoints = state.endpoints.iter().filter(|endpoint| endpoint.series.is_sound());
        let accounts = state.accounts.iter().filter(|account| account.history.is_sound(self.window));
        self.kept = Kept {
            endpoints: endpoints.map(|endpoint| ((endpoint.place, endpoint.role), endpoint.clone())).collect(),
            accounts: accounts.map(|of| ((of.process, of.place, of.role), of.clone())).collect(),
            partings: state.partings.clone(),
        };
    }

    /// The first look is applied: what it found goes on where it was.
    pub(super) fn resume(&mut self, now: BootNs) {
        let mut kept = std::mem::take(&mut self.kept);
        self.take_partings(kept.partings);
        for process in self.processes.values_mut() {
            for (index, account) in &mut process.accounts {
                let Some(endpoint) = self.endpoints.get(*index) else { continue };
                let key = (process.id, endpoint.place, endpoint.role);
                let Some(before) = kept.accounts.remove(&key) else { continue };
                let open = account.open_u32();
                account.in_use_peak = account.in_use_peak.max(before.in_use_peak);
                if let Some(history) = &mut account.history {
                    *history = before.history;
                    Arc::make_mut(history).resume(now, open);
                }
            }
        }
        for endpoint in &mut self.endpoints {
            let Some(before) = kept.endpoints.remove(&(endpoint.place, endpoint.role)) else { continue };
            endpoint.open_peak = endpoint.open_peak.max(before.open_peak);
            endpoint.in_use_peak = endpoint.in_use_peak.max(before.in_use_peak);
            endpoint.resume(before.series, before.spells, now);
        }
    }
}
