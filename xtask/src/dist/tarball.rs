//! The archive for systems without dpkg: one directory, to be copied from by hand or by a package of another format.
//!
//! The program needs the C library of the machine it was built on, or a newer one, and nothing else.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Release;
use super::files::{self, Generated};
use crate::sh;

/// From the repository to the archive's directory.
const FILES: &[(&str, &str)] = &[
    ("packaging/socklife.toml", "socklife.toml"),
    ("packaging/socklife.service", "socklife.service"),
    ("packaging/socklife.sysusers", "socklife.sysusers"),
    ("packaging/prometheus/socklife.rules.yml", "prometheus/socklife.rules.yml"),
    ("packaging/grafana/socklife.json", "grafana/socklife.json"),
    ("LICENSE-MIT", "LICENSE-MIT"),
    ("LICENSE-APACHE", "LICENSE-APACHE"),
    ("README.md", "README.md"),
    ("CHANGELOG.md", "CHANGELOG.md"),
];

/// Builds `socklife-VERSION-ARCH-linux.tar.gz` in `out`.
pub fn build(release: &Release, generated: &Generated, work: &Path, out: &Path) -> Result<PathBuf> {
    let name = format!("socklife-{}-{}-linux", release.version, std::env::consts::ARCH);
    let parent = work.join("tarball");
    let tree = parent.join(&name);
    files::place(&release.socklife, &tree.join("socklife"), 0o755)?;
    for (source, target) in FILES {
        files::place(&sh::root().join(source), &tree.join(target), 0o644)?;
    }
    files::place_tree(&sh::root().join("docs"), &tree.join("docs"))?;
    files::place_tree(&generated.man, &tree.join("man"))?;
    for (path, _) in &generated.completions {
        let file = path.file_name().context("a completion without a name")?;
        files::place(path, &tree.join("completions").join(file), 0o644)?;
    }
    let path = out.join(format!("{name}.tar.gz"));
    let mut command = Command::new("tar");
    command.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--format=gnu"]);
    command.arg(format!("--mtime=@{}", release.epoch)).args(["--use-compress-program", "gzip -9 --no-name"]);
    sh::run(command.arg("--create").arg("--file").arg(&path).arg("--directory").arg(&parent).arg(&name))?;
    Ok(path)
}
