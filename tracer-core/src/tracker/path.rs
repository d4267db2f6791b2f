//! The path to the peer, as far as sockets tell: which are in trouble and should be asked about soon, who closed those that
//! are closing, and which ended without the peer having heard of it. Judges nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::time::Duration;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::passage::{FullTable, Passage};
use super::{Slot, Tracker};
use crate::event::{DropEvent, ProcessId, Role, SocketEvent, Tuple};
use crate::inventory::{Glance, GlanceRow, Network, SocketInfo, Timer};
use crate::socket::{Began, Socket};
use crate::tcp::TcpState;
use crate::time::BootNs;

/// Sockets that are asked about between looks. Those beyond wait for the next look.
const MOST_WATCHED: usize = 4_096;
/// Of these, asked about at once.
const MOST_ASKED: usize = 1_024;
/// A socket in trouble is asked about so often.
pub const ASK_EVERY: Duration = Duration::from_millis(500);
/// A keepalive that was sent has been answered by then, if it is.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);
/// A keepalive that is sent later than that is left to the looks.
const ASK_AHEAD: Duration = Duration::from_secs(30);

/// Closes of which is known who did them, those that never got through included.
const MOST_PARTINGS: usize = 8_192;
/// Namespaces in which the connection of a lost packet is searched for.
const MOST_DROPPING: usize = 64;
/// Namespaces in which other ends are searched for.
const MOST_SERVED: usize = 4_096;
/// A close that never got through is kept no longer than that: no database waits longer for a dead client.
const SEVERED_KEPT: Duration = Duration::from_secs(86_400);

/// Time-outs in a row after which an end was not heard of.
pub(crate) const UNHEARD_RTOS: u8 = 3;
/// `ETIMEDOUT`, and what an unreachable network or host leaves on a socket instead (`tcp_write_err`).
const UNANSWERED: [u16; 3] = [101, 110, 113];

/// A client's connection that this side has closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parting {
    /// Who closed it.
    pub closer: Option<ProcessId>,
    /// When that was known first.
    pub at: BootNs,
    /// The socket is gone, and the peer never acknowledged the close.
    pub severed: Option<Severed>,
}

/// How a connection ended whose peer never heard of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Severed {
    /// When the socket was gone.
    pub at: BootNs,
    /// In which state.
    pub state: TcpState,
    /// Time-outs in a row by then.
    pub rtos: u8,
    /// When the peer was last heard of, if a look told.
    pub heard_at: Option<BootNs>,
    /// Where the peer's own socket was at that moment, if it was on this host: the namespace's inode number.
    pub twin: Option<u32>,
}

/// What is kept besides the sockets themselves.
#[derive(Debug, Default)]
pub(super) struct Path {
    /// Sockets to be asked about, and not before when.
    watched: HashMap<Tuple, BootNs>,
    partings: HashMap<Tuple, Parting>,
    without_room: u64,
    /// Namespaces that a database's own sockets were seen in.
    served_in: BTreeSet<u32>,
    /// By inode number, as of the last look that found something there.
    pub(super) networks: BTreeMap<u32, Network>,
    /// What is known of single connections' ways through this host.
    pub(super) passages: BTreeMap<u32, HashMap<Tuple, Passage>>,
    /// Namespaces whose connection tracking was full.
    pub(super) full: BTreeMap<u32, FullTable>,
}

impl Path {
    fn watch(&mut self, tuple: Tuple, due: BootNs) {
        if let Some(known) = self.watched.get_mut(&tuple) {
            *known = due.min(*known);
        } else if self.watched.len() < MOST_WATCHED {
            self.watched.insert(tuple, due);
        }
    }

    /// What a look or a glance says of when to ask again.
    fn follow(&mut self, tuple: Tuple, info: &SocketInfo, state: TcpState, at: BootNs) {
        let in_trouble = info.consecutive_rtos > 0 || info.probes > 0;
        let fires = Duration::from_millis(u64::from(info.timer_ms));
        let keeps_alive = info.timer == Timer::Keepalive && state == TcpState::Established && fires <= ASK_AHEAD;
        self.watched.remove(&tuple);
        if in_trouble {
            self.watch(tuple, at.plus(ASK_EVERY));
        } else if keeps_alive {
            self.watch(tuple, at.plus(fires + ANSWERED_WITHIN));
        }
    }

    fn part(&mut self, tuple: Tuple, parting: Parting) {
        if self.partings.len() < MOST_PARTINGS || self.partings.contains_key(&tuple) {
            self.partings.insert(tuple, parting);
        } else {
            self.without_room += 1;
        }
    }
}

impl Tracker {
    /// Sockets to ask the kernel about now, with the cookie that a look told (0 for none): those in trouble, and those
    /// whose keepalive should have been answered by now. Each comes up again after a while.
    #[must_use]
    pub fn due(&mut self, now: BootNs) -> Vec<(Tuple, u64)> {
        let mut due: Vec<(BootNs, Tuple)> =
            self.path.watched.iter().filter(|(_, due)| **due <= now).map(|(tuple, due)| (*due, *tuple)).collect();
        due.sort_unstable();
        due.truncate(MOST_ASKED);
        let mut asked = Vec::with_capacity(due.len());
        for (_, tuple) in due {
            match self.sockets.by_tuple(&tuple).and_then(|slot| self.socket(slot)) {
                Some(socket) => asked.push((tuple, socket.cookie.map_or(0, NonZeroU64::get))),
                None => {
                    self.path.watched.remove(&tuple);
                }
            }
            if let Some(due) = self.path.watched.get_mut(&tuple) {
                *due = now.plus(ASK_EVERY);
            }
        }
        asked
    }

    /// Takes in what the kernel said of some sockets. Those it does not have any more end by their own event.
    pub fn apply_glance(&mut self, glance: &Glance) {
        for row in &glance.sockets {
            let Some(slot) = self.sockets.by_tuple(&row.tuple).filter(|slot| self.is_row_of(*slot, row)) else {
                continue;
            };
            self.take_counters(slot, &row.info, row.state, glance.finished);
            let Some(socket) = self.socket_mut(slot) else { continue };
            let is_news = socket.last_event < glance.started && socket.state != row.state;
            if is_news && socket.is_open() && row.state.is_open() {
                socket.set_state(row.state, Began::Before(glance.finished));
            }
        }
        self.take_glanced_passages(&glance.paths);
    }

    fn is_row_of(&self, slot: Slot, row: &GlanceRow) -> bool {
        self.socket(slot).is_some_and(|socket| socket.cookie.is_none_or(|cookie| cookie.get() == row.cookie))
    }

    /// What a look or a glance at `at` told. A peer that is heard of after a silence proves that the network remembers a
    /// connection for that long.
    pub(super) fn take_counters(&mut self, slot: Slot, info: &SocketInfo, state: TcpState, at: BootNs) {
        let Some(socket) = self.socket_mut(slot) else { return };
        let (before, looked_at) = (socket.counters, socket.counters_at);
        socket.take_counters(info, at);
        let (tuple, endpoint, heard_at) = (socket.tuple, socket.endpoint(), socket.heard_at());
        self.path.follow(tuple, info, state, at);
        // Silent at least until the look before this one.
        if let Some(before) = before.filter(|_| heard_at > Some(looked_at))
            && let Some(endpoint) = self.endpoints.get_mut(endpoint)
        {
            let silence = Duration::from_millis(u64::from(before.heard_ms));
            endpoint.silence_survived = endpoint.silence_survived.max(silence);
        }
    }

    /// A segment was sent again because nothing came back in time: the kernel is asked about it soon.
    pub(super) fn waits(&mut self, event: &SocketEvent, slot: Slot) {
        if event.totals.consecutive_rtos == 0 {
            return;
        }
        if let Some(tuple) = self.socket(slot).filter(|socket| socket.is_open()).map(|socket| socket.tuple) {
            self.path.watch(tuple, event.at);
        }
    }

    /// This host threw a packet of a connection away: the kernel is asked about it soon. What its own firewall does not let
    /// out is not sent again as other losses are, and nothing else would tell.
    pub(super) fn watch_dropped(&mut self, event: &DropEvent) {
        let namespaces: Vec<u32> = self.path.networks.keys().take(MOST_DROPPING).copied().collect();
        for netns in namespaces {
            for (local, remote) in [(event.source, event.destination), (event.destination, event.source)] {
                let tuple = Tuple::new(netns, local, remote);
                if self.sockets.by_tuple(&tuple).is_some() {
                    self.path.watch(tuple, event.at.plus(ASK_EVERY));
                }
            }
        }
    }

    /// Who closed a client's connection, from any event that tells.
    pub(super) fn note_closer(&mut self, slot: Slot, event: &SocketEvent) {
        let Some(closer) = event.closer else { return };
        let Some(socket) = self.socket(slot).filter(|socket| socket.role == Role::Client) else { return };
        let (tuple, at) = (socket.tuple, event.at);
        if !event.new_state.is_open() {
            return;
        }
        if self.path.partings.get(&tuple).is_none_or(|known| known.closer != Some(closer)) {
            self.path.part(tuple, Parting { closer: Some(closer), at, severed: None });
            self.process_mut(closer);
        }
    }

    /// A life is over: whoever closed it, the peer has heard of it, or it has not.
    pub(super) fn note_end(&mut self, socket: Option<&Socket>, event: &SocketEvent) {
        let tuple = socket.map_or(event.tuple, |socket| socket.tuple);
        self.path.watched.remove(&tuple);
        let known = self.path.partings.remove(&tuple);
        if event.role != Role::Client || tuple.local().port() == 0 || !went_unheard(event) {
            return;
        }
        let severed = Severed {
            at: event.at,
            state: event.old_state,
            rtos: event.totals.consecutive_rtos,
            heard_at: socket.and_then(Socket::heard_at),
            twin: self.other_end(&tuple).map(|twin| twin.tuple.netns()),
        };
        let (closer, at) = known.map_or((None, event.at), |known| (known.closer, known.at));
        let closer = event.closer.or(closer).or(event.opener.map(|opener| opener.id));
        self.path.part(tuple, Parting { closer, at, severed: Some(severed) });
        if let Some(closer) = closer {
            self.process_mut(closer);
        }
    }

    /// What is known of an earlier life with these ends is over: the peer has accepted another one, or nobody told how
    /// this one ended.
    pub(super) fn forget_parting(&mut self, tuple: &Tuple) {
        self.path.partings.remove(tuple);
    }

    /// Drops what can be of no use any more: closes whose socket a look did not find, and those that the peer must have
    /// heard of otherwise.
    pub(super) fn prune_partings(&mut self, now: BootNs) {
        let mut over: Vec<Tuple> = Vec::new();
        for (tuple, parting) in &self.path.partings {
            let lives = self.sockets.by_tuple(tuple).is_some();
            let is_over = match parting.severed {
                None => !lives,
                Some(severed) => {
                    let kept = now.since(severed.at) <= SEVERED_KEPT && self.is_unnoticed(tuple, &severed);
                    lives || !kept
                }
            };
            if is_over {
                over.push(*tuple);
            }
        }
        for tuple in over {
            self.path.partings.remove(&tuple);
        }
    }

    /// The socket at the other end of a connection, if it is on this host, whichever namespace it is in.
    #[must_use]
    pub fn other_end(&self, tuple: &Tuple) -> Option<&Socket> {
        let (local, remote) = (tuple.remote(), tuple.local());
        let mut namespaces = self.path.served_in.iter();
        namespaces.find_map(|netns| self.socket(self.sockets.by_tuple(&Tuple::new(*netns, local, remote))?))
    }

    /// A database's own socket is in that namespace.
    pub(super) fn serves_in(&mut self, netns: u32) {
        if self.path.served_in.len() >= MOST_SERVED && !self.path.served_in.contains(&netns) {
            // The others are seen again with their next connection.
            self.path.served_in.clear();
        }
        self.path.served_in.insert(netns);
    }

    /// Whether the peer has the connection still, as far as this host can tell.
    #[must_use]
    pub fn is_unnoticed(&self, tuple: &Tuple, severed: &Severed) -> bool {
        let twin = severed.twin.map(|netns| Tuple::new(netns, tuple.remote(), tuple.local()));
        twin.is_none_or(|twin| self.sockets.by_tuple(&twin).is_some())
    }

    /// Closes that are known of, in no particular order.
    pub fn partings(&self) -> impl Iterator<Item = (&Tuple, &Parting)> {
        self.path.partings.iter()
    }

    /// Who closed the living socket with these ends.
    #[must_use]
    pub fn closer(&self, tuple: &Tuple) -> Option<ProcessId> {
        self.path.partings.get(tuple)?.closer
    }

    /// Closes of which it is not kept who did them, since the start.
    #[must_use]
    pub fn partings_without_room(&self) -> u64 {
        self.path.without_room
    }

    /// What is known of a network namespace.
    #[must_use]
    pub fn network(&self, netns: u32) -> Option<&Network> {
        self.path.networks.get(&netns)
    }

    pub(super) fn take_network(&mut self, netns: u32, network: Option<Network>, at: BootNs) {
        self.note_full_table(netns, network.as_ref(), at);
        match network {
            Some(network) => self.path.networks.insert(netns, network),
            None => self.path.networks.remove(&netns),
        };
    }

    /// Takes over what an earlier daemon knew of closes: by whom, and which were not heard of.
    pub(super) fn take_partings(&mut self, partings: Vec<(Tuple, Parting)>) {
        for (tuple, parting) in partings {
            if parting.severed.is_some() {
                self.endpoint_of(&tuple, Role::Client);
            } else if self.sockets.by_tuple(&tuple).is_none() {
                continue;
            }
            if let Some(closer) = parting.closer {
                self.process_mut(closer);
            }
            self.path.part(tuple, parting);
        }
    }
}

/// Whether the peer cannot have heard that this side closed: the socket was given up while its FIN was unanswered, or it was
/// reset by a close while nothing had been answered for a while. An errno of the peer's own is an answer.
fn went_unheard(end: &SocketEvent) -> bool {
    let unanswered = end.totals.consecutive_rtos >= UNHEARD_RTOS;
    match end.old_state {
        TcpState::FinWait1 | TcpState::LastAck | TcpState::Closing => {
            UNANSWERED.contains(&end.error) || (unanswered && end.error == 0)
        }
        TcpState::Established | TcpState::CloseWait => unanswered && end.error == 0 && end.closer.is_some(),
        _ => false,
    }
}
