//! SIGHUP: reads the configuration again, and applies all of it or nothing. And what names of hosts resolve to, as that
//! changes.

use std::sync::mpsc::SyncSender;

use sd_notify::NotifyState;
use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tracer_core::setup::{InForce, Setup};
use tracer_core::tracker::About;

use super::hosts::{self, Names};
use super::identify::Ask;
use super::look::Configure;
use super::setup::{self, Hosts};
use crate::clock;
use crate::config::{CmdlinePolicy, Config, ConfigError, Overrides, resolve};

/// The configuration in force, and those who have to know of another one.
pub struct Reloader {
    /// Where the configuration comes from.
    pub overrides: Overrides,
    /// In force.
    pub config: Config,
    /// Which one that is.
    pub in_force: InForce,
    /// What its names resolve to.
    pub hosts: Hosts,
    /// Takes changes to the kernel side, the looks and the tracker.
    pub looks: mpsc::Sender<Configure>,
    /// Reads command lines, or not.
    pub identities: SyncSender<Ask>,
    /// Looks names up.
    pub names: Names,
}

/// Which configuration this is.
#[must_use]
pub fn in_force(config: &Config, overrides: &Overrides, generation: u32) -> InForce {
    let file = overrides.file.as_ref().map(|path| path.display().to_string());
    InForce { generation, hash: config.fingerprint(), loaded: clock::boot_clock(), file }
}

/// Starts to listen for SIGHUP, and to look up names.
pub fn spawn(
    config: &Config,
    overrides: Overrides,
    about: &About,
    looks: mpsc::Sender<Configure>,
    identities: SyncSender<Ask>,
    hangups: Signal,
    stopped: watch::Receiver<bool>,
) -> JoinHandle<()> {
    let (found, is_found) = mpsc::channel(1);
    let names = hosts::spawn(config.hosts().into_iter().collect(), Box::new(resolve), hosts::PACE, found);
    let (config, in_force, hosts) = (config.clone(), about.config.clone(), Hosts::new());
    let reloader = Reloader { overrides, config, in_force, hosts, looks, identities, names };
    tokio::spawn(reloader.run(hangups, is_found, stopped))
}

impl Reloader {
    /// Runs until the daemon stops.
    pub async fn run(
        mut self,
        mut hangups: Signal,
        mut found: mpsc::Receiver<Hosts>,
        mut stopped: watch::Receiver<bool>,
    ) {
        loop {
            let work = async {
                tokio::select! {
                    Some(()) = hangups.recv() => self.reload().await,
                    Some(hosts) = found.recv() => self.resolved(hosts).await,
                    else => std::future::pending().await,
                }
            };
            tokio::select! {
                () = work => {}
                _ = stopped.changed() => return,
            }
        }
    }

    async fn reload(&mut self) {
        let now = NotifyState::monotonic_usec_now();
        // Fails only where no service manager listens.
        let _ = sd_notify::notify(&[Some(NotifyState::Reloading), now.ok()].into_iter().flatten().collect::<Vec<_>>());
        match self.reread().await {
            Ok(Some(config)) => self.adopt(config).await,
            Ok(None) => tracing::info!("reload: the configuration is as it was"),
            Err(error) => {
                let mistakes = error.mistakes().collect::<Vec<_>>().join("; ");
                tracing::error!(mistakes, "reload refused, nothing was changed");
            }
        }
        let _ = sd_notify::notify(&[NotifyState::Ready]);
    }

    /// The configuration as it is now, if that is another one and can be applied.
    async fn reread(&self) -> Result<Option<Config>, ConfigError> {
        let overrides = self.overrides.clone();
        let loaded = tokio::task::spawn_blocking(move || Config::load(&overrides)).await;
        let config = loaded.map_err(|error| ConfigError::from(error.to_string()))??;
        let restart = self.config.needs_restart(&config);
        if !restart.is_empty() {
            let verb = if restart.len() == 1 { "changes" } else { "change" };
            return Err(format!("{} {verb} only at a restart of the daemon", restart.join(", ")).into());
        }
        Ok((config.fingerprint() != self.in_force.hash).then_some(config))
    }

    async fn adopt(&mut self, config: Config) {
        let in_force = in_force(&config, &self.overrides, self.in_force.generation.saturating_add(1));
        let cmdline = config.privacy.cmdline;
        let shows = (cmdline != self.config.privacy.cmdline).then_some(cmdline != CmdlinePolicy::Off);
        if shows.is_some() && self.identities.try_send(Ask::Cmdlines(cmdline)).is_err() {
            return tracing::error!(
                "reload refused, nothing was changed: too many processes are new at once; try again"
            );
        }
        match self.apply(&config, in_force.clone(), shows).await {
            Ok(()) => {
                self.names.replace(config.hosts().into_iter().collect());
                tracing::info!(
                    generation = in_force.generation,
                    hash = in_force.hash,
                    "reload: the configuration is in force"
                );
                (self.config, self.in_force) = (config, in_force);
            }
            Err(why) => {
                if shows.is_some() {
                    let _ = self.identities.try_send(Ask::Cmdlines(self.config.privacy.cmdline));
                }
                tracing::error!(why, "reload refused, nothing was changed");
            }
        }
    }

    async fn resolved(&mut self, hosts: Hosts) {
        self.hosts = hosts;
        if let Err(why) = self.apply(&self.config, self.in_force.clone(), None).await {
            tracing::error!(why, "cannot go by the new addresses of names");
        }
    }

    async fn apply(&self, config: &Config, in_force: InForce, cmdlines: Option<bool>) -> Result<(), String> {
        let setup = Setup {
            ports: config.capture.ports.clone(),
            rules: setup::rules(config, &self.hosts),
            detect: setup::detect(config, &self.hosts),
            in_force,
            cmdlines,
        };
        let (reply, outcome) = oneshot::channel();
        let stopping = || "the daemon is stopping".to_owned();
        let configure = Configure { setup, reconcile: config.inventory.reconcile, reply };
        self.looks.send(configure).await.map_err(|_| stopping())?;
        outcome.await.map_err(|_| stopping())?
    }
}
