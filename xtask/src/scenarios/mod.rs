//! `cargo xtask scenarios`: builds the release binary and the incident lab, and plays the scenarios. What they are and
//! what must be found is in `tests/src/scenarios`.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::{run, sh};

/// The lab's program.
const LAB: &str = "scenarios";

/// Flags of the command.
#[derive(clap::Args)]
pub struct Options {
    /// What to play and how: names of scenarios, --list, --json, --rounds N; without any, all of them once
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// Plays them; the exit code says whether every one was right.
pub fn scenarios(options: &Options) -> Result<ExitCode> {
    let mut lab = lab()?;
    let status = lab.args(&options.words).status().context("cannot start the incident lab")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The lab, built, with the release binary under test.
pub fn lab() -> Result<Command> {
    run::build(false)?;
    sh::run(sh::cargo().args(["build", "--release", "--package", "socklife-tests", "--bin", LAB]))?;
    let mut lab = Command::new(run::program(LAB));
    lab.env("SOCKLIFE_BIN", run::program("socklife"));
    Ok(lab)
}
