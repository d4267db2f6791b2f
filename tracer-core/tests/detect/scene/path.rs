//! Paths that fail: what the kernel then tells of a socket.

use std::time::Duration;

use tracer_core::event::{DropEvent, Event, Role, SocketEventKind, Totals, Tuple};
use tracer_core::inventory::{Glance, GlanceRow, PathRow, SocketInfo, Timer, Tracked};
use tracer_core::tcp::TcpState;
use tracer_core::time::BootNs;

use super::{Scene, database};

/// The first time-out of every socket here.
const RTO: Duration = Duration::from_millis(200);

/// What is wrong with a path.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// When the peer was last heard of.
    pub heard: BootNs,
    /// When what waits for an acknowledgement was sent.
    pub sent: Option<BootNs>,
    /// Probes without an answer, and the timer that sends them.
    pub probes: (u8, Timer),
    /// The peer's segments so far.
    pub segments: u32,
    /// Smoothed round trip.
    pub srtt_us: Option<u32>,
    /// The state it got to, if that is not ESTABLISHED.
    pub state: Option<TcpState>,
}

impl Fault {
    /// Time-outs in a row by now, and when the last was.
    fn time_outs(&self, now: BootNs) -> (u8, BootNs) {
        let Some(mut last) = self.sent else { return (0, now) };
        let mut rtos = 0;
        while last.plus(RTO * (1 << rtos)) <= now && rtos < 15 {
            last = last.plus(RTO * (1 << rtos));
            rtos += 1;
        }
        (rtos, last)
    }

    pub(super) fn show(&self, info: SocketInfo, now: BootNs) -> SocketInfo {
        let ms = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
        let (rtos, last) = self.time_outs(now);
        let rto = RTO * (1 << rtos);
        let waiting = SocketInfo {
            consecutive_rtos: rtos,
            backoff: rtos,
            rto_ms: ms(rto),
            timer_ms: ms(rto.saturating_sub(now.since(last))),
            timer: Timer::Retransmit,
            unacked: 1,
            ..info
        };
        let info = if self.sent.is_some() { waiting } else { SocketInfo { timer: self.probes.1, ..info } };
        SocketInfo {
            probes: self.probes.0,
            keepalive: (self.probes.1 == Timer::Keepalive).then_some(true),
            last_ack_received_ms: ms(now.since(self.heard)),
            last_data_received_ms: ms(now.since(self.heard)),
            segments_received: self.segments,
            srtt_us: self.srtt_us,
            ..info
        }
    }
}

impl Scene {
    /// The path fails now: nothing is heard any more. What was heard last was so when they were last used.
    pub fn cut(&mut self, ports: &[u16]) {
        for port in ports {
            let heard = self.traffic.get(port).map_or(self.now, |traffic| traffic.received_at);
            let fault =
                Fault { heard, sent: None, probes: (0, Timer::Off), segments: 0, srtt_us: Some(250), state: None };
            self.faults.insert(*port, fault);
        }
    }

    /// Changes what is wrong with some.
    pub fn worsen(&mut self, ports: &[u16], mut change: impl FnMut(&mut Fault)) {
        ports.iter().for_each(|port| change(self.faults.get_mut(port).unwrap()));
    }

    /// Requests on paths that have failed: nobody answers.
    pub fn request_in_vain(&mut self, ports: &[u16]) {
        self.request(ports);
        let now = self.now;
        self.worsen(ports, |fault| fault.sent = Some(now));
    }

    /// The path is whole again, and the answer came.
    pub fn mend(&mut self, ports: &[u16]) {
        for port in ports {
            self.faults.remove(port).unwrap();
        }
        self.exchange(ports);
    }

    /// The kernel tells that a segment was sent again.
    pub fn retransmits(&mut self, ports: &[u16], role: Role) {
        for port in ports {
            let pid = self.live[port].1;
            let info = self.info(*port, role);
            let mut event = self.event(SocketEventKind::Retransmit, role, *port, pid, TcpState::Established);
            event.totals = Totals { consecutive_rtos: info.consecutive_rtos, retransmits: 1, ..event.totals };
            self.tracker.apply(&Event::Socket(event));
        }
    }

    /// The process `closer` closes them, and the FIN is not answered.
    pub fn close_in_vain(&mut self, ports: &[u16], closer: u32) {
        self.cut(ports);
        for port in ports {
            let (role, pid) = self.live[port];
            let mut event = self.event(SocketEventKind::State, role, *port, pid, TcpState::FinWait1);
            event.closer = Some(self.id(closer));
            self.tracker.apply(&Event::Socket(event));
            self.holders.insert(*port, Vec::new());
        }
        let now = self.now;
        self.worsen(ports, |fault| (fault.sent, fault.state) = (Some(now), Some(TcpState::FinWait1)));
    }

    /// The FIN is acknowledged after all, and the database closes as well.
    pub fn close_heard(&mut self, ports: &[u16]) {
        self.faults.retain(|port, _| !ports.contains(port));
        self.close(ports);
    }

    /// The kernel gives them up in that state, with that errno, after so many time-outs.
    pub fn give_up(&mut self, ports: &[u16], state: TcpState, error: u16, rtos: u8) {
        for port in ports {
            let (role, pid) = self.live.remove(port).unwrap();
            let mut event = self.event(SocketEventKind::End, role, *port, pid, TcpState::Close);
            (event.old_state, event.error) = (state, error);
            event.totals.consecutive_rtos = rtos;
            self.tracker.apply(&Event::Socket(event));
            self.faults.remove(port);
        }
    }

    /// A process closes them with bytes unread, which resets them, after so many time-outs.
    pub fn give_up_by_close(&mut self, ports: &[u16], closer: u32, rtos: u8) {
        for port in ports {
            let (role, pid) = self.live.remove(port).unwrap();
            let mut event = self.event(SocketEventKind::End, role, *port, pid, TcpState::Close);
            event.closer = Some(self.id(closer));
            event.totals.consecutive_rtos = rtos;
            self.tracker.apply(&Event::Socket(event));
        }
    }

    /// The database's own ends of these are on this host, too.
    pub fn has_twins(&mut self, ports: &[u16], pid: u32) {
        self.twins.extend(ports.iter().map(|port| (*port, pid)));
        self.look();
    }

    /// The database closes its ends.
    pub fn twins_end(&mut self, ports: &[u16]) {
        for port in ports {
            let pid = self.twins.remove(port).unwrap();
            let event = self.event(SocketEventKind::End, Role::Server, *port, pid, TcpState::Close);
            self.tracker.apply(&Event::Socket(event));
        }
    }

    /// This host throws a packet of theirs away.
    pub fn drops(&mut self, ports: &[u16], reason: u32) {
        for port in ports {
            let source = format!("10.0.0.9:{port}").parse().unwrap();
            let drop = DropEvent { at: self.now, source, destination: database(), reason };
            self.tracker.apply(&Event::Drop(drop));
        }
    }

    /// From now on this host's connection tracking says that of them, and its routes.
    pub fn passes(&mut self, ports: &[u16], tracked: Option<Tracked>, no_route: Option<u16>) {
        self.passages.extend(ports.iter().map(|port| (*port, (tracked, no_route))));
    }

    pub(super) fn path_row(&self, tuple: Tuple) -> Option<PathRow> {
        let (tracked, no_route) = *self.passages.get(&tuple.local().port())?;
        Some(PathRow { tuple, tracked, no_route })
    }

    /// The daemon restarts: what was told is forgotten, and what another scene left open is still there.
    pub fn take_over(&mut self, before: &Self) {
        self.live.clone_from(&before.live);
        self.opened_at.clone_from(&before.opened_at);
        self.traffic.clone_from(&before.traffic);
        self.faults.clone_from(&before.faults);
        self.twins.clone_from(&before.twins);
        self.network.clone_from(&before.network);
        self.look();
    }

    /// The kernel is asked about sockets that are due, as the daemon does it every second.
    pub fn glance(&mut self) -> usize {
        let due = self.tracker.due(self.now);
        let sockets = due.iter().filter_map(|(tuple, _)| {
            let role = if self.live.contains_key(&tuple.local().port()) { Role::Client } else { Role::Server };
            let port = if role == Role::Client { tuple.local().port() } else { tuple.remote().port() };
            let state = self.tracker.sockets().find(|socket| socket.tuple == *tuple)?.state;
            Some(GlanceRow {
                tuple: *tuple,
                cookie: u64::from(super::inode(role, port)),
                state,
                info: self.info(port, role),
            })
        });
        let paths = due.iter().filter_map(|(tuple, _)| self.path_row(*tuple)).collect();
        let glance = Glance { started: self.now, finished: self.now, sockets: sockets.collect(), paths };
        self.tracker.apply_glance(&glance);
        due.len()
    }

    /// Lets time pass a second at a time, with a glance and then the detectors at each, and a look every ten.
    pub fn pass_glancing(&mut self, seconds: u64) {
        for second in 0..seconds {
            if second % 10 == 9 {
                self.look();
            }
            self.now = self.now.plus(Duration::from_millis(990));
            self.glance();
            self.now = self.now.plus(Duration::from_millis(10));
            self.judge();
        }
    }
}
