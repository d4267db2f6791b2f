//! The network namespaces of the host, and ways into them: through a process that is in one, a file it is mounted on,
//! or a descriptor somebody has of it. What has none of the three (a namespace kept by a socket alone, or by a thread
//! that left its process' namespace) is not found.
//!
//! Nothing here outlives a look: an open namespace file, or a socket made inside, would keep the namespace in existence
//! after its container is gone.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::openat;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;

use super::dirents::Link;
use super::door::{Door, Thing};
use super::holders::{DIRECTORY, open_root};
use super::place::Place;
use super::{InventoryError, dirents};

/// Most namespaces of one look.
pub(super) const NAMESPACES_MAX: usize = 4_096;
/// Ways kept for one namespace: a process may end before it is used.
const WAYS_MAX: usize = 4;
/// Bytes of a list of mounts that are read.
const MOUNTS_MAX: u64 = 16 << 20;

/// A way into a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// A process is in it.
    Process(u32),
    /// Process and descriptor.
    Descriptor(u32, u32),
    /// A file that it is mounted on.
    File(PathBuf),
}

impl Way {
    fn path(&self, proc_root: &Path) -> PathBuf {
        match self {
            Self::Process(pid) => proc_root.join(format!("{pid}/ns/net")),
            Self::Descriptor(pid, fd) => proc_root.join(format!("{pid}/fd/{fd}")),
            Self::File(path) => path.clone(),
        }
    }
}

/// Inode numbers of namespaces, and some ways into each.
pub(super) type Ways = BTreeMap<u32, Vec<Way>>;

fn add(ways: &mut Ways, netns: u32, way: impl FnOnce() -> Way) {
    let known = ways.entry(netns).or_default();
    if known.len() < WAYS_MAX {
        known.push(way());
    }
}

/// Every namespace that a process is in, that is mounted, or that `descriptors` (namespace, process, descriptor) lead to.
pub(super) fn find(
    proc_root: &Path,
    mounts: &mut Mounts,
    descriptors: &[(u32, u32, u32)],
) -> Result<Ways, InventoryError> {
    let root = open_root(proc_root)?;
    let mut ways = Ways::new();
    let mut walk = |pid, name: &std::ffi::CStr| match netns_link(root.as_fd(), name.to_bytes(), b"/ns/net") {
        Ok(Some(netns)) => add(&mut ways, netns, || Way::Process(pid)),
        // Ended, or its first thread has: another one may go on.
        Err(Errno::ENOENT) => {
            if let Some((netns, tid)) = of_threads(root.as_fd(), pid) {
                add(&mut ways, netns, || Way::File(proc_root.join(format!("{pid}/task/{tid}/ns/net"))));
            }
        }
        Ok(None) | Err(_) => {}
    };
    dirents::numbers(root.as_fd(), &mut vec![0; dirents::BUFFER_BYTES], &mut walk)
        .map_err(|errno| InventoryError::Proc { path: proc_root.to_owned(), source: errno.into() })?;
    for (netns, path) in mounts.namespaces(proc_root) {
        add(&mut ways, *netns, || Way::File(path.clone()));
    }
    for (netns, pid, fd) in descriptors {
        add(&mut ways, *netns, || Way::Descriptor(*pid, *fd));
    }
    Ok(ways)
}

/// The namespace that the link at `name` with `rest` appended leads to.
fn netns_link(root: BorrowedFd<'_>, name: &[u8], rest: &[u8]) -> Result<Option<u32>, Errno> {
    let path = CString::new([name, rest].concat()).map_err(|_| Errno::EINVAL)?;
    Ok(match dirents::link(root, &path)? {
        Link::Netns(netns) => Some(netns),
        Link::Socket(_) | Link::Other => None,
    })
}

/// The namespace of a thread of a process whose first thread has ended, and which thread.
fn of_threads(root: BorrowedFd<'_>, pid: u32) -> Option<(u32, u32)> {
    let tasks = openat(root, format!("{pid}/task").as_str(), DIRECTORY, Mode::empty()).ok()?;
    let mut found = None;
    let first = |tid, name: &std::ffi::CStr| {
        if found.is_none() {
            let netns = netns_link(tasks.as_fd(), name.to_bytes(), b"/ns/net").ok().flatten();
            found = netns.map(|netns| (netns, tid));
        }
    };
    dirents::numbers(tasks.as_fd(), &mut [0; 4_096], first).ok()?;
    found
}

/// What came of an attempt to enter.
#[derive(Debug)]
pub(super) enum Entered<'a> {
    /// It can be asked.
    Yes(Place<'a>),
    /// It is gone, or every way into it.
    Gone,
    /// It is there and may not be entered.
    Refused(Errno),
}

/// Finds a way into a namespace, and opens these things in it ([`Place::enter`]).
pub(super) fn enter<'a>(proc_root: &'a Path, door: &'a Door, netns: u32, ways: &[Way], ahead: &[Thing]) -> Entered<'a> {
    let mut outcome = Entered::Gone;
    for way in ways {
        let entered = match open_way(&way.path(proc_root), netns) {
            Ok(Some(file)) => Place::enter(proc_root, door, file, ahead),
            Ok(None) => continue,
            Err(errno) => Err(errno),
        };
        match entered {
            Ok(place) => return Entered::Yes(place),
            Err(errno) => outcome = Entered::Refused(errno),
        }
    }
    outcome
}

/// A file of a namespace, if there is a way to one.
pub(crate) fn open(proc_root: &Path, netns: u32) -> Result<Option<File>, InventoryError> {
    let ways = find(proc_root, &mut Mounts::default(), &[])?;
    let ways = ways.get(&netns).map(Vec::as_slice).unwrap_or_default();
    Ok(ways.iter().find_map(|way| open_way(&way.path(proc_root), netns).ok().flatten()))
}

/// None if the file is gone or is of another namespace now.
fn open_way(path: &Path, netns: u32) -> Result<Option<File>, Errno> {
    let errno = |error: &io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) => match errno(&error) {
            Errno::ENOENT | Errno::ESRCH | Errno::ENOTDIR => return Ok(None),
            other => return Err(other),
        },
    };
    let is_it = file.metadata().map_err(|error| errno(&error))?.ino() == u64::from(netns);
    Ok(is_it.then_some(file))
}

/// Namespaces that are mounted somewhere (`ip netns`, CNI). Lists of mounts can be long: they are read again only when
/// the kernel says that they changed.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    lists: Option<Vec<List>>,
    found: Vec<(u32, PathBuf)>,
}

#[derive(Debug)]
struct List {
    file: File,
    /// What stands before a path in it: a way into that mount namespace.
    root: PathBuf,
    found: Vec<(u32, PathBuf)>,
    read: bool,
}

impl Mounts {
    fn namespaces(&mut self, proc_root: &Path) -> &[(u32, PathBuf)] {
        let lists = self.lists.get_or_insert_with(|| lists(proc_root));
        // Each has to be asked.
        let changed = lists.iter_mut().map(List::refresh).filter(|changed| *changed).count();
        if changed > 0 {
            self.found = lists.iter().flat_map(|list| list.found.iter().cloned()).collect();
        }
        &self.found
    }
}

/// Our own mounts, and those of the first process where it lives in another mount namespace: a service may see less.
fn lists(proc_root: &Path) -> Vec<List> {
    let open = |path: &str, root: PathBuf| {
        let file = File::open(proc_root.join(path)).ok()?;
        Some(List { file, root, found: Vec::new(), read: false })
    };
    let mount_ns = |of: &str| std::fs::read_link(proc_root.join(of).join("ns/mnt")).ok();
    let own = open("self/mountinfo", PathBuf::new());
    let first = match (mount_ns("self"), mount_ns("1")) {
        (Some(own), Some(first)) if own != first => open("1/mountinfo", proc_root.join("1/root")),
        _ => None,
    };
    own.into_iter().chain(first).collect()
}

impl List {
    /// Reads it if it changed; whether it did.
    fn refresh(&mut self) -> bool {
        if self.read && !self.has_changed() {
            return false;
        }
        self.read = true;
        let mut bytes = Vec::new();
        let read = self.file.rewind().and_then(|()| (&self.file).take(MOUNTS_MAX).read_to_end(&mut bytes));
        if let Err(error) = read {
            tracing::debug!(%error, "cannot read the list of mounts");
        }
        self.found = bytes.split(|byte| *byte == b'\n').filter_map(|line| mounted(line, &self.root)).collect();
        true
    }

    /// The kernel marks a list of mounts as exceptional once, when it has changed since (`mounts_poll`).
    fn has_changed(&self) -> bool {
        let mut polled = [PollFd::new(self.file.as_fd(), PollFlags::POLLPRI)];
        let told = PollFlags::POLLPRI | PollFlags::POLLERR;
        poll(&mut polled, PollTimeout::ZERO).is_err() || polled[0].revents().is_some_and(|seen| seen.intersects(told))
    }
}

/// `ID PARENT DEV net:[INODE] PATH OPTIONS ... - nsfs ...`
fn mounted(line: &[u8], root: &Path) -> Option<(u32, PathBuf)> {
    let mut fields = line.split(|byte| *byte == b' ');
    let inode = std::str::from_utf8(fields.nth(3)?.strip_prefix(b"net:[")?.strip_suffix(b"]")?).ok()?.parse().ok()?;
    let path = unescape(fields.next()?);
    let mut kind = fields.skip_while(|field| *field != b"-");
    if kind.nth(1)? != b"nsfs" {
        return None;
    }
    let path = Path::new(std::ffi::OsStr::from_bytes(&path)).strip_prefix("/").ok()?.to_owned();
    Some((inode, if root.as_os_str().is_empty() { Path::new("/").join(path) } else { root.join(path) }))
}

/// The kernel writes space, tab, newline and backslash as `\` and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let code = match (first, tail.first_chunk::<3>()) {
            (b'\\', Some(digits)) => std::str::from_utf8(digits).ok().and_then(|text| u8::from_str_radix(text, 8).ok()),
            _ => None,
        };
        match code {
            Some(byte) => {
                out.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A fake /proc.
    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new() -> Self {
            let tree = Self(tempfile::tempdir().unwrap());
            tree.put("self/mountinfo", "");
            tree
        }

        fn put(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }

        fn link(&self, path: &str, target: &str) {
            let path = self.0.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(target, path).unwrap();
        }

        fn find(&self, descriptors: &[(u32, u32, u32)]) -> Ways {
            find(self.0.path(), &mut Mounts::default(), descriptors).unwrap()
        }
    }

    #[test]
    fn processes_mounts_and_descriptors_lead_into_namespaces() {
        let tree = Tree::new();
        for pid in 10..20 {
            tree.link(&format!("{pid}/ns/net"), "net:[7]");
        }
        tree.link("20/ns/net", "net:[8]");
        // Its first thread has ended.
        tree.link("30/task/31/ns/net", "net:[9]");
        std::fs::create_dir_all(tree.0.path().join("40/ns")).unwrap();
        tree.put(
            "self/mountinfo",
            "40 22 0:4 net:[10] /run/netns/a\\040b\\134 rw shared:1 - nsfs nsfs rw\n\
             41 22 0:4 mnt:[11] /run/other rw - nsfs nsfs rw\n\
             42 22 0:4 net:[12] /fake rw - ext4 /dev/sda rw\n\
             43 22 0:4 / / rw - ext4 /dev/sda rw\nshort\n",
        );
        let ways = tree.find(&[(8, 99, 3), (13, 99, 4)]);
        assert_eq!(ways.keys().copied().collect::<Vec<_>>(), [7, 8, 9, 10, 13]);
        assert_eq!(ways[&7].len(), WAYS_MAX);
        assert_eq!(ways[&8], [Way::Process(20), Way::Descriptor(99, 3)]);
        assert_eq!(ways[&9], [Way::File(tree.0.path().join("30/task/31/ns/net"))]);
        assert_eq!(ways[&10], [Way::File(PathBuf::from("/run/netns/a b\\"))]);
        assert_eq!(ways[&13], [Way::Descriptor(99, 4)]);
    }

    #[test]
    fn the_first_process_mounts_count_where_they_are_others() {
        let tree = Tree::new();
        tree.put("1/mountinfo", "40 22 0:4 net:[10] /run/netns/a rw - nsfs nsfs rw\n");
        tree.link("self/ns/mnt", "mnt:[1]");
        tree.link("1/ns/mnt", "mnt:[1]");
        assert!(tree.find(&[]).is_empty());
        std::fs::remove_file(tree.0.path().join("1/ns/mnt")).unwrap();
        tree.link("1/ns/mnt", "mnt:[2]");
        assert_eq!(tree.find(&[])[&10], [Way::File(tree.0.path().join("1/root/run/netns/a"))]);
    }

    #[test]
    fn what_is_gone_or_another_namespace_is_not_entered() {
        let tree = Tree::new();
        tree.put("10/ns/net", "");
        // A file with another inode number than the namespace's, and none at all.
        let enter = |netns, ways: &[Way]| format!("{:?}", enter(tree.0.path(), &Door::Thread, netns, ways, &[]));
        assert_eq!(enter(7, &[Way::Process(10), Way::Process(11)]), "Gone");
        let inode = u32::try_from(std::fs::metadata(tree.0.path().join("10/ns/net")).unwrap().ino()).unwrap();
        // The right number on a file that is no namespace: the kernel refuses.
        assert_eq!(enter(inode, &[Way::Process(10)]), "Refused(EINVAL)");
    }
}
