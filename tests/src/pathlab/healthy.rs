//! Slow is not dead: nothing may be found.

use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::ROW;
use super::net::{Net, database_host};
use crate::scenarios::{Lab, Scenario};

/// Every scenario of this kind.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "random-loss-healthy",
        story: "one packet in ten is lost each way, under load",
        play: random_loss,
        ..ROW
    },
    Scenario {
        name: "stopped-database-healthy",
        story: "the database's processes are stopped: its kernel acknowledges, and closes the window",
        play: stopped_database,
        ..ROW
    },
];

fn random_loss(lab: &mut Lab) -> Result<()> {
    let net = Net::new()?;
    let _postgres = net.postgres(lab)?;
    let mut app = net.client()?;
    app.open(5, &database_host())?;
    net.rules(&["numgen random mod 100 < 10 drop"])?;
    for _ in 0..30 {
        app.run("query 5")?;
        lab.listen(1)?;
    }
    app.ports("close 2")?;
    app.ports("hangup 3")?;
    lab.listen(10)
}

fn stopped_database(lab: &mut Lab) -> Result<()> {
    let net = Net::new()?;
    let postgres = net.postgres(lab)?;
    let mut app = net.client()?;
    app.open(3, &database_host())?;
    let backends: Vec<Pid> =
        postgres.activity()?.values().filter_map(|pid| Some(Pid::from_raw(i32::try_from(*pid).ok()?))).collect();
    ensure!(backends.len() == 3, "{backends:?}");
    for backend in &backends {
        kill(*backend, Signal::SIGSTOP)?;
    }
    // A request that is read by nobody, and one that fills the window.
    app.ports("send 2")?;
    app.run("send-last 20000000")?;
    let heard = lab.listen(25);
    for backend in &backends {
        kill(*backend, Signal::SIGCONT)?;
    }
    heard?;
    app.run("receive 2")?;
    lab.listen(3)
}
