//! One look at the kernel's socket table and /proc, without a daemon: the same snapshot, as far as one look can tell.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context as _;
use tracer_core::detect::Store;
use tracer_core::inventory::Inventory;
use tracer_core::setup::InForce;
use tracer_core::snapshot::{Mode, Probe, ProbeState, Snapshot};
use tracer_core::tracker::{About, Bounds, Tracker};

use crate::config::Config;
use crate::inventory::{self, Looker};
use crate::process::IdentityReader;
use crate::{clock, daemon};

const PROC: &str = "/proc";

/// Looks once. Ages are lower bounds, openers are unknown, totals count what is there now.
pub fn snapshot(config: &Config) -> anyhow::Result<Snapshot> {
    let proc_root = Path::new(PROC);
    let started = clock::boot_clock();
    let host_pids = inventory::host_pids(proc_root);
    if !host_pids {
        tracing::warn!("this /proc numbers the processes of one pid namespace: pids are not the host's");
    }
    let mut looker = Looker::new(inventory::Settings {
        ports: config.capture.ports.clone(),
        proc_root: proc_root.to_owned(),
        namespaces: config.inventory.namespaces,
        recognize: config.capture.recognize,
        door: inventory::door::Door::Thread,
    });
    let mut tracker = Tracker::new(
        Bounds::default(),
        config.capture.ports.clone(),
        daemon::setup::rules(config, &daemon::setup::Hosts::new()),
    );
    tracker.set_window(config.detect.window);
    tracker.set_home(inventory::own_netns(proc_root)?);
    let look = |looker: &mut Looker| {
        looker.look(&BTreeSet::new(), true, &clock::boot_clock).context("cannot look at the socket table")
    };
    let mut looked = look(&mut looker)?;
    if !looked.recognized.is_empty() {
        looker.watch(&looked.recognized);
        // Its rows lack the new ports; who they are found by is kept.
        let again = look(&mut looker)?;
        looked = Inventory { recognized: looked.recognized, ..again };
    }
    // The ports' names first: the rows need them.
    let recognized = std::mem::take(&mut looked.recognized);
    tracker.apply_inventory(Inventory { recognized, ..Inventory::default() });
    tracker.apply_inventory(looked);
    let mut reader = IdentityReader::new(proc_root, config.privacy.cmdline);
    for id in tracker.take_unidentified() {
        match reader.read(id.pid) {
            Ok(Some(identity)) if identity.id == id => tracker.apply_identity(identity),
            Ok(_) => tracker.apply_gone(id, clock::boot_clock()),
            Err(error) => tracing::warn!(pid = id.pid, %error, "cannot identify"),
        }
    }
    let (host, drop_reasons) = (inventory::host(proc_root), BTreeMap::new());
    let in_force = InForce { generation: 1, hash: config.fingerprint(), loaded: started, file: None };
    let (mode, probes) = (Mode::Poll, probes());
    let about = About { host, mode, started, probes, drop_reasons, host_pids, config: in_force };
    let anchor = clock::wall_anchor();
    let mut findings = Store::default();
    // One look finds what is true now; what needs time to show does not.
    let _ = findings.run(&tracker, &config.detect, anchor.boot, &anchor);
    Ok(tracker.snapshot(&about, &findings, anchor.boot, &anchor))
}

/// What one look cannot see.
fn probes() -> Vec<Probe> {
    let missing = |fact: &str, reason: &str| Probe {
        fact: fact.to_owned(),
        via: String::new(),
        state: ProbeState::Missing,
        reason: reason.to_owned(),
    };
    let one_look = "one look at the socket table; start `socklife run` for events";
    vec![
        Probe {
            fact: "state_change".to_owned(),
            via: "sock_diag".to_owned(),
            state: ProbeState::Degraded,
            reason: one_look.to_owned(),
        },
        missing("close", one_look),
        missing("end_of_life", one_look),
        missing("accept", one_look),
        missing("process_exec", one_look),
        missing("process_exit", one_look),
    ]
}
