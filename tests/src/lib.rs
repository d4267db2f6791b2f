//! What the suites, the benchmark and the demo's programs share.
//!
//! The live suites' harness is a network namespace, a real PostgreSQL, clients, the real `socklife`, and what `ss` and
//! PostgreSQL say for comparison. It knows socklife only as a user does, by its command line and its JSON, and links
//! none of its code.

pub mod bench;
pub mod client;
pub mod daemon;
pub mod docs;
pub mod ending;
pub mod far;
pub mod flood;
pub mod look;
pub mod pace;
pub mod pathlab;
pub mod postgres;
pub mod program;
pub mod sandbox;
pub mod scenarios;
pub mod service;
pub mod session;
pub mod sockopts;
pub mod tmux;
pub mod truth;
pub mod watched;
pub mod wire;
