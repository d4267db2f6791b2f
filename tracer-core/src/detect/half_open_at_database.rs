//! `half_open_at_database`: we closed, and the database never heard of it.
//!
//! Trigger: a client's connection that this side has closed (FIN_WAIT1, LAST_ACK, CLOSING) has `rtos` (3) retransmission
//! time-outs in a row (or attempts to send its FIN, where this host does not let it out), was closed `silence_s` (5 s) ago,
//! and nothing was heard of the peer for as long and for 5 times the smoothed round trip; or its socket was given up in
//! such a state, or reset by a close after as many time-outs. The database then still has the connection. It clears when
//! the peer acknowledges; of sockets that are gone when the database's own socket is, if that is on this host, or when the
//! ports are used for another connection, else after `remembered_s` (2 h 11 min: the default keepalive of Linux, after
//! which the database has noticed by itself).
//!
//! It names the process that closed them, as the kernel saw it; the socket itself has no process any more.
//!
//! Confidence: 1 while the database's own sockets are seen, 0.95 while ours wait, 0.85 once they are gone; 0.8 of that when
//! it is not known who closed them; times the completeness factor.
//!
//! Look-alikes: a close that is just slow (it is acknowledged, or the peer is heard of); TIME_WAIT and FIN_WAIT2, where
//! the peer has acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use super::path::{self, Dropper, is_silent, listed, named, time_outs};
use super::{Context, DetectConfig, Detector, Threshold, Verdict, count, list, plural, spoken, text};
use crate::endpoint::Endpoint;
use crate::event::{ProcessId, Role, Tuple};
use crate::finding::{Kind, Severity, Subject};
use crate::socket::Socket;
use crate::time::BootNs;

const RTOS: Threshold = Threshold {
    key: "rtos",
    default: 3,
    bounds: (1, 15),
    meaning: "Retransmission time-outs of a close in a row without an answer.",
};
const SILENCE: Threshold = Threshold {
    key: "silence_s",
    default: 5,
    bounds: (1, 3_600),
    meaning: "How long nothing must have been heard of the peer.",
};
const REMEMBERED: Threshold = Threshold {
    key: "remembered_s",
    default: 7_875,
    bounds: (60, 86_400),
    meaning: "How long a database is taken to keep a connection that was closed unheard.",
};

pub(super) struct HalfOpenAtDatabase;

impl Detector for HalfOpenAtDatabase {
    fn kind(&self) -> Kind {
        Kind::HalfOpenAtDatabase
    }

    fn thresholds(&self) -> &'static [Threshold] {
        const { &[RTOS, SILENCE, REMEMBERED] }
    }

    fn clear_after(&self, _: &DetectConfig) -> Duration {
        Duration::ZERO
    }

    fn detect(&self, context: &Context<'_>) -> Vec<Verdict> {
        let mut closed = BTreeMap::<(Option<ProcessId>, usize), Vec<Closed>>::new();
        for closing in waiting(context).chain(gone(context)) {
            closed.entry((closing.by, closing.endpoint)).or_default().push(closing);
        }
        for ((by, index), all) in &mut closed {
            let key = context.tracker.endpoints().get(*index).map(|endpoint| key(*by, endpoint)).unwrap_or_default();
            // A word of the peer's that does not acknowledge the close does not end it.
            if (context.before)(Kind::HalfOpenAtDatabase, &key).is_none() {
                all.retain(|one| one.is_gone || one.is_silent);
            }
        }
        closed.into_iter().filter_map(|((by, endpoint), all)| judge(context, by, endpoint, &all)).collect()
    }

    fn resolved_summary(&self, _: &Context<'_>, last: &Verdict) -> String {
        let was = u32::try_from(last.number("connections")).unwrap_or(u32::MAX);
        let endpoint = last.subject.endpoint.as_deref().unwrap_or_default();
        format!("{endpoint} has noticed the end of {} that {} closed", plural(was, "connection"), last.text("process"))
    }
}

/// A close that the database has not heard of.
#[derive(Clone, Copy)]
struct Closed {
    endpoint: usize,
    by: Option<ProcessId>,
    tuple: Tuple,
    /// When it was closed, or the first time it was seen closed.
    at: BootNs,
    heard_at: Option<BootNs>,
    rtos: u8,
    /// The socket is gone.
    is_gone: bool,
    /// Nothing is heard of the peer, neither before the close nor since.
    is_silent: bool,
    /// The database's own socket is seen.
    is_seen_there: bool,
}

/// Those whose sockets still wait for an acknowledgement.
fn waiting<'a>(context: &'a Context<'_>) -> impl Iterator<Item = Closed> + 'a {
    let rtos = context.config.get(Kind::HalfOpenAtDatabase, &RTOS);
    let at_least = context.config.time(Kind::HalfOpenAtDatabase, &SILENCE);
    let stuck = move |socket: &&Socket| {
        let told = socket.counters.is_some_and(|counters| u32::from(time_outs(&counters)) >= rtos);
        socket.role == Role::Client && socket.is_parting() && told
    };
    context.survey.troubled().filter(stuck).map(move |socket| Closed {
        endpoint: socket.endpoint(),
        by: context.tracker.closer(&socket.tuple).or(socket.responsible()),
        tuple: socket.tuple,
        at: socket.state_since().moment(),
        heard_at: socket.heard_at(),
        rtos: socket.counters.map_or(0, |counters| time_outs(&counters)),
        is_gone: false,
        // What was sent before the close may have waited long already.
        is_silent: is_silent(socket, at_least) && context.now.since(socket.state_since().moment()) >= at_least,
        is_seen_there: context.tracker.other_end(&socket.tuple).is_some(),
    })
}

/// Those whose sockets were given up.
fn gone<'a>(context: &'a Context<'_>) -> impl Iterator<Item = Closed> + 'a {
    let remembered = context.config.time(Kind::HalfOpenAtDatabase, &REMEMBERED);
    context.tracker.partings().filter_map(move |(tuple, parting)| {
        let severed = parting.severed?;
        let kept = context.now.since(severed.at) <= remembered && context.tracker.is_unnoticed(tuple, &severed);
        let endpoint = context.tracker.endpoint_at(tuple, Role::Client).filter(|_| kept)?;
        Some(Closed {
            endpoint,
            by: parting.closer,
            tuple: *tuple,
            at: parting.at,
            heard_at: severed.heard_at,
            rtos: severed.rtos,
            is_gone: true,
            is_silent: true,
            is_seen_there: severed.twin.is_some(),
        })
    })
}

fn key(by: Option<ProcessId>, endpoint: &Endpoint) -> String {
    format!("{} {}", path::key(by), endpoint.id())
}

fn judge(context: &Context<'_>, by: Option<ProcessId>, index: usize, all: &[Closed]) -> Option<Verdict> {
    let endpoint = context.tracker.endpoints().get(index)?;
    let (who, name) = named(context, by);
    let closed = u32::try_from(all.len()).unwrap_or(u32::MAX);
    let of =
        |wanted: fn(&Closed) -> bool| u32::try_from(all.iter().filter(|one| wanted(one)).count()).unwrap_or(u32::MAX);
    let (gone, seen_there) = (of(|one| one.is_gone), of(|one| one.is_seen_there));
    let since = all.iter().map(|one| one.at).min()?;
    let heard = all.iter().filter_map(|one| one.heard_at).max();
    let rtos = all.iter().map(|one| one.rtos).max()?;
    let clients: BTreeSet<SocketAddr> = all.iter().map(|one| one.tuple.local()).collect();
    let dropper = Dropper::of(context, endpoint, &clients, since);
    let dropper = dropper.explained(context, all.iter().map(|one| one.tuple), since);
    let there = match seen_there {
        0 => "the database keeps them until its own keepalive ends them".to_owned(),
        seen => format!("{seen} still open in the database"),
    };
    Some(Verdict {
        key: key(by, endpoint),
        severity: Severity::Warning,
        confidence: confidence(closed, seen_there, gone, by) * context.completeness_factor(),
        subject: Subject {
            endpoint: Some(endpoint.id()),
            pids: by.map(|id| id.pid).into_iter().collect(),
            launcher_group: path::group(context, by),
        },
        news: format!("{who} {closed} {seen_there} {gone} {}", dropper.gist()),
        summary: format!(
            "{who} closed {} {} ago that {} never heard of; {}; {there}",
            plural(closed, "connection"),
            spoken(context.now.since(since)),
            endpoint.display_name(),
            dropper.sentence()
        ),
        evidence: vec![
            count("connections", closed, "connections"),
            count("waiting", closed.saturating_sub(gone), "connections"),
            count("given_up", gone, "connections"),
            count("seen_at_database", seen_there, "connections"),
            count("consecutive_rtos", rtos, "time-outs"),
            count("closed", context.now.since(since).as_secs(), "s ago"),
            text("last_heard", path::last_heard(context, heard)),
            text("dropped_by", dropper.fact()),
            text("process", who),
            list("local_ports", listed(all.iter().map(|one| one.tuple.local().port()))),
        ],
        ruled_out: vec![
            "a close that is just slow: its time-outs went unanswered, and nothing else was heard".to_owned(),
            "TIME_WAIT and FIN_WAIT2: there the peer has acknowledged".to_owned(),
        ],
        remedy: format!(
            "{}; end these sessions in the database by their client ports, and set its TCP keepalive to minutes \
             (tcp_keepalives_idle, tcp-keepalive) so that it notices what {name} leaves",
            dropper.remedy()
        ),
        verify: verify(endpoint),
    })
}

fn confidence(closed: u32, seen_there: u32, gone: u32, by: Option<ProcessId>) -> f64 {
    let base = match () {
        () if seen_there == closed => 1.0,
        () if gone == 0 => 0.95,
        () => 0.85,
    };
    if by.is_some() { base } else { base * 0.8 }
}

/// What shows the same: our sockets that wait, and the sessions that the database lists.
fn verify(endpoint: &Endpoint) -> String {
    let ours = format!("ss -tno state fin-wait-1 state last-ack state closing dst {}", endpoint.id());
    match endpoint.database.as_str() {
        "postgres" => format!("{ours}; psql -c 'SELECT client_port, state FROM pg_stat_activity'"),
        "mysql" => format!("{ours}; mysql -e 'SHOW PROCESSLIST'"),
        "redis" => format!("{ours}; redis-cli CLIENT LIST"),
        _ => ours,
    }
}
