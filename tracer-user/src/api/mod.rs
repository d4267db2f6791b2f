//! The control API: HTTP/1.1 with JSON on a unix socket, both ends of it.
//!
//! The server reaches the daemon through [`crate::daemon::handle::Handle`] alone; every client command reaches the
//! daemon through [`client`] alone.

pub mod client;
mod past;
mod peer;
mod routes;
pub mod scrape;
pub mod server;
pub mod socket;
mod stream;

/// Response header of `/v1/tail`: how many findings were open when the stream began.
pub const OPEN_FINDINGS_HEADER: &str = "socklife-open-findings";
/// The `schema` of the line that says how many lines a slow reader lost.
pub const LOST_SCHEMA: &str = "socklife.lost/v1";

/// The line a slow reader gets in place of what it lost.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct LostLine {
    /// [`LOST_SCHEMA`].
    pub schema: String,
    /// Lines lost here.
    pub lost: u64,
}

/// Body of every answer that is not 200.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ErrorBody {
    /// What is wrong and what to do.
    pub error: String,
}

/// Body of `/v1/health`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Health {
    /// `ok`: whoever can say anything else does not answer.
    pub status: String,
    /// Version of the daemon.
    pub version: String,
    /// Seconds since the API was opened.
    pub uptime_s: u64,
    /// How facts are gathered.
    pub mode: tracer_core::snapshot::Mode,
    /// What the counts are worth now.
    pub completeness: tracer_core::snapshot::Completeness,
    /// How the history on disk does; null if none is kept.
    pub history: Option<crate::history::StoreHealth>,
}
