//! What a record, an event, a look, a pass of the detectors and a snapshot cost: `cargo bench -p tracer-core`.
//!
//! The tracker is filled as a host fills it: by events, then by a look that finds the same sockets and who holds them.
#![expect(clippy::unwrap_used, reason = "a scene that cannot be built ends the benchmark")]

mod mixed;
#[path = "../tests/recorded/mod.rs"]
mod recorded;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tracer_core::decode::decode;
use tracer_core::detect::{DetectConfig, Store};
use tracer_core::event::{Comm, Event, ProcessId, Role, SocketEvent, SocketEventKind, Task, Totals, Tuple};
use tracer_core::finding::Kind;
use tracer_core::inventory::{Certainty, Holder, Inventory, SocketInfo, SocketRow, Table};
use tracer_core::ports::PortMap;
use tracer_core::snapshot::{Host, Limit, LimitSource, Mode};
use tracer_core::tcp::TcpState;
use tracer_core::time::{BootNs, WallAnchor};
use tracer_core::tracker::{About, Bounds, EndpointRule, Tracker};

use mixed::Mix;
use recorded::records;

const SECOND: u64 = 1_000_000_000;
const NETNS: u32 = 4_026_531_840;
const PROCESSES: u32 = 1_000;

fn database() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 5], 5432))
}

fn process(number: u32) -> ProcessId {
    ProcessId { pid: 1_000 + number % PROCESSES, start_ticks: 100 }
}

/// The connection with that number: its ends differ from those of every other one.
fn tuple(number: u32) -> Tuple {
    let local = Ipv4Addr::from(0x0a00_0100 + number / 50_000);
    let port = u16::try_from(10_000 + number % 50_000).unwrap();
    Tuple::new(NETNS, SocketAddr::from((local, port)), database())
}

fn event(kind: SocketEventKind, number: u32, at: u64, established: u64) -> Event {
    let opener = Task { id: process(number), uid: 0, comm: Comm(*b"worker.py\0\0\0\0\0\0\0") };
    let (old_state, new_state) = match kind {
        SocketEventKind::Open => (TcpState::SynSent, TcpState::Established),
        SocketEventKind::State => (TcpState::Established, TcpState::FinWait1),
        _ => (TcpState::FinWait2, TcpState::Close),
    };
    Event::Socket(SocketEvent {
        kind,
        at: BootNs(at),
        sk: 0xffff_8880_0000_0000 + u64::from(number) * 2_368,
        birth: Some(BootNs(established - 50_000)),
        established: Some(BootNs(established)),
        tuple: tuple(number),
        role: Role::Client,
        old_state,
        new_state,
        opener: Some(opener),
        closer: None,
        inode: Some(1_000 + number),
        error: 0,
        totals: Totals::default(),
    })
}

fn row(number: u32) -> SocketRow {
    SocketRow {
        tuple: tuple(number),
        role: Role::Client,
        certainty: Certainty::Sure,
        state: if number.is_multiple_of(100) { TcpState::CloseWait } else { TcpState::Established },
        uid: 0,
        inode: u64::from(1_000 + number),
        cookie: u64::from(1 + number),
        info: Some(SocketInfo { bytes_sent: 100, bytes_received: 100, ..SocketInfo::default() }),
        holders: [Holder { process: process(number), fd: 3 + number / PROCESSES }].into_iter().collect(),
    }
}

fn look(count: u32, at: u64) -> Inventory {
    let sockets = (0..count).map(row).collect();
    Inventory::of(Table {
        netns: NETNS,
        started: BootNs(at),
        finished: BootNs(at + SECOND / 10),
        sockets,
        ..Table::default()
    })
}

/// A tracker that events and a look have told of so many live connections.
fn tracker(count: u32) -> Tracker {
    let limit = Some(Limit { value: 100, source: LimitSource::Config });
    let rules = BTreeMap::from([(database(), EndpointRule { limit, ..EndpointRule::default() })]);
    let mut tracker = Tracker::new(Bounds::default(), PortMap::default(), rules);
    tracker.apply_inventory(look(0, SECOND));
    for number in 0..count {
        let at = 2 * SECOND + u64::from(number);
        tracker.apply(&event(SocketEventKind::Open, number, at, at));
    }
    tracker.apply_inventory(look(count, 4 * SECOND));
    tracker
}

fn decoding(criterion: &mut Criterion) {
    let records: Vec<&[u8]> =
        records().into_iter().filter(|record| matches!(decode(record), Ok(Event::Socket(_)))).collect();
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Elements(u64::try_from(records.len()).unwrap()));
    group.bench_function("recorded_socket_records", |bencher| {
        bencher.iter(|| {
            for record in &records {
                black_box(decode(black_box(record)).unwrap());
            }
        });
    });
    group.finish();
}

/// Short lives on top of 10,000 live connections: what a flood of connects does.
fn applying(criterion: &mut Criterion) {
    const LIVE: u32 = 10_000;
    let flood = |kinds: &'static [SocketEventKind]| {
        let mut tracker = tracker(LIVE);
        let (mut number, mut now) = (LIVE, 10 * SECOND);
        move || {
            // As many ports as a client has before it begins again.
            number = if number == LIVE + 28_000 { LIVE } else { number + 1 };
            now += 25_000;
            for (step, kind) in (0u64..).zip(kinds) {
                black_box(tracker.apply(&event(*kind, number, now + step, now)));
            }
        }
    };
    let cases: [(&str, &[SocketEventKind]); 3] = [
        ("open_end", &[SocketEventKind::Open, SocketEventKind::End]),
        ("open_state_end", &[SocketEventKind::Open, SocketEventKind::State, SocketEventKind::End]),
        ("end_alone", &[SocketEventKind::End]),
    ];
    let mut group = criterion.benchmark_group("apply");
    for (name, kinds) in cases {
        group.throughput(Throughput::Elements(u64::try_from(kinds.len()).unwrap()));
        group.bench_function(name, |bencher| bencher.iter(flood(kinds)));
    }
    group.finish();
}

fn reconciling(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("reconcile");
    group.sample_size(20);
    for count in [1_000, 100_000] {
        let mut tracker = tracker(count);
        let mut at = 10 * SECOND;
        let mut next = || {
            at += SECOND;
            look(count, at)
        };
        group.throughput(Throughput::Elements(u64::from(count)));
        group.bench_function(format!("look_of_{count}"), |bencher| {
            bencher.iter_batched(&mut next, |look| tracker.apply_inventory(look), BatchSize::PerIteration);
        });
    }
    group.finish();
}

/// A pass over the connections and every detector; then the pass alone; then with a finding for each process.
fn judging(criterion: &mut Criterion) {
    let anchor = WallAnchor { boot: BootNs(0), unix_ns: 1_700_000_000_000_000_000 };
    let mut group = criterion.benchmark_group("detect");
    group.sample_size(30);
    let mixed = mixed::host(Mix::Mixed);
    let leaks = mixed::host(Mix::Leaks);
    for (name, (tracker, looked), enabled) in [
        ("100k_connections_1k_processes", &mixed, true),
        ("100k_connections_no_detector", &mixed, false),
        ("100k_connections_1k_leaks", &leaks, true),
    ] {
        let (looked, mut config, mut store) = (*looked, DetectConfig::default(), Store::default());
        let mut now = looked;
        Kind::ALL.into_iter().for_each(|kind| config.enable(kind, enabled));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                // Within a window, so that the last look is a fresh one.
                now = if now.since(looked) > Duration::from_secs(8) {
                    looked
                } else {
                    now.plus(Duration::from_millis(1))
                };
                black_box(store.run(tracker, &config, now, &anchor))
            });
        });
        let mut kinds = BTreeMap::<&str, usize>::new();
        for finding in store.findings(&anchor) {
            *kinds.entry(finding.kind.name()).or_default() += 1;
        }
        // What the time was for.
        eprintln!("findings: {kinds:?}");
    }
    group.finish();
}

/// What is put aside for the state file every few seconds, and what that costs while the tracker waits: accounts with a
/// day behind them, as many as have a history.
fn keeping(criterion: &mut Criterion) {
    const ACCOUNTS: u32 = 2_048;
    const STEP: u64 = 10 * SECOND;
    const DAY: u64 = 86_400 * SECOND;
    let mut tracker = Tracker::new(Bounds::default(), PortMap::default(), BTreeMap::new());
    tracker.apply_inventory(look(0, SECOND));
    for number in 0..ACCOUNTS {
        let at = 2 * SECOND + u64::from(number);
        let Event::Socket(mut opened) = event(SocketEventKind::Open, number, at, at) else { return };
        let id = ProcessId { pid: 10_000 + number, start_ticks: 100 };
        opened.opener = opened.opener.map(|task| Task { id, ..task });
        tracker.apply(&Event::Socket(opened));
    }
    // Looks move every history on; those of an hour ago fill the coarse steps.
    for at in (DAY - 8_640 * STEP..DAY).step_by(usize::try_from(STEP * 60).unwrap()).chain([DAY - STEP, DAY]) {
        tracker.apply_inventory(look(ACCOUNTS, at));
    }
    let mut group = criterion.benchmark_group("state");
    group.sample_size(20);
    group.bench_function("keep_2048_accounts", |bencher| {
        bencher.iter_with_large_drop(|| black_box(tracker.keep("boot", BootNs(DAY))));
    });
    group.bench_function("encode_2048_accounts", |bencher| {
        let state = tracker.keep("boot", BootNs(DAY));
        bencher.iter_with_large_drop(|| black_box(state.encode().unwrap()));
    });
    eprintln!("state: {} bytes", tracker.keep("boot", BootNs(DAY)).encode().unwrap().len());
    group.finish();
}

fn photographing(criterion: &mut Criterion) {
    let tracker = tracker(100_000);
    let anchor = WallAnchor { boot: BootNs(0), unix_ns: 1_700_000_000_000_000_000 };
    let host = Host {
        hostname: "db1".to_owned(),
        kernel: String::new(),
        arch: String::new(),
        boot_id: String::new(),
        socklife_version: String::new(),
    };
    let (probes, drop_reasons) = (Vec::new(), BTreeMap::new());
    let started = BootNs(SECOND);
    let about = About {
        host,
        mode: Mode::Ebpf,
        started,
        probes,
        drop_reasons,
        host_pids: true,
        config: tracer_core::setup::InForce::default(),
    };
    let store = Store::default();
    let mut group = criterion.benchmark_group("snapshot");
    group.sample_size(10);
    group.bench_function("100k_connections", |bencher| {
        bencher.iter(|| black_box(tracker.snapshot(&about, &store, BootNs(100 * SECOND), &anchor)));
    });
    group.finish();
}

criterion_group!(benches, decoding, applying, reconciling, judging, keeping, photographing);
criterion_main!(benches);
