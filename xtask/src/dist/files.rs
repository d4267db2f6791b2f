//! Which files a package holds, and where each goes. Data, and the little that has to be generated first.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::sh;

/// A file of the repository and its place below `/`.
pub struct Placed {
    /// From the repository's root.
    pub source: &'static str,
    /// From the package's root.
    pub target: &'static str,
    /// Permissions.
    pub mode: u32,
}

const fn file(source: &'static str, target: &'static str) -> Placed {
    Placed { source, target, mode: 0o644 }
}

/// What a system package holds besides the program and what is generated.
pub const SYSTEM: &[Placed] = &[
    Placed { source: "packaging/socklife.toml", target: "etc/socklife/socklife.toml", mode: 0o640 },
    file("packaging/socklife.service", "usr/lib/systemd/system/socklife.service"),
    file("packaging/socklife.sysusers", "usr/lib/sysusers.d/socklife.conf"),
    file("packaging/debian/copyright", "usr/share/doc/socklife/copyright"),
    file("packaging/prometheus/socklife.rules.yml", "usr/share/socklife/prometheus/socklife.rules.yml"),
    file("packaging/grafana/socklife.json", "usr/share/socklife/grafana/socklife.json"),
    file("LICENSE-MIT", "usr/share/doc/socklife/LICENSE-MIT"),
    file("LICENSE-APACHE", "usr/share/doc/socklife/LICENSE-APACHE"),
    file("README.md", "usr/share/doc/socklife/README.md"),
    file("CHANGELOG.md", "usr/share/doc/socklife/CHANGELOG.md"),
];

/// Directories that a package holds whole: from, to.
pub const TREES: &[(&str, &str)] = &[("docs", "usr/share/doc/socklife/docs")];

/// What is written for maintainers, not for users.
const NOT_SHIPPED: &[&str] = &["plan.md"];

/// Manual pages and completions, written by the program itself.
pub struct Generated {
    /// A directory of manual pages.
    pub man: PathBuf,
    /// Completions: file, and its place in a system package.
    pub completions: Vec<(PathBuf, &'static str)>,
}

/// Shell, and where the distribution's packages put what it completes with.
const SHELLS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/socklife"),
    ("zsh", "usr/share/zsh/vendor-completions/_socklife"),
    ("fish", "usr/share/fish/vendor_completions.d/socklife.fish"),
];

/// Has the program write what it knows of itself.
pub fn generate(socklife: &Path, directory: &Path) -> Result<Generated> {
    let man = directory.join("man");
    fs::create_dir_all(&man).with_context(|| format!("cannot make {}", man.display()))?;
    sh::run(Command::new(socklife).args(["man", "--dir"]).arg(&man))?;
    let mut completions = Vec::new();
    for (shell, target) in SHELLS {
        let path = directory.join(format!("socklife.{shell}"));
        let out = fs::File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        sh::run(Command::new(socklife).args(["completions", shell]).stdin(Stdio::null()).stdout(out))?;
        completions.push((path, target));
    }
    Ok(Generated { man, completions })
}

/// Copies a file to its place, making the directories on the way.
pub fn place(source: &Path, target: &Path, mode: u32) -> Result<()> {
    if let Some(parent) = target.parent() {
        make_directories(parent)?;
    }
    fs::copy(source, target).with_context(|| format!("cannot copy {} to {}", source.display(), target.display()))?;
    set_mode(target, mode)
}

/// Copies a directory with what is in it, but for [`NOT_SHIPPED`].
pub fn place_tree(source: &Path, target: &Path) -> Result<()> {
    for entry in fs::read_dir(source).with_context(|| format!("cannot read {}", source.display()))? {
        let entry = entry?;
        let (from, to) = (entry.path(), target.join(entry.file_name()));
        if NOT_SHIPPED.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        if entry.file_type()?.is_dir() { place_tree(&from, &to)? } else { place(&from, &to, 0o644)? }
    }
    Ok(())
}

/// Whatever the umask, a package's directories can be entered by all.
pub fn make_directories(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_directories(parent)?;
    }
    fs::create_dir(path).with_context(|| format!("cannot make {}", path.display()))?;
    set_mode(path, 0o755)
}

/// Sets the permissions.
pub fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the mode of {}", path.display()))
}
