//! The emulator of the guests: QEMU, installed like everything else, or unpacked below target/ where installing it would
//! take a package away (Debian's backport of qemu-utils excludes the stable release's QEMU, and the other way round).

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use super::packages::{self, Source};
use super::{already_there, doing, make_directory};
use crate::vm::emulator::{find, unpacked, with_its_files};

const PACKAGE: &str = "qemu-system-x86";
/// Its modules, software emulation among them: of the very same build. This is what excludes the backport.
const MODULES: &str = "qemu-system-common";
/// What a guest without a network does not need.
const FIRMWARE: &str = "ipxe-qemu";

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
    let needed: Vec<&str> =
        needed.iter().map(String::as_str).filter(|name| ![MODULES, FIRMWARE].contains(name)).collect();
    packages::install(&needed)?;
    let target = unpacked();
    doing(&format!("unpacking {PACKAGE} into {}: a package that is installed excludes it", target.display()));
    make_directory(&target, |unfinished| {
        [PACKAGE, MODULES].iter().try_for_each(|name| Source::own().download_into(name, unfinished))
    })?;
    let program = find()?;
    if !runs(&program) {
        bail!("{} does not emulate: its messages are above", program.display());
    }
    Ok(())
}

/// Whether it starts and can emulate.
fn runs(program: &Path) -> bool {
    let mut command = Command::new(program);
    with_its_files(&mut command, program);
    // Without a machine there is nothing to run, but the emulation is loaded before the monitor reads its first command.
    command.args(["-machine", "none", "-accel", "tcg", "-display", "none", "-monitor", "stdio", "-nodefaults"]);
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    let Ok(mut child) = command.spawn() else { return false };
    let asked = child.stdin.take().is_some_and(|mut monitor| monitor.write_all(b"quit\n").is_ok());
    child.wait().is_ok_and(|status| asked && status.success())
}
