//! Stdout: only what was asked for, written away from the runtime so that a reader who is not reading blocks nothing,
//! and a reader who has gone is no error.

use std::io::{self, IsTerminal as _};

use tokio::io::AsyncWriteExt as _;

use super::exit::Failure;
use super::{Verdict, ask};

/// Unflushed output may grow to this.
const PENDING_BYTES: usize = 64 << 10;

/// Stdout, with what is not written yet.
pub(super) struct Output {
    stdout: tokio::io::Stdout,
    pending: Vec<u8>,
}

impl Output {
    pub(super) fn new() -> Self {
        Self { stdout: tokio::io::stdout(), pending: Vec::new() }
    }

    /// Whether a person reads it.
    pub(super) fn is_terminal() -> bool {
        io::stdout().is_terminal()
    }

    /// One line, written now or together with those that follow at once; see [`Output::flush`].
    pub(super) async fn line(&mut self, text: &[u8]) -> Result<(), Failure> {
        self.pending.extend_from_slice(text);
        self.pending.push(b'\n');
        if self.pending.len() >= PENDING_BYTES { self.flush().await } else { Ok(()) }
    }

    /// Everything so far is out when this returns.
    pub(super) async fn flush(&mut self) -> Result<(), Failure> {
        let written = async {
            self.stdout.write_all(&self.pending).await?;
            self.stdout.flush().await
        };
        let written = written.await;
        self.pending.clear();
        written.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::ClosedPipe,
            _ => Failure::Unable(format!("cannot write to stdout: {error}")),
        })
    }
}

/// Writes a text that ends without a line's end, and one behind it; an interrupt before that is a failure.
pub(super) fn print(text: &[u8]) -> anyhow::Result<Verdict> {
    let print = async {
        let mut output = Output::new();
        output.line(text).await?;
        output.flush().await?;
        Ok(Verdict::Fine)
    };
    ask(print, || Err(Failure::Unable("interrupted before everything was printed".to_owned()).into()))
}
