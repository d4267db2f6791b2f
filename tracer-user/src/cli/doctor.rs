//! `socklife doctor`: what this host offers, and what is in the way.

use std::path::Path;

use anyhow::Context as _;

use super::exit::Failure;
use super::output::Output;
use super::{Verdict, ask, say};
use crate::api::Health;
use crate::api::client::{Client, ClientError};
use crate::capture;
use crate::config::Hooks;
use crate::doctor::{Daemon, Report, host, text};
use crate::ui::escape::escape_json;
use crate::ui::style;

/// What this host offers: kernel, hooks, privileges, settings
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// JSON instead of text
    #[arg(long)]
    json: bool,
    /// Try these kinds of hooks only, as in capture.hooks: fexit, kretprobe, raw_tp, syscall
    #[arg(long, value_name = "KINDS", default_value = "auto", value_parser = Hooks::parse)]
    hooks: Hooks,
}

pub(super) fn main(args: &Args, client: Client) -> anyhow::Result<Verdict> {
    let interrupted = || Err(Failure::Unable("interrupted before the report was complete".to_owned()).into());
    ask(examine(args, client), interrupted)
}

async fn examine(args: &Args, client: Client) -> anyhow::Result<Verdict> {
    let roots = host::Roots::default();
    let btf = roots.btf.clone();
    let hooks = args.hooks;
    // Loading and attaching takes a moment and blocks.
    let looked = tokio::task::spawn_blocking(move || {
        let loaded = capture::probe_host(btf, hooks.kernel).map_err(|error| format!("{:#}", anyhow::Error::new(error)));
        (host::read(&roots), loaded)
    });
    let (host, loaded) = looked.await.context("the look at the host failed")?;
    let report = Report::new(host, loaded, daemon(&client).await);

    let mut output = Output::new();
    if args.json {
        let json = serde_json::to_string_pretty(&report)?;
        for line in json.lines() {
            output.line(escape_json(line).as_bytes()).await?;
        }
    } else {
        let shown = text::render(&report, style::wanted(&std::io::stdout()));
        output.line(shown.trim_end().as_bytes()).await?;
    }
    output.flush().await?;
    for problem in report.problems.iter().filter(|problem| problem.fatal) {
        say(&format!("{}: {}; {}", problem.fact, problem.reason, problem.next_step));
    }
    Ok(if report.works { Verdict::Fine } else { Verdict::Unable })
}

async fn daemon(client: &Client) -> Daemon {
    let health: Result<Health, ClientError> = client.get_json("/v1/health").await;
    let (running, detail) = match health {
        Ok(health) => (true, format!("version {}, up {} s", health.version, health.uptime_s)),
        Err(ClientError::Absent(_)) => (false, "nobody answers; `socklife run` starts one".to_owned()),
        Err(error) => (false, error.to_string()),
    };
    Daemon { socket: shown(client.path()), running, detail }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
