//! Where a scenario plays: a sandbox, a daemon, its tail, and the programs that play.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::Scenario;
use crate::daemon::{Daemon, Tail};
use crate::pace::patience;
use crate::program::{Program, command};
use crate::sandbox::{Sandbox, venv_python};

/// A window of a second instead of ten, and what is counted in minutes counted in seconds.
pub const COMPRESSED: &[&str] = &[
    "detect.window_s=1",
    "inventory.reconcile_s=1",
    "inventory.namespaces=false",
    "detect.idle_hold.after_s=20",
    "detect.unused_connection.after_s=15",
    "detect.close_wait_leak.after_s=5",
];

/// Findings by kind: the first line of each that opened, and how long after it became true.
#[derive(Debug, Default)]
pub struct Seen {
    /// The last line of each finding that opened, by kind and id.
    pub findings: BTreeMap<(String, String), Value>,
    /// Seconds from the moment a kind was true to its line.
    pub verdicts: BTreeMap<String, f64>,
}

/// A scenario's stage.
pub struct Lab {
    programs: Vec<Program>,
    tail: Tail,
    daemon: Daemon,
    /// Where servers keep their files.
    pub sandbox: Sandbox,
    true_since: BTreeMap<String, Instant>,
    seen: Seen,
}

impl Lab {
    /// Starts the daemon and listens to it.
    pub fn enter(scenario: &Scenario) -> Result<Self> {
        let sandbox = Sandbox::enter()?;
        let settings = COMPRESSED.iter().chain(scenario.settings).flat_map(|set| ["--set", *set]);
        let args: Vec<&str> = settings.collect();
        let daemon = Daemon::start_plain(&sandbox, &args)?;
        let tail = daemon.tail(&[])?;
        let (true_since, seen) = (BTreeMap::new(), Seen::default());
        Ok(Self { programs: Vec::new(), tail, daemon, sandbox, true_since, seen })
    }

    /// Starts a Python program of `tests/scenarios/programs` and waits until it says that it is ready; its pid.
    pub fn python(&mut self, program: &str, args: &[&str]) -> Result<u32> {
        let mut python = command(venv_python()?);
        python.arg(programs().join(program)).args(args);
        self.start(program, python, true)
    }

    /// The same without waiting for anything.
    pub fn python_unready(&mut self, program: &str, args: &[&str]) -> Result<u32> {
        let mut python = command(venv_python()?);
        python.arg(programs().join(program)).args(args);
        self.start(program, python, false)
    }

    /// A Node program, in the same way.
    pub fn node(&mut self, program: &str, args: &[&str]) -> Result<u32> {
        let mut node = command("node");
        node.env("NODE_PATH", node_modules()?).arg(programs().join(program)).args(args);
        self.start(program, node, true)
    }

    /// Anything else.
    pub fn start(&mut self, name: &str, command: Command, says_ready: bool) -> Result<u32> {
        let program = Program::start(name, command)?;
        if says_ready {
            let deadline = Instant::now() + patience();
            while program.out_line(deadline)? != "ready" {}
        }
        let pid = program.pid();
        self.programs.push(program);
        Ok(pid)
    }

    /// Kills a program that this lab started.
    pub fn kill(&mut self, pid: u32) -> Result<()> {
        let at = self.programs.iter().position(|program| program.pid() == pid).context("not one of this lab's")?;
        self.programs.swap_remove(at).kill()
    }

    /// Asks a program that this lab started to end, and waits until it has.
    pub fn stop(&mut self, pid: u32) -> Result<()> {
        let at = self.programs.iter().position(|program| program.pid() == pid).context("not one of this lab's")?;
        let mut program = self.programs.swap_remove(at);
        program.signal(Signal::SIGTERM)?;
        program.wait(patience()).map(drop)
    }

    /// Waits for a program to end by itself.
    pub fn wait_for_end(&mut self, pid: u32) -> Result<()> {
        let at = self.programs.iter().position(|program| program.pid() == pid).context("not one of this lab's")?;
        let mut program = self.programs.swap_remove(at);
        let status = program.wait(patience())?;
        if !status.success() {
            bail!("a program ended with {status}; it said:\n{}", program.log());
        }
        Ok(())
    }

    /// From now on this kind is true: the time to its verdict counts from here.
    pub fn is_true(&mut self, kind: &str) {
        self.true_since.insert(kind.to_owned(), Instant::now());
    }

    /// The next line of the tail that `wanted` accepts, within `seconds`.
    pub fn expect(&mut self, what: &str, seconds: u64, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        loop {
            match self.line(deadline)? {
                Some(line) if wanted(&line) => return Ok(line),
                Some(_) => {}
                None => bail!("{what}: not within {seconds} s; found so far: {}", self.kinds()),
            }
        }
    }

    /// A finding of that kind that is open and of which `wanted` is true, now or within `seconds`.
    pub fn expect_open(&mut self, kind: &str, seconds: u64, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let right = |line: &Value| line["kind"] == kind && line["status"] == "open" && wanted(line);
        if let Some(known) = self.seen.findings.values().find(|line| right(line)) {
            return Ok(known.clone());
        }
        self.expect(kind, seconds, right)
    }

    /// The line that resolves a finding of that kind.
    pub fn expect_resolved(&mut self, kind: &str, seconds: u64) -> Result<Value> {
        self.expect(&format!("{kind} resolved"), seconds, |line| line["kind"] == kind && line["status"] == "resolved")
    }

    /// Listens for so long: whatever is found meanwhile counts.
    pub fn listen(&mut self, seconds: u64) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        while self.line(deadline)?.is_some() {}
        Ok(())
    }

    /// Listens for so long, and checks that socklife has seen so many connections opened to that port from here: silence
    /// about nothing proves nothing.
    pub fn listen_to(&mut self, port: u16, opened: u64, seconds: u64) -> Result<()> {
        self.listen(seconds)?;
        let snapshot = self.daemon.snapshot()?;
        let endpoint = format!("127.0.0.1:{port}");
        let endpoints = snapshot["endpoints"].as_array().into_iter().flatten();
        let here = |entry: &&Value| entry["id"] == endpoint.as_str() && entry["role"] == "client";
        let seen = endpoints.clone().find(here).and_then(|entry| entry["opened_total"].as_u64()).unwrap_or(0);
        anyhow::ensure!(seen >= opened, "{seen} connections to {endpoint} were seen, not {opened}");
        Ok(())
    }

    /// What was seen, if the play went well.
    pub fn finish(self, played: Result<()>) -> Result<Seen> {
        let lines: Vec<String> = self.seen.findings.values().map(ToString::to_string).collect();
        played.with_context(|| format!("findings:\n{}\nthe daemon's log:\n{}", lines.join("\n"), self.daemon.log()))?;
        Ok(self.seen)
    }

    /// The next line of the tail, if one comes before `deadline`.
    fn line(&mut self, deadline: Instant) -> Result<Option<Value>> {
        let Some(line) = self.tail.next_before(deadline)? else { return Ok(None) };
        let word = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        let (kind, id) = (word("kind"), word("id"));
        if kind.is_empty() {
            return Ok(Some(line));
        }
        if let Some(since) = self.true_since.get(&kind)
            && line["change"] == "opened"
        {
            self.seen.verdicts.entry(kind.clone()).or_insert(since.elapsed().as_secs_f64());
        }
        self.seen.findings.insert((kind, id), line.clone());
        Ok(Some(line))
    }

    fn kinds(&self) -> String {
        let kinds: Vec<&str> = self.seen.findings.keys().map(|(kind, _)| kind.as_str()).collect();
        if kinds.is_empty() { "nothing".to_owned() } else { kinds.join(", ") }
    }
}

/// The pids of a finding's subject.
#[must_use]
pub fn pids(finding: &Value) -> Vec<u32> {
    let pids = finding["subject"]["pids"].as_array().into_iter().flatten();
    pids.filter_map(|pid| pid.as_u64().and_then(|pid| u32::try_from(pid).ok())).collect()
}

/// The number behind a fact of a finding's evidence.
#[must_use]
pub fn number(finding: &Value, fact: &str) -> Option<i64> {
    let evidence = finding["evidence"].as_array()?;
    evidence.iter().find(|entry| entry["fact"] == fact)?["value"].as_i64()
}

pub(super) fn programs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/programs")
}

/// The directory of the pinned packages for Node: `SOCKLIFE_TEST_NODE`, else what `cargo xtask setup` installs.
fn node_modules() -> Result<PathBuf> {
    let modules = match std::env::var_os("SOCKLIFE_TEST_NODE") {
        Some(path) => PathBuf::from(path),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/node/node_modules"),
    };
    anyhow::ensure!(modules.is_dir(), "{} is missing: `cargo xtask setup` makes it", modules.display());
    Ok(modules)
}
