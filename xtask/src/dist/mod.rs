//! `cargo xtask dist`: what users install: a package for Debian and Ubuntu, and an archive for all else, in target/dist.
//!
//! The same tree gives the same bytes: times are the commit's, owners are root, order is by name. `files` says what goes
//! where; dpkg-deb and tar pack it.

mod deb;
mod files;
mod tarball;
mod trial;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{run, sh};
pub use trial::trial;

/// Flags of the command.
#[derive(clap::Args)]
pub struct Options {
    /// Where they are put [default: target/dist]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// What every package says of itself.
struct Release {
    /// As in Cargo.toml.
    version: String,
    /// Seconds since 1970 of the commit: the time of every file.
    epoch: String,
    /// The program.
    socklife: PathBuf,
}

/// What was made.
pub struct Made {
    /// For Debian and Ubuntu.
    pub deb: PathBuf,
    /// For all else.
    pub tarball: PathBuf,
}

/// Builds socklife and packs it.
pub fn dist(options: &Options) -> Result<()> {
    run::build(false)?;
    let out = options.out.clone().unwrap_or_else(default_directory);
    let made = pack(&out)?;
    for path in [&made.deb, &made.tarball] {
        println!("{}", path.display());
    }
    Ok(())
}

/// Where packages are put unless told otherwise.
pub fn default_directory() -> PathBuf {
    sh::root().join("target/dist")
}

/// Packs the release build that is there.
pub fn pack(out: &Path) -> Result<Made> {
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let release = Release::of_this_tree()?;
    let work = out.join("work");
    if work.try_exists()? {
        fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
    }
    let generated = files::generate(&release.socklife, &work.join("generated"))?;
    let deb = deb::build(&release, &generated, &work, out)?;
    let tarball = tarball::build(&release, &generated, &work, out)?;
    fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
    let names = [&deb, &tarball].map(|path| path.file_name().unwrap_or_default().to_owned());
    let sums = sh::output(Command::new("sha256sum").args(&names).current_dir(out))?;
    fs::write(out.join("SHA256SUMS"), format!("{sums}\n")).context("cannot write SHA256SUMS")?;
    Ok(Made { deb, tarball })
}

impl Release {
    fn of_this_tree() -> Result<Self> {
        let socklife = run::program("socklife");
        ensure!(socklife.is_file(), "{} is missing: `cargo build --release` makes it", socklife.display());
        // Outside a clone, such as in an unpacked archive of the source, the caller says when.
        let epoch = match std::env::var("SOURCE_DATE_EPOCH") {
            Ok(epoch) => epoch,
            Err(_) => sh::output(Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(sh::root()))
                .context("no SOURCE_DATE_EPOCH, and git does not know this tree")?,
        };
        Ok(Self { version: env!("CARGO_PKG_VERSION").to_owned(), epoch, socklife })
    }

    /// Packers write the commit's time instead of now.
    fn dated(&self, command: &mut Command) {
        command.env("SOURCE_DATE_EPOCH", &self.epoch);
    }
}
