//! `cargo xtask btf-fixture`: a kernel's description of its own types, cut down to what offsets are resolved from.
//!
//! The whole is megabytes; what a unit test needs of it is a few structures. `blob` reads and writes the format, `cut`
//! chooses, `image` finds the description in a kernel.

mod blob;
mod cut;
mod image;

use std::path::PathBuf;

use anyhow::{Context, Result};

/// Flags of the command.
#[derive(clap::Args)]
pub struct Options {
    /// A kernel (vmlinuz, Image, vmlinux) or what it has in /sys/kernel/btf/vmlinux
    #[arg(value_name = "KERNEL")]
    kernel: PathBuf,
    /// Where to write what is left of it
    #[arg(value_name = "OUT")]
    out: PathBuf,
    /// Write it whole
    #[arg(long)]
    whole: bool,
}

/// Finds, cuts, writes.
pub fn fixture(options: &Options) -> Result<()> {
    let found = image::find(&options.kernel)?;
    let bytes = if options.whole {
        found
    } else {
        let types = blob::read(&found).context("the kernel's description of its types")?;
        blob::write(&cut::cut(&types)?)?
    };
    std::fs::write(&options.out, &bytes).with_context(|| format!("cannot write {}", options.out.display()))?;
    println!("{}: {} bytes", options.out.display(), bytes.len());
    Ok(())
}
