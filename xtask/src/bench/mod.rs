//! `cargo xtask bench`: builds socklife and the benchmark, sees to the peers, and runs it.
//!
//! The measuring itself is in `tests/src/bench`, with the harness that starts daemons and reads their JSON; nothing
//! here knows a figure. It enters namespaces of its own, so everything is built before it starts.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::{run, setup, sh};

/// Exit code of a wrong call, as of every socklife command.
const USAGE: u8 = 2;
const PROGRAM: &str = "bench";
const LOAD: &str = "bench-load";

/// Flags of the command.
#[derive(clap::Args)]
pub struct Options {
    /// Few rounds and small loads, to try it: the figures mean little
    #[arg(long)]
    quick: bool,
    /// Only this section; repeatable
    #[arg(long, value_name = "SECTION", value_parser = ["load", "kernel", "latency", "memory", "scale", "idle"])]
    only: Vec<String>,
    /// So many rounds of everything that is done in rounds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: Option<u16>,
    /// Leave docs/benchmarks.md and docs/benchmarks.json as they are, which --quick, --only and fewer than 4 rounds do too
    #[arg(long)]
    no_write: bool,
    /// Write all figures into this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Measures everything, or what is asked for; the exit code is the benchmark's.
pub fn bench(options: &Options) -> Result<ExitCode> {
    if !sh::is_root() {
        eprintln!(
            "error: the benchmark loads kernel programs: run `sudo -E env PATH=\"$PATH\" cargo xtask bench` as root"
        );
        return Ok(ExitCode::from(USAGE));
    }
    setup::before_bench()?;
    build()?;
    let mut command = with_our_end(run::program(PROGRAM));
    command.args(arguments(options)).env("SOCKLIFE_BIN", run::program("socklife"));
    let status = command.status().with_context(|| format!("cannot start `{}`", sh::display(&command)))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn build() -> Result<()> {
    let mut command = sh::cargo();
    command.args(["build", "--release", "--package", "tracer-user", "--bin", "socklife"]);
    sh::run(command.args(["--package", "socklife-tests", "--bin", PROGRAM, "--bin", LOAD]))
}

/// A command that the kernel ends when we end; what it started itself ends with it in the same way.
fn with_our_end(program: PathBuf) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "--"]).arg(program);
    command
}

fn arguments(options: &Options) -> Vec<String> {
    let mut arguments = Vec::new();
    for (given, flag) in [(options.quick, "--quick"), (options.no_write, "--no-write")] {
        if given {
            arguments.push(flag.to_owned());
        }
    }
    for section in &options.only {
        arguments.extend(["--only".to_owned(), section.clone()]);
    }
    if let Some(rounds) = options.rounds {
        arguments.extend(["--rounds".to_owned(), rounds.to_string()]);
    }
    if let Some(file) = &options.json {
        // The benchmark runs where we do.
        arguments.extend(["--json".to_owned(), file.to_string_lossy().into_owned()]);
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_handed_on() {
        let only = vec!["load".to_owned(), "idle".to_owned()];
        let all = Options { quick: true, only, rounds: Some(3), no_write: true, json: Some("a.json".into()) };
        let words = ["--quick", "--no-write", "--only", "load", "--only", "idle", "--rounds", "3", "--json", "a.json"];
        assert_eq!(arguments(&all), words);
        let none = Options { quick: false, only: Vec::new(), rounds: None, no_write: false, json: None };
        assert!(arguments(&none).is_empty());
    }
}
