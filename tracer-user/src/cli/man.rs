//! `socklife man`: the manual pages, one a command, from what `--help` says. For who makes packages.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::CommandFactory as _;

use super::{Cli, Verdict};

/// Write the manual pages into a directory
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(super) struct Args {
    /// The directory, which has to exist
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

pub(super) fn main(args: &Args) -> anyhow::Result<Verdict> {
    let dir = &args.dir;
    clap_mangen::generate_to(Cli::command(), dir)
        .with_context(|| format!("cannot write the manual pages to {}", dir.display()))?;
    Ok(Verdict::Fine)
}
