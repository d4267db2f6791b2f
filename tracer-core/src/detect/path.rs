//! What the kinds about the path to the peer share: what is overdue on a socket, who threw packets away, and how both are
//! said.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use super::{Context, spoken};
use crate::endpoint::Endpoint;
use crate::event::{ProcessId, Role, Tuple};
use crate::inventory::Timer;
use crate::process::Process;
use crate::socket::{Counters, Socket};
use crate::time::BootNs;
use crate::tracker::{FullTable, Memory, errno_text};

/// A peer is silent if it was not heard of for so many times its usual answer takes.
const ROUND_TRIPS: u32 = 5;
/// A packet may be told a little before the time-out that it led to is noticed.
const BEFORE: Duration = Duration::from_secs(1);
/// Reasons named.
const REASONS_NAMED: usize = 3;
/// Local ports listed as evidence.
const PORTS_LISTED: usize = 50;

/// The kernel's reason for what a firewall of this host dropped, and for what it had no room to track.
const NETFILTER: &str = "NETFILTER_DROP";

/// Reasons that do not lose a packet on its way: it had arrived, and the socket would not have it.
fn has_arrived(reason: &str) -> bool {
    reason.starts_with("TCP_") || reason == "NO_SOCKET"
}

/// Whether the peer is silent, as of the last look: nothing was heard of it for `at_least`, nor for several times what its
/// answers usually take, and whatever waits for an acknowledgement has waited as long. A connection that was idle before
/// has been silent for no reason.
pub(super) fn is_silent(socket: &Socket, at_least: Duration) -> bool {
    let Some(counters) = socket.counters else { return false };
    let heard = Duration::from_millis(u64::from(counters.heard_ms));
    let waited = match counters.consecutive_rtos {
        0 => heard,
        _ => heard.min(Duration::from_millis(u64::from(counters.unacked_ms))),
    };
    let usual = Duration::from_micros(counters.srtt_us.map_or(0, |srtt| u64::from(srtt.get())));
    waited >= at_least.max(usual * ROUND_TRIPS)
}

/// Time-outs in a row without an answer. What could not even be sent (a firewall's output hook, no route) is tried again by
/// the timer of window probes, which counts alike (`tcp_send_probe0`).
pub(super) fn time_outs(counters: &Counters) -> u8 {
    let probes = if counters.timer == Timer::Probe { counters.probes } else { 0 };
    counters.consecutive_rtos.max(probes)
}

/// The client's end of a connection.
pub(super) fn client_end(socket: &Socket) -> SocketAddr {
    match socket.role {
        Role::Client => socket.tuple.local(),
        Role::Server => socket.tuple.remote(),
    }
}

/// Who lost the packets.
pub(super) struct Dropper {
    /// The kernel's reasons on this host, the most frequent first, and how many packets were told of.
    reasons: Vec<String>,
    packets: usize,
    /// The errno with which this host finds no way to the peer.
    no_route: Option<u16>,
    /// This host had no room to track connections.
    full: Option<FullTable>,
}

impl Dropper {
    /// Of packets between these clients and the database since then.
    pub(super) fn of(
        context: &Context<'_>,
        endpoint: &Endpoint,
        clients: &BTreeSet<SocketAddr>,
        since: BootNs,
    ) -> Self {
        Self::by(context, endpoint, since, |client| clients.contains(client))
    }

    /// Of packets between anybody and the database since then.
    pub(super) fn of_all(context: &Context<'_>, endpoint: &Endpoint, since: BootNs) -> Self {
        Self::by(context, endpoint, since, |_| true)
    }

    fn by(context: &Context<'_>, endpoint: &Endpoint, since: BootNs, wanted: impl Fn(&SocketAddr) -> bool) -> Self {
        let since = since.minus(BEFORE);
        let mut times = BTreeMap::<String, usize>::new();
        let theirs = endpoint.dropped.iter().filter(|of| of.at >= since && wanted(&of.client));
        for dropped in theirs {
            let name = context.tracker.drop_reason(dropped.reason);
            let name = name.map_or_else(|| format!("reason {}", dropped.reason), str::to_owned);
            if !has_arrived(&name) {
                *times.entry(name).or_default() += 1;
            }
        }
        let packets = times.values().sum();
        let mut reasons: Vec<(String, usize)> = times.into_iter().collect();
        reasons.sort_by(|(a, more), (b, less)| less.cmp(more).then_with(|| a.cmp(b)));
        let reasons = reasons.into_iter().take(REASONS_NAMED).map(|(name, _)| name).collect();
        Self { reasons, packets, no_route: None, full: None }
    }

    /// The same with what this host knows of these connections' ways: that there is none, or that the rule which drops is
    /// no rule but a full table.
    pub(super) fn explained(
        mut self,
        context: &Context<'_>,
        mut connections: impl Iterator<Item = Tuple> + Clone,
        since: BootNs,
    ) -> Self {
        let tracker = context.tracker;
        self.no_route = connections.clone().find_map(|tuple| tracker.passage(&tuple).no_route);
        if self.reasons.iter().any(|reason| reason == NETFILTER) {
            self.full = connections.find_map(|tuple| match tracker.passage(&tuple).memory {
                // A connection that is tracked needs no more room.
                Memory::Has(..) => None,
                Memory::Unknown | Memory::Lost(..) => tracker.full_table(tuple.netns(), since),
            });
        }
        self
    }

    /// It was this host.
    pub(super) fn is_here(&self) -> bool {
        self.packets > 0 || self.no_route.is_some()
    }

    /// What of it is news when it changes: numbers come and go.
    pub(super) fn gist(&self) -> String {
        format!("{} {:?} {}", self.packets > 0, self.no_route, self.full.is_some())
    }

    /// `this host drops their packets (NETFILTER_DROP)`, or that nobody here does.
    pub(super) fn sentence(&self) -> String {
        let reasons = self.reasons.join(", ");
        match (self.no_route, self.full) {
            (Some(errno), _) => format!("this host has no route to the peer ({})", errno_text(errno)),
            (None, Some(FullTable { entries, most, .. })) => format!(
                "this host's connection tracking table is full ({entries} of {most}): it drops their packets ({reasons})"
            ),
            _ if self.is_here() => format!("this host drops their packets ({reasons})"),
            _ => "the packets are lost beyond this host".to_owned(),
        }
    }

    /// The same as a value of evidence.
    pub(super) fn fact(&self) -> String {
        let dropped = || format!("{} ({} packets told of)", self.reasons.join(", "), self.packets);
        match (self.no_route, self.full) {
            (Some(errno), _) => format!("this host: no route ({})", errno_text(errno)),
            (None, Some(FullTable { entries, most, .. })) => {
                format!("this host: connection tracking full ({entries} of {most}), {}", dropped())
            }
            _ if self.is_here() => format!("this host: {}", dropped()),
            _ => "beyond this host".to_owned(),
        }
    }

    /// What to do about it.
    pub(super) fn remedy(&self) -> String {
        match (self.no_route, self.full) {
            (Some(_), _) => "Repair this host's route to the peer (ip route get)".to_owned(),
            (None, Some(_)) => "Raise net.netfilter.nf_conntrack_max on this host, or find what fills its connection \
                                tracking table (conntrack -L)"
                .to_owned(),
            _ if self.is_here() => format!("Look at this host's firewall and routes ({})", self.reasons.join(", ")),
            _ => {
                "Look for what drops packets silently on the way (firewall, load balancer, NAT, a dead host)".to_owned()
            }
        }
    }
}

/// A process as a sentence names it, and the name alone.
pub(super) fn named(context: &Context<'_>, process: Option<ProcessId>) -> (String, String) {
    let known = process.and_then(|id| context.tracker.processes().get(&id));
    let name = known.map_or_else(|| "an unknown process".to_owned(), Process::label);
    let who = process.map_or_else(|| name.clone(), |id| format!("{name} (pid {})", id.pid));
    (who, name)
}

/// The launcher group of a process, if it is known.
pub(super) fn group(context: &Context<'_>, process: Option<ProcessId>) -> Option<String> {
    let known = context.tracker.processes().get(&process?)?;
    known.identity.as_ref().map(|identity| identity.group.id.clone())
}

/// What tells a process apart in a finding's key.
pub(super) fn key(process: Option<ProcessId>) -> String {
    process.map_or_else(|| "unknown".to_owned(), |id| format!("{}@{}", id.pid, { id.start_ticks }))
}

/// Ports, ascending, as many as a finding lists.
pub(super) fn listed(ports: impl Iterator<Item = u16>) -> Vec<String> {
    let mut ports: Vec<u16> = ports.collect();
    ports.sort_unstable();
    ports.iter().take(PORTS_LISTED).map(u16::to_string).collect()
}

/// When the peer was last heard of, in words.
pub(super) fn last_heard(context: &Context<'_>, at: Option<BootNs>) -> String {
    at.map_or_else(|| "unknown".to_owned(), |at| format!("{} ago", spoken(context.now.since(at))))
}
