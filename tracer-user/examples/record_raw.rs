//! Writes the kernel side's raw records of this network namespace to a file, each after its length (u32, native order), for as many seconds as
//! asked. Makes the fixtures of tracer-core's decode tests: `record_raw FILE SECONDS`, as root.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tracer_core::ports::PortMap;
use tracer_user::capture::{Allowed, Capture, Settings, VMLINUX_BTF};
use tracer_user::inventory::own_netns;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().context("usage: record_raw FILE SECONDS")?;
    let seconds: u64 = arguments.next().context("usage: record_raw FILE SECONDS")?.parse()?;
    let settings = Settings {
        ring_bytes: 1 << 20,
        map_entries: 65_536,
        netns: own_netns(Path::new("/proc"))?,
        btf: VMLINUX_BTF.into(),
        hooks: Allowed::default(),
        lost_ends_percent: 0,
    };
    let mut capture = Capture::start(&settings, &PortMap::default())?;
    // Every kind of record.
    capture.set_live(true)?;
    let mut ring = capture.take_ring()?;
    println!("recording");
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let mut file = std::fs::File::create(&path)?;
    let mut outcome = Ok(());
    let count = ring.drain_raw(usize::MAX, |record| {
        let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
        if outcome.is_ok() {
            outcome = file.write_all(&length.to_ne_bytes()).and_then(|()| file.write_all(record));
        }
    });
    outcome?;
    println!("{count} records");
    Ok(())
}
