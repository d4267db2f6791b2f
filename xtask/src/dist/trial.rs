//! Installs the package in a Debian of its own and boots that, with systemd, in a guest: from the .deb to a running unit,
//! a leak that it names, and its removal.
//!
//! `tests/packages/check.sh` is what happens inside; here a root is made for it (mmdebstrap), and its lines are read.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::files;
use crate::setup::packages;
use crate::test::counts::Counts;
use crate::vm::guest::{self, End, Guest};
use crate::vm::kernels::Series;
use crate::{run, sh};

/// Debian 12's own kernel.
const KERNEL: &str = "6.1";
/// Debian 12, which the program is built on at the latest.
const SUITE: &str = "bookworm";
/// Besides what every Debian has.
const INCLUDED: &str = "systemd,systemd-sysv,kmod";
const UNIT: &str = "packaging/socklife.service";
/// systemd's measure of what a service that was taken over could do, in tenths: the unit may have no more.
const EXPOSURE_MAX: &str = "30";
/// A guest that takes longer hangs: on a quiet machine it takes half a minute.
const WITHIN: Duration = Duration::from_secs(600);
/// Memory is the guest's disk: what it never reads stays out.
const LEFT_OUT: [&str; 4] = ["./usr/share/locale", "./var/cache", "./var/lib/apt", "./usr/share/info"];
/// From the build to the root's /check.
const PROGRAMS: [&str; 2] = ["demo-database", "leaky-client"];
/// Begins what the script says of itself.
const VERDICT: &str = "@check ";

/// Packs what was built, installs it, and counts what holds.
pub fn trial(counts: &mut Counts) -> Result<()> {
    let directory = sh::root().join("target/dist");
    let unit = sh::root().join(UNIT);
    let mut judge = Command::new("systemd-analyze");
    judge.args(["security", "--offline=true", "--no-pager"]).arg(format!("--threshold={EXPOSURE_MAX}")).arg(unit);
    sh::output(&mut judge).context("the unit may do more than it should")?;
    counts.passed += 1;
    let made = super::pack(&directory)?;
    unpacks_and_runs(&made.tarball, &directory)?;
    counts.passed += 1;
    let root = directory.join("root");
    make_root(&root)?;
    install(&root, &made.deb)?;
    let initrd = directory.join("root.cpio");
    let kernel = add_kernel_and_checks(&root)?;
    archive(&root, &initrd)?;
    fs::remove_dir_all(&root).context("cannot remove the root that was made")?;
    boot(&kernel, &initrd, &directory, counts)
}

/// The archive's program runs from wherever it was unpacked.
fn unpacks_and_runs(tarball: &Path, directory: &Path) -> Result<()> {
    let place = directory.join("unpacked");
    fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
    let mut tar = Command::new("tar");
    sh::run(tar.args(["--extract", "--strip-components=1", "--file"]).arg(tarball).arg("--directory").arg(&place))?;
    let said = sh::output(Command::new(place.join("socklife")).arg("--version"))?;
    ensure!(said.starts_with("socklife "), "the archive's program says {said:?} of itself");
    for file in ["socklife.toml", "socklife.service", "man/socklife.1", "completions/socklife.bash", "LICENSE-MIT"] {
        ensure!(place.join(file).is_file(), "the archive has no {file}");
    }
    fs::remove_dir_all(&place).with_context(|| format!("cannot remove {}", place.display()))
}

fn make_root(root: &Path) -> Result<()> {
    if root.try_exists()? {
        fs::remove_dir_all(root).with_context(|| format!("cannot remove {}", root.display()))?;
    }
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--variant=minbase", "--mode=root"]).arg(format!("--include={INCLUDED}"));
    sh::run(command.arg(SUITE).arg(root).arg(packages::own_mirror()?))
}

/// As a user does, but for systemd, which does not run yet: the package only enables its unit.
fn install(root: &Path, deb: &Path) -> Result<()> {
    let name = deb.file_name().context("a package without a name")?;
    let inside = Path::new("/tmp").join(name);
    fs::copy(deb, root.join("tmp").join(name)).context("cannot copy the package into the root")?;
    sh::run(Command::new("chroot").arg(root).args(["dpkg", "--install"]).arg(&inside))?;
    fs::remove_file(root.join("tmp").join(name)).context("cannot remove the package's copy")
}

/// The guest boots a kernel that is not installed in it; its modules are.
fn add_kernel_and_checks(root: &Path) -> Result<PathBuf> {
    let kernel = Series::named(KERNEL).map_err(anyhow::Error::msg)?.kernel()?;
    for module in kernel.modules()? {
        let target = inside(root, &kernel.place(&module)?)?;
        if module.is_dir() { files::place_tree(&module, &target)? } else { files::place(&module, &target, 0o644)? }
    }
    sh::run(Command::new("chroot").arg(root).args(["depmod", &kernel.release]))?;
    let ours = sh::root().join("tests/packages");
    files::place(&ours.join("check.sh"), &root.join("check/check.sh"), 0o755)?;
    for program in PROGRAMS {
        files::place(&run::program(program), &root.join("check").join(program), 0o755)?;
    }
    let unit = "socklife-check.service";
    files::place(&ours.join(unit), &root.join("etc/systemd/system").join(unit), 0o644)?;
    sh::run(Command::new("chroot").arg(root).args(["systemctl", "--quiet", "enable", unit]))?;
    // What the kernel starts first.
    std::os::unix::fs::symlink("/lib/systemd/systemd", root.join("init")).context("cannot link the guest's init")?;
    Ok(kernel.image)
}

fn inside(root: &Path, path: &Path) -> Result<PathBuf> {
    Ok(root.join(path.strip_prefix("/").context("no absolute path")?))
}

fn archive(root: &Path, initrd: &Path) -> Result<()> {
    let mut find = Command::new("find");
    find.arg(".").current_dir(root);
    for (at, path) in LEFT_OUT.iter().enumerate() {
        if at > 0 {
            find.arg("-o");
        }
        find.args(["-path", path, "-prune"]);
    }
    let mut found = find.args(["-o", "-print"]).stdout(Stdio::piped()).spawn().context("cannot start `find`")?;
    let names = found.stdout.take().context("`find` has no stdout")?;
    let out = File::create(initrd).with_context(|| format!("cannot write {}", initrd.display()))?;
    let mut cpio = Command::new("cpio");
    cpio.args(["--create", "--format=newc", "--quiet"]).current_dir(root).stdin(names).stdout(out);
    let packed = sh::run(&mut cpio);
    let status = found.wait().context("cannot wait for `find`")?;
    packed?;
    ensure!(status.success(), "`find` failed: {status}");
    Ok(())
}

fn boot(kernel: &Path, initrd: &Path, directory: &Path, counts: &mut Counts) -> Result<()> {
    let (console, log) = (directory.join("console.log"), directory.join("check.log"));
    let guest = Guest { kernel, initrd, console: &console, log: &log, within: WITHIN };
    let mut verdict = None;
    let end = guest::run(&guest, |line, _| {
        println!("guest | {line}");
        if line.starts_with("ok ") {
            counts.passed += 1;
        }
        if let Some(said) = line.strip_prefix(VERDICT) {
            verdict = Some(said.to_owned());
        }
    })?;
    ensure!(end == End::PoweredOff, "the guest hung: its console is {}", console.display());
    ensure!(verdict.as_deref() == Some("done"), "in the guest: {}", verdict.as_deref().unwrap_or("no verdict"));
    fs::remove_file(initrd).context("cannot remove the guest's root")
}
