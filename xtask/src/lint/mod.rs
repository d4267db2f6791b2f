//! `cargo xtask lint`: formatting, clippy, the architecture's rules, dependencies.
//!
//! Every check runs even where an earlier one failed: a developer wants the whole list at once.

mod architecture;
mod dependencies;
mod rules;

use anyhow::{Result, bail};

use crate::sh;

type Check = fn() -> Result<()>;

/// Runs every check; the error counts those that failed, each of which has said why.
pub fn lint() -> Result<()> {
    let checks: [(&str, Check); 5] = [
        ("formatting", formatting),
        ("clippy", clippy),
        ("architecture", architecture::check),
        ("dependencies", dependencies::check_arrows),
        ("cargo-deny", dependencies::cargo_deny),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        match check() {
            Ok(()) => println!("lint: {name}: fine"),
            Err(error) => {
                eprintln!("lint: {name}: {error:#}");
                failed.push(name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("lint failed: {}", failed.join(", "));
    }
    Ok(())
}

fn formatting() -> Result<()> {
    sh::run(sh::cargo().args(["fmt", "--all", "--check"]))
}

/// tracer-ebpf compiles for its own target only.
fn clippy() -> Result<()> {
    let mut command = sh::cargo();
    command.args(["clippy", "--quiet", "--workspace", "--exclude", "tracer-ebpf", "--all-targets", "--locked"]);
    sh::run(command.args(["--", "--deny", "warnings"]))
}
