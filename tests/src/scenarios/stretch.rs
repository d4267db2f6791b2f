//! The recording of a scenario, replayed with the default settings of detectors and time stretched.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use super::verdicts::Verdicts;
use super::{Scenario, Stretched};
use crate::daemon::{Daemon, socklife};
use crate::pace::patience;
use crate::program::{Program, command};
use crate::sandbox::{Sandbox, socklife_binary};

/// What the recording is called in the sandbox.
const FILE: &str = "scenario.rec";

/// A running `socklife record`.
pub struct Recorder {
    record: Program,
    path: String,
}

impl Recorder {
    /// Starts it, and waits until it records.
    pub fn start(sandbox: &Sandbox, daemon: &Daemon) -> Result<Self> {
        let path = sandbox.path(FILE).to_str().context("a path that is no text")?.to_owned();
        let mut record = command(socklife_binary()?);
        record.args(["record", "-o", &path, "--socket"]).arg(daemon.socket());
        let record = Program::start("socklife record", record)?;
        record.err_line("the line that it records", |line| line.contains("recording to"))?;
        Ok(Self { record, path })
    }

    /// Ends the recording, and gives what a replay of it finds.
    pub fn replay(&mut self, scenario: &Scenario, recordings: Option<&Path>) -> Result<Verdicts> {
        self.record.signal(Signal::SIGTERM)?;
        let status = self.record.wait(patience())?;
        ensure!(status.success(), "socklife record ended with {status}; it said:\n{}", self.record.log());
        if let Some(directory) = recordings {
            fs::create_dir_all(directory)?;
            fs::copy(&self.path, directory.join(format!("{}.rec", scenario.name)))?;
        }
        let Stretched { times, .. } = scenario.stretched;
        let said = socklife(&["replay", "--defaults", "--findings", "--stretch", &times.to_string(), &self.path])?;
        ensure!(said.code == Some(0), "socklife replay ended with {:?}: {}", said.code, said.stderr);
        let mut verdicts = Verdicts::default();
        for line in said.stdout.lines() {
            let line = serde_json::from_str(line).with_context(|| format!("socklife replay said {line:?}"))?;
            verdicts.take(Instant::now(), &line);
        }
        Ok(verdicts)
    }
}
