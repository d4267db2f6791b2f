//! Reads the store, beside the daemon that writes it or without one: what happened between two moments.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, params};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracer_core::finding::{Change, Finding, Kind};
use tracer_core::time::WallTime;

use super::{FILE, StoreError, schema};

/// The `schema` of a line of `socklife history --json`.
pub const HISTORY_SCHEMA: &str = "socklife.history/v1";
/// Lines of one answer.
const LINES_MAX: usize = 10_000;
/// How long one answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// From this moment on.
    pub since: WallTime,
    /// Up to this moment.
    pub until: WallTime,
    /// Only what concerns one of these processes.
    pub pids: Vec<u32>,
    /// Only what concerns one of these endpoints, by id or name.
    pub endpoints: Vec<String>,
    /// Only findings of these kinds, and nothing else.
    pub kinds: Vec<Kind>,
}

/// One line of the answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Line {
    /// [`HISTORY_SCHEMA`].
    pub schema: String,
    /// When it happened; for a summary, when it ends.
    pub at: WallTime,
    /// What it was.
    #[serde(flatten)]
    pub what: What,
}

/// What a [`Line`] tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "what", rename_all = "snake_case")]
#[expect(missing_docs, reason = "docs/history.md says what each is")]
pub enum What {
    RunStarted {
        source: String,
        boot_id: String,
        version: String,
    },
    RunStopped {},
    /// The daemon was killed, or is running still: nothing later is known of it.
    RunEnds {},
    Finding {
        change: Change,
        finding: Box<Finding>,
    },
    Loss {
        stage: String,
        lost: u64,
    },
    Gap {
        since: WallTime,
        kind: String,
        rows: u64,
        reason: String,
    },
    Growth(super::summary::Growth),
    Closed(super::summary::ClosedSummary),
    Truncated {
        lines: u64,
    },
}

impl Line {
    /// With its schema.
    #[must_use]
    pub fn new(at_ms: i64, what: What) -> Self {
        Self { schema: HISTORY_SCHEMA.to_owned(), at: WallTime { unix_ms: at_ms }, what }
    }
}

/// The store, for those who read it.
#[derive(Debug)]
pub struct Reader {
    pub(super) db: Connection,
}

impl Reader {
    /// Opens the store of a state directory; changes nothing in it.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(FILE);
        if !path.try_exists()? {
            return Err(StoreError::Absent(dir.display().to_string()));
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut db = match usable(Connection::open_with_flags(&path, flags)?) {
            Ok(db) => db,
            // Where nothing may be written beside it, and nobody writes: the file alone is the store.
            Err(StoreError::Sql(_)) if !dir.join(format!("{FILE}-wal")).try_exists()? => {
                let uri = format!("file:{}?immutable=1", uri_path(&path));
                usable(Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)?)?
            }
            Err(error) => return Err(error),
        };
        let until = Instant::now() + ANSWER_WITHIN;
        db.progress_handler(100_000, Some(move || Instant::now() >= until))?;
        Ok(Self { db })
    }

    /// What happened, in order, and then what it amounts to.
    pub fn history(&self, asked: &Asked) -> Result<Vec<Line>, StoreError> {
        // Nothing is known of later.
        let newest: Option<i64> = self.db.query_row("SELECT max(last_ms) FROM run", [], |row| row.get(0))?;
        let until = asked.until.min(WallTime { unix_ms: newest.unwrap_or(0) });
        let asked = &Asked { until, ..asked.clone() };
        let mut lines = self.findings(asked)?;
        if asked.kinds.is_empty() {
            lines.extend(self.runs(asked)?);
            lines.extend(self.losses(asked)?);
            lines.extend(self.gaps(asked)?);
        }
        lines.sort_by_key(|line| line.at);
        if lines.len() > LINES_MAX {
            let left_out = lines.len() - LINES_MAX;
            lines.truncate(LINES_MAX);
            let last = lines.last().map_or(0, |line| line.at.unix_ms);
            lines.push(Line::new(last, What::Truncated { lines: left_out as u64 }));
        }
        if asked.kinds.is_empty() {
            let until = asked.until.unix_ms;
            lines.extend(self.growth(asked)?.into_iter().map(|growth| Line::new(until, What::Growth(growth))));
            lines.extend(self.closed(asked)?.into_iter().map(|closed| Line::new(until, What::Closed(closed))));
        }
        Ok(lines)
    }

    fn findings(&self, asked: &Asked) -> Result<Vec<Line>, StoreError> {
        let mut statement = self.db.prepare(
            "SELECT at_ms, change, json FROM finding WHERE at_ms >= ?1 AND at_ms <= ?2 ORDER BY at_ms, rowid",
        )?;
        let mut rows = statement.query(params![asked.since.unix_ms, asked.until.unix_ms])?;
        let mut lines = Vec::new();
        while let Some(row) = rows.next()? {
            let change: Change = serde_json::from_value(serde_json::Value::String(row.get(1)?))?;
            let finding: Finding = serde_json::from_str(&row.get::<_, String>(2)?)?;
            let subject = &finding.subject;
            let concerns = (asked.pids.is_empty() || subject.pids.iter().any(|pid| asked.pids.contains(pid)))
                && (asked.endpoints.is_empty()
                    || subject.endpoint.as_ref().is_some_and(|endpoint| asked.endpoints.contains(endpoint)))
                && (asked.kinds.is_empty() || asked.kinds.contains(&finding.kind));
            if concerns && change != Change::Updated {
                lines.push(Line::new(row.get(0)?, What::Finding { change, finding: Box::new(finding) }));
            }
        }
        Ok(lines)
    }

    fn runs(&self, asked: &Asked) -> Result<Vec<Line>, StoreError> {
        let (since, until) = (asked.since.unix_ms, asked.until.unix_ms);
        let is_in = |at: i64| since <= at && at <= until;
        let mut statement =
            self.db.prepare("SELECT started_ms, last_ms, stopped_ms, source, boot_id, version FROM run ORDER BY id")?;
        let mut rows = statement.query([])?;
        let mut lines = Vec::new();
        while let Some(row) = rows.next()? {
            let (started, last, stopped): (i64, i64, Option<i64>) = (row.get(0)?, row.get(1)?, row.get(2)?);
            if is_in(started) {
                let what = What::RunStarted { source: row.get(3)?, boot_id: row.get(4)?, version: row.get(5)? };
                lines.push(Line::new(started, what));
            }
            match stopped {
                Some(stopped) if is_in(stopped) => lines.push(Line::new(stopped, What::RunStopped {})),
                None if is_in(last) => lines.push(Line::new(last, What::RunEnds {})),
                _ => {}
            }
        }
        Ok(lines)
    }

    fn losses(&self, asked: &Asked) -> Result<Vec<Line>, StoreError> {
        let mut statement = self.db.prepare(
            "SELECT at_ms, stage, lost FROM loss WHERE at_ms >= ?1 AND at_ms <= ?2 ORDER BY at_ms, stage LIMIT ?3",
        )?;
        let most = i64::try_from(LINES_MAX).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![asked.since.unix_ms, asked.until.unix_ms, most], |row| {
            let lost = u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0);
            Ok(Line::new(row.get(0)?, What::Loss { stage: row.get(1)?, lost }))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn gaps(&self, asked: &Asked) -> Result<Vec<Line>, StoreError> {
        let mut statement = self.db.prepare(
            "SELECT at_ms, until_ms, what, rows, reason FROM gap WHERE until_ms >= ?1 AND at_ms <= ?2
             ORDER BY at_ms LIMIT ?3",
        )?;
        let most = i64::try_from(LINES_MAX).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![asked.since.unix_ms, asked.until.unix_ms, most], |row| {
            let what = What::Gap {
                since: WallTime { unix_ms: row.get(0)? },
                kind: row.get(2)?,
                rows: u64::try_from(row.get::<_, i64>(3)?).unwrap_or(0),
                reason: row.get(4)?,
            };
            Ok(Line::new(row.get(1)?, what))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

/// Whether it can be read, and is of this version.
fn usable(db: Connection) -> Result<Connection, StoreError> {
    db.busy_timeout(Duration::from_secs(2))?;
    schema::check(&db)?;
    Ok(db)
}

/// A path inside a URI.
fn uri_path(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    let mut text = String::new();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => text.push(char::from(*byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}
