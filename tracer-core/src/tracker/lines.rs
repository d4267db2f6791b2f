//! Socket events as lines of the event tail. There may be a hundred thousand a second: a line borrows its texts.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use super::{Effect, Tracker};
use crate::endpoint::Place;
use crate::event::{Event, SocketEvent, SocketEventKind};
use crate::snapshot::{EVENT_SCHEMA, EventLine, EventName, Opener, Reset};
use crate::socket;
use crate::tcp::TcpState;
use crate::time::WallAnchor;

/// Room for the texts of one line, to be used again for the next.
#[derive(Debug, Default)]
pub struct LineRoom {
    endpoint: String,
    local: String,
    remote: String,
    comm: String,
    error: String,
}

/// An event as a line of the event tail; `None` for what is not worth a line.
#[must_use]
pub fn event_line<'a>(
    tracker: &'a Tracker,
    event: &Event,
    effect: Effect,
    anchor: &WallAnchor,
    room: &'a mut LineRoom,
) -> Option<EventLine<&'a str>> {
    let Event::Socket(event) = event else { return None };
    let name = match effect {
        Effect::Opened => EventName::Opened,
        Effect::Accepted => EventName::Accepted,
        Effect::PeerClosed => EventName::PeerClosed,
        Effect::Closing => EventName::Closing,
        Effect::Closed { .. } => EventName::Closed,
        Effect::Failed => EventName::Failed,
        Effect::Retransmit => EventName::Retransmit,
        Effect::Process | Effect::Ignored => return None,
    };
    let (age, opener) = match effect {
        Effect::Closed { began, opener } => (began.map(|began| event.at.since(began)), opener),
        _ => (None, tracker.opener_of(event.sk)),
    };
    // A failed attempt was never in the tracker: only the event knows.
    let opener = opener.or(event.opener.map(|task| socket::Opener { id: task.id, comm: task.comm }));
    let place = tracker.place(&event.tuple, event.role);
    let database = match tracker.endpoint(place, event.role) {
        Some((_, endpoint)) => &endpoint.database,
        None => tracker.ports.database(place.addr.port()).unwrap_or("other"),
    };
    room.fill(event, place, opener);
    let room = &*room;
    Some(EventLine {
        schema: EVENT_SCHEMA,
        event: name,
        at: anchor.wall(event.at),
        endpoint: &room.endpoint,
        database,
        role: event.role,
        local: &room.local,
        remote: &room.remote,
        state: event.new_state,
        opener: opener.map(|opener| Opener { pid: opener.id.pid, comm: room.comm.as_str() }),
        closer_pid: event.closer.map(|closer| closer.pid),
        age_ms: age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        bytes_sent: event.totals.bytes_sent,
        bytes_received: event.totals.bytes_received,
        retransmits: event.totals.retransmits,
        consecutive_rtos: event.totals.consecutive_rtos,
        error: (event.error != 0).then_some(room.error.as_str()),
        reset: reset(event),
    })
}

impl LineRoom {
    fn fill(&mut self, event: &SocketEvent, place: Place, opener: Option<socket::Opener>) {
        for text in [&mut self.endpoint, &mut self.local, &mut self.remote, &mut self.comm, &mut self.error] {
            text.clear();
        }
        push_addr(&mut self.local, event.tuple.local());
        push_addr(&mut self.remote, event.tuple.remote());
        // The database is at one of the ends.
        if place.addr == event.tuple.remote() {
            self.endpoint.push_str(&self.remote);
        } else {
            push_addr(&mut self.endpoint, place.addr);
        }
        if let Some(netns) = place.netns {
            let _infallible = write!(self.endpoint, "@netns:{netns}");
        }
        if let Some(opener) = opener {
            self.comm.push_str(&opener.comm.to_text());
        }
        if event.error != 0 {
            self.error.push_str(&errno_text(event.error));
        }
    }
}

/// As it is displayed; without the formatter's machinery for IPv4, which is what most lines have.
fn push_addr(text: &mut String, addr: SocketAddr) {
    let IpAddr::V4(ip) = addr.ip() else {
        let _infallible = write!(text, "{addr}");
        return;
    };
    // The longest is 255.255.255.255:65535.
    let (mut digits, mut at) = ([0; 21], 0);
    for (octet, end) in ip.octets().into_iter().zip(*b"...:") {
        put(&mut digits, &mut at, octet.into());
        digits[at] = end;
        at += 1;
    }
    put(&mut digits, &mut at, addr.port());
    text.push_str(str::from_utf8(&digits[..at]).unwrap_or_default());
}

/// Decimal digits of a number, from `at` on.
fn put(digits: &mut [u8; 21], at: &mut usize, number: u16) {
    for power in [10_000, 1_000, 100, 10, 1] {
        if number >= power || power == 1 {
            digits[*at] = b'0' + (number / power % 10) as u8;
            *at += 1;
        }
    }
}

/// A received RST leaves its errno on the socket (`tcp_reset`, net/ipv4/tcp_input.c). A close that goes straight to CLOSE
/// from a state in which the other side is still there sends one (`__tcp_close`, net/ipv4/tcp.c).
fn reset(event: &SocketEvent) -> Option<Reset> {
    if event.kind != SocketEventKind::End {
        return None;
    }
    match (event.error, event.old_state) {
        (32 | 104 | 111, _) => Some(Reset::Received),
        (0, TcpState::Established | TcpState::CloseWait) if event.closer.is_some() => Some(Reset::Sent),
        _ => None,
    }
}

/// What an errno is called; 0 is none.
pub(crate) fn errno_text(errno: u16) -> Cow<'static, str> {
    match errno_name(errno) {
        Some(name) => name.into(),
        None if errno == 0 => "none".into(),
        None => format!("errno {errno}").into(),
    }
}

/// The errnos a TCP socket ends with (include/uapi/asm-generic/errno.h; the same on x86-64 and arm64).
fn errno_name(errno: u16) -> Option<&'static str> {
    Some(match errno {
        1 => "EPERM",
        12 => "ENOMEM",
        13 => "EACCES",
        22 => "EINVAL",
        32 => "EPIPE",
        99 => "EADDRNOTAVAIL",
        101 => "ENETUNREACH",
        103 => "ECONNABORTED",
        104 => "ECONNRESET",
        110 => "ETIMEDOUT",
        111 => "ECONNREFUSED",
        112 => "EHOSTDOWN",
        113 => "EHOSTUNREACH",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::{Comm, ProcessId, Role, Task, Totals, Tuple};
    use crate::ports::PortMap;
    use crate::time::BootNs;
    use crate::tracker::Bounds;

    const HOME: u32 = 7;

    fn opened(netns: u32, local: SocketAddr, remote: SocketAddr, comm: [u8; 16], error: u16) -> SocketEvent {
        SocketEvent {
            kind: SocketEventKind::Open,
            at: BootNs(2_000_000_000),
            sk: 1,
            birth: None,
            established: None,
            tuple: Tuple::new(netns, local, remote),
            role: Role::Client,
            old_state: TcpState::SynSent,
            new_state: TcpState::Established,
            opener: Some(Task { id: ProcessId { pid: 412, start_ticks: 1 }, uid: 0, comm: Comm(comm) }),
            closer: None,
            inode: None,
            error,
            totals: Totals { bytes_sent: u64::MAX, retransmits: 3, ..Totals::default() },
        }
    }

    /// The line's JSON after `room` was used for it.
    fn json(event: SocketEvent, room: &mut LineRoom) -> String {
        let mut tracker = Tracker::new(Bounds::default(), PortMap::default(), std::collections::BTreeMap::new());
        tracker.set_home(HOME);
        let anchor = WallAnchor { boot: BootNs(2_000_000_000), unix_ns: 1_795_293_667_123_000_000 };
        let line = event_line(&tracker, &Event::Socket(event), Effect::Opened, &anchor, room).unwrap();
        serde_json::to_string(&line).unwrap()
    }

    fn any_addr() -> impl Strategy<Value = SocketAddr> {
        (prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)], any::<u16>())
            .prop_map(|(ip, port)| SocketAddr::new(ip.to_canonical(), port))
    }

    #[test]
    fn a_line_is_what_it_always_was() {
        let comm = *b"py\"\xfft\x1b\\\0\0\0\0\0\0\0\0\0";
        let event = opened(8, "127.0.0.1:40222".parse().unwrap(), "127.0.0.1:5432".parse().unwrap(), comm, 1_000);
        let expected = concat!(
            r#"{"schema":"socklife.event/v1","event":"opened","at":"2026-11-21T20:41:07.123Z","#,
            r#""endpoint":"127.0.0.1:5432@netns:8","database":"postgres","role":"client","local":"127.0.0.1:40222","#,
            r#""remote":"127.0.0.1:5432","state":"ESTABLISHED","opener":{"pid":412,"comm":"py\"�t\u001b\\"},"#,
            r#""closer_pid":null,"age_ms":null,"bytes_sent":18446744073709551615,"bytes_received":0,"retransmits":3,"#,
            r#""consecutive_rtos":0,"error":"errno 1000","reset":null}"#,
        );
        assert_eq!(json(event, &mut LineRoom::default()), expected);
    }

    proptest! {
        #[test]
        fn who_reads_a_line_and_writes_it_gets_the_same_bytes(
            netns in 7_u32..9, local in any_addr(), remote in any_addr(), comm: [u8; 16], error in 0_u16..130,
        ) {
            let mut room = LineRoom::default();
            // What was there before leaves nothing behind.
            json(opened(8, "[2001:db8::1]:65535".parse().unwrap(), "[::1]:65535".parse().unwrap(), *b"0123456789abcdef", 999), &mut room);
            let text = json(opened(netns, local, remote, comm, error), &mut room);
            let read: EventLine = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(serde_json::to_string(&read).unwrap(), text);
            prop_assert_eq!(read.local, local.to_string());
            prop_assert_eq!(read.remote, remote.to_string());
            prop_assert_eq!(read.endpoint, Place::new(remote, netns, Some(HOME)).to_string());
            prop_assert_eq!(read.opener.unwrap().comm, Comm(comm).to_text().into_owned());
            prop_assert_eq!(read.error.is_some(), error != 0);
        }
    }
}
