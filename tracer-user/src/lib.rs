//! Everything around the pure core: the kernel's events and tables come in here, users' commands are answered here.
//!
//! Only `capture` knows aya; only `inventory`, `process` and `doctor::host` read /proc; `cli` and `ui` reach the daemon
//! through `api::client` alone; only `probe` touches sockets of others, and only commands call it.

pub mod api;
pub mod capture;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod doctor;
pub mod export;
pub mod history;
pub mod inventory;
pub mod ndjson;
pub mod privileges;
pub mod probe;
pub mod process;
pub mod recording;
pub mod screen;
pub mod standalone;
pub mod telemetry;
pub mod ui;
