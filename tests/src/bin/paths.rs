//! The path lab: `cargo xtask paths` builds and starts it.

use std::process::ExitCode;

fn main() -> ExitCode {
    socklife_tests::pathlab::main()
}
