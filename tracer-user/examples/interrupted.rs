//! `socklife verify` of one connection that dies by SIGKILL at a step, for the live suite: what it leaves has to be as
//! before. `interrupted STEP SOCKET CONNECTION`, as root.

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, raise};
use tracer_core::snapshot::Snapshot;
use tracer_user::api::client::Client;
use tracer_user::probe::{Plan, Prober, Step};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [step, socket, id] = &arguments[..] else { bail!("usage: interrupted STEP SOCKET CONNECTION") };
    let last = match step.as_str() {
        "copied" => Step::Copied,
        "guarded" => Step::Guarded,
        "asked" => Step::Asked,
        "restored" => Step::Restored,
        "judged" => Step::Judged,
        _ => bail!("no such step: {step}"),
    };
    let prober = Prober::start(Plan { probes: 1 })?.observed(move |step| {
        if step == last {
            // Nothing comes after it.
            let _dead = raise(Signal::SIGKILL);
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let snapshot: Snapshot = Client::new(socket).get_json("/v1/snapshot").await?;
        let connection = snapshot.connections.iter().find(|connection| connection.id == *id);
        prober.verify(connection.context("no such connection")?).await?;
        bail!("the step {step} never came")
    })
}
