//! Who holds a socket: every process' descriptors, matched by inode. Opener and holder are two facts; this is the
//! second one, and only for processes that may be read.
//!
//! One pass over `/proc/PID/fd` of all processes is the rule: forks, SCM_RIGHTS and pidfd_getfd hand descriptors to
//! processes nobody would think of.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use tracer_core::event::ProcessId;
use tracer_core::inventory::Holder;

use super::{InventoryError, dirents};
use crate::process::files::{STAT_MAX, Stat, bounded};

/// What a look at the descriptors found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Socket inode and holder, by inode, then by process; one entry a process and inode, with the lowest descriptor.
    pub holders: Vec<(u64, Holder)>,
    /// Processes whose descriptors may not be read. Those that ended meanwhile do not count.
    pub unreadable_processes: u32,
}

/// Every holder of a socket whose inode `wanted` accepts.
pub fn find(proc_root: &Path, wanted: impl Fn(u64) -> bool) -> Result<Found, InventoryError> {
    let root = open_root(proc_root)?;
    let mut look = Look::new(root.as_fd(), wanted);
    // A buffer of its own: the walk over the processes is not finished while one of them is looked at.
    dirents::numbers(root.as_fd(), &mut vec![0; dirents::BUFFER_BYTES], |pid, name| look.process(pid, name))
        .map_err(|errno| InventoryError::Proc { path: proc_root.to_owned(), source: errno.into() })?;
    Ok(look.found())
}

/// The same, looking at the processes `pids` only: for when a new socket is to be matched at once and its opener is
/// known. It misses every other holder, so it never replaces [`find`].
pub fn find_among(proc_root: &Path, wanted: impl Fn(u64) -> bool, pids: &[u32]) -> Result<Found, InventoryError> {
    let root = open_root(proc_root)?;
    let mut look = Look::new(root.as_fd(), wanted);
    let mut pids = pids.to_vec();
    pids.sort_unstable();
    pids.dedup();
    for pid in pids {
        if let Ok(name) = std::ffi::CString::new(pid.to_string()) {
            look.process(pid, &name);
        }
    }
    Ok(look.found())
}

fn open_root(proc_root: &Path) -> Result<OwnedFd, InventoryError> {
    open(proc_root, DIRECTORY, Mode::empty())
        .map_err(|errno| InventoryError::Proc { path: proc_root.to_owned(), source: errno.into() })
}

const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// A pass under way.
struct Look<'a, Wanted> {
    root: BorrowedFd<'a>,
    wanted: Wanted,
    buffer: Vec<u8>,
    /// Inode and descriptor of the process being looked at.
    matches: Vec<(u64, u32)>,
    found: Found,
}

/// Why a process gave no answer.
enum Miss {
    /// It ended meanwhile, or never had descriptors.
    Nothing,
    /// It may not be read.
    Unreadable,
}

impl From<Errno> for Miss {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::ENOENT | Errno::ESRCH | Errno::ENOTDIR => Self::Nothing,
            _ => Self::Unreadable,
        }
    }
}

impl<'a, Wanted: Fn(u64) -> bool> Look<'a, Wanted> {
    fn new(root: BorrowedFd<'a>, wanted: Wanted) -> Self {
        let buffer = vec![0; dirents::BUFFER_BYTES];
        Self { root, wanted, buffer, matches: Vec::new(), found: Found::default() }
    }

    fn found(mut self) -> Found {
        self.found.holders.sort_unstable();
        self.found
    }

    fn process(&mut self, pid: u32, name: &CStr) {
        self.matches.clear();
        match self.descriptors(pid, name) {
            Ok(()) | Err(Miss::Nothing) => {}
            Err(Miss::Unreadable) => self.found.unreadable_processes += 1,
        }
    }

    /// All descriptors of one process. Its directory stays open from first to last: through it, a later process of the
    /// same pid cannot be mistaken for this one.
    fn descriptors(&mut self, pid: u32, name: &CStr) -> Result<(), Miss> {
        let process = openat(self.root, name, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        let listed = match openat(&process, c"fd", DIRECTORY, Mode::empty()) {
            Ok(dir) => self.table(dir.as_fd())?,
            Err(errno @ (Errno::EACCES | Errno::EPERM)) => return denied(&process, errno),
            Err(errno) => return Err(errno.into()),
        };
        if listed == 0 {
            self.other_threads(&process)?;
        }
        if self.matches.is_empty() {
            return Ok(());
        }
        let start_ticks = stat(&process)?.start_ticks;
        self.matches.sort_unstable();
        self.matches.dedup_by_key(|(inode, _)| *inode);
        let id = ProcessId { pid, start_ticks };
        let holders = self.matches.iter().map(|&(inode, fd)| (inode, Holder { process: id, fd }));
        self.found.holders.extend(holders);
        Ok(())
    }

    /// One descriptor table; how many descriptors it has.
    fn table(&mut self, dir: BorrowedFd<'_>) -> Result<usize, Miss> {
        let mut listed = 0;
        dirents::numbers(dir, &mut self.buffer, |fd, name| {
            listed += 1;
            if let Some(inode) = dirents::socket_inode(dir, name).filter(|inode| (self.wanted)(*inode)) {
                self.matches.push((inode, fd));
            }
        })?;
        Ok(listed)
    }

    /// A process whose first thread has ended lists no descriptors, although its other threads have them.
    fn other_threads(&mut self, process: &OwnedFd) -> Result<(), Miss> {
        let stat = stat(process)?;
        if stat.kernel_thread || stat.state != b'Z' || stat.threads < 2 {
            return Ok(());
        }
        let tasks = openat(process, c"task", DIRECTORY, Mode::empty())?;
        let mut names = Vec::new();
        dirents::numbers(tasks.as_fd(), &mut self.buffer, |_, name| names.push(name.to_owned()))?;
        for name in names {
            let table = openat(&tasks, name.as_c_str(), OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
                .and_then(|task| openat(&task, c"fd", DIRECTORY, Mode::empty()));
            if let Ok(dir) = table
                && self.table(dir.as_fd())? > 0
            {
                // Threads share one table unless they asked not to.
                break;
            }
        }
        Ok(())
    }
}

/// A process whose descriptors are denied: not worth a word if it cannot hold a socket anyway.
fn denied(process: &OwnedFd, errno: Errno) -> Result<(), Miss> {
    match stat(process) {
        Ok(stat) if stat.kernel_thread || (stat.state == b'Z' && stat.threads < 2) => Err(Miss::Nothing),
        Err(Miss::Nothing) => Err(Miss::Nothing),
        _ => Err(errno.into()),
    }
}

fn stat(process: &OwnedFd) -> Result<Stat, Miss> {
    let file = openat(process, c"stat", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let read = bounded(&File::from(file), STAT_MAX)
        .map_err(|error| Miss::from(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))))?;
    Stat::parse(&read.bytes).ok_or(Miss::Unreadable)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A fake /proc.
    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn process(&self, pid: u32, stat_tail: &str, links: &[(u32, &str)]) -> &Self {
            let dir = self.0.path().join(pid.to_string());
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("stat"), format!("{pid} (a b) {stat_tail}")).unwrap();
            self.links(&format!("{pid}/fd"), links)
        }

        fn links(&self, dir: &str, links: &[(u32, &str)]) -> &Self {
            let dir = self.0.path().join(dir);
            fs::create_dir_all(&dir).unwrap();
            for (fd, target) in links {
                symlink(target, dir.join(fd.to_string())).unwrap();
            }
            self
        }
    }

    fn tail(state: char, flags: u32, threads: u32, start: u64) -> String {
        format!("{state} 1 1 1 0 -1 {flags} 0 0 0 0 0 0 0 0 20 0 {threads} 0 {start} 0 0")
    }

    fn holder(pid: u32, start_ticks: u64, fd: u32) -> Holder {
        Holder { process: ProcessId { pid, start_ticks }, fd }
    }

    #[test]
    fn shared_sockets_name_every_holder_and_its_lowest_descriptor() {
        let tree = Tree::new();
        tree.process(10, &tail('S', 0, 1, 100), &[(0, "/dev/null"), (12, "socket:[7]"), (3, "socket:[7]")])
            .process(9, &tail('S', 0, 1, 90), &[(5, "socket:[7]"), (6, "socket:[8]"), (7, "socket:[99]")])
            .process(11, &tail('S', 0, 1, 110), &[(5, "pipe:[7]"), (6, "anon_inode:[eventpoll]")])
            .links("self/fd", &[(3, "socket:[7]")]);
        let found = find(tree.0.path(), |inode| inode < 10).unwrap();
        assert_eq!(found.holders, [(7, holder(9, 90, 5)), (7, holder(10, 100, 3)), (8, holder(9, 90, 6))]);
        assert_eq!(found.unreadable_processes, 0);

        let found = find_among(tree.0.path(), |inode| inode < 10, &[10, 4242, 10]).unwrap();
        assert_eq!(found, Found { holders: vec![(7, holder(10, 100, 3))], unreadable_processes: 0 });
    }

    #[test]
    fn a_process_without_its_first_thread_still_holds() {
        let tree = Tree::new();
        tree.process(20, &tail('Z', 0, 2, 200), &[])
            .links("20/task/20/fd", &[])
            .links("20/task/21/fd", &[(4, "socket:[7]")])
            .process(30, &tail('Z', 0, 1, 300), &[])
            .process(40, &tail('S', 0x0020_0000, 1, 1), &[]);
        let found = find(tree.0.path(), |_| true).unwrap();
        assert_eq!(found, Found { holders: vec![(7, holder(20, 200, 4))], unreadable_processes: 0 });
    }

    #[test]
    fn what_vanished_is_not_unreadable_and_what_is_broken_is() {
        let tree = Tree::new();
        tree.process(50, &tail('S', 0, 1, 1), &[(3, "socket:[7]")]);
        // Ended after its descriptors were listed, and before.
        tree.process(51, &tail('S', 0, 1, 1), &[(3, "socket:[7]")]);
        fs::remove_file(tree.0.path().join("51/stat")).unwrap();
        fs::create_dir(tree.0.path().join("52")).unwrap();
        // No process at all.
        fs::write(tree.0.path().join("53"), "").unwrap();
        // Not the kernel's format.
        tree.process(54, "S 1", &[(3, "socket:[7]")]);
        let found = find(tree.0.path(), |_| true).unwrap();
        assert_eq!(found, Found { holders: vec![(7, holder(50, 1, 3))], unreadable_processes: 1 });
        assert!(matches!(find(&tree.0.path().join("none"), |_| true), Err(InventoryError::Proc { .. })));
    }
}
