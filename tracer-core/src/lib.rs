//! The pure part of socklife: what sockets, processes and endpoints are, how events change them, and which verdicts
//! follow.
//!
//! No IO, no clock, no eBPF, no async runtime, no `unsafe`: time comes in as an argument, facts come in as values.
//! The same input gives the same output.
#![forbid(unsafe_code)]

pub mod decode;
pub mod detect;
pub mod diff;
pub mod endpoint;
pub mod event;
pub mod finding;
pub mod glob;
pub mod history;
pub mod identity;
pub mod inbound;
pub mod inventory;
pub mod memory;
pub mod ports;
pub mod process;
pub mod recording;
mod ring;
pub mod rules;
pub mod series;
pub mod servers;
pub mod setup;
pub mod snapshot;
pub mod socket;
pub mod state;
pub mod tcp;
pub mod time;
pub mod tracker;
