//! Keeps the store within its bounds, in small steps.

use rusqlite::{Connection, params};

use super::store::integer;
use super::{Bounds, StoreError, schema};

/// SQLite's default.
pub const PAGE_BYTES: i64 = 4_096;
/// Rows that go at once.
const ROWS: i64 = 5_000;
/// Free pages that go back to the file system at once.
const PAGES: i64 = 2_000;
/// A store that is full loses this part of its time at once.
const PART: i64 = 20;

/// Pages that may wait in the write-ahead log.
pub fn wal_pages(bounds: Bounds) -> i64 {
    (integer(bounds.max_bytes) / 16 / PAGE_BYTES).clamp(16, 1_000)
}

/// Deletes what is too old, or the oldest of what is too much; some rows of each. How many processes went.
pub fn step(db: &Connection, bounds: Bounds) -> Result<usize, StoreError> {
    let (mut oldest, mut newest) = (i64::MAX, i64::MIN);
    for (table, at) in schema::TIMED {
        let (first, last): (Option<i64>, Option<i64>) = (
            db.prepare_cached(&format!("SELECT min({at}) FROM {table}"))?.query_row([], |row| row.get(0))?,
            db.prepare_cached(&format!("SELECT max({at}) FROM {table}"))?.query_row([], |row| row.get(0))?,
        );
        oldest = oldest.min(first.unwrap_or(i64::MAX));
        newest = newest.max(last.unwrap_or(i64::MIN));
    }
    if newest < oldest {
        return Ok(0);
    }
    let max_age_ms = i64::try_from(bounds.max_age.as_millis()).unwrap_or(i64::MAX);
    let mut cutoff = newest.saturating_sub(max_age_ms);
    if used_bytes(db)? > integer(bounds.max_bytes) - 2 * wal_pages(bounds) * PAGE_BYTES {
        cutoff = cutoff.max(oldest + ((newest - oldest) / PART).max(1_000));
    }
    if oldest >= cutoff {
        return Ok(0);
    }
    for (table, at) in schema::TIMED {
        let delete = format!(
            "DELETE FROM {table} WHERE rowid IN
             (SELECT rowid FROM {table} WHERE {at} < ?1 ORDER BY {at} LIMIT ?2)"
        );
        db.prepare_cached(&delete)?.execute(params![cutoff, ROWS])?;
    }
    forget(db, cutoff)
}

/// Runs and processes that nothing of what is left can be about.
fn forget(db: &Connection, cutoff: i64) -> Result<usize, StoreError> {
    db.prepare_cached("DELETE FROM run WHERE last_ms < ?1 AND id < (SELECT max(id) FROM run)")?.execute([cutoff])?;
    // One that was gone before anybody knew who it was has no end.
    let over =
        "SELECT id FROM process WHERE ended_ms < ?1 OR (identity IS NULL AND first_ms < ?1) ORDER BY id LIMIT ?2";
    Ok(db.prepare_cached(&format!("DELETE FROM process WHERE id IN ({over})"))?.execute(params![cutoff, ROWS])?)
}

/// Gives free pages back to the file system; outside of any transaction.
pub fn shrink(db: &Connection) -> Result<(), StoreError> {
    let free: i64 = db.prepare_cached("PRAGMA freelist_count")?.query_row([], |row| row.get(0))?;
    if free > PAGES / 4 || (free > 16 && free * 4 > pages(db)?) {
        let mut vacuum = db.prepare(&format!("PRAGMA incremental_vacuum({PAGES})"))?;
        let mut rows = vacuum.query([])?;
        while rows.next()?.is_some() {}
    }
    Ok(())
}

fn pages(db: &Connection) -> Result<i64, StoreError> {
    Ok(db.prepare_cached("PRAGMA page_count")?.query_row([], |row| row.get(0))?)
}

fn used_bytes(db: &Connection) -> Result<i64, StoreError> {
    let free: i64 = db.prepare_cached("PRAGMA freelist_count")?.query_row([], |row| row.get(0))?;
    Ok((pages(db)? - free) * PAGE_BYTES)
}
