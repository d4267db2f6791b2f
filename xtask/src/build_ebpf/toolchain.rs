//! Which compiler builds the kernel programs on this machine, and what to do where there is none.
//!
//! Two are known: Debian's rustc-web, whose package ships a compiled `core` for BPF, and rustup's nightly with
//! rust-src, which compiles `core` itself. Versions are compared as text: the object is reproducible only within one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::TARGET;
use crate::sh;

/// The bpf-linker that the committed object is linked with.
pub const BPF_LINKER: &str = "0.13.0";
/// The LLVM that bpf-linker is built with: the compiler's own.
pub const LLVM_MAJOR: &str = "22";

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";

/// Where the compiler is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Debian's rustc-web, with `core` ready.
    Debian,
    /// rustup's nightly, with rust-src.
    Nightly,
}

/// What decides the bytes of the object, besides the source.
#[derive(Debug, PartialEq, Eq)]
pub struct Versions {
    /// `rustc --version`.
    pub rustc: String,
    /// LLVM of rustc.
    pub llvm: String,
    /// `bpf-linker --version`.
    pub bpf_linker: String,
    /// LLVM of llvm-objcopy.
    pub llvm_objcopy: String,
}

/// A complete set of tools.
pub struct Toolchain {
    /// Where the compiler is from.
    pub kind: Kind,
    /// Versions of all parts.
    pub versions: Versions,
    /// The compiler's commit, as it appears in the paths of its own sources.
    pub commit: String,
    /// `rustc --print sysroot`.
    pub sysroot: PathBuf,
    /// llvm-objcopy.
    pub objcopy: PathBuf,
    linker: PathBuf,
}

impl Toolchain {
    /// Debian's if it is complete, else nightly; else an error that says what each of them lacks.
    pub fn find() -> Result<Self> {
        let kind = match (debian_rust_missing(), nightly_missing()) {
            (None, _) => Kind::Debian,
            (_, None) => Kind::Nightly,
            (Some(debian), Some(nightly)) => bail!(
                "no compiler for BPF here. Debian's: {debian}. rustup's: {nightly}. On Debian `cargo xtask setup \
                 --only build` installs the first"
            ),
        };
        let linker = sh::find_program("bpf-linker").with_context(|| {
            format!(
                "bpf-linker is neither on PATH nor in {}: `cargo xtask setup --only build` builds it on Debian; \
                 elsewhere, with LLVM {LLVM_MAJOR}'s development files, `cargo install bpf-linker --version \
                 {BPF_LINKER} --locked --no-default-features --features llvm-{LLVM_MAJOR}`",
                sh::cargo_home().join("bin").display()
            )
        })?;
        let about = sh::output(rustc(kind).arg("-vV"))?;
        let sysroot = PathBuf::from(sh::output(rustc(kind).args(["--print", "sysroot"]))?);
        let objcopy = find_objcopy(&sysroot, &field(&about, "host: "))?;
        let versions = Versions {
            rustc: about.lines().next().unwrap_or_default().to_owned(),
            llvm: field(&about, "LLVM version: "),
            bpf_linker: sh::output(Command::new(&linker).arg("--version"))?,
            llvm_objcopy: llvm_version(&sh::output(Command::new(&objcopy).arg("--version"))?),
        };
        Ok(Self { kind, versions, commit: field(&about, "commit-hash: "), sysroot, objcopy, linker })
    }

    /// The toolchain's cargo, with nothing of the calling toolchain's environment and with bpf-linker in reach.
    pub fn cargo(&self) -> Command {
        let mut command = match self.kind {
            Kind::Debian => {
                let mut command = Command::new(DEBIAN_CARGO);
                // Stable by name; the target and its `core` are there, only the flag that admits it is not.
                command.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
                command
            }
            Kind::Nightly => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "cargo"]).env_remove("RUSTC");
                command
            }
        };
        for inherited in ["CARGO", "LD_LIBRARY_PATH", "RUSTUP_TOOLCHAIN", "RUSTC_WRAPPER", "RUSTFLAGS", "RUSTDOC"] {
            command.env_remove(inherited);
        }
        command.env("PATH", self.path_with_linker());
        command
    }

    /// By PATH, not by `-C linker`: flags go into symbol hashes, and the linker lies elsewhere on each machine.
    fn path_with_linker(&self) -> OsString {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let linker_dir = self.linker.parent().map(Path::to_path_buf);
        let paths = linker_dir.into_iter().chain(std::env::split_paths(&path));
        std::env::join_paths(paths).unwrap_or(path)
    }
}

impl Versions {
    /// The text beside the object.
    pub fn to_text(&self) -> String {
        let mut text = String::from("# What built the object beside this file; written by `cargo xtask build-ebpf`.\n");
        for (name, value) in self.fields() {
            text.push_str(&format!("{name}: {value}\n"));
        }
        text
    }

    /// How these differ from a recorded text, one sentence a part.
    pub fn differences(&self, record: &str) -> Vec<String> {
        self.fields()
            .into_iter()
            .filter_map(|(name, here)| {
                let recorded = field(record, &format!("{name}: "));
                (recorded != here).then(|| format!("{name}: recorded \"{recorded}\", here \"{here}\""))
            })
            .collect()
    }

    fn fields(&self) -> [(&'static str, &str); 4] {
        [
            ("rustc", &self.rustc),
            ("llvm", &self.llvm),
            ("bpf-linker", &self.bpf_linker),
            ("llvm-objcopy", &self.llvm_objcopy),
        ]
    }
}

/// What Debian's compiler lacks here, in words; `None` if it is complete.
pub fn debian_rust_missing() -> Option<String> {
    for program in [DEBIAN_RUSTC, DEBIAN_CARGO] {
        if !Path::new(program).is_file() {
            return Some(format!("{program} is missing (packages rustc-web, cargo-web)"));
        }
    }
    let libdir = sh::output(rustc(Kind::Debian).args(["--print", "target-libdir", "--target", TARGET]));
    match libdir {
        Ok(dir) if Path::new(&dir).is_dir() => None,
        _ => Some(format!("{DEBIAN_RUSTC} has no core for {TARGET} (package libstd-rust-web-dev-bpf)")),
    }
}

/// What rustup's nightly lacks here, in words; `None` if it is complete.
pub fn nightly_missing() -> Option<String> {
    if sh::find_program("rustup").is_none() {
        return Some("rustup is missing".to_owned());
    }
    match sh::output(rustc(Kind::Nightly).args(["--print", "sysroot"])) {
        Err(_) => Some(
            "no nightly (`rustup toolchain install nightly --profile minimal --component rust-src --component \
             llvm-tools`)"
                .to_owned(),
        ),
        Ok(sysroot) if !Path::new(&sysroot).join("lib/rustlib/src/rust/library/core").is_dir() => {
            Some("nightly has no rust-src (`rustup component add rust-src llvm-tools --toolchain nightly`)".to_owned())
        }
        Ok(_) => None,
    }
}

/// What `bpf-linker --version` prints, if there is one.
pub fn bpf_linker_version() -> Option<String> {
    let linker = sh::find_program("bpf-linker")?;
    sh::output(Command::new(linker).arg("--version")).ok()
}

fn rustc(kind: Kind) -> Command {
    let mut command = match kind {
        Kind::Debian => Command::new(DEBIAN_RUSTC),
        Kind::Nightly => {
            let mut command = Command::new("rustup");
            command.args(["run", "nightly", "rustc"]);
            command
        }
    };
    // Without it Debian's compiler refuses to speak of a target that is not stable.
    command.env("RUSTC_BOOTSTRAP", "1").env_remove("LD_LIBRARY_PATH").env_remove("RUSTUP_TOOLCHAIN");
    command
}

fn find_objcopy(sysroot: &Path, host: &str) -> Result<PathBuf> {
    let candidates = [
        PathBuf::from(format!("/usr/lib/llvm-{LLVM_MAJOR}/bin/llvm-objcopy")),
        sysroot.join("lib/rustlib").join(host).join("bin/llvm-objcopy"),
    ];
    candidates.into_iter().find(|file| file.is_file()).or_else(|| sh::find_program("llvm-objcopy")).with_context(|| {
        format!("llvm-objcopy is missing: it is in Debian's llvm-{LLVM_MAJOR} and in rustup's component llvm-tools")
    })
}

/// The rest of the first line that begins with `name`.
fn field(text: &str, name: &str) -> String {
    text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned()
}

/// "Debian LLVM version 22.1.8" and its like, without the builder's name.
fn llvm_version(about: &str) -> String {
    about
        .lines()
        .find_map(|line| line.split_once("LLVM version "))
        .map_or_else(|| about.lines().next().unwrap_or_default().to_owned(), |(_, version)| version.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(rustc: &str) -> Versions {
        let text = String::from;
        Versions {
            rustc: text(rustc),
            llvm: text("22.1.8"),
            bpf_linker: text("bpf-linker 0.13.0"),
            llvm_objcopy: text("22.1.8"),
        }
    }

    #[test]
    fn a_record_reads_back_as_equal() {
        let here = versions("rustc 1.96.0");
        assert_eq!(here.differences(&here.to_text()), Vec::<String>::new());
    }

    #[test]
    fn another_compiler_is_named() {
        let differences = versions("rustc 1.97.0").differences(&versions("rustc 1.96.0").to_text());
        assert_eq!(differences, ["rustc: recorded \"rustc 1.96.0\", here \"rustc 1.97.0\""]);
    }

    #[test]
    fn an_empty_record_differs_in_everything() {
        assert_eq!(versions("rustc 1.96.0").differences("").len(), 4);
    }

    #[test]
    fn the_builder_of_llvm_does_not_matter() {
        assert_eq!(llvm_version("llvm-objcopy, compatible\nDebian LLVM version 22.1.8\n  Optimized build."), "22.1.8");
        assert_eq!(llvm_version("  LLVM version 22.1.8"), "22.1.8");
    }
}
