//! How events change the tracker.
//!
//! Events of one socket arrive in order, but any of them may be missing, repeated or late, and a look at the socket
//! table may have told the same fact before. Each record carries what the kernel side remembers of the whole life, so
//! the end alone is enough to count a life whose opening was lost.

use std::net::SocketAddr;

use super::{Slot, Tracker};
use crate::event::Role;
use crate::event::{DropEvent, Event, ProcessEvent, ProcessEventKind, SocketEvent, SocketEventKind};
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
        for endpoint in &mut self.endpoints {
            let addr = endpoint.addr.map(|addr| SocketAddr::new(addr.ip().to_canonical(), addr.port()));
            if addr.is_some_and(|addr| addr == event.source || addr == event.destination) {
                endpoint.count_drop(event.reason, event.at);
            }
        }
        Effect::Ignored
    }

    fn apply_open(&mut self, event: &SocketEvent) -> Effect {
        let established = event.established.unwrap_or(event.at);
        if self.tombstones.holds(event) {
            return Effect::Ignored;
        }
        if let Some(slot) = self.find(event) {
            let known_by_event = self.socket(slot).is_some_and(|socket| socket.sk.is_some() && socket.is_open());
            if known_by_event {
                return Effect::Ignored;
            }
            self.upgrade(slot, event, established);
            return Effect::Opened;
        }
        if self.begin(event, established).is_some() { Effect::Opened } else { Effect::Ignored }
    }

    /// The opening may not have been told yet: then this tells it.
    fn apply_accept(&mut self, event: &SocketEvent) -> Effect {
        let known = if event.established.is_some() { self.find(event) } else { self.find_accepted(event) };
        if let Some(slot) = known {
            self.link(slot, event);
            return Effect::Accepted;
        }
        match self.revive(event) {
            Some(_) => Effect::Accepted,
            None => Effect::Ignored,
        }
    }

    /// A connect that hangs: a look at the socket table may know it already, but not who it is.
    fn apply_connect(&mut self, event: &SocketEvent) -> Effect {
        if self.tombstones.holds(event) {
            return Effect::Ignored;
        }
        if let Some(slot) = self.find(event) {
            self.link(slot, event);
        } else if !self.by_tuple.contains_key(&event.tuple) {
            self.connecting(event);
        }
        Effect::Ignored
    }

    fn apply_state(&mut self, event: &SocketEvent) -> Effect {
        let slot = match self.find(event) {
            Some(slot) => slot,
            None => match self.revive(event) {
                Some(slot) => slot,
                None => return Effect::Ignored,
            },
        };
        self.settle(slot, event);
        if let Some(socket) = self.socket_mut(slot)
            && event.at >= socket.last_event
        {
            socket.last_event = event.at;
            socket.state = event.new_state;
            socket.state_since = Began::At(event.at);
            socket.closer = event.closer.or(socket.closer);
        }
        if event.new_state == TcpState::CloseWait { Effect::PeerClosed } else { Effect::Closing }
    }

    fn apply_retransmit(&mut self, event: &SocketEvent) -> Effect {
        let Some(slot) = self.find(event) else { return Effect::Ignored };
        self.settle(slot, event);
        if let Some(socket) = self.socket_mut(slot) {
            socket.retransmits = socket.retransmits.max(event.totals.retransmits);
        }
        Effect::Retransmit
    }

    fn apply_end(&mut self, event: &SocketEvent) -> Effect {
        if let Some(slot) = self.find(event) {
            self.settle(slot, event);
            self.tombstones.bury_event(event);
            let Some(socket) = self.remove(slot, event.at) else { return Effect::Ignored };
            let began = match socket.began {
                Began::At(began) => Some(began),
                Began::Before(_) => None,
            };
            return if socket.is_open() { Effect::Closed { began, opener: socket.opener } } else { Effect::Failed };
        }
        if self.tombstones.holds(event) {
            if self.tombstones.was_early(event) {
                self.loss.missed_closes = self.loss.missed_closes.saturating_sub(1);
            }
            return Effect::Ignored;
        }
        self.tombstones.bury_event(event);
        if event.established.is_none() && event.birth.is_none() {
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
            self.introduce(&opener, event.at);
        }
        if open {
            self.book_open(endpoint, account, event.established.unwrap_or(event.at));
        }
        self.book_end(endpoint, account, event.role, open, event.at);
        let opener = event.opener.map(|task| Opener { id: task.id, comm: task.comm });
        if open { Effect::Closed { began: event.established, opener } } else { Effect::Failed }
    }

    /// The live socket this event is about: by kernel address if the life matches, else by tuple if no event has
    /// claimed that socket yet and the life can be the same.
    fn find(&self, event: &SocketEvent) -> Option<Slot> {
        if let Some(slot) = self.by_sk.get(&event.sk)
            && let Some(socket) = self.socket(*slot)
            && same_life(socket, event)
        {
            return Some(*slot);
        }
        let slot = *self.by_tuple.get(&event.tuple)?;
        let socket = self.socket(slot)?;
        let unclaimed = socket.sk.is_none_or(|sk| sk == event.sk);
        (unclaimed && same_life(socket, event) && !self.tombstones.holds(event)).then_some(slot)
    }

    /// The socket that was accepted, by a record that does not say which life it is of. But the process had the descriptor, so
    /// the address was not reused yet: the ring has the opening before it, and an end that was earlier is before it,
    /// too.
    fn find_accepted(&self, event: &SocketEvent) -> Option<Slot> {
        let slot = self.by_sk.get(&event.sk).or_else(|| self.by_tuple.get(&event.tuple))?;
        let socket = self.socket(*slot)?;
        let same = socket.tuple == event.tuple
            && socket.role == event.role
            && socket.sk.is_none_or(|sk| sk == event.sk)
            && (socket.inode.is_none() || event.inode.is_none() || socket.inode == event.inode);
        same.then_some(*slot)
    }

    /// Starts a life. Whatever occupies its address or tuple is over, and its end was lost; unless that is a later
    /// life, and then this event is late and tells of one that is over: its own end counts it.
    fn begin(&mut self, event: &SocketEvent, established: BootNs) -> Option<Slot> {
        let occupants = [self.by_sk.get(&event.sk).copied(), self.by_tuple.get(&event.tuple).copied()];
        let is_later = |slot: &Slot| self.socket(*slot).is_some_and(|socket| socket.began.moment() > established);
        if occupants.iter().flatten().any(is_later) {
            return None;
        }
        for slot in occupants.into_iter().flatten() {
            // The kernel frees a tuple a moment before it reports the end: that may come after this opening.
            if let Some(socket) = self.remove(slot, event.birth.unwrap_or(established)) {
                self.loss.missed_closes += 1;
                self.tombstones.mark_early(&socket);
            }
        }
        self.open(event, established)
    }

    /// An opening that was lost, told by a later event of the same life.
    fn revive(&mut self, event: &SocketEvent) -> Option<Slot> {
        let established = event.established?;
        if self.tombstones.holds(event) {
            return None;
        }
        self.begin(event, established)
    }

    fn open(&mut self, event: &SocketEvent, established: BootNs) -> Option<Slot> {
        let endpoint = self.endpoint_of(&event.tuple, event.role);
        let place = (event.tuple, event.role, endpoint);
        let slot = self.insert(Socket {
            last_event: event.at,
            sk: Some(event.sk),
            inode: event.inode,
            look: self.looks,
            ..Socket::new(place, TcpState::Established, Began::At(established), established)
        })?;
        self.link(slot, event);
        Some(slot)
    }

    fn connecting(&mut self, event: &SocketEvent) {
        let Some(birth) = event.birth else { return };
        let endpoint = self.endpoint_of(&event.tuple, event.role);
        let place = (event.tuple, event.role, endpoint);
        let slot = self.insert(Socket {
            last_event: event.at,
            sk: Some(event.sk),
            inode: event.inode,
            look: self.looks,
            ..Socket::new(place, event.new_state, Began::Before(event.at), birth)
        });
        if let Some(slot) = slot {
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
                    socket.began = Began::Before(event.at);
                }
            }
            _ => self.link(slot, event),
        }
    }

    /// A socket that a look at the table told first, now told by the event of its opening.
    fn upgrade(&mut self, slot: Slot, event: &SocketEvent, established: BootNs) {
        let Some(socket) = self.socket_mut(slot) else { return };
        let was_open = socket.is_open();
        socket.began = Began::At(established);
        if !was_open {
            socket.state = TcpState::Established;
            socket.state_since = Began::At(established);
            let (endpoint, account) = (socket.endpoint, socket.account);
            self.book_open(endpoint, account, established);
        }
        self.link(slot, event);
    }

    /// Learns from any event what the socket's entry does not know yet.
    fn link(&mut self, slot: Slot, event: &SocketEvent) {
        let Some(socket) = self.socket_mut(slot) else { return };
        socket.last_event = socket.last_event.max(event.at);
        socket.closer = socket.closer.or(event.closer);
        socket.inode = socket.inode.or(event.inode);
        if let (Began::Before(_), Some(established), true) = (socket.began, event.established, socket.is_open()) {
            socket.began = Began::At(established);
        }
        if socket.sk.is_none() {
            socket.sk = Some(event.sk);
            // Whatever had the address before is over; the next looks end it.
            self.by_sk.insert(event.sk, slot);
        }
        let Some(task) = event.opener else { return };
        let Some(socket) = self.socket_mut(slot) else { return };
        if socket.opener.is_none() {
            socket.opener = Some(Opener { id: task.id, comm: task.comm });
        }
        self.introduce(&task, event.at);
        self.assign_account(slot, task.id, event.at);
    }

    fn introduce(&mut self, task: &crate::event::Task, now: BootNs) {
        if let Some(process) = self.process_mut(task.id, now) {
            process.comm = process.comm.or(Some(task.comm));
            process.uid = process.uid.or(Some(task.uid));
        }
    }
}

/// Whether the event can be about this life.
fn same_life(socket: &Socket, event: &SocketEvent) -> bool {
    if let (Some(known), Some(told)) = (socket.inode, event.inode)
        && known != told
    {
        return false;
    }
    match (event.established, socket.began) {
        // The moment of establishment names a life that both sides saw begin.
        (Some(established), Began::At(began)) => established == began,
        // Found by a look at the table: the same if it was established by then, or was still connecting.
        (Some(established), Began::Before(seen)) => established <= seen || !socket.is_open(),
        // The kernel side saw no establishment: older than the tracing, or still connecting.
        (None, Began::Before(seen)) => event.birth.is_none_or(|birth| birth <= seen),
        // The kernel side had no room to remember it: the address and the tuple are the life's, if it began before.
        (None, Began::At(began)) => {
            event.birth.is_none() && event.at > began && socket.sk == Some(event.sk) && socket.tuple == event.tuple
        }
    }
}

/// Whether the life that this end closes ever was established: the kernel side may have missed the moment.
fn was_open(event: &SocketEvent) -> bool {
    event.established.is_some() || event.old_state.is_open()
}
