//! Which connections `verify` and `reap` are about: those of a snapshot that are named by their ids or by findings.
//! Shared by both; asks and closes nothing.

use std::collections::BTreeSet;
use std::path::Path;

use tracer_core::event::Role;
use tracer_core::finding::{EvidenceValue, Finding, Status};
use tracer_core::snapshot::Connection;

use super::exit::Failure;
use crate::inventory;
use crate::probe::Wanted;

/// Where the pids of snapshots are looked up.
pub(super) const PROC: &str = "/proc";
/// Evidence of a finding that lists the clients' ports of the connections it is about; without it they are all of its
/// endpoint and pids.
const PORTS: [&str; 2] = ["local_ports", "unknown_ports"];

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
    connections: &[Connection],
    findings: &[Finding],
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
        let found = connections.iter().find(|connection| connection.id == *id);
        let none = || Failure::Input(format!("there is no connection {id:?} now: `socklife snapshot` has their ids"));
        add(found.ok_or_else(none)?, None);
    }
    for id in &named.findings {
        let found = findings.iter().find(|finding| finding.id == *id && finding.status == Status::Open);
        let none = || Failure::Input(format!("there is no open finding {id:?}: `socklife tail --json` has their ids"));
        let finding = found.ok_or_else(none)?;
        allowed(finding)?;
        for connection in connections.iter().filter(|connection| is_of(connection, finding)) {
            add(connection, Some(id));
        }
    }
    wanted.sort_by_key(|wanted| !wanted.connection.holders.is_empty());
    Ok(wanted)
}

/// Whether a finding is about a connection.
fn is_of(connection: &Connection, finding: &Finding) -> bool {
    let mut listed = finding.evidence.iter().filter_map(|evidence| match &evidence.value {
        EvidenceValue::List(ports) if PORTS.contains(&evidence.fact.as_str()) => Some(ports),
        _ => None,
    });
    let subject = &finding.subject;
    let client = match connection.role {
        Role::Client => &connection.local,
        Role::Server => &connection.remote,
    };
    let port = client.rsplit(':').next().unwrap_or_default();
    let is_listed = listed.clone().next().is_none() || listed.any(|ports| ports.iter().any(|listed| listed == port));
    is_listed
        && subject.endpoint.as_ref().is_none_or(|endpoint| *endpoint == connection.endpoint)
        && (subject.pids.is_empty() || subject.pids.iter().any(|pid| is_of_process(connection, *pid)))
}

/// Whether a process opened, closed or holds it.
pub(super) fn is_of_process(connection: &Connection, pid: u32) -> bool {
    connection.opener.as_ref().is_some_and(|opener| opener.pid == pid)
        || connection.closer_pid == Some(pid)
        || connection.holders.iter().any(|holder| holder.pid == pid)
}

#[cfg(test)]
mod tests {
    use tracer_core::finding::{Evidence, Kind, Severity, Subject};
    use tracer_core::snapshot::{HolderFd, Opener};
    use tracer_core::time::WallTime;

    use super::*;
    use crate::probe::fixture;

    fn connection(id: &str, local: &str, remote: &str, opener: u32, holder: Option<u32>) -> Connection {
        Connection {
            opener: Some(Opener { pid: opener, comm: "x".to_owned() }),
            holders: holder.map(|pid| HolderFd { pid, fd: 3 }).into_iter().collect(),
            ..fixture::connection(id, local, remote, 3, 7)
        }
    }

    fn finding(id: &str, status: Status, endpoint: Option<&str>, pids: &[u32], listed: Option<&[&str]>) -> Finding {
        let texts = |ids: &[&str]| EvidenceValue::List(ids.iter().map(|id| (*id).to_owned()).collect());
        let evidence = |ids| Evidence { fact: PORTS[0].to_owned(), value: texts(ids), unit: String::new() };
        Finding {
            id: id.to_owned(),
            kind: Kind::CloseWaitLeak,
            severity: Severity::Warning,
            confidence: 1.0,
            status,
            first_seen: WallTime { unix_ms: 0 },
            last_seen: WallTime { unix_ms: 0 },
            subject: Subject { endpoint: endpoint.map(str::to_owned), pids: pids.to_vec(), launcher_group: None },
            summary: String::new(),
            evidence: listed.map(evidence).into_iter().collect(),
            ruled_out: Vec::new(),
            related: Vec::new(),
            cause: None,
            ignored: None,
            remedy: String::new(),
            verify: String::new(),
        }
    }

    /// Ids in their order, each with the finding that named it; or the exit code's class.
    fn check(connections: &[&str], of: &[&str], expected: Result<&[(&str, Option<&str>)], &str>) {
        let all = [
            connection("held", "10.0.0.1:40000", "10.0.0.5:5432", 1, Some(1)),
            connection("passed", "10.0.0.1:40001", "10.0.0.5:5432", 1, Some(2)),
            connection("orphan", "[fd00::1]:40002", "10.0.0.5:5432", 1, None),
            connection("elsewhere", "10.0.0.1:40001", "10.0.0.6:5432", 1, Some(1)),
        ];
        let findings = [
            finding("of-1", Status::Open, Some("10.0.0.5:5432"), &[1], None),
            finding("of-2", Status::Open, None, &[2], None),
            finding("of-all", Status::Open, Some("10.0.0.6:5432"), &[], None),
            finding("of-list", Status::Open, Some("10.0.0.5:5432"), &[1], Some(&["40001", "40002"])),
            finding("over", Status::Resolved, None, &[1], None),
        ];
        let texts = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let asked = Named { connections: texts(connections), findings: texts(of) };
        let allowed = |finding: &Finding| match finding.id.as_str() {
            "of-2" => Err(Failure::Input("not that kind".to_owned())),
            _ => Ok(()),
        };
        match (named(&all, &findings, &asked, allowed), expected) {
            (Ok(wanted), Ok(expected)) => {
                let told: Vec<(&str, Option<&str>)> =
                    wanted.iter().map(|each| (each.connection.id.as_str(), each.finding.as_deref())).collect();
                assert_eq!(told, expected, "{asked:?}");
            }
            (Err(Failure::Input(sentence)), Err(part)) => assert!(sentence.contains(part), "{sentence}"),
            (told, _) => panic!("{asked:?}: {told:?}"),
        }
    }

    #[test]
    fn ids_and_findings_name_connections_once_and_orphans_come_first() {
        check(&["held", "orphan", "held"], &[], Ok(&[("orphan", None), ("held", None)]));
        let of_1 = [("orphan", Some("of-1")), ("held", Some("of-1")), ("passed", Some("of-1"))];
        check(&[], &["of-1"], Ok(&of_1));
        check(&["passed"], &["of-1"], Ok(&[("orphan", Some("of-1")), ("passed", None), ("held", Some("of-1"))]));
        check(&[], &["of-all"], Ok(&[("elsewhere", Some("of-all"))]));
        check(&[], &["of-list"], Ok(&[("orphan", Some("of-list")), ("passed", Some("of-list"))]));
    }

    #[test]
    fn what_is_not_there_or_not_allowed_is_bad_input() {
        check(&["held", "other"], &[], Err("no connection \"other\""));
        check(&[], &["over"], Err("no open finding \"over\""));
        check(&[], &["of-2"], Err("not that kind"));
    }
}
