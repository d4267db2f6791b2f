//! Child processes that never outlive their guard, and waiting for what they say or do. Every wait is for an event
//! and has a deadline.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::pace::patience;

/// Lines of a program's output kept for failure messages.
const KEPT_LINES: usize = 400;

/// Lines of one stream that may wait to be read by the suite.
const WAITING_LINES: usize = 65_536;

/// A command whose process ends with the thread that starts it, whatever becomes of the suite.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    clean(&mut command);
    command
}

/// The same as another user, without any privilege.
pub fn command_as(user: &str, group: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", user, "--regid", group, "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]);
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    clean(&mut command);
    command
}

/// Takes away what the caller's environment could change.
fn clean(command: &mut Command) {
    command.env_remove("SOCKLIFE_SOCKET").env_remove("RUST_LOG").env("NO_COLOR", "1").env("LC_ALL", "C.UTF-8");
}

/// The last lines a program wrote, in both streams' order of arrival.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<VecDeque<String>>>);

impl Log {
    fn push(&self, line: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == KEPT_LINES {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
    }

    fn text(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(|line| format!("    {line}\n")).collect()
    }
}

/// A line and when it came.
type Line = (Instant, String);

/// A running program; killed and reaped when dropped.
pub struct Program {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    out: Receiver<Line>,
    err: Receiver<Line>,
    ended: Receiver<()>,
    log: Log,
}

impl Program {
    /// Starts `command` with all three streams piped.
    pub fn start(name: &str, mut command: Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("start {name}: {command:?}"))?;
        let log = Log::default();
        let out = read_lines(child.stdout.take(), log.clone());
        let err = read_lines(child.stderr.take(), log.clone());
        let ended = watch_end(child.id());
        Ok(Self { name: name.to_owned(), stdin: child.stdin.take(), child, out, err, ended, log })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes one line to its stdin.
    pub fn say(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("its stdin is closed")?;
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).with_context(|| format!("tell {} {line:?}", self.name))
    }

    /// Closes its stdin.
    pub fn hang_up(&mut self) {
        self.stdin = None;
    }

    /// The next line of its stdout.
    pub fn out_line(&self, deadline: Instant) -> Result<String> {
        self.next(&self.out, deadline, "a line on stdout")
    }

    /// The next line of its stdout and when it came, if one comes before `deadline`.
    pub fn out_line_before(&self, deadline: Instant) -> Result<Option<(Instant, String)>> {
        match self.out.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                bail!("{} (pid {}) has closed its stdout; it said:\n{}", self.name, self.pid(), self.log())
            }
        }
    }

    /// The first line of its stderr, from here on, that `wanted` accepts.
    pub fn err_line(&self, what: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let deadline = Instant::now() + patience();
        loop {
            let line = self.next(&self.err, deadline, what)?;
            if wanted(&line) {
                return Ok(line);
            }
        }
    }

    fn next(&self, lines: &Receiver<Line>, deadline: Instant, what: &str) -> Result<String> {
        let next = lines.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        next.map(|(_, line)| line).map_err(|error| {
            let why = match error {
                RecvTimeoutError::Timeout => "did not come in time",
                RecvTimeoutError::Disconnected => "never came: the stream ended",
            };
            anyhow!("{} (pid {}): {what} {why}; it said:\n{}", self.name, self.pid(), self.log())
        })
    }

    /// Sends it a signal. Safe from pid reuse: only [`Self::wait`] and the drop reap it.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.pid())?);
        kill(pid, signal).with_context(|| format!("send {signal} to {}", self.name))
    }

    /// Waits until it has ended.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        if self.ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            bail!("{} (pid {}) still runs after {limit:?}; it said:\n{}", self.name, self.pid(), self.log());
        }
        Ok(self.child.wait()?)
    }

    /// Whether it has not ended.
    pub fn is_running(&self) -> bool {
        self.ended.try_recv() == Err(TryRecvError::Empty)
    }

    /// Kills it and waits for its end.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.wait(patience()).map(drop)
    }

    /// What it was started as.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it has written lately, indented.
    pub fn log(&self) -> String {
        self.log.text()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_lines(stream: Option<impl Read + Send + 'static>, log: Log) -> Receiver<Line> {
    let (sender, receiver) = sync_channel(WAITING_LINES);
    if let Some(stream) = stream {
        thread::spawn(move || forward(stream, &log, &sender));
    }
    receiver
}

fn forward(stream: impl Read, log: &Log, sender: &SyncSender<Line>) {
    for line in BufReader::new(stream).split(b'\n') {
        let Ok(line) = line else { return };
        let line = String::from_utf8_lossy(&line).into_owned();
        log.push(&line);
        // Nobody listens, or not any more: keep reading all the same, so that the program never blocks on a full pipe.
        let _ = sender.try_send((Instant::now(), line));
    }
}

/// Reports the end of a child without reaping it, so that its pid stays its own.
fn watch_end(pid: u32) -> Receiver<()> {
    let (sender, receiver) = sync_channel(1);
    thread::spawn(move || {
        let Ok(pid) = i32::try_from(pid) else { return };
        while waitid(Id::Pid(Pid::from_raw(pid)), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)
            == Err(nix::errno::Errno::EINTR)
        {}
        let _ = sender.send(());
    });
    receiver
}

/// How a program that ran to its end ended.
#[derive(Debug)]
pub struct Finished {
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// All of its stdout.
    pub stdout: String,
    /// All of its stderr.
    pub stderr: String,
}

/// Runs a program to its end, within [`patience`].
pub fn finish(mut command: Command) -> Result<Finished> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
    let stdout = read_all(child.stdout.take());
    let stderr = read_all(child.stderr.take());
    let in_time = watch_end(child.id()).recv_timeout(patience()) != Err(RecvTimeoutError::Timeout);
    if !in_time {
        child.kill()?;
    }
    let status = child.wait()?;
    let (stdout, stderr) = (stdout.recv().unwrap_or_default(), stderr.recv().unwrap_or_default());
    if !in_time {
        bail!("{command:?} still ran after {:?}; stdout:\n{stdout}\nstderr:\n{stderr}", patience());
    }
    Ok(Finished { code: status.code(), stdout, stderr })
}

fn read_all(stream: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (sender, receiver) = sync_channel(1);
    if let Some(mut stream) = stream {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = stream.read_to_end(&mut bytes);
            let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
        });
    }
    receiver
}

/// Runs a program that must succeed; its stdout.
pub fn output(command: Command) -> Result<String> {
    let shown = format!("{command:?}");
    let finished = finish(command)?;
    if finished.code != Some(0) {
        bail!("{shown} ended with {:?}: {}{}", finished.code, finished.stdout, finished.stderr);
    }
    Ok(finished.stdout)
}

/// Asks again and again until the answer is there or patience ends; for what announces itself by no event.
#[expect(
    clippy::disallowed_methods,
    reason = "the only sleep: it spares the CPU between two looks and decides nothing"
)]
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Result<Result<T, String>>) -> Result<T> {
    let deadline = Instant::now() + patience();
    loop {
        match ask()? {
            Ok(answer) => return Ok(answer),
            Err(why) if Instant::now() >= deadline => bail!("{what}: not within {:?}:\n{why}", patience()),
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}
