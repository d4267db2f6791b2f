//! `record`, `replay`, `diff` and `explain`: the real binary, with a daemon that is made up.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::common::{Fake, connection, fake, finding, snapshot};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use tracer_core::detect::DetectConfig;
use tracer_core::event::{Comm, Event, ProcessId, Role, SocketEvent, SocketEventKind, Task, Totals, Tuple};
use tracer_core::finding::{Kind, Severity};
use tracer_core::inventory::Inventory;
use tracer_core::ports::PortMap;
use tracer_core::recording::{Frame, Header, encode, preamble};
use tracer_core::snapshot::{Host, LauncherGroup, Limit, LimitSource, Mode, Process, ProcessConnections, Snapshot};
use tracer_core::tcp::TcpState;
use tracer_core::time::{BootNs, WallAnchor};
use tracer_core::tracker::{About, Bounds, EndpointRule, Tracker};
use tracer_user::api::server::serve;
use tracer_user::api::socket::Socket;
use tracer_user::config::ApiConfig;

use super::{socklife, told};

const BEGIN: BootNs = BootNs(1_000_000_000_000);

fn run(args: &[&str]) -> (Option<i32>, String, String) {
    told(&socklife(args).output().unwrap())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn header() -> Header {
    let limit = Some(Limit { value: 10, source: LimitSource::Config });
    let rule = EndpointRule { name: Some("orders-db".to_owned()), limit, database: None };
    let rules = BTreeMap::from([("10.0.0.5:5432".parse().unwrap(), rule)]);
    let tracker = Tracker::new(Bounds::default(), PortMap::default(), rules);
    let own = str::to_owned;
    let host = Host {
        hostname: own("shop-1"),
        kernel: own("6.12"),
        arch: own("x86_64"),
        boot_id: own("b"),
        socklife_version: own("0.1.0"),
    };
    let (probes, drop_reasons) = (Vec::new(), BTreeMap::new());
    let about = About {
        host,
        mode: Mode::Ebpf,
        started: BEGIN,
        probes,
        drop_reasons,
        host_pids: true,
        config: tracer_core::setup::InForce::default(),
    };
    tracker.header(&about, &DetectConfig::default(), WallAnchor { boot: BEGIN, unix_ns: 1_795_293_667_000_000_000 })
}

fn opened(port: u16, at: BootNs) -> Event {
    let task = Task { id: ProcessId { pid: 412, start_ticks: 90 }, uid: 0, comm: Comm(*b"worker.py\0\0\0\0\0\0\0") };
    Event::Socket(SocketEvent {
        kind: SocketEventKind::Open,
        at,
        sk: u64::from(port) * 64,
        birth: Some(at),
        established: Some(at),
        tuple: Tuple::new(7, format!("10.0.0.9:{port}").parse().unwrap(), "10.0.0.5:5432".parse().unwrap()),
        role: Role::Client,
        old_state: TcpState::SynSent,
        new_state: TcpState::Established,
        opener: Some(task),
        closer: None,
        inode: Some(u32::from(port)),
        error: 0,
        totals: Totals::default(),
    })
}

fn after(seconds: u64) -> BootNs {
    BEGIN.plus(Duration::from_secs(seconds))
}

/// Half a minute in which ten connections are opened where ten may be.
fn frames() -> Vec<Frame<'static>> {
    let look = Inventory { started: after(1), finished: after(1), ..Inventory::default() };
    let mut frames = vec![Frame::Header(Cow::Owned(header())), Frame::Look { at: after(1), look: Cow::Owned(look) }];
    for second in 2..12 {
        let events = vec![opened(10_000 + u16::try_from(second).unwrap(), after(second))];
        frames.push(Frame::Events { at: after(second), events: Cow::Owned(events) });
    }
    frames.push(Frame::End { at: after(30) });
    frames
}

fn bytes_of(frames: &[Frame<'_>]) -> Vec<u8> {
    let mut bytes = preamble().to_vec();
    frames.iter().for_each(|frame| bytes.extend(encode(frame).unwrap()));
    bytes
}

struct Daemon {
    fake: Fake,
    socket: PathBuf,
    dir: TempDir,
}

impl Daemon {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s.sock");
        let config = ApiConfig { socket: socket.clone(), group: "no-such-group-here".to_owned(), metrics: None };
        let fake = fake(snapshot(Vec::new()));
        tokio::spawn(serve(Socket::bind(&config).unwrap(), fake.handle.clone()));
        Self { fake, socket, dir }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("a.rec")
    }

    /// A recording that runs: it has said so.
    fn record(&self, more: &[&str]) -> (Child, BufReader<std::process::ChildStderr>) {
        let file = self.file();
        let args = [&["record", "-o", text(&file), "--socket", text(&self.socket)], more].concat();
        let mut child = socklife(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        assert_eq!(line, format!("socklife: recording to {}: Ctrl-C ends it\n", file.display()));
        (child, stderr)
    }

    fn send(&self, frames: &[Frame<'_>]) {
        for frame in frames {
            self.fake.frames.push(encode(frame).unwrap().into());
        }
    }
}

fn end(mut child: Child, mut stderr: impl std::io::Read) -> (Option<i32>, String) {
    let mut said = String::new();
    stderr.read_to_string(&mut said).unwrap();
    (child.wait().unwrap().code(), said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_is_written_and_replayed() {
    let daemon = Daemon::start();
    daemon.fake.frames.push(preamble().to_vec().into());
    let (header, rest) = (&frames()[..1], &frames()[1..12]);
    daemon.send(header);
    let (child, stderr) = daemon.record(&[]);
    daemon.send(rest);
    daemon.send(&[Frame::LeftOut { at: after(12), frames: 2, events: 9 }]);
    // What was sent before the end is still delivered.
    daemon.fake.shutdown.send(true).unwrap();
    let (code, said) = end(child, stderr);
    let file = daemon.file();
    let size = file.metadata().unwrap().len();
    let wanted = format!(
        "to {}: 10 events and 1 looks in {size} bytes, 9 events in 2 frames lost, because they were not read in time; \
         the daemon has stopped\n",
        file.display()
    );
    assert_eq!(code, Some(0));
    assert!(said.starts_with("socklife: recorded ") && said.ends_with(&wanted), "{said}");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o7777, 0o640);
    let (code, stdout, stderr) = run(&["replay", text(&file), "--at", "20s"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let snapshot: Snapshot = serde_json::from_str(&stdout).unwrap();
    assert_eq!((snapshot.endpoints[0].open, snapshot.connections.len()), (10, 10));
    assert_eq!(snapshot.capture.loss.queue_full, 9);
    assert_eq!(snapshot.host.hostname, "shop-1");
    assert_eq!(snapshot.captured_at.to_string(), "2026-11-21T20:41:27.000Z");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_ends_with_a_signal_or_its_time_and_replaces_nothing() {
    for (more, signal) in
        [(&[][..], Some(Signal::SIGINT)), (&["--force"], Some(Signal::SIGTERM)), (&["--for", "10ms"], None)]
    {
        let daemon = Daemon::start();
        if more == ["--force"] {
            std::fs::write(daemon.file(), "something else").unwrap();
        }
        daemon.fake.frames.push(preamble().to_vec().into());
        daemon.send(&frames()[..1]);
        let (child, stderr) = daemon.record(more);
        if let Some(signal) = signal {
            kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
        }
        let (code, said) = end(child, stderr);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.ends_with("bytes, nothing lost\n"), "{said}");
        // The end was written: its time is this host's, which may be before or after the made-up beginning.
        let (code, stdout, stderr) = run(&["replay", text(&daemon.file())]);
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{more:?}");
        assert!(stdout.starts_with("{\"schema\":\"socklife.snapshot/v1\""));
        let sentence = format!(
            "socklife: {} is there already: name another file, or replace it with --force\n",
            daemon.file().display()
        );
        let args = ["record", "-o", text(&daemon.file()), "--socket", text(&daemon.socket)].map(str::to_owned);
        let again = run(&args.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(again, (Some(2), String::new(), sentence));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recordings_beyond_the_bound_are_refused_and_leave_no_file() {
    let daemon = Daemon::start();
    daemon.fake.frames.push(preamble().to_vec().into());
    daemon.send(&frames()[..1]);
    let (child, stderr) = daemon.record(&[]);
    let other = daemon.dir.path().join("b.rec");
    let (code, _, said) = run(&["record", "-o", text(&other), "--socket", text(&daemon.socket)]);
    assert_eq!(code, Some(3));
    assert!(said.contains("4 recordings are being made: end one, and try again"), "{said}");
    assert!(!other.try_exists().unwrap());
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
    assert_eq!(end(child, stderr).0, Some(0));
    let (code, _, said) = run(&["record", "-o", text(&other), "--socket", "/nonexistent/s.sock"]);
    assert_eq!((code, other.try_exists().unwrap()), (Some(3), false), "{said}");
}

#[test]
fn a_replay_judges_with_other_settings_and_says_so_with_its_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.rec");
    std::fs::write(&path, bytes_of(&frames())).unwrap();
    let file = text(&path);
    let (code, snapshot, stderr) = run(&["replay", file, "--fail-on", "critical"]);
    assert_eq!((code, stderr.as_str()), (Some(1), ""), "10 of 10 are open");
    let parsed: Snapshot = serde_json::from_str(&snapshot).unwrap();
    assert!(parsed.findings.iter().any(|each| each.kind == Kind::LimitPressure), "{snapshot}");
    assert_eq!(run(&["replay", file]).1, snapshot, "the same bytes");
    let off = "detect.limit_pressure.enabled=false";
    assert_eq!(run(&["replay", file, "--fail-on", "critical", "--set", off]).0, Some(0));
    assert_eq!(run(&["replay", file, "--fail-on", "critical", "--at", "5s"]).0, Some(0));
    let (code, lines, _) = run(&["replay", file, "--findings", "--fail-on", "critical"]);
    let changes: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ours: Vec<&Value> = changes.iter().filter(|line| line["kind"] == "limit_pressure").collect();
    assert_eq!((code, &ours[0]["change"], &ours[0]["severity"]), (Some(1), &"opened".into(), &"warning".into()));
    assert!(ours.iter().any(|line| line["severity"] == "critical"), "{lines}");
    let (_, pretty, _) = run(&["replay", file, "--pretty"]);
    assert_eq!(serde_json::from_str::<Snapshot>(&pretty).unwrap(), parsed);
    let (_, slow, _) = run(&["replay", file, "--stretch", "60"]);
    let slow: Snapshot = serde_json::from_str(&slow).unwrap();
    assert_eq!(slow.captured_at.unix_ms - slow.capture.started_at.unix_ms, 60 * 30_000);
    for (args, sentence) in [
        (
            &["--set", "capture.ring_bytes=65536"][..],
            "--set \"capture.ring_bytes=65536\": a replay takes keys of [detect] alone: the rest is as it was recorded",
        ),
        (
            &["--at", "2h"],
            "--at: 2026-11-21T22:41:07.000Z is not in the recording: it goes from 2026-11-21T20:41:07.000Z to \
             2026-11-21T20:41:37.000Z",
        ),
    ] {
        let wanted = (Some(2), String::new(), format!("socklife: {sentence}\n"));
        assert_eq!(run(&[&["replay", file], args].concat()), wanted, "{args:?}");
    }
}

#[test]
fn damaged_recordings_are_read_as_far_as_they_are_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.rec");
    let good = bytes_of(&frames());
    let last = good.len() - bytes_of(&[Frame::End { at: after(30) }]).len() + preamble().len();
    let replay = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        run(&["replay", text(&path)])
    };
    let (code, stdout, stderr) = replay(&good[..last]);
    assert_eq!(
        (code, stderr),
        (Some(0), format!("socklife: {}: it is cut off; replayed up to there\n", path.display()))
    );
    assert_eq!(serde_json::from_str::<Snapshot>(&stdout).unwrap().endpoints[0].open, 10);
    let mut flipped = good.clone();
    flipped[last - 3] ^= 1;
    let (code, stdout, stderr) = replay(&flipped);
    assert_eq!(code, Some(0));
    assert!(stderr.contains(": it is damaged at byte ") && stderr.ends_with("; replayed up to there\n"), "{stderr}");
    assert_eq!(serde_json::from_str::<Snapshot>(&stdout).unwrap().endpoints[0].open, 9);
    let mut newer = good;
    newer[8] = 9;
    let sentence = format!(
        "socklife: cannot replay {}: it has format 9, and this socklife reads format 4: use the version that recorded it\n",
        path.display()
    );
    assert_eq!(replay(&newer), (Some(2), String::new(), sentence));
}

fn write(dir: &TempDir, name: &str, snapshot: &Snapshot) -> String {
    let path = dir.path().join(name);
    std::fs::write(&path, serde_json::to_vec(snapshot).unwrap()).unwrap();
    text(&path).to_owned()
}

/// A process of the launcher group `g1`.
fn process(pid: u32, open: u32, alive: bool) -> Process {
    let held = ProcessConnections {
        endpoint: "10.0.0.5:5432".to_owned(),
        role: Role::Client,
        open,
        opened_total: 9,
        closed_total: 9 - u64::from(open),
        failed_total: 0,
        in_use_peak: 0,
        last_active_at: None,
        estimated_server_memory_bytes: None,
    };
    let mut process: Process = serde_json::from_value(serde_json::json!({
        "pid": pid, "ns_pid": null, "start_time": "2026-11-21T20:00:00.000Z", "comm": "python3", "exe": null,
        "script": "/srv/route_builder.py", "cmdline": null, "ppid": null, "ancestors": [], "uid": null, "user": null,
        "cgroup": null, "container_id": null, "systemd_unit": null, "launcher_group": "g1", "alive": alive,
        "connections": [],
    }))
    .unwrap();
    process.connections.push(held);
    process
}

fn group(pids: &[u32], open: u32) -> LauncherGroup {
    LauncherGroup {
        id: "g1".to_owned(),
        label: "route_builder.py".to_owned(),
        instances: u32::try_from(pids.len()).unwrap(),
        pids: pids.to_vec(),
        open,
        endpoints: vec!["10.0.0.5:5432".to_owned()],
    }
}

#[test]
fn a_diff_says_what_changed() {
    let dir = tempfile::tempdir().unwrap();
    let mut before = snapshot(vec![finding("f1", Severity::Warning, 0), finding("f2", Severity::Info, 0)]);
    let mut later = snapshot(vec![finding("f1", Severity::Critical, 0), finding("f3", Severity::Warning, 0)]);
    later.captured_at.unix_ms += 60_000;
    later.findings[0].summary = "99 of 100\u{1b}[2J open".to_owned();
    later.connections.retain(|each| each.id != "c2" && each.id != "c3");
    // One that stayed, and two of other lives.
    for (id, local) in [("c9", "10.0.0.1:50001"), ("c8", "10.0.0.1:50000")] {
        let mut new = connection(id, "10.0.0.5:5432", TcpState::Established, 500, 500);
        new.local = local.to_owned();
        later.connections.push(new);
    }
    before.endpoints[0].limit = None;
    later.endpoints[0].limit = Some(Limit { value: 40, source: LimitSource::Inferred });
    later.endpoints[0].open = 4;
    later.endpoints[0].opened_total += 5;
    later.endpoints[0].closed_total += 2;
    before.processes = vec![process(412, 4, true), process(413, 1, true), process(414, 0, true)];
    later.processes = vec![process(412, 0, false), process(413, 1, true), process(500, 2, true)];
    // The same pid, and another process.
    later.processes.push(Process { pid: 414, ..process(414, 1, true) });
    later.processes[3].start_time.unix_ms += 600_000;
    before.launcher_groups = vec![group(&[412, 413, 414], 5)];
    later.launcher_groups = vec![group(&[413, 414, 500], 4)];
    let (a, b) = (write(&dir, "a.json", &before), write(&dir, "b.json", &later));
    let (code, shown, stderr) = run(&["diff", &a, &b]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let wanted = "\
2026-11-21 20:41:07 to 2026-11-21 20:42:07, 60 s on host\\u{202e}x; 1 connections stayed

findings
  appeared  WARNING   limit_pressure  96 of 100 open
  changed   CRITICAL  limit_pressure  99 of 100\\u{1b}[2J open (was 96 of 100 open)
  cleared   INFO      limit_pressure  96 of 100 open

databases
  +3  orders-db 10.0.0.5:5432  client  1 -> 4 open  5 opened, 2 closed  limit unknown -> about 40

launcher groups
  -1  route_builder.py  3 -> 3 copies  5 -> 4 open

processes
  -4  pid 412  route_builder.py  4 -> 0 open  ended
  +2  pid 500  route_builder.py  0 -> 2 open  new
  +1  pid 414  route_builder.py  0 -> 1 open  new

connections opened (2)
  10.0.0.1:50000 -> 10.0.0.5:5432  client  ESTABLISHED  python3[500]
  10.0.0.1:50001 -> 10.0.0.5:5432  client  ESTABLISHED  python3[500]

connections closed (1)
  10.0.0.1:40222 -> 10.0.0.6:5432  client  ESTABLISHED  python3[500]
";
    assert_eq!(shown, wanted);
    let (_, json, _) = run(&["diff", &a, &b, "--json"]);
    let diff: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&diff["schema"], &diff["elapsed_s"]), (&"socklife.diff/v1".into(), &60.into()));
    assert_eq!(diff["launcher_groups"][0]["pids_appeared"], serde_json::json!([500]));
    assert_eq!(diff["launcher_groups"][0]["pids_gone"], serde_json::json!([412]));
    assert_eq!(diff["endpoints"][0]["open"], serde_json::json!({ "before": 1, "after": 4 }));
    let limit = serde_json::json!({ "before": null, "after": { "value": 40, "source": "inferred" } });
    assert_eq!(diff["endpoints"][0]["limit"], limit);
    let (_, same, _) = run(&["diff", &a, &a]);
    assert!(same.ends_with("2 connections stayed\n\nnothing changed\n"), "{same}");
}

#[test]
fn a_diff_of_what_is_no_snapshot_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let good = write(&dir, "a.json", &snapshot(Vec::new()));
    let path = dir.path().join("b.json");
    for (json, why) in [
        ("", "EOF while parsing a value at line 1 column 0"),
        ("{}", "it has no schema, which must be \"socklife.snapshot/v1\""),
        (r#"{"schema":"socklife.event/v1"}"#, "its schema is \"socklife.event/v1\", not \"socklife.snapshot/v1\""),
        (r#"{"schema":"socklife.snapshot/v1"}"#, "missing field `captured_at` at line 1 column 33"),
    ] {
        std::fs::write(&path, json).unwrap();
        let sentence = format!("socklife: {} is no snapshot: {why}\n", path.display());
        assert_eq!(run(&["diff", &good, text(&path)]), (Some(2), String::new(), sentence), "{json}");
    }
}

#[test]
fn kinds_are_explained() {
    let (code, list, stderr) = run(&["explain"]);
    assert_eq!((code, stderr.as_str(), list.lines().count()), (Some(0), "", Kind::ALL.len()));
    for kind in Kind::ALL {
        let (code, page, stderr) = run(&["explain", kind.name()]);
        assert_eq!((code, stderr.as_str()), (Some(0), ""));
        assert!(page.starts_with(&format!("# {}\n\n", kind.name())), "{page}");
        assert!(page.contains(&format!("\n- `detect.{}.enabled` = true: ", kind.name())), "{page}");
    }
}
