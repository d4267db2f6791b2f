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
mod failing;
pub mod feed;
pub mod handle;
mod hosts;
mod identify;
mod keeper;
mod look;
pub mod memory;
pub mod record;
mod reload;
pub mod setup;
mod start;
pub(crate) mod state;
mod watchdog;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tracer_core::event::{Event, ProcessId};
use tracer_core::identity::Identity;
use tracer_core::inventory::{Glance, Inventory};
use tracer_core::setup::{InForce, Setup};
use tracer_core::snapshot::{Host, Mode};
use tracer_core::state::State;
use tracer_core::time::BootNs;
use tracer_core::tracker::{About, Bounds, Tracker};

use crate::api::socket::Socket;
use crate::api::{scrape, server};
use crate::capture::{Allowed, Capture, CaptureError, KernelCounters, Settings, without_hooks};
use crate::clock;
use crate::config::{Config, Overrides};
use crate::history;
use crate::inventory;

const PROC: &str = "/proc";

/// Numbers that mean different processes must not be mixed.
const OTHER_PIDS: &str = "kernel events number processes in the host's pid namespace and /proc in another one: run in \
                          the host's pid namespace (docker run --pid=host, Kubernetes hostPID: true)";

/// Messages that may wait for the actor; a message carries at most [`drain::BATCH`] events.
const QUEUE: usize = 128;

/// What reaches the actor.
enum Message {
    /// Events, in order.
    Events(Vec<Event>),
    /// What was counted and lost so far.
    Counters { kernel: KernelCounters, decode_errors: u64 },
    /// A second is over; all that the kernel side knew by then was sent before it.
    Second,
    /// A look at the socket table; every event older than its end was sent before it.
    Inventory(Box<Inventory>),
    /// A look at some sockets alone.
    Glance(Box<Glance>),
    /// A look that failed.
    InventoryFailed(String),
    /// What /proc said of a process.
    Identity(Box<Identity>),
    /// Another configuration; every event of before was sent before it.
    Configure(Box<Setup>),
    /// /proc has no such process.
    Gone(ProcessId),
    /// /proc has been asked everything that came from the look that started then.
    Asked(BootNs),
}

pub use start::{Started, start};

/// Runs until a signal, `--for`, or a failure.
pub async fn run(started: Started, overrides: Overrides) -> anyhow::Result<()> {
    let mut stop_signals = StopSignals::new()?;
    // From here on it is no reason to end.
    let hangups = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    let Started { config, socket, mut capture, mut about, door, held } = started;
    held.release()?;
    let scraped = scraped_at(&config).await?;
    if let Some(capture) = &mut capture {
        capture.spawn_log_reader()?;
    }
    about.config = reload::in_force(&config, &overrides, 1);

    let config = Arc::new(config);
    let (messages, inbox) = mpsc::channel(QUEUE);
    let (drain_commands, drain_inbox) = mpsc::channel(16);
    let wanted = Arc::new(Notify::new());
    let (ready, is_ready) = oneshot::channel();
    let (mut handle, served) = handle::channel();
    let handle::Served { requests, findings, events, loss, shutdown } = served;

    let mut drain = drain::spawn(capture, Arc::clone(&events), messages.clone(), drain_inbox);
    let identities = identify::spawn(&config, messages);
    let (unseen, sockets_to_ask) = watch::channel(BTreeSet::new());
    // One is under way at most: whoever is still in trouble comes up again.
    let (glances, troubled) = mpsc::channel(1);
    let (changes, configure) = mpsc::channel(1);
    let (wants, to_drain) = (Arc::clone(&wanted), drain_commands.clone());
    let looks = look::Looks { wanted: wants, unseen: sockets_to_ask, troubled, configure, door, drain: to_drain };
    let looker = tokio::spawn(look::run(Arc::clone(&config), looks, shutdown.subscribe()));
    let keeper = keeper::Keeper::start(config.history.dir.as_deref(), &about.host.boot_id)?;
    let left = keeper.as_ref().and_then(keeper::Keeper::left);
    let tracker = new_tracker(&config, &about, left.as_ref())?;
    let history_run = run_of(&about.host, about.started);
    let reloading =
        reload::spawn(&config, overrides, &about, changes, identities.clone(), hangups, shutdown.subscribe());
    let peers = actor::Peers { findings, events, loss, drain: drain_commands, identities, wanted, unseen, glances };
    let mut actor = actor::Actor::new(tracker, setup::detect(&config, &setup::Hosts::new()), about, peers, ready);
    if let Some(keeper) = keeper {
        actor.keep_with(keeper, left.map(|left| left.findings).unwrap_or_default());
    }
    if let Some(writer) = write_history(&config, &mut handle, history_run)? {
        actor.tell_history(history::Tap::new(writer));
    }
    let actor = tokio::spawn(actor.run(inbox, requests, shutdown.subscribe()));

    let serve = answer(is_ready, socket, scraped, handle);
    tokio::pin!(serve);
    let mut served = false;
    let outcome = tokio::select! {
        end = &mut serve => {
            served = true;
            end
        }
        () = stop_signals.recv() => Ok(()),
        () = pass(config.run_for) => Ok(()),
        end = &mut drain => end.context("the event reader failed")?.and_then(|()| bail!("the event reader ended")),
    };
    tracing::info!("stopping");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    // Streams end and the socket file goes first; then the tasks; the drain's end detaches and unloads the programs.
    let _ = shutdown.send(true);
    if !served {
        // Stopped before the first look, it has nothing to say; afterwards it ends by itself.
        let _ = serve.await;
    }
    for (task, what) in [(reloading, "reloading"), (looker, "inventory"), (actor, "tracker")] {
        task.await.with_context(|| format!("the {what} task failed"))?;
    }
    if !drain.is_finished() {
        drain.await.context("the event reader failed")??;
    }
    outcome
}

/// Where metrics are fetched over TCP, if they are.
async fn scraped_at(config: &Config) -> anyhow::Result<Option<tokio::net::TcpListener>> {
    Ok(match config.api.metrics {
        Some(address) => Some(scrape::bind(address).await?),
        None => None,
    })
}

/// Starts the flight recorder, where there is a directory for it.
fn write_history(
    config: &Config,
    handle: &mut handle::Handle,
    run: history::Run,
) -> anyhow::Result<Option<history::Writer>> {
    let Some(dir) = &config.history.dir else { return Ok(None) };
    let writer = history::spawn(dir, config.history.bounds, run).context("cannot start the history's thread")?;
    handle.set_history(writer.access(dir));
    Ok(Some(writer))
}

/// Says that the daemon is ready, once the first look has been applied, and answers until it stops.
async fn answer(
    is_ready: oneshot::Receiver<()>,
    socket: Socket,
    scraped: Option<tokio::net::TcpListener>,
    handle: handle::Handle,
) -> anyhow::Result<()> {
    is_ready.await.context("the first look at the socket table failed")?;
    tracing::info!(socket = %socket.path().display(), "ready");
    // Fails only where no service manager listens.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tokio::spawn(watchdog::keep_fed(handle.clone()));
    if let Some(listener) = scraped {
        tokio::spawn(scrape::serve(listener, handle.clone()));
    }
    server::serve(socket, handle).await;
    Ok(())
}

/// One that goes by the configuration and knows nothing yet but what a daemon before this one left.
fn new_tracker(config: &Config, about: &About, left: Option<&State>) -> anyhow::Result<Tracker> {
    let rules = setup::rules(config, &setup::Hosts::new());
    let mut tracker = Tracker::new(Bounds::default(), config.capture.ports.clone(), rules);
    tracker.set_window(config.detect.window);
    if let Some(left) = left {
        tracker.go_on_from(left);
    }
    tracker.set_home(inventory::own_netns(Path::new(PROC))?);
    tracker.set_counts_accepts(about.counts_accepts());
    tracker.set_drop_reasons(about.drop_reasons.clone());
    Ok(if about.mode == Mode::Poll { tracker.without_events() } else { tracker })
}

/// What the history says of this run of the daemon.
fn run_of(host: &Host, started: BootNs) -> history::Run {
    history::Run {
        started_ms: clock::wall_anchor().wall(started).unix_ms,
        source: "live",
        boot_id: host.boot_id.clone(),
        hostname: host.hostname.clone(),
        version: host.socklife_version.clone(),
    }
}

/// Attaches what can be attached; without any hook the socket table alone has to do, unless the user wants it otherwise
/// or lacks the privilege to see other processes' sockets as well.
fn start_capture(config: &Config, started: BootNs) -> anyhow::Result<(Option<Capture>, About)> {
    let proc_root = Path::new(PROC);
    let host_pids = inventory::host_pids(proc_root);
    let hooks = config.capture.hooks;
    let attempt = if hooks.kernel == Allowed::NOTHING {
        Err("capture.hooks is poll".to_owned())
    } else if !host_pids {
        bail!(OTHER_PIDS);
    } else {
        match attach(config, proc_root) {
            Ok(capture) => Ok(capture),
            Err(error) if !hooks.poll || error.downcast_ref() == Some(&CaptureError::NoPrivilege) => return Err(error),
            Err(error) => Err(format!("{error:#}")),
        }
    };
    memory::release();
    let mut drop_reasons = BTreeMap::new();
    let (capture, mode, probes) = match attempt {
        Ok(capture) => {
            let probes = capture.probes().to_vec();
            drop_reasons.clone_from(capture.drop_reasons());
            (Some(capture), Mode::Ebpf, probes)
        }
        Err(reason) => {
            tracing::warn!(reason, "no kernel events: only what each look at the socket table finds is known");
            (None, Mode::Poll, without_hooks(&reason))
        }
    };
    for probe in &probes {
        tracing::info!(fact = probe.fact, via = probe.via, state = ?probe.state, reason = probe.reason, "probe");
    }
    let config = InForce::default();
    Ok((capture, About { host: inventory::host(proc_root), mode, started, probes, drop_reasons, host_pids, config }))
}

fn attach(config: &Config, proc_root: &Path) -> anyhow::Result<Capture> {
    let settings = Settings {
        ring_bytes: config.capture.ring_bytes,
        map_entries: config.capture.map_entries,
        netns: if config.inventory.namespaces { 0 } else { inventory::own_netns(proc_root)? },
        btf: config.capture.btf.clone(),
        hooks: config.capture.hooks.kernel,
        lost_ends_percent: config.capture.lost_ends_percent,
    };
    Ok(Capture::start(&settings, &config.capture.ports)?)
}

/// Ticks; one that comes late moves those after it.
fn every(period: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    interval
}

/// Returns after `--for`; never without it.
async fn pass(run_for: Option<Duration>) {
    match run_for {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
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
