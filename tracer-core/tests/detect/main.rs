//! Detectors over scenes made of events: each fires, stays silent for its look-alikes, clears without flapping, and
//! survives loss and a restart.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a scene that cannot be built fails its test")]

mod close_wait_leak;
mod duplicate_launchers;
mod healthy_pools;
mod idle_hold;
mod limit_pressure;
mod orphaned_connection;
mod scene;
mod unused_connection;
