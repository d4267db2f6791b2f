//! The thread that writes, behind a bounded queue. A disk that is full, read-only or gone pauses it: said once, counted,
//! and tried again until it works.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracer_core::snapshot::Snapshot;
use tracer_core::time::WallTime;

use super::store::{Store, Syncing};
use super::tap::Second;
use super::{Access, Bounds, COMMIT_EVERY, Run, Status, StoreError};

/// Entries that wait for a live writer: half a minute and more of a disk that does not answer.
const QUEUE: usize = 32;
/// Entries that wait where the one who hands in waits, too: what is lost with the process is no more than this.
const QUEUE_WHOLE: usize = 2;
/// How long a paused writer waits before it tries again.
const RETRY_EVERY: Duration = Duration::from_secs(5);
/// How long a reader waits for what is in the queue.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);

/// How long the end of the daemon waits for what is still to be written.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// What the writer is handed.
#[derive(Debug)]
pub(super) enum Entry {
    Second(Second),
    Outline(Box<Snapshot>),
    Checkpoint(Box<Snapshot>),
    /// Write what was handed in before, and say so.
    Flush(SyncSender<()>),
    /// Nothing comes after this.
    Stop,
}

impl Entry {
    fn rows(&self) -> u64 {
        match self {
            Self::Second(second) => second.rows(),
            Self::Outline(_) | Self::Checkpoint(_) => 1,
            Self::Flush(_) | Self::Stop => 0,
        }
    }

    fn at(&self) -> Option<WallTime> {
        match self {
            Self::Second(second) => Some(second.at),
            Self::Outline(snapshot) | Self::Checkpoint(snapshot) => Some(snapshot.captured_at),
            Self::Flush(_) | Self::Stop => None,
        }
    }
}

/// The end that hands in; dropping it ends the thread once all is written.
#[derive(Debug)]
pub struct Writer {
    queue: Option<SyncSender<Entry>>,
    status: Arc<Status>,
    waits: bool,
    has_checkpoint: Arc<AtomicBool>,
    /// With what tells that it has ended.
    thread: Option<(JoinHandle<()>, Receiver<()>)>,
}

/// Has what waits in the queue written.
#[derive(Clone, Debug)]
pub struct Flusher {
    queue: SyncSender<Entry>,
}

impl Flusher {
    /// Returns when that is so, or cannot be in time.
    pub fn flush(&self) {
        let (done, is_done) = sync_channel(1);
        if self.queue.try_send(Entry::Flush(done)).is_ok() {
            let _ = is_done.recv_timeout(FLUSH_WITHIN);
        }
    }
}

impl Writer {
    /// How the store does.
    #[must_use]
    pub fn status(&self) -> &Arc<Status> {
        &self.status
    }

    /// For those who read in that directory what this one writes.
    #[must_use]
    pub fn access(&self, dir: &Path) -> Option<Access> {
        let flush = Flusher { queue: self.queue.clone()? };
        Some(Access { dir: dir.to_owned(), status: Arc::clone(&self.status), flush })
    }

    /// Whether the last checkpoint is written: two in memory would be one too many.
    pub(super) fn takes_checkpoint(&self) -> bool {
        self.waits || !self.has_checkpoint.load(Ordering::Acquire)
    }

    pub(super) fn send(&self, entry: Entry) {
        let Some(queue) = &self.queue else { return };
        let rows = entry.rows();
        let is_checkpoint = matches!(entry, Entry::Checkpoint(_));
        if is_checkpoint {
            self.has_checkpoint.store(true, Ordering::Release);
        }
        let sent = if self.waits { queue.send(entry).is_ok() } else { queue.try_send(entry).is_ok() };
        if !sent {
            self.status.count_not_kept(rows);
            if is_checkpoint {
                self.has_checkpoint.store(false, Ordering::Release);
            }
        }
    }

    /// Has everything written, and waits for that.
    pub fn finish(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let (Some(queue), Some((thread, ended))) = (self.queue.take(), self.thread.take()) else { return };
        // Readers may have the queue, too: dropping it ends nothing.
        let told = if self.waits { queue.send(Entry::Stop).is_ok() } else { queue.try_send(Entry::Stop).is_ok() };
        let is_over = |end| matches!(end, Ok(()) | Err(RecvTimeoutError::Disconnected));
        if self.waits || (told && is_over(ended.recv_timeout(STOP_WITHIN))) {
            // A panic in there was told by its hook.
            let _ = thread.join();
        } else {
            tracing::warn!("the disk is too slow for the end of the history");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.waits {
            self.end();
        }
    }
}

/// Starts a writer that the one who hands in never waits for.
pub fn spawn(dir: &Path, bounds: Bounds, run: Run) -> std::io::Result<Writer> {
    start(dir, bounds, run, false)
}

/// Starts a writer that leaves nothing out: whoever hands in waits for it.
pub fn spawn_whole(dir: &Path, bounds: Bounds, run: Run) -> std::io::Result<Writer> {
    start(dir, bounds, run, true)
}

fn start(dir: &Path, bounds: Bounds, run: Run, waits: bool) -> std::io::Result<Writer> {
    let (queue, inbox) = sync_channel(if waits { QUEUE_WHOLE } else { QUEUE });
    let status = Arc::new(Status::default());
    let has_checkpoint = Arc::new(AtomicBool::new(false));
    let work = Work {
        dir: dir.to_owned(),
        bounds,
        run,
        // A recording can be replayed again: only a live run has to survive a loss of power.
        syncing: if waits { Syncing::Normal } else { Syncing::Full },
        status: Arc::clone(&status),
        has_checkpoint: Arc::clone(&has_checkpoint),
        disk: Disk::New,
        run_id: None,
        last_at: None,
        committed_at: WallTime::default(),
        dirty: None,
    };
    let (end, ended) = sync_channel(1);
    let thread = std::thread::Builder::new().name("history".to_owned()).spawn(move || {
        work.run(&inbox);
        // Nobody may wait for it.
        let _ = end.try_send(());
    })?;
    Ok(Writer { queue: Some(queue), status, waits, has_checkpoint, thread: Some((thread, ended)) })
}

enum Disk {
    New,
    Open(Box<Store>),
    Paused { since: Option<WallTime>, reason: String, rows: u64, again: Instant },
    Off,
}

struct Work {
    dir: PathBuf,
    bounds: Bounds,
    run: Run,
    syncing: Syncing,
    status: Arc<Status>,
    has_checkpoint: Arc<AtomicBool>,
    disk: Disk,
    run_id: Option<i64>,
    last_at: Option<WallTime>,
    /// The time of the first entry of this transaction, and when it was begun.
    committed_at: WallTime,
    dirty: Option<Instant>,
}

impl Work {
    fn run(mut self, inbox: &Receiver<Entry>) {
        self.open();
        loop {
            match inbox.recv_timeout(self.patience()) {
                Ok(Entry::Stop) => break,
                Ok(entry) => self.take(entry),
                Err(RecvTimeoutError::Timeout) => self.tick(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if let Disk::Open(store) = &mut self.disk {
            let ended = store.end_run(self.last_at);
            self.status.count_kept(store.take_rows());
            if let Err(error) = ended {
                tracing::warn!(%error, "the end of the history could not be written");
            }
        }
    }

    fn patience(&self) -> Duration {
        match (&self.disk, self.dirty) {
            (Disk::Paused { again, .. }, _) => again.saturating_duration_since(Instant::now()),
            (_, Some(since)) => COMMIT_EVERY.saturating_sub(since.elapsed()),
            _ => RETRY_EVERY,
        }
    }

    fn tick(&mut self) {
        match &self.disk {
            Disk::Paused { again, .. } if Instant::now() >= *again => self.open(),
            Disk::Open(_) if self.dirty.is_some_and(|since| since.elapsed() >= COMMIT_EVERY) => self.commit(),
            _ => {}
        }
    }

    fn open(&mut self) {
        let is_first = matches!(self.disk, Disk::New);
        let opened = Store::open(&self.dir, self.bounds, self.syncing, is_first).and_then(|mut store| {
            if let Some(aside) = store.take_set_aside() {
                tracing::warn!(%aside, "the history was damaged and is set aside: a new one begins");
            }
            let id = store.begin_run(&self.run, self.run_id)?;
            Ok((store, id))
        });
        let (since, rows) = match &self.disk {
            Disk::Paused { since, rows, .. } => (*since, *rows),
            _ => (None, 0),
        };
        match opened.and_then(|(mut store, id)| {
            self.run_id = Some(id);
            if let Disk::Paused { reason, .. } = &self.disk {
                let from = since.or(self.last_at).unwrap_or_default();
                store.gap(from, self.last_at.unwrap_or(from), "paused", rows, reason)?;
                store.commit()?;
            }
            Ok(store)
        }) {
            Ok(store) => {
                if let Disk::Paused { .. } = self.disk {
                    tracing::info!(not_kept = rows, "the history goes on");
                }
                self.status.wants_checkpoint.store(true, Ordering::Release);
                self.status.set(None, false);
                self.disk = Disk::Open(Box::new(store));
                self.dirty = None;
            }
            Err(error @ StoreError::Newer(_)) => {
                tracing::error!(%error, "no history is kept");
                self.status.set(Some(error.to_string()), true);
                self.disk = Disk::Off;
            }
            Err(error) => self.pause(&error),
        }
    }

    fn take(&mut self, entry: Entry) {
        self.tick();
        if let Entry::Flush(done) = entry {
            self.commit();
            // Whoever asked has gone.
            let _ = done.try_send(());
            return;
        }
        let (at, rows) = (entry.at().unwrap_or_default(), entry.rows());
        let is_checkpoint = matches!(entry, Entry::Checkpoint(_));
        self.last_at = Some(at);
        match &mut self.disk {
            Disk::Open(store) => {
                if self.dirty.is_none() {
                    self.dirty = Some(Instant::now());
                    self.committed_at = at;
                }
                let written = match &entry {
                    Entry::Second(second) => store.second(second),
                    Entry::Outline(snapshot) => store.outline(snapshot, false),
                    Entry::Checkpoint(snapshot) => {
                        store.outline(snapshot, true).and_then(|()| store.checkpoint(snapshot))
                    }
                    Entry::Flush(_) | Entry::Stop => Ok(()),
                };
                let waited = at.unix_ms.saturating_sub(self.committed_at.unix_ms);
                match written {
                    Ok(()) if u128::try_from(waited).unwrap_or(0) >= COMMIT_EVERY.as_millis() => self.commit(),
                    Ok(()) => {}
                    Err(error) => {
                        self.pause(&error);
                        self.lose(at, rows);
                    }
                }
            }
            Disk::Paused { .. } | Disk::Off | Disk::New => self.lose(at, rows),
        }
        if is_checkpoint {
            self.has_checkpoint.store(false, Ordering::Release);
        }
    }

    /// Counts what came while nothing could be written.
    fn lose(&mut self, at: WallTime, rows: u64) {
        if let Disk::Paused { since, rows: lost, .. } = &mut self.disk {
            since.get_or_insert(at);
            *lost += rows;
        }
        self.status.count_not_kept(rows);
    }

    fn commit(&mut self) {
        let Disk::Open(store) = &mut self.disk else { return };
        self.dirty = None;
        let committed = store.commit();
        self.status.count_kept(store.take_rows());
        if let Err(error) = committed {
            self.pause(&error);
        }
    }

    /// Lets the disk be for a while. What was written and not committed is lost and counted.
    fn pause(&mut self, error: &StoreError) {
        let reason = format!("cannot write to {}: {error}", self.dir.display());
        let (since, before) = match &self.disk {
            Disk::Paused { since, rows, .. } => (*since, *rows),
            Disk::Open(store) => (Some(self.committed_at), store.uncommitted()),
            Disk::New | Disk::Off => (None, 0),
        };
        if !matches!(self.disk, Disk::Paused { .. }) {
            tracing::warn!(reason, "the history is paused; tracing goes on");
            self.status.count_not_kept(before);
        }
        self.status.set(Some(reason.clone()), false);
        self.dirty = None;
        self.disk = Disk::Paused { since, reason, rows: before, again: Instant::now() + RETRY_EVERY };
    }
}
