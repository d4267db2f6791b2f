//! The published JSON Schemas are what the types say. `SOCKLIFE_BLESS=1 cargo test -p tracer-user --test schemas`
//! rewrites them after a wanted change.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed test says so")]

use std::path::PathBuf;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;
use tracer_core::diff::{DIFF_SCHEMA, Diff};
use tracer_core::finding::{FINDING_SCHEMA, FindingLine};
use tracer_core::snapshot::{EVENT_SCHEMA, EventLine, LOSS_SCHEMA, LossLine, SNAPSHOT_SCHEMA, Snapshot};
use tracer_user::api::{LOST_SCHEMA, LostLine};
use tracer_user::history::{HISTORY_SCHEMA, Line, RebuiltSnapshot};
use tracer_user::probe::report::{REAP_SCHEMA, ReapLine, VERIFY_SCHEMA, VerifyLine};

fn check<T: JsonSchema>(file: &str, schema: &str) {
    // Of what is written: all of it, always.
    let generator = SchemaSettings::default().for_serialize().into_generator();
    let mut made = serde_json::to_value(generator.into_root_schema_for::<T>()).unwrap();
    // The type says "a text"; this version says which.
    let named = made.pointer_mut("/properties/schema").and_then(Value::as_object_mut).unwrap();
    named.insert("const".to_owned(), schema.into());
    let mut text = serde_json::to_string_pretty(&made).unwrap();
    text.push('\n');

    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/schema").join(file);
    if std::env::var_os("SOCKLIFE_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let published = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(published == text, "{file} is not what the types say: see the head of this test");
}

#[test]
fn snapshot() {
    check::<Snapshot>("snapshot.v1.json", SNAPSHOT_SCHEMA);
}

#[test]
fn finding() {
    check::<FindingLine>("finding.v1.json", FINDING_SCHEMA);
}

#[test]
fn event() {
    check::<EventLine>("event.v1.json", EVENT_SCHEMA);
}

#[test]
fn loss() {
    check::<LossLine>("loss.v1.json", LOSS_SCHEMA);
}

#[test]
fn lost() {
    check::<LostLine>("lost.v1.json", LOST_SCHEMA);
}

#[test]
fn diff() {
    check::<Diff>("diff.v1.json", DIFF_SCHEMA);
}

#[test]
fn verify() {
    check::<VerifyLine>("verify.v1.json", VERIFY_SCHEMA);
}

#[test]
fn reap() {
    check::<ReapLine>("reap.v1.json", REAP_SCHEMA);
}

#[test]
fn history() {
    check::<Line>("history.v1.json", HISTORY_SCHEMA);
}

#[test]
fn rebuilt_snapshot() {
    check::<RebuiltSnapshot>("rebuilt-snapshot.v1.json", SNAPSHOT_SCHEMA);
}
