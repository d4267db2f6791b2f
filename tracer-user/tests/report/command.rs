//! The command: files, pipes, and bad input.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output, Stdio};

use super::fixture::incident;

/// Runs `socklife report`, with `input` on its stdin.
fn report(args: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_socklife"));
    command.arg("report").args(args).env_remove("SOCKLIFE_LOG").env_remove("RUST_LOG");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A command that refuses early does not read all of it.
    let _unread = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

#[test]
fn a_file_becomes_a_page() {
    let dir = tempfile::tempdir().unwrap();
    let (json, page) = (dir.path().join("now.json"), dir.path().join("now.html"));
    std::fs::write(&json, serde_json::to_vec(&incident()).unwrap()).unwrap();
    let done = report(&[json.to_str().unwrap(), "-o", page.to_str().unwrap()], b"");
    assert_eq!((done.status.code(), done.stdout, done.stderr), (Some(0), vec![], vec![]));
    assert_eq!(page.metadata().unwrap().permissions().mode() & 0o7777, 0o640);
    let written = std::fs::read_to_string(&page).unwrap();
    assert!(written.starts_with("<!doctype html>") && written.ends_with("</html>\n"), "{written}");
    assert_eq!(dir.path().read_dir().unwrap().count(), 2);
}

#[test]
fn a_pipe_becomes_the_same_page() {
    let json = serde_json::to_vec(&incident()).unwrap();
    let done = report(&["-", "-o", "-"], &json);
    assert_eq!((done.status.code(), done.stderr), (Some(0), vec![]));
    let page = tracer_user::export::report::html(&incident()).unwrap();
    assert_eq!(String::from_utf8(done.stdout).unwrap(), format!("{page}\n"));
}

#[test]
fn bad_input_is_one_sentence_and_two() {
    let json = serde_json::to_string(&incident()).unwrap();
    let half = json.get(..json.len() / 2).unwrap();
    let other = json.replace("socklife.snapshot/v1", "socklife.snapshot/v9");
    for (input, said) in [
        ("", "socklife: stdin is no snapshot: EOF while parsing"),
        ("hello", "socklife: stdin is no snapshot: expected value"),
        ("[]", "socklife: stdin is no snapshot: "),
        ("{}", "socklife: stdin is no snapshot: it has no schema, which must be \"socklife.snapshot/v1\""),
        (half, "socklife: stdin is no snapshot: EOF while parsing"),
        (&other, "socklife: stdin is no snapshot: its schema is \"socklife.snapshot/v9\", not"),
        ("{\"schema\":\"socklife.snapshot/v1\"}", "socklife: stdin is no snapshot: missing field"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let page = dir.path().join("now.html");
        let done = report(&["-", "-o", page.to_str().unwrap()], input.as_bytes());
        let stderr = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(2), "{stderr}");
        assert!(stderr.starts_with(said) && stderr.lines().count() == 1, "{stderr}");
        assert_eq!(dir.path().read_dir().unwrap().count(), 0, "{input}");
    }
}

#[test]
fn what_is_no_file_is_refused() {
    for (args, said) in [
        (&["/nonexistent", "-o", "-"][..], "socklife: cannot read /nonexistent: No such file or directory"),
        (&["/tmp", "-o", "-"], "socklife: cannot read /tmp: Is a directory"),
        (&["-", "-o", "/dev/null"], "socklife: cannot write /dev/null: it is there and is no regular file"),
        (&["-"], "socklife: the following required arguments were not provided: --output"),
    ] {
        let done = report(args, b"");
        let stderr = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(2), "{stderr}");
        assert!(stderr.starts_with(said), "{stderr}");
    }
}

/// More than any snapshot has: refused without being kept.
#[test]
fn what_is_too_large_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("huge.json");
    std::fs::File::create(&json).unwrap().set_len(tracer_user::api::client::BODY_BYTES_MAX as u64 + 1).unwrap();
    let done = report(&[json.to_str().unwrap(), "-o", "-"], b"");
    let stderr = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(2), "{stderr}");
    assert_eq!(stderr, format!("socklife: {} is larger than any snapshot\n", json.display()));
}

/// What version 1 began with, and nothing that was added since.
const FIRST: &str = r#"{
    "schema": "socklife.snapshot/v1", "captured_at": "2026-09-01T03:00:00.000Z",
    "host": {"hostname": "app-1", "kernel": "6.1.0", "arch": "x86_64", "boot_id": "b", "socklife_version": "0.1.0"},
    "capture": {"mode": "ebpf", "started_at": "2026-09-01T01:00:00.000Z", "probes": [],
        "loss": {"ring_full": 0, "map_full": 0, "queue_full": 0, "decode_errors": 0, "resyncs": 0},
        "completeness": "exact"},
    "endpoints": [{"id": "10.0.0.5:5432", "name": "orders-db", "database": "postgres", "role": "client",
        "limit": {"value": 100, "source": "config"}, "open": 1, "in_use_peak": 1, "open_peak": 1, "opened_total": 1,
        "closed_total": 0, "failed_total": 0, "by_state": {"ESTABLISHED": 1},
        "series": [{"step_s": 10, "start": "2026-09-01T02:59:50.000Z", "open": [1], "opened": [1], "closed": [0],
            "in_use": [1]}]}],
    "processes": [], "launcher_groups": [],
    "connections": [{"id": "c1", "netns": 1, "local": "10.0.0.9:40000", "remote": "10.0.0.5:5432",
        "endpoint": "10.0.0.5:5432", "database": "postgres", "role": "client", "state": "ESTABLISHED",
        "opened_at": null, "age_s": 7200, "age": "at_least", "opener": null, "holders": [], "idle_s": null,
        "bytes_sent": 0, "bytes_received": 0, "srtt_us": null, "retransmits": 0, "consecutive_rtos": 0, "unacked": 0,
        "keepalive": null}],
    "findings": [{"id": "f1", "kind": "idle_hold", "severity": "warning", "confidence": 0.9, "status": "open",
        "first_seen": "2026-09-01T02:00:00.000Z", "last_seen": "2026-09-01T03:00:00.000Z",
        "subject": {"endpoint": "10.0.0.5:5432", "pids": [], "launcher_group": null},
        "summary": "1 connection idle for 2 h", "evidence": [], "ruled_out": [], "remedy": "Close it", "verify": "ss -tn"}]
}"#;

#[test]
fn a_snapshot_of_the_first_kind_is_still_a_snapshot() {
    let done = report(&["-", "-o", "-"], FIRST.as_bytes());
    assert_eq!((done.status.code(), String::from_utf8(done.stderr).unwrap()), (Some(0), String::new()));
    let page = String::from_utf8(done.stdout).unwrap();
    assert!(page.contains("1 connection idle for 2 h"), "{page}");
}
