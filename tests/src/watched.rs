//! Where most tests begin: a PostgreSQL in a sandbox, and a socklife that watches it from before the first connection.

use anyhow::Result;
use serde_json::Value;

use crate::daemon::Daemon;
use crate::postgres::Postgres;
use crate::sandbox::Sandbox;
use crate::truth;

/// The address that clients of this PostgreSQL and snapshots know it by.
pub const DATABASE: &str = "127.0.0.1:5432";

/// A watched PostgreSQL. The daemon ends first, then the server, then the sandbox.
pub struct Watched {
    /// The daemon.
    pub daemon: Daemon,
    /// The server.
    pub postgres: Postgres,
    /// Where both live.
    pub sandbox: Sandbox,
}

impl Watched {
    /// Starts a server that takes 100 connections, and a daemon with these arguments.
    pub fn start(args: &[&str]) -> Result<Self> {
        Self::start_sized(100, args)
    }

    /// The same with a server of another size.
    pub fn start_sized(max_connections: u32, args: &[&str]) -> Result<Self> {
        let sandbox = Sandbox::enter()?;
        let postgres = Postgres::start(&sandbox, max_connections)?;
        let daemon = Daemon::start(&sandbox, args)?;
        Ok(Self { daemon, postgres, sandbox })
    }

    /// A snapshot that says what `ss` and PostgreSQL say: see [`truth::agree`].
    pub fn agree(&self) -> Result<Value> {
        truth::agree(&self.daemon, &self.postgres)
    }
}
