//! The real `socklife`, driven by its command line.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::pace::patience;
use crate::program::{Finished, Program, command, finish};
use crate::sandbox::{Sandbox, example_binary, socklife_binary};

/// A running `socklife run`.
pub struct Daemon {
    program: Program,
    socket: PathBuf,
}

/// What the environment adds to every `socklife run`, such as which hooks to use: words apart by spaces.
pub fn run_arguments() -> Vec<String> {
    let said = std::env::var("SOCKLIFE_RUN_ARGS").unwrap_or_default();
    said.split_whitespace().map(str::to_owned).collect()
}

/// `socklife` with these arguments, to its end.
pub fn socklife<S: AsRef<str>>(args: &[S]) -> Result<Finished> {
    let mut command = command(socklife_binary()?);
    command.args(args.iter().map(AsRef::as_ref));
    finish(command)
}

/// Where a sandbox's daemon listens.
pub fn socket_path(sandbox: &Sandbox) -> PathBuf {
    sandbox.path("socklife.sock")
}

impl Daemon {
    /// Starts the daemon and waits until it says that it is ready.
    pub fn start(sandbox: &Sandbox, args: &[&str]) -> Result<Self> {
        let daemon = Self::launch(sandbox, args)?;
        daemon.program.err_line("the line `ready`", says_ready)?;
        Ok(daemon)
    }

    /// Starts a daemon that loses so many in a hundred ends of connections.
    pub fn start_faulty(sandbox: &Sandbox, percent: u32) -> Result<Self> {
        let socket = socket_path(sandbox);
        let mut faulty = command(example_binary("faulty")?);
        faulty.arg(percent.to_string()).arg(&socket).arg("inventory.reconcile_s=1");
        let daemon = Self { program: Program::start("faulty", faulty)?, socket };
        daemon.program.err_line("the line `ready`", says_ready)?;
        Ok(daemon)
    }

    /// Starts the daemon as a user does, with its defaults, and waits until it says that it is ready.
    pub fn start_plain(sandbox: &Sandbox, args: &[&str]) -> Result<Self> {
        let daemon = Self::spawn(sandbox, args)?;
        daemon.program.err_line("the line `ready`", says_ready)?;
        Ok(daemon)
    }

    /// Starts the daemon as a service manager does, with what that puts into its environment, without waiting.
    pub fn launch_as_service(sandbox: &Sandbox, environment: &[(&str, &OsStr)]) -> Result<Self> {
        let socket = socket_path(sandbox);
        let mut run = command(socklife_binary()?);
        run.arg("run").arg("--socket").arg(&socket).args(run_arguments()).envs(environment.iter().copied());
        Ok(Self { program: Program::start("socklife run", run)?, socket })
    }

    /// Starts the daemon without waiting.
    pub fn launch(sandbox: &Sandbox, args: &[&str]) -> Result<Self> {
        // A second between looks at /proc: what the suite compares is there soon.
        Self::spawn(sandbox, &[&["--set", "inventory.reconcile_s=1"], args].concat())
    }

    fn spawn(sandbox: &Sandbox, args: &[&str]) -> Result<Self> {
        let socket = socket_path(sandbox);
        let mut run = command(socklife_binary()?);
        run.arg("run").arg("--socket").arg(&socket).args(run_arguments()).args(args);
        Ok(Self { program: Program::start("socklife run", run)?, socket })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.program.pid()
    }

    /// Its control socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What it logged lately.
    pub fn log(&self) -> String {
        self.program.log()
    }

    /// `socklife COMMAND … --socket ITS_SOCKET`, to its end.
    pub fn ask(&self, args: &[&str]) -> Result<Finished> {
        let mut ask = command(socklife_binary()?);
        ask.args(args).arg("--socket").arg(&self.socket);
        finish(ask)
    }

    /// `socklife snapshot`.
    pub fn snapshot(&self) -> Result<Value> {
        let said = self.ask(&["snapshot"])?;
        snapshot_of(&said).with_context(|| format!("the daemon's log:\n{}", self.log()))
    }

    /// `socklife tail --json` with these further arguments.
    pub fn tail(&self, args: &[&str]) -> Result<Tail> {
        let mut tail = command(socklife_binary()?);
        tail.args(["tail", "--json", "--socket"]).arg(&self.socket).args(args);
        Ok(Tail { program: Program::start("socklife tail", tail)?, seen: Vec::new() })
    }

    /// Sends it a signal that ends it, and expects exit code 0 and no socket file left.
    pub fn stop(mut self, signal: Signal) -> Result<()> {
        self.program.signal(signal)?;
        self.expect_clean_end()
    }

    /// Expects it to end by itself, with exit code 0 and no socket file left.
    pub fn expect_clean_end(&mut self) -> Result<()> {
        let status = self.program.wait(patience())?;
        ensure!(status.code() == Some(0), "socklife run ended with {status}, not 0; it said:\n{}", self.log());
        ensure!(!self.socket.try_exists()?, "{} is still there; it said:\n{}", self.socket.display(), self.log());
        Ok(())
    }

    /// Kills it as the kernel's OOM killer would.
    pub fn kill(mut self) -> Result<()> {
        self.program.kill()
    }
}

fn says_ready(line: &str) -> bool {
    line.split(|letter: char| !letter.is_alphanumeric()).any(|word| word == "ready")
}

/// The snapshot on a command's stdout.
pub fn snapshot_of(said: &Finished) -> Result<Value> {
    ensure!(said.code == Some(0), "socklife snapshot ended with {:?}: {}", said.code, said.stderr);
    let snapshot: Value =
        serde_json::from_str(&said.stdout).with_context(|| format!("not a JSON snapshot: {:?}", said.stdout))?;
    ensure!(snapshot["schema"] == "socklife.snapshot/v1", "schema is {}", snapshot["schema"]);
    Ok(snapshot)
}

/// A running `socklife tail --json`.
pub struct Tail {
    program: Program,
    seen: Vec<Value>,
}

impl Tail {
    /// The next line.
    pub fn next(&mut self, deadline: Instant) -> Result<Value> {
        let line = self.program.out_line(deadline)?;
        let value: Value = serde_json::from_str(&line).with_context(|| format!("tail said {line:?}"))?;
        self.seen.push(value.clone());
        Ok(value)
    }

    /// The next line and when it came, if one comes before `deadline`.
    pub fn next_before(&mut self, deadline: Instant) -> Result<Option<(Instant, Value)>> {
        let Some((at, line)) = self.program.out_line_before(deadline)? else { return Ok(None) };
        let value: Value = serde_json::from_str(&line).with_context(|| format!("tail said {line:?}"))?;
        self.seen.push(value.clone());
        Ok(Some((at, value)))
    }

    /// The first line from here on that `wanted` accepts. What was passed over stays in [`Self::seen`].
    pub fn wait_for(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let deadline = Instant::now() + patience();
        loop {
            let line = self.next(deadline).with_context(|| format!("waiting for {what}"))?;
            if wanted(&line) {
                return Ok(line);
            }
        }
    }

    /// Every line read so far.
    pub fn seen(&self) -> &[Value] {
        &self.seen
    }

    /// Interrupts it and expects exit code 0.
    pub fn stop(mut self, signal: Signal) -> Result<()> {
        self.program.signal(signal)?;
        let status = self.program.wait(patience())?;
        if status.code() != Some(0) {
            bail!("socklife tail ended with {status} after {signal}; it said:\n{}", self.program.log());
        }
        Ok(())
    }
}
