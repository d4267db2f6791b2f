//! What a time amounts to: how groups grew, and what closed.

use std::collections::BTreeMap;

use rusqlite::params;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::StoreError;
use super::read::{Asked, Reader};

/// Summaries of one answer, each.
const SUMMARIES_MAX: usize = 100;

/// How the connections of a launcher group, or of a process if some were asked for, changed at an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Growth {
    /// The group's label, or the process' name.
    pub who: String,
    /// The process, if some were asked for.
    pub pid: Option<u32>,
    /// Endpoint id.
    pub endpoint: String,
    /// Its name.
    pub endpoint_name: String,
    /// This host's side.
    pub role: String,
    /// Open when the time began.
    pub open_first: i64,
    /// Open when it ended.
    pub open_last: i64,
    /// Most open at a sample.
    pub open_peak: i64,
    /// Opened within it.
    pub opened: i64,
    /// Closed within it.
    pub closed: i64,
}

/// Connections that closed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClosedSummary {
    /// The launcher group's label, else the process' name; empty if nobody is known.
    pub who: String,
    /// The process, if some were asked for.
    pub pid: Option<u32>,
    /// Endpoint id.
    pub endpoint: String,
    /// Its name.
    pub endpoint_name: String,
    /// This host's side.
    pub role: String,
    /// How many.
    pub connections: i64,
    /// Bytes sent on them.
    pub bytes_sent: i64,
    /// Bytes received on them.
    pub bytes_received: i64,
    /// Longest life in milliseconds, of those whose opening was seen.
    pub lasted_max_ms: Option<i64>,
    /// How they came to their end.
    pub why: BTreeMap<String, i64>,
}

/// A process, or a group, at an endpoint.
type Key = (String, Option<u32>, String, String);

impl Asked {
    /// Whether it is about this endpoint.
    fn wants_endpoint(&self, key: &str, name: &str) -> bool {
        self.endpoints.is_empty() || self.endpoints.iter().any(|wanted| wanted == key || wanted == name)
    }
}

const GROUPS: &str = "
SELECT g.label, NULL, e.key, e.name, e.role, s.open, s.opened, s.closed
FROM group_series s JOIN launcher_group g ON g.id = s.launcher_group JOIN endpoint e ON e.id = s.endpoint
WHERE s.at_ms >= ?1 AND s.at_ms <= ?2 ORDER BY s.at_ms, s.rowid";

const PROCESSES: &str = "
SELECT p.comm, p.pid, e.key, e.name, e.role, s.open, s.opened, s.closed
FROM process_series s JOIN process p ON p.id = s.process JOIN endpoint e ON e.id = s.endpoint
WHERE s.at_ms >= ?1 AND s.at_ms <= ?2 ORDER BY s.at_ms, s.rowid";

const CLOSED: &str = "
SELECT coalesce(g.label, p.comm, ''), p.pid, e.key, e.name, e.role, c.why, count(*), sum(c.bytes_sent),
  sum(c.bytes_received), max(c.closed_ms - c.opened_ms)
FROM closed c JOIN endpoint e ON e.id = c.endpoint LEFT JOIN process p ON p.id = c.process
  LEFT JOIN launcher_group g ON g.id = p.launcher_group
WHERE c.closed_ms >= ?1 AND c.closed_ms <= ?2 GROUP BY 1, 2, 3, 4, 5, 6";

impl Reader {
    /// Those that changed most come first.
    pub(super) fn growth(&self, asked: &Asked) -> Result<Vec<Growth>, StoreError> {
        let by_pid = !asked.pids.is_empty();
        let mut statement = self.db.prepare(if by_pid { PROCESSES } else { GROUPS })?;
        let mut rows = statement.query(params![asked.since.unix_ms, asked.until.unix_ms])?;
        let mut all = BTreeMap::<Key, Growth>::new();
        while let Some(row) = rows.next()? {
            let (who, pid): (String, Option<u32>) = (row.get(0)?, row.get(1)?);
            let (endpoint, endpoint_name, role): (String, String, String) = (row.get(2)?, row.get(3)?, row.get(4)?);
            if !asked.wants_endpoint(&endpoint, &endpoint_name) || pid.is_some_and(|pid| !asked.pids.contains(&pid)) {
                continue;
            }
            let (open, opened, closed): (i64, i64, i64) = (row.get(5)?, row.get(6)?, row.get(7)?);
            let key = (who.clone(), pid, endpoint.clone(), role.clone());
            let growth = all.entry(key).or_insert_with(|| {
                let open_first = (open + closed - opened).max(0);
                let (open_last, open_peak) = (open_first, open_first);
                let (opened, closed) = (0, 0);
                Growth { who, pid, endpoint, endpoint_name, role, open_first, open_last, open_peak, opened, closed }
            });
            growth.open_last = open;
            growth.open_peak = growth.open_peak.max(open);
            growth.opened += opened;
            growth.closed += closed;
        }
        let mut all: Vec<Growth> = all.into_values().collect();
        all.sort_by_key(|growth| std::cmp::Reverse((growth.open_last - growth.open_first, growth.open_peak)));
        all.truncate(SUMMARIES_MAX);
        Ok(all)
    }

    /// Those with most connections come first.
    pub(super) fn closed(&self, asked: &Asked) -> Result<Vec<ClosedSummary>, StoreError> {
        let mut statement = self.db.prepare(CLOSED)?;
        let mut rows = statement.query(params![asked.since.unix_ms, asked.until.unix_ms])?;
        let mut all = BTreeMap::<Key, ClosedSummary>::new();
        while let Some(row) = rows.next()? {
            let pid: Option<u32> = row.get(1)?;
            let (endpoint, endpoint_name, role): (String, String, String) = (row.get(2)?, row.get(3)?, row.get(4)?);
            let by_pid = !asked.pids.is_empty();
            let is_wanted = !by_pid || pid.is_some_and(|pid| asked.pids.contains(&pid));
            if !is_wanted || !asked.wants_endpoint(&endpoint, &endpoint_name) {
                continue;
            }
            let (who, pid): (String, Option<u32>) = (row.get(0)?, pid.filter(|_| by_pid));
            let key = (who.clone(), pid, endpoint.clone(), role.clone());
            let empty = || ClosedSummary { who, pid, endpoint, endpoint_name, role, ..ClosedSummary::default() };
            let sum = all.entry(key).or_insert_with(empty);
            let connections: i64 = row.get(6)?;
            *sum.why.entry(row.get(5)?).or_default() += connections;
            sum.connections += connections;
            sum.bytes_sent = sum.bytes_sent.saturating_add(row.get(7)?);
            sum.bytes_received = sum.bytes_received.saturating_add(row.get(8)?);
            sum.lasted_max_ms = sum.lasted_max_ms.max(row.get(9)?);
        }
        let mut all: Vec<ClosedSummary> = all.into_values().collect();
        all.sort_by_key(|sum| std::cmp::Reverse(sum.connections));
        all.truncate(SUMMARIES_MAX);
        Ok(all)
    }
}
