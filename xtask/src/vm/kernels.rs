//! The kernels guests boot: which ones, and where their packages lie unpacked. `setup::guests` puts them there.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::sh;

/// A series of kernels, and the Debian release that has it where this machine's own does not.
#[derive(Debug, PartialEq, Eq)]
pub struct Series {
    /// As on the command line.
    pub version: &'static str,
    /// Debian's name of the release.
    pub suite: &'static str,
}

/// Every series the suite runs on, besides this machine's own kernel.
pub const ALL: [Series; 3] = [
    Series { version: "5.10", suite: "bullseye" },
    Series { version: "6.1", suite: "bookworm" },
    Series { version: "6.12", suite: "bookworm" },
];

/// Parts of a kernel package that a guest gets: what network namespaces, `ss` and `nft` ask for.
const MODULES: &[&str] = &["kernel/net", "kernel/lib", "kernel/drivers/net/veth.ko", "kernel/drivers/net/dummy.ko"];

/// An unpacked kernel package.
pub struct Kernel {
    /// What `uname -r` says there.
    pub release: String,
    /// The compressed kernel.
    pub image: PathBuf,
    modules: PathBuf,
}

impl Series {
    /// The series of that name.
    pub fn named(version: &str) -> Result<&'static Self, String> {
        let known: Vec<&str> = ALL.iter().map(|series| series.version).collect();
        ALL.iter()
            .find(|series| series.version == version)
            .ok_or_else(|| format!("no such kernel; there are {}", known.join(", ")))
    }

    /// Where its package is unpacked.
    pub fn directory(&self) -> PathBuf {
        sh::root().join("target/vm/kernels").join(self.version)
    }

    /// The unpacked kernel.
    pub fn kernel(&self) -> Result<Kernel> {
        let dir = self.directory();
        let modules = dir.join("lib/modules");
        let release = only_entry(&modules)
            .with_context(|| format!("Linux {} is missing: `cargo xtask setup` fetches it", self.version))?;
        let image = dir.join("boot").join(format!("vmlinuz-{release}"));
        ensure!(image.is_file(), "{} is missing", image.display());
        Ok(Kernel { modules: modules.join(&release), release, image })
    }
}

impl Kernel {
    /// Files and directories that make modules load in a guest, from its root; a file that this kernel has built in is
    /// not among them.
    pub fn modules(&self) -> Result<Vec<PathBuf>> {
        let mut all: Vec<PathBuf> = MODULES.iter().map(|part| self.modules.join(part)).collect();
        all.retain(|path| path.try_exists().unwrap_or(false));
        for entry in fs::read_dir(&self.modules)? {
            let path = entry?.path();
            if path.is_file() {
                all.push(path);
            }
        }
        all.sort();
        Ok(all)
    }

    /// Where a file of [`Self::modules`] belongs in a guest.
    pub fn place(&self, file: &Path) -> Result<PathBuf> {
        let inside = file.strip_prefix(&self.modules).context("not a file of this kernel's")?;
        Ok(Path::new("/usr/lib/modules").join(&self.release).join(inside))
    }
}

fn only_entry(dir: &Path) -> Result<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        names.push(entry?.file_name());
    }
    let [name] = &names[..] else { anyhow::bail!("{} has {} entries, not one", dir.display(), names.len()) };
    Ok(OsStr::to_str(name).context("a name that is not UTF-8")?.to_owned())
}
