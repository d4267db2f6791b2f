//! What a daemon needs privileges for is done here, on the only thread: the helper, the control socket, the kernel
//! programs. Then they are given up, and every thread that comes later has only what is left.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use tracer_core::tracker::About;

use super::{PROC, start_capture};
use crate::api::socket::Socket;
use crate::capture::Capture;
use crate::clock;
use crate::config::Config;
use crate::inventory::door::{Door, Helper};
use crate::privileges;

/// A daemon that has all it needs and does not run yet.
pub struct Started {
    pub(super) config: Config,
    pub(super) socket: Socket,
    pub(super) capture: Option<Capture>,
    pub(super) about: About,
    pub(super) door: Door,
    pub(super) held: HeldSignals,
}

/// Takes what needs privileges, and gives them up. Only while this process has no other thread.
pub fn start(config: Config) -> anyhow::Result<Started> {
    let held = HeldSignals::hold()?;
    let door = if config.inventory.namespaces { door() } else { Door::Closed };
    let socket = Socket::bind(&config.api)?;
    let (capture, about) = start_capture(&config, clock::boot_clock())?;
    let kept = if capture.is_some() { &privileges::DAEMON[..] } else { &privileges::POLLING };
    allow_going_first();
    if let Err(error) = privileges::keep(kept) {
        tracing::warn!(%error, "privileges are kept that are not needed any more");
    }
    if let Err(error) = privileges::seccomp::confine_daemon() {
        tracing::warn!(%error, "no system call filter is in force");
    }
    Ok(Started { config, socket, capture, about, door, held })
}

/// The way into namespaces that appear later.
fn door() -> Door {
    match Helper::start(Path::new(PROC)) {
        Ok(helper) => Door::Helper(Arc::new(helper)),
        Err(error) => {
            tracing::warn!(%error, "the helper that enters other network namespaces does not start: they count as unreachable");
            Door::Closed
        }
    }
}

/// One thread will give itself more weight ([`super::drain`]), which takes CAP_SYS_NICE or this. Where neither is had, it
/// works with the usual weight.
fn allow_going_first() {
    let limit = u64::from(20 + super::drain::NICE.unsigned_abs());
    let _unchanged = setrlimit(Resource::RLIMIT_NICE, limit, limit);
}

/// Signals that wait until somebody listens. Threads that are made meanwhile never take them: the first one does.
pub(super) struct HeldSignals(SigSet);

impl HeldSignals {
    fn hold() -> anyhow::Result<Self> {
        let signals = SigSet::from_iter([Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM]);
        signals.thread_block().context("cannot hold back signals")?;
        Ok(Self(signals))
    }

    /// Lets the calling thread take them.
    pub(super) fn release(self) -> anyhow::Result<()> {
        self.0.thread_unblock().context("cannot take signals")
    }
}
