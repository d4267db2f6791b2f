//! The path lab: an application, a router with a firewall, and a database, each in a network namespace of its own, with real
//! servers and clients. What goes wrong is between them, and one daemon sees both ends.
//!
//! Seconds to a verdict count from the fault: a path is only called dead after 5 s of silence.
//!
//! Scenarios are the incident lab's, and so are the table and the command line. They play with the defaults.

mod asking;
mod failing;
mod forgetting;
mod healthy;
mod here;
mod net;

use std::process::ExitCode;

use crate::scenarios::{self, Pace, Scenario, Stretched};

/// Each daemon sees every namespace, and with it what another scenario does.
const LANES: u32 = 1;

/// What they have in common: the defaults, and a look into all namespaces. Its recording has to show the same; the
/// kernel's time-outs are what they are, so that it is not stretched.
const ROW: Scenario = Scenario {
    pace: Pace::Default,
    settings: &["inventory.namespaces=true"],
    stretched: Stretched { times: 1, why: "the kernel's time-outs are as long as they are", hidden: &[], made: &[] },
    ..Scenario::PLAIN
};

/// The same with looks that notice sooner what no event tells.
const QUICK: Scenario = Scenario { settings: &["inventory.namespaces=true", "inventory.reconcile_s=2"], ..ROW };

/// The same with a network that forgets after 20 s, and looks that notice.
const FORGETFUL: Scenario = Scenario {
    settings: &["inventory.namespaces=true", "inventory.reconcile_s=2", "detect.silent_drop_risk.after_s=20"],
    stretched: Stretched {
        times: 1,
        why: ROW.stretched.why,
        hidden: &[("silent_drop_risk", "networks forget after minutes, which `after_s` says is 20 s here")],
        made: &[],
    },
    ..ROW
};

/// Every scenario.
#[must_use]
pub fn all() -> Vec<&'static Scenario> {
    failing::ALL.iter().chain(here::ALL).chain(asking::ALL).chain(forgetting::ALL).chain(healthy::ALL).collect()
}

/// Plays what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    scenarios::run(&all(), LANES)
}
