//! Debian packages: what is installed, what is to be had, installing it. The only place that calls apt and dpkg.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};

use super::{already_there, doing};
use crate::sh;

/// Mirrors are at times in the middle of their own update.
const UPDATE_ATTEMPTS: u32 = 3;

static LISTS_ARE_FRESH: AtomicBool = AtomicBool::new(false);

/// Installs those that are missing; never removes one.
pub fn install(names: &[&str]) -> Result<()> {
    let (present, missing): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| is_installed(name));
    if !present.is_empty() {
        already_there(&present.join(" "));
    }
    if missing.is_empty() {
        return Ok(());
    }
    update_lists()?;
    doing(&format!("apt-get install {}", missing.join(" ")));
    let mut command = apt_get();
    // Debian's rustc-web excludes Debian's rustc: a machine that has that one keeps it, and hears why.
    command.args(["install", "--yes", "--quiet", "--no-remove", "--no-install-recommends"]).args(&missing);
    sh::run(&mut command).with_context(|| {
        format!(
            "cannot install {} (a package that apt would have to remove for it is removed by nobody but you)",
            missing.join(" ")
        )
    })
}

/// Fetches the package lists, once in a run.
pub fn update_lists() -> Result<()> {
    if LISTS_ARE_FRESH.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    doing("apt-get update");
    let mut attempt = 1;
    loop {
        match sh::run(apt_get().args(["update", "--quiet"])) {
            Err(error) if attempt < UPDATE_ATTEMPTS => {
                println!("setup: {error:#}: attempt {} of {UPDATE_ATTEMPTS}", attempt + 1);
                attempt += 1;
            }
            result => return result.context("cannot fetch the package lists"),
        }
    }
}

/// Those of `names` that the configured repositories do not offer.
pub fn unavailable<'a>(names: &[&'a str]) -> Result<Vec<&'a str>> {
    let mut absent = Vec::new();
    for name in names {
        let policy = sh::output(Command::new("apt-cache").args(["policy", name]).env("LC_ALL", "C"))?;
        if !has_candidate(&policy) {
            absent.push(*name);
        }
    }
    Ok(absent)
}

/// Runs `install` such that PostgreSQL's packages create and start no server of their own: the tests start theirs,
/// and a developer's machine gets none it did not ask for. The setting is gone afterwards.
pub fn without_database_cluster(install: impl FnOnce() -> Result<()>) -> Result<()> {
    if is_installed("postgresql") {
        return install();
    }
    let directory = "/etc/postgresql-common/createcluster.d";
    let setting = format!("{directory}/socklife-setup.conf");
    sh::run(sh::as_root("mkdir").args(["--parents", directory]))?;
    let script = format!("echo \"create_main_cluster = off\" > {setting}");
    sh::run(sh::as_root("sh").args(["-c", &script]))?;
    let result = install();
    sh::run(sh::as_root("rm").args(["--force", &setting]))?;
    result
}

fn is_installed(name: &str) -> bool {
    sh::output(Command::new("dpkg-query").args(["--show", "--showformat=${db:Status-Status}", name]))
        .is_ok_and(|status| status == "installed")
}

fn has_candidate(policy: &str) -> bool {
    policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate:"))
        .is_some_and(|candidate| candidate.trim() != "(none)")
}

fn apt_get() -> Command {
    // Through env, because sudo does not pass our environment on.
    let mut command = sh::as_root("env");
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "Acquire::Retries=3"]);
    command.args(["-o", "DPkg::Lock::Timeout=300"]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_without_candidate_is_not_to_be_had() {
        assert!(has_candidate("rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1\n"));
        assert!(!has_candidate("rustc-web:\n  Installed: (none)\n  Candidate: (none)\n"));
        assert!(!has_candidate(""));
    }
}
