//! The control API over a real unix socket, with a daemon's end made up for the test.

#![expect(clippy::unwrap_used, reason = "a failed test says so")]

mod common;
#[path = "api/metrics.rs"]
mod metrics;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use common::{AT, Fake, event, fake, finding, line, snapshot};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tracer_core::finding::{Change, FindingLine, Severity};
use tracer_core::snapshot::{EventLine, LOSS_SCHEMA, Loss, LossLine, Snapshot};
use tracer_user::api::client::{Client, ClientError, Lines};
use tracer_user::api::server::{CONNECTIONS_MAX, serve};
use tracer_user::api::socket::Socket;
use tracer_user::api::{Health, LOST_SCHEMA, LostLine};
use tracer_user::config::ApiConfig;

struct Running {
    fake: Fake,
    client: Client,
    path: PathBuf,
    server: JoinHandle<()>,
    _dir: TempDir,
}

fn start(state: Snapshot) -> Running {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.sock");
    let socket = Socket::bind(&config(&path)).unwrap();
    let fake = fake(state);
    let server = tokio::spawn(serve(socket, fake.handle.clone()));
    Running { fake, client: Client::new(&path), path, server, _dir: dir }
}

fn config(path: &Path) -> ApiConfig {
    ApiConfig { socket: path.to_owned(), group: "no-such-group-here".to_owned(), metrics: None }
}

async fn finding_line(lines: &mut Lines) -> FindingLine {
    serde_json::from_slice(&lines.next().await.unwrap().unwrap()).unwrap()
}

async fn event_line(lines: &mut Lines) -> EventLine {
    serde_json::from_slice(&lines.next().await.unwrap().unwrap()).unwrap()
}

const NO_HISTORY: &str = "this daemon keeps no history: start it with --state-dir DIR, or set history.dir";

#[tokio::test]
async fn the_snapshot_arrives_as_it_was_made() {
    let state = snapshot(vec![finding("f1", Severity::Critical, 0)]);
    let running = start(state.clone());
    assert_eq!(running.client.get_json::<Snapshot>("/v1/snapshot").await.unwrap(), state);
}

#[tokio::test]
async fn parts_of_the_snapshot() {
    let running = start(snapshot(vec![finding("f1", Severity::Critical, 0)]));
    let findings: Value = running.client.get_json("/v1/findings").await.unwrap();
    assert_eq!(findings["findings"][0]["id"], "f1");
    assert_eq!(
        (&findings["completeness"], &findings["captured_at"]),
        (&"exact".into(), &"2026-11-21T20:41:07.000Z".into())
    );
    let processes: Value = running.client.get_json("/v1/processes").await.unwrap();
    assert_eq!(processes["processes"], Value::Array(Vec::new()));
    // All of a snapshot but its connections.
    let mut all: Value = running.client.get_json("/v1/snapshot").await.unwrap();
    let parts = all.as_object_mut().unwrap();
    assert!(parts.remove("connections").is_some() && parts.remove("schema").is_some());
    let overview: Value = running.client.get_json("/v1/overview").await.unwrap();
    assert_eq!(overview, all);
    let health: Health = running.client.get_json("/v1/health").await.unwrap();
    assert_eq!((health.status.as_str(), health.version.as_str()), ("ok", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn connections_are_filtered() {
    let running = start(snapshot(Vec::new()));
    for (query, ids) in [
        ("", vec!["c1", "c2", "c3"]),
        ("?pid=412", vec!["c1", "c2"]),
        ("?pid=433", vec!["c2"]),
        ("?pid=1", vec![]),
        ("?endpoint=10.0.0.5:5432", vec!["c1", "c2"]),
        ("?endpoint=orders-db", vec!["c1", "c2"]),
        ("?endpoint=%31%30.0.0.6:5432", vec!["c3"]),
        ("?state=close_wait", vec!["c2"]),
        ("?fresh=true&state=close_wait", vec!["c2"]),
        ("?fresh=false&pid=412", vec!["c1", "c2"]),
        ("?state=ESTABLISHED&pid=412", vec!["c1"]),
        ("?state=ESTABLISHED&endpoint=orders-db&pid=500", vec![]),
    ] {
        let answer: Value = running.client.get_json(&format!("/v1/connections{query}")).await.unwrap();
        let found: Vec<&str> =
            answer["connections"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap()).collect();
        assert_eq!(found, ids, "{query}");
    }
}

#[tokio::test]
async fn bad_requests_get_a_sentence() {
    let running = start(snapshot(Vec::new()));
    for (target, code, wanted) in [
        ("/v1/connections?port=1", 400, "unknown parameter \"port\": this path takes pid, endpoint, state, fresh"),
        ("/v1/connections?pid=1&pid=2", 400, "parameter \"pid\" is given twice"),
        ("/v1/connections?fresh=no", 400, "fresh is \"no\": give true (look first) or false"),
        ("/v1/connections?pid=-1", 400, "pid \"-1\" is no process id: give a number"),
        (
            "/v1/connections?state=OPEN",
            400,
            "unknown state \"OPEN\": the states are ESTABLISHED, SYN_SENT, SYN_RECV, FIN_WAIT1, FIN_WAIT2, TIME_WAIT, \
             CLOSE, CLOSE_WAIT, LAST_ACK, LISTEN, CLOSING, NEW_SYN_RECV",
        ),
        ("/v1/snapshot?fresh=1", 400, "unknown parameter \"fresh\": this path takes at"),
        ("/v1/snapshot?at=noon", 400, "at \"noon\" is no time: write one such as 2026-11-21T20:41:07Z"),
        ("/v1/snapshot?at=2026-11-21T20:41:07Z", 404, NO_HISTORY),
        ("/v1/history", 404, NO_HISTORY),
        ("/v1/history?pid=x", 400, "pid \"x\" is no process id: give a number"),
        ("/v1/history?when=1", 400, "unknown parameter \"when\": this path takes since, until, pid, endpoint, kind"),
        ("/v1/tail?pid=1", 400, "unknown parameter \"pid\": this path takes none"),
        (
            "/v2/snapshot",
            404,
            "no such path: there are /v1/snapshot, /v1/overview, /v1/findings, /v1/processes, /v1/connections, /v1/tail, \
             /v1/events, /v1/record, /v1/history, /v1/health and /metrics",
        ),
    ] {
        match running.client.get(target).await.unwrap_err() {
            ClientError::Refused { status, sentence, .. } => assert_eq!((status, sentence.as_str()), (code, wanted)),
            other => panic!("{target}: {other}"),
        }
    }
}

#[tokio::test]
async fn only_get_is_allowed() {
    let running = start(snapshot(Vec::new()));
    let mut stream = UnixStream::connect(&running.path).await.unwrap();
    stream.write_all(b"POST /v1/snapshot HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 405 ") && answer.ends_with("{\"error\":\"only GET is allowed\"}"), "{answer}");
}

#[tokio::test]
async fn tail_begins_with_what_is_open_and_goes_on_live() {
    let running = start(snapshot(vec![finding("f1", Severity::Critical, 0), finding("f2", Severity::Info, 0)]));
    let mut lines = running.client.stream_lines("/v1/tail").await.unwrap();
    assert_eq!(lines.open_findings, Some(2));
    for id in ["f1", "f2"] {
        let first = finding_line(&mut lines).await;
        assert_eq!((first.change, first.finding.id.as_str()), (Change::Opened, id));
    }
    for sent in [
        line(Change::Updated, finding("f1", Severity::Warning, 10)),
        line(Change::Opened, finding("f3", Severity::Info, 10)),
        line(Change::Resolved, finding("f1", Severity::Warning, 20)),
    ] {
        running.fake.findings.send(sent.clone()).unwrap();
        assert_eq!(finding_line(&mut lines).await, *sent);
    }
}

#[tokio::test]
async fn tail_does_not_repeat_what_it_began_with() {
    let running = start(snapshot(vec![finding("f1", Severity::Critical, 10)]));
    let mut lines = running.client.stream_lines("/v1/tail").await.unwrap();
    assert_eq!(finding_line(&mut lines).await.finding.id, "f1");
    // What was under way between subscribing and asking is older than, or the same as, the first line.
    running.fake.findings.send(line(Change::Opened, finding("f1", Severity::Warning, 0))).unwrap();
    running.fake.findings.send(line(Change::Updated, finding("f1", Severity::Critical, 10))).unwrap();
    let resolved = line(Change::Resolved, finding("f1", Severity::Critical, 10));
    running.fake.findings.send(resolved.clone()).unwrap();
    let again = line(Change::Opened, finding("f1", Severity::Warning, 10));
    running.fake.findings.send(again.clone()).unwrap();
    assert_eq!(finding_line(&mut lines).await, *resolved);
    assert_eq!(finding_line(&mut lines).await, *again);
}

#[tokio::test]
async fn events_are_made_only_while_someone_listens() {
    let running = start(snapshot(Vec::new()));
    assert!(!running.fake.handle.has_event_subscribers());
    let mut lines = running.client.stream_lines("/v1/events").await.unwrap();
    assert!(running.fake.handle.has_event_subscribers());
    assert!(running.fake.followed.load(Ordering::Acquire), "the daemon was not told");
    running.fake.tell(&event(412));
    assert_eq!(event_line(&mut lines).await, event(412));
    drop(lines);
    // The server notices that the client is gone without having anything to send.
    while running.fake.handle.has_event_subscribers() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_slow_reader_is_told_what_it_lost_and_goes_on() {
    let running = start(snapshot(Vec::new()));
    let mut lines = running.client.stream_lines("/v1/events").await.unwrap();
    // One thread: the stream's task does not run in between, so this is more than it may be behind.
    let sent = 20_000;
    for pid in 0..sent {
        running.fake.tell(&event(pid));
    }
    let first: LostLine = serde_json::from_slice(&lines.next().await.unwrap().unwrap()).unwrap();
    assert_eq!(first.schema, LOST_SCHEMA);
    let first_kept = u32::try_from(first.lost).unwrap();
    assert!(first_kept > 0 && first_kept < sent);
    for pid in first_kept..sent {
        assert_eq!(event_line(&mut lines).await.opener.unwrap().pid, pid);
    }
    running.fake.tell(&event(7));
    assert_eq!(event_line(&mut lines).await.opener.unwrap().pid, 7);
}

#[tokio::test]
async fn the_end_of_the_daemon_ends_streams_cleanly() {
    let running = start(snapshot(Vec::new()));
    let mut lines = running.client.stream_lines("/v1/events").await.unwrap();
    let mut tail = running.client.stream_lines("/v1/tail").await.unwrap();
    running.fake.tell(&event(1));
    running.fake.shutdown.send(true).unwrap();
    // What was said before the end arrives before the end.
    assert_eq!(event_line(&mut lines).await, event(1));
    assert_eq!(lines.next().await.unwrap(), None);
    assert_eq!(tail.next().await.unwrap(), None);
    running.server.await.unwrap();
    assert!(!running.path.try_exists().unwrap());
    assert!(matches!(running.client.get("/v1/health").await.unwrap_err(), ClientError::Absent(_)));
}

#[tokio::test]
async fn a_recording_is_streamed_as_it_is_made() {
    let running = start(snapshot(Vec::new()));
    let mut chunks = running.client.stream_bytes("/v1/record").await.unwrap();
    for said in ["one", "two"] {
        running.fake.frames.push(said.into());
        assert_eq!(chunks.next().await.unwrap().unwrap(), said);
    }
    match running.client.stream_bytes("/v1/record").await.unwrap_err() {
        ClientError::Refused { status: 503, sentence, .. } => {
            assert_eq!(sentence, "4 recordings are being made: end one, and try again");
        }
        other => panic!("{other}"),
    }
    running.fake.frames.push("three".into());
    running.fake.shutdown.send(true).unwrap();
    assert_eq!(chunks.next().await.unwrap().unwrap(), "three");
    assert_eq!(chunks.next().await.unwrap(), None);
}

#[tokio::test]
async fn a_daemon_that_dies_is_noticed() {
    let running = start(snapshot(Vec::new()));
    let mut lines = running.client.stream_lines("/v1/events").await.unwrap();
    running.server.abort();
    assert!(matches!(lines.next().await.unwrap_err(), ClientError::Lost(_)));
}

#[tokio::test]
async fn connections_beyond_the_bound_are_refused_and_places_come_back() {
    let running = start(snapshot(Vec::new()));
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        held.push(running.client.stream_lines("/v1/events").await.unwrap());
    }
    match running.client.get("/v1/health").await.unwrap_err() {
        ClientError::Refused { status: 503, sentence, .. } => {
            assert!(sentence.starts_with("64 clients are connected"), "{sentence}");
        }
        other => panic!("{other}"),
    }
    held.pop();
    while running.client.get("/v1/health").await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn whole_answers_are_bounded_and_their_turns_come_back() {
    let running = start(snapshot(Vec::new()));
    for _ in 0..40 {
        running.client.get("/v1/snapshot").await.unwrap();
    }
}

#[tokio::test]
async fn who_does_not_speak_the_protocol_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"220 mail ready\r\n").await.unwrap();
        let _ended = stream.read_to_end(&mut Vec::new()).await;
    });
    let error = Client::new(&path).get("/v1/health").await.unwrap_err();
    assert!(matches!(error, ClientError::Strange { .. }), "{error:?}");
}

#[tokio::test]
async fn a_loss_is_told_to_who_listens_and_to_who_comes_later() {
    let running = start(snapshot(Vec::new()));
    let told = LossLine { schema: LOSS_SCHEMA.to_owned(), at: AT, loss: Loss { ring_full: 7, ..Loss::default() } };
    let mut before = running.client.stream_lines("/v1/tail").await.unwrap();
    running.fake.loss.send_replace(Some(told.clone()));
    let mut after = running.client.stream_lines("/v1/events").await.unwrap();
    for lines in [&mut before, &mut after] {
        let line: LossLine = serde_json::from_slice(&lines.next().await.unwrap().unwrap()).unwrap();
        assert_eq!(line, told);
    }
}
