//! `socklife replay`: a recording through tracker and detectors once more; the same file gives the same bytes.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tracer_core::detect::{DetectConfig, Store};
use tracer_core::event::Event;
use tracer_core::finding::{FindingLine, Severity};
use tracer_core::recording::{Header, OutOfRange, Replay, Until, Witness};
use tracer_core::snapshot::Snapshot;
use tracer_core::time::{BootNs, WallAnchor, WallTime};
use tracer_core::tracker::{About, Effect, Tracker};

use super::exit::Failure;
use super::output::Output;
use super::snapshot::{judge, pretty_json};
use super::tail::severities;
use super::{Verdict, ask, say};
use crate::config::Config;
use crate::daemon::state::StateDir;
use crate::history::{Bounds, Run, Tap, spawn_whole};
use crate::recording::{ReadError, Reader};
use crate::ui::escape::escape_json;

/// Most times that recorded time may be stretched: a minute becomes a week.
const STRETCH_MAX: i64 = 10_080;

/// Oldest entry of a replayed history: no recording is longer than a year, stretched or not.
const LONGEST: Duration = Duration::from_secs(366 * 86_400 * STRETCH_MAX.unsigned_abs());

/// Run tracker and detectors on a recording, and print the snapshot it ends in
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What `socklife record` wrote
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// End at this moment (RFC 3339), or so long after the beginning, such as 90s or 2h
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: Option<Until>,
    /// Set a key of [detect] instead of what was recorded, such as detect.window_s=5 (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Judge with the default settings of detectors, not with the recorded ones
    #[arg(long)]
    defaults: bool,
    /// Let time go by so many times slower than it did
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=STRETCH_MAX))]
    stretch: u32,
    /// Print each change of a finding, as `tail --json` does, instead of the snapshot
    #[arg(long)]
    findings: bool,
    /// Indent the snapshot
    #[arg(long, conflicts_with = "findings")]
    pretty: bool,
    /// Keep what the replay sees in the history of this state directory, at the recorded times, and print nothing else
    #[arg(long, value_name = "DIR", conflicts_with_all = ["findings", "pretty"])]
    into: Option<PathBuf>,
    /// With --into: the history keeps no more bytes than this
    #[arg(long, value_name = "BYTES", requires = "into", value_parser = clap::value_parser!(u64).range(1 << 20..))]
    max_bytes: Option<u64>,
    /// With --into: say each second that was handed to the history
    #[arg(long, hide = true, requires = "into")]
    progress: bool,
    /// Exit with 1 if a finding at least this bad is open at the end
    #[arg(long, value_name = "SEVERITY", value_parser = severities())]
    fail_on: Option<Severity>,
}

fn moment(text: &str) -> Result<Until, String> {
    if let Ok(at) = WallTime::try_from(text.to_owned()) {
        return Ok(Until::At(at));
    }
    let wants = "write a time such as 2026-11-21T20:41:07Z, or a duration such as 90s";
    humantime::parse_duration(text).map(Until::After).map_err(|_| wants.to_owned())
}

pub(super) fn main(args: Args) -> anyhow::Result<Verdict> {
    let interrupted = || Err(Failure::Unable("interrupted before the replay was at its end".to_owned()).into());
    let replayed = async {
        let replayed = tokio::task::spawn_blocking(move || replay(&args)).await;
        replayed.context("the replay failed")?
    };
    ask(replayed, interrupted)
}

fn replay(args: &Args) -> anyhow::Result<Verdict> {
    let (mut reader, header) = Reader::open(&args.file).map_err(unreadable)?;
    let recorded = if args.defaults { DetectConfig::default() } else { DetectConfig::from(&header.settings) };
    let detect = Config::detect_over(recorded, &args.set)?;
    let run = history_run(&header);
    let replay = Replay::new(header, detect, args.stretch, args.at.unwrap_or(Until::End));
    // What the user sets here goes before what was configured while it was recorded.
    let is_set = args.defaults || !args.set.is_empty();
    let mut replay = if is_set { replay.keeping_settings() } else { replay };
    if let Some(dir) = &args.into {
        return keep(args, dir, run, (reader, replay));
    }
    let mut printer = Printer::new(args);
    while let Some(frame) = reader.next_frame().map_err(unreadable)? {
        let goes_on = replay.apply(frame, &mut |line| printer.finding(&line));
        printer.check()?;
        if !goes_on {
            break;
        }
    }
    if let Some(why) = reader.broken() {
        say(&format!("{}: {why}; replayed up to there", args.file.display()));
    }
    let ended = replay.end(&mut |line| printer.finding(&line));
    let snapshot = ended.map_err(|error: OutOfRange| Failure::Input(format!("--at: {error}")))?;
    printer.end(&snapshot, args.pretty)?;
    Ok(args.fail_on.map_or(Verdict::Fine, |least| judge(&snapshot, least)))
}

/// What the history says of a recording's run.
fn history_run(header: &Header) -> Run {
    Run {
        started_ms: header.anchor.wall(header.anchor.boot).unix_ms,
        source: "recording",
        boot_id: header.about.host.boot_id.clone(),
        hostname: header.about.host.hostname.clone(),
        version: header.about.host.socklife_version.clone(),
    }
}

/// Hands what a replay sees to the history.
struct Keeper {
    tap: Tap,
    progress: bool,
}

impl Witness for Keeper {
    fn finding(&mut self, line: FindingLine) {
        self.tap.finding(&line);
    }

    fn event(&mut self, tracker: &Tracker, event: &Event, effect: Effect, anchor: &WallAnchor) {
        self.tap.event(tracker, event, effect, anchor);
    }

    fn second(&mut self, tracker: &Tracker, told: (&About, &Store), now: BootNs, anchor: &WallAnchor) {
        self.tap.second(tracker, told, now, anchor);
        self.tell(now, anchor);
    }

    fn end(&mut self, tracker: &Tracker, told: (&About, &Store), now: BootNs, anchor: &WallAnchor) {
        self.tap.last(tracker, told, now, anchor);
    }
}

impl Keeper {
    fn tell(&self, now: BootNs, anchor: &WallAnchor) {
        if self.progress {
            // Nobody may read it.
            let _ = writeln!(io::stdout().lock(), "{}", anchor.wall(now));
        }
    }
}

/// Replays into a history on disk.
fn keep(args: &Args, dir: &Path, run: Run, (mut reader, mut replay): (Reader, Replay)) -> anyhow::Result<Verdict> {
    let _taken = StateDir::open(dir)?;
    let max_bytes = args.max_bytes.unwrap_or(Bounds::default().max_bytes);
    // However old a recording is, it is asked for whole: only its size is bounded.
    let bounds = Bounds { max_age: LONGEST, max_bytes };
    let writer = spawn_whole(dir, bounds, run).context("cannot start the history's thread")?;
    let status = Arc::clone(writer.status());
    let mut tap = Keeper { tap: Tap::new(writer), progress: args.progress };
    while let Some(frame) = reader.next_frame().map_err(unreadable)? {
        if !replay.apply_before(frame, &mut tap) {
            break;
        }
        if let Some(reason) = status.health().reason {
            return Err(Failure::Unable(reason).into());
        }
    }
    if let Some(why) = reader.broken() {
        say(&format!("{}: {why}; replayed up to there", args.file.display()));
    }
    let ended = replay.end_before(&mut tap);
    let snapshot = ended.map_err(|error: OutOfRange| Failure::Input(format!("--at: {error}")))?;
    tap.tap.finish();
    let health = status.health();
    if let Some(reason) = health.reason {
        return Err(Failure::Unable(reason).into());
    }
    say(&format!("kept {} rows up to {} in {}", health.kept, snapshot.captured_at, dir.display()));
    Ok(args.fail_on.map_or(Verdict::Fine, |least| judge(&snapshot, least)))
}

/// What cannot be replayed is bad input, whoever is at fault.
fn unreadable(error: ReadError) -> Failure {
    Failure::Input(error.to_string())
}

/// Writes what was asked for to stdout.
struct Printer {
    stdout: io::BufWriter<io::Stdout>,
    findings: bool,
    terminal: bool,
    failed: Option<io::Error>,
}

impl Printer {
    fn new(args: &Args) -> Self {
        let stdout = io::BufWriter::with_capacity(64 << 10, io::stdout());
        Self { stdout, findings: args.findings, terminal: Output::is_terminal(), failed: None }
    }

    fn finding(&mut self, line: &FindingLine) {
        if !self.findings || self.failed.is_some() {
            return;
        }
        let written = serde_json::to_string(line).map_err(io::Error::from).and_then(|json| self.line(&json));
        self.failed = written.err();
    }

    fn line(&mut self, json: &str) -> io::Result<()> {
        match self.terminal {
            true => writeln!(self.stdout, "{}", escape_json(json)),
            false => writeln!(self.stdout, "{json}"),
        }
    }

    /// Fails if something could not be written.
    fn check(&mut self) -> Result<(), Failure> {
        self.failed.take().map_or(Ok(()), |error| Err(unwritten(&error)))
    }

    fn end(&mut self, snapshot: &Snapshot, pretty: bool) -> anyhow::Result<()> {
        self.check()?;
        if !self.findings {
            let json = if pretty || self.terminal { pretty_json(snapshot)? } else { serde_json::to_string(snapshot)? };
            writeln!(self.stdout, "{json}").map_err(|error| unwritten(&error))?;
        }
        Ok(self.stdout.flush().map_err(|error| unwritten(&error))?)
    }
}

fn unwritten(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::ClosedPipe,
        _ => Failure::Unable(format!("cannot write to stdout: {error}")),
    }
}
