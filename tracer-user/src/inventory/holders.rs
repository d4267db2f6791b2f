//! Who holds a socket: every process' descriptors, matched by inode. Opener and holder are two facts; this is the
//! second one, and only for processes that may be read.
//!
//! One pass over `/proc/PID/fd` of all processes is the rule: forks, SCM_RIGHTS and pidfd_getfd hand descriptors to
//! processes nobody would think of. Socket inodes are the host's: one pass serves every network namespace.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use tracer_core::event::ProcessId;
use tracer_core::inventory::Holder;

use super::dirents::Link;
use super::{InventoryError, dirents};
use crate::process::files::{STAT_MAX, Stat, bounded};

/// What a look at the descriptors found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Socket inode and holder, by inode, then by process; one entry a process and inode, with the lowest descriptor.
    pub holders: Vec<(u64, Holder)>,
    /// Processes whose descriptors may not be read. Those that ended meanwhile do not count.
    pub unreadable_processes: u32,
    /// The first process is not listed, which means that others are not, either (`hidepid`).
    pub hidden_processes: bool,
    /// Descriptors of network namespaces, the first of each: namespace, process, descriptor.
    pub(super) namespaces: Vec<(u32, u32, u32)>,
}

/// Threads with a descriptor table of their own: process and thread.
pub type Threads = BTreeSet<(u32, u32)>;

/// Most namespaces, and most threads, that are remembered by descriptor.
const REMEMBERED_MOST: usize = 4_096;

/// Every holder of a socket whose inode `wanted` accepts. The tables of `threads` are looked at besides their process'.
pub fn find(proc_root: &Path, threads: &Threads, wanted: impl Fn(u64) -> bool) -> Result<Found, InventoryError> {
    let root = open_root(proc_root)?;
    let mut look = Look::new(root.as_fd(), threads, wanted);
    let mut first_listed = false;
    // A buffer of its own: the walk over the processes is not finished while one of them is looked at.
    dirents::numbers(root.as_fd(), &mut vec![0; dirents::BUFFER_BYTES], |pid, name| {
        first_listed |= pid == 1;
        look.process(pid, name);
    })
    .map_err(|errno| InventoryError::Proc { path: proc_root.to_owned(), source: errno.into() })?;
    let mut found = look.found;
    found.holders.sort_unstable();
    found.hidden_processes = !first_listed;
    Ok(found)
}

/// Threads whose own descriptor table has a wanted socket. Threads share the process' table unless they asked not to
/// (`unshare(CLONE_FILES)`), so this long way is for sockets that nobody seems to hold.
pub fn threads_with(proc_root: &Path, wanted: impl Fn(u64) -> bool) -> Result<Threads, InventoryError> {
    let root = open_root(proc_root)?;
    let none = Threads::new();
    let mut look = Look::new(root.as_fd(), &none, wanted);
    let mut with = Threads::new();
    dirents::numbers(root.as_fd(), &mut vec![0; dirents::BUFFER_BYTES], |pid, name| {
        // A process that is gone or may not be read is passed over: the usual way has counted it.
        let Ok(process) = openat(root.as_fd(), name, PATH.union(OFlag::O_DIRECTORY), Mode::empty()) else { return };
        let Ok(tids) = look.tids(&process) else { return };
        for tid in tids.into_iter().filter(|tid| *tid != pid && has_own_table(pid, *tid)) {
            look.matches.clear();
            if look.thread(&process, tid).is_ok() && !look.matches.is_empty() && with.len() < REMEMBERED_MOST {
                with.insert((pid, tid));
            }
        }
    })
    .map_err(|errno| InventoryError::Proc { path: proc_root.to_owned(), source: errno.into() })?;
    Ok(with)
}

/// Whether a thread has another descriptor table than its process' first thread. Unknown (a kernel without kcmp(2)) is
/// no.
fn has_own_table(pid: u32, tid: u32) -> bool {
    /// `enum kcmp_type` (include/uapi/linux/kcmp.h).
    const KCMP_FILES: libc::c_int = 2;
    // SAFETY: kcmp with KCMP_FILES takes numbers only.
    let outcome = unsafe { libc::syscall(libc::SYS_kcmp, pid, tid, KCMP_FILES, 0, 0) };
    outcome > 0
}

pub(super) fn open_root(proc_root: &Path) -> Result<OwnedFd, InventoryError> {
    open(proc_root, DIRECTORY, Mode::empty())
        .map_err(|errno| InventoryError::Proc { path: proc_root.to_owned(), source: errno.into() })
}

pub(super) const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);
const PATH: OFlag = OFlag::O_PATH.union(OFlag::O_CLOEXEC);

/// A pass under way.
struct Look<'a, Wanted> {
    root: BorrowedFd<'a>,
    threads: &'a Threads,
    wanted: Wanted,
    buffer: Vec<u8>,
    /// The process being looked at.
    pid: u32,
    /// Inode and descriptor of its matches.
    matches: Vec<(u64, u32)>,
    /// It lists descriptors that may not be read.
    denied: bool,
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
    fn new(root: BorrowedFd<'a>, threads: &'a Threads, wanted: Wanted) -> Self {
        let buffer = vec![0; dirents::BUFFER_BYTES];
        Self { root, threads, wanted, buffer, pid: 0, matches: Vec::new(), denied: false, found: Found::default() }
    }

    fn process(&mut self, pid: u32, name: &CStr) {
        self.pid = pid;
        self.matches.clear();
        self.denied = false;
        let unreadable = match self.descriptors(pid, name) {
            Ok(()) | Err(Miss::Nothing) => self.denied,
            Err(Miss::Unreadable) => true,
        };
        self.found.unreadable_processes += u32::from(unreadable);
    }

    /// All descriptors of one process. Its directory stays open from first to last: through it, a later process of the
    /// same pid cannot be mistaken for this one.
    fn descriptors(&mut self, pid: u32, name: &CStr) -> Result<(), Miss> {
        let process = openat(self.root, name, PATH.union(OFlag::O_DIRECTORY), Mode::empty())?;
        let listed = match openat(&process, c"fd", DIRECTORY, Mode::empty()) {
            Ok(dir) => self.table(dir.as_fd())?,
            Err(errno @ (Errno::EACCES | Errno::EPERM)) => return denied(&process, errno),
            Err(errno) => return Err(errno.into()),
        };
        if listed == 0 {
            self.other_threads(&process)?;
        }
        for (_, tid) in self.threads.range((pid, 0)..=(pid, u32::MAX)) {
            // Gone, or of a later process: then it has nothing that is wanted.
            let _ = self.thread(&process, *tid);
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
            match dirents::link(dir, name) {
                Ok(Link::Socket(inode)) if (self.wanted)(inode) => self.matches.push((inode, fd)),
                Ok(Link::Netns(netns)) if self.found.namespaces.len() < REMEMBERED_MOST => {
                    if !self.found.namespaces.iter().any(|(known, ..)| *known == netns) {
                        self.found.namespaces.push((netns, self.pid, fd));
                    }
                }
                // To list takes less privilege than to read.
                Err(Errno::EACCES | Errno::EPERM) => self.denied = true,
                Ok(_) | Err(_) => {}
            }
        })?;
        Ok(listed)
    }

    /// The table of one thread; how many descriptors it has.
    fn thread(&mut self, process: &OwnedFd, tid: u32) -> Result<usize, Miss> {
        let Ok(path) = CString::new(format!("task/{tid}/fd")) else { return Ok(0) };
        let dir = openat(process, path.as_c_str(), DIRECTORY, Mode::empty())?;
        self.table(dir.as_fd())
    }

    fn tids(&mut self, process: &OwnedFd) -> Result<Vec<u32>, Miss> {
        let tasks = openat(process, c"task", DIRECTORY, Mode::empty())?;
        let mut tids = Vec::new();
        dirents::numbers(tasks.as_fd(), &mut self.buffer, |tid, _| tids.push(tid))?;
        Ok(tids)
    }

    /// A process whose first thread has ended lists no descriptors, although its other threads have them.
    fn other_threads(&mut self, process: &OwnedFd) -> Result<(), Miss> {
        let stat = stat(process)?;
        if stat.kernel_thread || stat.state != b'Z' || stat.threads < 2 {
            return Ok(());
        }
        for tid in self.tids(process)? {
            // Threads share one table unless they asked not to.
            if self.thread(process, tid).is_ok_and(|listed| listed > 0) {
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
        let found = find(tree.0.path(), &Threads::new(), |inode| inode < 10).unwrap();
        assert_eq!(found.holders, [(7, holder(9, 90, 5)), (7, holder(10, 100, 3)), (8, holder(9, 90, 6))]);
        assert_eq!(found.unreadable_processes, 0);

        assert!(found.hidden_processes, "the first process is not listed");
        tree.process(1, &tail('S', 0, 1, 1), &[(3, "net:[8]")]);
        let found = find(tree.0.path(), &Threads::new(), |_| false).unwrap();
        assert_eq!(found, Found { namespaces: vec![(8, 1, 3)], ..Found::default() });
    }

    #[test]
    fn a_process_without_its_first_thread_still_holds() {
        let tree = Tree::new();
        tree.process(20, &tail('Z', 0, 2, 200), &[])
            .links("20/task/20/fd", &[])
            .links("20/task/21/fd", &[(4, "socket:[7]")])
            .process(30, &tail('Z', 0, 1, 300), &[])
            .process(40, &tail('S', 0x0020_0000, 1, 1), &[]);
        let found = find(tree.0.path(), &Threads::new(), |_| true).unwrap();
        assert_eq!((found.holders, found.unreadable_processes), (vec![(7, holder(20, 200, 4))], 0));
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
        let found = find(tree.0.path(), &Threads::new(), |_| true).unwrap();
        assert_eq!((found.holders, found.unreadable_processes), (vec![(7, holder(50, 1, 3))], 1));
        assert!(matches!(
            find(&tree.0.path().join("none"), &Threads::new(), |_| true),
            Err(InventoryError::Proc { .. })
        ));
    }
}
