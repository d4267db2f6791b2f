//! Writes a cpio archive in the kernel's "newc" format, which it unpacks as a guest's first root file system.
//!
//! Entries only: what goes in is `contents`' matter. Format: Documentation/driver-api/early-userspace/buffer-format.rst.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

const MAGIC: &str = "070701";
const TRAILER: &str = "TRAILER!!!";
/// Archives may follow one another in one file; each begins at a multiple of this.
const BLOCK: u64 = 512;

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive under construction.
pub struct Archive<W: Write> {
    out: W,
    written: u64,
    entries: u32,
    names: BTreeSet<PathBuf>,
}

/// What an entry's header says of a file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meta {
    /// Permission bits.
    pub mode: u32,
    /// Seconds since 1970: Python checks its compiled files by it.
    pub mtime: u32,
    /// Length in bytes.
    pub size: u32,
}

impl<W: Write> Archive<W> {
    /// An empty archive.
    pub fn new(out: W) -> Self {
        Self { out, written: 0, entries: 0, names: BTreeSet::new() }
    }

    /// Whether there is an entry of this name.
    pub fn has(&self, path: &Path) -> bool {
        self.names.contains(path)
    }

    /// A directory that everybody may enter; a second one of the same name changes nothing.
    pub fn directory(&mut self, path: &Path) -> Result<()> {
        if path == Path::new("/") || self.has(path) {
            return Ok(());
        }
        self.entry(path, DIRECTORY, Meta { mode: 0o755, ..Meta::default() }, (0, 0), &mut std::io::empty())
    }

    /// A symbolic link.
    pub fn symlink(&mut self, path: &Path, target: &Path) -> Result<()> {
        let target = target.to_str().with_context(|| format!("{} is not UTF-8", target.display()))?;
        let size = u32::try_from(target.len())?;
        self.entry(path, SYMLINK, Meta { mode: 0o777, mtime: 0, size }, (0, 0), &mut target.as_bytes())
    }

    /// A character device.
    pub fn device(&mut self, path: &Path, major: u32, minor: u32) -> Result<()> {
        let meta = Meta { mode: 0o600, ..Meta::default() };
        self.entry(path, CHARACTER_DEVICE, meta, (major, minor), &mut std::io::empty())
    }

    /// A file of root's with `meta.size` bytes from `content`.
    pub fn file(&mut self, path: &Path, meta: Meta, content: &mut impl Read) -> Result<()> {
        self.entry(path, REGULAR, meta, (0, 0), content)
    }

    /// A file made of these bytes.
    pub fn text(&mut self, path: &Path, mode: u32, text: &str) -> Result<()> {
        let meta = Meta { mode, mtime: 0, size: u32::try_from(text.len())? };
        self.file(path, meta, &mut text.as_bytes())
    }

    fn entry(&mut self, path: &Path, kind: u32, meta: Meta, device: (u32, u32), content: &mut impl Read) -> Result<()> {
        ensure!(self.names.insert(path.to_owned()), "{} is in the archive already", path.display());
        let name = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
        self.header(name.trim_start_matches('/'), kind | meta.mode, meta, device)?;
        let copied = std::io::copy(&mut content.take(u64::from(meta.size)), &mut self.out)
            .with_context(|| format!("cannot pack {name}"))?;
        ensure!(copied == u64::from(meta.size), "{name} became shorter while it was packed");
        self.written += copied;
        self.pad(4)
    }

    fn header(&mut self, name: &str, mode: u32, meta: Meta, (major, minor): (u32, u32)) -> Result<()> {
        self.entries += 1;
        let name_size = u32::try_from(name.len() + 1)?;
        // ino, mode, uid, gid, links, mtime, size, device of the file system, of the node, length of the name, checksum.
        // One link each: entries with more are looked for among those before.
        let fields = [self.entries, mode, 0, 0, 1, meta.mtime, meta.size, 0, 0, major, minor, name_size, 0];
        let mut bytes = MAGIC.as_bytes().to_vec();
        fields.iter().try_for_each(|field| write!(bytes, "{field:08x}"))?;
        bytes.extend(name.bytes().chain([0]));
        self.put(&bytes)?;
        self.pad(4)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).context("cannot write the archive")?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn pad(&mut self, to: u64) -> Result<()> {
        let missing = self.written.next_multiple_of(to) - self.written;
        self.put(&vec![0; usize::try_from(missing)?])
    }

    /// Writes the last entry; gives back what was written to.
    pub fn finish(mut self) -> Result<W> {
        self.header(TRAILER, 0, Meta::default(), (0, 0))?;
        self.pad(BLOCK)?;
        self.out.flush().context("cannot write the archive")?;
        Ok(self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_what_the_kernel_reads() {
        let mut archive = Archive::new(Vec::new());
        archive.directory(Path::new("/dev")).unwrap();
        archive.directory(Path::new("/dev")).unwrap();
        archive.device(Path::new("/dev/console"), 5, 1).unwrap();
        archive.symlink(Path::new("/bin"), Path::new("usr/bin")).unwrap();
        archive.text(Path::new("/init"), 0o755, "hello").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 512, 0);
        let text = String::from_utf8(bytes).unwrap();
        // Offsets by hand: a header is 110 bytes; with its name it ends at a multiple of 4, and so does the content.
        let entries: Vec<(&str, &str, &str)> =
            [(0, 116, 0), (116, 240, 0), (240, 356, 7), (364, 480, 5), (488, 612, 0)]
                .iter()
                .map(|(start, content, size)| {
                    let name = text[start + 110..*content].trim_end_matches('\0');
                    (&text[start + 14..start + 22], name, &text[*content..content + size])
                })
                .collect();
        let expected = [
            ("000041ed", "dev", ""),
            ("00002180", "dev/console", ""),
            ("0000a1ff", "bin", "usr/bin"),
            ("000081ed", "init", "hello"),
            ("00000000", TRAILER, ""),
        ];
        assert_eq!(entries, expected);
        assert_eq!(&text[116 + 78..116 + 94], "0000000500000001", "the device's number");
    }

    #[test]
    fn what_would_be_lost_in_silence_is_an_error() {
        let mut archive = Archive::new(Vec::new());
        archive.text(Path::new("/a"), 0o644, "1").unwrap();
        assert!(archive.text(Path::new("/a"), 0o644, "2").is_err(), "a second entry of the same name");
        let longer = Meta { mode: 0o644, mtime: 0, size: 5 };
        assert!(archive.file(Path::new("/b"), longer, &mut "four".as_bytes()).is_err(), "a file that shrank");
    }
}
