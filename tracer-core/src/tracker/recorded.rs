//! How a tracker is set up, live or from a recording, and what a recording has to know of a live one when it begins.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use super::{About, Bounds, Tracker};
use crate::detect::DetectConfig;
use crate::event::{Event, ProcessId, SocketEvent, SocketEventKind, Task, Totals};
use crate::identity::Identity;
use crate::ports::PortMap;
use crate::recording::Header;
use crate::snapshot::Mode;
use crate::socket::{Began, Socket};
use crate::time::WallAnchor;

impl Tracker {
    /// Tells the observer's network namespace: a loopback address in any other one is another database. Call it before
    /// anything is applied; without it loopback addresses are one wherever they are seen.
    pub fn set_home(&mut self, netns: u32) {
        self.home = Some(netns);
    }

    /// The running kernel's names of its reasons for throwing packets away.
    pub fn set_drop_reasons(&mut self, names: BTreeMap<u32, String>) {
        self.drop_reasons = names;
    }

    /// The name of such a reason.
    #[must_use]
    pub fn drop_reason(&self, reason: u32) -> Option<&str> {
        self.drop_reasons.get(&reason).map(String::as_str)
    }

    /// The smallest time scale. Call it before anything is applied.
    pub fn set_window(&mut self, window: Duration) {
        self.window = window;
    }

    /// What a recording that begins now has to know before its first event.
    #[must_use]
    pub fn header(&self, about: &About, detect: &DetectConfig, anchor: WallAnchor) -> Header {
        Header {
            about: about.clone(),
            anchor,
            home: self.home,
            ports: self.ports.iter().map(|(port, database)| (port, database.to_owned())).collect(),
            recognized: self.recognized.clone(),
            rules: self.rules.clone(),
            settings: detect.settings(),
            loss: self.loss,
            drops_untold: self.drops_untold,
        }
    }

    /// An empty tracker as the recorded one was set up.
    pub(crate) fn of_header(header: &Header) -> Self {
        let mut ports = PortMap::none();
        for (port, database) in &header.ports {
            ports.insert(*port, database.clone());
        }
        let mut tracker = Self::new(Bounds::default(), ports, header.rules.clone());
        tracker.home = header.home;
        tracker.recognized.clone_from(&header.recognized);
        tracker.drop_reasons.clone_from(&header.about.drop_reasons);
        tracker.has_events = header.about.mode == Mode::Ebpf;
        tracker.counts_accepts = header.about.counts_accepts();
        tracker
    }

    /// Recorded time goes by `pace` times faster than it did: what is on its way to the tracker is so for longer.
    pub(crate) fn set_pace(&mut self, pace: u32) {
        self.pace = pace;
    }

    /// The open connections that events have told of, as events that would tell of them now: who opened each and when,
    /// which no look at the socket table finds. In the order of their beginning. Then what processes have accepted so far.
    #[must_use]
    pub fn remembered(&self) -> Vec<Event> {
        let told = |socket: &&Socket| socket.is_open() && socket.sk.is_some();
        let mut sockets: Vec<&Socket> = self.sockets().filter(told).collect();
        sockets.sort_unstable_by_key(|socket| (socket.began().moment(), socket.tuple));
        let sockets = sockets.into_iter().map(|socket| Event::Socket(self.remember(socket)));
        sockets.chain(self.remembered_accepts()).collect()
    }

    fn remember(&self, socket: &Socket) -> SocketEvent {
        let established = match socket.began() {
            Began::At(at) => Some(at),
            Began::Before(_) => None,
        };
        let opener = socket.opener.and_then(|opener| {
            let uid = self.processes.get(&opener.id)?.uid?;
            Some(Task { id: opener.id, uid, comm: opener.comm })
        });
        SocketEvent {
            kind: SocketEventKind::Open,
            at: socket.state_since().moment(),
            sk: socket.sk.map_or(0, NonZeroU64::get),
            birth: None,
            established,
            tuple: socket.tuple,
            role: socket.role,
            old_state: socket.state,
            new_state: socket.state,
            opener,
            closer: self.closer(&socket.tuple),
            inode: socket.inode.map(NonZeroU32::get),
            error: 0,
            totals: Totals::default(),
        }
    }

    /// What /proc said of every process, as far as it was asked; of one that another process has adopted, what it said
    /// before that goes first.
    pub fn identities(&self) -> impl Iterator<Item = Identity> {
        self.processes.values().flat_map(|process| {
            let now = process.identity.as_deref();
            let before = process.origin.as_deref().zip(now).map(|(origin, now)| Identity {
                ppid: origin.ancestors.first().map(|parent| parent.pid),
                ancestors: origin.ancestors.clone(),
                master: origin.master,
                ..now.clone()
            });
            before.into_iter().chain(now.cloned())
        })
    }

    /// Processes that have ended and are still known.
    #[must_use]
    pub fn ended(&self) -> Vec<ProcessId> {
        self.processes.values().filter(|process| process.ended.is_some()).map(|process| process.id).collect()
    }
}
