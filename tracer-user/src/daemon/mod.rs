//! The daemon: wiring, readiness, signals and the order of shutdown.
//!
//! ```text
//! ring -> drain -> [bounded queue] -> actor (owns the tracker) -> handle -> API
//!           ^                           |   ^
//!           |  looks at the socket table|   | identities
//!        inventory task <---------------+   identity thread
//! ```

mod actor;
mod drain;
pub mod handle;
mod identify;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tracer_core::event::{Event, ProcessId};
use tracer_core::identity::Identity;
use tracer_core::inventory::Inventory;
use tracer_core::snapshot::{Limit, LimitSource, Mode};
use tracer_core::tracker::{About, Bounds, EndpointRule, Tracker};

use crate::api;
use crate::capture::{Capture, KernelCounters, Settings};
use crate::clock;
use crate::config::Config;
use crate::inventory;

/// Messages that may wait for the actor; a message carries at most [`drain::BATCH`] events.
const QUEUE: usize = 128;

/// What reaches the actor.
enum Message {
    /// Events, in order.
    Events(Vec<Event>),
    /// What was counted and lost so far.
    Counters { kernel: KernelCounters, queue_full: u64, decode_errors: u64 },
    /// A look at the socket table; every event older than its end was sent before it.
    Inventory(Box<Inventory>),
    /// A look that failed.
    InventoryFailed(String),
    /// What /proc said of a process.
    Identity(Box<Identity>),
    /// /proc has no such process.
    Gone(ProcessId),
}

/// Runs until a signal, `--for`, or a failure.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let mut stop_signals = StopSignals::new()?;
    let listener = api::server::bind(&config.api)?;
    let started = clock::boot_clock();
    let settings = Settings {
        ring_bytes: config.capture.ring_bytes,
        map_entries: config.capture.map_entries,
        netns: inventory::own_netns().context("cannot read the own network namespace")?,
        btf: config.capture.btf.clone(),
    };
    let mut capture = Capture::start(&settings, &config.capture.ports)?;
    capture.spawn_log_reader()?;
    release_start_memory();
    let about = About {
        host: inventory::host(),
        mode: Mode::Ebpf,
        started,
        probes: capture.probes().to_vec(),
    };
    for probe in &about.probes {
        tracing::info!(fact = probe.fact, via = probe.via, state = ?probe.state, reason = probe.reason, "probe");
    }

    let config = Arc::new(config);
    let (messages, inbox) = mpsc::channel(QUEUE);
    let (drain_commands, drain_inbox) = mpsc::channel(16);
    let (stop, stopped) = watch::channel(false);
    let wanted = Arc::new(Notify::new());
    let (ready, is_ready) = oneshot::channel();
    let (handle, requests) = handle::Handle::new(stopped.clone());

    let ring = capture.take_ring()?;
    let drain = tokio::spawn(drain::run(capture, ring, messages.clone(), drain_inbox));
    let identities = identify::spawn(&config, messages.clone());
    let looker = tokio::spawn(look(Arc::clone(&config), Arc::clone(&wanted), drain_commands.clone(), stopped.clone()));
    let tracker = Tracker::new(Bounds::default(), config.capture.ports.clone(), rules(&config));
    let actor = actor::Actor::new(
        tracker,
        Arc::clone(&config),
        about,
        handle.clone(),
        actor::Peers { drain: drain_commands, identities, wanted },
        ready,
    );
    let actor = tokio::spawn(actor.run(inbox, requests, stopped.clone()));

    // Every task but the server's ends only when it fails or is told to stop, so the first end decides.
    let outcome = tokio::select! {
        end = wait_ready_then_serve(is_ready, listener, handle, stopped, &config) => end,
        () = stop_signals.recv() => Ok(()),
        end = drain => end.context("the event reader ended")?,
    };
    tracing::info!("stopping");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    // Streams end, the socket file goes, the last owner of the programs is dropped: nothing stays attached.
    let _ = stop.send(true);
    looker.await.context("the inventory task failed")?;
    actor.await.context("the tracker task failed")?;
    outcome
}

/// Serves once the first look is applied; ends after `--for`.
async fn wait_ready_then_serve(
    is_ready: oneshot::Receiver<()>,
    listener: api::server::Bound,
    handle: handle::Handle,
    stopped: watch::Receiver<bool>,
    config: &Config,
) -> anyhow::Result<()> {
    is_ready.await.context("the first look at the socket table failed")?;
    tracing::info!(socket = %config.api.socket.display(), "ready");
    // Fails only where no service manager listens.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let serve = api::server::serve(listener, handle, stopped);
    match config.run_for {
        Some(duration) => tokio::time::timeout(duration, serve).await.unwrap_or(Ok(())),
        None => serve.await,
    }
}

/// Looks at the socket table every `reconcile_s` and whenever somebody wants it.
async fn look(
    config: Arc<Config>,
    wanted: Arc<Notify>,
    drain: mpsc::Sender<drain::Command>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut interval = tokio::time::interval(config.inventory.reconcile);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            () = wanted.notified() => {}
            _ = stopped.changed() => return,
        }
        let ports = config.capture.ports.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let request = inventory::Request { ports: &ports, proc_root: Path::new("/proc"), with_holders: true };
            inventory::collect(&request, clock::boot_clock).map_err(|error| error.to_string())
        });
        let result = looked.await.unwrap_or_else(|error| Err(error.to_string()));
        if drain.send(drain::Command::Inventory(result)).await.is_err() {
            return;
        }
    }
}

/// What the user said of endpoints, by address.
pub fn rules(config: &Config) -> BTreeMap<SocketAddr, EndpointRule> {
    let mut rules = BTreeMap::<SocketAddr, EndpointRule>::new();
    for rule in &config.endpoints {
        for addr in &rule.addrs {
            let known = rules.entry(*addr).or_default();
            known.name = rule.name.clone().or(known.name.take());
            known.database = rule.database.clone().or(known.database.take());
            known.limit = rule.limit.map(|value| Limit { value, source: LimitSource::Config }).or(known.limit);
        }
    }
    rules
}

/// Reading the kernel's types takes tens of megabytes for a moment; give them back to the system.
fn release_start_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes no pointer and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

struct StopSignals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl StopSignals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?,
        })
    }

    async fn recv(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
