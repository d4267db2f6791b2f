//! The same answers from a daemon that keeps a history.

use tracer_user::api::server::serve;
use tracer_user::api::socket::Socket;
use tracer_user::config::ApiConfig;
use tracer_user::history::{Bounds, Run, spawn};

use super::common::{fake, snapshot};
use super::recorded::{Day, POOL};
use super::{socklife, text, told};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_answers_as_its_directory_does() {
    let dir = tempfile::tempdir().unwrap();
    let (recording, state) = (dir.path().join("a.rec"), dir.path().join("state"));
    let mut day = Day::begin(&recording);
    day.open(POOL, 2);
    day.identify(POOL, "worker.py", 2);
    for at in 10..100 {
        let port = day.open(POOL, at);
        day.close(port, at + 1);
    }
    day.end(120);
    told(&["replay", text(&recording), "--into", text(&state)]);

    let socket = dir.path().join("s.sock");
    let config = ApiConfig { socket: socket.clone(), group: "no-such-group-here".to_owned(), metrics: None };
    let mut fake = fake(snapshot(Vec::new()));
    let run = Run {
        started_ms: 1_800_000_000_000,
        source: "live",
        boot_id: "c".to_owned(),
        hostname: "h".to_owned(),
        version: "0".to_owned(),
    };
    let writer = spawn(&state, Bounds::default(), run).unwrap();
    fake.handle.set_history(writer.access(&state));
    tokio::spawn(serve(Socket::bind(&config).unwrap(), fake.handle.clone()));
    let ask = |args: &[&str]| {
        let by_socket = [args, &["--socket", text(&socket)]].concat();
        let by_directory = [args, &["--state-dir", text(&state)]].concat();
        let answer = told(&by_socket);
        assert_eq!(answer, told(&by_directory), "{args:?}");
        answer
    };
    let at = ["snapshot", "--at", "2026-11-21T00:00:55.5Z"];
    let then: serde_json::Value = serde_json::from_str(&ask(&at)).unwrap();
    assert_eq!(then["endpoints"][0]["open"], 2);
    // Before the first sample that had the endpoint.
    let early: serde_json::Value = serde_json::from_str(&ask(&["snapshot", "--at", "2026-11-21T00:00:05Z"])).unwrap();
    assert_eq!((&early["endpoints"][0]["open"], &early["endpoints"][0]["name"]), (&1.into(), &"orders-db".into()));
    assert_eq!(early["endpoints"][0]["by_state"]["ESTABLISHED"], 1);
    assert_eq!(then["rebuilt"]["asked_at"], "2026-11-21T00:00:55.500Z");
    let hour = ["history", "--since", "2026-11-21T00:00:00Z", "--until", "2026-11-21T01:00:00Z", "--json"];
    let lines = ask(&hour);
    assert!(lines.contains("\"what\":\"closed\"") && lines.contains("\"connections\":90"), "{lines}");
    assert!(!ask(&[&hour[..], &["--pid", "412", "--pid", "7"]].concat()).is_empty());
    assert!(ask(&[&hour[..], &["--endpoint", "[::1]:5432", "--kind", "idle_hold"]].concat()).is_empty());
    let (code, stdout, stderr) = socklife(&["snapshot", "--at", "2020-01-01T00:00:00Z", "--socket", text(&socket)]);
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    assert!(stderr.contains("is not in the history: it begins at 2026-11-21T00:00:01.000Z"), "{stderr}");
    // A report or a diff takes it as any other snapshot.
    let (a, b) = (dir.path().join("a.json"), dir.path().join("b.json"));
    for (file, at) in [(&a, "2026-11-21T00:00:15.5Z"), (&b, "2026-11-21T00:00:55.5Z")] {
        told(&["snapshot", "--at", at, "-o", text(file), "--socket", text(&socket)]);
    }
    let diff = told(&["diff", text(&a), text(&b)]);
    assert!(diff.contains("0  orders-db 10.0.0.5:5432  client  2 -> 2 open  40 opened, 40 closed"), "{diff}");
}
