//! The socket tables of this and every other network namespace. Nobody goes there for it: what is read is opened by way of
//! the [`Door`].

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

use tracer_core::event::Tuple;
use tracer_core::inventory::{Holders, Inventory, Network, PathRow, SocketRow, Table};
use tracer_core::ports::PortMap;
use tracer_core::tcp::TcpState;
use tracer_core::time::BootNs;

use super::door::{self, Door};
use super::namespaces::{self, Entered, NAMESPACES_MAX, Way, Ways};
use super::place::Place;
use super::port_filter::PortFilter;
use super::recognize::Listener;
use super::roles::{LocalPorts, local_port_range};
use super::{InventoryError, netns, network, paths, sock_diag};

/// A look without holders.
pub(super) struct Read {
    pub inventory: Inventory,
    /// Every listener of every namespace.
    pub listeners: Vec<Listener>,
}

/// Namespaces that may be left for a later look, and the look that read them last.
pub(super) type Turns = HashMap<u32, u64>;

/// What those may take of one look, all together. A dump walks the whole host's hash table, so the price of a namespace
/// is that of all sockets of the host.
const TURNS_MOST: Duration = Duration::from_millis(5);

/// What to read.
pub(super) struct Where<'a> {
    pub proc_root: &'a Path,
    pub door: &'a Door,
    pub ports: &'a PortMap,
    pub ways: &'a Ways,
    pub turns: &'a Turns,
}

/// Reads the calling thread's table and those of the namespaces that the ways lead into. Only the own one has to
/// succeed.
pub(super) fn read(place: &Where<'_>, started: BootNs, now: &impl Fn() -> BootNs) -> Result<Read, InventoryError> {
    let Where { proc_root, door, ports, ways, turns } = *place;
    let home = netns::own_netns(proc_root)?;
    let order = order(ways, turns, home);
    let mut reader = Reader {
        ports,
        filter: PortFilter::new(ports),
        now,
        buffer: vec![0; sock_diag::BUFFER_BYTES],
        sockets: 0,
        paths_asked: 0,
        read: Read { inventory: Inventory { started, ..Inventory::default() }, listeners: Vec::new() },
    };
    reader.table(&Place::here(proc_root), home)?;
    elsewhere(&mut reader, proc_root, door, &order);
    reader.read.inventory.finished = now();
    Ok(reader.read)
}

/// A namespace to visit: the look that read it last if it may wait, its inode number, and ways into it.
type Visit<'a> = (Option<u64>, u32, &'a [Way]);

/// Those that cannot wait, then those that have waited longest.
fn order<'a>(ways: &'a Ways, turns: &Turns, home: u32) -> Vec<Visit<'a>> {
    let elsewhere = ways.iter().filter(|(netns, _)| **netns != home);
    let mut order: Vec<Visit<'a>> =
        elsewhere.map(|(netns, ways)| (turns.get(netns).copied(), *netns, ways.as_slice())).collect();
    order.sort_by_key(|(last, netns, _)| (*last, *netns));
    order
}

/// The other namespaces, one after the other.
fn elsewhere<Now: Fn() -> BootNs>(reader: &mut Reader<'_, Now>, proc_root: &Path, door: &Door, order: &[Visit<'_>]) {
    let (counts, mut turns_began) = (door::files(&COUNTS), None);
    for (index, (may_wait, netns, ways)) in order.iter().enumerate() {
        if may_wait.is_some() && turns_began.get_or_insert_with(Instant::now).elapsed() > TURNS_MOST {
            reader.read.inventory.skipped.push(*netns);
            continue;
        }
        if index >= NAMESPACES_MAX {
            reader.read.inventory.unreachable.push(*netns);
            continue;
        }
        match namespaces::enter(proc_root, door, *netns, ways, &counts) {
            Entered::Yes(place) => reader.table_elsewhere(&place, *netns),
            Entered::Gone => {}
            Entered::Refused(errno) => {
                tracing::debug!(netns, %errno, "cannot enter a network namespace");
                reader.read.inventory.unreachable.push(*netns);
            }
        }
    }
}

struct Reader<'a, Now> {
    ports: &'a PortMap,
    filter: PortFilter,
    now: &'a Now,
    buffer: Vec<u8>,
    /// Sockets so far.
    sockets: usize,
    /// Connections that connection tracking was asked about so far.
    paths_asked: usize,
    read: Read,
}

impl<Now: Fn() -> BootNs> Reader<'_, Now> {
    /// The table of another namespace.
    fn table_elsewhere(&mut self, place: &Place<'_>, netns: u32) {
        let started = (self.now)();
        if is_without_tcp(place) {
            let table = Table { netns, started, finished: (self.now)(), ..Table::default() };
            self.read.inventory.tables.push(table);
        } else if let Err(error) = self.table(place, netns) {
            tracing::warn!(netns, %error, "cannot read the socket table of a network namespace");
            self.read.inventory.unreachable.push(netns);
        }
    }

    fn table(&mut self, place: &Place<'_>, netns: u32) -> Result<(), InventoryError> {
        let ports = self.ports;
        let started = (self.now)();
        let most = sock_diag::MAX_SOCKETS.saturating_sub(self.sockets);
        let dumped = sock_diag::dump(place, &self.filter, &mut self.buffer, most, |row| {
            let (local, remote) = (row.local.port(), row.remote.port());
            // A socket caught on its way in or out of the table may show a port as 0: the next dump knows better.
            let whole = local != 0 && remote != 0;
            row.state == TcpState::Listen || (whole && (ports.contains(local) || ports.contains(remote)))
        })?;
        let finished = (self.now)();

        let (listeners, rows): (Vec<_>, Vec<_>) = dumped.into_iter().partition(|row| row.state == TcpState::Listen);
        let listening: HashSet<u16> = listeners.iter().map(|row| row.local.port()).collect();
        let listeners = listeners.into_iter();
        let listeners = listeners.map(|row| Listener { netns, port: row.local.port(), inode: u64::from(row.inode) });
        self.read.listeners.extend(listeners);
        let mut sockets = Vec::with_capacity(rows.len());
        if !rows.is_empty() {
            let local_ports = LocalPorts { listening, chosen: local_port_range(place) };
            sockets.extend(rows.into_iter().filter_map(|row| {
                let (role, certainty) = local_ports.role(ports, row.local, row.remote)?;
                Some(SocketRow {
                    role,
                    certainty,
                    tuple: Tuple::new(netns, row.local, row.remote),
                    state: row.state,
                    uid: row.uid,
                    inode: u64::from(row.inode),
                    cookie: row.cookie,
                    info: row.info,
                    holders: Holders::default(),
                })
            }));
        }
        self.sockets += sockets.len();
        let network = (!sockets.is_empty()).then(|| network::read(place));
        let paths = self.paths(place, &sockets, network.as_ref());
        self.read.inventory.tables.push(Table { netns, started, finished, sockets, network, paths });
        Ok(())
    }

    /// What this namespace knows of connections that are idle or in trouble.
    fn paths(&mut self, place: &Place<'_>, sockets: &[SocketRow], network: Option<&Network>) -> Vec<PathRow> {
        let asked =
            sockets.iter().filter_map(|row| paths::Asked::of(row.tuple, row.state, row.info.as_ref()?)).collect();
        let tracks = network.is_some_and(|network| network.tracked > Some(0));
        let rows = paths::ask(place, asked, paths::MOST_ASKED.saturating_sub(self.paths_asked), tracks);
        self.paths_asked += rows.len();
        rows
    }
}

/// Files that tell whether a namespace has TCP sockets.
const COUNTS: [&str; 2] = ["thread-self/net/sockstat6", "thread-self/net/sockstat"];

/// Whether a namespace has no TCP socket at all, listeners included: most namespaces of most hosts.
/// Asking costs a twentieth of a dump, which walks the whole host's hash table. Unknown is no.
fn is_without_tcp(place: &Place<'_>) -> bool {
    let inuse = |file: &str, name: &str| -> Option<u64> {
        let text = match place.read(file, 4_096) {
            Ok(file) => String::from_utf8(file.bytes).ok()?,
            // There is none where IPv6 is off.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && name == "TCP6" => return Some(0),
            Err(_) => return None,
        };
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": inuse ")?.split(' ').next()?.parse().ok())
    };
    inuse(COUNTS[0], "TCP6") == Some(0) && inuse(COUNTS[1], "TCP") == Some(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busy_come_first_and_the_quiet_take_turns() {
        let ways = Ways::from([1, 2, 3, 4, 5].map(|netns| (netns, vec![Way::Process(netns)])));
        let turns = Turns::from([(1, 30), (2, 10), (4, 20)]);
        let visited: Vec<u32> = order(&ways, &turns, 5).iter().map(|(_, netns, _)| *netns).collect();
        assert_eq!(visited, [3, 2, 4, 1]);
    }

    #[test]
    fn namespaces_without_tcp_are_told_by_their_counters() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("thread-self/net");
        std::fs::create_dir_all(&dir).unwrap();
        let check = |v4: &str, v6: &str, expected: bool| {
            std::fs::write(dir.join("sockstat"), v4).unwrap();
            std::fs::write(dir.join("sockstat6"), v6).unwrap();
            assert_eq!(is_without_tcp(&Place::here(root.path())), expected, "{v4:?} {v6:?}");
        };
        let none = "sockets: used 3\nTCP: inuse 0 orphan 0 tw 1 alloc 1 mem 0\nUDP: inuse 1 mem 0\n";
        check(none, "TCP6: inuse 0\nUDP6: inuse 2\n", true);
        check(none, "TCP6: inuse 1\n", false);
        check("TCP: inuse 12 orphan 0\n", "TCP6: inuse 0\n", false);
        check("something else", "TCP6: inuse 0\n", false);
        std::fs::remove_file(dir.join("sockstat6")).unwrap();
        std::fs::write(dir.join("sockstat"), none).unwrap();
        assert!(is_without_tcp(&Place::here(root.path())));
        std::fs::remove_file(dir.join("sockstat")).unwrap();
        assert!(!is_without_tcp(&Place::here(root.path())));
    }
}
