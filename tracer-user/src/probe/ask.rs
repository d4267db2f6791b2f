//! The course of one question: copy, guard, ask, look, let go. Any number of them may run at once on one thread.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::time::{Instant, sleep};
use tracer_core::snapshot::Connection;
use tracer_core::time::WallTime;

use super::copy::{Copy, NoCopy};
use super::guard::Guard;
use super::question::{Next, Question, Reading};
use super::report::{Reason, Verdict, VerifyLine};
use super::{ProbeError, socket};
use crate::clock;

/// Connections that are asked at once: each takes up to four descriptors, and 1,024 are the usual limit.
pub const AT_ONCE: usize = 200;
/// Probes unless the user says otherwise: with a tenth of all packets lost either way, one healthy connection in 4,000
/// is taken for dead.
pub const PROBES: u32 = 5;
/// Most probes.
pub const PROBES_MAX: u32 = 60;
/// From one look to the next: at first, and at last. The kernel announces no acknowledgement to anybody.
const LOOK_FIRST: Duration = Duration::from_millis(1);
const LOOK_LAST: Duration = Duration::from_millis(50);

/// How hard to ask.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Probes that have to go unanswered.
    pub probes: u32,
}

/// What has just been done to a connection, for whoever wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Its descriptor is copied.
    Copied,
    /// The child process holds it, too.
    Guarded,
    /// The kernel has sent a probe, and changed an option.
    Asked,
    /// The option is put back.
    Restored,
    /// The verdict is reached; the copies are still there.
    Judged,
}

/// Asks peers.
pub struct Prober {
    guard: Guard,
    plan: Plan,
    observer: Box<dyn Fn(Step)>,
    slots: Cell<u32>,
}

impl std::fmt::Debug for Prober {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Prober").field("guard", &self.guard).field("plan", &self.plan).finish_non_exhaustive()
    }
}

/// A verdict, and the copy that it was reached with, if there was one.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The verdict.
    pub line: VerifyLine,
    pub(super) held: Option<Held<'a>>,
}

/// A copy with everything put back when it goes.
#[derive(Debug)]
pub(super) struct Held<'a> {
    pub copy: Copy,
    /// In the guard, if there is something to put back.
    slot: Option<u32>,
    guard: &'a Guard,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            // It was put back after each probe; the guard is not let go before that is sure.
            if socket::restore_reuse_address(self.copy.as_fd()).is_ok() {
                let _at_its_end = self.guard.release(slot);
            }
        }
    }
}

impl Prober {
    /// Starts the child process that guards. Only before this process has any other thread.
    pub fn start(plan: Plan) -> Result<Self, ProbeError> {
        let plan = Plan { probes: plan.probes.clamp(1, PROBES_MAX) };
        Ok(Self { guard: Guard::start()?, plan, observer: Box::new(|_| {}), slots: Cell::new(0) })
    }

    /// Calls `observer` at each step.
    #[must_use]
    pub fn observed(self, observer: impl Fn(Step) + 'static) -> Self {
        Self { observer: Box::new(observer), ..self }
    }

    /// Asks the peer of one connection. What may be dropped at any await leaves nothing changed.
    pub async fn verify(&self, connection: &Connection) -> Result<Asked<'_>, ProbeError> {
        let line = VerifyLine::new(connection, wall_now());
        let unknown = |line: VerifyLine, reason| Asked { line: line.decided(Verdict::Unknown, reason), held: None };
        let copy = match Copy::take(connection) {
            Ok(copy) => copy,
            Err(NoCopy::Cannot(error)) => return Err(error),
            Err(NoCopy::NoHolder) => return Ok(unknown(line, Reason::NoHolder)),
            Err(NoCopy::NoIdentity) => return Ok(unknown(line, Reason::NoIdentity)),
            Err(NoCopy::Gone) => return Ok(unknown(line, Reason::Gone)),
            Err(NoCopy::Failed(error)) => {
                tracing::debug!(id = line.id, %error, "cannot copy the descriptor");
                return Ok(unknown(line, Reason::Refused));
            }
        };
        (self.observer)(Step::Copied);
        let held = self.hold(copy)?;
        let (verdict, reason, line) = match self.question(&held, line.clone()).await {
            Ok(told) => told,
            Err(Failed::Probe(error)) => return Err(error),
            Err(Failed::Socket(error)) => {
                tracing::debug!(id = line.id, %error, "cannot ask");
                return Ok(unknown(line, Reason::Refused));
            }
        };
        (self.observer)(Step::Judged);
        let line = VerifyLine { at: wall_now(), holder: Some(held.copy.holder), ..line };
        Ok(Asked { line: line.decided(verdict, reason), held: Some(held) })
    }

    /// Sees to it that whatever happens the option that a probe clears is set again, if it is set.
    fn hold(&self, copy: Copy) -> Result<Held<'_>, ProbeError> {
        let mut held = Held { copy, slot: None, guard: &self.guard };
        if socket::reuses_address(held.copy.as_fd()).unwrap_or(true) {
            let slot = self.slots.replace(self.slots.get().wrapping_add(1));
            self.guard.hold(slot, held.copy.as_fd())?;
            held.slot = Some(slot);
            (self.observer)(Step::Guarded);
        }
        Ok(held)
    }

    async fn question(&self, held: &Held<'_>, mut line: VerifyLine) -> Result<(Verdict, Reason, VerifyLine), Failed> {
        if socket::is_under_repair(held.copy.as_fd())? {
            return Ok((Verdict::Unknown, Reason::Refused, line));
        }
        let began = Instant::now();
        let mut reading = read(&held.copy, began)?;
        let mut question = Question::new(self.plan.probes, reading);
        let mut pause = LOOK_FIRST;
        loop {
            let next = question.next(&reading);
            line.state = reading.state;
            line.probes = question.asked;
            line.consecutive_rtos = reading.rtos;
            line.unacked = reading.unacked;
            line.waited_ms = u64::try_from(reading.at.as_millis()).unwrap_or(u64::MAX);
            line.last_heard_ms = u64::try_from(reading.silent.as_millis()).ok();
            match next {
                Next::Done(verdict, reason) => {
                    if reason == Reason::Answered {
                        line.answered_within_us = u64::try_from(question.waited(&reading).as_micros()).ok();
                    }
                    return Ok((verdict, reason, line));
                }
                Next::Ask => {
                    self.ask(held)?;
                    pause = LOOK_FIRST;
                    // A peer on this host has answered already.
                    reading = read(&held.copy, began)?;
                    continue;
                }
                Next::Look => {}
            }
            if !held.copy.is_still_held() {
                return Ok((Verdict::Unknown, Reason::Closed, line));
            }
            sleep(pause).await;
            pause = (2 * pause).min(LOOK_LAST);
            reading = read(&held.copy, began)?;
        }
    }

    /// One probe. No await in between: a future that is dropped never leaves the option changed.
    fn ask(&self, held: &Held<'_>) -> Result<(), Failed> {
        let fd = held.copy.as_fd();
        let asked = socket::send_probe(fd);
        (self.observer)(Step::Asked);
        if held.slot.is_some() {
            socket::restore_reuse_address(fd)?;
        }
        (self.observer)(Step::Restored);
        asked.map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM) => Failed::Probe(ProbeError::Denied { step: "send a probe", pid: held.copy.holder.pid }),
            _ => Failed::Socket(error),
        })
    }
}

/// Why a question has no answer.
enum Failed {
    /// None will.
    Probe(ProbeError),
    /// This one.
    Socket(io::Error),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Socket(error)
    }
}

fn read(copy: &Copy, began: Instant) -> Result<Reading, Failed> {
    let at = began.elapsed();
    let facts = socket::facts(copy.as_fd())?;
    let info = facts.info;
    Ok(Reading {
        at,
        state: facts.state,
        failed: has_failed(copy),
        segments_in: facts.segments_in,
        silent: Duration::from_millis(u64::from(info.last_ack_received_ms.min(info.last_data_received_ms))),
        unacked: info.unacked,
        rtos: info.consecutive_rtos,
        srtt: info.srtt_us.map(|us| Duration::from_micros(u64::from(us))),
    })
}

/// Whether an error is pending. SO_ERROR would tell which, and take it from the application.
fn has_failed(copy: &Copy) -> bool {
    let mut polled = [PollFd::new(copy.as_fd(), PollFlags::empty())];
    poll(&mut polled, PollTimeout::ZERO).is_ok()
        && polled[0].revents().is_some_and(|seen| seen.contains(PollFlags::POLLERR))
}

fn wall_now() -> WallTime {
    let anchor = clock::wall_anchor();
    anchor.wall(anchor.boot)
}
