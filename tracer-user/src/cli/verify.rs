//! `socklife verify`: asks the other end of connections whether it is still there. Changes nothing.

use std::collections::BTreeSet;

use clap::ArgGroup;
use futures_util::StreamExt as _;
use tracer_core::snapshot::Snapshot;

use super::exit::Failure;
use super::output::Output;
use super::selection::{self, Named};
use super::{Verdict, ask};
use crate::api::client::Client;
use crate::probe::report::{self, VerifyLine};
use crate::probe::{AT_ONCE, PROBES, PROBES_MAX, Plan, Prober, Wanted};
use crate::ui::escape;
use crate::ui::escape::escape_json;

/// Ask the other end of connections whether it is still there: alive, dead or unknown
#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("which").args(["connections", "findings", "pid", "endpoint"]).multiple(true).required(true)))]
#[command(
    after_help = "Takes a copy of the descriptor and has the kernel send probes without data. Needs CAP_SYS_PTRACE \
                        and CAP_NET_ADMIN. Exit codes: 0 asked; 1 see --fail-on; 2 usage; 3 cannot work here."
)]
pub(super) struct Args {
    #[command(flatten)]
    named: Named,
    /// The connections that this process opened or holds
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// The connections of this endpoint, by its id or name
    #[arg(long, value_name = "ENDPOINT")]
    endpoint: Option<String>,
    /// Probes that have to go unanswered, a second apart
    #[arg(long, value_name = "N", default_value_t = PROBES, value_parser = clap::value_parser!(u32).range(1..=i64::from(PROBES_MAX)))]
    probes: u32,
    /// Exit with 1 if one is dead, or also if one is unknown
    #[arg(long, value_name = "VERDICT")]
    fail_on: Option<FailOn>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum FailOn {
    Dead,
    Unknown,
}

pub(super) fn main(args: Args, client: Client) -> anyhow::Result<Verdict> {
    selection::check_pids()?;
    // Forks: before there is any thread.
    let prober = Prober::start(Plan { probes: args.probes })?;
    let interrupted = || Err(Failure::Unable("interrupted before every answer was there".to_owned()).into());
    ask(verify(args, client, &prober), interrupted)
}

/// How many came out how.
#[derive(Debug, Default)]
struct Counts {
    alive: u32,
    dead: u32,
    unknown: u32,
}

async fn verify(args: Args, client: Client, prober: &Prober) -> anyhow::Result<Verdict> {
    let snapshot: Snapshot = client.get_json("/v1/snapshot").await?;
    let wanted = select(&args, &snapshot)?;
    drop(snapshot);
    let (mut output, mut counts) = (Output::new(), Counts::default());
    let asked = wanted.iter().map(|wanted| async {
        // The copy goes at once.
        prober.verify(&wanted.connection).await.map(|asked| asked.line)
    });
    let mut asked = futures_util::stream::iter(asked).buffer_unordered(AT_ONCE);
    while let Some(line) = asked.next().await {
        let line = line?;
        counts.take(&line);
        output.line(shown(&line, args.json)?.as_bytes()).await?;
        output.flush().await?;
    }
    let Counts { alive, dead, unknown } = counts;
    if !args.json {
        output
            .line(format!("asked {}: {alive} alive, {dead} dead, {unknown} unknown", wanted.len()).as_bytes())
            .await?;
    }
    output.flush().await?;
    Ok(match args.fail_on {
        Some(_) if dead > 0 => Verdict::Found,
        Some(FailOn::Unknown) if unknown > 0 => Verdict::Found,
        _ => Verdict::Fine,
    })
}

/// Those named, and those that pass the filters, if there are any.
fn select(args: &Args, snapshot: &Snapshot) -> Result<Vec<Wanted>, Failure> {
    let mut wanted = selection::named(&snapshot.connections, &snapshot.findings, &args.named, |_| Ok(()))?;
    if args.pid.is_none() && args.endpoint.is_none() {
        return Ok(wanted);
    }
    let ids: Vec<&str> = snapshot
        .endpoints
        .iter()
        .filter(|endpoint| args.endpoint.as_ref().is_some_and(|name| *name == endpoint.name || *name == endpoint.id))
        .map(|endpoint| endpoint.id.as_str())
        .collect();
    let passing = snapshot.connections.iter().filter(|connection| {
        args.pid.is_none_or(|pid| selection::is_of_process(connection, pid))
            && (args.endpoint.is_none() || ids.contains(&connection.endpoint.as_str()))
    });
    let named: BTreeSet<String> = wanted.iter().map(|wanted| wanted.connection.id.clone()).collect();
    let further = passing.filter(|connection| !named.contains(&connection.id));
    wanted.extend(further.map(|connection| Wanted { connection: connection.clone(), finding: None }));
    Ok(wanted)
}

fn shown(line: &VerifyLine, json: bool) -> anyhow::Result<String> {
    if !json {
        return Ok(escape(&line.text()).into_owned());
    }
    let json = serde_json::to_string(line)?;
    Ok(if Output::is_terminal() { escape_json(&json).into_owned() } else { json })
}

impl Counts {
    fn take(&mut self, line: &VerifyLine) {
        match line.verdict {
            report::Verdict::Alive => self.alive += 1,
            report::Verdict::Dead => self.dead += 1,
            report::Verdict::Unknown => self.unknown += 1,
        }
    }
}
