//! `cargo xtask scenarios` and `cargo xtask paths`: builds the release binary and a lab, and plays its scenarios. What they
//! are and what must be found is in `tests/src/scenarios` and `tests/src/pathlab`.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::{run, sh};

/// The incident lab's program.
pub const INCIDENTS: &str = "scenarios";
/// The path lab's program.
pub const PATHS: &str = "paths";

/// Flags of the command.
#[derive(clap::Args)]
pub struct Options {
    /// What to play and how: names of scenarios, --list, --json, --rounds N; without any, all of them once
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// Plays them; the exit code says whether every one was right.
pub fn scenarios(program: &str, options: &Options) -> Result<ExitCode> {
    let mut lab = lab(program)?;
    let status = lab.args(&options.words).status().context("cannot start the lab")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A lab, built, with the release binary under test.
pub fn lab(program: &str) -> Result<Command> {
    run::build(false)?;
    sh::run(sh::cargo().args(["build", "--release", "--package", "socklife-tests", "--bin", program]))?;
    let mut lab = Command::new(run::program(program));
    lab.env("SOCKLIFE_BIN", run::program("socklife"));
    Ok(lab)
}
