//! Numbered directory entries and links below /proc, read without an allocation for each: a look at every descriptor of
//! the host has to be cheap enough to repeat every few seconds.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

/// Room for one batch of entries; about 1,300 of them.
pub(super) const BUFFER_BYTES: usize = 32 * 1024;

/// `struct linux_dirent64` before its name: inode, offset, record length, type.
const NAME_AT: usize = 8 + 8 + 2 + 1;

/// Calls `found` with each entry of `dir` whose name is a decimal number. Entries that appear or vanish meanwhile may be
/// missed, as with any directory.
pub(super) fn numbers(dir: BorrowedFd<'_>, buffer: &mut [u8], mut found: impl FnMut(u32, &CStr)) -> Result<(), Errno> {
    loop {
        // SAFETY: the kernel writes at most `buffer.len()` bytes into `buffer`, which is borrowed mutably for the
        // call; the descriptor is borrowed and so open.
        let read = unsafe { libc::syscall(libc::SYS_getdents64, dir.as_raw_fd(), buffer.as_mut_ptr(), buffer.len()) };
        let len = match usize::try_from(read) {
            Ok(0) => return Ok(()),
            Ok(len) => len,
            Err(_) => return Err(Errno::last()),
        };
        each_name(buffer.get(..len).unwrap_or_default(), |name| {
            if let Some(number) = decimal(name.to_bytes()) {
                found(number, name);
            }
        });
    }
}

/// Walks one batch.
fn each_name(mut batch: &[u8], mut found: impl FnMut(&CStr)) {
    while let Some(&[low, high]) = batch.get(16..18).and_then(|bytes| bytes.first_chunk::<2>()) {
        let len = usize::from(u16::from_ne_bytes([low, high]));
        let name = batch.get(NAME_AT..len).and_then(|bytes| CStr::from_bytes_until_nul(bytes).ok());
        let Some(name) = name else { return };
        found(name);
        batch = batch.get(len..).unwrap_or_default();
    }
}

/// What a link below /proc leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// `socket:[INODE]`
    Socket(u64),
    /// `net:[INODE]`, a network namespace.
    Netns(u32),
    /// Anything else.
    Other,
}

/// What the link `name`, which may be a path, below `dir` leads to.
pub(super) fn link(dir: BorrowedFd<'_>, name: &CStr) -> Result<Link, Errno> {
    let mut target = [0u8; 48];
    // SAFETY: `name` ends in NUL and `target` takes `target.len()` bytes; both outlive the call. The descriptor is
    // borrowed and so open.
    let len = unsafe {
        libc::readlinkat(dir.as_raw_fd(), name.as_ptr(), target.as_mut_ptr().cast::<libc::c_char>(), target.len())
    };
    let Ok(len) = usize::try_from(len) else { return Err(Errno::last()) };
    let target = target.get(..len).unwrap_or_default();
    let netns = || number(target, b"net:[").map(Link::Netns);
    Ok(number(target, b"socket:[").map(Link::Socket).or_else(netns).unwrap_or(Link::Other))
}

/// The number in `PREFIX[NUMBER]`.
fn number<T: std::str::FromStr>(target: &[u8], prefix: &[u8]) -> Option<T> {
    let digits = target.strip_prefix(prefix)?.strip_suffix(b"]")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A decimal number without sign or leading zero.
fn decimal(name: &[u8]) -> Option<u32> {
    match name {
        [b'0'] => Some(0),
        [b'1'..=b'9', ..] => std::str::from_utf8(name).ok()?.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_numbers_are_found_over_many_batches() {
        let root = tempfile::tempdir().unwrap();
        for name in ["0", "7", "007", "-1", "+1", "4294967295", "4294967296", "1a", "self"] {
            std::fs::write(root.path().join(name), "").unwrap();
        }
        for number in 100..400 {
            std::fs::write(root.path().join(number.to_string()), "").unwrap();
        }
        let dir = std::fs::File::open(root.path()).unwrap();
        let mut all = Vec::new();
        numbers(dir.as_fd(), &mut [0; 512], |number, name| {
            assert_eq!(name.to_str().unwrap(), number.to_string());
            all.push(number);
        })
        .unwrap();
        all.sort_unstable();
        assert_eq!(all, [0, 7].into_iter().chain(100..400).chain([u32::MAX]).collect::<Vec<_>>());
    }

    #[test]
    fn a_file_is_no_directory() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(numbers(file.as_fd(), &mut [0; 512], |_, _| {}), Err(Errno::ENOTDIR));
    }

    #[test]
    fn broken_batches_end_the_walk() {
        let mut names = 0;
        for batch in [&[][..], &[0; 17], &[0; 24], &[0xff; 24], &[1; 300]] {
            each_name(batch, |_| names += 1);
        }
        assert_eq!(names, 0);
    }

    #[test]
    fn links_to_sockets_and_namespaces() {
        let root = tempfile::tempdir().unwrap();
        let check = |target: &str, expected: Link| {
            symlink(target, root.path().join("3")).unwrap();
            let dir = std::fs::File::open(root.path()).unwrap();
            assert_eq!(link(dir.as_fd(), c"3"), Ok(expected), "{target}");
            std::fs::remove_file(root.path().join("3")).unwrap();
        };
        check("socket:[1]", Link::Socket(1));
        check("socket:[18446744073709551615]", Link::Socket(u64::MAX));
        for other in ["socket:[18446744073709551616]", "socket:[]", "socket:[1", "pipe:[1]", "/socket:[1]", "mnt:[1]"] {
            check(other, Link::Other);
        }
        check(&format!("socket:[{}]", "0".repeat(60)), Link::Other);
        check("net:[4026531840]", Link::Netns(4_026_531_840));
        check("net:[4294967296]", Link::Other);
        let dir = std::fs::File::open(root.path()).unwrap();
        assert_eq!(link(dir.as_fd(), c"9"), Err(Errno::ENOENT));
    }
}
