//! The flight recorder: what happened on this host, kept on disk for a post-mortem of last night.
//!
//! ```text
//! actor -> tap (bounded rates) -> [bounded queue] -> writer (a thread) -> SQLite in the state directory
//!                                                                              |
//!                          `history`, `snapshot --at`  <- rebuild <- reader <--+
//! ```
//!
//! The tracer never waits for it: what finds the queue full, or the disk away, is counted and left out. Knows neither
//! HTTP nor commands.

mod closed;
mod moment;
mod prune;
mod read;
mod rebuild;
mod roll;
mod schema;
mod series;
mod store;
mod summary;
mod tap;
mod writer;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use closed::Closed;
pub use read::{Asked, HISTORY_SCHEMA, Line, Reader, What};
pub use rebuild::{Rebuilt, RebuiltSnapshot};
pub use schema::VERSION;
pub use store::{FILE, Store, Syncing};
pub use tap::{CLOSED_PER_S_MAX, Tap};
pub use writer::{Writer, spawn, spawn_whole};

/// Steps of the series.
pub const SAMPLE_EVERY: Duration = Duration::from_secs(10);
/// Time between two checkpoints; two more when a finding opens, and one at the end.
pub const CHECKPOINT_EVERY: Duration = Duration::from_secs(300);
/// The same while few connections are open.
pub const SMALL_CHECKPOINT_EVERY: Duration = Duration::from_secs(60);
/// Longest time until what was handed in is on disk, at the times of what was handed in. With a second until it is handed
/// in and what waits in the queue, less than the ten seconds that may be lost.
pub const COMMIT_EVERY: Duration = Duration::from_secs(4);

/// Bounds of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Older than this goes, counted from the newest entry.
    pub max_age: Duration,
    /// The store's files take no more than this, give or take what is being written.
    pub max_bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { max_age: Duration::from_secs(7 * 86_400), max_bytes: 512 << 20 }
    }
}

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A later socklife wrote it.
    #[error(
        "the history has version {0}, and this socklife knows version {VERSION}: use the one that wrote it, or another directory"
    )]
    Newer(i64),
    /// It is not as it was written.
    #[error("{0}")]
    Damaged(String),
    /// There is none.
    #[error("there is no history in {0}: give the --state-dir of a daemon that keeps one")]
    Absent(String),
    /// Not in it.
    #[error("{0}")]
    OutOfRange(String),
    /// The file system says no.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// SQLite says no.
    #[error("{0}")]
    Sql(rusqlite::Error),
    /// Bytes that are not what they should be.
    #[error("a checkpoint cannot be read: {0}")]
    Json(#[from] serde_json::Error),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
                Self::Damaged(error.to_string())
            }
            _ => Self::Sql(error),
        }
    }
}

/// What a store's run is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// When it began, in milliseconds since 1970.
    pub started_ms: i64,
    /// `live`, or `recording`.
    pub source: &'static str,
    /// The boot.
    pub boot_id: String,
    /// The host.
    pub hostname: String,
    /// The daemon's version.
    pub version: String,
}

/// How the store does, as `/v1/health` shows it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StoreHealth {
    /// `recording`, `paused` or `off`.
    pub state: String,
    /// Why it is paused or off; null while it records.
    pub reason: Option<String>,
    /// Rows written since the start.
    pub kept: u64,
    /// Rows that were not kept since the start: the disk was away, or slower than they came.
    pub not_kept: u64,
    /// Closed connections beyond the rate, of which the number alone is kept.
    pub summarised: u64,
}

#[derive(Debug, Default)]
struct State {
    reason: Option<String>,
    is_off: bool,
}

/// What the writer, the tap and the API know together.
#[derive(Debug, Default)]
pub struct Status {
    state: Mutex<State>,
    changed: Condvar,
    /// The store is new to the writer, or again: what is open is wanted at once.
    wants_checkpoint: AtomicBool,
    kept: AtomicU64,
    not_kept: AtomicU64,
    summarised: AtomicU64,
}

impl Status {
    /// For `/v1/health`.
    #[must_use]
    pub fn health(&self) -> StoreHealth {
        let state = self.state();
        let name = match (state.is_off, &state.reason) {
            (true, _) => "off",
            (false, Some(_)) => "paused",
            (false, None) => "recording",
        };
        StoreHealth {
            state: name.to_owned(),
            reason: state.reason.clone(),
            kept: self.kept.load(Ordering::Relaxed),
            not_kept: self.not_kept.load(Ordering::Relaxed),
            summarised: self.summarised.load(Ordering::Relaxed),
        }
    }

    /// Blocks until the store does as is wanted, or for so long.
    pub fn wait_for(&self, at_most: Duration, wanted: impl Fn(&StoreHealth) -> bool) -> StoreHealth {
        let until = Instant::now() + at_most;
        let mut state = self.state();
        loop {
            drop(state);
            let health = self.health();
            let left = until.saturating_duration_since(Instant::now());
            if wanted(&health) || left.is_zero() {
                return health;
            }
            state = self.state();
            if state.reason == health.reason {
                let waited = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
                state = waited.0;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, reason: Option<String>, is_off: bool) {
        *self.state() = State { reason, is_off };
        self.changed.notify_all();
    }

    fn count_kept(&self, rows: u64) {
        self.kept.fetch_add(rows, Ordering::Relaxed);
    }

    fn count_not_kept(&self, rows: u64) {
        self.not_kept.fetch_add(rows, Ordering::Relaxed);
    }

    fn count_summarised(&self, rows: u64) {
        self.summarised.fetch_add(rows, Ordering::Relaxed);
    }
}

/// Where a running daemon's history is, and how it does: for whoever answers questions about it.
#[derive(Clone, Debug)]
pub struct Access {
    /// The state directory.
    pub dir: std::path::PathBuf,
    /// How it does.
    pub status: Arc<Status>,
    /// The queue to the writer, to have what waits there written first.
    pub flush: Flusher,
}

impl Access {
    /// A reader of all that was handed in before this call, as far as the disk takes it. Blocks.
    pub fn reader(&self) -> Result<Reader, StoreError> {
        self.flush.flush();
        Reader::open(&self.dir)
    }
}

pub use writer::Flusher;
