//! From the last sample to the moment itself: what opened and closed in those seconds.

use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, OptionalExtension as _, params};
use tracer_core::event::Role;
use tracer_core::snapshot::Snapshot;

use super::{StoreError, roll};

/// What opened and closed since the sample.
#[derive(Clone, Copy, Debug, Default)]
struct Change {
    opened: u64,
    closed: u64,
}

impl Change {
    fn applied(self, open: u32) -> u32 {
        let open = (u64::from(open) + self.opened).saturating_sub(self.closed);
        u32::try_from(open).unwrap_or(u32::MAX)
    }
}

/// Takes the counts of endpoints and processes from `from` to `until`.
pub fn counts(db: &Connection, snapshot: &mut Snapshot, (from, until): (i64, i64)) -> Result<(), StoreError> {
    if from >= until {
        return Ok(());
    }
    let mut endpoints = HashMap::<(String, Role), Change>::new();
    let mut processes = HashMap::<(u32, String, Role), Change>::new();
    let mut note = |endpoint: &str, role: Role, pid: Option<u32>, change: &dyn Fn(&mut Change)| {
        change(endpoints.entry((endpoint.to_owned(), role)).or_default());
        if let Some(pid) = pid {
            change(processes.entry((pid, endpoint.to_owned(), role)).or_default());
        }
    };
    for open in &snapshot.connections {
        if open.opened_at.is_some_and(|at| from < at.unix_ms && at.unix_ms <= until) {
            let pid = open.opener.as_ref().map(|opener| opener.pid);
            note(&open.endpoint, open.role, pid, &|change| change.opened += 1);
        }
    }
    let mut statement = db.prepare(
        "SELECT e.key, e.role, p.pid, c.opened_ms > ?1 FROM closed c JOIN endpoint e ON e.id = c.endpoint
           LEFT JOIN process p ON p.id = c.process WHERE c.closed_ms > ?1 AND c.closed_ms <= ?2",
    )?;
    let mut rows = statement.query(params![from, until])?;
    while let Some(row) = rows.next()? {
        let (endpoint, role): (String, String) = (row.get(0)?, row.get(1)?);
        let role = if role == Role::Server.name() { Role::Server } else { Role::Client };
        let opened = u64::from(row.get::<_, Option<bool>>(3)?.unwrap_or(false));
        note(&endpoint, role, row.get(2)?, &|change| {
            change.closed += 1;
            change.opened += opened;
        });
    }
    add_new(db, snapshot, endpoints.keys())?;
    for endpoint in &mut snapshot.endpoints {
        if let Some(change) = endpoints.get(&(endpoint.id.clone(), endpoint.role)) {
            endpoint.open = change.applied(endpoint.open);
            endpoint.open_peak = endpoint.open_peak.max(endpoint.open);
            endpoint.opened_total += change.opened;
            endpoint.closed_total += change.closed;
        }
    }
    for process in snapshot.processes.iter_mut().filter(|process| process.alive) {
        for account in &mut process.connections {
            if let Some(change) = processes.get(&(process.pid, account.endpoint.clone(), account.role)) {
                account.open = change.applied(account.open);
                account.opened_total += change.opened;
                account.closed_total += change.closed;
            }
        }
    }
    Ok(())
}

/// Adds the endpoints that were first seen since the sample.
fn add_new<'a>(
    db: &Connection,
    snapshot: &mut Snapshot,
    changed: impl Iterator<Item = &'a (String, Role)>,
) -> Result<(), StoreError> {
    let known: HashSet<(String, Role)> =
        snapshot.endpoints.iter().map(|endpoint| (endpoint.id.clone(), endpoint.role)).collect();
    for (id, role) in changed.filter(|key| !known.contains(*key)) {
        let name = "SELECT name, database FROM endpoint WHERE key = ?1 AND role = ?2";
        let named = db.query_row(name, params![id, role.name()], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let (name, database) = named.unwrap_or_else(|| (id.clone(), "other".to_owned()));
        let mut endpoint = roll::empty_endpoint(id.clone(), *role, name, database);
        for open in snapshot.connections.iter().filter(|open| open.endpoint == *id && open.role == *role) {
            *endpoint.by_state.entry(open.state).or_default() += 1;
        }
        snapshot.endpoints.push(endpoint);
    }
    snapshot.endpoints.sort_by(|a, b| (&a.id, a.role).cmp(&(&b.id, b.role)));
    Ok(())
}
