//! Replays against a tracker that was fed in the same way by hand.

use std::time::Duration;

use tracer_core::detect::{Changes, DetectConfig, Of, Scope, Store};
use tracer_core::event::{AcceptsEvent, Comm, Event, ProcessEvent, ProcessEventKind, ProcessId, Role, Task};
use tracer_core::finding::{FindingLine, Kind};
use tracer_core::inventory::Inventory;
use tracer_core::ports::PortMap;
use tracer_core::recording::{Frame, Header, Replay, Until};
use tracer_core::rules::{EndpointRule, Matcher, Rules};
use tracer_core::setup::{InForce, Setup};
use tracer_core::snapshot::{Completeness, Limit, LimitSource, Probe, ProbeState, Snapshot};
use tracer_core::time::BootNs;
use tracer_core::tracker::{Bounds, Tracker};

use super::host::{NETNS, Recorded, database, header};
use super::some_frames;

fn config(header: &Header) -> DetectConfig {
    DetectConfig::from(&header.settings)
}

/// The snapshot a replay ends in, and every finding line.
fn replay(frames: &[Frame<'static>], stretch: u32, until: Until) -> (Snapshot, Vec<FindingLine>) {
    let Some(Frame::Header(header)) = frames.first() else { panic!("no header") };
    let mut replay = Replay::new(header.clone().into_owned(), config(header), stretch, until);
    let mut lines = Vec::new();
    for frame in &frames[1..] {
        if !replay.apply(frame.clone(), &mut |line| lines.push(line)) {
            break;
        }
    }
    (replay.end(&mut |line| lines.push(line)).unwrap(), lines)
}

fn json(snapshot: &Snapshot) -> String {
    serde_json::to_string(snapshot).unwrap()
}

#[test]
fn the_same_recording_gives_the_same_bytes() {
    let frames = some_frames();
    for stretch in [1, 60] {
        let (first, first_lines) = replay(&frames, stretch, Until::End);
        let (second, second_lines) = replay(&frames, stretch, Until::End);
        assert_eq!(json(&first), json(&second));
        assert_eq!(first_lines, second_lines);
        assert!(!first.connections.is_empty() && !first.processes.is_empty());
    }
}

/// The tracker of a daemon: the rule and the ports of the header, fed with what the frames say.
#[test]
fn a_replay_says_what_the_recorded_tracker_said() {
    let frames = some_frames();
    let header = header();
    let mut tracker = Tracker::new(Bounds::default(), PortMap::default(), header.rules.clone());
    let (mut store, detect, anchor) = (Store::default(), config(&header), header.anchor);
    let mut about = header.about;
    about.started = anchor.boot;
    let (mut tick, mut end, mut lines) = (anchor.boot, anchor.boot, Vec::new());
    for frame in &frames {
        while tick < frame.at() {
            lines.extend(store.run(&tracker, &detect, tick, &anchor));
            tick = tick.plus(Duration::from_secs(1));
        }
        match frame {
            Frame::Events { events, .. } => events.iter().for_each(|event| {
                tracker.apply(event);
            }),
            Frame::Look { look, .. } => {
                tracker.apply_inventory(Inventory::clone(look));
            }
            Frame::Identity { identity, .. } => tracker.apply_identity((**identity).clone()),
            _ => {}
        }
        end = end.max(frame.at());
    }
    lines.extend(store.run(&tracker, &detect, end, &anchor));
    let wanted = tracker.snapshot(&about, &store, end, &anchor);
    let (got, got_lines) = replay(&frames, 1, Until::End);
    assert_eq!(json(&got), json(&wanted));
    assert_eq!(got_lines, lines);
}

#[test]
fn a_replay_ends_where_it_is_told_to() {
    let frames = some_frames();
    let (whole, _) = replay(&frames, 1, Until::End);
    let started = whole.capture.started_at.unix_ms;
    let (early, _) = replay(&frames, 1, Until::After(Duration::from_secs(100)));
    assert_eq!(early.captured_at.unix_ms - started, 100_000);
    let opened = |snapshot: &Snapshot| snapshot.endpoints[0].opened_total;
    // 20 in the pools; one leaked every 20 seconds.
    assert!(opened(&early) >= 25 && opened(&early) < opened(&whole), "{}", opened(&early));
    let (same, _) = replay(&frames, 1, Until::At(early.captured_at));
    assert_eq!(json(&same), json(&early));
    let mut late = Replay::new(header(), DetectConfig::default(), 1, Until::After(Duration::from_secs(9_999)));
    for frame in &frames {
        assert!(late.apply(frame.clone(), &mut drop));
    }
    let error = late.end(&mut drop).unwrap_err().to_string();
    assert!(error.contains("is not in the recording: it goes from 2026-"), "{error}");
}

#[test]
fn stretched_time_is_longer_and_nothing_else() {
    let frames = some_frames();
    let (one, _) = replay(&frames, 1, Until::End);
    let (sixty, _) = replay(&frames, 60, Until::End);
    assert_eq!(one.capture.started_at, sixty.capture.started_at);
    let took = |snapshot: &Snapshot| snapshot.captured_at.unix_ms - snapshot.capture.started_at.unix_ms;
    assert!(took(&sixty).abs_diff(60 * took(&one)) <= 60, "{} and {}", took(&one), took(&sixty));
    assert_eq!(sixty.capture.loss, one.capture.loss, "nothing is lost by going slower");
    assert_eq!(sixty.capture.completeness, Completeness::Exact);
    for (a, b) in one.endpoints.iter().zip(&sixty.endpoints) {
        assert_eq!(
            (a.open, a.open_peak, a.opened_total, a.closed_total),
            (b.open, b.open_peak, b.opened_total, b.closed_total)
        );
    }
    assert_eq!(one.connections.len(), sixty.connections.len());
    for (a, b) in one.connections.iter().zip(&sixty.connections) {
        assert_eq!((&a.local, &a.opener, &a.holders), (&b.local, &b.opener, &b.holders));
        assert!(b.age_s.abs_diff(60 * a.age_s) <= 60, "{} and {}", a.age_s, b.age_s);
    }
    assert_eq!(one.processes.len(), sixty.processes.len());
}

#[test]
fn what_a_reader_missed_counts_as_lost() {
    let mut frames = some_frames();
    let end = frames.pop().unwrap();
    let at = end.at();
    frames.push(Frame::LeftOut { at, frames: 2, events: 70 });
    frames.push(end);
    let (snapshot, _) = replay(&frames, 1, Until::End);
    assert_eq!(snapshot.capture.loss.queue_full, 70);
    assert_eq!(snapshot.capture.completeness, Completeness::LowerBound);
    assert_eq!(snapshot.capture.totals, Completeness::LowerBound);
}

/// Losses from before the recording are not its own.
#[test]
fn losses_count_from_the_beginning_of_the_recording() {
    let mut header = header();
    header.loss.ring_full = 7;
    header.drops_untold = 3;
    let mut replay = Replay::new(header.clone(), DetectConfig::default(), 1, Until::End);
    let at = header.anchor.boot.plus(Duration::from_secs(1));
    let mut told = header.loss;
    told.ring_full = 9;
    assert!(replay.apply(Frame::Loss { at, loss: told, drops_untold: 4 }, &mut drop));
    let snapshot = replay.end(&mut drop).unwrap();
    assert_eq!((snapshot.capture.loss.ring_full, snapshot.capture.drops_untold), (2, 1));
}

/// A recording that begins in the middle of a daemon's life.
#[test]
fn connections_from_before_the_recording_keep_their_openers_and_ages() {
    let header = header();
    let mut tracker = Tracker::new(Bounds::default(), PortMap::default(), header.rules.clone());
    let mut host = Recorded::begin(3, 4, &mut |frame| match frame {
        Frame::Events { events, .. } => events.iter().for_each(|event| {
            tracker.apply(event);
        }),
        Frame::Look { look, .. } => {
            tracker.apply_inventory(look.into_owned());
        }
        _ => {}
    });
    let at = host.now.plus(Duration::from_secs(50));
    host.now = at;
    let mut begun = tracker.header(&header.about, &DetectConfig::default(), header.anchor);
    begun.anchor.boot = at;
    begun.anchor.unix_ns += 50_003_000_000;
    let mut replay = Replay::new(begun, DetectConfig::default(), 1, Until::End);
    let remembered = tracker.remembered();
    assert_eq!(remembered.len(), 12);
    assert!(replay.apply(Frame::Events { at, events: remembered.into() }, &mut drop));
    host.look(&mut |frame| assert!(replay.apply(frame, &mut drop)));
    let snapshot = replay.end(&mut drop).unwrap();
    let (_, endpoint) = tracker.endpoint(database(), Role::Client).unwrap();
    assert_eq!((u64::from(snapshot.endpoints[0].open), endpoint.opened_total), (12, 12));
    for connection in &snapshot.connections {
        assert_eq!(connection.netns, NETNS);
        assert!(connection.age_s >= 50, "{connection:?}");
        assert_eq!(connection.opener.as_ref().unwrap().pid, connection.holders[0].pid);
    }
    assert_eq!(snapshot.capture.loss, tracker.loss(), "nothing is taken for lost");
}

#[test]
fn accepts_count_from_the_recordings_first_look_on() {
    let check = |counts: bool, stretch: u32, expected: Option<u64>| {
        let mut header = header();
        let state = if counts { ProbeState::Attached } else { ProbeState::Missing };
        let probe =
            |fact: &str, state| Probe { fact: fact.to_owned(), via: String::new(), state, reason: String::new() };
        header.about.probes = vec![probe("process_exit", ProbeState::Attached), probe("accept", state)];
        let mut replay = Replay::new(header, DetectConfig::default(), stretch, Until::End);
        let mut tell = |frame: Frame<'static>| assert!(replay.apply(frame, &mut drop));
        let process = ProcessId { pid: 1_000, start_ticks: 90_000 };
        let accepts = |at: BootNs, total: u64| Event::Accepts(AcceptsEvent { at, process, total });
        let before = accepts(BootNs(1), 70);
        tell(Frame::Events { at: BootNs(1), events: vec![before].into() });
        let mut host = Recorded::begin(1, 2, &mut |frame| {
            if !matches!(frame, Frame::Header(_)) {
                tell(frame);
            }
        });
        tell(Frame::Events { at: host.now, events: vec![accepts(host.now, 75), accepts(host.now, 75)].into() });
        // What it accepted last is told by its end.
        let task = Task { id: process, uid: 0, comm: Comm::default() };
        let exit = ProcessEvent { kind: ProcessEventKind::Exit, at: host.now, task, accepts: 79 };
        tell(Frame::Events { at: host.now, events: vec![Event::Process(exit)].into() });
        host.look(&mut tell);
        let processes = replay.end(&mut drop).unwrap().processes;
        assert_eq!(processes.iter().map(|each| each.accepted_total).collect::<Vec<_>>(), [expected]);
    };
    check(true, 1, Some(9));
    check(true, 60, Some(9));
    check(false, 1, None);
}

/// A frame that claims to be from the far future ends up within a year: a replay comes to its end.
#[test]
fn times_that_cannot_be_do_not_keep_a_replay_from_ending() {
    let mut replay = Replay::new(header(), DetectConfig::default(), 1, Until::After(Duration::from_secs(3)));
    assert!(!replay.apply(Frame::End { at: BootNs(u64::MAX) }, &mut drop));
    assert!(replay.end(&mut drop).is_ok());
    let mut backwards = Replay::new(header(), DetectConfig::default(), 1, Until::End);
    assert!(backwards.apply(Frame::End { at: BootNs(0) }, &mut drop));
    assert_eq!(backwards.end(&mut drop).unwrap().captured_at, backwards.end(&mut drop).unwrap().captured_at);
}

/// A reload in the middle of a recording: its limit, its thresholds and what it ignores hold from there on, and the same
/// recording gives the same bytes.
#[test]
fn a_reload_is_replayed_where_it_was() {
    let mut frames = some_frames();
    let header = header();
    let at = header.anchor.boot.plus(Duration::from_secs(200));
    let place = frames.iter().position(|frame| frame.at() > at).unwrap();
    let mut detect = config(&header);
    let mut strict = Changes::default();
    strict.set(Kind::LimitPressure, "warn_percent", 1).unwrap();
    let any = Matcher { ips: None, ports: (1, u16::MAX) };
    detect.set_scopes(vec![Scope { of: Of::Endpoint(any), changes: strict }]);
    let limit = Some(Limit { value: 1_000, source: LimitSource::Config });
    let rule = EndpointRule { name: Some("renamed".to_owned()), limit, database: None };
    let setup = Setup {
        ports: PortMap::default(),
        rules: Rules::new(vec![(any, rule)]),
        detect,
        in_force: InForce { generation: 2, hash: "h".to_owned(), loaded: at, file: None },
        cmdlines: None,
    };
    frames.insert(place, Frame::Configured { at, setup: std::borrow::Cow::Owned(setup) });
    for stretch in [1, 2] {
        let (first, lines) = replay(&frames, stretch, Until::End);
        assert_eq!(json(&first), json(&replay(&frames, stretch, Until::End).0));
        assert_eq!((first.capture.config.generation, first.endpoints[0].name.as_str()), (2, "renamed"));
        let pressed =
            |line: &&FindingLine| line.finding.kind == Kind::LimitPressure && line.finding.summary.contains("renamed");
        let told = lines.iter().find(pressed).expect("pressure from 1 % on");
        assert!(told.at.unix_ms >= first.capture.config.loaded_at.unix_ms, "{told:?}");
        // Who judges with settings of his own keeps them.
        let Some(Frame::Header(header)) = frames.first() else { panic!("no header") };
        let mut kept =
            Replay::new(header.clone().into_owned(), DetectConfig::default(), stretch, Until::End).keeping_settings();
        let mut lines = Vec::new();
        frames[1..].iter().for_each(|frame| {
            kept.apply(frame.clone(), &mut |line| lines.push(line));
        });
        assert_eq!(kept.end(&mut drop).unwrap().endpoints[0].name, "renamed");
        assert!(lines.iter().all(|line: &FindingLine| !pressed(&line)));
    }
}
