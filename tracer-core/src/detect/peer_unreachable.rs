//! `peer_unreachable`: the path is dead, and the process does not know.
//!
//! Trigger: on an open connection at least `rtos` (3) retransmission time-outs in a row, as many window probes or
//! `keepalives` (2) without an answer, and nothing at all heard of the peer for `silence_s` (5 s) and for 5 times the
//! smoothed round trip, since what waits was sent. All of it as of one look at the socket: sockets with time-outs are asked about twice a second.
//! Either side may be here: a client whose database is gone, or a database whose client is. A database's sockets count even
//! when it has closed them and the client never acknowledged that (FIN_WAIT1, LAST_ACK, CLOSING); a client's do not: see
//! `half_open_at_database`. Critical while nothing that the
//! process has at the endpoint was heard of since; else a warning. Clears when what waits is acknowledged, or the
//! connection ends.
//!
//! Confidence: 0.9; 0.95 with more than one connection or twice as many time-outs; 0.98 when this host was seen to drop the
//! packets; times the completeness factor.
//!
//! Look-alikes: a lost packet (one time-out, then an answer); a peer that is slow or stopped, whose kernel still
//! acknowledges; loss that lets something through: any segment of the peer's ends the silence.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::path::{self, Dropper, client_end, is_silent, listed, named};
use super::{Context, DetectConfig, Detector, Threshold, Verdict, count, list, plural, spoken, text};
use crate::endpoint::Endpoint;
use crate::event::{ProcessId, Role};
use crate::finding::{Kind, Severity, Subject};
use crate::inventory::Timer;
use crate::socket::{Began, Socket};
use crate::tcp::TcpState;
use crate::time::BootNs;

/// Pids listed in the subject.
const PIDS_LISTED: usize = 1_000;

const RTOS: Threshold = Threshold {
    key: "rtos",
    default: 3,
    bounds: (2, 15),
    meaning: "Retransmission time-outs, or window probes, in a row without an answer.",
};
const KEEPALIVES: Threshold =
    Threshold { key: "keepalives", default: 2, bounds: (1, 100), meaning: "Keepalives in a row without an answer." };
const SILENCE: Threshold = Threshold {
    key: "silence_s",
    default: 5,
    bounds: (1, 3_600),
    meaning: "How long nothing must have been heard of the peer.",
};

pub(super) struct PeerUnreachable;

impl Detector for PeerUnreachable {
    fn kind(&self) -> Kind {
        Kind::PeerUnreachable
    }

    fn thresholds(&self) -> &'static [Threshold] {
        const { &[RTOS, KEEPALIVES, SILENCE] }
    }

    fn clear_after(&self, _: &DetectConfig) -> Duration {
        // To be true again takes time-outs and a silence anew.
        Duration::ZERO
    }

    fn detect(&self, context: &Context<'_>) -> Vec<Verdict> {
        let mut dead = BTreeMap::<(usize, Whose), Vec<&Socket>>::new();
        for socket in context.survey.troubled().filter(|socket| is_unanswered(context, socket)) {
            let whose = match socket.role {
                Role::Client => Whose::Process(socket.responsible()),
                Role::Server => Whose::Client(socket.tuple.remote().ip()),
            };
            dead.entry((socket.endpoint(), whose)).or_default().push(socket);
        }
        let at_least = context.config.time(Kind::PeerUnreachable, &SILENCE);
        let all = dead.into_iter().filter_map(|((index, whose), mut sockets)| {
            let key = key(whose, context.tracker.endpoints().get(index)?);
            // A word of the peer's that acknowledges nothing does not end it.
            if (context.before)(Kind::PeerUnreachable, &key).is_none() {
                sockets.retain(|socket| is_silent(socket, at_least));
            }
            Some(((index, whose), sockets))
        });
        all.filter_map(|((endpoint, whose), sockets)| Outage::of(context, endpoint, whose, sockets)?.verdict())
            .collect()
    }

    fn resolved_summary(&self, _: &Context<'_>, last: &Verdict) -> String {
        let was = u32::try_from(last.number("connections")).unwrap_or(u32::MAX);
        let (who, endpoint) = (last.text("who"), last.subject.endpoint.as_deref().unwrap_or_default());
        format!("{who}: {} at {endpoint} answered or ended", plural(was, "dead connection"))
    }
}

/// Whose connections are dead: a process here, or a client of the database that is here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    Process(Option<ProcessId>),
    Client(IpAddr),
}

/// What makes one: the endpoint, the side of it, and whose.
fn key(whose: Whose, endpoint: &Endpoint) -> String {
    let whose = match whose {
        Whose::Process(id) => path::key(id),
        Whose::Client(ip) => ip.to_string(),
    };
    format!("{whose} {} {}", endpoint.role.name(), endpoint.id())
}

fn is_unanswered(context: &Context<'_>, socket: &Socket) -> bool {
    let set = |threshold| context.config.get(Kind::PeerUnreachable, threshold);
    let Some(counters) = socket.counters else { return false };
    let probes = if counters.timer == Timer::Keepalive { set(&KEEPALIVES) } else { set(&RTOS) };
    let unanswered = u32::from(counters.consecutive_rtos) >= set(&RTOS) || u32::from(counters.probes) >= probes;
    let is_open = matches!(socket.state, TcpState::Established | TcpState::CloseWait);
    unanswered && (is_open || (socket.role == Role::Server && socket.is_parting()))
}

/// The dead connections of one subject at one endpoint.
struct Outage<'a, 'b> {
    context: &'b Context<'a>,
    endpoint: &'a Endpoint,
    whose: Whose,
    sockets: Vec<&'a Socket>,
    /// The first of what waits was sent then, or earlier.
    since: BootNs,
    /// Of the same process at the same endpoint: heard of since, and not.
    alive: usize,
    unknown: Vec<&'a Socket>,
}

impl<'a, 'b> Outage<'a, 'b> {
    fn of(context: &'b Context<'a>, index: usize, whose: Whose, sockets: Vec<&'a Socket>) -> Option<Self> {
        let endpoint = context.tracker.endpoints().get(index)?;
        let since = sockets.iter().filter_map(|socket| unanswered_since(socket)).min()?;
        let (mut alive, mut unknown) = (0, Vec::new());
        if let Whose::Process(Some(id)) = whose {
            let is_dead = |socket: &Socket| sockets.iter().any(|dead| dead.tuple == socket.tuple);
            let others = context.survey.held(id, index).iter().map(|held| held.socket);
            for socket in others.filter(|socket| socket.state == TcpState::Established && !is_dead(socket)) {
                // What began since was answered then.
                let began = matches!(socket.began(), Began::At(began) if began > since);
                if began || socket.heard_at() > Some(since) {
                    alive += 1;
                } else {
                    unknown.push(socket);
                }
            }
        }
        Some(Self { context, endpoint, whose, sockets, since, alive, unknown })
    }

    fn verdict(self) -> Option<Verdict> {
        let Self { context, endpoint, .. } = self;
        let counters = || self.sockets.iter().filter_map(|socket| socket.counters);
        let rtos = counters().map(|counters| counters.consecutive_rtos).max()?;
        let probes = counters().map(|counters| counters.probes).max()?;
        let unacked = counters().map(|counters| Duration::from_millis(u64::from(counters.unacked_ms))).max()?;
        let heard = self.sockets.iter().filter_map(|socket| socket.heard_at()).max();
        let clients: BTreeSet<_> = self.sockets.iter().map(|socket| client_end(socket)).collect();
        let dropper = Dropper::of(context, endpoint, &clients, self.since);
        let dropper = dropper.explained(context, self.sockets.iter().map(|socket| socket.tuple), self.since);
        let dead = u32::try_from(self.sockets.len()).unwrap_or(u32::MAX);
        let unknown = u32::try_from(self.unknown.len()).unwrap_or(u32::MAX);
        let (who, what) = self.words(dead);
        let idle = if unknown > 0 { format!("; {unknown} idle there, unknown") } else { String::new() };
        let waits = match rtos {
            0 if dropper.is_here() => format!("{probes} attempts in a row to send in vain"),
            0 => format!("{probes} probes unanswered"),
            _ => format!("{rtos} time-outs in a row, data unacknowledged for at least {}", spoken(unacked)),
        };
        let port = |socket: &&Socket| client_end(socket).port();
        Some(Verdict {
            key: key(self.whose, endpoint),
            severity: if self.alive == 0 && endpoint.role == Role::Client {
                Severity::Critical
            } else {
                Severity::Warning
            },
            confidence: confidence(dead, rtos, &dropper) * context.completeness_factor(),
            subject: self.subject(),
            news: format!("{who} {dead} {unknown} {} {}", self.closed(), dropper.gist()),
            summary: format!(
                "{what}: {waits}, nothing heard for {}; {}{idle}",
                heard.map_or_else(|| "long".to_owned(), |at| spoken(context.now.since(at))),
                dropper.sentence()
            ),
            evidence: vec![
                count("connections", dead, "connections"),
                count("closed", self.closed(), "connections"),
                count("consecutive_rtos", rtos, "time-outs"),
                count("unanswered_probes", probes, "probes"),
                count("unacknowledged", unacked.as_secs(), "s at least"),
                count("since", context.now.since(self.since).as_secs(), "s at least"),
                text("last_heard", path::last_heard(context, heard)),
                text("dropped_by", dropper.fact()),
                count("unknown", unknown, "connections"),
                count("alive", u32::try_from(self.alive).unwrap_or(u32::MAX), "connections"),
                text("who", who),
                list("local_ports", listed(self.sockets.iter().map(port))),
                list("unknown_ports", listed(self.unknown.iter().map(port))),
                count("keepalive_off", self.keepalive_off(), "connections"),
            ],
            ruled_out: self.ruled_out(),
            remedy: format!(
                "{}; give the driver a time-out for requests, or TCP_USER_TIMEOUT, so that it notices by itself",
                dropper.remedy()
            ),
            verify: match endpoint.role {
                Role::Client => format!("ss -tnoi dst {}", endpoint.id()),
                Role::Server => format!("ss -tnoi src {}", endpoint.id()),
            },
        })
    }

    /// Who it is about, and what is wrong.
    fn words(&self, dead: u32) -> (String, String) {
        let name = self.endpoint.display_name();
        match self.whose {
            Whose::Process(id) => {
                let (who, _) = named(self.context, id);
                let what = format!("{who} holds {} to {name}", plural(dead, "dead connection"));
                (who, what)
            }
            Whose::Client(ip) => {
                let who = format!("the client at {ip}");
                let all = plural(dead, "dead connection");
                let what = match self.closed() {
                    0 => format!("{name} has {all} from {ip}"),
                    closed if closed == dead => {
                        let all = plural(dead, "connection");
                        format!("{name} closed {all} from {ip}, and the client never acknowledged it")
                    }
                    closed => format!("{name} has {all} from {ip}, {closed} of them closed and never acknowledged"),
                };
                (who, what)
            }
        }
    }

    fn subject(&self) -> Subject {
        let mut pids: Vec<u32> = match self.whose {
            Whose::Process(id) => id.map(|id| id.pid).into_iter().collect(),
            Whose::Client(_) => self.sockets.iter().filter_map(|socket| Some(socket.responsible()?.pid)).collect(),
        };
        pids.sort_unstable();
        pids.dedup();
        pids.truncate(PIDS_LISTED);
        let launcher_group = match self.whose {
            Whose::Process(id) => path::group(self.context, id),
            Whose::Client(_) => None,
        };
        Subject { endpoint: Some(self.endpoint.id()), pids, launcher_group }
    }

    /// Those that this side has closed.
    fn closed(&self) -> u32 {
        u32::try_from(self.sockets.iter().filter(|socket| socket.is_parting()).count()).unwrap_or(u32::MAX)
    }

    fn keepalive_off(&self) -> usize {
        let off = |socket: &&&Socket| socket.counters.is_some_and(|counters| counters.keepalive == Some(false));
        self.unknown.iter().filter(off).count()
    }

    fn ruled_out(&self) -> Vec<String> {
        let silent = spoken(self.context.config.time(Kind::PeerUnreachable, &SILENCE));
        vec![
            "one lost packet: several in a row went unanswered".to_owned(),
            format!("a slow or stopped peer that still acknowledges: not one segment came for {silent} or longer"),
        ]
    }
}

/// When the oldest of what waits was sent, at the latest; without data, when the peer was heard of last.
fn unanswered_since(socket: &Socket) -> Option<BootNs> {
    let counters = socket.counters?;
    let waited = if counters.consecutive_rtos > 0 { counters.unacked_ms } else { counters.heard_ms };
    Some(socket.counters_at.minus(Duration::from_millis(u64::from(waited))))
}

fn confidence(dead: u32, rtos: u8, dropper: &Dropper) -> f64 {
    match () {
        () if dropper.is_here() => 0.98,
        () if dead > 1 || u32::from(rtos) >= 2 * RTOS.default => 0.95,
        () => 0.9,
    }
}
