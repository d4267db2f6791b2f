//! The daemon with a fault that no user can switch on, for the live suite: so many in a hundred ends of connections are
//! lost as if the ring buffer were full. `faulty PERCENT SOCKET [KEY=VALUE]...`, as root.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tracer_user::config::{Config, Overrides};
use tracer_user::inventory::door;
use tracer_user::{daemon, telemetry};

fn main() -> anyhow::Result<()> {
    telemetry::init();
    let usage = "usage: faulty PERCENT SOCKET [KEY=VALUE]...";
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next().context(usage)?;
    if first == door::COMMAND {
        return door::serve(Path::new("/proc"));
    }
    let percent = first.parse()?;
    let socket = Some(PathBuf::from(arguments.next().context(usage)?));
    let overrides = Overrides { socket, set: arguments.collect(), ..Overrides::default() };
    let mut config = Config::load(&overrides)?;
    config.capture.lost_ends_percent = percent;
    let started = daemon::start(config)?;
    tokio::runtime::Runtime::new()?.block_on(daemon::run(started, overrides))
}
