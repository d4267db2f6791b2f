//! Looks at the socket tables every `reconcile_s` and whenever somebody wants it, one look at a time.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tracer_core::inventory::{Inventory, RecognizedPort};

use super::drain::Command;
use crate::clock;
use crate::config::Config;
use crate::inventory::{Looker, Settings};

/// What the looking task is told, and whom it tells.
pub struct Looks {
    /// Somebody wants a look.
    pub wanted: Arc<Notify>,
    /// Inode numbers of sockets that the tracker knows and no table shows.
    pub unseen: watch::Receiver<BTreeSet<u64>>,
    /// Takes looks, and watches ports.
    pub drain: mpsc::Sender<Command>,
}

/// Runs until the daemon stops.
pub async fn run(config: Arc<Config>, looks: Looks, mut stopped: watch::Receiver<bool>) {
    let mut interval = tokio::time::interval(config.inventory.reconcile);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut settings = Settings {
        ports: config.capture.ports.clone(),
        proc_root: PathBuf::from(super::PROC),
        namespaces: config.inventory.namespaces,
        recognize: config.capture.recognize,
    };
    let mut looker = Looker::new(settings.clone());
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            () = looks.wanted.notified() => {}
            _ = stopped.changed() => return,
        }
        let unseen = looks.unseen.borrow().clone();
        let looked = tokio::task::spawn_blocking(move || {
            let result = looker.look(&unseen, &clock::boot_clock).map_err(|error| error.to_string());
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
            if !watch_ports(&looks, &mut looker, recognized).await {
                return;
            }
        }
        if looks.drain.send(Command::Inventory(result)).await.is_err() {
            return;
        }
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
