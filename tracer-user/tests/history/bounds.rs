//! Age and size, in small.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use tracer_user::history::{Bounds, FILE, Store, Syncing};

use super::recorded::{Day, POOL};
use super::{socklife, text, told};

fn number(db: &Connection, query: &str) -> i64 {
    db.query_row(query, [], |row| row.get(0)).unwrap()
}

/// Connections that are closed at once, so many a second.
fn busy(path: &Path, seconds: u64, each: u16) {
    let mut day = Day::begin(path);
    day.identify(POOL, "busy.py", 2);
    for at in 2..seconds {
        for _ in 0..each {
            let port = day.open(POOL, at);
            day.close(port, at);
        }
    }
    day.end(seconds + 20);
}

#[test]
fn a_store_that_is_full_loses_its_oldest_and_stays_within_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (recording, state) = (dir.path().join("a.rec"), dir.path().join("state"));
    busy(&recording, 900, 40);
    let bytes: u64 = 2 << 20;
    told(&["replay", text(&recording), "--into", text(&state), "--max-bytes", &bytes.to_string()]);
    let size: u64 = state
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(FILE))
        .map(|entry| entry.metadata().unwrap().len())
        .sum();
    assert!(size <= bytes, "{size} bytes");
    let db = Connection::open(state.join(FILE)).unwrap();
    assert_eq!(db.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)).unwrap(), "ok");
    let (kept, first) = (number(&db, "SELECT count(*) FROM closed"), number(&db, "SELECT min(closed_ms) FROM closed"));
    let begin = number(&db, "SELECT min(started_ms) FROM run");
    let last = number(&db, "SELECT max(closed_ms) FROM closed");
    assert!(kept > 1_000 && kept < 35_000, "{kept} of 35,920");
    assert!(
        first > begin + 60_000 && last == begin + 899_000,
        "from {} s to {} s",
        (first - begin) / 1_000,
        (last - begin) / 1_000
    );
}

#[test]
fn what_is_too_old_goes() {
    let dir = tempfile::tempdir().unwrap();
    let (recording, state) = (dir.path().join("a.rec"), dir.path().join("state"));
    busy(&recording, 600, 5);
    told(&["replay", text(&recording), "--into", text(&state)]);
    let bounds = Bounds { max_age: Duration::from_secs(100), ..Bounds::default() };
    let mut store = Store::open(&state, bounds, Syncing::Normal, true).unwrap();
    store.prune().unwrap();
    store.commit().unwrap();
    drop(store);
    let db = Connection::open(state.join(FILE)).unwrap();
    for (table, at) in [("closed", "closed_ms"), ("endpoint_series", "at_ms"), ("process_series", "at_ms")] {
        let span = number(&db, &format!("SELECT max({at}) - min({at}) FROM {table}"));
        assert!(span <= 100_000 && span > 50_000, "{table}: {span} ms");
    }
}

#[test]
fn closed_connections_beyond_the_rate_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (recording, state) = (dir.path().join("a.rec"), dir.path().join("state"));
    busy(&recording, 6, 1_500);
    told(&["replay", text(&recording), "--into", text(&state)]);
    let db = Connection::open(state.join(FILE)).unwrap();
    let (kept, more) = (
        number(&db, "SELECT count(*) FROM closed"),
        number(&db, "SELECT sum(rows) FROM gap WHERE what = 'summarised'"),
    );
    assert_eq!((kept, more), (4_000, 2_000));
    let counted = number(&db, "SELECT sum(opened) FROM endpoint_series");
    assert!(counted >= 4_500, "the series has them all: {counted}");
    let lines = told(&["history", "--since", "2026-11-21T00:00:00Z", "--state-dir", text(&state)]);
    assert!(lines.contains("GAP       summarised: 500 not kept"), "{lines}");
}

#[test]
fn nobody_else_can_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    std::fs::create_dir(&state).unwrap();
    // What was there before with a mode too wide is narrowed.
    std::fs::write(state.join(FILE), "").unwrap();
    std::fs::set_permissions(state.join(FILE), std::fs::Permissions::from_mode(0o666)).unwrap();
    let mut store = Store::open(&state, Bounds::default(), Syncing::Full, true).unwrap();
    let at = tracer_core::time::WallTime { unix_ms: 1 };
    store.gap(at, at, "paused", 1, "a row, so that there is a log").unwrap();
    store.commit().unwrap();
    for suffix in ["", "-wal", "-shm"] {
        let mode = state.join(format!("{FILE}{suffix}")).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o640, "{suffix}");
    }
}

#[test]
fn a_store_of_a_later_version_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (recording, state) = (dir.path().join("a.rec"), dir.path().join("state"));
    busy(&recording, 10, 1);
    told(&["replay", text(&recording), "--into", text(&state)]);
    Connection::open(state.join(FILE)).unwrap().pragma_update(None, "user_version", 2).unwrap();
    let before = std::fs::read(state.join(FILE)).unwrap();
    let sentence = "the history has version 2, and this socklife knows version 1: use the one that wrote it, or another \
                    directory\n";
    let args = ["replay", text(&recording), "--into", text(&state)];
    for args in [&args[..], &["history", "--state-dir", text(&state)]] {
        let (code, stdout, stderr) = socklife(args);
        assert_eq!((code, stdout.as_str()), (Some(3), ""));
        assert!(stderr.contains(sentence), "{stderr}");
    }
    assert_eq!(std::fs::read(state.join(FILE)).unwrap(), before);
    let names = state.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(names.into_iter().all(|name| !name.contains("damaged")));
}
