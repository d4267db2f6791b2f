//! The path lab: an application, a router with a firewall, and a database, each in a network namespace of its own, with real
//! servers and clients. What goes wrong is between them, and one daemon sees both ends.
//!
//! Seconds to a verdict count from the fault: a path is only called dead after 5 s of silence.
//!
//! Scenarios are the incident lab's, and so are the table and the command line. Defaults apply: what is compressed for
//! the incidents is set back here.

mod failing;
mod forgetting;
mod healthy;
mod net;

use std::process::ExitCode;

use crate::scenarios::{self, Scenario};

/// The defaults that the incident lab compresses, and the look into all namespaces.
const PLAIN: &[&str] = &[
    "detect.window_s=10",
    "inventory.reconcile_s=10",
    "inventory.namespaces=true",
    "detect.idle_hold.after_s=300",
    "detect.unused_connection.after_s=120",
    "detect.close_wait_leak.after_s=60",
];

/// The same with a network that forgets after 20 s, and looks that notice.
const FORGETFUL: &[&str] = &[
    "detect.window_s=10",
    "inventory.reconcile_s=2",
    "inventory.namespaces=true",
    "detect.idle_hold.after_s=300",
    "detect.unused_connection.after_s=120",
    "detect.close_wait_leak.after_s=60",
    "detect.silent_drop_risk.after_s=20",
];

/// Every scenario.
#[must_use]
pub fn all() -> Vec<&'static Scenario> {
    failing::ALL.iter().chain(forgetting::ALL).chain(healthy::ALL).collect()
}

/// Plays what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    scenarios::run(&all())
}
