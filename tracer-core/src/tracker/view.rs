//! The tracker as a snapshot, in the shape users script against. Ordered, so that the same state gives the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::Tracker;
use crate::detect::Store;
use crate::endpoint::Endpoint;
use crate::event::ProcessId;
use crate::identity::stable_id;
use crate::memory;
use crate::process::{Account, Process};
use crate::setup::InForce;
use crate::snapshot::{
    self, Age, Capture, Completeness, ConfigInForce, Connection, HolderFd, Host, Mode, Opener, Probe, ProbeState,
    ProcessConnections, SNAPSHOT_SCHEMA, Snapshot,
};
use crate::socket::{Began, Socket};
use crate::tcp::TcpState;
use crate::time::{BootNs, WallAnchor};

/// What a snapshot says besides the tracker's own state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The host.
    pub host: Host,
    /// Events or polling.
    pub mode: Mode,
    /// When tracing began.
    pub started: BootNs,
    /// Which hook delivers which fact.
    pub probes: Vec<Probe>,
    /// The running kernel's names of its reasons for throwing packets away.
    pub drop_reasons: BTreeMap<u32, String>,
    /// Whether pids are those of the initial pid namespace.
    pub host_pids: bool,
    /// Which configuration is in force.
    pub config: InForce,
}

impl About {
    /// Whether the kernel side counts what processes accept.
    #[must_use]
    pub fn counts_accepts(&self) -> bool {
        let tells = |probe: &Probe| probe.fact == "accept" && probe.state != ProbeState::Missing;
        self.mode == Mode::Ebpf && self.probes.iter().any(tells)
    }
}

/// How much of the state a snapshot has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// No connections, and of the series the last steps of ten seconds alone: what is kept every few seconds.
    Outline,
    /// So many connections at most, those that began first; series as in an outline.
    Connections(usize),
    /// No connections, and everything else.
    Overview,
    /// Everything.
    Whole,
}

/// Counts of one process on one endpoint as they are now, by who answers for each socket.
type OpenBy = BTreeMap<(ProcessId, usize), u32>;

impl Tracker {
    /// Everything known at `now`.
    #[must_use]
    pub fn snapshot(&self, about: &About, store: &Store, now: BootNs, anchor: &WallAnchor) -> Snapshot {
        self.snapshot_of(Extent::Whole, (about, store), now, anchor)
    }

    /// What is known at `now`, as much of it as is asked for.
    #[must_use]
    pub fn snapshot_of(
        &self,
        extent: Extent,
        (about, store): (&About, &Store),
        now: BootNs,
        anchor: &WallAnchor,
    ) -> Snapshot {
        let mut by_state = vec![BTreeMap::<TcpState, u32>::new(); self.endpoints.len()];
        let mut open_by = OpenBy::new();
        for socket in self.sockets() {
            if let Some(states) = by_state.get_mut(socket.endpoint()) {
                *states.entry(socket.state).or_default() += 1;
            }
            if let Some(id) = socket.responsible().filter(|_| socket.is_open()) {
                *open_by.entry((id, socket.endpoint())).or_default() += 1;
            }
        }
        let most = match extent {
            Extent::Outline | Extent::Overview => 0,
            Extent::Connections(most) => most,
            Extent::Whole => usize::MAX,
        };
        let mut sockets: Vec<&Socket> = if most == 0 { Vec::new() } else { self.sockets().collect() };
        sockets.sort_unstable_by_key(|socket| (socket.began().moment(), socket.tuple));
        sockets.truncate(most);
        Snapshot {
            schema: SNAPSHOT_SCHEMA.to_owned(),
            captured_at: anchor.wall(now),
            host: about.host.clone(),
            capture: Capture {
                mode: about.mode,
                started_at: anchor.wall(about.started),
                probes: about.probes.clone(),
                loss: self.loss,
                completeness: match (about.mode, self.completeness()) {
                    // What opened and closed between two looks was never seen.
                    (Mode::Poll, Completeness::Exact) => Completeness::LowerBound,
                    (_, completeness) => completeness,
                },
                totals: match (about.mode, self.totals_completeness()) {
                    (Mode::Poll, Completeness::Exact) => Completeness::LowerBound,
                    (_, completeness) => completeness,
                },
                holders: self.holders_completeness(),
                unreadable_processes: self.sight.unreadable_processes,
                hidden_processes: self.sight.hidden_processes,
                host_pids: about.host_pids,
                config: ConfigInForce {
                    generation: about.config.generation,
                    hash: about.config.hash.clone(),
                    loaded_at: anchor.wall(about.config.loaded),
                    file: about.config.file.clone(),
                },
                namespaces: u32::try_from(self.sight.tables.len()).unwrap_or(u32::MAX),
                unreachable_namespaces: u32::try_from(self.sight.unreachable.len()).unwrap_or(u32::MAX),
                recognized_ports: self.recognized.clone(),
                recognized_without_room: self.sight.recognized_without_room,
                drops_untold: self.drops_untold,
                findings_without_room: store.without_room(),
                findings_ignored: u32::try_from(store.ignored()).unwrap_or(u32::MAX),
                accounts_without_history: self.without_history,
                closers_without_room: self.partings_without_room(),
            },
            endpoints: self.endpoint_views((extent, by_state), about, now, anchor),
            processes: self.process_views(&open_by, anchor),
            launcher_groups: self.group_views(&open_by),
            connections: sockets.into_iter().map(|socket| self.connection_view(socket, now, anchor)).collect(),
            findings: store.findings(anchor),
        }
    }

    fn endpoint_views(
        &self,
        (extent, by_state): (Extent, Vec<BTreeMap<TcpState, u32>>),
        about: &About,
        now: BootNs,
        anchor: &WallAnchor,
    ) -> Vec<snapshot::Endpoint> {
        let mut views: Vec<snapshot::Endpoint> = self
            .endpoints
            .iter()
            .enumerate()
            .zip(by_state)
            .filter(|((index, _), _)| self.is_watched(*index))
            .map(|((_, endpoint), by_state)| {
                let mut series = endpoint.series.clone();
                series.advance(now, endpoint.open);
                snapshot::Endpoint {
                    id: endpoint.id(),
                    name: endpoint.display_name(),
                    database: endpoint.database.clone(),
                    role: endpoint.role,
                    limit: endpoint.known_limit(now),
                    open: endpoint.open,
                    in_use_peak: endpoint.in_use_peak,
                    open_peak: endpoint.open_peak,
                    opened_total: endpoint.opened_total,
                    closed_total: endpoint.closed_total,
                    failed_total: endpoint.failed_total,
                    by_state,
                    drops: drops(endpoint, about, anchor),
                    series: match extent {
                        Extent::Overview | Extent::Whole => series.to_snapshot(anchor),
                        Extent::Outline | Extent::Connections(_) => series.latest(anchor),
                    },
                }
            })
            .collect();
        views.sort_by(|a, b| (&a.id, a.role).cmp(&(&b.id, b.role)));
        views
    }

    fn process_views(&self, open_by: &OpenBy, anchor: &WallAnchor) -> Vec<snapshot::Process> {
        let held = |id: &ProcessId| open_by.range((*id, 0)..=(*id, usize::MAX)).next().is_some();
        self.processes
            .values()
            .filter(|process| !process.accounts.is_empty() || held(&process.id))
            .map(|process| self.process_view(process, open_by, anchor))
            .collect()
    }

    fn process_view(&self, process: &Process, open_by: &OpenBy, anchor: &WallAnchor) -> snapshot::Process {
        let identity = process.identity.as_deref();
        let held = open_by.range((process.id, 0)..=(process.id, usize::MAX)).map(|((_, endpoint), _)| *endpoint);
        let endpoints: BTreeSet<usize> = process.accounts.keys().copied().chain(held).collect();
        let connections = endpoints.into_iter().filter(|index| self.is_watched(*index)).filter_map(|index| {
            let endpoint = self.endpoints.get(index)?;
            let nothing = Account::default();
            let account = process.accounts.get(&index).unwrap_or(&nothing);
            Some(ProcessConnections {
                endpoint: endpoint.id(),
                role: endpoint.role,
                open: open_by.get(&(process.id, index)).copied().unwrap_or(0),
                opened_total: account.opened_total,
                closed_total: account.closed_total,
                failed_total: account.failed_total,
                in_use_peak: account.in_use_peak,
                last_active_at: account.last_active.map(|at| anchor.wall(at)),
                estimated_server_memory_bytes: memory::held(
                    &endpoint.database,
                    open_by.get(&(process.id, index)).copied().unwrap_or(0),
                ),
            })
        });
        snapshot::Process {
            pid: process.id.pid,
            ns_pid: identity.and_then(|identity| identity.ns_pid),
            start_time: anchor.wall(process.id.start()),
            comm: process.name(),
            exe: identity.and_then(|identity| identity.exe.clone()),
            script: identity.and_then(|identity| identity.script.clone()),
            cmdline: identity.and_then(|identity| identity.cmdline.clone()),
            ppid: identity.and_then(|identity| identity.ppid),
            ancestors: identity.map(|identity| identity.ancestors.clone()).unwrap_or_default(),
            uid: identity.and_then(|identity| identity.uid).or(process.uid),
            user: identity.and_then(|identity| identity.user.clone()),
            cgroup: identity.and_then(|identity| identity.cgroup.clone()),
            container_id: identity.and_then(|identity| identity.container_id.clone()),
            systemd_unit: identity.and_then(|identity| identity.systemd_unit.clone()),
            launcher_group: identity.map(|identity| identity.group.id.clone()),
            alive: process.ended.is_none(),
            accepted_total: self.accepts(process),
            connections: connections.collect(),
        }
    }

    fn group_views(&self, open_by: &OpenBy) -> Vec<snapshot::LauncherGroup> {
        let mut groups = BTreeMap::<&str, snapshot::LauncherGroup>::new();
        for process in self.processes.values().filter(|process| process.ended.is_none()) {
            let Some(identity) = process.identity.as_deref() else { continue };
            let held: Vec<(usize, u32)> = open_by
                .range((process.id, 0)..=(process.id, usize::MAX))
                .map(|((_, endpoint), open)| (*endpoint, *open))
                .collect();
            if held.is_empty() {
                continue;
            }
            let group = groups.entry(&identity.group.id).or_insert_with(|| snapshot::LauncherGroup {
                id: identity.group.id.clone(),
                label: identity.group.label.clone(),
                instances: 0,
                pids: Vec::new(),
                open: 0,
                endpoints: Vec::new(),
            });
            group.instances += 1;
            group.pids.push(process.id.pid);
            for (endpoint, open) in held {
                group.open += open;
                let id = self.endpoints.get(endpoint).map(Endpoint::id).unwrap_or_default();
                if !group.endpoints.contains(&id) {
                    group.endpoints.push(id);
                }
            }
        }
        let mut groups: Vec<_> = groups.into_values().collect();
        for group in &mut groups {
            group.pids.sort_unstable();
            group.endpoints.sort_unstable();
        }
        groups
    }

    fn connection_view(&self, socket: &Socket, now: BootNs, anchor: &WallAnchor) -> Connection {
        let endpoint = self.endpoints.get(socket.endpoint());
        let seen = socket.counters;
        let (opened_at, age) = match socket.began() {
            Began::At(at) => (Some(anchor.wall(at)), Age::Exact),
            Began::Before(_) => (None, Age::AtLeast),
        };
        Connection {
            id: connection_id(socket),
            netns: socket.tuple.netns(),
            local: socket.tuple.local().to_string(),
            remote: socket.tuple.remote().to_string(),
            endpoint: endpoint.map(Endpoint::id).unwrap_or_default(),
            database: endpoint.map(|endpoint| endpoint.database.clone()).unwrap_or_default(),
            role: socket.role,
            state: socket.state,
            state_since: match socket.state_since() {
                Began::At(at) => Some(anchor.wall(at)),
                Began::Before(_) => None,
            },
            opened_at,
            age_s: now.since(socket.began().moment()).as_secs(),
            age,
            opener: socket.opener.map(|opener| Opener { pid: opener.id.pid, comm: opener.comm.to_text().into_owned() }),
            holders: socket.holders.iter().map(|holder| HolderFd { pid: holder.process.pid, fd: holder.fd }).collect(),
            inode: socket.inode.map(NonZeroU32::get),
            idle_s: socket.last_active().map(|at| now.since(at).as_secs()),
            bytes_sent: seen.map_or(0, |seen| seen.bytes_sent),
            bytes_received: seen.map_or(0, |seen| seen.bytes_received),
            srtt_us: seen.and_then(|seen| seen.srtt_us).map(NonZeroU32::get),
            retransmits: socket.retransmits,
            consecutive_rtos: seen.map_or(0, |seen| seen.consecutive_rtos),
            unacked: seen.map_or(0, |seen| seen.unacked),
            keepalive: seen.and_then(|seen| seen.keepalive),
            unanswered_probes: seen.map_or(0, |seen| seen.probes),
            heard_s: socket.heard_at().map(|at| now.since(at).as_secs()),
            closer_pid: self.closer(&socket.tuple).map(|closer| closer.pid),
        }
    }
}

/// Names one life of one socket: a hash of its tuple and the first moment it was known.
fn connection_id(socket: &Socket) -> String {
    let tuple = socket.tuple;
    stable_id(&[
        &tuple.netns().to_string(),
        &tuple.local().to_string(),
        &tuple.remote().to_string(),
        &socket.first_seen.0.to_string(),
    ])
}

/// What was thrown away on the way to or from an endpoint, most first.
fn drops(endpoint: &Endpoint, about: &About, anchor: &WallAnchor) -> Vec<snapshot::Drops> {
    let one = |(reason, (packets, last)): (&u32, &(u64, BootNs))| snapshot::Drops {
        reason: about.drop_reasons.get(reason).cloned().unwrap_or_else(|| format!("reason {reason}")),
        packets: *packets,
        last_at: anchor.wall(*last),
    };
    let mut all: Vec<_> = endpoint.drops.iter().map(one).collect();
    all.sort_by(|a, b| b.packets.cmp(&a.packets).then_with(|| a.reason.cmp(&b.reason)));
    all
}
