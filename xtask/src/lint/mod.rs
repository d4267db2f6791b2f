//! `cargo xtask lint`: formatting, clippy, the architecture's rules, dependencies.
//!
//! Every check runs even where an earlier one failed: a developer wants the whole list at once.

mod architecture;
mod dependencies;
mod rules;

use anyhow::{Result, bail};

use crate::sh;

/// Gives a word for the list: `FINE`, or why it could not be run here.
type Check = fn() -> Result<&'static str>;

const FINE: &str = "fine";

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
            Ok(word) => println!("lint: {name}: {word}"),
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

fn formatting() -> Result<&'static str> {
    sh::run(sh::cargo().args(["fmt", "--all", "--check"]))?;
    Ok(FINE)
}

/// tracer-ebpf compiles for its own target only.
fn clippy() -> Result<&'static str> {
    let mut command = sh::cargo();
    command.args(["clippy", "--quiet", "--workspace", "--exclude", "tracer-ebpf", "--all-targets", "--locked"]);
    sh::run(command.args(["--", "--deny", "warnings"]))?;
    Ok(FINE)
}
