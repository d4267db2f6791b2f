//! The flight recorder: a day that was recorded is replayed into a store and asked about; the store keeps within its
//! bounds, and survives damage and the end of its process at any moment.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed test says so")]

#[path = "history/bounds.rs"]
mod bounds;
#[expect(dead_code, reason = "other tests use more of it")]
mod common;
#[path = "history/day.rs"]
mod day;
#[path = "history/disk.rs"]
mod disk;
#[path = "history/full.rs"]
mod full;
#[path = "history/killed.rs"]
mod killed;
#[path = "history/recorded.rs"]
mod recorded;
#[path = "history/served.rs"]
mod served;

use std::path::Path;
use std::process::Command;

/// `socklife` with these arguments: exit code, stdout, stderr.
fn socklife(args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_socklife"));
    command.args(args).env("TZ", "UTC").env("NO_COLOR", "1").env_remove("SOCKLIFE_SOCKET");
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// The same where it has to work.
fn told(args: &[&str]) -> String {
    let (code, stdout, stderr) = socklife(args);
    assert_eq!(code, Some(0), "{args:?}: {stderr}");
    stdout
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
