//! The incident lab: `cargo xtask scenarios` builds and starts it.

use std::process::ExitCode;

fn main() -> ExitCode {
    socklife_tests::scenarios::run(&socklife_tests::scenarios::all())
}
