//! One closed connection as it is kept.

use tracer_core::event::{Event, Role};
use tracer_core::snapshot::{EventLine, EventName, Reset};
use tracer_core::tcp::TcpState;
use tracer_core::time::WallAnchor;
use tracer_core::tracker::{Effect, LineRoom, Tracker, event_line};

/// One closed connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// When it was established; `None` if that was not seen.
    pub opened_ms: Option<i64>,
    /// When it was gone.
    pub closed_ms: i64,
    /// Endpoint id.
    pub endpoint: String,
    /// Which database.
    pub database: String,
    /// This side.
    pub role: Role,
    /// Inode number of its network namespace.
    pub netns: u32,
    /// This end.
    pub local: String,
    /// The other end.
    pub remote: String,
    /// Who opened or accepted it: pid, start and name.
    pub opener: Option<(u32, i64, String)>,
    /// Who closed it.
    pub closer_pid: Option<u32>,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Segments sent again.
    pub retransmits: u32,
    /// How it came to its end: `process`, `peer`, `reset_sent`, `reset_received`, `error` or `unknown`.
    pub why: &'static str,
    /// Name of the errno, if the kernel gave one.
    pub error: Option<String>,
}

impl Closed {
    /// Of the event of an end; `None` for any other.
    #[must_use]
    pub fn of(
        tracker: &Tracker,
        event: &Event,
        effect: Effect,
        anchor: &WallAnchor,
        room: &mut LineRoom,
    ) -> Option<Self> {
        let (Event::Socket(end), Effect::Closed { opener, .. }) = (event, effect) else { return None };
        let line = event_line(tracker, event, effect, anchor, room)?;
        if line.event != EventName::Closed {
            return None;
        }
        let opener = opener.map(|opener| opener.id).or(end.opener.map(|task| task.id));
        let opener = line.opener.as_ref().zip(opener);
        Some(Self {
            opened_ms: line.age_ms.map(|age| line.at.unix_ms.saturating_sub_unsigned(age)),
            closed_ms: line.at.unix_ms,
            endpoint: line.endpoint.to_owned(),
            database: line.database.to_owned(),
            role: line.role,
            netns: end.tuple.netns(),
            local: line.local.to_owned(),
            remote: line.remote.to_owned(),
            opener: opener.map(|(who, id)| (who.pid, anchor.wall(id.start()).unix_ms, who.comm.to_owned())),
            closer_pid: line.closer_pid,
            bytes_sent: line.bytes_sent,
            bytes_received: line.bytes_received,
            retransmits: line.retransmits,
            why: why(&line, end.old_state),
            error: line.error.map(str::to_owned),
        })
    }
}

fn why(line: &EventLine<&str>, old_state: TcpState) -> &'static str {
    match (line.reset, line.error, old_state) {
        (Some(Reset::Sent), ..) => "reset_sent",
        (Some(Reset::Received), ..) => "reset_received",
        (None, Some(_), _) => "error",
        (None, None, TcpState::CloseWait | TcpState::LastAck) => "peer",
        _ if line.closer_pid.is_some() => "process",
        _ => "unknown",
    }
}
