//! Tells the compiler which commit this is and what the embedded kernel programs hash to, for `socklife --version`.
//!
//! The commit is `SOCKLIFE_COMMIT` where that is set, else what git says of this tree, else unknown; `-dirty` behind it
//! says that the tree had changes of its own. Only a release build asks git: a debug build would be compiled anew with
//! each commit.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use sha2::{Digest as _, Sha256};

const OBJECT: &str = "../tracer-ebpf/object/tracer-ebpf.bpf.o";
/// What makes the binary: a change there may make the tree dirty, or clean.
const SOURCES: [&str; 6] = [
    "../Cargo.lock",
    "../Cargo.toml",
    "../tracer-common/src",
    "../tracer-core/src",
    "../tracer-ebpf",
    "../tracer-user",
];
/// Hexadecimal digits of a hash that are shown.
const DIGITS: usize = 12;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-env-changed=SOCKLIFE_COMMIT");
    println!("cargo::rerun-if-changed={OBJECT}");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-env=SOCKLIFE_COMMIT={}", commit());
    println!("cargo::rustc-env=SOCKLIFE_OBJECT={}", hash(&std::fs::read(OBJECT)?));
    Ok(())
}

fn commit() -> String {
    if let Ok(told) = std::env::var("SOCKLIFE_COMMIT")
        && !told.is_empty()
    {
        return told;
    }
    if std::env::var("PROFILE").as_deref() != Ok("release") {
        return "unknown".to_owned();
    }
    from_git().unwrap_or_else(|| "unknown".to_owned())
}

/// None without git, or outside a clone.
fn from_git() -> Option<String> {
    let head = git(&["rev-parse", &format!("--short={DIGITS}"), "HEAD"])?;
    for watched in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", watched])?;
        if Path::new(&path).is_file() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    SOURCES.iter().for_each(|source| println!("cargo::rerun-if-changed={source}"));
    let changes = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changes.is_empty() { head } else { format!("{head}-dirty") })
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn hash(object: &[u8]) -> String {
    let mut digits = String::new();
    for byte in Sha256::digest(object) {
        // Writing to a String does not fail.
        let _ = write!(digits, "{byte:02x}");
    }
    digits.truncate(DIGITS);
    digits
}
