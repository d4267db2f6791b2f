//! Small readers of /proc files: bounded, byte-wise (names and arguments need not be UTF-8), and clear about the
//! difference between a process that is gone and one that may not be read.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// `task_struct.flags` of a kernel thread (`PF_KTHREAD`).
const KERNEL_THREAD: u32 = 0x0020_0000;

/// Longest `/proc/PID/stat` that is read; the kernel writes at most about 600 bytes.
pub const STAT_MAX: usize = 2_048;

/// The start of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounded {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Whether there were more.
    pub truncated: bool,
}

/// At most `max` bytes of the file at `path`.
pub fn read_bounded(path: &Path, max: usize) -> io::Result<Bounded> {
    bounded(&File::open(path)?, max)
}

/// At most `max` bytes of an open file.
pub fn bounded(file: &File, max: usize) -> io::Result<Bounded> {
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    let truncated = bytes.len() > max;
    bytes.truncate(max);
    Ok(Bounded { bytes, truncated })
}

/// Whether an error below `/proc/PID` means that the process has ended: the directory is gone, or was still open.
#[must_use]
pub fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// What `/proc/PID/stat` says of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Field 2, without its parentheses: any bytes.
    pub comm: Vec<u8>,
    /// Field 3, a letter; `Z` when the first thread has ended.
    pub state: u8,
    /// Field 4; 0 for none, or one outside this pid namespace.
    pub ppid: u32,
    /// Field 20.
    pub threads: u32,
    /// Field 22, clock ticks after boot.
    pub start_ticks: u64,
    /// From field 9.
    pub kernel_thread: bool,
}

impl Stat {
    /// From the file's bytes; `None` if they are not the kernel's.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        // The name may hold spaces and parentheses; nothing after it does.
        let open = bytes.iter().position(|byte| *byte == b'(')?;
        let close = bytes.iter().rposition(|byte| *byte == b')')?;
        let comm = bytes.get(open + 1..close)?.to_vec();
        let rest = std::str::from_utf8(bytes.get(close + 1..)?).ok()?;
        // Field 3 is the first one here.
        let mut fields = rest.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let ppid = fields.next()?.parse().ok()?;
        let flags: u32 = fields.nth(9 - 5)?.parse().ok()?;
        let threads = fields.nth(20 - 10)?.parse().ok()?;
        let start_ticks = fields.nth(22 - 21)?.parse().ok()?;
        Some(Self { comm, state, ppid, threads, start_ticks, kernel_thread: flags & KERNEL_THREAD != 0 })
    }

    /// The name as text, invalid UTF-8 replaced.
    #[must_use]
    pub fn comm_text(&self) -> String {
        String::from_utf8_lossy(&self.comm).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAIL: &str = " S 7 8 8 0 -1 4194304 100 0 0 0 1 2 0 0 20 0 3 0 123456 9999 50 184";

    #[track_caller]
    fn check(comm: &[u8]) {
        let mut line = b"42 (".to_vec();
        line.extend_from_slice(comm);
        line.extend_from_slice(b")");
        line.extend_from_slice(TAIL.as_bytes());
        let stat = Stat::parse(&line).unwrap();
        let expected =
            Stat { comm: comm.to_vec(), state: b'S', ppid: 7, threads: 3, start_ticks: 123_456, kernel_thread: false };
        assert_eq!(stat, expected);
    }

    #[test]
    fn the_name_may_be_anything() {
        for comm in [&b"bash"[..], b"", b")", b"a) S 1 (b", b"tmux: server", b"\xff\xfe\n", b"((("] {
            check(comm);
        }
    }

    #[test]
    fn broken_lines_are_no_stat() {
        let whole = format!("42 (x){TAIL}");
        assert!(Stat::parse(whole.as_bytes()).is_some());
        let needed = whole.find(" 123456").unwrap() + 2;
        for cut in 0..needed {
            assert_eq!(Stat::parse(&whole.as_bytes()[..cut]), None, "{cut}");
        }
        for line in ["", ")(", "1 x S 1", "1 (x) S -1 1 1 1 1 1 1", "1 (x) S 1 a b c d e f g h i j k l m n o p q"] {
            assert_eq!(Stat::parse(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn this_process_and_a_kernel_thread() {
        let own = Stat::parse(&read_bounded(Path::new("/proc/self/stat"), STAT_MAX).unwrap().bytes).unwrap();
        assert_eq!(own.ppid, std::os::unix::process::parent_id());
        assert!(!own.kernel_thread && own.start_ticks > 0 && own.threads >= 1);
        let line = "2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 5 0 0";
        assert!(Stat::parse(line.as_bytes()).unwrap().kernel_thread);
    }

    #[test]
    fn reading_is_bounded() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"12345").unwrap();
        for (max, bytes, truncated) in [(9, &b"12345"[..], false), (5, b"12345", false), (4, b"1234", true)] {
            assert_eq!(read_bounded(file.path(), max).unwrap(), Bounded { bytes: bytes.to_vec(), truncated });
        }
        assert!(is_gone(&read_bounded(Path::new("/proc/self/none"), 1).unwrap_err()));
    }
}
