//! Closes connections that are confirmed dead, each confirmed right before. Decides and acts; who is named, and where it
//! is written down, is the command's.

use std::cell::RefCell;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::unistd::getuid;
use tracer_core::snapshot::Connection;

use super::ask::{Asked, Held, Prober};
use super::destroy::{Doomed, Outcome, destroy};
use super::orphan::{self, Orphans};
use super::report::{Action, REAP_SCHEMA, ReapLine, Reason, Verdict, VerifyLine};
use super::{ProbeError, socket};
use crate::inventory;

/// How old a look may be that an orphan is closed by.
const FRESH: Duration = Duration::from_secs(1);
/// What the next read or write of a closed connection's application fails with.
const SEEN: &str = "ECONNABORTED";

/// A connection that somebody wants closed, and the finding that named it.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Which.
    pub connection: Connection,
    /// The finding's id, if it was not named itself.
    pub finding: Option<String>,
}

/// Closes what is dead.
#[derive(Debug)]
pub struct Reaper<'a> {
    prober: &'a Prober,
    /// Those of the connections that no process was seen to hold, and the last look at them.
    orphans: Vec<Connection>,
    look: RefCell<Option<(Instant, Orphans)>>,
    proc_root: &'a Path,
    kernel: String,
    /// Else it only says what it would do.
    yes: bool,
}

impl<'a> Reaper<'a> {
    /// For these connections.
    #[must_use]
    pub fn new(prober: &'a Prober, wanted: &[Wanted], proc_root: &'a Path, yes: bool) -> Self {
        let orphans = wanted.iter().map(|wanted| &wanted.connection).filter(|connection| connection.holders.is_empty());
        let (orphans, kernel) = (orphans.cloned().collect(), inventory::host(proc_root).kernel);
        Self { prober, orphans, look: RefCell::default(), proc_root, kernel, yes }
    }

    /// Confirms, and closes unless it is a dry run.
    pub async fn reap(&self, wanted: &Wanted) -> Result<ReapLine, ProbeError> {
        let connection = &wanted.connection;
        let Asked { line, held } = self.prober.verify(connection).await?;
        let (line, action, detail) = match (&held, line.reason) {
            (Some(held), Reason::NoAnswer | Reason::Retransmissions) => {
                let (action, detail) = self.close(held, &line)?;
                (line, action, detail)
            }
            (None, Reason::NoHolder) => self.close_orphan(connection, line)?,
            _ => {
                let detail = refusal(&line);
                (line, Action::Refused, detail)
            }
        };
        let is_told = action == Action::Closed && held.is_some();
        Ok(ReapLine {
            schema: REAP_SCHEMA.to_owned(),
            action,
            detail,
            uid: getuid().as_raw(),
            finding: wanted.finding.clone(),
            application_sees: is_told.then(|| SEEN.to_owned()),
            evidence: line,
        })
    }

    /// One that a process holds and whose peer did not answer a moment ago. The copy keeps the cookie the same socket's.
    fn close(&self, held: &Held<'_>, line: &VerifyLine) -> Result<(Action, String), ProbeError> {
        if !self.yes {
            return Ok((Action::WouldClose, line.detail.clone()));
        }
        let doomed = doomed(line, held.copy.cookie);
        let namespace = socket::namespace(held.copy.as_fd());
        let (Some(doomed), Ok(namespace)) = (doomed, namespace) else {
            return Ok((Action::Failed, "its network namespace cannot be entered".to_owned()));
        };
        Ok(told(destroy(namespace, doomed)?, line))
    }

    fn close_orphan(
        &self,
        connection: &Connection,
        mut line: VerifyLine,
    ) -> Result<(VerifyLine, Action, String), ProbeError> {
        let mut look = self.look.borrow_mut();
        let looked = match look.take().filter(|(at, _)| at.elapsed() < FRESH) {
            Some(fresh) => fresh,
            None => (Instant::now(), Orphans::look(&self.orphans, self.proc_root)?),
        };
        let (_, orphans) = look.insert(looked);
        let Some(row) = orphans.of(connection) else {
            let detail = refusal(&line);
            return Ok((line, Action::Refused, detail));
        };
        line.state = row.state;
        if let Some(info) = row.info {
            line.consecutive_rtos = info.consecutive_rtos;
            line.unacked = info.unacked;
            line.last_heard_ms = Some(u64::from(info.last_ack_received_ms.min(info.last_data_received_ms)));
        }
        if let Err(why) = orphan::is_dead(row) {
            return Ok((line.decided(Verdict::Unknown, Reason::NoHolder), Action::Refused, why));
        }
        let line = line.decided(Verdict::Dead, Reason::Retransmissions);
        if let Err(why) = orphan::can_close(&self.kernel) {
            return Ok((line, Action::Refused, why));
        }
        if !self.yes {
            let detail = line.detail.clone();
            return Ok((line, Action::WouldClose, detail));
        }
        let namespace = inventory::open_netns(self.proc_root, connection.netns)?;
        let (Some(doomed), Some(namespace)) = (doomed(&line, row.cookie), namespace) else {
            return Ok((line, Action::Failed, "its network namespace cannot be entered".to_owned()));
        };
        let (action, detail) = told(destroy(namespace, doomed)?, &line);
        Ok((line, action, detail))
    }
}

fn doomed(line: &VerifyLine, cookie: u64) -> Option<Doomed> {
    Some(Doomed { local: line.local.parse().ok()?, remote: line.remote.parse().ok()?, cookie })
}

fn told(outcome: Outcome, line: &VerifyLine) -> (Action, String) {
    match outcome {
        Outcome::Closed => (Action::Closed, line.detail.clone()),
        Outcome::Gone => (Action::Failed, "it was gone before it could be closed".to_owned()),
        Outcome::Failed(why) => (Action::Failed, format!("the kernel did not close it: {why}")),
    }
}

/// Why it is not touched.
fn refusal(line: &VerifyLine) -> String {
    match line.verdict {
        Verdict::Alive => "it is alive: only what is confirmed dead is closed".to_owned(),
        Verdict::Dead => "it is closed already".to_owned(),
        Verdict::Unknown => "it is not confirmed dead".to_owned(),
    }
}
