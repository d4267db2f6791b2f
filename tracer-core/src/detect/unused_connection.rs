//! `unused_connection`: opened, authenticated, never used.
//!
//! Trigger: at least `connections` (3) of a process to one endpoint are older than `after_s` (120 s) and have said
//! nothing since their first 5 s, which carried no more than a login does; and the process itself had no use for them:
//! - it opened them one after the other: each when the one before had been idle for a window. A pool would have taken
//!   the idle one. Or
//! - it opened them together and works on others, while these have waited 30 x `after_s` (an hour): a pool of a fixed
//!   size whose members are neither used nor recycled.
//!
//! Where the process has used any other, both take at least six: a pool keeps a floor of up to five idle members.
//!
//! Always info: they cost the server and nothing else. Clears after a window in which it was untrue.
//!
//! Confidence: 0.8 when they came one after the other, 0.6 otherwise; times the completeness factor.
//!
//! Look-alikes: connections with traffic (replication, LISTEN, heartbeats), members that a pool has just created or keeps
//! as a floor (opened together, or the process closed others since: it recycles), a pool at rest (nothing else of the
//! process is in use), connections found open at start (their beginning was not seen).

use std::time::Duration;

use super::rest::{local_ports, one_after_the_other};
use super::survey::Held;
use super::{Carried, Context, DetectConfig, Detector, Holding, Threshold, Verdict, count, list, plural, spoken, text};
use crate::endpoint::Endpoint;
use crate::event::ProcessId;
use crate::finding::{Kind, Severity, Subject};
use crate::process::Process;
use crate::time::BootNs;

/// A login and what a driver asks right after it are over by then.
const LOGIN: Duration = Duration::from_secs(5);
/// Most bytes sent in a login, with TLS and a client certificate.
const LOGIN_SENT: u64 = 16 << 10;
/// Most bytes received in a login, with a chain of certificates and the catalogue that some drivers read.
const LOGIN_RECEIVED: u64 = 64 << 10;
/// How many times `after` a pool of a fixed size may leave members alone.
const PATIENCE: u32 = 30;

/// Idle members that a pool may keep for the next to come.
const FLOOR: usize = 5;

const AFTER: Threshold = Threshold {
    key: "after_s",
    default: 120,
    bounds: (1, 86_400),
    meaning: "How long a connection must have said nothing since its login.",
};
const CONNECTIONS: Threshold = Threshold {
    key: "connections",
    default: 3,
    bounds: (2, 10_000),
    meaning: "How many unused connections of one process are worth a word.",
};

pub(super) struct UnusedConnection;

/// Unused connections of one process at one endpoint.
struct Found<'a, 'b> {
    unused: Vec<&'b Held<'a>>,
    /// Opened each when the one before had long been idle.
    in_turn: usize,
    /// That alone tells that no pool keeps them.
    by_turn: bool,
    /// Of the rest, used lately.
    others_used: usize,
}

impl Detector for UnusedConnection {
    fn kind(&self) -> Kind {
        Kind::UnusedConnection
    }

    fn thresholds(&self) -> &'static [Threshold] {
        const { &[AFTER, CONNECTIONS] }
    }

    fn clear_after(&self, config: &DetectConfig) -> Duration {
        config.window
    }

    fn detect(&self, context: &Context<'_>) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for Holding { id, index, process, endpoint, held } in context.living() {
            if let Some(found) = judge(context, process, index, held) {
                verdicts.push(verdict(context, id, process, endpoint, &found));
            }
        }
        verdicts
    }

    fn may_hold(&self, context: &Context<'_>, carried: &Carried<'_>) -> bool {
        carried.lie_unused(context)
    }

    fn resolved_summary(&self, _: &Context<'_>, last: &Verdict) -> String {
        let endpoint = last.subject.endpoint.as_deref().unwrap_or_default();
        let (who, was) = (last.text("process"), last.number("unused"));
        format!("{who} has used or closed its connections to {endpoint} (was {was} never used)")
    }
}

/// What of these is unused, if that says something of the process.
fn judge<'a, 'b>(
    context: &Context<'_>,
    process: &Process,
    endpoint: usize,
    held: &'b [Held<'a>],
) -> Option<Found<'a, 'b>> {
    let after = context.config.time(Kind::UnusedConnection, &AFTER);
    let least = usize::try_from(context.config.get(Kind::UnusedConnection, &CONNECTIONS)).unwrap_or(usize::MAX);
    let old = context.tracker.looked_at().minus(after);
    // Most connections are told apart without a look at the socket itself.
    let seems = |held: &&Held<'_>| {
        held.began_seen
            && held.began <= old
            && !held.in_use
            && held.last_active.is_some_and(|at| at <= held.began.plus(LOGIN))
    };
    if held.iter().filter(seems).take(least).count() < least {
        return None;
    }
    let unused: Vec<&Held<'_>> = held.iter().filter(seems).filter(|held| said_a_login(held)).collect();
    let oldest = unused.first().filter(|_| unused.len() >= least)?.began;
    let in_turn = one_after_the_other(unused.iter().copied(), context.config.window);
    let others_used =
        held.iter().filter(|held| held.last_active.is_some_and(|at| at > old && at > held.began.plus(LOGIN))).count();
    let waited = context.now.since(oldest) >= after * PATIENCE;
    // A pool that works keeps a floor of idle members, and fills it one by one.
    let works = held.iter().any(|held| held.last_active.is_some_and(|at| at > held.began.plus(LOGIN)));
    let least = if works { least.max(FLOOR + 1) } else { least };
    let no_pool = in_turn >= least || (others_used > 0 && waited && unused.len() >= least);
    (no_pool && !recycles(context, process, endpoint, oldest)).then_some(Found {
        unused,
        in_turn,
        by_turn: in_turn >= least,
        others_used,
    })
}

/// It said as much as a login and no more.
fn said_a_login(held: &Held<'_>) -> bool {
    (1..=LOGIN_SENT).contains(&held.sent) && (1..=LOGIN_RECEIVED).contains(&held.received)
}

/// Whether the process closed any connection to the endpoint since then, as far as its history reaches; one without a
/// history has to have closed none at all.
fn recycles(context: &Context<'_>, process: &Process, endpoint: usize, since: BootNs) -> bool {
    let Some(account) = process.accounts.get(&endpoint) else { return true };
    let Some(history) = account.history.as_deref() else { return account.closed_total > 0 };
    if account.closed_total == 0 {
        return false;
    }
    let age = context.now.since(since);
    let (now, open) = (context.now, account.open_u32());
    // The coarsest scale has the longest memory, the finer ones the latest steps.
    crate::history::SCALES.iter().enumerate().any(|(scale, _)| {
        let step = history.step(scale).as_nanos().max(1);
        let steps = usize::try_from(age.as_nanos() / step).unwrap_or(usize::MAX).max(1);
        history.steps(scale, now, open, steps).iter().any(|step| step.closed > 0)
    })
}

fn verdict(
    context: &Context<'_>,
    id: ProcessId,
    process: &Process,
    endpoint: &Endpoint,
    found: &Found<'_, '_>,
) -> Verdict {
    let name = process.label();
    let who = format!("{name} (pid {})", id.pid);
    let unused = u32::try_from(found.unused.len()).unwrap_or(u32::MAX);
    let age = |held: Option<&&Held<'_>>| held.map_or(Duration::ZERO, |held| context.now.since(held.began));
    let (oldest, newest) = (age(found.unused.first()), age(found.unused.last()));
    let told = if found.by_turn {
        format!("a pool: {} were opened each while the one before was idle", found.in_turn)
    } else {
        format!("a pool at rest: {} other connections are in use", found.others_used)
    };
    Verdict {
        key: format!("{}@{} {}", id.pid, { id.start_ticks }, endpoint.id()),
        severity: Severity::Info,
        confidence: if found.by_turn { 0.8 } else { 0.6 } * context.completeness_factor(),
        subject: Subject {
            endpoint: Some(endpoint.id()),
            pids: vec![id.pid],
            launcher_group: process.identity.as_ref().map(|identity| identity.group.id.clone()),
        },
        news: format!("{who} {unused}"),
        summary: format!(
            "{who} opened {} to {} and said nothing on them since, the oldest {} ago",
            plural(unused, "connection"),
            endpoint.display_name(),
            spoken(oldest)
        ),
        evidence: vec![
            count("unused", unused, "connections"),
            count("in_turn", found.in_turn, "opened while the one before was idle"),
            count("others_used", found.others_used, "connections lately"),
            count("oldest", oldest.as_secs(), "s"),
            count("newest", newest.as_secs(), "s"),
            text("process", who),
            list("local_ports", local_ports(found.unused.iter().copied())),
        ],
        ruled_out: vec![
            told,
            "a pool that recycles: the process closed none since the oldest was opened".to_owned(),
            format!("replication, LISTEN and heartbeats: no byte after the first {}", spoken(LOGIN)),
        ],
        remedy: format!("Let {name} connect when it has something to ask, and share one pool within the process"),
        verify: format!("ss -tinpo dst {} | grep -A1 pid={},", endpoint.id(), id.pid),
    }
}
