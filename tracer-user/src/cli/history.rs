//! `socklife history`: what happened on this host, from the store on disk.

use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use tracer_core::finding::Kind;
use tracer_core::time::WallTime;

use super::exit::Failure;
use super::output::Output;
use super::tail::{endpoint, kinds};
use super::{Verdict, ask};
use crate::api::client::Client;
use crate::clock;
use crate::history::{Asked, Line, Reader, StoreError};
use crate::ui::escape::escape_json;
use crate::ui::{history as text, line, style};

/// What happened: findings, growth, closed connections, restarts and losses
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// From this moment on: a time (RFC 3339), or how long ago, such as 2h
    #[arg(long, value_name = "TIME", value_parser = moment, allow_hyphen_values = true, default_value = "24h")]
    since: WallTime,
    /// Up to this moment; until now without it
    #[arg(long, value_name = "TIME", value_parser = moment, allow_hyphen_values = true)]
    until: Option<WallTime>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Only what concerns this process (repeatable)
    #[arg(long, value_name = "PID")]
    pid: Vec<u32>,
    /// Only what concerns this endpoint (repeatable)
    #[arg(long, value_name = "IP:PORT", value_parser = endpoint)]
    endpoint: Vec<String>,
    /// Only findings of this kind (repeatable)
    #[arg(long, value_name = "KIND", value_parser = kinds())]
    kind: Vec<Kind>,
    /// Read the history in this state directory; needs no daemon
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

/// A time, or how long before now: `2h`, `-2h` and `2h ago` are the same. Shared with `snapshot --at`.
pub(super) fn moment(text: &str) -> Result<WallTime, String> {
    if let Ok(at) = WallTime::try_from(text.to_owned()) {
        return Ok(at);
    }
    let ago = text.trim().trim_start_matches('-');
    let ago = ago.strip_suffix("ago").unwrap_or(ago).trim();
    let wants = "write a time such as 2026-11-21T20:41:07Z, or how long ago, such as 2h";
    let ago = humantime::parse_duration(ago).map_err(|_| wants.to_owned())?;
    let anchor = clock::wall_anchor();
    let now = anchor.wall(anchor.boot).unix_ms;
    Ok(WallTime { unix_ms: now.saturating_sub(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX)) })
}

pub(super) fn main(args: Args, client: Client) -> anyhow::Result<Verdict> {
    if args.until.is_some_and(|until| until < args.since) {
        return Err(Failure::Input("--until is before --since: swap them".to_owned()).into());
    }
    ask(tell(args, client), || Ok(Verdict::Fine))
}

/// Opens the store of a directory for a command.
pub(super) fn open(dir: &Path) -> Result<Reader, Failure> {
    Reader::open(dir).map_err(|error| failed(&error))
}

/// What is not in there is bad input, what cannot be read is the host's doing.
pub(super) fn failed(error: &StoreError) -> Failure {
    match error {
        StoreError::OutOfRange(sentence) => Failure::Input(sentence.clone()),
        StoreError::Absent(_) | StoreError::Newer(_) => Failure::Unable(error.to_string()),
        other => Failure::Unable(format!("cannot read the history: {other}")),
    }
}

async fn tell(args: Args, client: Client) -> anyhow::Result<Verdict> {
    let mut output = Output::new();
    let look = line::Look { zone: TimeZone::system(), colour: style::wanted(&std::io::stdout()) };
    let write = |line: &Line| -> anyhow::Result<Vec<u8>> {
        Ok(match args.json {
            false => text::text(line, &look).into_bytes(),
            true => json(&serde_json::to_string(line)?),
        })
    };
    if let Some(dir) = &args.state_dir {
        for line in open(dir)?.history(&asked(&args)).map_err(|error| failed(&error))? {
            output.line(&write(&line)?).await?;
        }
    } else {
        let mut lines = client.stream_lines(&target(&args)).await?;
        while let Some(line) = lines.next().await? {
            output.line(&write(&serde_json::from_slice(&line)?)?).await?;
        }
    }
    output.flush().await?;
    Ok(Verdict::Fine)
}

fn json(json: &str) -> Vec<u8> {
    if Output::is_terminal() { escape_json(json).into_owned().into_bytes() } else { json.as_bytes().to_vec() }
}

fn asked(args: &Args) -> Asked {
    Asked {
        since: args.since,
        until: args.until.unwrap_or(WallTime { unix_ms: i64::MAX }),
        pids: args.pid.clone(),
        endpoints: args.endpoint.clone(),
        kinds: args.kind.clone(),
    }
}

/// The same question for the daemon. Every value is free of what a URI would need escaped, but for brackets and colons,
/// which a query may have.
fn target(args: &Args) -> String {
    let mut target = format!("/v1/history?since={}", args.since);
    if let Some(until) = args.until {
        target.push_str(&format!("&until={until}"));
    }
    for pid in &args.pid {
        target.push_str(&format!("&pid={pid}"));
    }
    for endpoint in &args.endpoint {
        target.push_str(&format!("&endpoint={}", endpoint.replace('[', "%5B").replace(']', "%5D")));
    }
    for kind in &args.kind {
        target.push_str(&format!("&kind={}", kind.name()));
    }
    target
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_times_or_how_long_ago() {
        assert_eq!(moment("2026-11-21T20:41:07Z").unwrap().to_string(), "2026-11-21T20:41:07.000Z");
        let now = moment("0s").unwrap().unix_ms;
        for text in ["2h", "-2h", "2h ago", "2hours ago"] {
            let ago = now - moment(text).unwrap().unix_ms;
            assert_eq!((ago + 300_000) / 600_000, 12, "{text}");
        }
        assert!(moment("yesterday").unwrap_err().starts_with("write a time"));
    }
}
