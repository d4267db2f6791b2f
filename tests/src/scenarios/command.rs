//! The command line of a lab: which scenarios it plays, how often, and what it prints.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use super::{Scenario, perform_all, table};

/// Plays scenarios, and says what socklife found
#[derive(Parser)]
struct Options {
    /// Only these; without any, all
    names: Vec<String>,
    /// Print a line of JSON for each on stdout, and the table on stderr
    #[arg(long)]
    json: bool,
    /// List the scenarios
    #[arg(long)]
    list: bool,
    /// Play all so many times
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Play so many at the same time
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=16))]
    lanes: Option<u32>,
    /// Keep the recordings in this directory
    #[arg(long, value_name = "DIR")]
    recordings: Option<PathBuf>,
}

/// Does what the command line says, `lanes` scenarios at a time unless it says otherwise; the exit code says whether every
/// one was right.
#[must_use]
pub fn run(all: &[&Scenario], lanes: u32) -> ExitCode {
    let options = Options::parse();
    let pace = (options.rounds, options.lanes.unwrap_or(lanes));
    if options.list {
        for scenario in all {
            println!("{:<26} {}", scenario.name, scenario.story);
        }
        return ExitCode::SUCCESS;
    }
    let unknown = options.names.iter().find(|name| all.iter().all(|scenario| scenario.name != name.as_str()));
    if let Some(name) = unknown {
        eprintln!("error: there is no scenario {name:?}: `--list` says which there are");
        return ExitCode::from(2);
    }
    let wanted = |name: &str| options.names.is_empty() || options.names.iter().any(|wanted| wanted == name);
    let scenarios: Vec<_> = all.iter().copied().filter(|scenario| wanted(scenario.name)).collect();
    let outcomes = perform_all(&scenarios, pace, options.recordings.as_deref(), |outcome| {
        if options.json {
            println!("{}", outcome.line());
        }
    });
    let text = table(&outcomes);
    if options.json {
        eprint!("{text}");
    } else {
        print!("{text}");
    }
    if outcomes.iter().all(|outcome| outcome.is_right()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
