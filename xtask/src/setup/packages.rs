//! Debian packages: what is installed, what is to be had, installing it. The only place that calls apt and dpkg.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};

use super::{already_there, doing};
use crate::sh;

/// Mirrors are at times in the middle of their own update.
const UPDATE_ATTEMPTS: u32 = 3;

/// Debian's keys of every release, where the package debian-archive-keyring puts them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Prints each configured repository with who made it.
const INDEX_TARGETS: &[&str] =
    &["indextargets", "--format", "$(REPO_URI) $(ORIGIN) $(LABEL) $(COMPONENT)", "Created-By: Packages"];

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

/// Whether a package can be installed beside all that is installed.
pub fn fits(name: &str) -> bool {
    let mut command = Command::new("apt-get");
    command.args(["install", "--simulate", "--no-remove", "--no-install-recommends", "--quiet", name]);
    sh::output(&mut command).is_ok()
}

/// The packages that one cannot be used without; of alternatives the first.
pub fn dependencies(name: &str) -> Result<Vec<String>> {
    let said = sh::output(Command::new("apt-cache").args(["depends", "--important", name]).env("LC_ALL", "C"))?;
    Ok(depended_on(&said))
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

/// Runs `install` such that packages start none of their services: the tests start their own. What decides that is
/// Debian's `policy-rc.d`; one that is there already is left alone.
pub fn without_services(install: impl FnOnce() -> Result<()>) -> Result<()> {
    let policy = "/usr/sbin/policy-rc.d";
    if Path::new(policy).try_exists().context("cannot look for a policy-rc.d")? {
        return install();
    }
    let script = format!("printf '#!/bin/sh\nexit 101\n' > {policy} && chmod 755 {policy}");
    sh::run(sh::as_root("sh").args(["-c", &script]))?;
    let result = install();
    sh::run(sh::as_root("rm").args(["--force", policy]))?;
    result
}

/// Unpacks a package into a directory, installing nothing.
fn unpack(package: &Path, directory: &Path) -> Result<()> {
    sh::run(Command::new("dpkg").arg("--extract").arg(package).arg(directory))
}

/// Where packages come from: what apt is told beyond the machine's own settings.
pub struct Source {
    settings: Vec<String>,
}

impl Source {
    /// The machine's own repositories.
    pub fn own() -> Self {
        Self { settings: Vec::new() }
    }

    /// Another Debian release on the mirror this machine uses, with lists of its own in `work`: the machine's stay as
    /// they are.
    pub fn of_suite(suite: &str, work: &Path) -> Result<Self> {
        let mirror = own_mirror()?;
        let parts = work.join("sources");
        for dir in ["sources", "lists/partial", "cache/archives/partial"] {
            let dir = work.join(dir);
            fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        let mut entry = format!("Types: deb\nURIs: {mirror}\nSuites: {suite}\nComponents: main\nTargets: Packages\n");
        if Path::new(KEYRING).is_file() {
            entry.push_str(&format!("Signed-By: {KEYRING}\n"));
        }
        fs::write(parts.join("other.sources"), entry).context("cannot write a list of sources")?;
        let settings = [
            ("Dir::Etc::SourceList", PathBuf::from("/dev/null")),
            ("Dir::Etc::SourceParts", parts),
            ("Dir::State::Lists", work.join("lists")),
            ("Dir::Cache", work.join("cache")),
        ];
        let own = Self { settings: settings.map(|(key, value)| format!("{key}={}", value.display())).into() };
        doing(&format!("apt-get update for Debian's {suite} alone, below target/"));
        sh::run(own.tell(apt_get()).args(["update", "--quiet"]))?;
        Ok(own)
    }

    /// Names of packages that begin so.
    pub fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let said = sh::output(self.tell(Command::new("apt-cache")).args(["pkgnames", prefix]))?;
        Ok(said.lines().map(str::to_owned).collect())
    }

    /// Fetches a package and unpacks it into a directory, installing nothing.
    pub fn download_into(&self, name: &str, directory: &Path) -> Result<()> {
        let package = self.download(name, directory)?;
        unpack(&package, directory)?;
        fs::remove_file(&package).with_context(|| format!("cannot remove {}", package.display()))
    }

    /// The package's file.
    fn download(&self, name: &str, directory: &Path) -> Result<PathBuf> {
        // Without a user of apt's own, who could not write there.
        let mut command = self.tell(apt_get());
        sh::run(command.args(["-o", "APT::Sandbox::User=root", "download", name]).current_dir(directory))?;
        let file = fs::read_dir(directory)?.find_map(|entry| {
            let path = entry.ok()?.path();
            path.extension().is_some_and(|extension| extension == "deb").then_some(path)
        });
        file.with_context(|| format!("apt-get download left no package {name}"))
    }

    fn tell(&self, mut command: Command) -> Command {
        self.settings.iter().for_each(|setting| {
            command.args(["-o", setting]);
        });
        command
    }
}

/// Where this machine has Debian's packages from.
pub fn own_mirror() -> Result<String> {
    let targets = sh::output(Command::new("apt-get").args(INDEX_TARGETS))?;
    let found = mirror(&targets).context("no repository of Debian's is configured on this machine")?;
    Ok(found.to_owned())
}

/// The first repository of Debian's own in what [`INDEX_TARGETS`] prints. Security updates lie elsewhere, and have
/// another label.
fn mirror(targets: &str) -> Option<&str> {
    targets.lines().find_map(|line| line.strip_suffix(" Debian Debian main"))
}

fn is_installed(name: &str) -> bool {
    sh::output(Command::new("dpkg-query").args(["--show", "--showformat=${db:Status-Status}", name]))
        .is_ok_and(|status| status == "installed")
}

/// In what `apt-cache depends` says; a virtual package stands in angle brackets.
fn depended_on(said: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut is_alternative = false;
    for line in said.lines() {
        let line = line.trim();
        let first = line.strip_prefix("|Depends: ");
        let name = first.or_else(|| line.strip_prefix("Depends: "));
        if let Some(name) = name.filter(|name| !is_alternative && !name.starts_with('<')) {
            names.push(name.to_owned());
        }
        if name.is_some() {
            is_alternative = first.is_some();
        }
    }
    names
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
    fn the_mirror_is_debians_and_not_that_of_security_updates() {
        let targets = "https://one.example/node nodistro . main\nhttps://two.example/security/ Debian Debian-Security main\n\
                       https://two.example/debian/ Debian Debian main\nhttps://three.example/debian/ Debian Debian main";
        assert_eq!(mirror(targets), Some("https://two.example/debian/"));
        assert_eq!(mirror("https://one.example/ubuntu Ubuntu Ubuntu main"), None);
    }

    #[test]
    fn of_alternatives_the_first_is_taken() {
        let said = "qemu\n  Depends: libaio1\n |Depends: one\n |Depends: two\n  Depends: three\n    real\n  Depends: <virtual>\n  \
                    Depends: seabios\n";
        assert_eq!(depended_on(said), ["libaio1", "one", "seabios"]);
    }

    #[test]
    fn a_package_without_candidate_is_not_to_be_had() {
        assert!(has_candidate("rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1\n"));
        assert!(!has_candidate("rustc-web:\n  Installed: (none)\n  Candidate: (none)\n"));
        assert!(!has_candidate(""));
    }
}
