//! Finds a kernel's description of its types in a file: as it stands, or within what a kernel image unpacks to.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::blob::{START, length};

/// How images are compressed: how such data begins, and what unpacks it. What follows the data is no error of ours.
const PACKERS: &[(&[u8], &str, &[&str])] = &[
    (b"\xfd7zXZ\0", "xz", &["-dc", "--single-stream"]),
    (b"\x02!L\x18", "lz4", &["-dc"]),
    (b"\x28\xb5\x2f\xfd", "zstd", &["-dc"]),
    (b"\x1f\x8b\x08", "gzip", &["-dc"]),
];
/// The beginning of compressed data may turn up by chance.
const ATTEMPTS: usize = 16;

/// The description in a file.
pub fn find(path: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    if let Some(found) = largest(&bytes) {
        return Ok(found.to_vec());
    }
    let mut absent = Vec::new();
    for (start, program, arguments) in PACKERS {
        for at in positions(&bytes, start).take(ATTEMPTS) {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(at as u64))?;
            let Ok(said) = Command::new(program).args(*arguments).stdin(file).stderr(Stdio::null()).output() else {
                absent.push(*program);
                break;
            };
            if let Some(found) = largest(&said.stdout) {
                return Ok(found.to_vec());
            }
        }
    }
    if absent.is_empty() {
        bail!("{} has no BTF", path.display());
    }
    bail!(
        "no BTF in {}; it may be packed with one of these, which are not installed: {}",
        path.display(),
        absent.join(", ")
    )
}

/// The longest piece that reads as a description: the kernel's own is longer than any module's.
fn largest(bytes: &[u8]) -> Option<&[u8]> {
    let whole = |at: usize| length(&bytes[at..]).map(|length| &bytes[at..at + length]);
    positions(bytes, &START).filter_map(whole).max_by_key(|found| found.len())
}

fn positions<'a>(bytes: &'a [u8], start: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let first = start.first().copied().unwrap_or_default();
    let candidates = bytes.iter().enumerate().filter(move |(_, byte)| **byte == first).map(|(at, _)| at);
    candidates.filter(move |at| bytes[*at..].starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::super::blob::write;
    use super::*;

    #[test]
    fn it_is_found_among_other_bytes() {
        let blob = write(&[super::super::blob::Type {
            name: "int".to_owned(),
            kind: super::super::blob::Kind::Int,
            flag: false,
            size_or_type: 4,
            members: Vec::new(),
            values: Vec::new(),
            rest: vec![0x20],
        }])
        .unwrap();
        let image = [&b"boot code"[..], &START, b"by chance", &blob, b"more"].concat();
        assert_eq!(largest(&image), Some(blob.as_slice()));
        assert_eq!(largest(&image[..image.len() - 8]), None);
    }
}
