//! The daemon's own life: ready, killed, started again, ended gracefully, small while idle.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use socklife_tests::client::Client;
use socklife_tests::daemon::{Daemon, socket_path};
use socklife_tests::flood::Flood;
use socklife_tests::look::{all_opened_by, counts, nothing_lost};
use socklife_tests::pace::load;
use socklife_tests::postgres::Postgres;
use socklife_tests::program::{command, output, until};
use socklife_tests::sandbox::Sandbox;
use socklife_tests::truth::agree;

/// The whole daemon with nothing to watch.
const IDLE_PSS_KIB: u64 = 15 * 1024;

/// Ids of everything of one sort that the kernel has loaded: `prog`, `map` or `link`.
fn loaded(sort: &str) -> Result<BTreeSet<u64>> {
    let mut bpftool = command("bpftool");
    bpftool.args(["-j", sort, "list"]);
    let list: Value = serde_json::from_str(&output(bpftool)?)?;
    let list = list.as_array().with_context(|| format!("bpftool {sort} list gave no list"))?;
    list.iter().map(|each| each["id"].as_u64().with_context(|| format!("no id in {each}"))).collect()
}

/// Everything of the kernel's that a daemon could leave behind.
fn footprint() -> Result<Vec<BTreeSet<u64>>> {
    ["prog", "map", "link"].into_iter().map(loaded).collect()
}

fn pinned(dir: &Path) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        found.insert(entry.path().display().to_string());
        if entry.file_type()?.is_dir() {
            found.extend(pinned(&entry.path())?);
        }
    }
    Ok(found)
}

/// What is loaded now and was not before, while the daemon runs: the daemon's.
fn loaded_since(before: &[BTreeSet<u64>]) -> Result<Vec<BTreeSet<u64>>> {
    let own: Vec<BTreeSet<u64>> = footprint()?.iter().zip(before).map(|(now, before)| now - before).collect();
    ensure!(!own[0].is_empty() && !own[1].is_empty(), "bpftool shows no program or no map of the daemon's: {own:?}");
    Ok(own)
}

/// Waits until none of these is loaded any more: the kernel frees programs after a grace period. Ids are never reused,
/// and what another program on this host loads meanwhile does not count.
fn wait_until_gone(own: &[BTreeSet<u64>]) -> Result<()> {
    until("nothing stays loaded or attached", || {
        let left: Vec<BTreeSet<u64>> = footprint()?.iter().zip(own).map(|(now, own)| now & own).collect();
        let clean = left.iter().all(BTreeSet::is_empty);
        Ok(if clean { Ok(()) } else { Err(format!("ids still loaded (programs, maps, links): {left:?}")) })
    })
}

#[test]
fn a_killed_daemon_leaves_nothing_and_starts_again() -> Result<()> {
    let sandbox = Sandbox::enter()?;
    let postgres = Postgres::start(&sandbox, 100)?;
    let bpffs = Path::new("/sys/fs/bpf");
    let (before, pins) = (footprint()?, pinned(bpffs)?);
    let daemon = Daemon::start(&sandbox, &[])?;
    let mut client = Client::start()?;
    client.open(8, "127.0.0.1")?;
    agree(&daemon, &postgres)?;

    let own = loaded_since(&before)?;
    daemon.kill()?;
    ensure!(socket_path(&sandbox).try_exists()?, "a killed daemon cannot have removed its socket: the test is wrong");
    wait_until_gone(&own)?;
    ensure!(pinned(bpffs)? == pins, "pinned: {:?}, before: {pins:?}", pinned(bpffs)?);

    client.run("close 3")?;
    client.open(1, "127.0.0.1")?;
    let daemon = Daemon::start(&sandbox, &[])?;
    let snapshot = agree(&daemon, &postgres)?;
    ensure!(counts(&snapshot, "127.0.0.1:5432", "client")? == (6, 6, 0), "{}", snapshot["endpoints"]);
    client.run("close 6")?;
    client.open(2, "127.0.0.1")?;
    let snapshot = agree(&daemon, &postgres)?;
    ensure!(counts(&snapshot, "127.0.0.1:5432", "client")? == (2, 8, 6), "{}", snapshot["endpoints"]);
    all_opened_by(&snapshot, "client", client.pid())?;
    nothing_lost(&snapshot)?;
    let own = loaded_since(&before)?;
    daemon.stop(Signal::SIGTERM)?;
    wait_until_gone(&own)
}

#[test]
fn it_ends_gracefully_under_full_load() -> Result<()> {
    let sandbox = Sandbox::enter()?;
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let daemon = Daemon::start(&sandbox, &[])?;
        let flood = Flood::start(1_000_000)?;
        let started = until("the flood is under way", || {
            Ok(if flood.opened() > load(2_000) { Ok(()) } else { Err(format!("{} opened", flood.opened())) })
        });
        let stopped = daemon.stop(signal);
        let still_running = !flood.is_over();
        flood.stop();
        flood.finish()?;
        started?;
        stopped.with_context(|| format!("stop with {signal}"))?;
        ensure!(still_running, "the flood ended before the daemon did: the test is wrong");
    }
    Ok(())
}

#[test]
fn it_ends_by_itself_when_told_for_how_long() -> Result<()> {
    let sandbox = Sandbox::enter()?;
    let mut daemon = Daemon::start(&sandbox, &["--for", "3s"])?;
    daemon.snapshot()?;
    daemon.expect_clean_end()
}

#[test]
fn it_is_small_while_there_is_nothing_to_watch() -> Result<()> {
    let sandbox = Sandbox::enter()?;
    let daemon = Daemon::start(&sandbox, &[])?;
    for _ in 0..3 {
        daemon.snapshot()?;
    }
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", daemon.pid()))?;
    let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    let pss: u64 = pss.with_context(|| format!("no Pss in {rollup}"))?;
    ensure!(pss <= IDLE_PSS_KIB, "PSS is {pss} KiB, the bound {IDLE_PSS_KIB} KiB:\n{rollup}");
    Ok(())
}
