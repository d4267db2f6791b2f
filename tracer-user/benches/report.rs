//! How long `socklife report` takes for a hundred thousand connections: `cargo bench -p tracer-user`. The command is
//! run whole: it reads the snapshot, and writes the page to its file.

#![expect(clippy::unwrap_used, reason = "a benchmark that fails says so")]

#[path = "../tests/report/fixture.rs"]
#[expect(dead_code, reason = "the tests use all of it")]
mod fixture;

use std::path::Path;
use std::process::Command;

use criterion::{Criterion, criterion_group, criterion_main};

const CONNECTIONS: u32 = 100_000;
const PROCESSES: u32 = 5_000;

fn report(criterion: &mut Criterion) {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (json, page) = (dir.join("large.json"), dir.join("large.html"));
    let snapshot = fixture::incident_of(CONNECTIONS, PROCESSES);
    std::fs::write(&json, serde_json::to_vec(&snapshot).unwrap()).unwrap();
    let mut group = criterion.benchmark_group("report");
    group.sample_size(10);
    group.bench_function(format!("{CONNECTIONS} connections"), |bencher| {
        bencher.iter(|| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_socklife"));
            assert!(command.arg("report").arg(&json).arg("-o").arg(&page).status().unwrap().success());
        });
    });
    group.finish();
    println!("{} bytes of snapshot, {} of page", json.metadata().unwrap().len(), page.metadata().unwrap().len());
}

criterion_group!(benches, report);
criterion_main!(benches);
