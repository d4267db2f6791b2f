//! Which crate may depend on which, and what cargo-deny says of the rest.

use std::collections::BTreeSet;

use anyhow::{Result, bail};

use super::FINE;
use super::rules::ARROWS;
use crate::sh;

/// Holds the resolved dependencies, however far down, against the arrows of the design.
pub fn check_arrows() -> Result<&'static str> {
    let mut complaints = Vec::new();
    for (package, banned, reason) in ARROWS {
        let mut command = sh::cargo();
        command.args(["tree", "--locked", "--package", package, "--edges", "normal", "--prefix", "none"]);
        let tree = sh::output(command.args(["--format", "{p}"]))?;
        let names = package_names(&tree);
        complaints.extend(
            banned
                .iter()
                .filter(|name| names.contains(**name))
                .map(|name| format!("{package} depends on {name} (`cargo tree -p {package} -i {name}`): {reason}")),
        );
    }
    if complaints.is_empty() {
        return Ok(FINE);
    }
    bail!("\n  {}", complaints.join("\n  "))
}

/// "name v1.2.3 (*)", a line each.
fn package_names(tree: &str) -> BTreeSet<&str> {
    tree.lines().filter_map(|line| line.split_whitespace().next()).collect()
}

/// Licences, sources and bans. Advisories need the network and change by the day: `cargo deny check advisories`.
pub fn cargo_deny() -> Result<&'static str> {
    if sh::find_program("cargo-deny").is_none() {
        return Ok("not installed, so licences and sources were not checked (`cargo install cargo-deny`)");
    }
    sh::run(sh::cargo().args([
        "deny",
        "--all-features",
        "--log-level",
        "error",
        "check",
        "bans",
        "licenses",
        "sources",
    ]))?;
    Ok(FINE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_first_words() {
        let names = package_names("tracer-core v0.1.0 (/w)\njiff v0.2.43\nserde v1.0.229 (*)\n\n");
        assert_eq!(names, BTreeSet::from(["jiff", "serde", "tracer-core"]));
    }
}
