//! `cargo xtask test`: everything that must hold before a change lands, one step after the other, then a table.
//!
//! A step that fails does not keep the next from running. What counts is each program's exit code; the figures in the
//! table are read from what the test runners print, which `counts` knows.

pub mod counts;
mod demo;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::{build_ebpf, dist, lint, run, scenarios, setup, sh, vm};
use counts::Counts;

/// Exit code of a wrong call, as of every socklife command.
const USAGE: u8 = 2;

/// Flags of the command.
#[derive(clap::Args)]
pub struct Options {
    /// Only this step; repeatable
    #[arg(long, value_enum)]
    only: Vec<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Step {
    /// `cargo xtask setup`: installs what is missing
    Setup,
    /// `cargo xtask lint`
    Lint,
    /// `cargo xtask build-ebpf --check`
    BuildEbpf,
    /// The release build that the next steps run
    Build,
    /// Unit tests of every crate
    Unit,
    /// socklife against this kernel and a real PostgreSQL
    Live,
    /// `cargo xtask scenarios`: the incidents and their healthy twins, with real drivers
    Scenarios,
    /// `cargo xtask paths`: firewalls, NAT and dead peers between application and database
    Paths,
    /// `cargo xtask vm`: the live suite on other kernels, in guests
    Vm,
    /// The package of `cargo xtask dist`, installed and booted in a guest
    Packages,
    /// `cargo xtask run --demo` names the leaking pid
    Demo,
}

const STEPS: [Step; 11] = [
    Step::Setup,
    Step::Lint,
    Step::BuildEbpf,
    Step::Build,
    Step::Unit,
    Step::Live,
    Step::Scenarios,
    Step::Paths,
    Step::Vm,
    Step::Packages,
    Step::Demo,
];

struct Done {
    step: Step,
    counts: Counts,
    error: Option<String>,
    took: Duration,
}

/// Runs the steps; the exit code is 0 only if all of them passed.
pub fn test(options: &Options) -> Result<ExitCode> {
    if !sh::is_root() {
        eprintln!(
            "error: the tests load kernel programs and start PostgreSQL: run `sudo -E env PATH=\"$PATH\" cargo xtask test`"
        );
        return Ok(ExitCode::from(USAGE));
    }
    let mut all = Vec::new();
    for step in STEPS {
        if options.only.is_empty() || options.only.contains(&step) {
            println!("\n==== {}", step.name());
            all.push(perform(step));
        }
    }
    print!("{}", table(&all));
    Ok(if all.iter().all(|done| done.error.is_none()) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn perform(step: Step) -> Done {
    let start = Instant::now();
    let mut counts = Counts::default();
    let result = match step {
        Step::Setup => setup::before_tests(),
        Step::Lint => lint::lint(),
        Step::BuildEbpf => build_ebpf::build_ebpf(&build_ebpf::Options { check: true }),
        Step::Build => run::build_for_tests(),
        Step::Unit => unit(&mut counts),
        Step::Live => live(&mut counts),
        Step::Scenarios => scenarios::lab(scenarios::INCIDENTS).and_then(|lab| counted(lab, &mut counts)),
        Step::Paths => scenarios::lab(scenarios::PATHS).and_then(|lab| counted(lab, &mut counts)),
        Step::Vm => vm::all(&mut counts),
        Step::Packages => dist::trial(&mut counts),
        Step::Demo => demo::names_the_leaking_pid(),
    };
    let error = result.err().map(|error| format!("{error:#}"));
    if let Some(error) = &error {
        eprintln!("error: {}: {error}", step.name());
    }
    counts.agree_with(error.is_none());
    Done { step, counts, error, took: start.elapsed() }
}

/// All crates' own tests. The suite of `live` needs more than one thread's quiet: it is the next step.
fn unit(counts: &mut Counts) -> Result<()> {
    let nextest = sh::find_program("cargo-nextest").is_some();
    let all = runner(nextest, &["--workspace", "--exclude", "tracer-ebpf", "--exclude", "socklife-tests"]);
    let tests = runner(nextest, &["--package", "socklife-tests", "--lib", "--bins"]);
    let first = counted(all, counts);
    first.and(counted(tests, counts))
}

fn runner(nextest: bool, selection: &[&str]) -> Command {
    let mut command = sh::cargo();
    if nextest {
        command.args(["nextest", "run", "--no-tests", "pass", "--show-progress", "none"]);
    } else {
        command.arg("test");
    }
    command.arg("--no-fail-fast").args(selection);
    command
}

fn live(counts: &mut Counts) -> Result<()> {
    let mut command = sh::cargo();
    command.args(["test", "--package", "socklife-tests", "--test", "live", "--", "--test-threads=1"]);
    command.env("SOCKLIFE_BIN", run::program("socklife"));
    counted(command, counts)
}

/// Runs a test runner, shows what it prints, and adds up its figures.
fn counted(mut command: Command, counts: &mut Counts) -> Result<()> {
    let name = sh::display(&command);
    // One pipe for both streams keeps their order.
    let (reader, writer) = std::io::pipe().context("no pipe")?;
    command.stdin(Stdio::null()).stdout(writer.try_clone().context("no pipe")?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("cannot start `{name}`"))?;
    // The command holds the pipe's writing ends: the pipe ends only without it.
    drop(command);
    let mut out = std::io::stdout().lock();
    for line in BufReader::new(reader).split(b'\n') {
        let line = line.with_context(|| format!("cannot read what `{name}` prints"))?;
        out.write_all(&line)?;
        out.write_all(b"\n")?;
        counts.add_line(&String::from_utf8_lossy(&line));
    }
    let status = child.wait().with_context(|| format!("cannot wait for `{name}`"))?;
    anyhow::ensure!(status.success(), "`{name}` failed: {status}");
    Ok(())
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Setup => "setup",
            Self::Lint => "lint",
            Self::BuildEbpf => "build-ebpf --check",
            Self::Build => "release build",
            Self::Unit => "unit tests",
            Self::Live => "live tests",
            Self::Scenarios => "scenarios",
            Self::Paths => "paths",
            Self::Vm => "live tests in guests",
            Self::Packages => "packages",
            Self::Demo => "demo",
        }
    }
}

fn table(all: &[Done]) -> String {
    let mut text =
        format!("\n{:<20}{:<8}{:>8}{:>8}{:>9}{:>9}\n", "step", "result", "passed", "failed", "ignored", "seconds");
    let mut sum = Counts::default();
    for Done { step, counts, error, took } in all {
        let result = if error.is_none() { "ok" } else { "FAILED" };
        let Counts { passed, failed, ignored } = counts;
        text.push_str(&format!(
            "{:<20}{result:<8}{passed:>8}{failed:>8}{ignored:>9}{:>9.1}\n",
            step.name(),
            took.as_secs_f64()
        ));
        sum.add(counts);
    }
    text.push_str(&format!("\n{} passed, {} failed\n", sum.passed, sum.failed));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(step: Step, passed: u32, failed: u32) -> Done {
        let error = (failed > 0).then(|| "why".to_owned());
        Done { step, counts: Counts { passed, failed, ignored: 0 }, error, took: Duration::from_millis(1500) }
    }

    #[test]
    fn the_table_ends_with_the_sum_alone_on_a_line() {
        let text = table(&[done(Step::Lint, 1, 0), done(Step::Unit, 40, 2)]);
        assert_eq!(text.lines().last(), Some("41 passed, 2 failed"));
        assert!(text.contains("unit tests          FAILED        40       2        0      1.5"), "{text}");
    }
}
