//! Where a test lives: a network namespace of its own and a directory of its own; one test at a time, but for those that
//! do not look beyond their namespace.
//!
//! The namespace belongs to the test's thread, and every process and thread started from it inherits it: port 5432 is
//! free in each test, the host's own sockets stay out of sight, and nothing is left behind however the suite ends.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;
use tempfile::TempDir;

use crate::program::{command, output};

/// Kernel hooks, BPF programs and CPU are the whole host's: tests that look at them take turns.
static TURN: Mutex<()> = Mutex::new(());

/// A test's own network namespace and directory.
pub struct Sandbox {
    dir: TempDir,
    _turn: Option<MutexGuard<'static, ()>>,
}

impl Sandbox {
    /// Moves this thread into a new network namespace with loopback up.
    pub fn enter() -> Result<Self> {
        Self::make(Some(TURN.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// The same beside others that are entered so, each from a thread of its own: for whoever looks at nothing but what is in
    /// this namespace.
    pub fn enter_beside_others() -> Result<Self> {
        Self::make(None)
    }

    fn make(turn: Option<MutexGuard<'static, ()>>) -> Result<Self> {
        ensure!(geteuid().is_root(), "the live suite needs root: run `cargo xtask test` as root or with sudo");
        unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace")?;
        ip(&["link", "set", "lo", "up"])?;
        let dir = tempfile::Builder::new().prefix("socklife-live-").tempdir()?;
        // PostgreSQL and the unprivileged commands run as other users.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        Ok(Self { dir, _turn: turn })
    }

    /// A path inside its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// The first three numbers of the addresses between a sandbox and the namespaces it reaches.
pub const NETWORK: &str = "10.203.77";

/// Another network namespace that outlives its processes, linked to the sandbox; gone when dropped.
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one with loopback up and no link.
    pub fn named(name: &str) -> Result<Self> {
        let name = format!("socklife-{}-{name}", std::process::id());
        ip(&["netns", "add", &name])?;
        let namespace = Self { name };
        ip(&["-n", &namespace.name, "link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// The words that run a command in it.
    pub fn way(&self) -> [&str; 4] {
        ["ip", "netns", "exec", &self.name]
    }

    /// The file it is mounted on.
    pub fn file(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Its inode number.
    pub fn inode(&self) -> Result<u64> {
        Ok(fs::metadata(self.file())?.ino())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Nothing more can be done than to try.
        let _ = ip(&["netns", "del", &self.name]);
    }
}

/// A pair of interfaces between this sandbox ([`NETWORK`].1) and the namespace in `file` ([`NETWORK`].2). It goes with
/// either end.
pub fn link_to(file: &Path) -> Result<()> {
    let file = file.to_str().context("a path that is no text")?;
    let inside = |args: &[&str]| {
        let mut enter = command("nsenter");
        enter.arg(format!("--net={file}")).arg("ip").args(args);
        output(enter).map(drop)
    };
    ip(&["link", "add", "here", "type", "veth", "peer", "name", "there"])?;
    // A path is a name to `ip`.
    ip(&["link", "set", "there", "netns", file])?;
    ip(&["addr", "add", &format!("{NETWORK}.1/24"), "dev", "here"])?;
    ip(&["link", "set", "here", "up"])?;
    inside(&["link", "set", "lo", "up"])?;
    inside(&["addr", "add", &format!("{NETWORK}.2/24"), "dev", "there"])?;
    inside(&["link", "set", "there", "up"])
}

fn ip(args: &[&str]) -> Result<()> {
    let mut ip = command("ip");
    ip.args(args);
    output(ip).map(drop)
}

/// The target directory this program was built into.
pub fn target_dir() -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    // Cargo marks it. In a guest there is no mark: there a test is in `<profile>/deps` as here.
    let marked = exe.ancestors().find(|directory| directory.join("CACHEDIR.TAG").is_file());
    marked.or(exe.ancestors().nth(3)).map(Path::to_owned).context("this program is not in a target directory")
}

/// The `socklife` under test: `SOCKLIFE_BIN`, else the release build, which is what users run; an unoptimized one is too
/// slow a reader for the suite's loads.
pub fn socklife_binary() -> Result<PathBuf> {
    let path = match std::env::var_os("SOCKLIFE_BIN") {
        Some(path) => PathBuf::from(path),
        None => target_dir()?.join("release/socklife"),
    };
    ensure!(
        path.is_file(),
        "{} is missing: `cargo build --release -p tracer-user` makes it, `cargo xtask test` does that by itself",
        path.display()
    );
    Ok(path)
}

/// An example of `tracer-user`, beside the `socklife` under test: `faulty`, the daemon with faults to switch on,
/// `interrupted`, a `verify` that dies at a step, and `broken_screen`, which fails while it has the terminal.
pub fn example_binary(name: &str) -> Result<PathBuf> {
    let path = socklife_binary()?.with_file_name("examples").join(name);
    ensure!(
        path.is_file(),
        "{} is missing: `cargo build --release -p tracer-user --example {name}` makes it, `cargo xtask test` does that by \
         itself",
        path.display()
    );
    Ok(path)
}

/// The Python of the drivers' venv: `SOCKLIFE_TEST_VENV`, else `target/venv`.
pub fn venv_python() -> Result<PathBuf> {
    let venv = match std::env::var_os("SOCKLIFE_TEST_VENV") {
        Some(path) => PathBuf::from(path),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/venv"),
    };
    let python = venv.join("bin/python3");
    ensure!(python.try_exists()?, "{} is missing: `cargo xtask setup` makes it", python.display());
    Ok(python)
}
