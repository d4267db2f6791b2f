//! The daemon as a service: what it tells its manager. What systemd makes of the unit is the package's test.

use std::os::unix::net::UnixDatagram;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use socklife_tests::daemon::Daemon;
use socklife_tests::pace::patience;
use socklife_tests::sandbox::Sandbox;

/// Longest message of a service to its manager that is read here.
const MESSAGE_BYTES: usize = 1_024;

#[test]
fn the_service_manager_is_told() -> Result<()> {
    let sandbox = Sandbox::enter()?;
    let path = sandbox.path("notify.sock");
    let manager = UnixDatagram::bind(&path)?;
    manager.set_read_timeout(Some(patience()))?;
    let heard = || {
        let mut message = [0; MESSAGE_BYTES];
        let len = manager.recv(&mut message).context("the daemon told its service manager nothing")?;
        anyhow::Ok(String::from_utf8_lossy(&message[..len]).trim_end().to_owned())
    };
    let environment = [("NOTIFY_SOCKET", path.as_os_str()), ("WATCHDOG_USEC", "100000".as_ref())];
    let daemon = Daemon::launch_as_service(&sandbox, &environment)?;
    ensure!(heard()? == "READY=1", "it has to be ready before anything else");
    for _ in 0..3 {
        let said = heard()?;
        ensure!(said == "WATCHDOG=1", "told {said:?}, and the watchdog waits");
    }
    daemon.stop(Signal::SIGTERM)?;
    let last = std::iter::repeat_with(heard).find(|said| said.as_deref().map_or(true, |said| said != "WATCHDOG=1"));
    ensure!(matches!(last, Some(Ok(ref said)) if said == "STOPPING=1"), "the end was told as {last:?}");
    Ok(())
}
