//! A snapshot of a moment that is over: the checkpoint before it, and what is known to have happened since.

use std::io::Read as _;

use flate2::read::GzDecoder;
use rusqlite::{OptionalExtension as _, params};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracer_core::snapshot::{Completeness, Snapshot};
use tracer_core::time::WallTime;

use super::read::Reader;
use super::{StoreError, moment, roll};

/// Largest checkpoint, unpacked.
const CHECKPOINT_BYTES_MAX: u64 = 512 << 20;

/// A v1 snapshot that says how it was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RebuiltSnapshot {
    /// The snapshot.
    #[serde(flatten)]
    pub snapshot: Snapshot,
    /// How it was made.
    pub rebuilt: Rebuilt,
}

/// How a snapshot was made out of the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rebuilt {
    /// The moment that was asked for.
    pub asked_at: WallTime,
    /// The checkpoint it starts from: holders, states, bytes and idle times of connections are as of then.
    pub checkpoint_at: WallTime,
    /// The last counts that changed before that moment; those since are made of what opened and closed.
    pub counts_at: WallTime,
    /// Seconds from the moment that the snapshot is of to the one that was asked for.
    pub age_s: i64,
    /// Whether a daemon was watching then.
    pub watched: bool,
    /// Events that were lost, or not kept, since the checkpoint.
    pub gaps: u64,
}

/// A checkpoint, and the run that made it.
pub(super) struct Base {
    pub at_ms: i64,
    pub snapshot: Snapshot,
}

impl Reader {
    /// The state of that moment, or the last one known before it.
    pub fn snapshot_at(&self, asked: WallTime) -> Result<RebuiltSnapshot, StoreError> {
        let at_ms = asked.unix_ms;
        let Some(base) = self.checkpoint("at_ms <= ?1 ORDER BY at_ms DESC, rowid DESC", at_ms)? else {
            let first: Option<i64> = self.db.query_row("SELECT min(at_ms) FROM checkpoint", [], |row| row.get(0))?;
            return Err(StoreError::OutOfRange(match first {
                Some(first) => format!("{asked} is not in the history: it begins at {}", WallTime { unix_ms: first }),
                None => "there is nothing in the history yet: try again in a minute".to_owned(),
            }));
        };
        // The run that made the checkpoint says until when anything is known.
        let last_ms: Option<i64> = self
            .db
            .query_row(
                "SELECT last_ms FROM run WHERE started_ms <= ?1 + 1000 ORDER BY started_ms DESC, id DESC LIMIT 1",
                [base.at_ms],
                |row| row.get(0),
            )
            .optional()?;
        let end_ms = at_ms.min(last_ms.unwrap_or(base.at_ms)).max(base.at_ms);
        let next = self.checkpoint("at_ms > ?1 ORDER BY at_ms, rowid", end_ms)?;
        let is_followed = next.is_some();
        let mut snapshot = base.snapshot;
        let from_ms = base.at_ms;
        snapshot.captured_at = WallTime { unix_ms: end_ms };
        roll::connections(&self.db, &mut snapshot, next.as_ref().map(|next| &next.snapshot), (from_ms, end_ms))?;
        let counts_ms = roll::endpoints(&self.db, &mut snapshot, (from_ms, end_ms))?;
        roll::processes(&self.db, &mut snapshot, (from_ms, end_ms))?;
        moment::counts(&self.db, &mut snapshot, (counts_ms, end_ms))?;
        roll::groups(&self.db, &mut snapshot)?;
        roll::findings(&self.db, &mut snapshot, (from_ms, end_ms))?;
        let gaps = roll::losses(&self.db, &mut snapshot, (from_ms, end_ms))?;
        let adds_up = roll::adds_up(&snapshot);
        let is_same = end_ms == from_ms && at_ms == end_ms;
        let watched = last_ms.is_some_and(|last| at_ms <= last);
        if !is_same && (gaps > 0 || !adds_up || !is_followed || !watched) {
            snapshot.capture.completeness = lesser(snapshot.capture.completeness);
            snapshot.capture.totals = lesser(snapshot.capture.totals);
        }
        if !is_same {
            // Who holds what was looked up for the checkpoint alone.
            snapshot.capture.holders = lesser(snapshot.capture.holders);
        }
        let rebuilt = Rebuilt {
            asked_at: asked,
            checkpoint_at: WallTime { unix_ms: from_ms },
            counts_at: WallTime { unix_ms: counts_ms },
            age_s: (at_ms - end_ms) / 1_000,
            watched,
            gaps,
        };
        Ok(RebuiltSnapshot { snapshot, rebuilt })
    }

    fn checkpoint(&self, which: &str, at_ms: i64) -> Result<Option<Base>, StoreError> {
        let found: Option<(i64, Vec<u8>)> = self
            .db
            .query_row(
                &format!("SELECT at_ms, snapshot FROM checkpoint WHERE {which} LIMIT 1"),
                params![at_ms],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .optional()?;
        let Some((at_ms, blob)) = found else { return Ok(None) };
        let mut json = Vec::new();
        GzDecoder::new(blob.as_slice()).take(CHECKPOINT_BYTES_MAX).read_to_end(&mut json)?;
        Ok(Some(Base { at_ms, snapshot: serde_json::from_slice(&json)? }))
    }
}

fn lesser(completeness: Completeness) -> Completeness {
    match completeness {
        Completeness::Exact => Completeness::LowerBound,
        other => other,
    }
}
