//! The binary `socklife`. Everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    tracer_user::cli::main()
}
