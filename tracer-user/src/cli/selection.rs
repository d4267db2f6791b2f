//! Which connections `verify` and `reap` are about: those of a snapshot that are named by their ids or by findings.
//! Shared by both; asks and closes nothing.

use std::collections::BTreeSet;
use std::path::Path;

use tracer_core::finding::{EvidenceValue, Finding, Status};
use tracer_core::snapshot::{Connection, Snapshot};

use super::exit::Failure;
use crate::inventory;
use crate::probe::Wanted;

/// Where the pids of snapshots are looked up.
pub(super) const PROC: &str = "/proc";
/// Evidence of a finding that lists the connections it is about; without it they are those of its endpoint and pids.
const CONNECTIONS: &str = "connections";

/// The words that name connections.
#[derive(Debug, clap::Args)]
pub(super) struct Named {
    /// Ids of connections, as in `socklife snapshot`
    #[arg(value_name = "CONNECTION")]
    pub connections: Vec<String>,
    /// The connections of this open finding (repeatable)
    #[arg(long = "finding", value_name = "ID")]
    pub findings: Vec<String>,
}

/// Refuses where pids would mean others than the daemon's.
pub(super) fn check_pids() -> Result<(), Failure> {
    if inventory::host_pids(Path::new(PROC)) {
        return Ok(());
    }
    let sentence = "the pids here are not the host's: run it in the host's pid namespace (--pid=host, hostPID: true)";
    Err(Failure::Unable(sentence.to_owned()))
}

/// Every connection that is named, once, those that no process holds first; each finding has to be open and `allowed`.
pub(super) fn named(
    snapshot: &Snapshot,
    named: &Named,
    allowed: impl Fn(&Finding) -> Result<(), Failure>,
) -> Result<Vec<Wanted>, Failure> {
    let mut wanted = Vec::new();
    let mut seen = BTreeSet::new();
    let mut add = |connection: &Connection, finding: Option<&str>| {
        if seen.insert(connection.id.clone()) {
            wanted.push(Wanted { connection: connection.clone(), finding: finding.map(str::to_owned) });
        }
    };
    for id in &named.connections {
        let found = snapshot.connections.iter().find(|connection| connection.id == *id);
        let none = || Failure::Input(format!("there is no connection {id:?} now: `socklife snapshot` has their ids"));
        add(found.ok_or_else(none)?, None);
    }
    for id in &named.findings {
        let found = snapshot.findings.iter().find(|finding| finding.id == *id && finding.status == Status::Open);
        let none = || Failure::Input(format!("there is no open finding {id:?}: `socklife tail --json` has their ids"));
        let finding = found.ok_or_else(none)?;
        allowed(finding)?;
        for connection in snapshot.connections.iter().filter(|connection| is_of(connection, finding)) {
            add(connection, Some(id));
        }
    }
    wanted.sort_by_key(|wanted| !wanted.connection.holders.is_empty());
    Ok(wanted)
}

/// Whether a finding is about a connection.
fn is_of(connection: &Connection, finding: &Finding) -> bool {
    let listed = finding.evidence.iter().find_map(|evidence| match &evidence.value {
        EvidenceValue::List(ids) if evidence.fact == CONNECTIONS => Some(ids),
        _ => None,
    });
    if let Some(ids) = listed {
        return ids.contains(&connection.id);
    }
    let subject = &finding.subject;
    subject.endpoint.as_ref().is_none_or(|endpoint| *endpoint == connection.endpoint)
        && (subject.pids.is_empty() || subject.pids.iter().any(|pid| is_of_process(connection, *pid)))
}

/// Whether a process opened or holds it.
pub(super) fn is_of_process(connection: &Connection, pid: u32) -> bool {
    connection.opener.as_ref().is_some_and(|opener| opener.pid == pid)
        || connection.holders.iter().any(|holder| holder.pid == pid)
}
