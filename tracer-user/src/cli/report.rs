//! `socklife report`: a snapshot as one HTML page.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::diff::parse;
use super::exit::Failure;
use super::output::Output;
use super::snapshot::Target;
use super::{Verdict, ask};
use crate::export::report::html;

/// What stands for stdin and stdout.
const STANDARD: &str = "-";

/// A snapshot as one HTML page for the post-mortem: verdicts, timeline, evidence, tables; no network, no script
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The snapshot; - reads stdin
    #[arg(value_name = "SNAPSHOT")]
    snapshot: PathBuf,
    /// Write to this file, whole or not at all, readable by its owner and group; - writes to stdout
    #[arg(short, long, value_name = "FILE.html")]
    output: PathBuf,
}

pub(super) fn main(args: Args) -> anyhow::Result<Verdict> {
    let target = if args.output == Path::new(STANDARD) { None } else { Some(Target::new(&args.output)?) };
    let write = async move {
        let made = tokio::task::spawn_blocking(move || make(&args.snapshot)).await;
        let page = made.context("the report failed")??;
        match target {
            Some(target) => target.write(page.as_bytes())?,
            None => {
                let mut output = Output::new();
                output.line(page.as_bytes()).await?;
                output.flush().await?;
            }
        }
        Ok(Verdict::Fine)
    };
    ask(write, || Err(Failure::Unable("interrupted before the report was written".to_owned()).into()))
}

fn make(path: &Path) -> anyhow::Result<String> {
    let snapshot = if path == Path::new(STANDARD) {
        parse(std::io::stdin().lock(), &"stdin")?
    } else {
        let unreadable = |error| Failure::Input(format!("cannot read {}: {error}", path.display()));
        parse(std::fs::File::open(path).map_err(unreadable)?, &path.display())?
    };
    Ok(html(&snapshot)?)
}
