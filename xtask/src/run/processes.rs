//! Children of one run: started, watched as events, stopped with SIGTERM, always reaped.
//!
//! One thread a child waits for its end without reaping it, so that a pid stays ours until `next` has said that it
//! is gone: a signal never hits a stranger. Nothing here knows what the children do.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::sh;

/// How long a child may take to end after SIGTERM.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// More than all children and signals of one run; a full queue makes its sender wait, and nothing is lost.
const QUEUE: usize = 64;

/// What can happen while a run goes on.
#[derive(Debug)]
pub enum Event {
    /// The daemon's log says that it is ready.
    Ready,
    /// Somebody wants us to end.
    Signal,
    /// A child has ended.
    Exited(&'static str, ExitStatus),
    /// The time given to `next` is over.
    Deadline,
}

/// Who has to send a child its signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// We do.
    Direct,
    /// The child is sudo, which is root's: sudo does, and the first hands on to what it runs.
    Sudo,
}

/// From the watching threads.
pub enum Message {
    /// See [`Event::Ready`].
    Ready,
    /// See [`Event::Signal`].
    Signal,
    /// The child with this index has ended and waits to be reaped.
    Ended(usize),
}

struct Managed {
    name: &'static str,
    via: Via,
    child: Child,
    status: Option<ExitStatus>,
}

/// All children of one run, in the order they were started.
pub struct Processes {
    children: Vec<Managed>,
    sender: SyncSender<Message>,
    inbox: Receiver<Message>,
}

impl Processes {
    /// From here on SIGINT, SIGTERM and SIGHUP are events instead of our end.
    pub fn new() -> Result<Self> {
        let (sender, inbox) = sync_channel(QUEUE);
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot catch signals")?;
        let signal_sender = sender.clone();
        std::thread::spawn(move || {
            for _ in signals.forever() {
                if signal_sender.send(Message::Signal).is_err() {
                    return;
                }
            }
        });
        Ok(Self { children: Vec::new(), sender, inbox })
    }

    /// Where another watcher reports.
    pub fn sender(&self) -> SyncSender<Message> {
        self.sender.clone()
    }

    /// Starts a child and watches for its end; gives it back for its pid and its pipes.
    pub fn spawn(&mut self, name: &'static str, via: Via, command: &mut Command) -> Result<&mut Child> {
        let child = command.spawn().with_context(|| format!("cannot start {name} (`{}`)", sh::display(command)))?;
        let pid = pid_of(&child);
        let index = self.children.len();
        self.children.push(Managed { name, via, child, status: None });
        let sender = self.sender.clone();
        std::thread::spawn(move || {
            while let Err(nix::errno::Errno::EINTR) = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)
            {
            }
            // Nobody listens any more when everything has been stopped and reaped.
            let _ = sender.send(Message::Ended(index));
        });
        let managed = self.children.last_mut().context("a child that was just started is missing")?;
        Ok(&mut managed.child)
    }

    /// The next event, waited for at most until `deadline`.
    pub fn next(&mut self, deadline: Option<Instant>) -> Event {
        match self.receive(deadline) {
            Ok(Message::Ready) => Event::Ready,
            Ok(Message::Signal) => Event::Signal,
            Ok(Message::Ended(index)) => match self.reap(index) {
                Some((name, status)) => Event::Exited(name, status),
                None => self.next(deadline),
            },
            // We hold a sender ourselves, so a closed channel cannot be: whatever failed, the run is over.
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Event::Deadline,
        }
    }

    fn receive(&self, deadline: Option<Instant>) -> Result<Message, RecvTimeoutError> {
        match deadline {
            Some(deadline) => self.inbox.recv_timeout(deadline.saturating_duration_since(Instant::now())),
            None => self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    fn reap(&mut self, index: usize) -> Option<(&'static str, ExitStatus)> {
        let managed = self.children.get_mut(index)?;
        if managed.status.is_none() {
            managed.status = managed.child.wait().ok();
        }
        managed.status.map(|status| (managed.name, status))
    }

    /// Stops what still runs, the last started first, and reaps it. An error if one did not end in time or, asked to
    /// end, did not end cleanly: every program here promises to.
    pub fn stop_all(&mut self) -> Result<()> {
        let mut complaints = Vec::new();
        for index in (0..self.children.len()).rev() {
            if let Err(error) = self.stop(index) {
                complaints.push(format!("{error:#}"));
            }
        }
        if complaints.is_empty() {
            return Ok(());
        }
        bail!("{}", complaints.join("; "))
    }

    fn stop(&mut self, index: usize) -> Result<()> {
        if !self.is_running(index) {
            return Ok(());
        }
        self.signal(index, Signal::SIGTERM)?;
        let deadline = Instant::now() + STOP_WITHIN;
        while self.is_running(index) {
            // A second Ctrl-C does not cut the order short: every wait here is bounded already.
            if matches!(self.next(Some(deadline)), Event::Deadline) {
                self.signal(index, Signal::SIGKILL)?;
                let name = self.name(index);
                self.reap(index);
                bail!("{name} did not end within {} s of SIGTERM and was killed", STOP_WITHIN.as_secs());
            }
        }
        match self.children.get(index).and_then(|managed| managed.status) {
            Some(status) if !status.success() => bail!("asked to end, {} ended with {status}", self.name(index)),
            _ => Ok(()),
        }
    }

    fn is_running(&self, index: usize) -> bool {
        self.children.get(index).is_some_and(|managed| managed.status.is_none())
    }

    fn name(&self, index: usize) -> &'static str {
        self.children.get(index).map_or("?", |managed| managed.name)
    }

    fn signal(&self, index: usize, signal: Signal) -> Result<()> {
        let Some(managed) = self.children.get(index) else { return Ok(()) };
        let pid = pid_of(&managed.child);
        match managed.via {
            Via::Direct => kill(pid, signal).with_context(|| format!("cannot stop {} (pid {pid})", managed.name)),
            Via::Sudo => {
                let number = (signal as i32).to_string();
                let mut command = Command::new("sudo");
                command.args(["--non-interactive", "kill", "-s", &number, &pid.to_string()]).process_group(0);
                sh::output(&mut command)
                    .map(drop)
                    .with_context(|| format!("cannot stop {}: end it with `sudo kill {pid}`", managed.name))
            }
        }
    }
}

impl Drop for Processes {
    /// For the ways out that nobody planned, such as a panic over a closed stdout: nothing is left running.
    fn drop(&mut self) {
        // Whoever plans the way out calls `stop_all` and hears of its errors; here is nobody to tell.
        let _ = self.stop_all();
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::Stdio;

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn the_end_of_a_child_is_an_event_with_its_status() {
        let mut processes = Processes::new().unwrap();
        processes.spawn("seven", Via::Direct, &mut shell("exit 7")).unwrap();
        let event = processes.next(None);
        assert!(matches!(event, Event::Exited("seven", status) if status.code() == Some(7)), "{event:?}");
        processes.stop_all().unwrap();
    }

    /// Starts a shell that has said, before this returns, that its trap for SIGTERM is armed.
    fn start_armed(processes: &mut Processes, on_term: &str) -> Pid {
        let mut command = shell(&format!("trap '{on_term}' TERM; echo armed; while read -r line; do :; done; exit 9"));
        let child = processes.spawn("sh", Via::Direct, command.stdin(Stdio::piped()).stdout(Stdio::piped())).unwrap();
        let mut said = [0; 6];
        child.stdout.take().unwrap().read_exact(&mut said).unwrap();
        assert_eq!(&said, b"armed\n");
        pid_of(child)
    }

    #[test]
    fn what_still_runs_is_stopped_and_reaped() {
        let mut processes = Processes::new().unwrap();
        let first = start_armed(&mut processes, "exit 0");
        let second = start_armed(&mut processes, "exit 0");
        processes.stop_all().unwrap();
        for pid in [first, second] {
            assert_eq!(kill(pid, None), Err(nix::errno::Errno::ESRCH), "{pid} was not reaped");
        }
    }

    #[test]
    fn a_child_that_ends_badly_when_asked_to_is_an_error_and_the_others_are_stopped_all_the_same() {
        let mut processes = Processes::new().unwrap();
        let other = start_armed(&mut processes, "exit 0");
        start_armed(&mut processes, "exit 3");
        let error = processes.stop_all().unwrap_err().to_string();
        assert_eq!(error, "asked to end, sh ended with exit status: 3");
        assert_eq!(kill(other, None), Err(nix::errno::Errno::ESRCH));
    }

    #[test]
    fn what_is_dropped_is_stopped() {
        let mut processes = Processes::new().unwrap();
        let pid = start_armed(&mut processes, "exit 0");
        drop(processes);
        assert_eq!(kill(pid, None), Err(nix::errno::Errno::ESRCH), "{pid} was not reaped");
    }

    #[test]
    fn a_deadline_that_has_passed_is_told_at_once() {
        let mut processes = Processes::new().unwrap();
        assert!(matches!(processes.next(Some(Instant::now())), Event::Deadline));
    }
}
