//! Socket events on their way to whoever streams them: each is written as JSON once, however many read it, and all that
//! come at once go on together. A slow reader loses the oldest, is told how many lines these were, and never holds up
//! anyone else. Knows neither HTTP nor the tracker.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::watch;
use tracer_core::snapshot::EventLine;

use crate::ndjson;

/// Text a reader may be behind before it loses the oldest: some 6,000 lines. All readers share it.
const BEHIND_BYTES_MAX: usize = 2 << 20;
/// A batch of this size goes on without waiting for the rest of what came with it.
const BATCH_BYTES: usize = 64 << 10;

/// Lines that go on together. Used again for the next ones.
#[derive(Debug, Default)]
pub struct Batch {
    text: Vec<u8>,
    lines: u64,
}

impl Batch {
    /// Appends a line.
    pub fn push<T: Serialize>(&mut self, line: &EventLine<T>) {
        self.lines += u64::from(ndjson::push_line(line, &mut self.text));
    }

    /// Whether it is time to tell it.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.text.len() >= BATCH_BYTES
    }
}

/// What was told and not yet read by everyone.
#[derive(Debug, Default)]
pub struct Feed {
    told: Mutex<Told>,
    news: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Told {
    /// Oldest first.
    pieces: VecDeque<Piece>,
    /// Bytes of these.
    bytes: usize,
    /// Lines told since the start.
    lines: u64,
    readers: usize,
}

#[derive(Debug)]
struct Piece {
    text: Bytes,
    /// Lines told before its first one, and with its last one.
    first: u64,
    end: u64,
    /// Readers that have not had it.
    unread: usize,
}

/// What a reader gets next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Whole lines.
    Lines(Bytes),
    /// So many lines that came faster than this reader took them.
    Lost(u64),
}

impl Feed {
    /// Whether a line would reach anyone.
    #[must_use]
    pub fn has_readers(&self) -> bool {
        self.told().readers > 0
    }

    /// Hands a batch to every reader, and empties it.
    pub fn tell(&self, batch: &mut Batch) {
        let lines = std::mem::take(&mut batch.lines);
        if lines > 0 {
            self.told().push(&batch.text, lines);
            self.news.send_replace(());
        }
        batch.text.clear();
    }

    /// Lines told from now on.
    #[must_use]
    pub fn subscribe(self: &Arc<Self>) -> Reader {
        let mut told = self.told();
        told.readers += 1;
        Reader { feed: Arc::clone(self), news: self.news.subscribe(), next: told.lines }
    }

    /// Nothing under the lock can fail halfway.
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    fn push(&mut self, text: &[u8], lines: u64) {
        let (first, end) = (self.lines, self.lines + lines);
        self.lines = end;
        if self.readers == 0 {
            return;
        }
        self.bytes += text.len();
        self.pieces.push_back(Piece { text: Bytes::copy_from_slice(text), first, end, unread: self.readers });
        while self.bytes > BEHIND_BYTES_MAX && self.pieces.len() > 1 {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(piece) = self.pieces.pop_front() {
            self.bytes -= piece.text.len();
        }
    }

    fn forget_read(&mut self) {
        while self.pieces.front().is_some_and(|piece| piece.unread == 0) {
            self.forget_oldest();
        }
    }

    /// Index of the piece a reader gets that has read so many lines.
    fn after(&self, read: u64) -> usize {
        self.pieces.partition_point(|piece| piece.end <= read)
    }

    fn next(&mut self, read: &mut u64) -> Option<Next> {
        let at = self.after(*read);
        let piece = self.pieces.get_mut(at)?;
        if *read < piece.first {
            let lost = piece.first - *read;
            *read = piece.first;
            return Some(Next::Lost(lost));
        }
        *read = piece.end;
        piece.unread -= 1;
        let text = piece.text.clone();
        self.forget_read();
        Some(Next::Lines(text))
    }
}

/// One reader's place in the feed.
#[derive(Debug)]
pub struct Reader {
    feed: Arc<Feed>,
    news: watch::Receiver<()>,
    /// Lines told that this reader has had or lost.
    next: u64,
}

impl Reader {
    /// What comes next; waits for it. `None` when nobody tells any more. May be dropped and called again: nothing is
    /// lost.
    pub async fn recv(&mut self) -> Option<Next> {
        loop {
            let next = self.feed.told().next(&mut self.next);
            if next.is_some() {
                return next;
            }
            self.news.changed().await.ok()?;
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut told = self.feed.told();
        told.readers -= 1;
        let at = told.after(self.next);
        for piece in told.pieces.range_mut(at..) {
            piece.unread -= 1;
        }
        told.forget_read();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tracer_core::event::Role;
    use tracer_core::snapshot::{EVENT_SCHEMA, EventName};
    use tracer_core::tcp::TcpState;
    use tracer_core::time::WallTime;

    use super::*;

    fn line(bytes_sent: u64) -> EventLine<&'static str> {
        EventLine {
            schema: EVENT_SCHEMA,
            event: EventName::Closed,
            at: WallTime { unix_ms: 1_795_293_667_000 },
            endpoint: "10.0.0.5:5432",
            database: "postgres",
            role: Role::Client,
            local: "10.0.0.1:40222",
            remote: "10.0.0.5:5432",
            state: TcpState::Close,
            opener: None,
            closer_pid: None,
            age_ms: None,
            bytes_sent,
            bytes_received: 0,
            retransmits: 0,
            consecutive_rtos: 0,
            error: None,
            reset: None,
        }
    }

    /// Tells the lines with these numbers together.
    fn tell(feed: &Feed, numbers: std::ops::Range<u64>) {
        let mut batch = Batch::default();
        numbers.for_each(|number| batch.push(&line(number)));
        feed.tell(&mut batch);
        assert!(batch.text.is_empty() && batch.lines == 0);
    }

    /// The numbers of the lines that are there, and of those that are lost.
    fn read(reader: &mut Reader) -> (Vec<u64>, u64) {
        let (mut numbers, mut lost) = (Vec::new(), 0);
        while let Some(next) = reader.recv().now_or_never() {
            match next.unwrap() {
                Next::Lost(lines) => lost += lines,
                Next::Lines(text) => {
                    assert_eq!(text.last(), Some(&b'\n'), "half a line");
                    numbers.extend(
                        text.split(|byte| *byte == b'\n')
                            .filter(|line| !line.is_empty())
                            .map(|line| serde_json::from_slice::<EventLine>(line).unwrap().bytes_sent),
                    );
                }
            }
        }
        (numbers, lost)
    }

    #[test]
    fn every_reader_gets_what_is_told_while_it_is_there_and_nothing_is_kept_longer() {
        let feed = Arc::new(Feed::default());
        tell(&feed, 0..3);
        assert!(!feed.has_readers() && feed.told().pieces.is_empty());
        let mut early = feed.subscribe();
        tell(&feed, 3..5);
        let mut late = feed.subscribe();
        tell(&feed, 5..6);
        tell(&feed, 6..6);
        assert_eq!(read(&mut late), (vec![5], 0));
        assert_eq!(feed.told().pieces.len(), 2, "one reader has yet to read them");
        assert_eq!(read(&mut early), (vec![3, 4, 5], 0));
        assert!(feed.told().pieces.is_empty() && feed.told().bytes == 0);
        tell(&feed, 6..9);
        drop(late);
        assert_eq!(feed.told().pieces.len(), 1);
        drop(early);
        assert!(!feed.has_readers() && feed.told().pieces.is_empty() && feed.told().bytes == 0);
    }

    #[test]
    fn a_slow_reader_loses_the_oldest_and_is_told_how_many_lines_these_were() {
        let feed = Arc::new(Feed::default());
        let (mut slow, mut fast) = (feed.subscribe(), feed.subscribe());
        let mut told = 0;
        let mut seen = Vec::new();
        for batch in 0..1_000 {
            let lines = 1 + batch % 100;
            tell(&feed, told..told + lines);
            told += lines;
            let (numbers, lost) = read(&mut fast);
            assert_eq!(lost, 0);
            seen.extend(numbers);
            assert!(feed.told().bytes <= BEHIND_BYTES_MAX);
        }
        assert!(seen.into_iter().eq(0..told));
        let (numbers, lost) = read(&mut slow);
        assert!(lost > 0 && numbers.len() > 4_096, "{lost} lost, {} kept", numbers.len());
        assert!(numbers.into_iter().eq(lost..told));
        assert!(feed.told().pieces.is_empty() && feed.told().bytes == 0);
    }

    #[test]
    fn a_reader_that_goes_after_losing_lines_takes_only_its_own_place() {
        let feed = Arc::new(Feed::default());
        let (slow, mut other) = (feed.subscribe(), feed.subscribe());
        for number in 0..100 {
            tell(&feed, 100 * number..100 * number + 100);
        }
        drop(slow);
        let (numbers, lost) = read(&mut other);
        assert!(lost > 0 && numbers.into_iter().eq(lost..10_000));
        assert!(feed.has_readers() && feed.told().pieces.is_empty() && feed.told().bytes == 0);
    }

    #[tokio::test]
    async fn a_reader_that_waits_is_woken() {
        let feed = Arc::new(Feed::default());
        let mut reader = feed.subscribe();
        let waiting = tokio::spawn(async move { reader.recv().await });
        tokio::task::yield_now().await;
        tell(&feed, 0..1);
        assert!(matches!(waiting.await.unwrap(), Some(Next::Lines(_))));
    }
}
