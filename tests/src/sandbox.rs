//! Where a test lives: a network namespace of its own and a directory of its own, one test at a time.
//!
//! The namespace belongs to the test's thread, and every process and thread started from it inherits it: port 5432 is
//! free in each test, the host's own sockets stay out of sight, and nothing is left behind however the suite ends.

use std::fs;
use std::os::unix::fs::PermissionsExt;
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
    _turn: MutexGuard<'static, ()>,
}

impl Sandbox {
    /// Moves this thread into a new network namespace with loopback up.
    pub fn enter() -> Result<Self> {
        ensure!(geteuid().is_root(), "the live suite needs root: run `cargo xtask test` as root or with sudo");
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace")?;
        let mut up = command("ip");
        up.args(["link", "set", "lo", "up"]);
        output(up)?;
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

/// The target directory this suite was built into: the binary is in `<profile>/deps` there.
pub fn target_dir() -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    exe.ancestors().nth(3).map(Path::to_owned).context("this test binary is not in a target directory")
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

/// The example `faulty`, the daemon with faults to switch on: beside the `socklife` under test.
pub fn faulty_binary() -> Result<PathBuf> {
    let path = socklife_binary()?.with_file_name("examples").join("faulty");
    let made =
        "`cargo build --release -p tracer-user --example faulty` makes it, `cargo xtask test` does that by itself";
    ensure!(path.is_file(), "{} is missing: {made}", path.display());
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
