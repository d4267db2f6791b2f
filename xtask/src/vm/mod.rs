//! `cargo xtask vm`: the live suite on other kernels, each in a guest of its own, with the same socklife that runs here.
//!
//! A guest is QEMU in software emulation, a kernel of Debian's, and this machine's own programs as its root: `contents`
//! packs them with `cpio`, `init.sh` is the guest's first process, `guest` runs it, `report` reads what it says. Standard
//! output is one line of JSON for each pass of the suite; all else goes to standard error and
//! to target/vm.

mod contents;
mod cpio;
pub mod emulator;
pub mod guest;
pub mod kernels;
mod report;

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::test::counts::Counts;
use crate::{run, sh};
use contents::Root;
use guest::Guest;
use kernels::{ALL, Kernel, Series};
use report::Report;

/// How much slower than a real machine the suite may take a guest for: loads are divided and patience is multiplied.
const SLOWER: &str = "10";
/// Guests that run at the same time: an emulated machine keeps about one core busy.
const AT_ONCE: usize = 2;
/// A guest that takes longer hangs.
const WITHIN: Duration = Duration::from_secs(20 * 60);
/// Lines of the kernel's console shown after a failure.
const CONSOLE_LINES: usize = 30;

/// A run of the suite inside a guest.
struct Pass {
    name: &'static str,
    /// How `accept` has to be known.
    accept: &'static str,
    /// Further arguments of every `socklife run`.
    run_arguments: &'static str,
    /// Names that the tests contain, or not (`--skip`); none for all tests.
    filters: &'static [&'static str],
}

/// Each guest does these, in this order.
const PASSES: [Pass; 2] = [
    Pass {
        name: "full",
        accept: "fexit:inet_csk_accept",
        run_arguments: "",
        // What is measured in an emulated machine is the emulation; a terminal, a Prometheus and the commands of
        // the documentation are the same everywhere.
        filters: &["--skip", "bench::", "--skip", "top::", "--skip", "prometheus::", "--skip", "docs::"],
    },
    Pass {
        name: "without fexit",
        accept: "kretprobe:inet_csk_accept",
        run_arguments: "--set capture.hooks=kretprobe,raw_tp,syscall",
        filters: &["counts::", "events::", "hooks::", "lifecycle::"],
    },
];

/// Flags of the command.
#[derive(clap::Args)]
pub struct Options {
    /// Only these kernels
    #[arg(value_name = "KERNEL", value_parser = Series::named)]
    kernels: Vec<&'static Series>,
    /// Only live tests whose names contain this; repeatable
    #[arg(long, value_name = "NAME")]
    test: Vec<String>,
}

/// Runs the guests; the exit code is 0 only if every pass in every guest was good.
pub fn vm(options: &Options) -> Result<ExitCode> {
    run::build_for_tests()?;
    let counts = guests(options)?;
    Ok(if counts.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// All kernels, every test; what failed is an error. What the suite runs has been built.
pub fn all(counts: &mut Counts) -> Result<()> {
    let sum = guests(&Options { kernels: Vec::new(), test: Vec::new() })?;
    counts.add(&sum);
    anyhow::ensure!(sum.failed == 0, "{} of the tests in guests failed", sum.failed);
    Ok(())
}

fn guests(options: &Options) -> Result<Counts> {
    let chosen: Vec<&Series> = if options.kernels.is_empty() { ALL.iter().collect() } else { options.kernels.clone() };
    // Before anything is built or packed: a kernel that is missing is missing now.
    let kernels = chosen.iter().map(|series| series.kernel()).collect::<Result<Vec<Kernel>>>()?;
    let directory = sh::root().join("target/vm");
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let suite = Suite::build(&directory)?;
    let common = pack(&directory.join("initrd"), &suite)?;
    let passes = passes(&suite, &options.test);
    let waiting = Mutex::new(chosen.iter().zip(&kernels));
    let work = || {
        let mut sum = Counts::default();
        loop {
            let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((series, kernel)) = next else { return Ok(sum) };
            let own = directory.join(series.version);
            fs::create_dir_all(&own).with_context(|| format!("cannot make {}", own.display()))?;
            let initrd = complete(&common, &own.join("initrd"), kernel, &passes)?;
            sum.add(&boot(series, kernel, &initrd, &own)?);
        }
    };
    let sums: Vec<Result<Counts>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        let joined = workers.into_iter().map(thread::ScopedJoinHandle::join);
        joined.map(|sum| sum.unwrap_or_else(|_| Err(anyhow::anyhow!("a guest's thread panicked")))).collect()
    });
    let mut sum = Counts::default();
    for each in sums {
        sum.add(&each?);
    }
    Ok(sum)
}

/// Boots one kernel, shows what it says, prints its lines of JSON.
fn boot(series: &Series, kernel: &Kernel, initrd: &Path, directory: &Path) -> Result<Counts> {
    let (console, log) = (directory.join("console.log"), directory.join("suite.log"));
    let guest = Guest { kernel: &kernel.image, initrd, console: &console, log: &log, within: WITHIN };
    eprintln!("vm: booting Linux {}; its log: {}", kernel.release, log.display());
    let mut report = Report::default();
    let end = guest::run(&guest, |line, at| {
        if report.take(line, at) {
            eprintln!("{} {:6.1} | {line}", series.version, at.as_secs_f64());
        }
    });
    let names: Vec<&str> = PASSES.iter().map(|pass| pass.name).collect();
    let (lines, counts) = report.lines(series.version, &names, end.map_err(|error| format!("{error:#}")));
    if counts.failed > 0 {
        show_end_of(&console);
    }
    let all: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(directory.join("result.jsonl"), &all).context("cannot keep the result")?;
    print!("{all}");
    Ok(counts)
}

fn show_end_of(console: &Path) {
    let text = fs::read(console).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    eprintln!("vm: the end of {}:", console.display());
    lines.iter().skip(lines.len().saturating_sub(CONSOLE_LINES)).for_each(|line| eprintln!("    {line}"));
}

/// The programs that a guest runs, and the suite's own without what only a debugger reads.
struct Suite {
    socklife: PathBuf,
    examples: Vec<PathBuf>,
    live: PathBuf,
    stripped: PathBuf,
}

impl Suite {
    /// The suite's program as `cargo xtask test` builds it for this machine.
    fn build(directory: &Path) -> Result<Self> {
        let mut build = sh::cargo();
        build.args(["test", "--package", "socklife-tests", "--test", "live", "--no-run", "--message-format=json"]);
        let said = sh::output(build.stderr(Stdio::inherit()))?;
        let live = said.lines().find_map(live_program).context("cargo did not say where it put the live suite")?;
        let stripped = directory.join("live");
        sh::run(Command::new("objcopy").arg("--strip-debug").arg(&live).arg(&stripped))?;
        let examples = run::EXAMPLES.map(|name| run::program("examples").join(name)).to_vec();
        Ok(Self { socklife: run::program("socklife"), examples, live, stripped })
    }
}

/// The program in one of cargo's messages, if it is about the live suite.
fn live_program(message: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    let is_live = message["reason"] == "compiler-artifact" && message["target"]["name"] == "live";
    message["executable"].as_str().filter(|_| is_live).map(PathBuf::from)
}

/// What every guest boots from: an archive that fits every kernel.
fn pack(path: &Path, suite: &Suite) -> Result<PathBuf> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut root = Root::new(BufWriter::new(file));
    root.add_as(&find("busybox")?, Path::new("/vm/busybox"))?;
    root.archive().text(Path::new("/init"), 0o755, include_str!("init.sh"))?;
    root.archive().directory(Path::new("/dev"))?;
    root.archive().device(Path::new("/dev/console"), 5, 1)?;
    for program in suite.examples.iter().chain([&suite.socklife]) {
        root.add(program)?;
    }
    root.add_as(&suite.stripped, &suite.live)?;
    root.add_the_suite(&sh::root())?;
    root.add_libraries()?;
    root.finish()?;
    Ok(path.to_owned())
}

/// The same, and behind it an archive for the kernel at hand.
fn complete(common: &Path, path: &Path, kernel: &Kernel, passes: &str) -> Result<PathBuf> {
    fs::copy(common, path).with_context(|| format!("cannot write {}", path.display()))?;
    let file = File::options().append(true).open(path).context("cannot write the guest's root")?;
    let mut root = Root::new(BufWriter::new(file));
    for path in kernel.modules()? {
        root.add_tree_as(&path, &kernel.place(&path)?)?;
    }
    root.archive().directory(Path::new("/vm"))?;
    root.archive().text(Path::new("/vm/passes"), 0o644, passes)?;
    root.finish()?;
    Ok(path.to_owned())
}

fn find(program: &str) -> Result<PathBuf> {
    sh::find_program(program).with_context(|| format!("`{program}` is missing: `cargo xtask setup` installs it"))
}

/// What the guest's first process does after it has set the machine up.
fn passes(suite: &Suite, only: &[String]) -> String {
    let mut text = format!(
        "export SOCKLIFE_BIN={} LIVE={} SOCKLIFE_TEST_SLOWER={SLOWER}\ndoctor\n",
        quoted(&suite.socklife.to_string_lossy()),
        quoted(&suite.live.to_string_lossy())
    );
    for pass in &PASSES {
        let filters: Vec<&str> =
            if only.is_empty() { pass.filters.to_vec() } else { only.iter().map(String::as_str).collect() };
        let words = [pass.name, pass.accept, pass.run_arguments].into_iter().chain(filters);
        let words: Vec<String> = words.map(quoted).collect();
        text.push_str(&format!("pass {}\n", words.join(" ")));
    }
    text
}

/// One word of the shell's.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_is_one_line_of_shell() {
        let path = |name: &str| PathBuf::from(name);
        let suite = Suite {
            socklife: path("/a b/socklife"),
            examples: vec![path("/faulty")],
            live: path("/live"),
            stripped: path("/x"),
        };
        let text = passes(&suite, &["it's".to_owned()]);
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("export SOCKLIFE_BIN='/a b/socklife' LIVE='/live' SOCKLIFE_TEST_SLOWER=10"));
        assert_eq!(lines.next(), Some("doctor"));
        assert_eq!(lines.next(), Some(format!(r"pass 'full' '{}' '' 'it'\''s'", PASSES[0].accept).as_str()));
        assert_eq!(text.lines().count(), 2 + PASSES.len());
    }

    #[test]
    fn cargo_says_where_the_suite_is() {
        let message = r#"{"reason":"compiler-artifact","target":{"name":"live"},"executable":"/t/live-1"}"#;
        assert_eq!(live_program(message), Some(PathBuf::from("/t/live-1")));
        assert_eq!(live_program(&message.replace("\"live\"", "\"other\"")), None);
        assert_eq!(live_program("not JSON"), None);
    }
}
