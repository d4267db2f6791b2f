//! `cargo xtask bench`: builds socklife and the benchmark, sees to the peers, and runs it.
//!
//! The measuring itself is in `tests/src/bench`, with the harness that starts daemons and reads their JSON; nothing
//! here knows a figure. It enters namespaces of its own, so everything is built before it starts.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::{run, setup, sh};

#[path = "../../../tests/src/bench/options.rs"]
mod options;

pub use options::Options;

/// Exit code of a wrong call, as of every socklife command.
const USAGE: u8 = 2;
const PROGRAM: &str = "bench";
const LOAD: &str = "bench-load";

/// Measures everything, or what is asked for; the exit code is the benchmark's.
pub fn bench() -> Result<ExitCode> {
    if !sh::is_root() {
        eprintln!(
            "error: the benchmark loads kernel programs: run `sudo -E env PATH=\"$PATH\" cargo xtask bench` as root"
        );
        return Ok(ExitCode::from(USAGE));
    }
    setup::before_bench()?;
    build()?;
    let mut command = with_our_end(run::program(PROGRAM));
    command.args(handed_on(std::env::args_os())).env("SOCKLIFE_BIN", run::program("socklife"));
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

/// What follows `bench` on our own command line: read once by `Options`, handed on as it was typed. The benchmark runs
/// where we do, so paths mean the same.
fn handed_on(words: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    words.skip(2)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    const ALL: &[&str] =
        &["--quick", "--no-write", "--only", "load", "--only", "idle", "--rounds", "3", "--json", "a.json"];

    #[test]
    fn what_is_asked_for_is_handed_on() {
        let typed = |options: &[&str]| -> Vec<OsString> {
            let words = ["target/debug/xtask", "bench"].iter().chain(options).map(OsString::from);
            handed_on(words).collect()
        };
        assert_eq!(typed(ALL), ALL);
        assert!(typed(&[]).is_empty());
    }

    #[test]
    fn mistakes_are_found_before_anything_is_built() {
        let reads = |options: &[&str]| Options::try_parse_from(["bench"].iter().chain(options)).is_ok();
        assert!(reads(ALL) && reads(&[]));
        for wrong in [["--only", "loud"], ["--rounds", "0"], ["--rounds", "1001"], ["--json", ""]] {
            assert!(!reads(&wrong), "{wrong:?}");
        }
        assert!(!reads(&["--fast"]));
    }
}
