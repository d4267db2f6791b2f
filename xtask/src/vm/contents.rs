//! What a guest's root holds: the programs and files of this machine that the live suite uses, at the same paths, with
//! the libraries they load. Everything of root's, and nothing of the machine's own configuration beyond accounts.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::cpio::{Archive, Meta};
use crate::sh;

/// What the suite and the guest's own script start by name. Whatever else a test needs has to be added here.
const PROGRAMS: &[&str] = &[
    "sh", "ss", "ip", "nft", "bpftool", "setpriv", "mount", "umount", "unshare", "nsenter", "sysctl", "kill", "cp",
    "script",
];
/// Accounts and name lookup; the loader's list; the locale of the suite's programs. Those that are not there are not
/// needed there either.
const FILES: &[&str] = &[
    "/etc/passwd",
    "/etc/group",
    "/etc/nsswitch.conf",
    "/etc/hosts",
    "/etc/os-release",
    "/etc/ld.so.cache",
    "/usr/lib/locale/C.utf8",
    "/usr/share/zoneinfo/UTC",
    "/usr/share/zoneinfo/Etc/UTC",
];
/// Directories of the root that are links into /usr where a distribution has merged them.
const ROOT_LINKS: &[&str] = &["/bin", "/sbin", "/lib", "/lib64"];
/// Where PostgreSQL's packages put each version's programs and what they read.
const POSTGRES_PROGRAMS: &str = "/usr/lib/postgresql";
const POSTGRES_SHARE: &str = "/usr/share/postgresql";
/// Large, and never used by the suite: PostgreSQL's compiler of queries, its translations, Python's own tests and tools.
const LEFT_OUT: &[&str] = &[
    "bitcode",
    "llvmjit.so",
    "llvmjit_types.bc",
    "locale",
    "man",
    "pip",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "test",
    "tkinter",
    "turtledemo",
];
/// As many symbolic links as the kernel follows in one path.
const MAX_LINKS: u32 = 40;
/// How deep a tree may be.
const MAX_DEPTH: u32 = 24;

/// A guest's root under construction.
pub struct Root<W: Write> {
    archive: Archive<W>,
    /// ELF files so far: each may need libraries.
    elf: Vec<PathBuf>,
}

impl<W: Write> Root<W> {
    /// An empty root.
    pub fn new(out: W) -> Self {
        Self { archive: Archive::new(out), elf: Vec::new() }
    }

    /// The archive, for entries that are no copies of this machine's files.
    pub fn archive(&mut self) -> &mut Archive<W> {
        &mut self.archive
    }

    /// What every test of the suite may use; `repository` brings the suite's scripts and its Python packages.
    pub fn add_the_suite(&mut self, repository: &Path) -> Result<()> {
        for path in ROOT_LINKS {
            self.walk(Path::new(path))?;
        }
        for name in PROGRAMS {
            self.add(&program(name)?)?;
        }
        for file in FILES {
            if Path::new(file).try_exists()? {
                self.add_tree(Path::new(file))?;
            }
        }
        let programs = newest_postgres()?;
        let version = programs.file_name().context("PostgreSQL's directory has no name")?.to_owned();
        self.add_tree(&programs)?;
        self.add_tree(&Path::new(POSTGRES_SHARE).join(version))?;

        let python = repository.join("target/venv/bin/python3");
        ensure!(python.try_exists()?, "{} is missing: `cargo xtask setup` makes it", python.display());
        self.add_tree(&repository.join("target/venv"))?;
        self.add_tree(&standard_library(&python)?)?;
        self.add_tree(&repository.join("tests/live"))
    }

    /// One file or link, with the directories and links on the way to it.
    pub fn add(&mut self, path: &Path) -> Result<()> {
        let found = self.walk(path).with_context(|| format!("cannot pack {}", path.display()))?;
        found.map(drop).with_context(|| format!("{} is missing", path.display()))
    }

    /// Everything below a directory but [`LEFT_OUT`].
    pub fn add_tree(&mut self, path: &Path) -> Result<()> {
        self.descend(path, 0).with_context(|| format!("cannot pack {}", path.display()))
    }

    fn descend(&mut self, path: &Path, depth: u32) -> Result<()> {
        ensure!(depth < MAX_DEPTH, "{} lies too deep", path.display());
        let Some(real) = self.walk(path)? else { return Ok(()) };
        // A link to a directory is not followed down: it could lead anywhere.
        let is_link = fs::symlink_metadata(path)?.is_symlink();
        if !real.is_dir() || (depth > 0 && is_link) {
            return Ok(());
        }
        let mut names: Vec<OsString> = Vec::new();
        for entry in fs::read_dir(&real)? {
            names.push(entry?.file_name());
        }
        names.sort();
        for name in names.iter().filter(|name| !LEFT_OUT.iter().any(|left| *name == left)) {
            self.descend(&real.join(name), depth + 1)?;
        }
        Ok(())
    }

    /// Packs what `path` leads over and to; where it leads in the end, if it leads anywhere.
    fn walk(&mut self, path: &Path) -> Result<Option<PathBuf>> {
        let mut real = PathBuf::from("/");
        let mut links = 0;
        let mut left: VecDeque<OsString> = parts(path).into();
        while let Some(part) = left.pop_front() {
            if part == ".." {
                real.pop();
                continue;
            }
            let here = real.join(&part);
            let Ok(meta) = fs::symlink_metadata(&here) else { return Ok(None) };
            if meta.is_symlink() {
                links += 1;
                ensure!(links <= MAX_LINKS, "too many symbolic links");
                let target = fs::read_link(&here)?;
                if !self.archive.has(&here) {
                    self.archive.symlink(&here, &target)?;
                }
                if target.is_absolute() {
                    real = PathBuf::from("/");
                }
                for part in parts(&target).into_iter().rev() {
                    left.push_front(part);
                }
                continue;
            }
            if meta.is_dir() {
                self.archive.directory(&here)?;
            } else if meta.is_file() && !self.archive.has(&here) {
                self.copy(&here, &here)?;
            }
            real = here;
        }
        Ok(Some(real))
    }

    /// Packs a file of this machine under another path.
    pub fn add_as(&mut self, source: &Path, path: &Path) -> Result<()> {
        let above: Vec<&Path> = path.ancestors().skip(1).collect();
        above.iter().rev().try_for_each(|dir| self.archive.directory(dir))?;
        self.copy(source, path)
    }

    /// Packs a file, or a directory with all that is in it, under another path.
    pub fn add_tree_as(&mut self, source: &Path, path: &Path) -> Result<()> {
        if !source.is_dir() {
            return self.add_as(source, path);
        }
        for entry in fs::read_dir(source).with_context(|| format!("cannot read {}", source.display()))? {
            let entry = entry?;
            self.add_tree_as(&entry.path(), &path.join(entry.file_name()))?;
        }
        Ok(())
    }

    fn copy(&mut self, source: &Path, path: &Path) -> Result<()> {
        let mut file = File::open(source).with_context(|| format!("cannot read {}", source.display()))?;
        let meta = file.metadata()?;
        let header = Meta {
            mode: meta.mode() & 0o777,
            mtime: u32::try_from(meta.mtime()).unwrap_or_default(),
            size: u32::try_from(meta.len()).with_context(|| format!("{} is too large", source.display()))?,
        };
        let mut magic = Vec::new();
        (&mut file).take(4).read_to_end(&mut magic)?;
        if magic == b"\x7fELF" {
            self.elf.push(source.to_owned());
        }
        self.archive.file(path, header, &mut magic.as_slice().chain(file))
    }

    /// Packs the libraries of everything so far.
    pub fn add_libraries(&mut self) -> Result<()> {
        let elf = std::mem::take(&mut self.elf);
        let mut ldd = Command::new("ldd");
        ldd.args(&elf).env("LC_ALL", "C");
        // It ends with an error if one of the files is static; what it says of the others is as good.
        let said = ldd.output().context("cannot start `ldd`")?;
        for library in libraries(&String::from_utf8_lossy(&said.stdout)) {
            self.add(&library)?;
        }
        // The libraries' own libraries were named with them.
        self.elf.clear();
        Ok(())
    }

    /// Ends the archive.
    pub fn finish(self) -> Result<W> {
        self.archive.finish()
    }
}

/// The names in a path, `..` among them.
fn parts(path: &Path) -> Vec<OsString> {
    let named = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    named.collect()
}

/// Libraries and loaders in what ldd prints: `name => /path (0x…)` and `/path (0x…)`.
fn libraries(said: &str) -> BTreeSet<PathBuf> {
    let path_of = |line: &str| {
        let found = line.split_once("=> ").map_or(line, |(_, found)| found).trim();
        let (path, _) = found.split_once(" (0x")?;
        path.starts_with('/').then(|| PathBuf::from(path))
    };
    said.lines().filter(|line| line.starts_with(char::is_whitespace)).filter_map(path_of).collect()
}

fn program(name: &str) -> Result<PathBuf> {
    let system = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].into_iter().map(|dir| Path::new(dir).join(name));
    system
        .into_iter()
        .find(|path| path.is_file())
        .with_context(|| format!("`{name}` is missing: `cargo xtask setup` installs what the tests use"))
}

/// The newest version's directory of programs.
fn newest_postgres() -> Result<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for entry in fs::read_dir(POSTGRES_PROGRAMS).into_iter().flatten() {
        let entry = entry?;
        let version = String::from_utf8_lossy(entry.file_name().as_bytes()).parse().unwrap_or(0);
        if entry.path().join("bin/postgres").is_file() {
            found.push((version, entry.path()));
        }
    }
    found.sort();
    found.pop().map(|(_, dir)| dir).context("PostgreSQL's server is missing: `cargo xtask setup` installs it")
}

/// Where a Python keeps the modules that come with it.
fn standard_library(python: &Path) -> Result<PathBuf> {
    let print = "import sysconfig; print(sysconfig.get_paths()['stdlib'])";
    Ok(PathBuf::from(sh::output(Command::new(python).args(["-I", "-c", print]))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_names_libraries_in_two_ways() {
        let said = "/usr/bin/ss:\n\tlinux-vdso.so.1 (0x00007ffd)\n\tlibbpf.so.1 => /lib/x86_64-linux-gnu/libbpf.so.1 (0x00007f)\n\
                    \tlibx.so => not found\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n/static:\n\tnot a dynamic executable\n";
        let expected = ["/lib/x86_64-linux-gnu/libbpf.so.1", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(libraries(said), BTreeSet::from(expected));
    }

    #[test]
    fn links_on_the_way_are_packed_as_links() {
        let dir = std::env::temp_dir().join(format!("socklife-contents-{}", std::process::id()));
        fs::create_dir_all(dir.join("real/sub/test")).unwrap();
        fs::write(dir.join("real/sub/file"), "x").unwrap();
        fs::write(dir.join("real/sub/test/left-out"), "x").unwrap();
        std::os::unix::fs::symlink("real/../real", dir.join("link")).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.join("real/dangling")).unwrap();
        let mut root = Root::new(Vec::new());
        root.add(&dir.join("link/sub/file")).unwrap();
        root.add_tree(&dir.join("link")).unwrap();
        assert!(root.add(&dir.join("real/dangling")).is_err(), "a file that is not there");
        for name in ["link", "real", "real/sub", "real/sub/file", "real/dangling"] {
            assert!(root.archive().has(&dir.join(name)), "{name} is missing");
        }
        assert!(!root.archive().has(&dir.join("real/sub/test")));
        fs::remove_dir_all(dir).unwrap();
    }
}
