//! Detectors over scenes made of events: each fires, stays silent for its look-alikes, clears without flapping, and
//! survives loss and a restart.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a scene that cannot be built fails its test")]

mod client_per_request;
mod close_wait_leak;
mod configured;
mod connect_failures;
mod connection_leak;
mod duplicate_launchers;
mod half_open_at_database;
mod headroom_forecast;
mod healthy_pools;
mod idle_hold;
mod inferred_limit;
mod limit_pressure;
mod orphaned_connection;
mod oversized_pool;
mod peer_unreachable;
mod pool_sprawl;
mod restart;
mod restart_drop;
mod scene;
mod silent_drop_risk;
mod unused_connection;
