//! `socklife diff`: what changed between two snapshots.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use jiff::tz::TimeZone;
use tracer_core::diff::Diff;
use tracer_core::snapshot::{SNAPSHOT_SCHEMA, Snapshot};

use super::exit::Failure;
use super::output::Output;
use super::snapshot::pretty_json;
use super::{Verdict, ask};
use crate::api::client::BODY_BYTES_MAX;
use crate::ui::diff::text;

/// What opened, closed, grew, appeared and cleared between two snapshots
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The first snapshot
    #[arg(value_name = "A")]
    before: PathBuf,
    /// The second snapshot
    #[arg(value_name = "B")]
    after: PathBuf,
    /// One JSON object, with everything
    #[arg(long)]
    json: bool,
}

pub(super) fn main(args: &Args) -> anyhow::Result<Verdict> {
    let (before, after, json) = (args.before.clone(), args.after.clone(), args.json);
    let print = async move {
        let compared = tokio::task::spawn_blocking(move || anyhow::Ok(Diff::of(&read(&before)?, &read(&after)?))).await;
        let diff = compared.context("the comparison failed")??;
        let mut output = Output::new();
        let printed = match (json, Output::is_terminal()) {
            (false, _) => text(&diff, &TimeZone::system()),
            (true, true) => pretty_json(&diff)?,
            (true, false) => serde_json::to_string(&diff)?,
        };
        output.line(printed.as_bytes()).await?;
        output.flush().await?;
        Ok(Verdict::Fine)
    };
    ask(print, || Err(Failure::Unable("interrupted before the snapshots were compared".to_owned()).into()))
}

#[derive(serde::Deserialize)]
struct Head {
    schema: Option<String>,
}

fn read(path: &Path) -> Result<Snapshot, Failure> {
    let unreadable = |error: std::io::Error| Failure::Input(format!("cannot read {}: {error}", path.display()));
    parse(std::fs::File::open(path).map_err(unreadable)?, &path.display())
}

/// Shared with `report`. A snapshot from a file or a pipe, which the user knows as `shown`.
pub(super) fn parse(from: impl std::io::Read, shown: &dyn std::fmt::Display) -> Result<Snapshot, Failure> {
    let mut json = Vec::new();
    let unreadable = |error: std::io::Error| Failure::Input(format!("cannot read {shown}: {error}"));
    from.take(BODY_BYTES_MAX as u64 + 1).read_to_end(&mut json).map_err(unreadable)?;
    if json.len() > BODY_BYTES_MAX {
        return Err(Failure::Input(format!("{shown} is larger than any snapshot")));
    }
    let foreign = |why: String| Failure::Input(format!("{shown} is no snapshot: {why}"));
    let head: Head = serde_json::from_slice(&json).map_err(|error| foreign(error.to_string()))?;
    match head.schema.as_deref() {
        Some(SNAPSHOT_SCHEMA) => serde_json::from_slice(&json).map_err(|error| foreign(error.to_string())),
        Some(other) => Err(foreign(format!("its schema is {other:?}, not {SNAPSHOT_SCHEMA:?}"))),
        None => Err(foreign(format!("it has no schema, which must be {SNAPSHOT_SCHEMA:?}"))),
    }
}
