//! Database servers on ports nobody named: a listener whose process runs a known server's program makes its port a
//! watched one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use tracer_core::event::ProcessId;
use tracer_core::inventory::{Holder, RecognizedPort};
use tracer_core::ports::PortMap;
use tracer_core::servers::{self, Server};

use crate::process::files::{STAT_MAX, Stat, read_bounded};

/// Most ports that join by themselves: each costs the kernel's socket dump a comparison a socket.
pub(super) const RECOGNIZED_MAX: usize = 64;

/// A listener is looked at again after this many looks: it may have been handed to a server since (socket activation).
const LOOKS_BETWEEN_CHECKS: u64 = 30;

/// A listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Listener {
    pub netns: u32,
    pub port: u16,
    pub inode: u64,
}

/// Listeners to ask about, by inode.
pub(super) type Candidates = HashMap<u64, Listener>;

/// Remembers which listeners were looked at, so that only new ones cost anything.
#[derive(Debug, Default)]
pub(super) struct Recognizer {
    checked: HashSet<u64>,
    looks: u64,
    recognized: usize,
    without_room: HashSet<u16>,
}

impl Recognizer {
    /// The listeners on ports that are not watched and whose holder is not known to be something else.
    pub(super) fn candidates(&mut self, listeners: &[Listener], ports: &PortMap) -> Candidates {
        self.looks += 1;
        if self.looks.is_multiple_of(LOOKS_BETWEEN_CHECKS) {
            self.checked.clear();
        }
        let unwatched = || listeners.iter().filter(|listener| listener.inode != 0 && !ports.contains(listener.port));
        // What does not listen any more is forgotten.
        let still: HashSet<u64> = unwatched().map(|listener| listener.inode).collect();
        self.checked.retain(|inode| still.contains(inode));
        let new = unwatched().filter(|listener| !self.checked.contains(&listener.inode));
        new.map(|listener| (listener.inode, *listener)).collect()
    }

    /// Which of the candidates are servers', each port once. `listeners` are all there are, `holders` those of the
    /// candidates that were found.
    pub(super) fn judge(
        &mut self,
        proc_root: &Path,
        listeners: &[Listener],
        candidates: &Candidates,
        holders: &[(u64, Holder)],
    ) -> Vec<RecognizedPort> {
        let mut programs = HashMap::<ProcessId, Option<&'static Server>>::new();
        let mut found = BTreeMap::<u16, RecognizedPort>::new();
        for (inode, holder) in holders {
            let Some(listener) = candidates.get(inode) else { continue };
            self.checked.insert(*inode);
            let id = holder.process;
            let server = *programs.entry(id).or_insert_with(|| server(proc_root, id));
            let listens = |port| listeners.iter().any(|other| (other.netns, other.port) == (listener.netns, port));
            if let Some(server) = server.filter(|server| server.serves(listener.port, listens)) {
                found.entry(listener.port).or_insert_with(|| RecognizedPort {
                    port: listener.port,
                    database: server.database.to_owned(),
                    program: server.program.to_owned(),
                    pid: id.pid,
                    netns: listener.netns,
                });
            }
        }
        let room = RECOGNIZED_MAX.saturating_sub(self.recognized);
        let (taken, left): (Vec<_>, Vec<_>) = found.into_values().enumerate().partition(|(index, _)| *index < room);
        self.recognized += taken.len();
        for (_, port) in left {
            if self.without_room.insert(port.port) {
                let RecognizedPort { port, program, pid, .. } = &port;
                tracing::warn!(port, program, pid, most = RECOGNIZED_MAX, "too many database servers on other ports");
            }
        }
        taken.into_iter().map(|(_, port)| port).collect()
    }

    /// Ports that found no room.
    pub(super) fn without_room(&self) -> u32 {
        u32::try_from(self.without_room.len()).unwrap_or(u32::MAX)
    }
}

/// The database server that a process is: by its program's path, by its name only where the path may not be read.
fn server(proc_root: &Path, id: ProcessId) -> Option<&'static Server> {
    let dir: PathBuf = proc_root.join(id.pid.to_string());
    let exe = std::fs::read_link(dir.join("exe"));
    // Read after the link: the link was this process', and not that of a later one with its pid.
    let stat = Stat::parse(&read_bounded(&dir.join("stat"), STAT_MAX).ok()?.bytes)?;
    if stat.start_ticks != id.start_ticks {
        return None;
    }
    match exe {
        Ok(path) => servers::by_exe(&path.to_string_lossy()),
        Err(_) => servers::by_comm(&stat.comm_text()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A fake /proc.
    struct Tree(tempfile::TempDir);

    impl Tree {
        fn process(&self, pid: u32, comm: &str, exe: Option<&str>) {
            let dir = self.0.path().join(pid.to_string());
            std::fs::create_dir_all(&dir).unwrap();
            let stat = format!("{pid} ({comm}) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 100 0 0");
            std::fs::write(dir.join("stat"), stat).unwrap();
            if let Some(exe) = exe {
                symlink(exe, dir.join("exe")).unwrap();
            }
        }
    }

    fn holder(inode: u64, pid: u32) -> (u64, Holder) {
        (inode, Holder { process: ProcessId { pid, start_ticks: 100 }, fd: 3 })
    }

    fn listener(port: u16, inode: u64) -> Listener {
        Listener { netns: 7, port, inode }
    }

    fn ports(found: &[RecognizedPort]) -> Vec<(u16, &str, u32)> {
        found.iter().map(|each| (each.port, each.database.as_str(), each.pid)).collect()
    }

    #[test]
    fn servers_are_found_once_and_everything_else_is_asked_about_once() {
        let tree = Tree(tempfile::tempdir().unwrap());
        tree.process(10, "postgres", Some("/usr/lib/postgresql/15/bin/postgres"));
        tree.process(11, "postgres", Some("/usr/bin/python3.11"));
        tree.process(12, "redis-server", None);
        let mut map = PortMap::default();
        let mut recognizer = Recognizer::default();
        // A watched port, one server's on both families, a liar's, one nobody is known to hold, a redis with its bus
        // and the bus of one on a watched port.
        let all = [
            listener(5432, 1),
            listener(5499, 2),
            listener(5499, 3),
            listener(8000, 4),
            listener(8001, 5),
            listener(6400, 6),
            listener(16_400, 7),
            listener(6379, 8),
            listener(16_379, 9),
            listener(9999, 0),
        ];
        let candidates = recognizer.candidates(&all, &map);
        let mut inodes: Vec<u64> = candidates.keys().copied().collect();
        inodes.sort_unstable();
        assert_eq!(inodes, [2, 3, 4, 5, 6, 7, 9]);
        let holders =
            [holder(2, 10), holder(3, 10), holder(4, 11), holder(6, 12), holder(7, 12), holder(9, 12), holder(99, 10)];
        let found = recognizer.judge(tree.0.path(), &all, &candidates, &holders);
        assert_eq!(ports(&found), [(5499, "postgres", 10), (6400, "redis", 12)]);
        for each in found {
            map.insert(each.port, each.database);
        }
        // Only the one whose holder is unknown is asked about again, until all are after a while.
        let mut asked = Vec::new();
        for _ in 0..30 {
            asked.push(recognizer.candidates(&all, &map).len());
        }
        assert_eq!(asked[..28], [1; 28]);
        assert_eq!(asked[28..], [4, 4]);
    }

    #[test]
    fn a_pid_that_is_another_process_by_now_proves_nothing() {
        let tree = Tree(tempfile::tempdir().unwrap());
        tree.process(10, "postgres", Some("/usr/bin/postgres"));
        let mut recognizer = Recognizer::default();
        let all = [listener(5499, 2)];
        let candidates = recognizer.candidates(&all, &PortMap::default());
        let earlier = (2, Holder { process: ProcessId { pid: 10, start_ticks: 99 }, fd: 3 });
        assert!(recognizer.judge(tree.0.path(), &all, &candidates, &[earlier]).is_empty());
    }

    #[test]
    fn recognized_ports_are_bounded_and_the_rest_is_counted() {
        let tree = Tree(tempfile::tempdir().unwrap());
        tree.process(10, "postgres", Some("/usr/bin/postgres"));
        let mut recognizer = Recognizer::default();
        let all: Vec<Listener> = (0..70u16).map(|i| listener(20_000 + i, 100 + u64::from(i))).collect();
        let holders: Vec<_> = all.iter().map(|each| holder(each.inode, 10)).collect();
        let candidates = recognizer.candidates(&all, &PortMap::default());
        assert_eq!(recognizer.judge(tree.0.path(), &all, &candidates, &holders).len(), RECOGNIZED_MAX);
        assert_eq!(recognizer.without_room(), 6);
    }
}
