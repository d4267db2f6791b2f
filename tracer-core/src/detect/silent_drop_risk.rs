//! `silent_drop_risk`: idle for longer than the network remembers.
//!
//! Trigger: an established connection on which nothing passed either way for `after_s` (350 s: AWS NLB; Azure's load
//! balancer forgets after 240 s, Google's firewall after 600 s), or for what connection tracking on this host remembers
//! if that is less: the time-out of the connection's own entry where that can be read, which then is gone or takes the
//! connection for closed; else what the namespace is set to. Keepalives and their answers are something that passes, so they keep it silent if they are quick
//! enough, whoever sends them. A middlebox that forgets drops what comes next without a word. A warning for a peer behind
//! a router, info for one on the same link. It clears when something passes, or the connection ends.
//!
//! Confidence: 0.95 when this host's own connection tracking was seen to forget them, 0.9 when it must have, else 0.6: which middleboxes there are is not
//! known; times the completeness factor.
//!
//! Look-alikes: loopback and connections within the host's addresses; a network that proved to remember longer: at this
//! endpoint a peer was heard of again after a silence as long as a middlebox's memory; a namespace whose routes are not known.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::path::{self, listed, named};
use super::survey::Held;
use super::{Context, DetectConfig, Detector, Threshold, Verdict, count, list, plural, spoken, text};
use crate::endpoint::Endpoint;
use crate::event::ProcessId;
use crate::finding::{Kind, Severity, Subject};
use crate::inventory::{Entry, Network};
use crate::socket::Socket;
use crate::tcp::TcpState;
use crate::tracker::Memory;

/// Who forgets an idle connection, and after how long.
const MIDDLEBOXES: [(&str, u64); 3] =
    [("Azure's load balancer", 240), ("AWS' network load balancer", 350), ("Google Cloud's firewall", 600)];

const AFTER: Threshold = Threshold {
    key: "after_s",
    default: 350,
    bounds: (5, 604_800),
    meaning: "How long the network is taken to remember a connection on which nothing passes.",
};

pub(super) struct SilentDropRisk;

impl Detector for SilentDropRisk {
    fn kind(&self) -> Kind {
        Kind::SilentDropRisk
    }

    fn thresholds(&self) -> &'static [Threshold] {
        const { &[AFTER] }
    }

    fn clear_after(&self, _: &DetectConfig) -> Duration {
        Duration::ZERO
    }

    fn detect(&self, context: &Context<'_>) -> Vec<Verdict> {
        let holders = context.survey.holders();
        let judged = holders.filter_map(|(id, index, held)| {
            let endpoint = context.tracker.endpoints().get(index)?;
            let mut risks = BTreeMap::<(Distance, Option<Own>), Vec<&Socket>>::new();
            for held in held {
                if let Some(risk) = risk(context, endpoint, held) {
                    risks.entry(risk).or_default().push(held.socket);
                }
            }
            let (risk, sockets) = risks.into_iter().next_back()?;
            Some(verdict(context, (id, endpoint), risk, &sockets))
        });
        judged.collect()
    }

    fn resolved_summary(&self, _: &Context<'_>, last: &Verdict) -> String {
        let was = u32::try_from(last.number("connections")).unwrap_or(u32::MAX);
        let endpoint = last.subject.endpoint.as_deref().unwrap_or_default();
        format!("{} of {} to {endpoint}: used again or ended", plural(was, "idle connection"), last.text("process"))
    }
}

/// How far the peer is, as far as it matters here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Distance {
    SameLink,
    Routed,
}

/// What connection tracking on this host has done to a connection, the surest last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Own {
    /// It forgets after so many seconds, which have passed.
    SetTo(u64),
    /// Its entry lasted so many seconds and is gone.
    Lost(u64),
    /// Its entry says that the connection is closed or closing.
    Closing,
}

/// How long nothing passed either way, as of the last look.
fn silence(socket: &Socket) -> Option<Duration> {
    let counters = socket.counters.filter(|counters| counters.unacked == 0 && !counters.is_waiting())?;
    Some(Duration::from_millis(u64::from(counters.heard_ms.min(counters.last_data_sent_ms))))
}

/// Whether the connection may be forgotten by now: how far its peer is, and what this host's own tracking did to it.
fn risk(context: &Context<'_>, endpoint: &Endpoint, held: &Held<'_>) -> Option<(Distance, Option<Own>)> {
    let socket = held.socket;
    let silent = silence(socket).filter(|_| socket.state == TcpState::Established)?;
    let after = context.config.time(Kind::SilentDropRisk, &AFTER);
    let network = context.tracker.network(socket.tuple.netns())?;
    let forgets = |seconds: u64| forgets(endpoint, silent, seconds);
    let own = match context.tracker.passage(&socket.tuple).memory {
        Memory::Has(entry, _) if entry.state.is_closing() => Some(Own::Closing),
        // It is remembered, whatever the namespace is set to.
        Memory::Has(..) => None,
        Memory::Lost(_, lasted) => Some(Own::Lost(lasted.as_secs())).filter(|_| endpoint.silence_survived < lasted),
        Memory::Unknown => network.conntrack_s.map(u64::from).filter(|seconds| forgets(*seconds)).map(Own::SetTo),
    };
    let known = MIDDLEBOXES.iter().map(|(_, seconds)| *seconds).filter(|seconds| *seconds > after.as_secs());
    let anybody = own.is_some() || known.chain([after.as_secs()]).any(forgets);
    Some((distance(socket, network).filter(|_| anybody)?, own))
}

/// Whether who remembers connections for so long has forgotten this one, and may be on the way: nobody was heard of again
/// after as long a silence.
fn forgets(endpoint: &Endpoint, silent: Duration, seconds: u64) -> bool {
    let remembers = Duration::from_secs(seconds);
    silent >= remembers && endpoint.silence_survived < remembers
}

/// `None` for a peer on this host.
fn distance(socket: &Socket, network: &Network) -> Option<Distance> {
    let (local, remote): (IpAddr, IpAddr) = (socket.tuple.local().ip(), socket.tuple.remote().ip());
    match () {
        () if remote.is_loopback() || remote == local => None,
        () if network.is_near(remote) => Some(Distance::SameLink),
        () => Some(Distance::Routed),
    }
}

fn verdict(
    context: &Context<'_>,
    (id, endpoint): (ProcessId, &Endpoint),
    (distance, own): (Distance, Option<Own>),
    sockets: &[&Socket],
) -> Verdict {
    let (who, name) = named(context, Some(id));
    let idle = u32::try_from(sockets.len()).unwrap_or(u32::MAX);
    let longest = sockets.iter().filter_map(|socket| silence(socket)).max().unwrap_or_default();
    let off = |socket: &&&Socket| socket.counters.is_some_and(|counters| counters.keepalive == Some(false));
    let keepalive_off = sockets.iter().filter(off).count();
    let forget = forgetters(endpoint, longest, own);
    let network = sockets.first().and_then(|socket| context.tracker.network(socket.tuple.netns()));
    let keepalive = match (keepalive_off, network.and_then(|network| network.keepalive_idle_s)) {
        (0, _) => "keepalive is too slow".to_owned(),
        (off, _) if off == sockets.len() => "keepalive is off".to_owned(),
        (off, _) => format!("keepalive is off on {off} of them"),
    };
    let tracked = tracked(context, sockets);
    let why = match own {
        Some(Own::Closing) => format!("; this host's connection tracking takes them for closed ({tracked})"),
        _ => format!(", longer than {}", forget.last().map_or("the network remembers", String::as_str)),
    };
    Verdict {
        key: format!("{} {}", path::key(Some(id)), endpoint.id()),
        severity: if distance == Distance::Routed { Severity::Warning } else { Severity::Info },
        confidence: confidence(own) * context.completeness_factor(),
        subject: Subject {
            endpoint: Some(endpoint.id()),
            pids: vec![id.pid],
            launcher_group: path::group(context, Some(id)),
        },
        news: format!("{who} {idle} {}", forget.len()),
        summary: format!(
            "{who} holds {} to {} that may be forgotten on the way: nothing passed for {} and {keepalive}{why}",
            plural(idle, "idle connection"),
            endpoint.display_name(),
            spoken(longest)
        ),
        evidence: vec![
            count("connections", idle, "connections"),
            count("silent", longest.as_secs(), "s"),
            count("keepalive_off", keepalive_off, "connections"),
            count("host_keepalive_idle", network.and_then(|network| network.keepalive_idle_s).unwrap_or(0), "s"),
            count("longest_survived", endpoint.silence_survived.as_secs(), "s"),
            list("forgotten_by", forget),
            text("conntrack", tracked),
            text("peer", if distance == Distance::Routed { "behind a router" } else { "on the same link" }),
            text("process", who),
            list("local_ports", listed(sockets.iter().map(|socket| socket.tuple.local().port()))),
        ],
        ruled_out: vec![
            "a peer on this host".to_owned(),
            "keepalive that is quick enough: its answers would have been heard".to_owned(),
            "a network that remembers longer: nobody was heard of again after such a silence".to_owned(),
        ],
        remedy: format!(
            "Turn TCP keepalive on in the driver of {name} with an idle time below the network's, or let its pool close \
             idle connections sooner"
        ),
        verify: format!("ss -tnoi state established dst {}", endpoint.id()),
    }
}

/// Who has forgotten a connection that was silent for so long, the most patient last, this host's own tracking before all.
fn forgetters(endpoint: &Endpoint, silent: Duration, own: Option<Own>) -> Vec<String> {
    let known = MIDDLEBOXES.iter().filter(|(_, after)| forgets(endpoint, silent, *after));
    let known = known.map(|(name, after)| format!("{name} remembers ({})", spoken(Duration::from_secs(*after))));
    let remembers =
        |seconds| format!("this host's connection tracking remembers ({})", spoken(Duration::from_secs(seconds)));
    let own = own.map(|own| match own {
        Own::SetTo(seconds) | Own::Lost(seconds) => remembers(seconds),
        Own::Closing => "this host's connection tracking, which takes it for closed".to_owned(),
    });
    known.chain(own).collect()
}

fn confidence(own: Option<Own>) -> f64 {
    match own {
        Some(Own::Lost(_) | Own::Closing) => 0.95,
        Some(Own::SetTo(_)) => 0.9,
        None => 0.6,
    }
}

/// What is known of the entries that this host's connection tracking has or had of them: of the one that is nearest to its
/// end.
fn tracked(context: &Context<'_>, sockets: &[&Socket]) -> String {
    let memories = || sockets.iter().map(|socket| context.tracker.passage(&socket.tuple).memory);
    let lost = memories().filter_map(|memory| match memory {
        Memory::Lost(entry, lasted) => Some((entry, lasted)),
        Memory::Unknown | Memory::Has(..) => None,
    });
    let has = memories().filter_map(|memory| match memory {
        Memory::Has(entry, lasts) => Some((entry, lasts)),
        Memory::Unknown | Memory::Lost(..) => None,
    });
    let named = |entry: Entry| format!("{}{}", entry.state.name(), if entry.translated { ", translated" } else { "" });
    match (lost.min_by_key(|(_, lasted)| *lasted), has.min_by_key(|(entry, _)| entry.left_s)) {
        (Some((entry, lasted)), _) => format!("the entry is gone after {} ({})", spoken(lasted), named(entry)),
        (None, Some((entry, _))) => {
            format!("{}, {} left", named(entry), spoken(Duration::from_secs(u64::from(entry.left_s))))
        }
        (None, None) => "no entry is known".to_owned(),
    }
}
