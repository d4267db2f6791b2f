//! The daemon's log as `run` sees it: kept in a file, watched for `ready`, warnings shown, its end kept for errors.
//!
//! A log line may carry strings of traced programs; nothing of it reaches the terminal unescaped, and neither the
//! file nor a line can grow without end.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};

use super::processes::Message;

const KEPT_LINES: usize = 20;
const LINE_BYTES: u64 = 4096;
const FILE_BYTES: usize = 16 << 20;

/// What an error message quotes.
pub struct DaemonLog {
    last: Arc<Mutex<VecDeque<String>>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl DaemonLog {
    /// Reads `stderr` to its end in a thread of its own and reports `ready` to `sender`.
    pub fn follow(stderr: impl Read + Send + 'static, file: &Path, sender: SyncSender<Message>) -> Result<Self> {
        let directory = file.parent().context("a log file without a directory")?;
        std::fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let file = File::create(file).with_context(|| format!("cannot create {}", file.display()))?;
        let last = Arc::new(Mutex::new(VecDeque::with_capacity(KEPT_LINES)));
        let kept = Arc::clone(&last);
        let reader = std::thread::spawn(move || read_to_end(stderr, file, &kept, &sender));
        Ok(Self { last, reader: Some(reader) })
    }

    /// The last lines, for the end of an error message. Where the daemon has ended, all that it wrote is waited for.
    pub fn last_lines(&mut self, daemon_has_ended: bool) -> String {
        if let Some(reader) = self.reader.take_if(|_| daemon_has_ended) {
            // The pipe ends with its only writer. The reader cannot panic, and its result is nothing.
            let _ = reader.join();
        }
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_empty() {
            return "; it logged nothing".to_owned();
        }
        let lines: Vec<String> = last.iter().map(|line| format!("\n  {line}")).collect();
        format!("; its log ends with:{}", lines.concat())
    }
}

fn read_to_end(stderr: impl Read, mut file: File, last: &Mutex<VecDeque<String>>, sender: &SyncSender<Message>) {
    let mut stderr = BufReader::new(stderr);
    let mut room = FILE_BYTES;
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        match stderr.by_ref().take(LINE_BYTES).read_until(b'\n', &mut bytes) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if room >= bytes.len() {
            room -= bytes.len();
            // A full disk costs the file, not the run: the pipe must be drained or the daemon would block.
            let _ = file.write_all(&bytes);
        }
        let line = printable(&String::from_utf8_lossy(&bytes));
        if is_warning(&line) {
            eprintln!("daemon: {line}");
        }
        let ready = is_ready(&line);
        keep(last, line);
        if ready {
            // Nobody listens any more when the run is over.
            let _ = sender.send(Message::Ready);
        }
    }
}

fn keep(last: &Mutex<VecDeque<String>>, line: String) {
    let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
    if last.len() == KEPT_LINES {
        last.pop_front();
    }
    last.push_back(line);
}

/// `line` without its line end, control characters escaped.
fn printable(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    for character in line.trim_end().chars() {
        if character.is_control() {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    text
}

/// The message is `ready`, with or without fields behind it: "<time>  INFO socklife::daemon: ready probes=9".
fn is_ready(line: &str) -> bool {
    line.match_indices("ready").any(|(at, word)| {
        let before = line.get(..at).unwrap_or_default();
        let after = line.get(at + word.len()..).unwrap_or_default();
        let begins_the_message = before.is_empty() || before.ends_with(": ") || before.ends_with(" INFO ");
        begins_the_message && (after.is_empty() || after.starts_with([' ', ',', ':', ';']))
    })
}

fn is_warning(line: &str) -> bool {
    line.split_whitespace().take(3).any(|word| word == "WARN" || word == "ERROR")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    #[test]
    fn ready_is_a_message_and_no_part_of_another() {
        for line in
            ["ready", "t  INFO socklife::daemon: ready", "t  INFO socklife::daemon: ready probes=9", "t  INFO ready"]
        {
            assert!(is_ready(line), "{line}");
        }
        for line in
            ["", "t  INFO x: not ready", "t  INFO x: already there", "t  INFO x: readying", "t  WARN ready-made"]
        {
            assert!(!is_ready(line), "{line}");
        }
    }

    #[test]
    fn only_levels_are_warnings() {
        assert!(is_warning("2026-01-01T00:00:00Z  WARN socklife: ring full"));
        assert!(!is_warning("2026-01-01T00:00:00Z  INFO socklife: the word WARN in a message"));
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb");
    }

    #[test]
    fn the_log_is_filed_watched_and_bounded() {
        let directory = nix::unistd::mkdtemp(&std::env::temp_dir().join("xtask-log.XXXXXX")).unwrap();
        let file = directory.join("deep/daemon.log");
        let mut text: String = (0..50).map(|n| format!("line {n}\n")).collect();
        text.push_str("t  INFO socklife: ready\n");
        let (sender, inbox) = sync_channel(4);
        let mut log = DaemonLog::follow(std::io::Cursor::new(text.clone()), &file, sender).unwrap();
        assert!(matches!(inbox.recv(), Ok(Message::Ready)));
        // The sender is dropped at the end of the stream.
        assert!(inbox.recv().is_err());
        let last = log.last_lines(true);
        assert_eq!(last.lines().count(), 1 + KEPT_LINES, "{last}");
        assert!(last.ends_with("t  INFO socklife: ready"), "{last}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
