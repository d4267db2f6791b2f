//! The service manager's watchdog: told that the daemon lives only as long as the task that owns the tracker answers.

use std::time::Duration;

use super::every;
use super::handle::Handle;

/// Shortest time between two words: a watchdog of no time at all would have the daemon do nothing else.
const PAUSE_MIN: Duration = Duration::from_millis(10);

/// Tells the service manager at half of the time it allows, until the daemon stops; nothing without a watchdog. A
/// tracker that hangs is so found, and the daemon started anew (`WatchdogSec=` of systemd.service(5)).
pub(super) async fn keep_fed(handle: Handle) {
    let Some(allowed) = sd_notify::watchdog_enabled() else { return };
    let mut turns = every((allowed / 2).max(PAUSE_MIN));
    loop {
        tokio::select! {
            () = handle.stopping() => return,
            _ = turns.tick() => {}
        }
        match tokio::time::timeout(allowed, handle.open_findings()).await {
            Ok(Ok(_)) => {
                // Fails only where nobody listens any more.
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
            }
            Ok(Err(_)) | Err(_) => tracing::warn!("the tracker does not answer"),
        }
    }
}
