//! `close_wait_leak`: the database hung up, the process never closed.
//!
//! Trigger: a client's connection stays in CLOSE_WAIT longer than `after` (60 s). Only a close by the process ends that
//! state, so it clears when the last of them is closed.
//!
//! Confidence: 1 when the database's close was seen as it happened; 0.9 when it was found by a look at the socket table
//! (then its age is a lower bound); both times the completeness factor; 0.7 of that when no process is known.
//!
//! Look-alike: a close by the peer that is still being handled is younger than `after`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Carried, Context, DetectConfig, Detector, Threshold, Verdict, count, list, plural, spoken, text};
use crate::event::ProcessId;
use crate::finding::{Kind, Severity, Subject};
use crate::socket::{Began, Socket};

/// Local ports listed as evidence.
const PORTS_LISTED: usize = 50;

const AFTER: Threshold = Threshold {
    key: "after_s",
    default: 60,
    bounds: (1, 86_400),
    meaning: "How long a connection may stay in CLOSE_WAIT.",
};

pub(super) struct CloseWaitLeak;

impl Detector for CloseWaitLeak {
    fn kind(&self) -> Kind {
        Kind::CloseWaitLeak
    }

    fn thresholds(&self) -> &'static [Threshold] {
        const { &[AFTER] }
    }

    fn clear_after(&self, _: &DetectConfig) -> Duration {
        Duration::ZERO
    }

    fn detect(&self, context: &Context<'_>) -> Vec<Verdict> {
        let after = context.config.time(Kind::CloseWaitLeak, &AFTER);
        let mut left = BTreeMap::<(Option<ProcessId>, usize), Vec<&Socket>>::new();
        for socket in context.survey.left() {
            if context.now.since(socket.state_since().moment()) > after {
                left.entry((socket.responsible(), socket.endpoint())).or_default().push(socket);
            }
        }
        left.into_iter()
            .filter_map(|((process, endpoint), sockets)| judge(context, process, endpoint, &sockets))
            .collect()
    }

    fn may_hold(&self, context: &Context<'_>, carried: &Carried<'_>) -> bool {
        // Since when they are in that state has to be seen anew.
        let at = |socket: &Socket| Some(socket.endpoint()) == carried.endpoint;
        let is_its =
            |socket: &Socket| socket.responsible().is_none_or(|id| carried.verdict.subject.pids.contains(&id.pid));
        context.survey.left().any(|socket| at(socket) && is_its(socket))
    }

    fn resolved_summary(&self, _: &Context<'_>, last: &Verdict) -> String {
        let endpoint = last.subject.endpoint.as_deref().unwrap_or("");
        let (who, was) = (last.text("process"), last.number("close_wait"));
        format!("{who} has no connection to {endpoint} left in CLOSE_WAIT (was {was})")
    }
}

fn judge(context: &Context<'_>, process: Option<ProcessId>, endpoint: usize, sockets: &[&Socket]) -> Option<Verdict> {
    let endpoint = context.tracker.endpoints().get(endpoint)?;
    let known = process.and_then(|id| context.tracker.processes().get(&id));
    let name = known.map_or_else(|| "an unknown process".to_owned(), |process| process.label());
    let who = process.map_or_else(|| name.clone(), |id| format!("{name} (pid {})", id.pid));
    let oldest = sockets.iter().min_by_key(|socket| (socket.state_since().moment(), socket.tuple))?;
    let age = context.now.since(oldest.state_since().moment());
    let seen = sockets.iter().all(|socket| matches!(socket.state_since(), Began::At(_)));
    let stuck = u32::try_from(sockets.len()).unwrap_or(u32::MAX);
    let mut ports: Vec<u16> = sockets.iter().map(|socket| socket.tuple.local().port()).collect();
    ports.sort_unstable();
    let at_least = if seen { "" } else { "at least " };
    let known_factor = if process.is_some() { 1.0 } else { 0.7 };
    Some(Verdict {
        key: match process {
            Some(id) => format!("{}@{} {}", id.pid, { id.start_ticks }, endpoint.id()),
            None => format!("unknown {}", endpoint.id()),
        },
        severity: Severity::Warning,
        confidence: if seen { 1.0 } else { 0.9 } * known_factor * context.completeness_factor(),
        subject: Subject {
            endpoint: Some(endpoint.id()),
            pids: process.map(|id| id.pid).into_iter().collect(),
            launcher_group: known
                .and_then(|process| process.identity.as_ref())
                .map(|identity| identity.group.id.clone()),
        },
        news: format!("{who} {stuck}"),
        summary: format!(
            "{who} never closed {} that {} closed, the oldest {at_least}{} ago",
            plural(stuck, "connection"),
            endpoint.display_name(),
            spoken(age)
        ),
        evidence: vec![
            count("close_wait", stuck, "connections"),
            count("oldest", age.as_secs(), "s"),
            text("process", who),
            text("age", if seen { "exact" } else { "at_least" }),
            list("local_ports", ports.iter().take(PORTS_LISTED).map(u16::to_string).collect()),
        ],
        ruled_out: vec![format!(
            "a close by the database that is still being handled: every one is older than {}",
            spoken(context.config.time(Kind::CloseWaitLeak, &AFTER))
        )],
        remedy: format!(
            "Close connections in {name} when a read returns end of file or an error, or let its pool test them"
        ),
        verify: format!("ss -tnp state close-wait dst {}", endpoint.id()),
    })
}
