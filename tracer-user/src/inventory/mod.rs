//! What the kernel says is true right now: the socket tables (sock_diag) of every network namespace and who holds which
//! descriptor (/proc).
//!
//! Gathers, judges nothing: matching sockets to what events told is the tracker's work. The root of /proc is handed in.

mod dirents;
pub mod door;
mod glance;
pub mod holders;
mod host;
mod inet_diag;
mod namespaces;
mod netns;
mod network;
mod own;
mod path_wire;
mod paths;
mod pids;
mod place;
mod port_filter;
mod recognize;
mod roles;
mod sock_diag;
mod tables;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;

use tracer_core::event::Tuple;
use tracer_core::inventory::{Glance, Holder, Inventory, RecognizedPort};
use tracer_core::ports::PortMap;
use tracer_core::time::BootNs;

use door::Door;
use holders::Threads;
use namespaces::{Mounts, Ways};
use recognize::{Candidates, Recognizer};
use tables::Turns;

pub use host::host;
pub use inet_diag::WireError;
pub(crate) use inet_diag::tcp_info as socket_info;
pub(crate) use namespaces::open as open_netns;
pub use netns::own_netns;
pub use own::{OwnUse, own_use};
pub use pids::host_pids;
pub(crate) use sock_diag::{again, command};

/// What to look for, and where.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Ports that make a socket interesting, on either end.
    pub ports: PortMap,
    /// Where /proc is mounted.
    pub proc_root: PathBuf,
    /// Every network namespace, or the calling thread's own only.
    pub namespaces: bool,
    /// Whether listeners tell of ports of known database servers.
    pub recognize: bool,
    /// Who enters other namespaces.
    pub door: Door,
}

/// Why the kernel's view could not be had.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// A call on the netlink socket failed.
    #[error("cannot {step}: {source}")]
    Netlink {
        /// What was tried.
        step: &'static str,
        /// The kernel's reason.
        source: std::io::Error,
    },
    /// The kernel's answer makes no sense, or is an error.
    #[error("socket table: {0}")]
    Wire(#[from] WireError),
    /// The kernel knows no such request: a module is missing, and could not be loaded.
    #[error(
        "the kernel cannot list its TCP sockets ({source}), because its modules inet_diag and tcp_diag are missing: run \
         `modprobe tcp_diag`, or install the modules of the running kernel"
    )]
    NoSocketDiag {
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// The request left in part; sock_diag takes it whole or not at all.
    #[error("sent {sent} of {of} bytes of the sock_diag request")]
    ShortRequest {
        /// Bytes sent.
        sent: usize,
        /// Bytes of the request.
        of: usize,
    },
    /// There is no thread to enter other network namespaces with.
    #[error("cannot look into other network namespaces: the thread for it failed: {source}")]
    Thread {
        /// Why.
        source: std::io::Error,
    },
    /// The table changed under every attempt.
    #[error("the socket table changed under each of {attempts} dumps")]
    Interrupted {
        /// How many dumps were tried.
        attempts: u32,
    },
    /// More watched sockets than one look takes.
    #[error("more than {most} sockets have a watched port")]
    TooManySockets {
        /// The bound.
        most: usize,
    },
    /// A file below /proc that has to be there cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Proc {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file below /proc does not have the kernel's format.
    #[error("{} is not what the kernel writes", path.display())]
    ProcFormat {
        /// Which.
        path: PathBuf,
    },
}

/// Looks at the host again and again, and remembers from one look to the next what makes the next one cheaper.
#[derive(Debug)]
pub struct Looker {
    settings: Settings,
    looks: u64,
    mounts: Mounts,
    /// Where the last look found each namespace.
    ways: Ways,
    /// Namespaces that a glance found no way into since.
    missed: HashSet<u32>,
    /// Descriptors of namespaces that the last pass over /proc came across.
    descriptors: Vec<(u32, u32, u32)>,
    /// Namespaces whose last table had nothing to watch, and at which look that was.
    quiet: HashMap<u32, u64>,
    recognizer: Recognizer,
    /// Threads that are known to have sockets in a descriptor table of their own.
    threads: Threads,
    /// Sockets that nobody was found to hold at the last look, and whether threads were searched for them.
    ownerless: HashMap<u64, bool>,
    unreadable_processes: u32,
    hidden_processes: bool,
}

/// Looks between two full passes over /proc where nothing asks for one, and between two searches for the same socket
/// among threads.
const LOOKS_BETWEEN_PASSES: u64 = 30;

impl Looker {
    /// One that has not looked yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            looks: 0,
            mounts: Mounts::default(),
            ways: Ways::new(),
            missed: HashSet::new(),
            descriptors: Vec::new(),
            quiet: HashMap::new(),
            recognizer: Recognizer::default(),
            threads: Threads::new(),
            ownerless: HashMap::new(),
            unreadable_processes: 0,
            hidden_processes: false,
        }
    }

    /// Watches further ports from the next look on.
    pub fn watch(&mut self, ports: &[RecognizedPort]) {
        for port in ports {
            self.settings.ports.insert(port.port, port.database.clone());
        }
    }

    /// Watches these ports and no others from the next look on.
    pub fn set_ports(&mut self, ports: PortMap) {
        self.settings.ports = ports;
        // What had nothing to watch may have something now.
        self.quiet.clear();
    }

    /// One look: each namespace's table between two readings of `now`, then the holders of its sockets and of the
    /// sockets `also` (namespace, inode number). Unless it is to be `thorough`, namespaces that had nothing to watch take
    /// turns if together they take long.
    pub fn look(
        &mut self,
        also: &BTreeSet<(u32, u64)>,
        thorough: bool,
        now: &(impl Fn() -> BootNs + Sync),
    ) -> Result<Inventory, InventoryError> {
        self.looks += 1;
        let known: BTreeSet<u32> = self.descriptors.iter().map(|(netns, ..)| *netns).collect();
        let (wanted, also) = (also, also.iter().map(|(_, inode)| *inode).collect());
        let turns = self.turns(wanted, thorough);
        let inventory = self.look_once(&also, &turns, now)?;
        let seen = |netns: &u32| {
            known.contains(netns)
                || inventory.unreachable.contains(netns)
                || inventory.skipped.contains(netns)
                || inventory.tables.iter().any(|table| table.netns == *netns)
        };
        if !self.settings.namespaces || self.descriptors.iter().all(|(netns, ..)| seen(netns)) {
            return Ok(inventory);
        }
        // The pass over the descriptors has come across namespaces that nothing else leads to.
        let again = self.look_once(&also, &turns, now)?;
        Ok(Inventory { recognized: [inventory.recognized, again.recognized].concat(), ..again })
    }

    /// Asks about these sockets alone (both ends, and the cookie if it is known, else 0). A namespace that is newer than the
    /// last look is searched for, once until the next look.
    pub fn glance(
        &mut self,
        asked: &glance::Asked,
        now: &(impl Fn() -> BootNs + Sync),
    ) -> Result<Glance, InventoryError> {
        let Settings { proc_root, door, .. } = &self.settings;
        let mut missed = HashSet::new();
        let mut found = glance::glance(proc_root, door, &self.ways, asked, &mut missed, now)?;
        missed.retain(|netns| self.settings.namespaces && self.missed.insert(*netns));
        if missed.is_empty() {
            return Ok(found);
        }
        self.ways = namespaces::find(proc_root, &mut self.mounts, &self.descriptors)?;
        let rest: Vec<(Tuple, u64)> = asked.iter().filter(|(of, _)| missed.contains(&of.netns())).copied().collect();
        let again = glance::glance(proc_root, door, &self.ways, &rest, &mut missed, now)?;
        found.sockets.extend(again.sockets);
        found.paths.extend(again.paths);
        found.finished = again.finished;
        Ok(found)
    }

    /// The tables alone, without holders.
    pub fn tables(&mut self, now: &(impl Fn() -> BootNs + Sync)) -> Result<Inventory, InventoryError> {
        self.read_tables(&Turns::default(), now).map(|read| read.inventory)
    }

    /// Which namespaces may wait: those that had nothing to watch and where nothing is known to have come since.
    fn turns(&self, wanted: &BTreeSet<(u32, u64)>, thorough: bool) -> Turns {
        if thorough {
            return Turns::default();
        }
        let busy: HashSet<u32> = wanted.iter().map(|(netns, _)| *netns).collect();
        self.quiet.iter().filter(|(netns, _)| !busy.contains(netns)).map(|(netns, look)| (*netns, *look)).collect()
    }

    fn read_tables(
        &mut self,
        turns: &Turns,
        now: &(impl Fn() -> BootNs + Sync),
    ) -> Result<tables::Read, InventoryError> {
        let Settings { ports, proc_root, namespaces, door, .. } = &self.settings;
        let started = now();
        let ways = match namespaces {
            true => namespaces::find(proc_root, &mut self.mounts, &self.descriptors)?,
            false => Ways::new(),
        };
        let read = tables::read(&tables::Where { proc_root, door, ports, ways: &ways, turns }, started, now)?;
        // What is gone is forgotten.
        self.quiet.retain(|netns, _| ways.contains_key(netns));
        for table in &read.inventory.tables {
            if table.sockets.is_empty() {
                self.quiet.insert(table.netns, self.looks);
            } else {
                self.quiet.remove(&table.netns);
            }
        }
        self.ways = ways;
        self.missed.clear();
        Ok(read)
    }

    fn look_once(
        &mut self,
        also: &BTreeSet<u64>,
        turns: &Turns,
        now: &(impl Fn() -> BootNs + Sync),
    ) -> Result<Inventory, InventoryError> {
        let tables::Read { mut inventory, listeners } = self.read_tables(turns, now)?;
        let all = inventory.skipped.is_empty();
        let candidates = match self.settings.recognize {
            true => self.recognizer.candidates(&listeners, all, &self.settings.ports),
            false => Candidates::new(),
        };
        let rows = Rows::of(&inventory);
        let is_wanted =
            |inode: u64| rows.0.contains_key(&inode) || candidates.contains_key(&inode) || also.contains(&inode);
        let idle = rows.0.is_empty() && candidates.is_empty() && also.is_empty();
        if !idle || self.looks % LOOKS_BETWEEN_PASSES == 1 {
            let proc_root = &self.settings.proc_root;
            let found = holders::find(proc_root, &self.threads, is_wanted)?;
            inventory.held = also.iter().map(|inode| (*inode, Vec::new())).collect();
            rows.assign(&mut inventory, &found.holders);
            inventory.recognized = self.recognizer.judge(proc_root, &listeners, &candidates, &found.holders);
            self.unreadable_processes = found.unreadable_processes;
            self.hidden_processes = found.hidden_processes;
            self.descriptors = found.namespaces;
            self.search_threads(&rows, &mut inventory)?;
        }
        inventory.recognized_without_room = self.recognizer.without_room();
        inventory.unreadable_processes = self.unreadable_processes;
        inventory.hidden_processes = self.hidden_processes;
        Ok(inventory)
    }

    /// A socket that had no holder twice in a row is searched for once among threads that share their process'
    /// descriptors with nobody. One that had none once was probably closed between dump and pass.
    fn search_threads(&mut self, rows: &Rows, inventory: &mut Inventory) -> Result<(), InventoryError> {
        if self.looks.is_multiple_of(LOOKS_BETWEEN_PASSES) {
            self.threads.clear();
            self.ownerless.clear();
        }
        let ownerless = inventory.sockets().filter(|socket| socket.inode != 0 && socket.holders.is_empty());
        let now: HashMap<u64, bool> =
            ownerless.map(|socket| (socket.inode, self.ownerless.contains_key(&socket.inode))).collect();
        let before = std::mem::replace(&mut self.ownerless, now);
        let is_due = |(inode, searched): &(u64, bool)| !searched && self.ownerless.contains_key(inode);
        let due: HashSet<u64> = before.into_iter().filter(is_due).map(|(inode, _)| inode).collect();
        if due.is_empty() {
            return Ok(());
        }
        let proc_root = &self.settings.proc_root;
        let threads = holders::threads_with(proc_root, |inode| due.contains(&inode))?;
        if !threads.is_empty() {
            self.threads.extend(threads);
            let found = holders::find(proc_root, &self.threads, |inode| due.contains(&inode))?;
            rows.assign(inventory, &found.holders);
        }
        Ok(())
    }
}

/// Where the socket of an inode number is: which table, which row.
struct Rows(HashMap<u64, (usize, usize)>);

impl Rows {
    fn of(inventory: &Inventory) -> Self {
        let tables = inventory.tables.iter().enumerate();
        let rows = tables.flat_map(|(index, table)| {
            table.sockets.iter().enumerate().map(move |(row, socket)| (socket.inode, (index, row)))
        });
        Self(rows.filter(|(inode, _)| *inode != 0).collect())
    }

    /// Gives each socket its holders.
    fn assign(&self, inventory: &mut Inventory, holders: &[(u64, Holder)]) {
        for (inode, holder) in holders {
            let row = self.0.get(inode);
            let socket = row.and_then(|(table, row)| inventory.tables.get_mut(*table)?.sockets.get_mut(*row));
            if let Some(socket) = socket {
                socket.holders.push(*holder);
            }
            if let Some(held) = inventory.held.get_mut(inode) {
                held.push(*holder);
            }
        }
    }
}

#[cfg(test)]
mod tests;
