//! Another configuration while connections are open: what is known of endpoints changes, ports come and go.

use std::collections::BTreeSet;

use super::booking::Ending;
use super::{Slot, Tracker};
use crate::history::Life;
use crate::ports::PortMap;
use crate::rules::Rules;
use crate::time::BootNs;

impl Tracker {
    /// Goes by other ports and rules from now on. What ports that are new had before is found by the next look, which has
    /// to know them. Connections of ports that are not watched any more are forgotten.
    pub fn configure(&mut self, mut ports: PortMap, rules: Rules, now: BootNs) {
        for recognized in
            self.recognized.iter().filter(|recognized| !ports.contains(recognized.port)).cloned().collect::<Vec<_>>()
        {
            ports.insert(recognized.port, recognized.database);
        }
        let new = ports.iter().map(|(port, _)| port).filter(|port| !self.ports.contains(*port));
        self.sight.new_ports.extend(new);
        let gone: BTreeSet<u16> =
            self.ports.iter().map(|(port, _)| port).filter(|port| !ports.contains(*port)).collect();
        self.unwatched.extend(&gone);
        self.unwatched.retain(|port| !ports.contains(*port));
        self.ports = ports;
        self.rules = rules;
        let mut endpoints = std::mem::take(&mut self.endpoints);
        endpoints.iter_mut().for_each(|endpoint| self.describe(endpoint));
        self.endpoints = endpoints;
        if !gone.is_empty() {
            self.forget_ports(&gone, now);
        }
    }

    /// Forgets the command lines of all processes.
    pub fn forget_cmdlines(&mut self) {
        self.processes
            .values_mut()
            .filter_map(|process| process.identity.as_mut())
            .for_each(|identity| identity.cmdline = None);
    }

    /// They are counted as closed, so that what was opened stays what is open and what is closed; how they ended is unknown.
    fn forget_ports(&mut self, ports: &BTreeSet<u16>, now: BootNs) {
        let of_these = self.sockets.numbered().filter(|(_, socket)| {
            let port = socket.tuple.database(socket.role).port();
            ports.contains(&port)
        });
        let slots: Vec<Slot> = of_these.map(|(slot, _)| slot).collect();
        for slot in slots {
            // No tombstone: should the port be watched again, a look finds the same life.
            let Some(socket) = self.sockets.remove(slot) else { continue };
            self.forget_parting(&socket.tuple);
            if socket.is_open() {
                self.book_removed(&socket, now, Ending::Closed(Life::UNSEEN));
            }
        }
    }

    /// Whether connections to that endpoint are watched still.
    pub(super) fn is_watched(&self, endpoint: usize) -> bool {
        let place = self.endpoints.get(endpoint).and_then(|endpoint| endpoint.place);
        place.is_none_or(|place| !self.unwatched.contains(&place.addr.port()))
    }
}
