//! Which hooks were chosen: doctor and a running daemon say the same, and it is what this kernel is known to offer.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use socklife_tests::daemon::{Daemon, run_arguments, socklife};
use socklife_tests::sandbox::Sandbox;

/// How accepts have to be learnt on this machine; unset where that is not known beforehand.
const EXPECTED: &str = "SOCKLIFE_EXPECT_ACCEPT";

/// Fact, hook and state of each probe. The reasons are sentences for people.
fn probes(source: &Value) -> Result<Vec<[&str; 3]>> {
    let probes = source.as_array().with_context(|| format!("no probes in {source}"))?;
    let mut rows = Vec::new();
    for probe in probes {
        let text = |key: &str| probe[key].as_str().with_context(|| format!("{key} is no text: {probe}"));
        let row = [text("fact")?, text("via")?, text("state")?];
        ensure!(row[2] == "attached" || !text("reason")?.is_empty(), "less than attached, and no reason: {probe}");
        rows.push(row);
    }
    Ok(rows)
}

#[test]
fn accept_is_known_by_the_best_hook_there_is() -> Result<()> {
    let sandbox = Sandbox::enter()?;
    let daemon = Daemon::start(&sandbox, &[])?;
    let snapshot = daemon.snapshot()?;
    let chosen = probes(&snapshot["capture"]["probes"])?;
    let accept = chosen.iter().find(|[fact, ..]| *fact == "accept").context("no probe for accept")?;
    if let Ok(expected) = std::env::var(EXPECTED) {
        ensure!(accept[1].starts_with(&expected), "accept should be known by {expected:?}: {accept:?}");
    }

    // Doctor tries what a daemon does that may use the same kinds of hooks.
    let allowed = run_arguments().into_iter().find_map(|word| word.strip_prefix("capture.hooks=").map(str::to_owned));
    let said = socklife(&["doctor", "--json", "--hooks", allowed.as_deref().unwrap_or("auto")])?;
    ensure!(said.code == Some(0), "doctor ended with {:?}: {}", said.code, said.stderr);
    let doctor: Value = serde_json::from_str(&said.stdout)?;
    ensure!(probes(&doctor["probes"])? == chosen, "doctor {}, daemon {chosen:?}", doctor["probes"]);
    Ok(())
}
