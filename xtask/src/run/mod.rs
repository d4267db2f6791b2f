//! `cargo xtask run`: build, start the daemon, show live who leaks; `--demo` adds a program that does.
//!
//! The order is that of the facts: the demo's database first (it chooses the port), then the daemon (told of the
//! port), the leak only once the daemon says `ready`, tail last. Everything is waited for as an event, and what was
//! started is stopped and reaped on every way out. `processes` does that; `daemon_log` knows what `ready` looks like.

mod daemon_log;
mod demo;
mod processes;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::sh;
use daemon_log::DaemonLog;
use demo::Demo;
use processes::{Event, Processes, Via};

/// How long the daemon may take to attach its probes and to look at what is there already.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// The contract's default.
const DEFAULT_SOCKET: &str = "/run/socklife/socklife.sock";
const SOCKET_VARIABLE: &str = "SOCKLIFE_SOCKET";
const DAEMON: &str = "socklife run";
const TAIL: &str = "socklife tail";

/// Flags of the command.
#[derive(clap::Args)]
pub struct Options {
    /// Beside it, start a small database and a client that leaks connections to it
    #[arg(long)]
    demo: bool,
    /// End by itself after this time, counted from `ready` (such as 30s)
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Further arguments of `socklife run`
    #[arg(last = true)]
    daemon: Vec<OsString>,
}

/// Runs until Ctrl-C, SIGTERM, the end of the given time, or the end of a part; the last is an error.
pub fn run(options: &Options) -> Result<()> {
    build(options.demo)?;
    if !sh::is_root() {
        println!(
            "The daemon needs root to load its kernel programs, and its socket is root's: sudo may ask for your password."
        );
        sh::run(Command::new("sudo").arg("--validate")).context("sudo was refused; run this as root instead")?;
    }
    // Outlives the daemon: its socket and its state lie in the demo's directory.
    let mut demo = None;
    let mut processes = Processes::new()?;
    let session = session(options, &mut demo, &mut processes);
    let stopped = processes.stop_all();
    session.and(stopped)
}

/// The release build, all in one call of cargo, so that shared dependencies are compiled once.
pub fn build(demo: bool) -> Result<()> {
    let mut command = sh::cargo();
    command.args(["build", "--release", "--package", "tracer-user", "--bin", "socklife"]);
    if demo {
        command.args(["--package", "socklife-tests", "--bin", demo::DATABASE, "--bin", demo::CLIENT]);
    }
    sh::run(&mut command)
}

/// The same with what only the tests run.
pub fn build_for_tests() -> Result<()> {
    build(true)?;
    let mut command = sh::cargo();
    command.args(["build", "--release", "--package", "tracer-user"]);
    command.args(EXAMPLES.iter().flat_map(|name| ["--example", name]));
    sh::run(&mut command)
}

/// The examples that the live suite starts: socklife with faults.
pub const EXAMPLES: [&str; 3] = ["broken_screen", "faulty", "interrupted"];

/// A program of the release build.
pub fn program(name: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| sh::root().join("target"), PathBuf::from);
    sh::root().join(target).join("release").join(name)
}

fn session(options: &Options, demo: &mut Option<Demo>, processes: &mut Processes) -> Result<()> {
    if options.demo {
        *demo = Some(Demo::start_database(processes)?);
    }
    let socket = socket(&options.daemon, demo.as_ref());
    let log_file = sh::root().join("target/run/daemon.log");

    let mut log = start_daemon(options, demo.as_ref(), &socket, &log_file, processes)?;
    await_ready(processes, &mut log)?;
    println!("socklife is ready; its log: {}", log_file.display());
    if let Some(demo) = demo {
        demo.start_client(processes)?;
    } else {
        println!("Watching this host's database connections. Findings appear below; Ctrl-C ends it.");
    }
    processes.spawn(TAIL, via_sudo(), &mut tail(&socket))?;

    // The clock starts when there is something to see.
    let deadline = options.duration.map(|duration| Instant::now() + duration);
    await_end(processes, &mut log, deadline)
}

fn via_sudo() -> Via {
    if sh::is_root() { Via::Direct } else { Via::Sudo }
}

fn start_daemon(
    options: &Options,
    demo: Option<&Demo>,
    socket: &Path,
    log_file: &Path,
    processes: &mut Processes,
) -> Result<DaemonLog> {
    let mut command = socklife();
    command.arg("run").arg("--socket").arg(socket);
    if let Some(demo) = demo {
        command.args(demo.daemon_arguments());
    }
    command.args(without_socket(&options.daemon));
    // In a group of its own: Ctrl-C at the terminal is for us, who stop it in order.
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let stderr = processes.spawn(DAEMON, via_sudo(), &mut command)?.stderr.take();
    DaemonLog::follow(stderr.context("the daemon has no stderr")?, log_file, processes.sender())
}

fn tail(socket: &Path) -> Command {
    let mut command = socklife();
    command.arg("tail").arg("--socket").arg(socket).stdin(Stdio::null());
    command
}

fn socklife() -> Command {
    if sh::is_root() {
        return Command::new(program("socklife"));
    }
    let mut command = Command::new("sudo");
    // The password was given before; in a group of its own, sudo could not ask.
    command.arg("--non-interactive").arg(program("socklife"));
    command
}

/// The socket both ends use: the one given after `--`, the demo's own, the environment's, or the default.
fn socket(arguments: &[OsString], demo: Option<&Demo>) -> PathBuf {
    given_socket(arguments)
        .or_else(|| demo.map(Demo::socket))
        .or_else(|| std::env::var_os(SOCKET_VARIABLE).map(PathBuf::from))
        .unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET))
}

fn given_socket(arguments: &[OsString]) -> Option<PathBuf> {
    arguments.iter().enumerate().find_map(|(index, argument)| match argument.to_str()? {
        "--socket" => arguments.get(index + 1).map(PathBuf::from),
        other => other.strip_prefix("--socket=").map(PathBuf::from),
    })
}

/// The arguments without `--socket`, which is passed on in any case.
fn without_socket(arguments: &[OsString]) -> Vec<OsString> {
    let mut rest = Vec::with_capacity(arguments.len());
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--socket") => drop(arguments.next()),
            Some(other) if other.starts_with("--socket=") => {}
            _ => rest.push(argument.clone()),
        }
    }
    rest
}

fn await_ready(processes: &mut Processes, log: &mut DaemonLog) -> Result<()> {
    match processes.next(Some(Instant::now() + READY_WITHIN)) {
        Event::Ready => Ok(()),
        Event::Signal => bail!("ended before the daemon was ready"),
        Event::Exited(name, status) => {
            bail!("{name} ended before the daemon was ready: {status}{}", log.last_lines(name == DAEMON))
        }
        Event::Deadline => bail!("the daemon was not ready within {READY_WITHIN:?}{}", log.last_lines(false)),
    }
}

fn await_end(processes: &mut Processes, log: &mut DaemonLog, deadline: Option<Instant>) -> Result<()> {
    loop {
        match processes.next(deadline) {
            Event::Ready => {}
            Event::Signal | Event::Deadline => return Ok(()),
            // Tail lost its reader, or the daemon was given `--for`.
            Event::Exited(DAEMON | TAIL, status) if status.success() => return Ok(()),
            Event::Exited(name, status) => bail!("{name} ended by itself: {status}{}", log.last_lines(name == DAEMON)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(words: &str) -> Vec<OsString> {
        words.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn a_given_socket_serves_both_ends_once() {
        for words in ["--port 1=postgres --socket /tmp/s", "--socket=/tmp/s --port 1=postgres"] {
            let given = arguments(words);
            assert_eq!(socket(&given, None), PathBuf::from("/tmp/s"));
            assert_eq!(without_socket(&given), arguments("--port 1=postgres"));
        }
    }

    #[test]
    fn a_socket_flag_without_value_is_left_out() {
        assert_eq!(given_socket(&arguments("--socket")), None);
        assert!(without_socket(&arguments("--socket")).is_empty());
    }
}
