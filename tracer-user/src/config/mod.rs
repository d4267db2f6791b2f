//! Configuration: defaults, a TOML file, `--set` and dedicated flags, in this order, into one validated [`Config`].
//!
//! Nothing outside this module sees an unchecked value. A mistake is one sentence that names the file's line, the
//! key or the flag. Knows no command and starts nothing; the only IO is the file and the name service.

mod endpoints;
mod hooks;
mod layers;
mod raw;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use hooks::Hooks;
pub use tracer_core::detect::DetectConfig;
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
    /// What the user knows about single endpoints. No address is in two rules.
    pub endpoints: Vec<EndpointRule>,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointRule {
    /// The addresses it matches, as sockets show them (v4-mapped IPv6 as IPv4). What follows holds for each of them.
    pub addrs: Vec<SocketAddr>,
    /// What people call it.
    pub name: Option<String>,
    /// The most connections it takes, at least 1.
    pub limit: Option<u32>,
    /// Which database it is, if not what the port says.
    pub database: Option<String>,
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
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self { socket: PathBuf::from(DEFAULT_SOCKET), group: "socklife".to_owned() }
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
    /// `--for DURATION`
    pub run_for: Option<Duration>,
}

/// A mistake in the configuration: one sentence that says where and what.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct ConfigError(pub(crate) String);

impl Config {
    /// Defaults, then the file, then `--set`, then the other flags; checked as a whole. Names are resolved here, once.
    pub fn load(overrides: &Overrides) -> Result<Self, ConfigError> {
        layers::load(Self::default(), overrides, &endpoints::resolve)
    }

    /// Settings of detectors over those that were recorded: `KEY=VALUE`, keys of `[detect]` alone.
    pub fn detect_over(recorded: DetectConfig, set: &[String]) -> Result<DetectConfig, ConfigError> {
        if let Some(other) = set.iter().find(|set| !set.starts_with("detect.")) {
            let why = "a replay takes keys of [detect] alone: the rest is as it was recorded";
            return Err(ConfigError(format!("--set {other:?}: {why}")));
        }
        let overrides = Overrides { set: set.to_vec(), ..Overrides::default() };
        let config = Self { detect: recorded, ..Self::default() };
        Ok(layers::load(config, &overrides, &endpoints::resolve)?.detect)
    }
}
