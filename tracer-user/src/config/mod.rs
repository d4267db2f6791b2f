//! Configuration: defaults, a TOML file, `--set` and dedicated flags, in this order, into one validated [`Config`].
//!
//! Nothing outside this module sees an unchecked value. Mistakes are gathered: each is one sentence that names the file's
//! line and column, or the flag. Knows no command and starts nothing; the only IO is the file, and the name service where
//! that is handed in.

mod default_file;
mod endpoints;
mod hooks;
mod keys;
mod layers;
mod mistakes;
mod reader;
mod tables;
#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use default_file::default_file;
pub use endpoints::{Resolver, Whose, resolve};
pub use hooks::Hooks;
pub use mistakes::ConfigError;
pub use tracer_core::detect::DetectConfig;
use tracer_core::detect::{Changes, Ignore};
use tracer_core::glob::Glob;
use tracer_core::identity::stable_id;
use tracer_core::ports::PortMap;

use crate::capture::VMLINUX_BTF;
use crate::history::Bounds;
pub use crate::process::CmdlinePolicy;

/// Where the control API listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/socklife/socklife.sock";

/// Everything the daemon may be told.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Config {
    /// What the kernel side does.
    pub capture: CaptureConfig,
    /// The look at what is there.
    pub inventory: InventoryConfig,
    /// Verdicts.
    pub detect: DetectConfig,
    /// What the user knows about endpoints, in the order in which it was said.
    pub endpoints: Vec<EndpointRule>,
    /// Launcher groups that are judged by other thresholds, in the order in which it was said.
    pub groups: Vec<GroupRule>,
    /// Findings that are not told.
    pub ignores: Vec<IgnoreRule>,
    /// What may be shown of a process.
    pub privacy: PrivacyConfig,
    /// The control socket.
    pub api: ApiConfig,
    /// What outlives a restart.
    pub history: HistoryConfig,
    /// End after this time; for ever if `None`.
    pub run_for: Option<Duration>,
}

/// `[capture]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureConfig {
    /// Size of the ring buffer: a power of two, 64 KiB to 64 MiB, so a multiple of any page size.
    pub ring_bytes: u32,
    /// Watched sockets the kernel side remembers at once.
    pub map_entries: u32,
    /// Watched ports.
    pub ports: PortMap,
    /// Whether ports that known database servers listen on are watched, too.
    pub recognize: bool,
    /// The running kernel's types.
    pub btf: PathBuf,
    /// Which hooks may be used.
    pub hooks: Hooks,
    /// A fault for tests, which no user can switch on: so many in a hundred ends are lost as if the ring were full.
    pub lost_ends_percent: u32,
}

impl Default for CaptureConfig {
    fn default() -> Self {
        Self {
            ring_bytes: 1 << 20,
            map_entries: 65_536,
            ports: PortMap::default(),
            recognize: true,
            btf: PathBuf::from(VMLINUX_BTF),
            hooks: Hooks::default(),
            lost_ends_percent: 0,
        }
    }
}

/// `[inventory]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InventoryConfig {
    /// Time between two looks at the socket table.
    pub reconcile: Duration,
    /// Whether every network namespace is watched, or only the daemon's own.
    pub namespaces: bool,
}

impl Default for InventoryConfig {
    fn default() -> Self {
        Self { reconcile: Duration::from_secs(10), namespaces: true }
    }
}

/// `[[endpoint]]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointRule {
    /// Which endpoints. What follows holds for each of them.
    pub whose: Whose,
    /// What people call it.
    pub name: Option<String>,
    /// The most connections it takes, at least 1.
    pub limit: Option<u32>,
    /// Which database it is, if not what the port says.
    pub database: Option<String>,
    /// Thresholds that are different there.
    pub detect: Changes,
}

/// `[[group]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRule {
    /// Which labels.
    pub label: Glob,
    /// Thresholds that are different there.
    pub detect: Changes,
}

/// `[[ignore]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IgnoreRule {
    /// About which endpoints; any if `None`.
    pub whose: Option<Whose>,
    /// The rest of the rule; which addresses these are comes with the names of hosts.
    pub what: Ignore,
}

/// `[history]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryConfig {
    /// The state directory; without one nothing outlives the daemon.
    pub dir: Option<PathBuf>,
    /// What of the history on disk is kept.
    pub bounds: Bounds,
}

/// `[privacy]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrivacyConfig {
    /// Command lines.
    pub cmdline: CmdlinePolicy,
}

/// `[api]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiConfig {
    /// Path of the control socket.
    pub socket: PathBuf,
    /// Group that may use it besides root; need not exist.
    pub group: String,
    /// Where /metrics is served over TCP; nowhere without it.
    pub metrics: Option<SocketAddr>,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self { socket: PathBuf::from(DEFAULT_SOCKET), group: "socklife".to_owned(), metrics: None }
    }
}

/// What a command line says about the configuration, still as text.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--config FILE`
    pub file: Option<PathBuf>,
    /// `--set KEY=VALUE`
    pub set: Vec<String>,
    /// `--port PORT=DATABASE`
    pub ports: Vec<String>,
    /// `--limit HOST:PORT=N`
    pub limits: Vec<String>,
    /// `--socket PATH`
    pub socket: Option<PathBuf>,
    /// `--state-dir DIR`
    pub state_dir: Option<PathBuf>,
    /// `--metrics ADDR`
    pub metrics: Option<SocketAddr>,
    /// `--for DURATION`
    pub run_for: Option<Duration>,
}

/// What `check-config` found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Everything that has to be put right, with its place.
    pub mistakes: Vec<String>,
    /// What need not be a mistake.
    pub warnings: Vec<String>,
}

impl Config {
    /// Defaults, then the file, then `--set`, then the other flags; checked as a whole.
    pub fn load(overrides: &Overrides) -> Result<Self, ConfigError> {
        layers::load(Self::default(), overrides)
    }

    /// Names what is in force: the same settings have the same one, in one version of socklife.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        stable_id(&[&format!("{:?}", Self { run_for: None, ..self.clone() })])
    }

    /// The keys that are different in `other` and that nothing but a restart changes.
    #[must_use]
    pub fn needs_restart(&self, other: &Self) -> Vec<String> {
        let fixed = keys::KEYS.iter().filter(|key| !key.is_live && (key.shown)(self) != (key.shown)(other));
        fixed.map(|key| format!("{}.{}", key.section, key.name)).collect()
    }

    /// The names of hosts in it, in order.
    #[must_use]
    pub fn hosts(&self) -> BTreeSet<String> {
        let endpoints = self.endpoints.iter().map(|rule| &rule.whose);
        let all = endpoints.chain(self.ignores.iter().filter_map(|rule| rule.whose.as_ref()));
        let names = all.filter_map(|whose| match whose {
            Whose::Host { name, .. } => Some(name.clone()),
            Whose::Addresses(_) => None,
        });
        names.collect()
    }

    /// Every mistake in a file; names of hosts that `resolver` does not know are warnings.
    #[must_use]
    pub fn check_file(path: &Path, resolver: &Resolver) -> Checked {
        layers::check(path, resolver)
    }

    /// Settings of detectors over those that were recorded: `KEY=VALUE`, keys of `[detect]` alone.
    pub fn detect_over(recorded: DetectConfig, set: &[String]) -> Result<DetectConfig, ConfigError> {
        if let Some(other) = set.iter().find(|set| !set.starts_with("detect.")) {
            let why = "a replay takes keys of [detect] alone: the rest is as it was recorded";
            return Err(format!("--set {other:?}: {why}").into());
        }
        let overrides = Overrides { set: set.to_vec(), ..Overrides::default() };
        Ok(layers::load(Self { detect: recorded, ..Self::default() }, &overrides)?.detect)
    }
}
