//! Recorded time at another pace: a run of minutes is judged as if it had lasted hours. Every boot time is multiplied,
//! so that differences are, and the moment at which the recording began stays where it is on the wall clock.

use std::borrow::Cow;

use super::{Frame, Header};
use crate::event::{Event, ProcessId, SocketEvent};
use crate::inventory::{Holders, Inventory, Network, PathRow, SocketInfo, Tracked};
use crate::time::BootNs;

/// So many times slower than it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch(pub(super) u32);

impl Stretch {
    pub(super) fn at(self, at: &mut BootNs) {
        at.0 = at.0.saturating_mul(u64::from(self.0));
    }

    fn maybe(self, at: &mut Option<BootNs>) {
        if let Some(at) = at {
            self.at(at);
        }
    }

    fn id(self, id: &mut ProcessId) {
        id.start_ticks = { id.start_ticks }.saturating_mul(u64::from(self.0));
    }

    pub(super) fn header(self, header: &mut Header) {
        self.at(&mut header.anchor.boot);
        self.at(&mut header.about.started);
        self.at(&mut header.about.config.loaded);
    }

    pub(super) fn frame(self, frame: &mut Frame<'static>) {
        if self.0 == 1 {
            return;
        }
        match frame {
            Frame::Header(header) => self.header(header.to_mut()),
            Frame::Events { at, events } => {
                self.at(at);
                events.to_mut().iter_mut().for_each(|event| self.event(event));
            }
            Frame::Look { at, look } => {
                self.at(at);
                self.look(look);
            }
            Frame::Glance { at, glance } => {
                self.at(at);
                let glance = glance.to_mut();
                self.at(&mut glance.started);
                self.at(&mut glance.finished);
                glance.sockets.iter_mut().for_each(|row| self.info(&mut row.info));
                glance.paths.iter_mut().for_each(|row| self.path(row));
            }
            Frame::Configured { at, setup } => {
                self.at(at);
                self.at(&mut setup.to_mut().in_force.loaded);
            }
            Frame::Identity { at, identity } => {
                self.at(at);
                self.id(&mut identity.to_mut().id);
            }
            Frame::Gone { at, id } => {
                self.at(at);
                self.id(id);
            }
            Frame::Loss { at, .. } | Frame::LeftOut { at, .. } | Frame::End { at } => self.at(at),
        }
    }

    fn event(self, event: &mut Event) {
        match event {
            Event::Drop(drop) => self.at(&mut drop.at),
            Event::Process(process) => {
                self.at(&mut process.at);
                self.id(&mut process.task.id);
            }
            Event::Accepts(accepts) => {
                self.at(&mut accepts.at);
                self.id(&mut accepts.process);
            }
            Event::Socket(socket) => self.socket(socket),
        }
    }

    fn socket(self, event: &mut SocketEvent) {
        self.at(&mut event.at);
        self.maybe(&mut event.birth);
        self.maybe(&mut event.established);
        if let Some(opener) = &mut event.opener {
            self.id(&mut opener.id);
        }
        if let Some(closer) = &mut event.closer {
            self.id(closer);
        }
    }

    fn look(self, look: &mut Cow<'static, Inventory>) {
        let look = look.to_mut();
        self.at(&mut look.started);
        self.at(&mut look.finished);
        for holder in look.held.values_mut().flatten() {
            self.id(&mut holder.process);
        }
        for table in &mut look.tables {
            self.at(&mut table.started);
            self.at(&mut table.finished);
            if let Some(network) = &mut table.network {
                self.network(network);
            }
            table.paths.iter_mut().for_each(|row| self.path(row));
            for row in &mut table.sockets {
                self.holders(&mut row.holders);
                if let Some(info) = &mut row.info {
                    self.info(info);
                }
            }
        }
    }

    fn info(self, info: &mut SocketInfo) {
        for time_ms in [
            &mut info.last_data_sent_ms,
            &mut info.last_data_received_ms,
            &mut info.last_ack_received_ms,
            &mut info.rto_ms,
            &mut info.timer_ms,
        ] {
            *time_ms = time_ms.saturating_mul(self.0);
        }
    }

    fn path(self, row: &mut PathRow) {
        if let Some(Tracked::Entry(entry)) = &mut row.tracked {
            entry.left_s = entry.left_s.saturating_mul(self.0);
        }
    }

    fn network(self, network: &mut Network) {
        let times = [&mut network.keepalive_idle_s, &mut network.keepalive_interval_s, &mut network.conntrack_s];
        for time_s in times.into_iter().flatten() {
            *time_s = time_s.saturating_mul(self.0);
        }
    }

    fn holders(self, holders: &mut Holders) {
        for holder in holders.iter_mut() {
            self.id(&mut holder.process);
        }
    }
}
