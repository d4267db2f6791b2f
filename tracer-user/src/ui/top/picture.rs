//! What the daemon answered, and the ways through it: names, severities, who belongs to what.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;
use tracer_core::event::Role;
use tracer_core::finding::{Finding, Kind, Severity};
use tracer_core::snapshot::{Capture, Connection, Endpoint, Host, LauncherGroup, Process, ProcessConnections, Series};
use tracer_core::time::WallTime;

/// The answer of `/v1/overview`.
#[derive(Clone, Debug, Deserialize)]
pub struct Overview {
    pub captured_at: WallTime,
    pub host: Host,
    pub capture: Capture,
    pub endpoints: Vec<Endpoint>,
    pub processes: Vec<Process>,
    pub launcher_groups: Vec<LauncherGroup>,
    pub findings: Vec<Finding>,
}

/// The answer of `/v1/connections`.
#[derive(Clone, Debug, Deserialize)]
pub struct Connections {
    pub captured_at: WallTime,
    pub connections: Vec<Connection>,
}

/// Which connections are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    pub pid: Option<u32>,
    pub endpoint: Option<String>,
}

impl Query {
    /// What to ask the daemon. Connections as the daemon knows them: nothing is looked up for it.
    pub fn target(&self) -> String {
        let mut target = "/v1/connections?fresh=false".to_owned();
        if let Some(pid) = self.pid {
            target.push_str(&format!("&pid={pid}"));
        }
        if let Some(endpoint) = &self.endpoint {
            target.push_str("&endpoint=");
            for byte in endpoint.bytes() {
                if byte.is_ascii_alphanumeric() || byte == b'.' {
                    target.push(char::from(byte));
                } else {
                    target.push_str(&format!("%{byte:02X}"));
                }
            }
        }
        target
    }
}

/// What the user asked to see alone, at start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Only {
    pub pids: Vec<u32>,
    pub endpoints: Vec<String>,
    pub kinds: Vec<Kind>,
}

impl Only {
    pub fn pid(&self, pid: u32) -> bool {
        self.pids.is_empty() || self.pids.contains(&pid)
    }

    pub fn endpoint(&self, id: &str) -> bool {
        self.endpoints.is_empty() || self.endpoints.iter().any(|each| each == id)
    }

    pub fn process(&self, process: &Process) -> bool {
        self.pid(process.pid)
            && (self.endpoints.is_empty() || process.connections.iter().any(|each| self.endpoint(&each.endpoint)))
    }

    pub fn connection(&self, connection: &Connection) -> bool {
        let by =
            || connection.opener.iter().map(|opener| opener.pid).chain(connection.holders.iter().map(|each| each.pid));
        self.endpoint(&connection.endpoint) && (self.pids.is_empty() || by().any(|pid| self.pid(pid)))
    }

    pub fn finding(&self, finding: &Finding) -> bool {
        let subject = &finding.subject;
        (self.pids.is_empty() || subject.pids.iter().any(|pid| self.pid(*pid)))
            && (self.endpoints.is_empty() || subject.endpoint.as_ref().is_some_and(|id| self.endpoint(id)))
            && (self.kinds.is_empty() || self.kinds.contains(&finding.kind))
    }

    /// In words, for the breadcrumb; nothing if everything is shown.
    pub fn words(&self) -> Option<String> {
        let pids = self.pids.iter().map(|pid| format!("pid {pid}"));
        let kinds = self.kinds.iter().map(|kind| kind.name().to_owned());
        let words: Vec<String> = pids.chain(self.endpoints.iter().cloned()).chain(kinds).collect();
        (!words.is_empty()).then(|| format!("only {}", words.join(", ")))
    }
}

/// One moment, with its indexes.
#[derive(Clone, Debug)]
pub struct Picture {
    pub overview: Overview,
    pub connections: Option<(Query, Connections)>,
    /// Worst severity of what is open about each, by endpoint id, group id and pid.
    about_endpoints: HashMap<String, Severity>,
    about_groups: HashMap<String, Severity>,
    about_pids: HashMap<u32, Severity>,
    /// Places in `overview.processes`, by pid; of two with one pid the one that lives.
    processes: HashMap<u32, usize>,
    /// Places in `overview.endpoints`, by id: both roles have one name.
    endpoints: HashMap<String, usize>,
}

impl Picture {
    pub fn new(overview: Overview) -> Self {
        let mut picture = Self {
            overview,
            connections: None,
            about_endpoints: HashMap::new(),
            about_groups: HashMap::new(),
            about_pids: HashMap::new(),
            processes: HashMap::new(),
            endpoints: HashMap::new(),
        };
        for (at, endpoint) in picture.overview.endpoints.iter().enumerate() {
            picture.endpoints.insert(endpoint.id.clone(), at);
        }
        for (at, process) in picture.overview.processes.iter().enumerate() {
            if process.alive || !picture.processes.contains_key(&process.pid) {
                picture.processes.insert(process.pid, at);
            }
        }
        for finding in picture.overview.findings.iter().filter(|finding| finding.ignored.is_none()) {
            let worse = |old: &mut Severity| *old = (*old).max(finding.severity);
            if let Some(id) = &finding.subject.endpoint {
                picture.about_endpoints.entry(id.clone()).and_modify(worse).or_insert(finding.severity);
            }
            if let Some(id) = &finding.subject.launcher_group {
                picture.about_groups.entry(id.clone()).and_modify(worse).or_insert(finding.severity);
            }
            for pid in &finding.subject.pids {
                picture.about_pids.entry(*pid).and_modify(worse).or_insert(finding.severity);
            }
        }
        picture
    }

    /// The connections that were fetched last.
    pub fn connection_list(&self) -> &[Connection] {
        self.connections.as_ref().map_or(&[], |(_, answer)| &answer.connections)
    }

    pub fn connection(&self, id: &str) -> Option<&Connection> {
        self.connection_list().iter().find(|connection| connection.id == id)
    }

    pub fn endpoint(&self, id: &str, role: Role) -> Option<&Endpoint> {
        self.overview.endpoints.iter().find(|endpoint| endpoint.id == id && endpoint.role == role)
    }

    /// What people call an endpoint.
    pub fn endpoint_name<'a>(&'a self, id: &'a str) -> &'a str {
        let endpoint = self.endpoints.get(id).and_then(|at| self.overview.endpoints.get(*at));
        endpoint.map_or(id, |endpoint| &endpoint.name)
    }

    pub fn group(&self, id: &str) -> Option<&LauncherGroup> {
        self.overview.launcher_groups.iter().find(|group| group.id == id)
    }

    pub fn process(&self, pid: u32) -> Option<&Process> {
        self.processes.get(&pid).and_then(|at| self.overview.processes.get(*at))
    }

    pub fn finding(&self, id: &str) -> Option<&Finding> {
        self.overview.findings.iter().find(|finding| finding.id == id)
    }

    pub fn endpoint_severity(&self, id: &str) -> Option<Severity> {
        self.about_endpoints.get(id).copied()
    }

    /// Of the group and of its members.
    pub fn group_severity(&self, group: &LauncherGroup) -> Option<Severity> {
        let members = group.pids.iter().filter_map(|pid| self.about_pids.get(pid));
        members.chain(self.about_groups.get(&group.id)).max().copied()
    }

    pub fn pid_severity(&self, pid: u32) -> Option<Severity> {
        self.about_pids.get(&pid).copied()
    }

    /// How many findings are open, the worst first, without those that the configuration says not to tell.
    pub fn severities(&self, only: &Only) -> [(Severity, usize); 3] {
        [Severity::Critical, Severity::Warning, Severity::Info].map(|severity| {
            let is =
                |finding: &&Finding| finding.severity == severity && finding.ignored.is_none() && only.finding(finding);
            (severity, self.overview.findings.iter().filter(is).count())
        })
    }
}

/// What people call a process: the script that an interpreter runs, else the program.
pub fn process_name(process: &Process) -> &str {
    let script = process.script.as_deref().and_then(|path| path.rsplit('/').next()).filter(|name| !name.is_empty());
    script.unwrap_or(&process.comm)
}

/// A process' figures at one endpoint, or all together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sums {
    pub open: u64,
    pub opened: u64,
    pub closed: u64,
    pub failed: u64,
    pub in_use_peak: u64,
    pub last_active_at: Option<WallTime>,
}

/// Sums what `process` has at `endpoint`, or anywhere.
pub fn sums(process: &Process, endpoint: Option<(&str, Role)>) -> Sums {
    let at = |each: &&ProcessConnections| endpoint.is_none_or(|(id, role)| each.endpoint == id && each.role == role);
    process.connections.iter().filter(at).fold(Sums::default(), |sums, each| Sums {
        open: sums.open + u64::from(each.open),
        opened: sums.opened + each.opened_total,
        closed: sums.closed + each.closed_total,
        failed: sums.failed + each.failed_total,
        in_use_peak: sums.in_use_peak + u64::from(each.in_use_peak),
        last_active_at: sums.last_active_at.max(each.last_active_at),
    })
}

/// What the members of a group hold at an endpoint.
pub fn group_open(picture: &Picture, group: &LauncherGroup, endpoint: Option<(&str, Role)>) -> u64 {
    match endpoint {
        None => u64::from(group.open),
        Some(_) => {
            group.pids.iter().filter_map(|pid| picture.process(*pid)).map(|each| sums(each, endpoint).open).sum()
        }
    }
}

/// Opened and closed in the last minute, and how many seconds of it are known: the newest step is not over yet.
pub fn last_minute(endpoint: &Endpoint) -> (u64, u64, u64) {
    let Some(series) = endpoint.series.iter().min_by_key(|series| series.step_s) else { return (0, 0, 0) };
    let steps = 60 / usize::try_from(series.step_s.max(1)).unwrap_or(60);
    let sum = |values: &[u32]| values.iter().rev().take(steps.max(1)).map(|value| u64::from(*value)).sum();
    let known = series.opened.len().min(steps.max(1)) as u64 * u64::from(series.step_s);
    (sum(&series.opened), sum(&series.closed), known)
}

/// The counts over time at one of the resolutions; of fewer than asked for the coarsest.
pub fn series(endpoint: &Endpoint, zoom: usize) -> Option<&Series> {
    endpoint.series.get(zoom).or_else(|| endpoint.series.last())
}

/// Pids that belong to a group, to look up many.
pub fn members(picture: &Picture, group: &str) -> HashSet<u32> {
    let of = |process: &&Process| process.launcher_group.as_deref() == Some(group);
    picture.overview.processes.iter().filter(of).map(|process| process.pid).collect()
}
