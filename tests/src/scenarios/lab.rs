//! Where a scenario plays: a sandbox, a daemon, its tail and a recording of it, and the programs that play.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::cgroup::Cgroup;
use super::stretch::Recorder;
use super::verdicts::Verdicts;
use super::{Pace, Scenario};
use crate::daemon::{Daemon, Tail};
use crate::pace::patience;
use crate::postgres::Postgres;
use crate::program::{Finished, Program, command};
use crate::sandbox::{Sandbox, venv_python};

/// Other scenarios play at the same time, and are not to be seen.
const ALONE: &str = "inventory.namespaces=false";

/// A window of a second instead of ten, and what is counted in minutes counted in seconds.
const COMPRESSED: &[&str] = &[
    "detect.window_s=1",
    "inventory.reconcile_s=1",
    "detect.idle_hold.after_s=20",
    "detect.unused_connection.after_s=15",
    "detect.close_wait_leak.after_s=5",
];

/// What has to be found is waited for so many times as long as anything else: some of it takes a minute.
const VERDICT_PATIENCE: u32 = 4;

/// Seconds for which an incident is listened to after its verdicts: what else is found then counts as well.
const AFTERWARDS: u64 = 3;

/// What a program says of which a thread or a request has failed, and which goes on.
const TROUBLE: [&str; 3] = ["Traceback", "PHP Warning", "PHP Fatal"];

/// What a scenario showed.
#[derive(Debug)]
pub struct Shown {
    /// While it played.
    pub live: Verdicts,
    /// In the replay of its recording.
    pub replayed: Verdicts,
}

/// A scenario's stage.
pub struct Lab {
    programs: Vec<Program>,
    recorder: Recorder,
    tail: Tail,
    daemon: Daemon,
    postgres: Option<Postgres>,
    cgroups: Vec<Cgroup>,
    /// Where servers keep their files.
    pub sandbox: Sandbox,
    seen: Verdicts,
}

impl Lab {
    /// Starts the daemon, records and listens to it.
    pub fn enter(scenario: &Scenario) -> Result<Self> {
        let sandbox = Sandbox::enter_beside_others()?;
        let pace = match scenario.pace {
            Pace::Compressed => COMPRESSED,
            Pace::Default => &[],
        };
        let settings = [ALONE].iter().chain(pace).chain(scenario.settings).flat_map(|set| ["--set", *set]);
        let args: Vec<&str> = settings.collect();
        let daemon = Daemon::start_plain(&sandbox, &args)?;
        let tail = daemon.tail(&[])?;
        let recorder = Recorder::start(&sandbox, &daemon)?;
        Ok(Self {
            programs: Vec::new(),
            recorder,
            tail,
            daemon,
            postgres: None,
            cgroups: Vec::new(),
            sandbox,
            seen: Verdicts::default(),
        })
    }

    /// PostgreSQL on 5432 with so many connections; it ends with the lab.
    pub fn postgres(&mut self, max_connections: u32) -> Result<()> {
        self.postgres = Some(Postgres::start(&self.sandbox, max_connections)?);
        Ok(())
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

    /// A Python program as if it ran in a container of its own, which `number` tells from others.
    pub fn python_in_container(&mut self, number: u32, program: &str, args: &[&str]) -> Result<u32> {
        let cgroup = Cgroup::of_container(number)?;
        // It is in there before it is a Python program, and the same process all along.
        let mut python = command("sh");
        python.args(["-c", "echo $$ > \"$1\" && shift && exec \"$@\"", "sh"]).arg(cgroup.door());
        python.arg(venv_python()?).arg(programs().join(program)).args(args);
        self.cgroups.push(cgroup);
        self.start(program, python, true)
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

    /// The same for a program that keeps others, in a pid namespace of its own: all of them end with the lab, however that
    /// ends. Some masters leave their workers behind (PHP's web server), and others need time to end theirs.
    pub fn start_master(&mut self, name: &str, program: &Command) -> Result<()> {
        let mut master = command("unshare");
        master.args(["--pid", "--fork", "--kill-child", "--"]).arg(program.get_program()).args(program.get_args());
        for (key, value) in program.get_envs() {
            match value {
                Some(value) => master.env(key, value),
                None => master.env_remove(key),
            };
        }
        self.start(name, master, false).map(drop)
    }

    /// Kills a program that this lab started.
    pub fn kill(&mut self, pid: u32) -> Result<()> {
        self.take(pid)?.kill()
    }

    fn take(&mut self, pid: u32) -> Result<Program> {
        let at = self.programs.iter().position(|program| program.pid() == pid).context("not one of this lab's")?;
        Ok(self.programs.swap_remove(at))
    }

    /// Waits for a program to end by itself.
    pub fn wait_for_end(&mut self, pid: u32) -> Result<()> {
        let mut program = self.take(pid)?;
        let status = program.wait(patience())?;
        if !status.success() {
            bail!("a program ended with {status}; it said:\n{}", program.log());
        }
        Ok(())
    }

    /// From now on this kind is true: the time to its verdict counts from here.
    pub fn is_true(&mut self, kind: &str) {
        self.seen.is_true(kind);
    }

    /// The next line of the tail that `wanted` accepts.
    pub fn expect(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let limit = patience() * VERDICT_PATIENCE;
        let deadline = Instant::now() + limit;
        loop {
            match self.line(deadline)? {
                Some(line) if wanted(&line) => return Ok(line),
                Some(_) => {}
                None => bail!("{what}: not within {limit:?}; found so far: {}", self.seen.kinds().join(", ")),
            }
        }
    }

    /// Waits for a finding of that kind that is open and of which `wanted` is true. Numbers may still grow when it opens:
    /// what they have to be belongs in `wanted`.
    pub fn expect_open(&mut self, kind: &str, wanted: impl Fn(&Value) -> bool) -> Result<()> {
        self.find_open(kind, wanted).map(drop)
    }

    /// The same; gives the finding.
    pub fn find_open(&mut self, kind: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        if let Some(known) = self.known(kind, &wanted) {
            return Ok(known.clone());
        }
        self.expect(kind, |line| is_open(line, kind) && wanted(line))
    }

    /// A finding of that kind that is open, as far as the tail was read, and of which `wanted` is true.
    #[must_use]
    pub fn known(&self, kind: &str, wanted: impl Fn(&Value) -> bool) -> Option<&Value> {
        self.seen.findings.values().find(|line| is_open(line, kind) && wanted(line))
    }

    /// A command of socklife's, asked of this daemon.
    pub fn ask(&self, args: &[&str]) -> Result<Finished> {
        self.daemon.ask(args)
    }

    /// Waits for the line that resolves a finding of that kind.
    pub fn expect_resolved(&mut self, kind: &str) -> Result<()> {
        self.expect(&format!("{kind} resolved"), |line| line["kind"] == kind && line["status"] == "resolved").map(drop)
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
        ensure!(seen >= opened, "{seen} connections to {endpoint} were seen, not {opened}");
        Ok(())
    }

    /// What was shown, if the play went well. Copies the recording to `recordings` if it is to be kept.
    pub fn finish(mut self, played: Result<()>, scenario: &Scenario, recordings: Option<&Path>) -> Result<Shown> {
        let afterwards = if scenario.expected.is_empty() { 0 } else { AFTERWARDS };
        let played = played.and_then(|()| self.listen(afterwards)).and_then(|()| self.all_play());
        let log = self.daemon.log();
        let told = |seen: &Verdicts| format!("findings:\n{}\nthe daemon's log:\n{log}", seen.lines());
        played.with_context(|| told(&self.seen))?;
        // The recording ends before the programs do.
        let replayed = self.recorder.replay(scenario, recordings).with_context(|| told(&self.seen))?;
        Ok(Shown { live: self.seen, replayed })
    }

    /// Fails if a program that was to play has ended, or a part of it: it would be found silent.
    fn all_play(&self) -> Result<()> {
        for program in &self.programs {
            let log = program.log();
            ensure!(program.is_running(), "{} has ended; it said:\n{log}", program.name());
            let well = !TROUBLE.iter().any(|word| log.contains(word));
            ensure!(well, "{} is in trouble; it said:\n{log}", program.name());
        }
        Ok(())
    }

    /// The next line of the tail, if one comes before `deadline`.
    fn line(&mut self, deadline: Instant) -> Result<Option<Value>> {
        let Some((at, line)) = self.tail.next_before(deadline)? else { return Ok(None) };
        self.seen.take(at, &line);
        Ok(Some(line))
    }
}

fn is_open(line: &Value, kind: &str) -> bool {
    line["kind"] == kind && line["status"] == "open"
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
    ensure!(modules.is_dir(), "{} is missing: `cargo xtask setup` makes it", modules.display());
    Ok(modules)
}
