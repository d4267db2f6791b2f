//! tracefs, where the numbers of tracepoints are. Distributions mount it at boot; where nobody did, it is mounted for
//! the moment of attaching, in a mount namespace of its own, so that the host's mounts stay as they are.

use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

const TRACEFS: &str = "/sys/kernel/tracing";

/// Runs `job` where tracefs can be read.
pub(super) fn with<T: Send>(job: impl FnOnce() -> T + Send) -> Result<T, String> {
    let there = |path: &str| Path::new(path).join("events").is_dir();
    if there(TRACEFS) || there("/sys/kernel/debug/tracing") {
        return Ok(job());
    }
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| mount_privately().map(|()| job()));
        thread.join().unwrap_or_else(|_| Err("the attaching thread ended early".to_owned()))
    })
}

/// Only this thread sees the mount, and it ends with the thread.
fn mount_privately() -> Result<(), String> {
    let says =
        |step: &'static str| move |error: nix::Error| format!("tracefs is not mounted, and {step} failed: {error}");
    unshare(CloneFlags::CLONE_NEWNS).map_err(says("unshare"))?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)
        .map_err(says("remount"))?;
    mount(Some("tracefs"), TRACEFS, Some("tracefs"), MsFlags::empty(), None::<&str>).map_err(says("mount"))
}
