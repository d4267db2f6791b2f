//! Own loopback sockets in the own network namespace: no privilege needed, the real kernel answers.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::socket::{setsockopt, sockopt::KeepAlive};
use tracer_core::event::{ProcessId, Role};
use tracer_core::inventory::{Certainty, Holder, SocketRow};
use tracer_core::tcp::TcpState;

use super::place::Place;
use super::roles::{DEFAULT_LOCAL_PORTS, LocalPorts, local_port_range};
use super::*;
use crate::clock::boot_clock;
use crate::process::files::{STAT_MAX, Stat, read_bounded};

fn watching(port: u16) -> PortMap {
    let mut ports = PortMap::default();
    ports.insert(port, "test".to_owned());
    ports
}

fn looker(ports: PortMap) -> Looker {
    Looker::new(Settings {
        ports,
        proc_root: PathBuf::from("/proc"),
        namespaces: false,
        recognize: false,
        door: Door::Thread,
    })
}

fn look(port: u16, with_holders: bool) -> Inventory {
    let mut looker = looker(watching(port));
    match with_holders {
        true => looker.look(&BTreeSet::new(), true, &boot_clock).unwrap(),
        false => looker.tables(&boot_clock).unwrap(),
    }
}

/// A listener and one connection to it, on ports that are not watched by default.
fn connected(listen: &str) -> (TcpListener, TcpStream, TcpStream) {
    let defaults = PortMap::default();
    loop {
        let listener = TcpListener::bind(listen).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        if [client.local_addr(), client.peer_addr()].into_iter().all(|end| !defaults.contains(end.unwrap().port())) {
            return (listener, client, server);
        }
    }
}

fn find_row(inventory: &Inventory, local: SocketAddr, remote: SocketAddr) -> Option<&SocketRow> {
    let mut rows = inventory.sockets().filter(|row| row.tuple.local() == local && row.tuple.remote() == remote);
    let row = rows.next();
    assert!(rows.next().is_none(), "{local} appears twice");
    row
}

fn row_of<'a>(inventory: &'a Inventory, stream: &TcpStream) -> Option<&'a SocketRow> {
    find_row(inventory, stream.local_addr().unwrap(), stream.peer_addr().unwrap())
}

fn own_id() -> ProcessId {
    let stat = Stat::parse(&read_bounded(Path::new("/proc/self/stat"), STAT_MAX).unwrap().bytes).unwrap();
    ProcessId { pid: std::process::id(), start_ticks: stat.start_ticks }
}

#[test]
fn both_ends_with_their_holders_and_counters() {
    let (listener, mut client, mut server) = connected("127.0.0.1:0");
    setsockopt(&client, KeepAlive, &true).unwrap();
    client.write_all(&[1; 300]).unwrap();
    server.read_exact(&mut [0; 300]).unwrap();
    server.write_all(&[1; 70]).unwrap();
    client.read_exact(&mut [0; 70]).unwrap();
    let again = client.try_clone().unwrap();

    let before = boot_clock();
    let port = listener.local_addr().unwrap().port();
    let inventory = look(port, true);
    assert!(before <= inventory.started && inventory.started < inventory.finished);
    assert_eq!(u64::from(inventory.tables[0].netns), std::fs::metadata("/proc/self/ns/net").unwrap().ino());
    assert!(inventory.sockets().all(|row| row.state != TcpState::Listen));

    let row = row_of(&inventory, &client).unwrap();
    let fd = client.as_raw_fd().min(again.as_raw_fd());
    assert_eq!(row.holders, [Holder { process: own_id(), fd: u32::try_from(fd).unwrap() }]);
    assert_eq!((row.role, row.state), (Role::Client, TcpState::Established));
    assert_eq!(row.uid, nix::unistd::geteuid().as_raw());
    let info = row.info.unwrap();
    assert_eq!((info.bytes_sent, info.bytes_received, info.keepalive), (300, 70, Some(true)));
    assert!(info.srtt_us.is_some() && info.last_data_sent_ms < 60_000 && info.last_data_received_ms < 60_000);

    let other = row_of(&inventory, &server).unwrap();
    assert_eq!(other.role, Role::Server);
    let info = other.info.unwrap();
    assert_eq!((info.bytes_sent, info.bytes_received), (70, 300));
    assert_ne!((other.inode, other.cookie), (row.inode, row.cookie));
    assert_eq!(row.cookie, socket_cookie(&client));

    let without = look(port, false);
    assert!(row_of(&without, &client).unwrap().holders.is_empty());
}

/// `SO_COOKIE`, the kernel's own name for the socket's life.
fn socket_cookie(stream: &TcpStream) -> u64 {
    let mut cookie = 0u64;
    let mut len = libc::socklen_t::try_from(size_of::<u64>()).unwrap();
    // SAFETY: `cookie` is 8 bytes, `len` says so, both outlive the call; the descriptor is open.
    let outcome = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_COOKIE,
            (&raw mut cookie).cast::<libc::c_void>(),
            &raw mut len,
        )
    };
    assert_eq!(outcome, 0);
    cookie
}

#[test]
fn ipv6_and_v4_mapped_addresses() {
    let (listener, client, _server) = connected("[::1]:0");
    let inventory = look(listener.local_addr().unwrap().port(), false);
    assert_eq!(row_of(&inventory, &client).unwrap().role, Role::Client);

    // A dual-stack listener: the server's end is an IPv6 socket with v4-mapped addresses.
    let listener = TcpListener::bind("[::]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (server, _) = listener.accept().unwrap();
    assert!(server.local_addr().unwrap().is_ipv6());
    let inventory = look(port, false);
    let (local, remote) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
    assert_eq!(find_row(&inventory, local, remote).unwrap().role, Role::Client);
    assert_eq!(find_row(&inventory, remote, local).unwrap().role, Role::Server);
}

#[test]
fn other_ports_stay_in_the_kernel() {
    let (_listener, client, server) = connected("127.0.0.1:0");
    let inventory = look(1, false);
    assert!(row_of(&inventory, &client).is_none() && row_of(&inventory, &server).is_none());
}

#[test]
fn more_ports_than_a_filter_takes_still_find_exactly_the_watched_ones() {
    let (listener, client, _server) = connected("127.0.0.1:0");
    let (_other, unwatched, _) = connected("127.0.0.1:0");
    let port = listener.local_addr().unwrap().port();
    let mut ports = watching(port);
    for i in 0..700u16 {
        ports.insert(1000 + 2 * i, "many".to_owned());
    }
    let inventory = looker(ports).tables(&boot_clock).unwrap();
    assert!(row_of(&inventory, &client).is_some());
    assert!(row_of(&inventory, &unwatched).is_none());
}

/// Sends our FIN and waits until its acknowledgement is here: the peer's byte carries it.
fn half_close(client: &mut TcpStream, server: &mut TcpStream) {
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(server.read(&mut [0; 1]).unwrap(), 0);
    server.write_all(&[1]).unwrap();
    client.read_exact(&mut [0; 1]).unwrap();
}

#[test]
fn half_closed_connections_keep_their_states() {
    let (listener, mut client, mut server) = connected("127.0.0.1:0");
    half_close(&mut client, &mut server);
    let inventory = look(listener.local_addr().unwrap().port(), false);
    let check = |stream: &TcpStream, state: TcpState, sent: u64, received: u64| {
        let row = row_of(&inventory, stream).unwrap();
        let info = row.info.unwrap();
        assert_eq!((row.state, info.bytes_sent, info.bytes_received), (state, sent, received));
    };
    check(&client, TcpState::FinWait2, 0, 1);
    // The client's FIN is no byte of data.
    check(&server, TcpState::CloseWait, 1, 0);
}

#[test]
fn time_wait_in_its_fin_wait2_disguise_is_left_out() {
    let (listener, mut client, mut server) = connected("127.0.0.1:0");
    let (local, remote) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
    half_close(&mut client, &mut server);
    // Now nobody holds it any more: the kernel keeps a mini-socket in substate FIN_WAIT2.
    drop(client);
    let inventory = look(listener.local_addr().unwrap().port(), false);
    assert!(find_row(&inventory, local, remote).is_none());
    assert_eq!(find_row(&inventory, remote, local).unwrap().state, TcpState::CloseWait);
}

#[test]
fn which_side() {
    let ports = watching(40_000);
    let check = |listening: &[u16], local: &str, remote: &str, expected: Option<Role>| {
        let local_ports = LocalPorts { listening: listening.iter().copied().collect(), chosen: DEFAULT_LOCAL_PORTS };
        let role = local_ports.role(&ports, local.parse().unwrap(), remote.parse().unwrap());
        let sure = role.filter(|(_, certainty)| *certainty == Certainty::Sure).map(|(role, _)| role);
        assert_eq!(sure, expected, "{local} -> {remote}, listening {listening:?}");
    };
    check(&[], "10.0.0.1:50001", "10.0.0.5:5432", Some(Role::Client));
    check(&[5432], "10.0.0.5:5432", "10.0.0.1:50001", Some(Role::Server));
    check(&[], "10.0.0.1:50001", "10.0.0.5:443", None);
    // The listener has closed since.
    check(&[], "10.0.0.5:5432", "10.0.0.1:50001", Some(Role::Server));
    // A client whose local port happens to be a watched one, and the other end of it.
    check(&[], "10.0.0.1:40000", "10.0.0.5:5432", Some(Role::Client));
    check(&[5432], "10.0.0.5:5432", "10.0.0.1:40000", Some(Role::Server));
    // A database in the range of clients' ports, from both ends.
    check(&[], "10.0.0.1:33000", "10.0.0.5:40000", Some(Role::Client));
    check(&[40_000], "10.0.0.5:40000", "10.0.0.1:33000", Some(Role::Server));
    // Not databases at all: the other end, or this one, happens to have a watched port.
    check(&[80], "10.0.0.1:80", "10.0.0.5:40000", None);
    check(&[], "10.0.0.1:80", "10.0.0.5:40000", None);
    check(&[], "10.0.0.1:40000", "10.0.0.5:443", None);
    check(&[50_051], "10.0.0.1:50051", "10.0.0.5:40000", None);
    check(&[50_051], "127.0.0.1:40000", "127.0.0.1:50051", None);
    // A database that talks to another, on one host and on two.
    check(&[3306, 5432], "127.0.0.1:3306", "127.0.0.1:40001", Some(Role::Server));
    check(&[5432], "127.0.0.1:40000", "127.0.0.1:5432", Some(Role::Client));
    check(&[6379], "10.0.0.1:6379", "10.0.0.5:6379", Some(Role::Server));
}

#[test]
fn the_range_of_local_ports_comes_from_the_kernel() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("sys/net/ipv4");
    assert_eq!(local_port_range(&Place::here(root.path())), DEFAULT_LOCAL_PORTS);
    std::fs::create_dir_all(&dir).unwrap();
    for (text, expected) in
        [("1024\t65000\n", 1024..=65000), ("1024", DEFAULT_LOCAL_PORTS), ("a b", DEFAULT_LOCAL_PORTS)]
    {
        std::fs::write(dir.join("ip_local_port_range"), text).unwrap();
        assert_eq!(local_port_range(&Place::here(root.path())), expected, "{text}");
    }
}

#[test]
fn without_proc_there_is_an_error_that_names_the_file() {
    let root = tempfile::tempdir().unwrap();
    let settings = Settings {
        ports: PortMap::default(),
        proc_root: root.path().to_owned(),
        namespaces: false,
        recognize: false,
        door: Door::Thread,
    };
    let error = Looker::new(settings).look(&BTreeSet::new(), true, &boot_clock).unwrap_err();
    assert!(error.to_string().contains("thread-self/ns/net"), "{error}");
}
