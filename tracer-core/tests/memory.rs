//! What a live connection costs in memory: counted at the allocator, in a process of its own.
#![expect(clippy::unwrap_used, reason = "a scene that cannot be built fails its test")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};

use tracer_core::event::{Comm, Event, ProcessId, Role, SocketEvent, SocketEventKind, Task, Totals, Tuple};
use tracer_core::inventory::{Certainty, Holder, Inventory, SocketInfo, SocketRow, Table};
use tracer_core::ports::PortMap;
use tracer_core::socket::BYTES_PER_CONNECTION;
use tracer_core::tcp::TcpState;
use tracer_core::time::BootNs;
use tracer_core::tracker::{Bounds, Tracker};

/// Counts what is allocated, in the sizes that malloc gives out: multiples of 16 with a header of 8.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn given_out(size: usize) -> usize {
    (size + 8).next_multiple_of(16).max(32)
}

// SAFETY: every call is handed on to the system's allocator unchanged; counting touches atomics only.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(given_out(layout.size()), Ordering::Relaxed) + given_out(layout.size());
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller's promise is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(given_out(layout.size()), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const CONNECTIONS: u32 = 100_000;
const SECOND: u64 = 1_000_000_000;

fn tuple(number: u32) -> Tuple {
    let local = Ipv4Addr::from(0x7f00_0001 + number / 28_000);
    let port = u16::try_from(32_768 + number % 28_000).unwrap();
    Tuple::new(7, SocketAddr::from((local, port)), SocketAddr::from(([127, 0, 0, 1], 5432)))
}

fn process(number: u32) -> ProcessId {
    ProcessId { pid: 1 + number / 20_000, start_ticks: 100 }
}

fn open(number: u32) -> Event {
    let at = BootNs(2 * SECOND + u64::from(number));
    Event::Socket(SocketEvent {
        kind: SocketEventKind::Open,
        at,
        sk: 64 * u64::from(1 + number),
        birth: Some(at),
        established: Some(at),
        tuple: tuple(number),
        role: Role::Client,
        old_state: TcpState::SynSent,
        new_state: TcpState::Established,
        opener: Some(Task { id: process(number), uid: 0, comm: Comm(*b"client\0\0\0\0\0\0\0\0\0\0") }),
        closer: None,
        inode: Some(1 + number),
        error: 0,
        totals: Totals::default(),
    })
}

fn look(at: u64, rows: u32) -> Inventory {
    let row = |number| SocketRow {
        tuple: tuple(number),
        role: Role::Client,
        certainty: Certainty::Sure,
        state: TcpState::Established,
        uid: 0,
        inode: u64::from(1 + number),
        cookie: u64::from(1 + number),
        info: Some(SocketInfo { bytes_sent: 1, bytes_received: 1, ..SocketInfo::default() }),
        holders: [Holder { process: process(number), fd: number }].into_iter().collect(),
    };
    let sockets = (0..rows).map(row).collect();
    Inventory::of(Table { netns: 7, started: BootNs(at), finished: BootNs(at + 1), sockets, ..Table::default() })
}

/// One test: another one in this process would be counted, too.
#[test]
fn a_live_connection_costs_what_is_documented() {
    let mut tracker = Tracker::new(Bounds::default(), PortMap::default(), BTreeMap::new());
    tracker.apply_inventory(look(SECOND, 0));
    let before = LIVE.load(Ordering::Relaxed);
    for number in 0..CONNECTIONS {
        tracker.apply(&open(number));
    }
    let each = |bytes: usize| bytes / usize::try_from(CONNECTIONS).unwrap();
    let after_events = each(LIVE.load(Ordering::Relaxed) - before);
    let inventory = look(4 * SECOND, CONNECTIONS);
    let row = each(LIVE.load(Ordering::Relaxed) - before) - after_events;
    tracker.apply_inventory(inventory);
    tracker.apply_inventory(look(6 * SECOND, CONNECTIONS));
    let after_looks = each(LIVE.load(Ordering::Relaxed) - before);
    let peak = each(PEAK.load(Ordering::Relaxed) - before);
    println!(
        "bytes a connection: {after_events} from events, {after_looks} with looks, {row} for a row, {peak} at the peak"
    );
    assert_eq!(tracker.sockets().filter(|socket| !socket.holders.is_empty()).count(), CONNECTIONS as usize);
    assert!(after_looks <= BYTES_PER_CONNECTION, "{after_looks} bytes a connection");
    assert!(peak <= BYTES_PER_CONNECTION + 200, "{peak} bytes a connection at the peak");
    // What ended leaves room for what comes.
    for number in 0..CONNECTIONS {
        let Event::Socket(event) = open(number) else { continue };
        tracker.apply(&Event::Socket(SocketEvent { kind: SocketEventKind::End, at: BootNs(8 * SECOND), ..event }));
    }
    assert_eq!(tracker.sockets().count(), 0);
    let empty = each(LIVE.load(Ordering::Relaxed) - before);
    for number in 0..CONNECTIONS {
        let Event::Socket(event) = open(number) else { continue };
        let established = Some(BootNs(10 * SECOND));
        tracker.apply(&Event::Socket(SocketEvent {
            at: BootNs(10 * SECOND),
            birth: established,
            established,
            ..event
        }));
    }
    let again = each(LIVE.load(Ordering::Relaxed) - before);
    assert!(again <= empty + 16, "{again} bytes a connection the second time, {empty} left by the first");
}
