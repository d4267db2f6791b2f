//! What a tail prints besides findings: socket events, and losses of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Loss, Opener};
use crate::event::Role;
use crate::tcp::TcpState;
use crate::time::WallTime;

/// One line of `tail --events --json`.
// Who reads it has texts of its own, who writes it borrows them. The schema is of both, so it does not speak of that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "EventLine")]
pub struct EventLine<T = String> {
    /// [`super::EVENT_SCHEMA`].
    pub schema: T,
    /// What happened.
    pub event: EventName,
    /// When.
    pub at: WallTime,
    /// Endpoint id.
    pub endpoint: T,
    /// Which database.
    pub database: T,
    /// This side.
    pub role: Role,
    /// This end.
    pub local: T,
    /// The other end.
    pub remote: T,
    /// TCP state after.
    pub state: TcpState,
    /// Who opened or accepted it.
    pub opener: Option<Opener<T>>,
    /// Pid that closed it; null if the peer or the kernel did, or if not seen.
    pub closer_pid: Option<u32>,
    /// Age at this moment in milliseconds, for `closed`; null if the opening was not seen.
    pub age_ms: Option<u64>,
    /// Bytes sent so far.
    pub bytes_sent: u64,
    /// Bytes received so far.
    pub bytes_received: u64,
    /// Segments sent again so far.
    pub retransmits: u32,
    /// Retransmission time-outs in a row.
    pub consecutive_rtos: u8,
    /// Name of the errno, if the kernel gave one.
    pub error: Option<T>,
    /// Who reset the connection, for `closed` and `failed`; null if nobody did.
    pub reset: Option<Reset>,
}

/// Who sent the RST that ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reset {
    /// This side: it was closed with data unread, or with SO_LINGER 0.
    Sent,
    /// The peer.
    Received,
}

/// The `schema` of [`LossLine`].
pub const LOSS_SCHEMA: &str = "socklife.loss/v1";

/// Events were lost: what every tail says when that happens, and first of all if it has happened before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LossLine {
    /// [`LOSS_SCHEMA`].
    pub schema: String,
    /// When it was noticed.
    pub at: WallTime,
    /// What was lost since the start.
    pub loss: Loss,
}

/// What an [`EventLine`] says happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventName {
    /// Established.
    Opened,
    /// A process accepted it.
    Accepted,
    /// The peer closed its side.
    PeerClosed,
    /// A process closed or shut down this side.
    Closing,
    /// Gone after having been open.
    Closed,
    /// Gone without ever having been open.
    Failed,
    /// A segment was sent again.
    Retransmit,
}
