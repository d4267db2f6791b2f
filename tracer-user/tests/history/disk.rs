//! A store that is not as it was written.

use std::path::Path;

use rusqlite::Connection;
use tracer_user::history::{Bounds, FILE, Reader, Store, Syncing};

use super::recorded::{Day, POOL};
use super::{text, told};

fn some_store(dir: &Path) -> std::path::PathBuf {
    let (recording, state) = (dir.join("a.rec"), dir.join("state"));
    let mut day = Day::begin(&recording);
    for at in 2..400 {
        let port = day.open(POOL, at);
        day.close(port, at);
    }
    day.end(400);
    told(&["replay", text(&recording), "--into", text(&state)]);
    state
}

fn aside(state: &Path) -> Vec<String> {
    let names = state.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.contains("damaged")).collect();
    names.sort();
    names
}

#[test]
fn a_damaged_store_is_set_aside_and_a_new_one_begins() {
    let dir = tempfile::tempdir().unwrap();
    let state = some_store(dir.path());
    let path = state.join(FILE);
    let good = std::fs::read(&path).unwrap();
    let mut in_the_middle = good.clone();
    for byte in &mut in_the_middle[8_192..8_192 + 4_096] {
        *byte ^= 0x55;
    }
    let mut of_another = good.clone();
    of_another[68..72].copy_from_slice(&7_u32.to_be_bytes());
    let damages: [&[u8]; 4] =
        [b"no database at all, and long enough to see it", &good[..good.len() / 2], &in_the_middle, &of_another];
    for (round, damage) in damages.iter().enumerate() {
        std::fs::write(&path, damage).unwrap();
        let mut store = Store::open(&state, Bounds::default(), Syncing::Full, true).unwrap();
        let said = store.take_set_aside().unwrap_or_else(|| panic!("damage {round} was not noticed"));
        assert!(said.contains("history.db.damaged-"), "{said}");
        drop(store);
        let names = aside(&state);
        assert_eq!(names.len(), (round + 1).min(2), "{names:?}");
        assert_eq!(std::fs::read(state.join(names.last().unwrap())).unwrap(), *damage);
        let db = Connection::open(&path).unwrap();
        assert_eq!(db.query_row("SELECT count(*) FROM closed", [], |row| row.get::<_, i64>(0)).unwrap(), 0);
    }
    std::fs::write(&path, &good).unwrap();
    let mut store = Store::open(&state, Bounds::default(), Syncing::Full, true).unwrap();
    assert_eq!(store.take_set_aside(), None);
}

#[test]
fn a_store_is_read_where_nothing_may_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let state = some_store(dir.path());
    let before = std::fs::read(state.join(FILE)).unwrap();
    let reader = Reader::open(&state).unwrap();
    let at = tracer_core::time::WallTime::try_from("2026-11-21T00:03:00Z".to_owned()).unwrap();
    let then = reader.snapshot_at(at).unwrap();
    assert_eq!(then.snapshot.captured_at, at);
    assert!(then.rebuilt.watched);
    drop(reader);
    assert_eq!(std::fs::read(state.join(FILE)).unwrap(), before, "reading changes nothing");
}
