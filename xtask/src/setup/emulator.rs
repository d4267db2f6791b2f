//! The emulator of the guests: QEMU, installed like everything else, or unpacked below target/ where installing it would
//! take a package away (Debian's backport of qemu-utils excludes the stable release's QEMU, and the other way round).

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::packages::{self, Source};
use super::{already_there, doing};
use crate::sh;
use crate::vm::emulator::{find, unpacked};

const PACKAGE: &str = "qemu-system-x86";
/// Of what that depends on, all that a guest without devices does not need, and what excludes the backport.
const NOT_NEEDED: &[&str] = &["qemu-system-common", "ipxe-qemu"];

/// Installs or unpacks it, if it is not there.
pub fn install() -> Result<()> {
    if let Ok(program) = find()
        && runs(&program)
    {
        already_there(&program.display().to_string());
        return Ok(());
    }
    packages::update_lists()?;
    if packages::fits(PACKAGE) {
        return packages::install(&[PACKAGE]);
    }
    unpack()
}

fn unpack() -> Result<()> {
    let needed = packages::dependencies(PACKAGE)?;
    let needed: Vec<&str> = needed.iter().map(String::as_str).filter(|name| !NOT_NEEDED.contains(name)).collect();
    packages::install(&needed)?;
    let target = unpacked();
    doing(&format!("unpacking {PACKAGE} into {}: a package that is installed excludes it", target.display()));
    let unfinished = target.with_extension("unfinished");
    for dir in [&unfinished, &target] {
        if dir.try_exists()? {
            fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
        }
    }
    fs::create_dir_all(&unfinished)?;
    let package = Source::own().download(PACKAGE, &unfinished)?;
    packages::unpack(&package, &unfinished)?;
    fs::remove_file(&package)?;
    fs::rename(&unfinished, &target).context("cannot put the unpacked emulator in its place")?;
    let program = find()?;
    if !runs(&program) {
        bail!("{} does not start: `{} --version` says why", program.display(), program.display());
    }
    Ok(())
}

fn runs(program: &std::path::Path) -> bool {
    sh::output(Command::new(program).arg("--version")).is_ok_and(|said| said.contains("QEMU"))
}
