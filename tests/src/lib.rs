//! Harness of the live suites: a network namespace, a real PostgreSQL, clients, the real `socklife`, and what `ss`
//! and PostgreSQL say for comparison.
//!
//! It knows socklife only as a user does, by its command line and its JSON, and links none of its code.

pub mod client;
pub mod daemon;
pub mod flood;
pub mod look;
pub mod postgres;
pub mod program;
pub mod sandbox;
pub mod truth;
