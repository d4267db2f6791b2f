//! A writer that is killed at any moment.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use rusqlite::Connection;
use tracer_core::time::WallTime;
use tracer_user::history::{Bounds, FILE, Store, Syncing};

use super::recorded::{Day, POOL};
use super::text;

const ROUNDS: u64 = 200;
/// Of recorded time.
const LOST_MAX_MS: i64 = 10_000;

fn last_of_the_last_run(state: &Path) -> (i64, i64) {
    let db = Connection::open(state.join(FILE)).unwrap();
    db.query_row("SELECT id, last_ms FROM run ORDER BY id DESC LIMIT 1", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
}

#[test]
fn a_writer_that_is_killed_200_times_loses_ten_seconds_at_most_and_starts_every_time() {
    let dir = tempfile::tempdir().unwrap();
    let (recording, state) = (dir.path().join("a.rec"), dir.path().join("state"));
    std::fs::create_dir(&state).unwrap();
    let mut day = Day::begin(&recording);
    day.identify(POOL, "busy.py", 2);
    for at in 2..20_000 {
        for _ in 0..3 {
            let port = day.open(POOL, at);
            day.close(port, at);
        }
    }
    day.end(20_000);
    let (mut random, mut told_anything) = (42_u64, 0);
    for round in 0..ROUNDS {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Some are killed before they have begun.
        let wanted = if round % 20 == 0 { 0 } else { (random >> 33) % 400 };
        let mut child = Command::new(env!("CARGO_BIN_EXE_socklife"))
            .args(["replay", text(&recording), "--into", text(&state), "--progress"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut handed_in = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut last = None;
        for _ in 0..wanted {
            last = handed_in.next().transpose().unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it still said before it was killed was handed in, too.
        last = handed_in.map_while(Result::ok).filter(|line| line.len() == 24).last().or(last);
        let mut store = Store::open(&state, Bounds::default(), Syncing::Normal, true).unwrap();
        assert_eq!(store.take_set_aside(), None, "round {round}");
        drop(store);
        if let Some(last) = last.and_then(|last| WallTime::try_from(last).ok()) {
            told_anything += 1;
            let (_, kept) = last_of_the_last_run(&state);
            let lost = last.unix_ms - kept;
            assert!(lost <= LOST_MAX_MS, "round {round}: {lost} ms lost");
        }
    }
    assert!(told_anything > ROUNDS / 2, "{told_anything} rounds got as far as to lose something");
    let db = Connection::open(state.join(FILE)).unwrap();
    assert_eq!(db.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)).unwrap(), "ok");
}
