//! Where the emulator is: the system's, else the one that `setup` unpacked below target/.

use std::path::PathBuf;

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
