//! `cargo xtask build-ebpf`: the kernel programs, from source to the object that is committed.
//!
//! The object is committed so that a user builds with stable Rust alone; `--check` is what makes it trustworthy: same
//! source and same compiler give the same bytes, wherever the repository lies. `toolchain` knows which compiler.

mod toolchain;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::sh;
use toolchain::{Kind, Toolchain};

pub use toolchain::{BPF_LINKER, LLVM_MAJOR, bpf_linker_version, debian_rust_missing, nightly_missing};

const TARGET: &str = "bpfel-unknown-none";
const OBJECT_DIR: &str = "tracer-ebpf/object";
const OBJECT: &str = "tracer-ebpf.bpf.o";
const RECORD: &str = "BUILD.txt";

/// Flags of the command.
#[derive(clap::Args)]
pub struct Options {
    /// Build elsewhere and fail if the committed object is not what the source gives
    #[arg(long)]
    pub check: bool,
}

/// Builds the object and puts it, or compares it with, the committed one.
pub fn build_ebpf(options: &Options) -> Result<()> {
    let toolchain = Toolchain::find()?;
    let directory = sh::root().join(OBJECT_DIR);
    if options.check { check(&toolchain, &directory) } else { write(&toolchain, &directory) }
}

fn write(toolchain: &Toolchain, directory: &Path) -> Result<()> {
    let object = build(toolchain, false)?;
    std::fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let changed = std::fs::read(directory.join(OBJECT)).ok().as_deref() != Some(object.as_slice());
    replace(&directory.join(OBJECT), &object)?;
    replace(&directory.join(RECORD), toolchain.versions.to_text().as_bytes())?;
    let verdict = if changed { "new" } else { "unchanged" };
    println!("{OBJECT_DIR}/{OBJECT}: {} bytes, {verdict}, built by {}", object.len(), toolchain.versions.rustc);
    Ok(())
}

fn check(toolchain: &Toolchain, directory: &Path) -> Result<()> {
    let committed = std::fs::read(directory.join(OBJECT))
        .with_context(|| format!("no object at {OBJECT_DIR}/{OBJECT}: run `cargo xtask build-ebpf` and commit it"))?;
    let record = std::fs::read_to_string(directory.join(RECORD)).with_context(|| {
        format!("{OBJECT_DIR}/{RECORD} does not say what built the object: run `cargo xtask build-ebpf` and commit it")
    })?;
    let differences = toolchain.versions.differences(&record);
    if !differences.is_empty() {
        bail!(
            "cannot compare: the committed object was built by another toolchain ({}). Install the recorded one, or \
             rebuild with `cargo xtask build-ebpf` and commit object and {RECORD}",
            differences.join("; ")
        );
    }
    let built = build(toolchain, true)?;
    if let Some(difference) = first_difference(&committed, &built) {
        bail!(
            "{OBJECT_DIR}/{OBJECT} is not what the source gives ({difference}): run `cargo xtask build-ebpf` and \
             commit the object"
        );
    }
    println!("{OBJECT_DIR}/{OBJECT} is what the source gives: {} bytes", built.len());
    Ok(())
}

/// Compiles, links and strips; gives the object's bytes. `locked` refuses to touch Cargo.lock.
fn build(toolchain: &Toolchain, locked: bool) -> Result<Vec<u8>> {
    let root = sh::root();
    let target_dir = root.join("target/ebpf");
    let mut command = toolchain.cargo();
    command.current_dir(&root);
    command.args(["build", "--release", "--package", "tracer-ebpf", "--target", TARGET, "--target-dir"]);
    command.arg(&target_dir);
    if toolchain.kind == Kind::Nightly {
        command.args(["-Z", "build-std=core"]);
    }
    if locked {
        command.arg("--locked");
    }
    let flags = rustflags(toolchain, &root, locked)?;
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    sh::run(&mut command).with_context(|| {
        format!(
            "the kernel programs did not build (if the linker complains about bitcode: its LLVM must be the \
             compiler's, here LLVM {})",
            toolchain.versions.llvm
        )
    })?;

    let linked = target_dir.join(TARGET).join("release/tracer-ebpf");
    let stripped = target_dir.join("tracer-ebpf.stripped.o");
    // DWARF goes: it is four fifths of the file and the kernel never looks at it. BTF stays: the loader and the kernel
    // want it for maps and globals, and the verifier names file and line from it.
    sh::run(Command::new(&toolchain.objcopy).arg("--strip-debug").arg(&linked).arg(&stripped))?;
    std::fs::read(&stripped).with_context(|| format!("cannot read {}", stripped.display()))
}

/// Compiler flags. Paths of this machine are mapped away, so that the object depends on source and compiler alone.
fn rustflags(toolchain: &Toolchain, root: &Path, locked: bool) -> Result<Vec<String>> {
    let mut flags: Vec<String> =
        ["-Cdebuginfo=2", "-Cpanic=abort", "-Ccodegen-units=1", "-Clink-arg=--btf"].map(String::from).to_vec();
    for (from, to) in remappings(toolchain, root, locked)? {
        flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    }
    Ok(flags)
}

/// Prefixes and what they become. The compiler lets the last match win, so the wider ones come first.
fn remappings(toolchain: &Toolchain, root: &Path, locked: bool) -> Result<Vec<(PathBuf, String)>> {
    let cargo_home = sh::cargo_home();
    let mut map = vec![(cargo_home.clone(), "/cargo".to_owned())];
    let sources = cargo_home.join("registry/src");
    // The folder below is named after a hash of the registry's address: a mirror has another one. It is not there
    // before the first download, so it is made by one.
    let mut fetch = toolchain.cargo();
    fetch.current_dir(root).args(["fetch", "--quiet", "--target", TARGET]);
    if locked {
        fetch.arg("--locked");
    }
    sh::run(&mut fetch).context("cannot fetch the kernel programs' dependencies")?;
    if sources.is_dir() {
        for entry in std::fs::read_dir(&sources).with_context(|| format!("cannot list {}", sources.display()))? {
            map.push((entry?.path(), "/registry".to_owned()));
        }
    }
    map.push((toolchain.sysroot.join("lib/rustlib/src/rust"), format!("/rustc/{}", toolchain.commit)));
    map.push((root.to_path_buf(), "/socklife".to_owned()));
    Ok(map)
}

/// Where two objects part, in words; `None` if they are equal.
fn first_difference(committed: &[u8], built: &[u8]) -> Option<String> {
    if committed == built {
        return None;
    }
    let sizes = format!("committed {} bytes, built {} bytes", committed.len(), built.len());
    let at = committed.iter().zip(built).position(|(a, b)| a != b);
    Some(match at {
        Some(at) => format!("{sizes}, first difference at byte {at}"),
        None => format!("{sizes}, the longer begins with the shorter"),
    })
}

/// Writes a file whole or not at all.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = path.with_extension("partial");
    std::fs::write(&partial, bytes).with_context(|| format!("cannot write {}", partial.display()))?;
    std::fs::rename(&partial, path).with_context(|| format!("cannot replace {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_objects_have_no_difference() {
        assert_eq!(first_difference(b"abc", b"abc"), None);
    }

    #[test]
    fn a_difference_is_located() {
        let middle = first_difference(b"abc", b"axc").unwrap();
        assert!(middle.contains("byte 1"), "{middle}");
        let shorter = first_difference(b"abc", b"ab").unwrap();
        assert!(shorter.contains("committed 3 bytes, built 2 bytes"), "{shorter}");
    }
}
