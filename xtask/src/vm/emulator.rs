//! Where the emulator is: the system's, else the one that `setup` unpacked below target/.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::sh;

/// Software emulation: it works in a virtual machine without nested virtualisation, too.
pub const QEMU: &str = "qemu-system-x86_64";

/// Where `setup` unpacks it if it cannot be installed.
pub fn unpacked() -> PathBuf {
    sh::root().join("target/vm/qemu")
}

/// The program.
pub fn find() -> Result<PathBuf> {
    let own = unpacked().join("usr/bin").join(QEMU);
    sh::find_program(QEMU)
        .or_else(|| own.is_file().then_some(own))
        .with_context(|| format!("`{QEMU}` is missing: `cargo xtask setup` brings it"))
}

/// Where firmware is, which is installed in either case.
const FIRMWARE: [&str; 2] = ["/usr/share/qemu", "/usr/share/seabios"];

/// Tells it where its modules and firmware are, if it is the unpacked one: it looks for the former where the package
/// would install them, and for the latter near itself.
pub fn with_its_files(command: &mut Command, program: &Path) {
    let unpacked = unpacked();
    if program.starts_with(&unpacked) {
        // Debian's directory for x86-64, the only machine these guests are started on.
        command.env("QEMU_MODULE_DIR", unpacked.join("usr/lib/x86_64-linux-gnu/qemu"));
        command.args(FIRMWARE.iter().flat_map(|directory| ["-L", directory]));
    }
}
