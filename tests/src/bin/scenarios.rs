//! The incident lab: `cargo xtask scenarios` builds and starts it.

use std::process::ExitCode;

/// At the same time: they wait most of the time.
const LANES: u32 = 3;

fn main() -> ExitCode {
    socklife_tests::scenarios::run(&socklife_tests::scenarios::all(), LANES)
}
