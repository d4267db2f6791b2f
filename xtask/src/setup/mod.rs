//! `cargo xtask setup`: everything that build-ebpf and the tests need, on Debian and Ubuntu.
//!
//! Looks before it installs, so that a second run changes nothing, and says each thing it does. On another
//! distribution it installs nothing and lists what is needed. `packages` is the only place that calls apt; `guests`
//! unpacks the kernels that `cargo xtask vm` boots, `emulator` brings what boots them.

mod emulator;
mod guests;
pub mod packages;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::build_ebpf::{BPF_LINKER, LLVM_MAJOR, bpf_linker_version, debian_rust_missing, nightly_missing};
use crate::sh;

/// A compiler with a ready `core` for BPF.
const COMPILER_PACKAGES: &[&str] = &["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];
/// What bpf-linker is built with. llvm-22-dev brings llvm-22, where llvm-objcopy is.
const LINKER_PACKAGES: &[&str] = &["llvm-22-dev", "libpolly-22-dev", "zlib1g-dev", "libzstd-dev", "g++"];
/// What the live tests trace and compare with.
const TEST_PACKAGES: &[&str] =
    &["postgresql", "iproute2", "nftables", "bpftool", "tmux", "python3", "python3-venv", "python3-yaml", "curl", "jq"];
/// What `cargo xtask dist` packs with, and where its package is tried out.
const DIST_PACKAGES: &[&str] = &["dpkg-dev", "mmdebstrap", "cpio"];
/// Servers and languages of the incident lab. The lab starts its own; those of the packages are not started.
const LAB_PACKAGES: &[&str] = &["mariadb-server", "redis-server", "pgbouncer", "php-cli", "php-pgsql", "prometheus"];
/// What opens the pages of `socklife report`.
const PAGE_PACKAGES: &[&str] = &["chromium"];
/// Where there is no Node yet.
const NODE_PACKAGES: &[&str] = &["nodejs", "npm"];
/// What `cargo xtask vm` makes guests of.
const GUEST_PACKAGES: &[&str] = &["busybox-static", "xz-utils", "binutils"];
/// What the benchmark measures beside socklife, and looks with.
const BENCH_PACKAGES: &[&str] = &["libbpf-tools", "bpftrace", "bpftool", "iproute2"];
/// The programs of those packages.
const BENCH_PROGRAMS: &[&str] = &["tcplife", "bpftrace", "bpftool", "ss"];
/// Pinned Python packages of the tests.
const REQUIREMENTS: &str = "tests/requirements.txt";
/// Pinned Node packages of the incident lab.
const NODE_MANIFEST: [&str; 2] = ["tests/scenarios/package.json", "tests/scenarios/package-lock.json"];

/// Flags of the command.
#[derive(clap::Args)]
pub struct Options {
    /// Only one part; without it, `build` and `test`
    #[arg(long, value_enum)]
    only: Option<Part>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// What `build-ebpf` needs
    Build,
    /// What the tests need
    Test,
    /// What `bench` needs
    Bench,
}

/// What the tests begin with: on Debian and Ubuntu everything is installed; elsewhere it has to be there already, and
/// what is not will say so.
pub fn before_tests() -> Result<()> {
    if on_debian_like() {
        return setup(&Options { only: None });
    }
    println!("setup: neither Debian nor Ubuntu: nothing is installed, see `cargo xtask setup` for what is needed");
    Ok(())
}

/// What the benchmark begins with: nothing where all is there, whatever the distribution; else as `setup --only bench`.
pub fn before_bench() -> Result<()> {
    if BENCH_PROGRAMS.iter().all(|program| sh::find_program(program).is_some()) {
        return Ok(());
    }
    setup(&Options { only: Some(Part::Bench) })
}

fn on_debian_like() -> bool {
    is_debian_like(&std::fs::read_to_string("/etc/os-release").unwrap_or_default())
}

/// Installs what is missing.
pub fn setup(options: &Options) -> Result<()> {
    let wanted = |part| options.only.map_or(part != Part::Bench, |only| only == part);
    let (build, test, bench) = (wanted(Part::Build), wanted(Part::Test), wanted(Part::Bench));
    if !on_debian_like() {
        print!("{}", what_to_install(build, test, bench));
        bail!("this is neither Debian nor Ubuntu: nothing was installed, the list above says what is needed");
    }
    if build {
        setup_build()?;
    }
    if test {
        setup_test()?;
    }
    if bench {
        packages::install(BENCH_PACKAGES)?;
    }
    println!("setup: done");
    Ok(())
}

fn setup_build() -> Result<()> {
    packages::install(LINKER_PACKAGES)?;
    install_compiler()?;
    install_bpf_linker()
}

fn setup_test() -> Result<()> {
    packages::without_database_cluster(|| packages::install(TEST_PACKAGES))?;
    packages::without_services(|| packages::install(LAB_PACKAGES))?;
    packages::install(PAGE_PACKAGES)?;
    packages::install(GUEST_PACKAGES)?;
    packages::install(DIST_PACKAGES)?;
    emulator::install().context("`cargo xtask vm` lacks its emulator")?;
    install_components()?;
    install_python()?;
    install_node()?;
    guests::install_kernels().context("`cargo xtask vm` lacks a kernel; all else is there")
}

/// Debian's compiler where the distribution has it; else whatever nightly is there; else how to get one.
fn install_compiler() -> Result<()> {
    match (debian_rust_missing(), nightly_missing()) {
        (None, _) => {
            already_there("compiler for BPF: rustc-web");
            return Ok(());
        }
        (_, None) => {
            already_there("compiler for BPF: rustup's nightly with rust-src");
            return Ok(());
        }
        (Some(_), Some(_)) => {}
    }
    packages::update_lists()?;
    let absent = packages::unavailable(COMPILER_PACKAGES)?;
    if absent.is_empty() {
        return packages::install(COMPILER_PACKAGES);
    }
    bail!(
        "this distribution has no {}: there is no packaged compiler for BPF. With rustup, `rustup toolchain install \
         nightly --profile minimal --component rust-src --component llvm-tools` gives one; then run this again. \
         (`cargo build` and `cargo xtask run` need none of this: the compiled object is in the repository)",
        absent.join(", ")
    );
}

fn install_bpf_linker() -> Result<()> {
    if bpf_linker_version().is_some_and(|version| version.ends_with(&format!(" {BPF_LINKER}"))) {
        already_there(&format!("bpf-linker {BPF_LINKER}"));
        return Ok(());
    }
    let feature = format!("llvm-{LLVM_MAJOR}");
    doing(&format!("building bpf-linker {BPF_LINKER} with LLVM {LLVM_MAJOR} (about a minute)"));
    let mut command = sh::cargo();
    command.args(["install", "bpf-linker", "--version", BPF_LINKER, "--locked", "--no-default-features"]);
    command.args(["--features", &feature]).env("LLVM_PREFIX", format!("/usr/lib/llvm-{LLVM_MAJOR}"));
    // Cargo builds what it installs in its own target directory, not in one that a caller has set for the workspace.
    command.env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS");
    sh::run(&mut command).context("bpf-linker did not build")
}

/// rustfmt and clippy, which a minimal rustup leaves out.
fn install_components() -> Result<()> {
    for (subcommand, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if sh::output(sh::cargo().args([subcommand, "--version"])).is_ok() {
            already_there(component);
            continue;
        }
        if sh::find_program("rustup").is_none() {
            bail!("`cargo {subcommand}` is missing and so is rustup: install {component} the way Rust was installed");
        }
        doing(&format!("adding rustup's component {component}"));
        sh::run(Command::new("rustup").current_dir(sh::root()).args(["component", "add", component]))?;
    }
    Ok(())
}

/// The tests' Python packages in target/venv. The installed list is kept beside them: a changed one installs again.
fn install_python() -> Result<()> {
    let requirements = sh::root().join(REQUIREMENTS);
    let wanted = std::fs::read(&requirements).with_context(|| format!("cannot read {REQUIREMENTS}"))?;
    let venv = sh::root().join("target/venv");
    let installed = venv.join("installed-requirements.txt");
    let python = venv.join("bin/python");
    if std::fs::read(&installed).ok().as_ref() == Some(&wanted) && sh::output(Command::new(&python).arg("-V")).is_ok() {
        already_there(&format!("Python packages of {REQUIREMENTS} in target/venv"));
        return Ok(());
    }
    doing(&format!("installing {REQUIREMENTS} into target/venv"));
    // Not whatever `python3` is first on PATH: the package python3-venv belongs to this one.
    sh::run(
        Command::new(system_python()).args([OsStr::new("-m"), OsStr::new("venv"), OsStr::new("--clear")]).arg(&venv),
    )?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--requirement"]);
    sh::run(pip.arg(&requirements))?;
    std::fs::write(&installed, wanted).with_context(|| format!("cannot write {}", installed.display()))
}

/// The incident lab's Node packages in target/node, by the lock file.
fn install_node() -> Result<()> {
    if ["node", "npm"].iter().any(|program| sh::find_program(program).is_none()) {
        packages::install(NODE_PACKAGES)?;
    }
    let directory = sh::root().join("target/node");
    let installed = directory.join("installed-package-lock.json");
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let [manifest, lock] = NODE_MANIFEST.map(|path| sh::root().join(path));
    let wanted = read(&lock)?;
    if std::fs::read(&installed).ok().as_ref() == Some(&wanted) {
        already_there(&format!("Node packages of {} in target/node", NODE_MANIFEST[1]));
        return Ok(());
    }
    doing(&format!("installing {} into target/node", NODE_MANIFEST[1]));
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    for path in [&manifest, &lock] {
        let name = path.file_name().context("a manifest without a name")?;
        std::fs::write(directory.join(name), read(path)?)?;
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"]);
    sh::run(npm.current_dir(&directory))?;
    std::fs::write(&installed, wanted).with_context(|| format!("cannot write {}", installed.display()))
}

fn system_python() -> PathBuf {
    let system = Path::new("/usr/bin/python3");
    if system.is_file() { system.to_path_buf() } else { PathBuf::from("python3") }
}

/// By os-release: the distribution itself or one that says it derives from it.
fn is_debian_like(os_release: &str) -> bool {
    os_release
        .lines()
        .filter_map(|line| line.strip_prefix("ID=").or_else(|| line.strip_prefix("ID_LIKE=")))
        .flat_map(|value| value.trim_matches('"').split_whitespace())
        .any(|id| id == "debian" || id == "ubuntu")
}

fn what_to_install(build: bool, test: bool, bench: bool) -> String {
    let mut text = String::new();
    if build {
        text.push_str(&format!(
            "To rebuild the kernel programs (`cargo xtask build-ebpf`):\n\
             - rustup's nightly: `rustup toolchain install nightly --profile minimal --component rust-src \
             --component llvm-tools`\n\
             - LLVM {LLVM_MAJOR} with development files, zlib, zstd, a C++ compiler\n\
             - bpf-linker: `LLVM_PREFIX=<prefix of that LLVM> cargo install bpf-linker --version {BPF_LINKER} \
             --locked --no-default-features --features llvm-{LLVM_MAJOR}`\n"
        ));
    }
    if test {
        text.push_str(&format!(
            "To run the tests (`cargo xtask test`):\n\
             - PostgreSQL's server programs and psql, iproute2 (ss, ip), nftables (nft), bpftool, tmux, curl, jq, Prometheus \
             with promtool, and Debian's python3-yaml for `/usr/bin/python3`\n\
             - for guests with other kernels (`cargo xtask vm`): qemu-system-x86_64, a static busybox, objcopy, and \
             Debian's kernels, each package unpacked in target/vm/kernels/<version>\n\
             - Python 3, and in target/venv the packages of {REQUIREMENTS}: `python3 -m venv target/venv && \
             target/venv/bin/pip install -r {REQUIREMENTS}`\n\
             - MariaDB's server, Redis, PgBouncer, PHP with its PostgreSQL extension; Node and npm, and in target/node \
             the packages of tests/scenarios/package-lock.json: copy it and package.json there and `npm ci`\n\
             - Chromium, as `chromium`\n\
             - rustfmt and clippy: `rustup component add rustfmt clippy`\n"
        ));
    }
    if bench {
        text.push_str(
            "To run the benchmark (`cargo xtask bench`):\n\
             - tcplife from libbpf-tools (not the Python one of bcc), bpftrace, bpftool, iproute2 (ss, ip)\n",
        );
    }
    text
}

/// Makes a directory anew. What was interrupted is done again from the beginning: only the rename makes it count.
fn make_directory(target: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let unfinished = target.with_extension("unfinished");
    for dir in [unfinished.as_path(), target] {
        if dir.try_exists()? {
            fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
        }
    }
    fs::create_dir_all(&unfinished)?;
    fill(&unfinished)?;
    fs::rename(&unfinished, target).with_context(|| format!("cannot put {} in its place", target.display()))
}

fn already_there(what: &str) {
    println!("setup: already there: {what}");
}

fn doing(what: &str) {
    println!("setup: {what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_and_what_derives_from_it() {
        assert!(is_debian_like("PRETTY_NAME=\"Debian GNU/Linux 12\"\nID=debian\n"));
        assert!(is_debian_like("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"));
        assert!(!is_debian_like("ID=fedora\nVERSION_ID=42\n"));
        assert!(!is_debian_like("ID=arch\nHOME_URL=debian\n"));
        assert!(!is_debian_like(""));
    }

    #[test]
    fn the_list_names_what_each_part_needs() {
        let both = what_to_install(true, true, false);
        for word in ["rust-src", "bpf-linker", BPF_LINKER, "PostgreSQL", REQUIREMENTS] {
            assert!(both.contains(word), "{word} is missing in: {both}");
        }
        assert!(!both.contains("bpftrace"), "{both}");
        assert!(!what_to_install(true, false, false).contains("PostgreSQL"));
        assert!(!what_to_install(false, true, false).contains("bpf-linker"));
        assert!(what_to_install(false, false, true).contains("tcplife"));
    }
}
