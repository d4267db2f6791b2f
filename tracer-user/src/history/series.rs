//! Counts over time: what changed since the last sample, and everything at each checkpoint. A count holds until the next
//! row of its endpoint, group or process.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use rusqlite::{Connection, OptionalExtension as _, params};
use tracer_core::event::Role;
use tracer_core::snapshot::{Endpoint, Process, Snapshot};

use super::StoreError;
use super::store::integer;

/// Rows of one sample.
const ROWS_MAX: u64 = 20_000;
/// Names whose numbers are remembered; beyond it they are looked up.
const KNOWN_MAX: usize = 65_536;
/// Two starts of a process that are no further apart are one: each is read off two clocks.
const SAME_START_MS: i64 = 2_000;

/// Totals at the last sample.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    open: u32,
    opened: u64,
    closed: u64,
    failed: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct GroupCounts {
    instances: u32,
    open: u32,
    opened: u64,
    closed: u64,
}

/// By process and endpoint.
type AccountTotals = HashMap<(i64, i64), Totals>;
/// By launcher group and endpoint.
type GroupsCounts = BTreeMap<(i64, i64), GroupCounts>;

/// What the store knows of the names it has written.
#[derive(Debug, Default)]
pub struct Series {
    endpoints: HashMap<(String, Role), (i64, u64)>,
    groups: HashMap<String, i64>,
    processes: HashMap<u32, KnownProcess>,
    endpoint_totals: HashMap<i64, Totals>,
    process_totals: AccountTotals,
    group_counts: GroupsCounts,
    /// The first sample of a run only says where totals begin.
    has_begun: bool,
}

#[derive(Clone, Copy, Debug)]
struct KnownProcess {
    id: i64,
    start_ms: i64,
    identity: u64,
}

impl Series {
    /// The number of an endpoint.
    pub fn endpoint(
        &mut self,
        db: &Connection,
        (key, role): (&str, Role),
        (name, database): (&str, &str),
    ) -> Result<i64, StoreError> {
        if let Some((id, _)) = self.endpoints.get(&(key.to_owned(), role)) {
            return Ok(*id);
        }
        let id = db
            .prepare_cached(
                "INSERT INTO endpoint (key, role, name, database) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (key, role) DO UPDATE SET key = key RETURNING id",
            )?
            .query_row(params![key, role.name(), name, database], |row| row.get(0))?;
        self.remember_endpoint(key, role, id, 0);
        Ok(id)
    }

    fn remember_endpoint(&mut self, key: &str, role: Role, id: i64, described: u64) {
        if self.endpoints.len() >= KNOWN_MAX {
            self.endpoints.clear();
        }
        self.endpoints.insert((key.to_owned(), role), (id, described));
    }

    /// The number of an endpoint, after what is said of it was written if it is news.
    fn described_endpoint(&mut self, db: &Connection, endpoint: &Endpoint) -> Result<i64, StoreError> {
        let mut hasher = DefaultHasher::new();
        let limit = endpoint.limit.map(|limit| (limit.value, limit.source.name()));
        (&endpoint.name, &endpoint.database, limit).hash(&mut hasher);
        let described = hasher.finish();
        let id = self.endpoint(db, (&endpoint.id, endpoint.role), (&endpoint.name, &endpoint.database))?;
        if self.endpoints.get(&(endpoint.id.clone(), endpoint.role)).is_none_or(|(_, known)| *known != described) {
            db.prepare_cached(
                "UPDATE endpoint SET name = ?2, database = ?3, max_connections = ?4, max_source = ?5 WHERE id = ?1",
            )?
            .execute(params![
                id,
                endpoint.name,
                endpoint.database,
                limit.map(|limit| limit.0),
                limit.map(|limit| limit.1)
            ])?;
            self.remember_endpoint(&endpoint.id, endpoint.role, id, described);
        }
        Ok(id)
    }

    fn group(&mut self, db: &Connection, key: &str, label: Option<&str>) -> Result<i64, StoreError> {
        if let (Some(id), None) = (self.groups.get(key), label) {
            return Ok(*id);
        }
        let id = db
            .prepare_cached(
                "INSERT INTO launcher_group (key, label) VALUES (?1, ifnull(?2, ?1))
                 ON CONFLICT (key) DO UPDATE SET label = ifnull(?2, label) RETURNING id",
            )?
            .query_row(params![key, label], |row| row.get(0))?;
        if self.groups.len() >= KNOWN_MAX {
            self.groups.clear();
        }
        self.groups.insert(key.to_owned(), id);
        Ok(id)
    }

    /// The number of a process.
    pub fn process(
        &mut self,
        db: &Connection,
        (pid, start_ms): (u32, i64),
        comm: &str,
        at_ms: i64,
    ) -> Result<i64, StoreError> {
        if let Some(known) = self.processes.get(&pid)
            && (known.start_ms - start_ms).abs() <= SAME_START_MS
        {
            return Ok(known.id);
        }
        let find = "SELECT id FROM process WHERE pid = ?1 AND abs(start_ms - ?2) <= ?3 ORDER BY id DESC LIMIT 1";
        let found: Option<i64> =
            db.prepare_cached(find)?.query_row(params![pid, start_ms, SAME_START_MS], |row| row.get(0)).optional()?;
        let id = match found {
            Some(id) => id,
            None => {
                db.prepare_cached("INSERT INTO process (pid, start_ms, first_ms, comm) VALUES (?1, ?2, ?3, ?4)")?
                    .execute(params![pid, start_ms, at_ms, comm])?;
                db.last_insert_rowid()
            }
        };
        if self.processes.len() >= KNOWN_MAX {
            self.processes.clear();
        }
        self.processes.insert(pid, KnownProcess { id, start_ms, identity: 0 });
        Ok(id)
    }

    /// Rows of processes have gone: what is remembered of them may be wrong.
    pub fn forget_processes(&mut self) {
        self.processes.clear();
    }

    fn identified_process(&mut self, db: &Connection, process: &Process, at_ms: i64) -> Result<i64, StoreError> {
        let id = self.process(db, (process.pid, process.start_time.unix_ms), &process.comm, at_ms)?;
        let mut hasher = DefaultHasher::new();
        (&process.comm, &process.exe, &process.script, &process.cmdline, process.ppid).hash(&mut hasher);
        (&process.user, &process.systemd_unit, &process.container_id, &process.launcher_group).hash(&mut hasher);
        process.alive.hash(&mut hasher);
        let identity = hasher.finish();
        if self.processes.get(&process.pid).is_some_and(|known| known.identity == identity) {
            return Ok(id);
        }
        let group = match &process.launcher_group {
            Some(key) => Some(self.group(db, key, None)?),
            None => None,
        };
        let json = serde_json::to_string(&Process { connections: Vec::new(), ..process.clone() })?;
        db.prepare_cached(
            "UPDATE process SET comm = ?2, exe = ?3, script = ?4, user = ?5, systemd_unit = ?6, container_id = ?7,
             launcher_group = ?8, identity = ?9,
             ended_ms = iif(?10 IS NULL, NULL, ifnull(ended_ms, ?10)) WHERE id = ?1",
        )?
        .execute(params![
            id,
            process.comm,
            process.exe,
            process.script,
            process.user,
            process.systemd_unit,
            process.container_id,
            group,
            json,
            (!process.alive).then_some(at_ms)
        ])?;
        if let Some(known) = self.processes.get_mut(&process.pid) {
            known.identity = identity;
        }
        Ok(id)
    }

    /// Writes the counts of this moment: how many rows, and how many had no place.
    pub fn sample(&mut self, db: &Connection, snapshot: &Snapshot, is_whole: bool) -> Result<(u64, u64), StoreError> {
        let at_ms = snapshot.captured_at.unix_ms;
        let mut rows = Rows::default();
        for group in &snapshot.launcher_groups {
            self.group(db, &group.id, Some(&group.label))?;
        }
        for endpoint in &snapshot.endpoints {
            self.endpoint_row(db, endpoint, at_ms, is_whole, &mut rows)?;
        }
        let mut groups = GroupsCounts::new();
        let before = std::mem::take(&mut self.process_totals);
        for process in &snapshot.processes {
            self.process_rows(db, process, (at_ms, is_whole), (&before, &mut groups), &mut rows)?;
        }
        self.group_rows(db, groups, at_ms, is_whole, &mut rows)?;
        self.has_begun = true;
        Ok((rows.written, rows.left_out))
    }

    fn endpoint_row(
        &mut self,
        db: &Connection,
        endpoint: &Endpoint,
        at_ms: i64,
        is_whole: bool,
        rows: &mut Rows,
    ) -> Result<(), StoreError> {
        let id = self.described_endpoint(db, endpoint)?;
        let now = Totals {
            open: endpoint.open,
            opened: endpoint.opened_total,
            closed: endpoint.closed_total,
            failed: endpoint.failed_total,
        };
        let first = if self.has_begun { Totals::default() } else { now };
        let before = self.endpoint_totals.insert(id, now).unwrap_or(first);
        let (opened, closed, failed) = (
            now.opened.saturating_sub(before.opened),
            now.closed.saturating_sub(before.closed),
            now.failed.saturating_sub(before.failed),
        );
        let in_use = endpoint.series.iter().flat_map(|series| &series.in_use).copied().max().unwrap_or(0);
        let is_news = opened + closed + failed > 0 || in_use > 0 || now.open != before.open;
        if (is_whole || is_news) && rows.has_room() {
            db.prepare_cached("INSERT INTO endpoint_series VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?.execute(
                params![
                    at_ms,
                    id,
                    now.open,
                    integer(opened),
                    integer(closed),
                    integer(failed),
                    in_use,
                    endpoint.limit.map(|limit| limit.value)
                ],
            )?;
        }
        Ok(())
    }

    fn process_rows(
        &mut self,
        db: &Connection,
        process: &Process,
        (at_ms, is_whole): (i64, bool),
        (before, groups): (&AccountTotals, &mut GroupsCounts),
        rows: &mut Rows,
    ) -> Result<(), StoreError> {
        let id = self.identified_process(db, process, at_ms)?;
        let group = match &process.launcher_group {
            Some(key) => Some(self.group(db, key, None)?),
            None => None,
        };
        for account in &process.connections {
            let endpoint = self.endpoint(db, (&account.endpoint, account.role), (&account.endpoint, "unknown"))?;
            let now = Totals {
                open: account.open,
                opened: account.opened_total,
                closed: account.closed_total,
                failed: account.failed_total,
            };
            let first = if self.has_begun { Totals::default() } else { now };
            let was = before.get(&(id, endpoint)).copied().unwrap_or(first);
            self.process_totals.insert((id, endpoint), now);
            let (opened, closed) = (now.opened.saturating_sub(was.opened), now.closed.saturating_sub(was.closed));
            if let Some(group) = group {
                let counts = groups.entry((group, endpoint)).or_default();
                counts.instances += u32::from(process.alive && now.open > 0);
                counts.open += now.open;
                counts.opened += opened;
                counts.closed += closed;
            }
            let is_news = opened + closed > 0 || now.open != was.open;
            if ((is_whole && now.open > 0) || is_news) && rows.has_room() {
                db.prepare_cached("INSERT INTO process_series VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?.execute(params![
                    at_ms,
                    id,
                    endpoint,
                    now.open,
                    integer(opened),
                    integer(closed)
                ])?;
            }
        }
        Ok(())
    }

    fn group_rows(
        &mut self,
        db: &Connection,
        groups: GroupsCounts,
        at_ms: i64,
        is_whole: bool,
        rows: &mut Rows,
    ) -> Result<(), StoreError> {
        let before = std::mem::take(&mut self.group_counts);
        let gone = before.iter().filter(|(key, counts)| counts.open > 0 && !groups.contains_key(key));
        let gone: Vec<_> = gone.map(|(key, _)| (*key, GroupCounts::default())).collect();
        for ((group, endpoint), counts) in groups.iter().map(|(key, counts)| (*key, *counts)).chain(gone) {
            let was = before.get(&(group, endpoint)).copied().unwrap_or_default();
            let is_news =
                counts.opened + counts.closed > 0 || (counts.open, counts.instances) != (was.open, was.instances);
            if ((is_whole && counts.open > 0) || is_news) && rows.has_room() {
                db.prepare_cached("INSERT INTO group_series VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?.execute(params![
                    at_ms,
                    group,
                    endpoint,
                    counts.instances,
                    counts.open,
                    integer(counts.opened),
                    integer(counts.closed)
                ])?;
            }
        }
        self.group_counts = groups;
        Ok(())
    }
}

/// Rows of one sample so far.
#[derive(Debug, Default)]
struct Rows {
    written: u64,
    left_out: u64,
}

impl Rows {
    /// Takes a place, or counts that there is none.
    fn has_room(&mut self) -> bool {
        let has_room = self.written < ROWS_MAX;
        *if has_room { &mut self.written } else { &mut self.left_out } += 1;
        has_room
    }
}
