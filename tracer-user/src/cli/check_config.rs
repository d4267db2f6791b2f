//! `socklife check-config`: every mistake in a configuration file, with its line.

use std::path::PathBuf;

use anyhow::Context as _;

use super::exit::Failure;
use super::output::Output;
use super::{Verdict, ask, say};
use crate::config::{Config, ConfigError, default_file, resolve};
use crate::ui::escape::escape;

/// Say every mistake in a configuration file, with its line and column
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file (TOML)
    #[arg(value_name = "FILE", required_unless_present = "print_default")]
    file: Option<PathBuf>,
    /// Print a file with every key, its meaning and its default instead
    #[arg(long, conflicts_with = "file")]
    print_default: bool,
}

pub(super) fn main(args: Args) -> anyhow::Result<Verdict> {
    let check = async {
        let text = match args.file {
            // Names are looked up, and name services may hang.
            Some(file) => tokio::task::spawn_blocking(move || check(file)).await.context("the check failed")??,
            None => default_file(),
        };
        let mut output = Output::new();
        output.line(text.trim_end().as_bytes()).await?;
        output.flush().await?;
        Ok(Verdict::Fine)
    };
    ask(check, || Err(Failure::Unable("interrupted before the check was done".to_owned()).into()))
}

fn check(file: PathBuf) -> anyhow::Result<String> {
    let checked = Config::check_file(&file, &resolve);
    checked.warnings.iter().for_each(|warning| say(warning));
    if !checked.mistakes.is_empty() {
        return Err(ConfigError::from(checked).into());
    }
    Ok(format!("{} is fine", escape(&file.display().to_string())))
}
