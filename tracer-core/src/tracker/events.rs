//! How events change the tracker.
//!
//! Events of one socket arrive in order, but any of them may be missing, repeated or late, and a look at the socket
//! table may have told the same fact before. Each record carries what the kernel side remembers of the whole life, so
//! the end alone is enough to count a life whose opening was lost.

use std::num::{NonZeroU32, NonZeroU64};

use super::booking::{Ending, life_told_by};
use super::{Slot, Tracker};
use crate::event::{DropEvent, Event, ProcessEvent, ProcessEventKind, Role, SocketEvent, SocketEventKind, Task};
use crate::socket::{Began, Opener, Socket};
use crate::tcp::TcpState;
use crate::time::BootNs;

/// What an event turned out to mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A connection was established.
    Opened,
    /// A process accepted a connection.
    Accepted,
    /// The peer closed its side.
    PeerClosed,
    /// A process closed or shut down this side.
    Closing,
    /// A connection is gone.
    Closed {
        /// When it began, if that was seen.
        began: Option<BootNs>,
        /// Who opened or accepted it, if that was seen.
        opener: Option<Opener>,
    },
    /// An attempt ended without ever being established.
    Failed,
    /// A segment was sent again.
    Retransmit,
    /// About a process.
    Process,
    /// Nothing to tell: a repetition, or a socket that is not a database's.
    Ignored,
}

impl Tracker {
    /// Takes one event in.
    pub fn apply(&mut self, event: &Event) -> Effect {
        match event {
            Event::Process(event) => self.apply_process(event),
            Event::Drop(event) => self.apply_drop(event),
            Event::Accepts(event) => {
                self.apply_accepts(event);
                Effect::Process
            }
            Event::Socket(event) => match event.kind {
                SocketEventKind::Connect => self.apply_connect(event),
                SocketEventKind::Open => self.apply_open(event),
                SocketEventKind::Accept => self.apply_accept(event),
                SocketEventKind::State => self.apply_state(event),
                SocketEventKind::End => self.apply_end(event),
                SocketEventKind::Retransmit => self.apply_retransmit(event),
            },
        }
    }

    fn apply_process(&mut self, event: &ProcessEvent) -> Effect {
        let id = event.task.id;
        self.count_accepts(id, event.accepts, event.at);
        match event.kind {
            ProcessEventKind::Exit => self.end_process(id, event.at),
            ProcessEventKind::Exec => {
                if let Some(process) = self.processes.get_mut(&id) {
                    process.comm = Some(event.task.comm);
                    process.uid = Some(event.task.uid);
                    self.unidentified.push(id);
                }
            }
        }
        Effect::Process
    }

    /// Books a lost packet on the endpoint that it came from or was for, whichever namespace that is in.
    fn apply_drop(&mut self, event: &DropEvent) -> Effect {
        let is_loopback = event.source.ip().is_loopback() || event.destination.ip().is_loopback();
        if is_loopback {
            // A loopback address may be known in several namespaces.
            for endpoint in &mut self.endpoints {
                let addr = endpoint.place.map(|place| place.addr);
                if addr.is_some_and(|addr| addr == event.source || addr == event.destination) {
                    endpoint.count_drop(event);
                }
            }
            return Effect::Ignored;
        }
        self.watch_dropped(event);
        for addr in [event.source, event.destination] {
            for role in [Role::Client, Role::Server] {
                let index = self.endpoint_index.get(&(Some(addr.into()), role));
                if let Some(endpoint) = index.and_then(|index| self.endpoints.get_mut(*index)) {
                    endpoint.count_drop(event);
                }
            }
        }
        Effect::Ignored
    }

    fn apply_open(&mut self, event: &SocketEvent) -> Effect {
        let Some(established) = event.established else { return self.apply_older(event) };
        if self.tombstones.holds(event) {
            return Effect::Ignored;
        }
        if let Some(slot) = self.find(event).or_else(|| self.reclaim(event)) {
            let is_told = |socket: &Socket| matches!(socket.began(), Began::At(_));
            let known_by_event =
                self.socket(slot).is_some_and(|socket| socket.sk.is_some() && socket.is_open() && is_told(socket));
            if known_by_event {
                // Who accepted it may be news, and its state.
                self.link(slot, event);
                self.take_state(slot, event);
                return Effect::Ignored;
            }
            self.upgrade(slot, event, established);
            self.take_state(slot, event);
            return Effect::Opened;
        }
        if self.begin(event, established).is_some() { Effect::Opened } else { Effect::Ignored }
    }

    /// A connection older than the tracing, of which the kernel side remembers a state: when it began is not known.
    fn apply_older(&mut self, event: &SocketEvent) -> Effect {
        match self.find(event).or_else(|| self.reclaim(event)) {
            Some(slot) => {
                self.settle(slot, event);
                self.take_state(slot, event);
            }
            None => {
                self.begin_accepted(event);
            }
        }
        Effect::Ignored
    }

    /// A connect that hangs: a look at the socket table may know it already, but not who it is.
    fn apply_connect(&mut self, event: &SocketEvent) -> Effect {
        if self.tombstones.holds(event) {
            return Effect::Ignored;
        }
        if let Some(slot) = self.find(event) {
            self.link(slot, event);
        } else if self.sockets.by_tuple(&event.tuple).is_none() {
            self.connecting(event);
        }
        Effect::Ignored
    }

    fn apply_state(&mut self, event: &SocketEvent) -> Effect {
        let slot = match self.find(event).or_else(|| self.reclaim(event)) {
            Some(slot) => slot,
            None => match self.revive(event) {
                Some(slot) => slot,
                None => return Effect::Ignored,
            },
        };
        self.settle(slot, event);
        self.take_state(slot, event);
        if event.new_state == TcpState::CloseWait { Effect::PeerClosed } else { Effect::Closing }
    }

    /// The state that the event tells, unless a later one is known.
    fn take_state(&mut self, slot: Slot, event: &SocketEvent) {
        if let Some(socket) = self.socket_mut(slot)
            && event.new_state.is_open()
            && event.new_state != socket.state
            && event.at >= socket.state_since().moment()
        {
            socket.set_state(event.new_state, Began::At(event.at));
        }
    }

    fn apply_retransmit(&mut self, event: &SocketEvent) -> Effect {
        let Some(slot) = self.find(event) else { return Effect::Ignored };
        self.settle(slot, event);
        if let Some(socket) = self.socket_mut(slot) {
            socket.retransmits = socket.retransmits.max(event.totals.retransmits);
        }
        self.waits(event, slot);
        Effect::Retransmit
    }

    fn apply_end(&mut self, event: &SocketEvent) -> Effect {
        let was_attempt = self.tombstones.was_attempt(event);
        if was_attempt {
            self.loss.missed_closes = self.loss.missed_closes.saturating_sub(1);
        }
        if let Some(slot) = self.find(event).or_else(|| self.reclaim(event)) {
            self.settle(slot, event);
            let Some(socket) = self.remove(slot, event) else { return Effect::Ignored };
            let began = match socket.began() {
                Began::At(began) => Some(began),
                Began::Before(_) => None,
            };
            return if socket.is_open() { Effect::Closed { began, opener: socket.opener } } else { Effect::Failed };
        }
        if let Some(unannounced) = self.tombstones.was_early(event) {
            self.loss.missed_closes = self.loss.missed_closes.saturating_sub(1);
            self.loss.missed_opens = self.loss.missed_opens.saturating_sub(u64::from(unannounced));
            return Effect::Ignored;
        }
        if self.tombstones.holds(event) || self.too_late(event) {
            return Effect::Ignored;
        }
        self.tombstones.bury_event(event);
        if event.established.is_none() && event.birth.is_none() && !was_attempt {
            return Effect::Ignored;
        }
        // The opening was lost, or there never was one: the record tells the whole life.
        let open = was_open(event);
        if !open && event.role == Role::Server {
            return Effect::Ignored;
        }
        let endpoint = self.endpoint_of(&event.tuple, event.role);
        let account = event.opener.map(|opener| opener.id);
        if let Some(opener) = event.opener {
            self.introduce(&opener);
        }
        if open {
            self.book_open(endpoint, account, event.established.unwrap_or(event.at));
            self.note_end(None, event);
        }
        let lasted = event.established.map(|began| event.at.since(began));
        let ending = if open { Ending::Closed(life_told_by(event, lasted)) } else { Ending::Failed(event.error) };
        self.book_end((endpoint, event.role, event.tuple), account, ending, event.at);
        let opener = event.opener.map(|task| Opener { id: task.id, comm: task.comm });
        if open { Effect::Closed { began: event.established, opener } } else { Effect::Failed }
    }

    /// The live socket this event is about: by kernel address if the life matches, else by tuple if no event has
    /// claimed that socket yet and the life can be the same.
    pub(super) fn find(&self, event: &SocketEvent) -> Option<Slot> {
        if let Some(slot) = self.sockets.by_sk(event.sk)
            && let Some(socket) = self.socket(slot)
            && same_life(socket, event)
            && (matches!(socket.began(), Began::At(_)) || !self.tombstones.holds(event))
        {
            return Some(slot);
        }
        let slot = self.sockets.by_tuple(&event.tuple)?;
        let socket = self.socket(slot)?;
        let unclaimed = socket.sk.is_none_or(|sk| sk.get() == event.sk);
        // A socket that a look found, and an older event: it may be of an earlier life whose end is still to be told.
        let late = socket.sk.is_none() && event.at < socket.first_seen && !event.is_remembered();
        let doubtful = late
            && match event.role {
                // A client's inode number would tell; it has none any more.
                Role::Client => socket.inode.is_none(),
                Role::Server => self.last_loss.is_some_and(|lost| event.established.is_some_and(|at| lost >= at)),
            };
        (unclaimed && !doubtful && same_life(socket, event) && !self.tombstones.holds(event)).then_some(slot)
    }

    /// A socket that a look found and that a late event of an earlier life claimed: it was there when this later one of
    /// its tuple had begun, so this is its life.
    pub(super) fn reclaim(&mut self, event: &SocketEvent) -> Option<Slot> {
        let established = event.established?;
        let slot = self.sockets.by_tuple(&event.tuple)?;
        let socket = self.socket(slot)?;
        let Began::At(claimed) = socket.began() else { return None };
        let is_its = claimed < established
            && established <= socket.first_seen
            && event.at >= socket.last_event
            && socket.role == event.role
            && (socket.inode.is_none() || event.inode.is_none() || inode_of(socket) == event.inode)
            && !self.tombstones.holds(event);
        if !is_its {
            return None;
        }
        let socket = self.socket_mut(slot)?;
        socket.set_began(Began::At(established));
        socket.opener = None;
        socket.inode = socket.inode.filter(|_| socket.inode_seen);
        self.sockets.set_sk(slot, event.sk);
        Some(slot)
    }

    /// Starts a life. Whatever occupies its address or tuple is over, and its end was lost; unless that is a later
    /// life, and then this event is late and tells of one that is over: its own end counts it.
    fn begin(&mut self, event: &SocketEvent, established: BootNs) -> Option<Slot> {
        if self.too_late(event) {
            return None;
        }
        self.vacate(event, established)?;
        let slot = self.open(event, TcpState::Established, Began::At(established))?;
        if event.kind == SocketEventKind::Open {
            self.take_state(slot, event);
        }
        Some(slot)
    }

    /// Makes room at the event's address and tuple for a life that began at that moment.
    pub(super) fn vacate(&mut self, event: &SocketEvent, began: BootNs) -> Option<()> {
        let occupants = [self.sockets.by_sk(event.sk), self.sockets.by_tuple(&event.tuple)];
        let alive_at = |socket: &Socket| socket.first_seen.max(socket.last_event);
        let is_later = |slot: &Slot| self.socket(*slot).is_some_and(|socket| alive_at(socket) > began);
        if occupants.iter().flatten().any(is_later) {
            return None;
        }
        for slot in occupants.into_iter().flatten() {
            // The kernel frees a tuple a moment before it reports the end: that may come after this opening.
            self.end_unseen(slot, event.birth.unwrap_or(began));
        }
        Some(())
    }

    /// An opening that was lost, told by a later event of the same life.
    pub(super) fn revive(&mut self, event: &SocketEvent) -> Option<Slot> {
        let established = event.established?;
        if self.tombstones.holds(event) {
            return None;
        }
        self.begin(event, established)
    }

    pub(super) fn open(&mut self, event: &SocketEvent, state: TcpState, began: Began) -> Option<Slot> {
        let endpoint = self.endpoint_of(&event.tuple, event.role);
        let mut socket = Socket::new((event.tuple, event.role, endpoint), state, began, began.moment());
        socket.last_event = event.at;
        socket.sk = NonZeroU64::new(event.sk);
        socket.inode = event.inode.and_then(NonZeroU32::new);
        socket.look = self.looks;
        let slot = self.insert(socket)?;
        self.link(slot, event);
        Some(slot)
    }

    fn connecting(&mut self, event: &SocketEvent) {
        let Some(birth) = event.birth else { return };
        let endpoint = self.endpoint_of(&event.tuple, event.role);
        let place = (event.tuple, event.role, endpoint);
        let mut socket = Socket::new(place, event.new_state, Began::Before(event.at), birth);
        socket.last_event = event.at;
        socket.sk = NonZeroU64::new(event.sk);
        socket.inode = event.inode.and_then(NonZeroU32::new);
        socket.look = self.looks;
        if let Some(slot) = self.insert(socket) {
            self.link(slot, event);
        }
    }

    /// Learns from an event after the opening; if the opening itself was lost, this is when the socket counts as open.
    fn settle(&mut self, slot: Slot, event: &SocketEvent) {
        let connecting = self.socket(slot).is_some_and(|socket| !socket.is_open());
        match event.established {
            Some(established) if connecting => self.upgrade(slot, event, established),
            None if connecting && event.old_state.is_open() => {
                self.upgrade(slot, event, event.at);
                // It was established some time before this.
                if let Some(socket) = self.socket_mut(slot) {
                    socket.set_began(Began::Before(event.at));
                }
            }
            _ => self.link(slot, event),
        }
    }

    /// A socket that a look at the table told first, now told by the event of its opening.
    fn upgrade(&mut self, slot: Slot, event: &SocketEvent, established: BootNs) {
        let Some(socket) = self.socket_mut(slot) else { return };
        let was_open = socket.is_open();
        socket.set_began(Began::At(established));
        if !was_open {
            socket.set_state(TcpState::Established, Began::At(established));
            let (endpoint, account) = (socket.endpoint(), socket.account);
            self.book_open(endpoint, account, established);
        }
        self.link(slot, event);
    }

    /// Learns from any event what the socket's entry does not know yet.
    pub(super) fn link(&mut self, slot: Slot, event: &SocketEvent) {
        let Some(socket) = self.socket_mut(slot) else { return };
        socket.last_event = socket.last_event.max(event.at);
        socket.unannounced = false;
        socket.inode = socket.inode.or(event.inode.and_then(NonZeroU32::new));
        if let (Began::Before(_), Some(established), true) = (socket.began(), event.established, socket.is_open()) {
            socket.set_began(Began::At(established));
        }
        if socket.sk.is_none() {
            // Whatever had the address before is over; the next looks end it.
            self.sockets.set_sk(slot, event.sk);
        }
        self.note_closer(slot, event);
        let Some(task) = event.opener else { return };
        let Some(socket) = self.socket_mut(slot) else { return };
        if socket.opener.is_none() {
            socket.opener = Some(Opener { id: task.id, comm: task.comm });
        }
        self.introduce(&task);
        self.assign_account(slot, task.id);
    }

    fn introduce(&mut self, task: &Task) {
        if let Some(process) = self.process_mut(task.id) {
            process.comm = process.comm.or(Some(task.comm));
            process.uid = process.uid.or(Some(task.uid));
        }
    }
}

/// Whether the event can be about this life.
fn same_life(socket: &Socket, event: &SocketEvent) -> bool {
    if let (Some(known), Some(told)) = (inode_of(socket), event.inode)
        && known != told
    {
        return false;
    }
    // Addresses are reused: an end that was before the life was known is another's, and so is anything before a look
    // that saw it connecting.
    let is_older = event.at < socket.first_seen && (event.kind == SocketEventKind::End || !socket.is_open());
    if is_older || socket.role != event.role || !same_ends(socket, event) {
        return false;
    }
    match (event.established, socket.began()) {
        // The moment of establishment names a life that both sides saw begin.
        (Some(established), Began::At(began)) => established == began,
        // Found by a look at the table: the same if it was established by then, or was still connecting.
        (Some(established), Began::Before(seen)) => {
            let too_old = socket.doubted && established < socket.first_seen;
            !too_old && (established <= seen || !socket.is_open())
        }
        // The kernel side saw no establishment: older than the tracing, or still connecting.
        (None, Began::Before(seen)) => event.birth.is_none_or(|birth| birth <= seen),
        // The kernel side had no room to remember it: the address and the tuple are the life's, if it began before.
        (None, Began::At(began)) => {
            event.birth.is_none()
                && event.at > began
                && socket.sk.is_some_and(|sk| sk.get() == event.sk)
                && socket.tuple == event.tuple
        }
    }
}

fn inode_of(socket: &Socket) -> Option<u32> {
    socket.inode.map(NonZeroU32::get)
}

/// Whether both are between the same ends; at its end a socket may have lost its port.
fn same_ends(socket: &Socket, event: &SocketEvent) -> bool {
    let (known, told) = (socket.tuple.local(), event.tuple.local());
    socket.tuple == event.tuple
        || (told.port() == 0 && known.ip() == told.ip() && socket.tuple.remote() == event.tuple.remote())
}

/// Whether the life that this end closes ever was established: the kernel side may have missed the moment.
fn was_open(event: &SocketEvent) -> bool {
    event.established.is_some() || event.old_state.is_open()
}
