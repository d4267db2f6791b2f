//! Matches what is in two snapshots, and keeps what differs.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::{
    ConnectionRef, DIFF_SCHEMA, Diff, EndpointChange, Fate, FindingChange, GroupChange, LimitPair, Pair, ProcessChange,
    Side,
};
use crate::finding::{Finding, Status};
use crate::identity::file_name;
use crate::snapshot::{Connection, Endpoint, LauncherGroup, Process, Snapshot};
use crate::time::WallTime;

/// Wall times of one moment may differ from snapshot to snapshot, since the wall clock may be stepped or slewed. Two
/// lives of one pid or tuple are further apart.
const SAME_MOMENT_MS: u64 = 1_000;

impl Pair {
    fn of(before: Option<u64>, after: Option<u64>) -> Self {
        Self { before: before.unwrap_or(0), after: after.unwrap_or(0) }
    }

    /// How much larger or smaller it became.
    #[must_use]
    pub fn change(self) -> i64 {
        self.after.cast_signed().wrapping_sub(self.before.cast_signed())
    }

    /// Largest change first.
    fn rank(self) -> Reverse<u64> {
        Reverse(self.change().unsigned_abs())
    }
}

impl Fate {
    /// `None` if nothing changed.
    fn of<T>(before: Option<&T>, after: Option<&T>, differs: bool) -> Option<Self> {
        match (before, after) {
            (None, Some(_)) => Some(Self::Appeared),
            (Some(_), None) => Some(Self::Gone),
            _ => differs.then_some(Self::Changed),
        }
    }
}

impl Diff {
    /// From `before` to `after`.
    #[must_use]
    pub fn of(before: &Snapshot, after: &Snapshot) -> Self {
        let side = |snapshot: &Snapshot| Side {
            captured_at: snapshot.captured_at,
            hostname: snapshot.host.hostname.clone(),
            completeness: snapshot.capture.completeness,
        };
        let same_host = before.host.hostname == after.host.hostname;
        let same_run = same_host
            && before.host.boot_id == after.host.boot_id
            && before.capture.mode == after.capture.mode
            && is_same(Some(before.capture.started_at), Some(after.capture.started_at));
        let (opened, closed, kept) = connections(&before.connections, &after.connections);
        let (appeared, cleared, changed) = findings(&before.findings, &after.findings);
        Self {
            schema: DIFF_SCHEMA.to_owned(),
            before: side(before),
            after: side(after),
            elapsed_s: (after.captured_at.unix_ms - before.captured_at.unix_ms).div_euclid(1_000),
            same_host,
            same_run,
            endpoints: endpoints(&before.endpoints, &after.endpoints, same_run),
            launcher_groups: groups(&before.launcher_groups, &after.launcher_groups),
            processes: processes(&before.processes, &after.processes),
            opened,
            closed,
            kept,
            appeared,
            cleared,
            changed,
        }
    }

    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
            && self.launcher_groups.is_empty()
            && self.processes.is_empty()
            && self.opened.is_empty()
            && self.closed.is_empty()
            && self.appeared.is_empty()
            && self.cleared.is_empty()
            && self.changed.is_empty()
    }
}

/// Whether two wall times are of one moment; unknown ones may be.
fn is_same(a: Option<WallTime>, b: Option<WallTime>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.unix_ms.abs_diff(b.unix_ms) <= SAME_MOMENT_MS,
        _ => true,
    }
}

/// Everything that is in either, by key.
fn joined<'a, K: Ord, T>(
    before: &'a [T],
    after: &'a [T],
    key: impl Fn(&'a T) -> K,
) -> BTreeMap<K, (Option<&'a T>, Option<&'a T>)> {
    let mut all = BTreeMap::<K, (Option<&T>, Option<&T>)>::new();
    for each in before {
        all.entry(key(each)).or_default().0 = Some(each);
    }
    for each in after {
        all.entry(key(each)).or_default().1 = Some(each);
    }
    all
}

fn endpoints(before: &[Endpoint], after: &[Endpoint], same_run: bool) -> Vec<EndpointChange> {
    let all = joined(before, after, |endpoint| (&endpoint.id, endpoint.role));
    let mut changes: Vec<EndpointChange> = all
        .into_values()
        .filter_map(|(before, after)| {
            let shown = after.or(before)?;
            let between = |total: fn(&Endpoint) -> u64| {
                let now = after.map_or(0, total);
                same_run.then(|| now.saturating_sub(before.map_or(0, total)))
            };
            let open = Pair::of(before.map(|each| each.open.into()), after.map(|each| each.open.into()));
            let (opened, closed, failed) = (
                between(|each| each.opened_total),
                between(|each| each.closed_total),
                between(|each| each.failed_total),
            );
            let moved = [opened, closed, failed].into_iter().flatten().any(|count| count > 0);
            let limit =
                LimitPair { before: before.and_then(|each| each.limit), after: after.and_then(|each| each.limit) };
            let relimited = before.is_some() && after.is_some() && limit.before != limit.after;
            let fate = Fate::of(before, after, open.change() != 0 || moved || relimited)?;
            let (id, name, role) = (shown.id.clone(), shown.name.clone(), shown.role);
            Some(EndpointChange { id, name, role, fate, limit, open, opened, closed, failed })
        })
        .collect();
    changes.sort_by_key(|change| (change.open.rank(), Reverse(change.opened)));
    changes
}

fn groups(before: &[LauncherGroup], after: &[LauncherGroup]) -> Vec<GroupChange> {
    let all = joined(before, after, |group| &group.id);
    let mut changes: Vec<GroupChange> = all
        .into_values()
        .filter_map(|(before, after)| {
            let shown = after.or(before)?;
            let pids = |group: Option<&LauncherGroup>| -> BTreeSet<u32> {
                group.into_iter().flat_map(|group| group.pids.iter().copied()).collect()
            };
            let (were, are) = (pids(before), pids(after));
            let open = Pair::of(before.map(|each| each.open.into()), after.map(|each| each.open.into()));
            let fate = Fate::of(before, after, open.change() != 0 || were != are)?;
            Some(GroupChange {
                id: shown.id.clone(),
                label: shown.label.clone(),
                fate,
                instances: Pair::of(before.map(|each| each.instances.into()), after.map(|each| each.instances.into())),
                open,
                pids_appeared: are.difference(&were).copied().collect(),
                pids_gone: were.difference(&are).copied().collect(),
            })
        })
        .collect();
    changes.sort_by_key(|change| (change.open.rank(), Reverse(change.instances.change().unsigned_abs())));
    changes
}

fn processes(before: &[Process], after: &[Process]) -> Vec<ProcessChange> {
    let open = |process: &Process| process.connections.iter().map(|each| u64::from(each.open)).sum::<u64>();
    let mut changes = Vec::new();
    let mut take = |before: Option<&Process>, after: Option<&Process>| {
        let Some(shown) = after.or(before) else { return };
        let pair = Pair::of(before.map(open), after.map(open));
        let ended = before.is_some_and(|before| before.alive) && !after.is_some_and(|after| after.alive);
        // Who has no connections and had none is no news.
        let is_idle = pair == Pair::default() && !(before.is_some() && after.is_some());
        let Some(fate) = Fate::of(before, after, pair.change() != 0 || ended).filter(|_| !is_idle) else { return };
        let label = shown.script.as_deref().map_or(shown.comm.as_str(), file_name).to_owned();
        let alive = after.is_some_and(|after| after.alive);
        changes.push(ProcessChange { pid: shown.pid, start_time: shown.start_time, label, fate, open: pair, alive });
    };
    for (before, after) in joined(before, after, |process| process.pid).into_values() {
        match (before, after) {
            (Some(old), Some(new)) if !is_same(Some(old.start_time), Some(new.start_time)) => {
                take(before, None);
                take(None, after);
            }
            _ => take(before, after),
        }
    }
    changes.sort_by_key(|change: &ProcessChange| (change.open.rank(), change.pid));
    changes
}

/// Those in `after` alone, those in `before` alone, and how many are in both.
fn connections(before: &[Connection], after: &[Connection]) -> (Vec<ConnectionRef>, Vec<ConnectionRef>, u64) {
    let (mut opened, mut closed, mut kept) = (Vec::new(), Vec::new(), 0);
    let all = joined(before, after, |each| (each.netns, each.local.as_str(), each.remote.as_str(), each.role));
    for pair in all.into_values() {
        match pair {
            (Some(old), Some(new)) if is_same(old.opened_at, new.opened_at) => kept += 1,
            (old, new) => {
                closed.extend(old.map(reference));
                opened.extend(new.map(reference));
            }
        }
    }
    let by_age = |all: &mut Vec<ConnectionRef>| all.sort_by_key(|each| each.opened_at);
    by_age(&mut opened);
    by_age(&mut closed);
    (opened, closed, kept)
}

fn reference(connection: &Connection) -> ConnectionRef {
    let holders: BTreeSet<u32> = connection.holders.iter().map(|holder| holder.pid).collect();
    ConnectionRef {
        netns: connection.netns,
        local: connection.local.clone(),
        remote: connection.remote.clone(),
        endpoint: connection.endpoint.clone(),
        role: connection.role,
        state: connection.state,
        opened_at: connection.opened_at,
        opener: connection.opener.clone(),
        holder_pids: holders.into_iter().collect(),
    }
}

fn findings(before: &[Finding], after: &[Finding]) -> (Vec<Finding>, Vec<Finding>, Vec<FindingChange>) {
    let (mut appeared, mut cleared, mut changed) = (Vec::new(), Vec::new(), Vec::new());
    let open = |findings: &[Finding]| -> Vec<Finding> {
        findings.iter().filter(|finding| finding.status == Status::Open).cloned().collect()
    };
    let (before, after) = (open(before), open(after));
    for pair in joined(&before, &after, |finding| &finding.id).into_values() {
        match pair {
            (None, Some(new)) => appeared.push(new.clone()),
            (Some(old), None) => cleared.push(old.clone()),
            (Some(old), Some(new)) if (old.severity, &old.summary) != (new.severity, &new.summary) => {
                changed.push(FindingChange {
                    id: new.id.clone(),
                    kind: new.kind,
                    severity_before: old.severity,
                    severity_after: new.severity,
                    summary_before: old.summary.clone(),
                    summary_after: new.summary.clone(),
                });
            }
            _ => {}
        }
    }
    let worst_first = |all: &mut Vec<Finding>| all.sort_by_key(|each| (Reverse(each.severity), each.kind));
    worst_first(&mut appeared);
    worst_first(&mut cleared);
    changed.sort_by_key(|each| (Reverse(each.severity_after), each.kind));
    (appeared, cleared, changed)
}
