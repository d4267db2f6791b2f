//! Counts for those who ask often: without a line for each connection.

use std::collections::BTreeMap;

use super::Tracker;
use crate::endpoint::Endpoint;
use crate::event::{ProcessId, Role};
use crate::tcp::TcpState;

/// Live connections of a launcher group at an endpoint, by state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOpen {
    /// The endpoint's id.
    pub endpoint: String,
    /// Whose side.
    pub role: Role,
    /// What the endpoint is.
    pub database: String,
    /// The label of the group; `None` where no process answers for the connections, or nobody knows how it was started.
    pub group: Option<String>,
    /// How many are in each state.
    pub states: BTreeMap<TcpState, u64>,
}

impl Tracker {
    /// Every live connection, counted once.
    #[must_use]
    pub fn open_by_group(&self) -> Vec<GroupOpen> {
        // By process first: sockets are many, and a process is looked up once.
        let mut by_process = BTreeMap::<(usize, Option<ProcessId>), BTreeMap<TcpState, u64>>::new();
        for socket in self.sockets() {
            let states = by_process.entry((socket.endpoint(), socket.responsible())).or_default();
            *states.entry(socket.state).or_default() += 1;
        }
        let mut by_group = BTreeMap::<(usize, Option<&str>), BTreeMap<TcpState, u64>>::new();
        for ((endpoint, id), states) in by_process {
            let label = id.and_then(|id| {
                let process = self.processes.get(&id).filter(|process| process.ended.is_none())?;
                process.identity.as_deref().map(|identity| identity.group.label.as_str())
            });
            let group = by_group.entry((endpoint, label)).or_default();
            for (state, count) in states {
                *group.entry(state).or_default() += count;
            }
        }
        let one = |((endpoint, group), states): ((usize, Option<&str>), _)| {
            let endpoint = self.endpoints.get(endpoint)?;
            Some(GroupOpen {
                endpoint: Endpoint::id(endpoint),
                role: endpoint.role,
                database: endpoint.database.clone(),
                group: group.map(str::to_owned),
                states,
            })
        };
        by_group.into_iter().filter_map(one).collect()
    }
}
