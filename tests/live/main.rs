//! The live suite: the real socklife on this kernel, against a real PostgreSQL with real psycopg clients.
//!
//! Needs root and never skips. `cargo xtask test` builds socklife first and runs it; by hand, `cargo build --release -p
//! tracer-user && cargo test -p socklife-tests --test live`. Every expected number comes from what the test itself did,
//! from `ss` or from PostgreSQL, never from socklife.

mod abuse;
mod bench;
mod connects;
mod control;
mod counts;
mod daemon_life;
mod docs;
mod events;
mod faults;
mod findings;
mod history;
mod holders;
mod hooks;
mod hostile;
mod lifecycle;
mod loss;
mod namespaces;
mod poll;
mod privileges;
mod prometheus;
mod recognized;
mod recording;
mod reload;
mod requests;
mod restart;
mod service;
mod top;
mod verify;
