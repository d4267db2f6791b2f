//! `socklife record`: everything that the daemon's tracker takes in, to a file, for `socklife replay`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, MissedTickBehavior};
use tracer_core::recording::{Decoder, Frame, encode};

use super::exit::Failure;
use super::{StopSignals, Verdict, say, until_stopped};
use crate::api::client::{Chunks, Client, ClientError};
use crate::clock;
use crate::recording::Writer;

/// How much of a recording may be lost with the machine.
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// Longest `--for`: a recording holds no more than a year.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// Record what the daemon sees, to replay it later
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Write to this new file, readable by its owner and group
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// End after this time, such as 30s or 2h
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    run_for: Option<Duration>,
    /// Replace the file if it is there
    #[arg(long)]
    force: bool,
}

pub(super) fn main(args: Args, client: Client) -> anyhow::Result<Verdict> {
    check(&args)?;
    until_stopped(async |stop| record(args, client, stop).await)
}

/// What can be known before anything is asked.
fn check(args: &Args) -> Result<(), Failure> {
    let path = args.output.display();
    if args.run_for.is_some_and(|run_for| run_for.is_zero() || run_for > LONGEST) {
        return Err(Failure::Input("--for must be more than nothing and at most a year".to_owned()));
    }
    match args.output.metadata() {
        Ok(meta) if !meta.is_file() => {
            Err(Failure::Input(format!("cannot write {path}: it is there and is no regular file")))
        }
        Ok(_) if !args.force => {
            Err(Failure::Input(format!("{path} is there already: name another file, or replace it with --force")))
        }
        _ => Ok(()),
    }
}

/// What is in the file so far.
#[derive(Default)]
struct Counts {
    events: u64,
    looks: u64,
    /// Frames and events that the daemon left out.
    left_out: (u64, u64),
}

impl Counts {
    fn take(&mut self, frame: &Frame<'_>) {
        self.events += frame.events();
        match frame {
            Frame::Look { .. } => self.looks += 1,
            Frame::LeftOut { frames, events, .. } => {
                self.left_out = (self.left_out.0 + frames, self.left_out.1 + events);
            }
            _ => {}
        }
    }
}

async fn record(args: Args, client: Client, mut stop: StopSignals) -> anyhow::Result<Verdict> {
    let mut chunks = client.stream_bytes("/v1/record").await?;
    let (mut decoder, mut counts) = (Decoder::default(), Counts::default());
    let begun = begin(&mut chunks, &mut decoder, &client, &mut stop).await?;
    let cannot = |error: std::io::Error| cannot_write(&args.output, &error);
    // Whoever made the file since it was looked for keeps it.
    let mut file = Writer::create(&args.output, args.force).map_err(cannot)?;
    say(&format!("recording to {}: Ctrl-C ends it", args.output.display()));
    let started = Instant::now();
    let mut flush = tokio::time::interval(FLUSH_EVERY);
    flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let until = started + args.run_for.unwrap_or(LONGEST);
    // Of a frame that has only begun nothing is written: it would hide what comes after it.
    let mut pending = begun;
    let note = loop {
        let whole = pending.len() - decoder.left();
        file.write(pending.get(..whole).unwrap_or_default()).map_err(cannot)?;
        pending.drain(..whole);
        let chunk = tokio::select! {
            () = stop.recv() => break "",
            () = tokio::time::sleep_until(until) => break "",
            _ = flush.tick() => {
                file.flush().map_err(cannot)?;
                continue;
            }
            chunk = chunks.next() => chunk,
        };
        let chunk = match chunk {
            Ok(Some(chunk)) => chunk,
            Ok(None) => break "; the daemon has stopped",
            Err(ClientError::Lost(_)) => break "; the daemon is gone",
            Err(error) => return Err(error.into()),
        };
        pending.extend_from_slice(&chunk);
        decoder.push(&chunk);
        while let Some(frame) = decoder.next_frame().map_err(|error| strange(&client, error))? {
            counts.take(&frame);
        }
    };
    let end = encode(&Frame::End { at: clock::boot_clock() }).map_err(|error| strange(&client, error))?;
    file.write(&end).map_err(cannot)?;
    let bytes = file.finish().map_err(cannot)?;
    say(&summary(&args.output, &counts, bytes, started.elapsed(), note));
    Ok(Verdict::Fine)
}

/// Waits for the header: without one there is nothing to make a file of.
async fn begin(
    chunks: &mut Chunks,
    decoder: &mut Decoder,
    client: &Client,
    stop: &mut StopSignals,
) -> anyhow::Result<Vec<u8>> {
    let mut begun = Vec::new();
    loop {
        let chunk: Option<Bytes> = tokio::select! {
            chunk = chunks.next() => chunk?,
            () = stop.recv() => return Err(Failure::Unable("interrupted before the recording began".to_owned()).into()),
        };
        let Some(chunk) = chunk else { return Err(ClientError::Lost(client.path().to_owned()).into()) };
        begun.extend_from_slice(&chunk);
        decoder.push(&chunk);
        if decoder.next_frame().map_err(|error| strange(client, error))?.is_some() {
            return Ok(begun);
        }
    }
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    match error.kind() {
        std::io::ErrorKind::AlreadyExists => Failure::Input(format!(
            "{} is there already: name another file, or replace it with --force",
            path.display()
        )),
        _ => Failure::Unable(format!("cannot write {}: {error}", path.display())),
    }
}

fn strange(client: &Client, error: impl std::fmt::Display) -> Failure {
    Failure::Unable(format!("cannot use the recording of the daemon on {}: {error}", client.path().display()))
}

fn summary(path: &Path, counts: &Counts, bytes: u64, took: Duration, note: &str) -> String {
    let Counts { events, looks, left_out } = counts;
    let lost = match left_out {
        (0, _) => "nothing lost".to_owned(),
        (frames, events) => format!("{events} events in {frames} frames lost, because they were not read in time"),
    };
    format!(
        "recorded {} s to {}: {events} events and {looks} looks in {bytes} bytes, {lost}{note}",
        took.as_secs(),
        path.display()
    )
}
