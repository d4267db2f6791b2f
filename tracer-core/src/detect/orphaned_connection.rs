//! `orphaned_connection`: nobody is minding it.
//!
//! Three ways, told apart in the summary:
//! - inherited: the opener has ended, or holds it no more, and only processes of other programs do (a fork or exec
//!   without close-on-exec). Warning.
//! - unheld: the opener has ended and two looks in a row found nobody who holds the established connection: it hangs in
//!   a message that nobody reads, or in a registered file. Only said while every process can be read. Warning.
//! - left behind: the holder's parent is init, or ended after the holder had connected (whoever adopts it, as a subreaper
//!   does); it belongs to no service and no container, and none of its connections to the endpoint was used for `left_behind_after_s` (an hour). Info.
//!
//! The first two need `after_s` (60 s) without a byte either way, as of a look at least that late. Clears at once when
//! the connection ends, is used, or has its opener back.
//!
//! Confidence: inherited 0.95 if the opener has ended, 0.75 if it lives on without it; unheld 0.9; left behind 0.5; times
//! the completeness factor, and 0.8 of that while some processes cannot be read.
//!
//! Look-alikes: daemons that fork twice (the holder runs the opener's program), programs that were handed a connection
//! and use it, a connection on its way between two processes, connections whose holder may not be read.

use std::collections::BTreeMap;
use std::time::Duration;

use super::rest::local_ports;
use super::survey::Held;
use super::{Carried, Context, DetectConfig, Detector, Threshold, Verdict, count, list, plural, spoken, text};
use crate::endpoint::Endpoint;
use crate::event::ProcessId;
use crate::finding::{Kind, Severity, Subject};
use crate::identity::{Identity, file_name, undeleted};
use crate::process::Process;
use crate::snapshot::Completeness;
use crate::tcp::TcpState;
use crate::time::BootNs;

/// Looks in a row that found nobody.
const UNHELD_LOOKS: u8 = 2;
/// Openers named.
const OPENERS_NAMED: usize = 3;

const AFTER: Threshold = Threshold {
    key: "after_s",
    default: 60,
    bounds: (1, 86_400),
    meaning: "How long a connection without its opener must be unused.",
};
const LEFT_BEHIND_AFTER: Threshold = Threshold {
    key: "left_behind_after_s",
    default: 3_600,
    bounds: (1, 604_800),
    meaning: "How long all connections of a process that lost its parent must be unused.",
};

pub(super) struct OrphanedConnection;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Inherited { opener_ended: bool },
    Unheld,
    LeftBehind,
}

impl Detector for OrphanedConnection {
    fn kind(&self) -> Kind {
        Kind::OrphanedConnection
    }

    fn thresholds(&self) -> &'static [Threshold] {
        const { &[AFTER, LEFT_BEHIND_AFTER] }
    }

    fn clear_after(&self, _: &DetectConfig) -> Duration {
        Duration::ZERO
    }

    fn detect(&self, context: &Context<'_>) -> Vec<Verdict> {
        let set = |threshold| context.config.time(Kind::OrphanedConnection, threshold);
        let looked_at = context.tracker.looked_at();
        // Idle as of the last look: what was said since is not known yet.
        let idle_before = looked_at.minus(set(&AFTER));
        let left_before = looked_at.minus(set(&LEFT_BEHIND_AFTER));
        let mut verdicts = Vec::new();
        for (id, endpoint, held) in context.survey.holders() {
            let Some(endpoint) = context.tracker.endpoints().get(endpoint) else { continue };
            let mut stray = BTreeMap::<Way, Vec<&Held<'_>>>::new();
            for held in held.iter().filter(|held| held.strayed && is_idle(held, idle_before)) {
                if let Some(way) = way(context, held) {
                    stray.entry(way).or_default().push(held);
                }
            }
            if stray.is_empty() && is_left_behind(context, id, held, left_before) {
                stray.insert(Way::LeftBehind, held.iter().collect());
            }
            verdicts.extend(stray.into_iter().map(|(way, held)| verdict(context, id, endpoint, way, &held)));
        }
        verdicts
    }

    fn may_hold(&self, context: &Context<'_>, carried: &Carried<'_>) -> bool {
        carried.lie_unused(context)
    }

    fn resolved_summary(&self, _: &Context<'_>, last: &Verdict) -> String {
        let endpoint = last.subject.endpoint.as_deref().unwrap_or_default();
        let was = u32::try_from(last.number("connections")).unwrap_or(u32::MAX);
        format!("{} to {endpoint}, {}: ended or used again", plural(was, "connection"), last.text("who"))
    }
}

/// Nothing was said on it since then, and a look has told so.
fn is_idle(held: &Held<'_>, before: BootNs) -> bool {
    held.last_active.is_some() && held.idle_since() <= before
}

/// How a connection that its opener was not found holding is an orphan, if it is one.
fn way(context: &Context<'_>, held: &Held<'_>) -> Option<Way> {
    let socket = held.socket;
    let processes = context.tracker.processes();
    let opener = processes.get(&socket.opener?.id)?;
    if socket.holders.is_empty() {
        let seen = context.tracker.holders_completeness() == Completeness::Exact;
        let nobody = socket.unheld_looks >= UNHELD_LOOKS && socket.state == TcpState::Established;
        return (seen && nobody && opener.ended.is_some()).then_some(Way::Unheld);
    }
    let before = opener.identity.as_deref()?;
    let differs = |holder: &ProcessId| {
        let holder = processes.get(holder).and_then(|process| process.identity.as_deref());
        holder.is_some_and(|holder| is_other_program(before, holder))
    };
    let inherited = socket.holders.iter().all(|holder| differs(&holder.process));
    inherited.then_some(Way::Inherited { opener_ended: opener.ended.is_some() })
}

/// Whether the two certainly run different programs: another script, or another program file. A process that gave itself
/// a title has no script to compare.
fn is_other_program(one: &Identity, other: &Identity) -> bool {
    if one.group.id == other.group.id {
        return false;
    }
    let (Some(exe), Some(other_exe)) = (one.exe.as_deref(), other.exe.as_deref()) else {
        return one.script.is_some() && other.script.is_some() && one.script != other.script;
    };
    let same_file = file_name(undeleted(exe)) == file_name(undeleted(other_exe));
    !same_file || (one.script.is_some() && other.script.is_some() && one.script != other.script)
}

/// It has no parent of its own any more, no service keeps it, and nothing it holds there was used lately.
fn is_left_behind(context: &Context<'_>, id: ProcessId, held: &[Held<'_>], before: BootNs) -> bool {
    // Cheap first: nearly every process has used something.
    if !held.iter().all(|held| is_idle(held, before)) {
        return false;
    }
    let process = context.tracker.processes().get(&id).filter(|process| process.ended.is_none());
    let Some(process) = process else { return false };
    let Some(identity) = process.identity.as_deref() else { return false };
    let service = identity.systemd_unit.as_deref().is_some_and(|unit| unit.ends_with(".service"));
    (identity.ppid == Some(1) || process.lost_parent) && !service && identity.container_id.is_none()
}

fn verdict(context: &Context<'_>, id: ProcessId, endpoint: &Endpoint, way: Way, held: &[&Held<'_>]) -> Verdict {
    let holder = context.tracker.processes().get(&id);
    let name = holder.map_or_else(|| "an unknown process".to_owned(), Process::label);
    let open = u32::try_from(held.len()).unwrap_or(u32::MAX);
    let idle = held.iter().map(|held| held.idle_since()).max().unwrap_or(context.now);
    let who = who(context, way, &name, id, held);
    let readable = context.tracker.holders_completeness() == Completeness::Exact;
    let known = holder.and_then(|process| process.identity.as_deref());
    Verdict {
        key: format!("{} {}@{} {}", way.name(), id.pid, { id.start_ticks }, endpoint.id()),
        severity: if way == Way::LeftBehind { Severity::Info } else { Severity::Warning },
        confidence: way.confidence() * if readable { 1.0 } else { 0.8 } * context.completeness_factor(),
        subject: Subject {
            endpoint: Some(endpoint.id()),
            // Nobody holds an unheld one: its opener is gone.
            pids: if way == Way::Unheld { Vec::new() } else { vec![id.pid] },
            launcher_group: known.map(|identity| identity.group.id.clone()),
        },
        news: format!("{who} {open}"),
        summary: format!(
            "{} to {}, {who}; unused for {}",
            plural(open, "connection"),
            endpoint.display_name(),
            spoken(context.now.since(idle))
        ),
        evidence: vec![
            count("connections", open, "connections"),
            count("unused", context.now.since(idle).as_secs(), "s at least"),
            text("way", way.name()),
            text("who", who),
            list("local_ports", local_ports(held.iter().copied())),
        ],
        ruled_out: way.ruled_out(context),
        remedy: way.remedy(&name, id.pid),
        verify: match way {
            Way::Unheld => format!("ss -tnpo state established dst {}", endpoint.id()),
            _ => format!("ss -tnp dst {} | grep pid={},", endpoint.id(), id.pid),
        },
    }
}

/// Who has it and who opened it, in words.
fn who(context: &Context<'_>, way: Way, name: &str, id: ProcessId, held: &[&Held<'_>]) -> String {
    let mut openers: Vec<ProcessId> = held.iter().filter_map(|held| Some(held.socket.opener?.id)).collect();
    openers.sort_unstable();
    openers.dedup();
    let opener = |id: &ProcessId| {
        let name = context.tracker.processes().get(id).map_or_else(|| "a process".to_owned(), Process::label);
        format!("{name} (pid {})", id.pid)
    };
    let named: Vec<String> = openers.iter().take(OPENERS_NAMED).map(opener).collect();
    let more = openers.len().saturating_sub(named.len());
    let by = format!("{}{}", named.join(", "), if more > 0 { format!(" and {more} more") } else { String::new() });
    match way {
        Way::Inherited { opener_ended: true } => {
            format!("opened by {by}, which ended, held by {name} (pid {})", id.pid)
        }
        Way::Inherited { opener_ended: false } => {
            format!("opened by {by}, which holds it no more, held by {name} (pid {})", id.pid)
        }
        Way::Unheld => format!("opened by {by}, which ended, held by nobody"),
        Way::LeftBehind => format!("held by {name} (pid {}), which lost its parent", id.pid),
    }
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Inherited { opener_ended: true } => "inherited",
            Self::Inherited { opener_ended: false } => "handed_on",
            Self::Unheld => "unheld",
            Self::LeftBehind => "left_behind",
        }
    }

    fn confidence(self) -> f64 {
        match self {
            Self::Inherited { opener_ended: true } => 0.95,
            Self::Inherited { opener_ended: false } => 0.75,
            Self::Unheld => 0.9,
            Self::LeftBehind => 0.5,
        }
    }

    fn ruled_out(self, context: &Context<'_>) -> Vec<String> {
        let time = |threshold| spoken(context.config.time(Kind::OrphanedConnection, threshold));
        let used = |threshold| format!("a holder that still uses it: no byte for {} or longer", time(threshold));
        match self {
            Self::Inherited { .. } => vec![
                used(&AFTER),
                "a daemon that forked twice: the holder runs another program than the opener".to_owned(),
            ],
            Self::Unheld => vec![
                used(&AFTER),
                format!("a connection on its way between processes: {UNHELD_LOOKS} looks found nobody"),
                "a holder that may not be read: every process was read".to_owned(),
            ],
            Self::LeftBehind => vec![
                used(&LEFT_BEHIND_AFTER),
                "a daemon by design: no systemd service and no container keeps it".to_owned(),
            ],
        }
    }

    fn remedy(self, name: &str, pid: u32) -> String {
        match self {
            Self::Inherited { .. } => {
                format!("Open connections close-on-exec, or after the fork; restarting {name} (pid {pid}) ends these")
            }
            Self::Unheld => {
                "End it in the database, and close descriptors that are passed in messages and not received".to_owned()
            }
            Self::LeftBehind => {
                format!("Ask whether {name} (pid {pid}) is still wanted, and end it or make it a service")
            }
        }
    }
}
