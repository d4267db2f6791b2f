//! The guests' kernels: packages that are unpacked below target/ and never installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::packages::{self, Source};
use super::{already_there, doing, make_directory};
use crate::sh;
use crate::vm::kernels::{ALL, Series};

/// Debian's small kernel for virtual machines.
const FLAVOUR: &str = "-cloud-amd64";
/// Arguments of one call.
const AT_A_TIME: usize = 200;

/// Fetches and unpacks what is not there yet.
pub fn install_kernels() -> Result<()> {
    for series in &ALL {
        match series.kernel() {
            Ok(kernel) => already_there(&format!("Linux {} for a guest", kernel.release)),
            Err(_) => install(series).with_context(|| format!("cannot fetch Linux {}", series.version))?,
        }
    }
    Ok(())
}

fn install(series: &Series) -> Result<()> {
    packages::update_lists()?;
    let own = Source::own();
    let (source, name) = match newest(&own.names(&prefix(series))?) {
        Some(name) => (own, name),
        None => {
            let work = sh::root().join("target/vm/apt").join(series.suite);
            let other = Source::of_suite(series.suite, &work)?;
            let Some(name) = newest(&other.names(&prefix(series))?) else {
                bail!("neither this machine's repositories nor Debian's {} have it", series.suite);
            };
            (other, name)
        }
    };
    doing(&format!("unpacking {name} below target/vm"));
    let target = series.directory();
    make_directory(&target, |unfinished| {
        source.download_into(&name, unfinished)?;
        index_modules(unfinished)
    })?;
    // Another release may keep its modules elsewhere: that would be found when a guest boots, and should be found here.
    series.kernel().map(drop)
}

fn prefix(series: &Series) -> String {
    format!("linux-image-{}.", series.version)
}

/// The newest of these packages, by the numbers in their names.
fn newest(names: &[String]) -> Option<String> {
    let numbers = |name: &str| -> Vec<u64> {
        name.split(|letter: char| !letter.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
    };
    names.iter().filter(|name| name.ends_with(FLAVOUR)).max_by_key(|name| numbers(name)).cloned()
}

/// Makes the modules loadable by busybox: uncompressed, and with the lists that `modprobe` reads.
fn index_modules(root: &Path) -> Result<()> {
    let modules = root.join("lib/modules");
    let mut compressed = Vec::new();
    find_compressed(&modules, &mut compressed)?;
    for some in compressed.chunks(AT_A_TIME) {
        sh::run(Command::new("xz").args(["--decompress", "--threads=0"]).args(some))?;
    }
    for release in fs::read_dir(&modules)? {
        sh::run(Command::new("busybox").args(["depmod", "-b"]).arg(root).arg(release?.file_name()))?;
    }
    Ok(())
}

fn find_compressed(dir: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            find_compressed(&entry.path(), found)?;
        } else if entry.path().extension().is_some_and(|extension| extension == "xz") {
            found.push(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(names: &[&str], expected: Option<&str>) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(newest(&names).as_deref(), expected, "{names:?}");
    }

    #[test]
    fn the_newest_is_the_highest_number_not_the_last_letter() {
        check(
            &[
                "linux-image-6.12.100+deb12-cloud-amd64",
                "linux-image-6.12.9+deb12-cloud-amd64",
                "linux-image-6.12.117+deb12-cloud-amd64-unsigned",
                "linux-image-6.12.117+deb12-amd64",
            ],
            Some("linux-image-6.12.100+deb12-cloud-amd64"),
        );
        check(
            &["linux-image-5.10.0-9-cloud-amd64", "linux-image-5.10.0-32-cloud-amd64"],
            Some("linux-image-5.10.0-32-cloud-amd64"),
        );
        check(&["linux-image-5.10.0-9-rt-amd64"], None);
    }
}
