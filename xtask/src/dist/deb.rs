//! The package for Debian and Ubuntu, built by dpkg-deb from a tree.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Release;
use super::files::{self, Generated, SYSTEM, TREES};
use crate::sh;

/// Run by dpkg around unpacking and removal.
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

const DESCRIPTION: &str = "\
Description: names the process that leaks database connections
 socklife watches the TCP connections between a host and its databases from
 inside the kernel (eBPF), and names the process that holds too many of them,
 since when, and why. It needs nothing from the applications.
";

/// Builds `socklife_VERSION_ARCH.deb` in `out`.
pub fn build(release: &Release, generated: &Generated, work: &Path, out: &Path) -> Result<PathBuf> {
    let tree = work.join("deb");
    lay_out(release, generated, &tree)?;
    let arch = sh::output(Command::new("dpkg").arg("--print-architecture"))?;
    write_control(release, &arch, work, &tree)?;
    let path = out.join(format!("socklife_{}_{arch}.deb", release.version));
    let mut command = Command::new("dpkg-deb");
    command.args(["--root-owner-group", "-Zxz", "--build"]).arg(&tree).arg(&path);
    release.dated(&mut command);
    sh::output(&mut command).context("dpkg-deb did not build the package")?;
    Ok(path)
}

fn lay_out(release: &Release, generated: &Generated, tree: &Path) -> Result<()> {
    files::place(&release.socklife, &tree.join("usr/bin/socklife"), 0o755)?;
    for placed in SYSTEM {
        files::place(&sh::root().join(placed.source), &tree.join(placed.target), placed.mode)?;
    }
    for (source, target) in TREES {
        files::place_tree(&sh::root().join(source), &tree.join(target))?;
    }
    files::place_tree(&generated.man, &tree.join("usr/share/man/man1"))?;
    for (path, target) in &generated.completions {
        files::place(path, &tree.join(target), 0o644)?;
    }
    for directory in ["usr/share/man/man1", "usr/share/doc/socklife"] {
        compress(&tree.join(directory))?;
    }
    Ok(())
}

/// Debian's policy wants manual pages and change logs compressed (12.3, 12.7).
fn compress(directory: &Path) -> Result<()> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))? {
        let path = entry?.path();
        let is_page = path.extension().is_some_and(|extension| extension == "1");
        if is_page || path.file_name().is_some_and(|name| name == "CHANGELOG.md") {
            paths.push(path);
        }
    }
    // Without a name and a time inside: the same text gives the same bytes.
    sh::run(Command::new("gzip").args(["-9", "--no-name", "--force"]).args(&paths))
}

fn write_control(release: &Release, arch: &str, work: &Path, tree: &Path) -> Result<()> {
    let control = tree.join("DEBIAN");
    files::make_directories(&control)?;
    let libraries = libraries(&release.socklife, work)?;
    let size_kib =
        sh::output(Command::new("du").args(["--summarize", "--apparent-size", "--block-size=1024"]).arg(tree))?;
    let size_kib = size_kib.split_whitespace().next().unwrap_or("0");
    let text = format!(
        "Package: socklife\nVersion: {}\nArchitecture: {arch}\nMaintainer: the socklife authors <socklife@localhost>\n\
         Section: net\nPriority: optional\nInstalled-Size: {size_kib}\nDepends: {libraries}, passwd, init-system-helpers\n\
         {DESCRIPTION}",
        release.version
    );
    fs::write(control.join("control"), text).context("cannot write the package's control file")?;
    fs::write(control.join("conffiles"), "/etc/socklife/socklife.toml\n").context("cannot write conffiles")?;
    for script in SCRIPTS {
        files::place(&sh::root().join("packaging/debian").join(script), &control.join(script), 0o755)?;
    }
    for file in ["control", "conffiles"] {
        files::set_mode(&control.join(file), 0o644)?;
    }
    Ok(())
}

/// The packages of the libraries that the program loads, with the versions whose symbols it uses.
fn libraries(socklife: &Path, work: &Path) -> Result<String> {
    let source = work.join("shlibs");
    fs::create_dir_all(source.join("debian"))?;
    // It reads the name of the package there and nothing else.
    fs::write(source.join("debian/control"), "Source: socklife\n\nPackage: socklife\nArchitecture: any\n")?;
    let mut command = Command::new("dpkg-shlibdeps");
    let said = sh::output(command.args(["-O", "-e"]).arg(socklife).current_dir(&source))
        .context("dpkg-shlibdeps is in the package dpkg-dev: `cargo xtask setup` brings it")?;
    let found = said.lines().find_map(|line| line.strip_prefix("shlibs:Depends="));
    found.map(str::to_owned).context("dpkg-shlibdeps named no library")
}
