//! The command line of a lab: which scenarios it plays, how often, and what it prints.

use std::process::ExitCode;

use clap::Parser;

use super::{Scenario, perform, table};

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
}

/// Does what the command line says; the exit code says whether every scenario was right.
#[must_use]
pub fn run(all: &[&Scenario]) -> ExitCode {
    let options = Options::parse();
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
    let mut outcomes = Vec::new();
    for round in 1..=options.rounds {
        for scenario in all.iter().filter(|scenario| wanted(scenario.name)) {
            eprintln!("round {round}: {}: {}", scenario.name, scenario.story);
            let outcome = perform(scenario);
            if options.json {
                println!("{}", outcome.line());
            }
            outcomes.push(outcome);
        }
    }
    let text = table(&outcomes);
    if options.json {
        eprint!("{text}");
    } else {
        print!("{text}");
    }
    if outcomes.iter().all(|outcome| outcome.is_right()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
