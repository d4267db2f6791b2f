//! The real binary: what it prints where, and how it exits. The daemon behind the socket is made up; none of this
//! needs privilege.

#![expect(clippy::unwrap_used, reason = "a failed test says so")]

mod common;
#[path = "cli/recordings.rs"]
mod recordings;

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::Ordering;

use common::{AT, Fake, event, fake, finding, line, snapshot};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tracer_core::finding::{Change, FindingLine, Kind, Severity};
use tracer_core::snapshot::{EventLine, LOSS_SCHEMA, Loss, LossLine, Snapshot};
use tracer_user::api::server::serve;
use tracer_user::api::socket::Socket;
use tracer_user::config::ApiConfig;

fn socklife(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_socklife"));
    command.args(args).env_remove("SOCKLIFE_SOCKET").env_remove("SOCKLIFE_LOG").env_remove("RUST_LOG");
    command.env("TZ", "UTC").stdin(Stdio::null());
    command
}

fn output(args: &[&str]) -> Output {
    socklife(args).output().unwrap()
}

/// Exit code, stdout, stderr.
fn told(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

struct Daemon {
    fake: Fake,
    path: PathBuf,
    dir: TempDir,
}

impl Daemon {
    fn start(state: Snapshot) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let config = ApiConfig { socket: path.clone(), group: "no-such-group-here".to_owned(), metrics: None };
        let fake = fake(state);
        tokio::spawn(serve(Socket::bind(&config).unwrap(), fake.handle.clone()));
        Self { fake, path, dir }
    }

    fn socklife(&self, args: &[&str]) -> Command {
        let mut command = socklife(args);
        command.env("SOCKLIFE_SOCKET", &self.path);
        command
    }

    fn output(&self, args: &[&str]) -> (Option<i32>, String, String) {
        told(&self.socklife(args).output().unwrap())
    }

    /// A tail that runs, and its lines.
    fn tail(&self, args: &[&str]) -> (Tail, impl Iterator<Item = String> + use<>) {
        let mut child = self.socklife(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        (Tail(child), lines)
    }

    async fn until_events_are_watched(&self) {
        while !self.fake.followed.swap(false, Ordering::AcqRel) {
            tokio::task::yield_now().await;
        }
    }
}

/// A running command; ended if the test is.
struct Tail(Child);

impl Tail {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), signal).unwrap();
    }

    fn end(mut self) -> (Option<i32>, String) {
        let mut stderr = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        (self.0.wait().unwrap().code(), stderr)
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        // Already over in a test that passes.
        let _over = self.0.kill();
        let _over = self.0.wait();
    }
}

#[test]
fn help_and_version_are_fine() {
    for args in [&["--help"][..], &["tail", "--help"], &["help", "run"], &["--version"]] {
        let (code, stdout, stderr) = told(&output(args));
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{args:?}");
        assert!(stdout.contains("socklife"), "{args:?}: {stdout}");
    }
    let (_, help, _) = told(&output(&["--help"]));
    for word in [
        "run",
        "tail",
        "snapshot",
        "diff",
        "record",
        "replay",
        "explain",
        "doctor",
        "--socket",
        "/run/socklife/socklife.sock",
    ] {
        assert!(help.contains(word), "{word} is not in the help");
    }
}

#[test]
fn usage_errors_are_one_sentence_and_two() {
    for (args, sentence) in [
        (&["leak"][..], "unrecognized subcommand 'leak'; see --help"),
        (
            &["tail", "--endpont", "x"],
            "unexpected argument '--endpont' found; tip: a similar argument exists: '--endpoint'; see --help",
        ),
        (&["tail", "--pid", "x"], "invalid value 'x' for '--pid <PID>': invalid digit found in string; see --help"),
        (&["tail", "--kind", "slow"], "invalid value 'slow' for '--kind <KIND>' [possible values: KINDS]; see --help"),
        (
            &["tail", "--min-severity", "bad"],
            "invalid value 'bad' for '--min-severity <SEVERITY>' [possible values: info, warning, critical]; see --help",
        ),
        (
            &["tail", "--endpoint", "orders"],
            "invalid value 'orders' for '--endpoint <IP:PORT>': write IP:PORT or [IPv6]:PORT; see --help",
        ),
        (
            &["tail", "--events", "--kind", "limit_pressure"],
            "the argument '--events' cannot be used with '--kind <KIND>'; see --help",
        ),
        (
            &["tail", "--events", "--min-severity", "info"],
            "the argument '--events' cannot be used with '--min-severity <SEVERITY>'; see --help",
        ),
        (&["tail", "a\u{202e}b"], r"unexpected argument 'a\u{202e}b' found; see --help"),
        (
            &["run", "--config", "/nonexistent.toml"],
            "cannot read /nonexistent.toml: No such file or directory (os error 2)",
        ),
        (&["run", "--port", "5432"], "--port \"5432\": write PORT=DATABASE, such as 5433=postgres"),
        (
            &["run", "--limit", "127.0.0.1:7777=5"],
            "--limit \"127.0.0.1:7777=5\": port 7777 is not watched: add --port 7777=DATABASE, or to capture.ports",
        ),
        (
            &["run", "--set", "detect.window=1"],
            "--set \"detect.window=1\": unknown key `window` in [detect]: did you mean `window_s`?",
        ),
        (&["check-config", "/nonexistent"], "cannot read /nonexistent: No such file or directory (os error 2)"),
        (&["run", "--for", "0s"], "--for is zero: give a duration such as 30s"),
        (&["snapshot", "--standalone", "--port", "x=y"], "--port \"x=y\": \"x\" is no port: ports go from 1 to 65535"),
        (
            &["top", "--interval", "1ms"],
            "invalid value '1ms' for '--interval <DURATION>': from 100ms to 1h; see --help",
        ),
        (&["explain", "slow"], "invalid value 'slow' for '[KIND]' [possible values: KINDS]; see --help"),
        (&["diff", "/nonexistent", "x"], "cannot read /nonexistent: No such file or directory (os error 2)"),
        (&["record", "-o", "/dev/null"], "cannot write /dev/null: it is there and is no regular file"),
        (&["record", "-o", "x", "--for", "0s"], "--for must be more than nothing and at most a year"),
        (&["replay", "/nonexistent"], "cannot read /nonexistent: No such file or directory (os error 2)"),
        (&["replay", "/dev/null"], "cannot replay /dev/null: it ends before it begins"),
        (&["replay", "/etc/passwd"], "cannot replay /etc/passwd: it is no socklife recording"),
        (
            &["replay", "x", "--at", "noon"],
            "invalid value 'noon' for '--at <TIME>': write a time such as 2026-11-21T20:41:07Z, or a duration such as \
             90s; see --help",
        ),
        (
            &["replay", "x", "--stretch", "0"],
            "invalid value '0' for '--stretch <N>': 0 is not in 1..=10080; see --help",
        ),
        (&["snapshot", "-o", "/dev/null"], "cannot write /dev/null: it is there and is no regular file"),
    ] {
        let (code, stdout, stderr) = told(&output(args));
        let sentence = sentence.replace("KINDS", &Kind::ALL.map(Kind::name).join(", "));
        assert_eq!((code, stdout.as_str(), stderr), (Some(2), "", format!("socklife: {sentence}\n")), "{args:?}");
    }
}

#[test]
fn every_mistake_in_a_file_is_a_line_and_a_good_file_is_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a\u{202e}b.toml");
    let file = path.to_str().unwrap();
    std::fs::write(&path, "[inventory]\nrecncile_s = 5\n[[endpoint]]\nmatch = \"10.0.0.5/8:5432\"\n").unwrap();
    let shown = file.replace('\u{202e}', "\\u{202e}");
    let sentences = format!(
        "socklife: {shown}:2:1: unknown key `recncile_s` in [inventory]: did you mean `reconcile_s`?\n\
         socklife: {shown}:4:9: endpoint: \"10.0.0.5/8\" has address bits among its last 24: write 10.0.0.0/8\n"
    );
    for args in [&["check-config", file][..], &["run", "--config", file]] {
        assert_eq!(told(&output(args)), (Some(2), String::new(), sentences.clone()), "{args:?}");
    }
    let (code, default, stderr) = told(&output(&["check-config", "--print-default"]));
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    std::fs::write(&path, default).unwrap();
    assert_eq!(told(&output(&["check-config", file])), (Some(0), format!("{shown} is fine\n"), String::new()));
}

#[test]
fn top_without_a_terminal_is_one_sentence() {
    for (term, why) in [
        ("xterm", "top needs a terminal, and stdin or stdout is none"),
        ("dumb", "top needs a terminal, and TERM names none that can move its cursor"),
    ] {
        let (code, stdout, stderr) = told(&socklife(&["top"]).env("TERM", term).output().unwrap());
        let sentence = format!("socklife: {why}: `socklife tail` and `snapshot` do without\n");
        assert_eq!((code, stdout.as_str(), stderr), (Some(3), "", sentence));
    }
}

#[test]
fn no_command_shows_the_help_and_is_an_error() {
    let (code, stdout, stderr) = told(&output(&[]));
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    assert!(stderr.contains("Usage: socklife"), "{stderr}");
}

#[test]
fn an_absent_daemon_is_three_and_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let stale = dir.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    for path in [Path::new("/nonexistent/s.sock"), &stale] {
        let path = path.to_str().unwrap();
        for args in [&["tail"][..], &["tail", "--events", "--json"], &["snapshot"], &["snapshot", "--fail-on", "info"]]
        {
            let (code, stdout, stderr) = told(&output(&[args, &["--socket", path]].concat()));
            let sentence = format!(
                "socklife: no daemon answers on {path}: start one with `socklife run` (as root), or give its --socket PATH\n"
            );
            assert_eq!((code, stdout.as_str(), stderr), (Some(3), "", sentence), "{args:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshot_prints_what_the_daemon_says() {
    let state = snapshot(vec![finding("f1", Severity::Warning, 0)]);
    let daemon = Daemon::start(state.clone());
    let (code, stdout, stderr) = daemon.output(&["snapshot"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert_eq!(stdout, serde_json::to_string(&state).unwrap() + "\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshot_judges_when_asked_to() {
    let daemon = Daemon::start(snapshot(vec![finding("f1", Severity::Warning, 0)]));
    for (least, wanted) in [("info", 1), ("warning", 1), ("critical", 0)] {
        let (code, stdout, stderr) = daemon.output(&["snapshot", "--fail-on", least]);
        assert_eq!((code, stderr.as_str()), (Some(wanted), ""), "{least}");
        assert!(stdout.starts_with("{\"schema\":\"socklife.snapshot/v1\""), "{stdout}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshot_goes_to_a_file() {
    let state = snapshot(Vec::new());
    let daemon = Daemon::start(state.clone());
    let file = daemon.dir.path().join("now.json");
    let (code, stdout, stderr) = daemon.output(&["snapshot", "-o", file.to_str().unwrap()]);
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (Some(0), "", ""));
    let written: Snapshot = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(written, state);
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o7777, 0o640);
    daemon.fake.shutdown.send(true).unwrap();
    while daemon.path.try_exists().unwrap() {
        tokio::task::yield_now().await;
    }
    std::fs::write(&file, "old").unwrap();
    assert_eq!(daemon.output(&["snapshot", "-o", file.to_str().unwrap()]).0, Some(3));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "old");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tail_is_live_text() {
    let daemon = Daemon::start(snapshot(vec![finding("f1", Severity::Critical, 0)]));
    let (tail, mut lines) = daemon.tail(&["tail"]);
    assert_eq!(lines.next().unwrap(), "20:41:07 CRITICAL  limit_pressure       96 of 100 open");
    daemon.fake.findings.send(line(Change::Resolved, finding("f1", Severity::Critical, 60))).unwrap();
    let resolved = lines.next().unwrap();
    assert!(resolved.ends_with(" resolved  limit_pressure       96 of 100 open"), "{resolved}");
    tail.signal(Signal::SIGTERM);
    assert_eq!(tail.end(), (Some(0), String::new()));
    assert_eq!(lines.next(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tail_is_live_json_and_filtered() {
    let daemon = Daemon::start(snapshot(vec![finding("f1", Severity::Info, 0), finding("f2", Severity::Critical, 0)]));
    let (tail, mut lines) = daemon.tail(&["tail", "--json", "--min-severity", "warning"]);
    let first: FindingLine = serde_json::from_str(&lines.next().unwrap()).unwrap();
    assert_eq!((first.change, first.finding), (Change::Opened, finding("f2", Severity::Critical, 0)));
    let update = line(Change::Updated, finding("f2", Severity::Critical, 10));
    daemon.fake.findings.send(update.clone()).unwrap();
    assert_eq!(lines.next().unwrap(), serde_json::to_string(&*update).unwrap());
    tail.signal(Signal::SIGINT);
    assert_eq!(tail.end(), (Some(0), String::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_live_and_filtered() {
    let daemon = Daemon::start(snapshot(Vec::new()));
    let (tail, mut lines) = daemon.tail(&["tail", "--events", "--json", "--pid", "412"]);
    daemon.until_events_are_watched().await;
    daemon.fake.tell(&event(1));
    daemon.fake.tell(&event(412));
    let shown: EventLine = serde_json::from_str(&lines.next().unwrap()).unwrap();
    assert_eq!(shown, event(412));
    drop((tail, lines));

    while daemon.fake.handle.has_event_subscribers() {
        tokio::task::yield_now().await;
    }
    let (_tail, mut lines) = daemon.tail(&["tail", "--events"]);
    daemon.until_events_are_watched().await;
    daemon.fake.tell(&event(412));
    assert_eq!(
        lines.next().unwrap(),
        "20:41:07.000 opened       10.0.0.1:40222 -> 10.0.0.5:5432 postgres client  python3[412]"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tail_says_when_the_daemon_stops() {
    let daemon = Daemon::start(snapshot(Vec::new()));
    let (tail, mut lines) = daemon.tail(&["tail", "--events"]);
    daemon.until_events_are_watched().await;
    daemon.fake.shutdown.send(true).unwrap();
    assert_eq!(lines.next(), None);
    let sentence = format!(
        "socklife: the daemon on {} has stopped: start it again, then follow it again\n",
        daemon.path.display()
    );
    assert_eq!(tail.end(), (Some(3), sentence));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_pipe_is_no_error() {
    let daemon = Daemon::start(snapshot(Vec::new()));
    let (tail, lines) = daemon.tail(&["tail", "--events"]);
    daemon.until_events_are_watched().await;
    drop(lines);
    daemon.fake.tell(&event(412));
    assert_eq!(tail.end(), (Some(0), String::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_does_not_read_does_not_keep_tail_from_ending() {
    let daemon = Daemon::start(snapshot(Vec::new()));
    let (tail, mut lines) = daemon.tail(&["tail", "--events", "--json"]);
    daemon.until_events_are_watched().await;
    // Read one line, so that it surely writes, and then no more: the pipe fills up.
    daemon.fake.tell(&event(0));
    lines.next().unwrap();
    for pid in 0..2_000 {
        daemon.fake.tell(&event(pid));
    }
    tail.signal(Signal::SIGTERM);
    assert_eq!(tail.end(), (Some(0), String::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tail_says_what_was_lost() {
    let daemon = Daemon::start(snapshot(Vec::new()));
    let loss = Loss { ring_full: 7, ..Loss::default() };
    daemon.fake.loss.send_replace(Some(LossLine { schema: LOSS_SCHEMA.to_owned(), at: AT, loss }));
    let (tail, mut lines) = daemon.tail(&["tail"]);
    let line = lines.next().unwrap();
    assert!(line.contains("LOST") && line.contains("ring_full 7 since the start"), "{line}");
    tail.signal(Signal::SIGTERM);
    assert_eq!(tail.end(), (Some(0), String::new()));
}
