//! Bytes of recordings.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use proptest::prelude::*;
use tracer_core::detect::{Changes, DetectConfig, Ignore, Of, Scope};
use tracer_core::event::{AcceptsEvent, DropEvent, Event, ProcessId, Tuple};
use tracer_core::finding::Kind;
use tracer_core::glob::Glob;
use tracer_core::identity::Fnv1a;
use tracer_core::inventory::{
    Entry, EntryState, Glance, GlanceRow, Holder, Inventory, Network, PathRow, RecognizedPort, SocketInfo, Table,
    Timer, Tracked,
};
use tracer_core::ports::PortMap;
use tracer_core::recording::{FORMAT_VERSION, Frame, RecordingError};
use tracer_core::rules::{EndpointRule, Matcher, Rules};
use tracer_core::setup::{InForce, Setup};
use tracer_core::snapshot::{Limit, LimitSource, Loss};
use tracer_core::tcp::TcpState;
use tracer_core::time::{BootNs, WallTime};

use super::{bytes_of, decode, host, some_frames};

/// The kinds of frames that a quiet host's recording does not have, with every field in use.
fn rare_frames() -> Vec<Frame<'static>> {
    let at = BootNs(7);
    let id = ProcessId { pid: 4_000_000_000, start_ticks: u64::MAX };
    let (source, destination) = ("[::1]:1".parse().unwrap(), "10.0.0.5:5432".parse().unwrap());
    let drop = Event::Drop(DropEvent { at, source, destination, reason: 3 });
    let accepts = Event::Accepts(AcceptsEvent { at, process: id, total: u64::MAX });
    let port = RecognizedPort {
        port: 15_432,
        database: "postgres".to_owned(),
        program: "postgres".to_owned(),
        pid: 9,
        netns: 7,
    };
    let holders = vec![Holder { process: id, fd: 1 }, Holder { process: id, fd: 2 }];
    let entry = Entry { state: EntryState::ESTABLISHED, left_s: 30, translated: true };
    let entry = path(Some(Tracked::Entry(entry)), None);
    let look = Inventory {
        started: BootNs(1),
        finished: BootNs(2),
        unreachable: vec![1],
        skipped: vec![2, 3],
        held: BTreeMap::from([(5, holders), (6, Vec::new())]),
        unreadable_processes: 4,
        hidden_processes: true,
        recognized: vec![port],
        recognized_without_room: 8,
        tables: vec![Table { netns: 9, network: Some(network()), paths: vec![entry], ..Table::default() }],
    };
    let info =
        SocketInfo { probes: 1, backoff: 2, rto_ms: 3, segments_received: 4, timer_ms: 5, ..SocketInfo::default() };
    let row = GlanceRow {
        tuple: Tuple::new(7, destination, source),
        cookie: u64::MAX,
        state: TcpState::FinWait1,
        info: SocketInfo { timer: Timer::Probe, ..info },
    };
    let paths = vec![path(Some(Tracked::Absent), Some(113)), path(None, None)];
    let glance = Glance { started: BootNs(1), finished: BootNs(2), sockets: vec![row], paths };
    let loss = Loss { ring_full: 1, ends: 2, read_failed: 3, map_full: 4, program_skipped: 5, ..Loss::default() };
    vec![
        Frame::Events { at, events: Cow::Owned(vec![drop, accepts]) },
        Frame::Look { at, look: Cow::Owned(look) },
        Frame::Gone { at, id },
        Frame::Configured { at, setup: Cow::Owned(setup()) },
        Frame::Loss { at, loss, drops_untold: u64::MAX },
        Frame::LeftOut { at, frames: 2, events: 1_024 },
        Frame::Glance { at, glance: Cow::Owned(glance) },
        Frame::End { at },
    ]
}

fn setup() -> Setup {
    let mut ports = PortMap::none();
    ports.insert(1, "a".to_owned());
    let one = Matcher { ips: None, ports: (1, 2) };
    let limit = Some(Limit { value: 3, source: LimitSource::Config });
    let rule = EndpointRule { name: Some("n".to_owned()), limit, database: Some("d".to_owned()) };
    let mut changes = Changes::default();
    changes.enable(Kind::IdleHold, false);
    changes.set(Kind::IdleHold, "after_s", 7).unwrap();
    let glob = || Glob::from("g*".to_owned());
    let mut detect = DetectConfig::default();
    detect.change(&changes);
    detect.set_scopes(vec![
        Scope { of: Of::Endpoint("10.0.0.5:1".parse::<SocketAddr>().unwrap().into()), changes: changes.clone() },
        Scope { of: Of::Group(glob()), changes },
    ]);
    detect.ignores = vec![Ignore {
        kind: Some(Kind::LimitPressure),
        endpoints: Some(vec![one]),
        group: Some(glob()),
        exe: Some(glob()),
        script: Some(glob()),
        user: Some(glob()),
        unit: Some(glob()),
        until: Some(WallTime { unix_ms: 8 }),
        reason: "r".to_owned(),
    }];
    let in_force =
        InForce { generation: 2, hash: "h".to_owned(), loaded: BootNs(9), file: Some("/etc/socklife.toml".to_owned()) };
    Setup { ports, rules: Rules::new(vec![(one, rule)]), detect, in_force, cmdlines: Some(true) }
}

fn path(tracked: Option<Tracked>, no_route: Option<u16>) -> PathRow {
    let end = |end: &str| end.parse().unwrap();
    PathRow { tuple: Tuple::new(7, end("10.0.0.9:1"), end("10.0.0.5:2")), tracked, no_route }
}

fn network() -> Network {
    Network {
        keepalive_idle_s: Some(7_200),
        keepalive_interval_s: Some(75),
        keepalive_probes: Some(9),
        retries: Some(15),
        conntrack_s: Some(432_000),
        tracked: Some(3),
        tracked_most: Some(262_144),
        untracked_drops: Some(18),
        links: vec![("10.0.0.0".parse().unwrap(), 8), ("fd00::".parse().unwrap(), 64)],
    }
}

fn all_frames() -> Vec<Frame<'static>> {
    let mut frames = some_frames();
    frames.pop();
    frames.extend(rare_frames());
    frames
}

/// Frames have no order of their own; their text has every field.
fn shown(frames: &[Frame<'_>]) -> Vec<String> {
    frames.iter().map(|frame| format!("{frame:?}")).collect()
}

#[test]
fn every_kind_of_frame_comes_back_as_it_was() {
    let frames = all_frames();
    let bytes = bytes_of(&frames);
    for piece in [usize::MAX, 4_096, 7] {
        let (back, end) = decode(&bytes, piece);
        assert_eq!(end, Ok(0));
        assert_eq!(shown(&back), shown(&frames));
    }
}

/// The bytes of these frames may not change without the format's version. If this fails because a recorded type got a
/// field, or lost one: raise FORMAT_VERSION, and put the new hash here.
#[test]
fn the_format_has_this_version() {
    let mut hash = Fnv1a::default();
    hash.write(&bytes_of(&all_frames()));
    assert_eq!((FORMAT_VERSION, hash.to_string().as_str()), (4, "970566425893a98a"));
}

#[test]
fn a_recording_cut_off_anywhere_is_read_up_to_its_last_whole_frame() {
    let frames = rare_frames();
    let ends: Vec<usize> = (0..=frames.len()).map(|count| bytes_of(&frames[..count]).len()).collect();
    let bytes = bytes_of(&frames);
    for length in 0..=bytes.len() {
        let (back, end) = decode(&bytes[..length], usize::MAX);
        let whole = ends.iter().filter(|end| **end <= length).count().saturating_sub(1);
        assert_eq!(shown(&back), shown(&frames[..whole]), "{length} bytes");
        let left = if whole > 0 || length >= ends[0] { length - ends[whole] } else { length };
        assert_eq!(end, Ok(left), "{length} bytes");
    }
}

#[test]
fn what_is_no_recording_or_another_version_is_said_so() {
    let mut newer = bytes_of(&[]);
    newer[8] = 9;
    for (bytes, wanted) in [
        (&b"{\"schema\":\"x\"}"[..], RecordingError::Foreign),
        (b"s0", RecordingError::Foreign),
        (&newer, RecordingError::Version { found: 9 }),
    ] {
        assert_eq!(decode(bytes, usize::MAX).1, Err(wanted));
    }
    assert_eq!(
        RecordingError::Version { found: 9 }.to_string(),
        "it has format 9, and this socklife reads format 4: use the version that recorded it"
    );
}

#[test]
fn a_look_costs_few_bytes_a_connection() {
    let (mut events, mut event_bytes, mut rows, mut look_bytes) = (0, 0, 0, 0);
    for frame in some_frames() {
        let bytes = bytes_of(std::slice::from_ref(&frame)).len();
        match frame {
            Frame::Events { events: told, .. } => {
                events += told.len();
                event_bytes += bytes;
            }
            Frame::Look { look, .. } => {
                rows += look.sockets().count();
                look_bytes += bytes;
            }
            _ => {}
        }
    }
    println!("{} bytes an event alone in its frame, {} a row", event_bytes / events, look_bytes / rows);
    assert!(event_bytes / events <= 160 && look_bytes / rows <= 80);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn flipped_bits_are_noticed_and_do_no_harm(
        flips in prop::collection::vec((0usize..20_000, 0u8..8), 1..4),
        piece in 1usize..5_000,
    ) {
        let mut frames = some_frames();
        frames.truncate(40);
        frames.extend(rare_frames());
        let good = bytes_of(&frames);
        let mut bytes = good.clone();
        for (at, bit) in flips {
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
        }
        let (back, _) = decode(&bytes, piece);
        // What is read is what was written, up to the damage.
        prop_assert_eq!(shown(&back), shown(&frames[..back.len()]));
        prop_assert!(bytes == good || back.len() < frames.len());
    }

    #[test]
    fn any_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..400), piece in 1usize..50) {
        let mut all = bytes_of(&[Frame::Header(Cow::Owned(host::header()))]);
        all.extend(bytes);
        prop_assert!(!decode(&all, piece).0.is_empty());
    }
}
