//! Looks at the socket tables every `reconcile_s` and whenever somebody wants it, one look at a time.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tracer_core::event::Tuple;
use tracer_core::inventory::{Inventory, RecognizedPort};
use tracer_core::ports::PortMap;
use tracer_core::setup::Setup;

use super::drain::{Change, Command};
use super::every;
use crate::clock;
use crate::config::Config;
use crate::inventory::door::Door;
use crate::inventory::{Looker, Settings};

/// What the looking task is told, and whom it tells.
pub struct Looks {
    /// Somebody wants a look.
    pub wanted: Arc<Notify>,
    /// Sockets that the tracker knows and no table showed, by namespace and inode number.
    pub unseen: watch::Receiver<BTreeSet<(u32, u64)>>,
    /// Sockets to ask about at once, between looks.
    pub troubled: mpsc::Receiver<Vec<(Tuple, u64)>>,
    /// Who enters other network namespaces.
    pub door: Door,
    /// Other settings.
    pub configure: mpsc::Receiver<Configure>,
    /// Takes looks, and watches ports.
    pub drain: mpsc::Sender<Command>,
}

/// Another configuration.
pub struct Configure {
    /// For the tracker and the detectors, with the ports that are to be watched.
    pub setup: Setup,
    /// Time between two looks.
    pub reconcile: Duration,
    /// Told when looks go by it and events do; or why nothing was changed.
    pub reply: oneshot::Sender<Result<(), String>>,
}

/// Runs until the daemon stops.
pub async fn run(config: Arc<Config>, mut looks: Looks, mut stopped: watch::Receiver<bool>) {
    let mut interval = every(config.inventory.reconcile);
    let mut settings = Settings {
        ports: config.capture.ports.clone(),
        proc_root: PathBuf::from(super::PROC),
        namespaces: config.inventory.namespaces,
        recognize: config.capture.recognize,
        door: looks.door.clone(),
    };
    let mut looker = Looker::new(settings.clone());
    // Those that are watched whatever the configuration says.
    let mut all_recognized: Vec<RecognizedPort> = Vec::new();
    loop {
        // Whoever wants a look wants it whole.
        let thorough = tokio::select! {
            _ = interval.tick() => false,
            () = looks.wanted.notified() => true,
            Some(asked) = looks.troubled.recv() => {
                looker = glance(looker, asked, &looks.drain, &settings).await;
                continue;
            }
            Some(Configure { setup, reconcile, reply }) = looks.configure.recv() => {
                let mut ports = setup.ports.clone();
                for port in all_recognized.iter().filter(|port| !setup.ports.contains(port.port)) {
                    ports.insert(port.port, port.database.clone());
                }
                let outcome = pass_on(setup, &settings.ports, &ports, &looks.drain).await;
                if outcome.is_ok() {
                    settings.ports = ports;
                    looker.set_ports(settings.ports.clone());
                    if reconcile != interval.period() {
                        interval = every(reconcile);
                    }
                    // What new ports had before is found by a look.
                    looks.wanted.notify_one();
                }
                // Fails when the daemon stops.
                let _ = reply.send(outcome);
                continue;
            }
            _ = stopped.changed() => return,
        };
        let unseen = looks.unseen.borrow().clone();
        let looked = tokio::task::spawn_blocking(move || {
            let result = looker.look(&unseen, thorough, &clock::boot_clock).map_err(|error| error.to_string());
            (looker, result)
        });
        let result = match looked.await {
            Ok((same, result)) => {
                looker = same;
                result
            }
            Err(error) => {
                looker = Looker::new(settings.clone());
                Err(error.to_string())
            }
        };
        if let Ok(Inventory { recognized, .. }) = &result {
            for port in recognized {
                settings.ports.insert(port.port, port.database.clone());
            }
            all_recognized.extend(recognized.iter().cloned());
            if !watch_ports(&looks, &mut looker, recognized).await {
                return;
            }
        }
        if looks.drain.send(Command::Inventory(result)).await.is_err() {
            return;
        }
    }
}

/// Passes another configuration on, with the ports that join and those that leave.
async fn pass_on(setup: Setup, before: &PortMap, after: &PortMap, drain: &mpsc::Sender<Command>) -> Result<(), String> {
    let not_in = |ports: &PortMap, others: &PortMap| {
        ports.iter().map(|(port, _)| port).filter(|port| !others.contains(*port)).collect::<Vec<u16>>()
    };
    let change = Change { watch: not_in(after, before), unwatch: not_in(before, after), setup };
    let (done, outcome) = oneshot::channel();
    let stopping = || "the daemon is stopping".to_owned();
    drain.send(Command::Configure(Box::new(change), done)).await.map_err(|_| stopping())?;
    outcome.await.map_err(|_| stopping())?
}

/// Asks about some sockets. What fails is left to the next look, which says why.
async fn glance(
    mut looker: Looker,
    asked: Vec<(Tuple, u64)>,
    drain: &mpsc::Sender<Command>,
    settings: &Settings,
) -> Looker {
    let glanced = tokio::task::spawn_blocking(move || {
        let result = looker.glance(&asked, &clock::boot_clock);
        (looker, result)
    });
    match glanced.await {
        Ok((looker, Ok(glance))) => {
            // Fails when the daemon stops.
            let _ = drain.send(Command::Glance(glance)).await;
            looker
        }
        Ok((looker, Err(error))) => {
            tracing::warn!(%error, "cannot ask about sockets in trouble");
            looker
        }
        Err(_) => Looker::new(settings.clone()),
    }
}

/// Watches ports that database servers were found on: events first, then looks, so that the first look at a port finds
/// what events cannot tell of. False when nobody is left to tell.
async fn watch_ports(looks: &Looks, looker: &mut Looker, recognized: &[RecognizedPort]) -> bool {
    if recognized.is_empty() {
        return true;
    }
    for RecognizedPort { port, database, program, pid, netns } in recognized {
        tracing::info!(port, database, program, pid, netns, "a database server listens on another port: watching it");
    }
    let (done, is_done) = oneshot::channel();
    let ports = recognized.iter().map(|each| each.port).collect();
    if looks.drain.send(Command::WatchPorts(ports, done)).await.is_err() || is_done.await.is_err() {
        return false;
    }
    looker.watch(recognized);
    true
}
