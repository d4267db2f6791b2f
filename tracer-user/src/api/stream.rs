//! Bodies of streams: recordings, and NDJSON: what a source has, and losses of events. A slow reader loses lines and is
//! told how many, and never holds up anyone else.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::watch;
use tracer_core::finding::FindingLine;
use tracer_core::snapshot::LossLine;

use super::{LOST_SCHEMA, LostLine};
use crate::daemon::feed;
use crate::daemon::handle::Handle;
use crate::daemon::record::Recording;
use crate::ndjson::push_line;

/// Lines that are already there go out together up to this size.
const CHUNK_BYTES: usize = 64 << 10;

/// Where a stream's lines come from.
pub(super) trait Source: Send + 'static {
    /// The next lines, whole and at least one; `None` at the end. May be dropped and called again: nothing is lost.
    fn next(&mut self) -> impl Future<Output = Option<Bytes>> + Send;
}

struct State<S> {
    first: Bytes,
    source: S,
    loss: watch::Receiver<Option<LossLine>>,
    handle: Handle,
}

/// `first`, then what the source has, until the daemon stops or the reader goes.
pub(super) fn body(first: Vec<u8>, source: impl Source, handle: Handle) -> Body {
    let loss = handle.subscribe_loss();
    let state = State { first: first.into(), source, loss, handle };
    Body::from_stream(futures_util::stream::unfold(state, |mut state| async {
        let chunk = state.next().await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), state))
    }))
}

impl<S: Source> State<S> {
    /// The next bytes, never empty; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if !self.first.is_empty() {
            return Some(std::mem::take(&mut self.first));
        }
        loop {
            tokio::select! {
                // What was said before the end is still delivered.
                biased;
                lines = self.source.next() => return lines,
                Ok(()) = self.loss.changed() => {
                    let mut chunk = Vec::new();
                    if let Some(line) = &*self.loss.borrow_and_update() {
                        push_line(line, &mut chunk);
                    }
                    if !chunk.is_empty() {
                        return Some(chunk.into());
                    }
                }
                () = self.handle.stopping() => return None,
            }
        }
    }
}

impl Source for feed::Reader {
    async fn next(&mut self) -> Option<Bytes> {
        Some(match self.recv().await? {
            feed::Next::Lines(lines) => lines,
            feed::Next::Lost(lost) => {
                let mut chunk = Vec::new();
                push_lost(lost, &mut chunk);
                chunk.into()
            }
        })
    }
}

/// Changes of findings that `keep` accepts.
pub(super) struct Findings<K> {
    pub(super) lines: Receiver<Arc<FindingLine>>,
    pub(super) keep: K,
}

impl<K: FnMut(&FindingLine) -> bool + Send + 'static> Source for Findings<K> {
    async fn next(&mut self) -> Option<Bytes> {
        let mut chunk = Vec::new();
        while chunk.is_empty() {
            match self.lines.recv().await {
                Ok(line) => self.push(&line, &mut chunk),
                Err(RecvError::Lagged(lost)) => push_lost(lost, &mut chunk),
                Err(RecvError::Closed) => return None,
            }
        }
        while chunk.len() < CHUNK_BYTES {
            match self.lines.try_recv() {
                Ok(line) => self.push(&line, &mut chunk),
                Err(TryRecvError::Lagged(lost)) => push_lost(lost, &mut chunk),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        Some(chunk.into())
    }
}

impl<K: FnMut(&FindingLine) -> bool> Findings<K> {
    fn push(&mut self, line: &FindingLine, chunk: &mut Vec<u8>) {
        if (self.keep)(line) {
            push_line(line, chunk);
        }
    }
}

/// A recording as it is made, until the daemon stops or the reader goes.
pub(super) fn recording(recording: Recording, handle: Handle) -> Body {
    Body::from_stream(futures_util::stream::unfold((recording, handle), |(mut recording, handle)| async {
        let bytes = tokio::select! {
            // What was said before the end is still delivered.
            biased;
            bytes = recording.next() => bytes?,
            () = handle.stopping() => return None,
        };
        Some((Ok::<_, std::convert::Infallible>(bytes), (recording, handle)))
    }))
}

fn push_lost(lost: u64, chunk: &mut Vec<u8>) {
    push_line(&LostLine { schema: LOST_SCHEMA.to_owned(), lost }, chunk);
}
