//! The file: opened with care, written in transactions. One owner, the writer's thread.

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};
use tracer_core::snapshot::{Completeness, Snapshot};
use tracer_core::time::WallTime;

use super::series::Series;
use super::tap::Second;
use super::{Bounds, Run, StoreError, prune, schema};

/// The store's file in the state directory.
pub const FILE: &str = "history.db";
/// Damaged files that are kept.
const ASIDE_MAX: usize = 2;
/// How long the check at the start may take: a store that is larger is taken as it is.
const CHECK_WITHIN: Duration = Duration::from_secs(5);
/// A checkpoint may take this part of the store's bytes.
const CHECKPOINT_PART: u64 = 8;

/// How sure a commit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syncing {
    /// On the disk: it survives a loss of power.
    Full,
    /// With the kernel: it survives the end of the process.
    Normal,
}

/// The store, for its writer.
#[derive(Debug)]
pub struct Store {
    db: Connection,
    bounds: Bounds,
    run: Option<i64>,
    pub(super) series: Series,
    /// Rows written since they were last asked for, and those of the open transaction.
    rows: u64,
    open_rows: Option<u64>,
    set_aside: Option<String>,
}

impl Store {
    /// Opens the store, makes it, or sets a damaged one aside and begins a new one.
    pub fn open(dir: &Path, bounds: Bounds, syncing: Syncing, is_checked: bool) -> Result<Self, StoreError> {
        let path = dir.join(FILE);
        let mut set_aside = None;
        let db = match connect(&path, bounds, syncing, is_checked) {
            Err(StoreError::Damaged(why)) => {
                let aside = put_aside(dir, &path)?;
                set_aside = Some(format!("{} ({why})", aside.display()));
                connect(&path, bounds, syncing, false)?
            }
            opened => opened?,
        };
        Ok(Self { db, bounds, run: None, series: Series::default(), rows: 0, open_rows: None, set_aside })
    }

    /// Where a damaged store is now, and why, if there was one.
    pub fn take_set_aside(&mut self) -> Option<String> {
        self.set_aside.take()
    }

    /// Rows committed since the last call.
    pub fn take_rows(&mut self) -> u64 {
        std::mem::take(&mut self.rows)
    }

    /// Rows of the transaction that is open.
    #[must_use]
    pub fn uncommitted(&self) -> u64 {
        self.open_rows.unwrap_or(0)
    }

    /// A run begins, or goes on after a pause; its number.
    pub fn begin_run(&mut self, run: &Run, known: Option<i64>) -> Result<i64, StoreError> {
        self.begin()?;
        let goes_on = "SELECT id FROM run WHERE id = ?1 AND started_ms = ?2 AND boot_id = ?3";
        let goes_on = self.db.query_row(goes_on, params![known, run.started_ms, run.boot_id], |row| row.get(0));
        let id = match goes_on.optional()? {
            Some(id) => id,
            None => {
                // Of those that an earlier run knew, no more is known until they show again.
                self.db.execute(
                    "UPDATE process SET ended_ms = (SELECT max(last_ms) + 1 FROM run) WHERE ended_ms IS NULL",
                    [],
                )?;
                self.db.execute(
                    "INSERT INTO run (started_ms, last_ms, source, boot_id, hostname, version)
                     VALUES (?1, ?1, ?2, ?3, ?4, ?5)",
                    params![run.started_ms, run.source, run.boot_id, run.hostname, run.version],
                )?;
                self.db.last_insert_rowid()
            }
        };
        self.run = Some(id);
        self.commit()?;
        Ok(id)
    }

    /// The run is over.
    pub fn end_run(&mut self, at: Option<WallTime>) -> Result<(), StoreError> {
        self.begin()?;
        let end = "UPDATE run SET last_ms = max(last_ms, ifnull(?2, last_ms)),
                   stopped_ms = max(last_ms, ifnull(?2, last_ms)) WHERE id = ?1";
        self.db.execute(end, params![self.run, at.map(|at| at.unix_ms)])?;
        self.commit()?;
        Ok(self.db.pragma_update(None, "wal_checkpoint", "TRUNCATE").or_else(ignore_rows)?)
    }

    /// What happened within a second.
    pub fn second(&mut self, second: &Second) -> Result<(), StoreError> {
        self.begin()?;
        let at = second.at.unix_ms;
        self.db
            .prepare_cached("UPDATE run SET last_ms = max(last_ms, ?2) WHERE id = ?1")?
            .execute(params![self.run, at])?;
        for closed in &second.closed {
            let endpoint = self.series.endpoint(
                &self.db,
                (&closed.endpoint, closed.role),
                (&closed.endpoint, &closed.database),
            )?;
            let process = match &closed.opener {
                Some((pid, start_ms, comm)) => Some(self.series.process(&self.db, (*pid, *start_ms), comm, at)?),
                None => None,
            };
            self.db
                .prepare_cached("INSERT INTO closed VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)")?
                .execute(params![
                    closed.opened_ms,
                    closed.closed_ms,
                    endpoint,
                    process,
                    closed.closer_pid,
                    closed.netns,
                    closed.local,
                    closed.remote,
                    integer(closed.bytes_sent),
                    integer(closed.bytes_received),
                    closed.retransmits,
                    closed.why,
                    closed.error,
                ])?;
        }
        for line in &second.findings {
            let found = &line.finding;
            let change = serde_json::to_value(line.change)?;
            self.db.prepare_cached("INSERT INTO finding VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)")?.execute(
                params![
                    line.at.unix_ms,
                    change.as_str(),
                    found.id,
                    found.kind.name(),
                    found.severity.name(),
                    found.subject.endpoint,
                    found.subject.launcher_group,
                    serde_json::to_string(&found.subject.pids)?,
                    found.summary,
                    serde_json::to_string(found)?,
                ],
            )?;
        }
        if let Some(loss) = &second.loss {
            for (stage, lost) in serde_json::to_value(loss)?.as_object().into_iter().flatten() {
                if let Some(lost) = lost.as_i64().filter(|lost| *lost > 0) {
                    self.db.execute("INSERT INTO loss VALUES (?1, ?2, ?3)", params![at, stage, lost])?;
                }
            }
        }
        if second.summarised > 0 {
            self.gap(second.at, second.at, "summarised", second.summarised, "more connections closed than are kept")?;
        }
        self.add_rows(second.rows());
        Ok(())
    }

    /// Counts of this moment; all of them if `is_whole`, else those that changed.
    pub fn outline(&mut self, snapshot: &Snapshot, is_whole: bool) -> Result<(), StoreError> {
        self.begin()?;
        let (rows, left_out) = self.series.sample(&self.db, snapshot, is_whole)?;
        if left_out > 0 {
            let at = snapshot.captured_at;
            self.gap(at, at, "series", left_out, "more counts changed than are kept")?;
        }
        self.add_rows(rows);
        self.prune()
    }

    /// Everything that is open at this moment.
    pub fn checkpoint(&mut self, snapshot: &Snapshot) -> Result<(), StoreError> {
        self.begin()?;
        let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
        serde_json::to_writer(&mut gz, snapshot)?;
        let blob = gz.finish()?;
        let at = snapshot.captured_at;
        if blob.len() as u64 > self.bounds.max_bytes / CHECKPOINT_PART {
            return self.gap(at, at, "checkpoint", 1, "too large for history.max_bytes");
        }
        let open: i64 = snapshot.endpoints.iter().map(|endpoint| i64::from(endpoint.open)).sum();
        let completeness = match snapshot.capture.completeness {
            Completeness::Exact => "exact",
            Completeness::LowerBound => "lower_bound",
            Completeness::Unknown => "unknown",
        };
        let connections = i64::try_from(snapshot.connections.len()).unwrap_or(i64::MAX);
        self.db.prepare_cached("INSERT INTO checkpoint VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(params![
            at.unix_ms,
            connections,
            open,
            completeness,
            blob
        ])?;
        self.add_rows(1);
        Ok(())
    }

    /// Something is missing here.
    pub fn gap(
        &mut self,
        from: WallTime,
        until: WallTime,
        what: &str,
        rows: u64,
        reason: &str,
    ) -> Result<(), StoreError> {
        self.begin()?;
        self.db.prepare_cached("INSERT INTO gap VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(params![
            from.unix_ms,
            until.unix_ms,
            what,
            integer(rows),
            reason
        ])?;
        self.add_rows(1);
        Ok(())
    }

    /// Deletes some of what is too old or too much.
    pub fn prune(&mut self) -> Result<(), StoreError> {
        self.begin()?;
        if prune::step(&self.db, self.bounds)? > 0 {
            self.series.forget_processes();
        }
        Ok(())
    }

    /// What was written is kept from here on.
    pub fn commit(&mut self) -> Result<(), StoreError> {
        if let Some(rows) = self.open_rows {
            self.db.execute_batch("COMMIT")?;
            self.open_rows = None;
            self.rows += rows;
            prune::shrink(&self.db)?;
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), StoreError> {
        if self.open_rows.is_none() {
            self.db.execute_batch("BEGIN IMMEDIATE")?;
            self.open_rows = Some(0);
        }
        Ok(())
    }

    fn add_rows(&mut self, rows: u64) {
        self.open_rows = Some(self.open_rows.unwrap_or(0) + rows);
    }
}

/// SQLite's integers are signed.
pub(super) fn integer(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A pragma that answers with a row is no failure.
fn ignore_rows(error: rusqlite::Error) -> rusqlite::Result<()> {
    if matches!(error, rusqlite::Error::ExecuteReturnedResults) { Ok(()) } else { Err(error) }
}

fn connect(path: &Path, bounds: Bounds, syncing: Syncing, is_checked: bool) -> Result<Connection, StoreError> {
    // Made by hand, so that nobody else can read it at any moment; what SQLite puts beside it has the same mode.
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o640).open(path)?;
    if file.metadata()?.permissions().mode() & 0o137 != 0 {
        file.set_permissions(Permissions::from_mode(0o640))?;
    }
    drop(file);
    let mut db =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.busy_timeout(Duration::from_secs(2))?;
    schema::prepare(&db)?;
    db.pragma_update(None, "journal_mode", "WAL").or_else(ignore_rows)?;
    db.pragma_update(None, "synchronous", if syncing == Syncing::Full { "FULL" } else { "NORMAL" })?;
    let wal_pages = prune::wal_pages(bounds);
    db.pragma_update(None, "wal_autocheckpoint", wal_pages).or_else(ignore_rows)?;
    db.pragma_update(None, "journal_size_limit", wal_pages * prune::PAGE_BYTES).or_else(ignore_rows)?;
    if is_checked {
        check(&mut db)?;
    }
    Ok(db)
}

/// Whether the file is as it was written, as far as that can be told in time.
fn check(db: &mut Connection) -> Result<(), StoreError> {
    let until = Instant::now() + CHECK_WITHIN;
    db.progress_handler(100_000, Some(move || Instant::now() >= until))?;
    let said = db.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    db.progress_handler(0, None::<fn() -> bool>)?;
    match said {
        Ok(said) if said == "ok" => Ok(()),
        Ok(said) => Err(StoreError::Damaged(said)),
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted) => {
            tracing::info!("the history is too large to be checked whole at the start");
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Renames a damaged store, and forgets the oldest of those that are more than are kept.
fn put_aside(dir: &Path, path: &Path) -> Result<PathBuf, StoreError> {
    let prefix = format!("{FILE}.damaged-");
    let mut kept: Vec<PathBuf> = fs::read_dir(dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            name.starts_with(&prefix) && !name.ends_with("-wal")
        })
        .collect();
    kept.sort();
    while kept.len() >= ASIDE_MAX {
        let oldest = kept.remove(0);
        fs::remove_file(&oldest)?;
        let _ = fs::remove_file(beside(&oldest, "-wal"));
    }
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%.3fZ").to_string();
    let aside = dir.join(format!("{prefix}{now}"));
    fs::rename(path, &aside)?;
    // What was not in the file yet belongs to it; the index of that is made anew.
    let _ = fs::rename(beside(path, "-wal"), beside(&aside, "-wal"));
    let _ = fs::remove_file(beside(path, "-shm"));
    Ok(aside)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
