//! `socklife completions`: what a shell has to know to complete the command line.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::output::print;
use super::{Cli, Verdict};

/// Completions for your shell: bash, zsh, fish, elvish or powershell
///
/// For this bash: `source <(socklife completions bash)`. The packages install them for all.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which shell
    shell: Shell,
}

pub(super) fn main(args: &Args) -> anyhow::Result<Verdict> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "socklife", &mut script);
    print(script.trim_ascii_end())
}
