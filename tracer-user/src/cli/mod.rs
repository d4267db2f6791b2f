//! The commands: what may be typed, one file a command, exit codes. Commands reach the daemon through
//! [`crate::api::client`] alone; `run` starts one.

mod check_config;
mod completions;
mod diff;
mod doctor;
mod exit;
mod explain;
mod history;
mod man;
mod netns_helper;
mod output;
mod reap;
mod record;
mod replay;
mod report;
mod run;
mod selection;
mod snapshot;
mod tail;
mod top;
mod verify;

use std::future::Future;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::api::client::Client;
use crate::config::DEFAULT_SOCKET;
use crate::ui::escape;

/// Which socklife this is: its version, the commit it was built from, and what its kernel programs hash to (SHA-256).
const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (commit ",
    env!("SOCKLIFE_COMMIT"),
    ", kernel programs ",
    env!("SOCKLIFE_OBJECT"),
    ")"
);

/// Names the process that leaks database connections, since when, and why.
#[derive(Debug, Parser)]
#[command(name = "socklife", version = VERSION, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 fine; 1 findings present where asked to judge; 2 usage or bad input; \
                        3 cannot work here.")]
struct Cli {
    /// The daemon's control socket [default: /run/socklife/socklife.sock]
    #[arg(long, global = true, env = "SOCKLIFE_SOCKET", hide_env_values = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Tail(tail::Args),
    Top(top::Args),
    Snapshot(snapshot::Args),
    Diff(diff::Args),
    History(history::Args),
    Record(record::Args),
    Replay(replay::Args),
    Report(report::Args),
    Explain(explain::Args),
    Verify(verify::Args),
    Reap(reap::Args),
    CheckConfig(check_config::Args),
    Doctor(doctor::Args),
    Completions(completions::Args),
    Man(man::Args),
    #[command(name = crate::inventory::door::COMMAND)]
    NetnsHelper(netns_helper::Args),
}

/// How a command that worked ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing to say, or not asked to judge.
    Fine,
    /// Asked to judge, and there is something.
    Found,
    /// It worked, and the answer is that socklife cannot work here.
    Unable,
}

/// Parses the command line, does what it says, returns the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::usage(&error),
    };
    crate::telemetry::init();
    let outcome = match cli.command {
        Command::Run(args) => run::main(args, cli.socket),
        Command::Tail(args) => tail::main(args, client(cli.socket)),
        Command::Top(args) => top::main(args, client(cli.socket)),
        Command::Snapshot(args) => snapshot::main(args, client(cli.socket)),
        Command::Diff(args) => diff::main(&args),
        Command::History(args) => history::main(args, client(cli.socket)),
        Command::Record(args) => record::main(args, client(cli.socket)),
        Command::Replay(args) => replay::main(args),
        Command::Report(args) => report::main(args),
        Command::Explain(args) => explain::main(&args),
        Command::Verify(args) => verify::main(args, client(cli.socket)),
        Command::Reap(args) => reap::main(args, client(cli.socket)),
        Command::CheckConfig(args) => check_config::main(args),
        Command::Doctor(args) => doctor::main(&args, client(cli.socket)),
        Command::Completions(args) => completions::main(&args),
        Command::Man(args) => man::main(&args),
        Command::NetnsHelper(args) => netns_helper::main(args),
    };
    match outcome {
        Ok(Verdict::Fine) => ExitCode::SUCCESS,
        Ok(Verdict::Found) => ExitCode::from(exit::FOUND),
        Ok(Verdict::Unable) => ExitCode::from(exit::UNABLE),
        Err(error) => exit::failure(&error),
    }
}

fn client(socket: Option<PathBuf>) -> Client {
    Client::new(socket.unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET)))
}

/// One line on stderr. That nobody reads it is no reason to fail.
fn say(sentence: &str) {
    let _unread = writeln!(std::io::stderr(), "socklife: {}", escape(sentence));
}

/// The signals that end a command.
struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    async fn recv(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Runs a command that only asks, until it is done or a signal ends it as `interrupted` says.
fn ask(
    command: impl Future<Output = anyhow::Result<Verdict>>,
    interrupted: impl FnOnce() -> anyhow::Result<Verdict>,
) -> anyhow::Result<Verdict> {
    until_stopped(async |mut stop| {
        tokio::select! {
            biased;
            outcome = command => outcome,
            () = stop.recv() => interrupted(),
        }
    })
}

/// Runs a command that ends by itself when it is told to.
fn until_stopped(command: impl AsyncFnOnce(StopSignals) -> anyhow::Result<Verdict>) -> anyhow::Result<Verdict> {
    let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(4).build();
    let runtime = runtime.context("cannot start the runtime")?;
    let outcome = runtime.block_on(async {
        let interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
        let terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        command(StopSignals { interrupt, terminate }).await
    });
    // A write that nobody reads, or a slow name service, must not keep a command from ending.
    Runtime::shutdown_background(runtime);
    outcome
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use sha2::Digest as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_version_names_the_kernel_programs() {
        // As `sha256sum tracer-ebpf/object/tracer-ebpf.bpf.o` begins.
        let object = include_bytes!("../../../tracer-ebpf/object/tracer-ebpf.bpf.o");
        let digest: String = sha2::Sha256::digest(object).iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(VERSION.ends_with(&format!("kernel programs {})", &digest[..12])), "{VERSION}, {digest}");
    }

    #[test]
    fn the_help_names_the_default_socket() {
        assert!(Cli::command().render_long_help().to_string().contains(DEFAULT_SOCKET));
    }
}
