//! The store's tables, their version, and how a file of another version is told apart. docs/history.md says the same for
//! people.

use rusqlite::Connection;

use super::StoreError;

/// Version of the tables (`PRAGMA user_version`). Whatever changes them changes it, and comes with a migration.
pub const VERSION: i64 = 1;
/// `PRAGMA application_id`: "sock".
const APPLICATION_ID: i64 = 0x736f_636b;

/// Times are milliseconds since 1970-01-01 UTC.
const TABLES: &str = "
CREATE TABLE run (
  id INTEGER PRIMARY KEY, started_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL, stopped_ms INTEGER,
  source TEXT NOT NULL, boot_id TEXT NOT NULL, hostname TEXT NOT NULL, version TEXT NOT NULL);
CREATE TABLE endpoint (
  id INTEGER PRIMARY KEY, key TEXT NOT NULL, role TEXT NOT NULL, name TEXT NOT NULL, database TEXT NOT NULL,
  max_connections INTEGER, max_source TEXT, UNIQUE (key, role));
CREATE TABLE launcher_group (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, label TEXT NOT NULL);
CREATE TABLE process (
  id INTEGER PRIMARY KEY, pid INTEGER NOT NULL, start_ms INTEGER NOT NULL, first_ms INTEGER NOT NULL, ended_ms INTEGER,
  comm TEXT NOT NULL, exe TEXT, script TEXT, user TEXT, systemd_unit TEXT, container_id TEXT,
  launcher_group INTEGER, identity TEXT);
CREATE INDEX process_pid ON process (pid);
CREATE INDEX process_first ON process (first_ms);
CREATE TABLE endpoint_series (
  at_ms INTEGER NOT NULL, endpoint INTEGER NOT NULL, open INTEGER NOT NULL, opened INTEGER NOT NULL,
  closed INTEGER NOT NULL, failed INTEGER NOT NULL, in_use INTEGER NOT NULL, max_connections INTEGER);
CREATE INDEX endpoint_series_at ON endpoint_series (at_ms);
CREATE TABLE group_series (
  at_ms INTEGER NOT NULL, launcher_group INTEGER NOT NULL, endpoint INTEGER NOT NULL, instances INTEGER NOT NULL,
  open INTEGER NOT NULL, opened INTEGER NOT NULL, closed INTEGER NOT NULL);
CREATE INDEX group_series_at ON group_series (at_ms);
CREATE TABLE process_series (
  at_ms INTEGER NOT NULL, process INTEGER NOT NULL, endpoint INTEGER NOT NULL, open INTEGER NOT NULL,
  opened INTEGER NOT NULL, closed INTEGER NOT NULL);
CREATE INDEX process_series_at ON process_series (at_ms);
CREATE TABLE finding (
  at_ms INTEGER NOT NULL, change TEXT NOT NULL, finding TEXT NOT NULL, kind TEXT NOT NULL, severity TEXT NOT NULL,
  endpoint TEXT, launcher_group TEXT, pids TEXT NOT NULL, summary TEXT NOT NULL, json TEXT NOT NULL);
CREATE INDEX finding_at ON finding (at_ms);
CREATE TABLE closed (
  opened_ms INTEGER, closed_ms INTEGER NOT NULL, endpoint INTEGER NOT NULL, process INTEGER, closer_pid INTEGER,
  netns INTEGER NOT NULL, local TEXT NOT NULL, remote TEXT NOT NULL, bytes_sent INTEGER NOT NULL,
  bytes_received INTEGER NOT NULL, retransmits INTEGER NOT NULL, why TEXT NOT NULL, error TEXT);
CREATE INDEX closed_at ON closed (closed_ms);
CREATE TABLE loss (at_ms INTEGER NOT NULL, stage TEXT NOT NULL, lost INTEGER NOT NULL);
CREATE INDEX loss_at ON loss (at_ms);
CREATE TABLE gap (
  at_ms INTEGER NOT NULL, until_ms INTEGER NOT NULL, what TEXT NOT NULL, rows INTEGER NOT NULL, reason TEXT NOT NULL);
CREATE INDEX gap_at ON gap (at_ms);
CREATE TABLE checkpoint (
  at_ms INTEGER NOT NULL, connections INTEGER NOT NULL, open INTEGER NOT NULL, completeness TEXT NOT NULL,
  snapshot BLOB NOT NULL);
CREATE INDEX checkpoint_at ON checkpoint (at_ms);
CREATE VIEW closed_connections AS
  SELECT strftime('%Y-%m-%dT%H:%M:%fZ', c.closed_ms / 1000.0, 'unixepoch') AS closed_at,
    (c.closed_ms - c.opened_ms) / 1000.0 AS lasted_s, e.key AS endpoint, e.name AS endpoint_name, e.role, p.pid, p.comm,
    p.script, g.label AS launcher_group, c.local, c.remote, c.bytes_sent, c.bytes_received, c.why, c.error, c.closer_pid,
    c.opened_ms, c.closed_ms
  FROM closed c JOIN endpoint e ON e.id = c.endpoint LEFT JOIN process p ON p.id = c.process
    LEFT JOIN launcher_group g ON g.id = p.launcher_group;
CREATE VIEW group_counts AS
  SELECT strftime('%Y-%m-%dT%H:%M:%fZ', s.at_ms / 1000.0, 'unixepoch') AS at, g.label AS launcher_group,
    e.key AS endpoint, e.role, s.instances, s.open, s.opened, s.closed, s.at_ms
  FROM group_series s JOIN launcher_group g ON g.id = s.launcher_group JOIN endpoint e ON e.id = s.endpoint;
";

/// The tables that grow with time, and their column of time: what is old goes from these.
pub const TIMED: [(&str, &str); 8] = [
    ("endpoint_series", "at_ms"),
    ("group_series", "at_ms"),
    ("process_series", "at_ms"),
    ("finding", "at_ms"),
    ("closed", "closed_ms"),
    ("loss", "at_ms"),
    ("gap", "at_ms"),
    ("checkpoint", "at_ms"),
];

/// Makes the tables of an empty file; leaves those of this version; refuses any other.
pub fn prepare(db: &Connection) -> Result<(), StoreError> {
    let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables > 0 {
        return check(db);
    }
    db.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.execute_batch(&format!(
        "BEGIN IMMEDIATE; {TABLES} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}; COMMIT;"
    ))?;
    Ok(())
}

/// Whether this version can read what is there.
pub fn check(db: &Connection) -> Result<(), StoreError> {
    let number = |pragma: &str| db.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i64>(0));
    if number("application_id")? != APPLICATION_ID {
        return Err(StoreError::Damaged("it is no history of socklife's".to_owned()));
    }
    match number("user_version")? {
        VERSION => Ok(()),
        newer if newer > VERSION => Err(StoreError::Newer(newer)),
        other => Err(StoreError::Damaged(format!("it has version {other}, which never was"))),
    }
}
