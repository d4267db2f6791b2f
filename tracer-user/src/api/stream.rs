//! Bodies of streams: recordings, and NDJSON bodies fed by a broadcast channel: a slow reader loses lines and is told how many, and never holds up
//! anyone else.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::watch;
use tracer_core::snapshot::LossLine;

use super::{LOST_SCHEMA, LostLine};
use crate::daemon::handle::Handle;
use crate::daemon::record::Recording;

/// Lines that are already there go out together up to this size.
const CHUNK_BYTES: usize = 64 << 10;

struct State<T, K> {
    first: Vec<u8>,
    lines: Receiver<Arc<T>>,
    loss: watch::Receiver<Option<LossLine>>,
    keep: K,
    handle: Handle,
}

/// `first`, then every line `keep` accepts, until the daemon stops or the reader goes.
pub(super) fn body<T, K>(first: Vec<u8>, lines: Receiver<Arc<T>>, keep: K, handle: Handle) -> Body
where
    T: Serialize + Send + Sync + 'static,
    K: FnMut(&T) -> bool + Send + 'static,
{
    let loss = handle.subscribe_loss();
    let state = State { first, lines, loss, keep, handle };
    Body::from_stream(futures_util::stream::unfold(state, |mut state| async {
        let chunk = state.next().await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), state))
    }))
}

impl<T: Serialize, K: FnMut(&T) -> bool> State<T, K> {
    /// The next bytes, never empty; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        let mut chunk = std::mem::take(&mut self.first);
        while chunk.is_empty() {
            let received = tokio::select! {
                // What was said before the end is still delivered.
                biased;
                received = self.lines.recv() => received,
                Ok(()) = self.loss.changed() => {
                    if let Some(line) = &*self.loss.borrow_and_update() {
                        push_line(line, &mut chunk);
                    }
                    continue;
                }
                () = self.handle.stopping() => return None,
            };
            match received {
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

    fn push(&mut self, line: &Arc<T>, chunk: &mut Vec<u8>) {
        if (self.keep)(line) {
            push_line(line.as_ref(), chunk);
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

/// One object, one line. What cannot be written as JSON leaves no half a line behind.
pub(super) fn push_line(line: &impl Serialize, chunk: &mut Vec<u8>) {
    let before = chunk.len();
    match serde_json::to_writer(&mut *chunk, line) {
        Ok(()) => chunk.push(b'\n'),
        Err(error) => {
            chunk.truncate(before);
            tracing::error!("a line could not be written as JSON: {error}");
        }
    }
}
