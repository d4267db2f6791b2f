//! Exit codes, and the one sentence on stderr that goes with each.

use std::io::Write as _;
use std::process::ExitCode;

use super::say;
use crate::api::client::ClientError;
use crate::config::ConfigError;

/// Findings present where the command was asked to judge.
pub(super) const FOUND: u8 = 1;
/// Usage or bad input.
pub(super) const USAGE: u8 = 2;
/// Cannot work here.
pub(super) const UNABLE: u8 = 3;

/// A failure that knows its exit code.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Bad input.
    #[error("{0}")]
    Input(String),
    /// Cannot work here.
    #[error("{0}")]
    Unable(String),
    /// Whoever read stdout has gone, which is their right.
    #[error("stdout is closed")]
    ClosedPipe,
}

/// Says what is wrong, and gives the exit code for it.
pub(super) fn failure(error: &anyhow::Error) -> ExitCode {
    match code(error) {
        None => ExitCode::SUCCESS,
        Some(code) => {
            match error.downcast_ref::<ConfigError>() {
                Some(error) => error.mistakes().for_each(say),
                None => say(&format!("{error:#}")),
            }
            ExitCode::from(code)
        }
    }
}

/// `None` where nothing is wrong after all. What is not known to be the user's input is the host's doing.
fn code(error: &anyhow::Error) -> Option<u8> {
    for cause in error.chain() {
        match cause.downcast_ref::<Failure>() {
            Some(Failure::Input(_)) => return Some(USAGE),
            Some(Failure::Unable(_)) => return Some(UNABLE),
            Some(Failure::ClosedPipe) => return None,
            None => {}
        }
        if cause.is::<ConfigError>() || matches!(cause.downcast_ref(), Some(ClientError::Refused { status: 400, .. })) {
            return Some(USAGE);
        }
    }
    Some(UNABLE)
}

/// Help and version go to stdout and are fine; everything else is one sentence on stderr.
pub(super) fn usage(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
    match error.kind() {
        DisplayHelp | DisplayVersion => {
            // A closed pipe is not an error.
            let _unread = error.print();
            ExitCode::SUCCESS
        }
        DisplayHelpOnMissingArgumentOrSubcommand => {
            let _unread = write!(std::io::stderr(), "{}", error.render());
            ExitCode::from(USAGE)
        }
        _ => {
            say(&sentence(&error.render().to_string()));
            ExitCode::from(USAGE)
        }
    }
}

/// clap's message without its label, its usage and its line breaks.
fn sentence(rendered: &str) -> String {
    let wanted = |paragraph: &&str| !paragraph.starts_with("Usage:") && !paragraph.starts_with("For more information");
    let paragraphs: Vec<String> = rendered
        .trim()
        .split("\n\n")
        .filter(wanted)
        .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let joined = paragraphs.join("; ");
    format!("{}; see --help", joined.strip_prefix("error: ").unwrap_or(&joined))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use anyhow::{Context as _, anyhow};

    use super::*;

    #[test]
    fn codes_follow_the_cause_through_any_context() {
        let refused = |status| ClientError::Refused { path: PathBuf::new(), status, sentence: String::new() };
        for (error, wanted) in [
            (anyhow!(Failure::Input("x".to_owned())), Some(2)),
            (anyhow!(Failure::Unable("x".to_owned())), Some(3)),
            (anyhow!(Failure::ClosedPipe), None),
            (anyhow!(ConfigError::from("x".to_owned())), Some(2)),
            (anyhow!(refused(400)), Some(2)),
            (anyhow!(refused(403)), Some(3)),
            (anyhow!(refused(503)), Some(3)),
            (anyhow!(ClientError::Absent(PathBuf::new())), Some(3)),
            (anyhow!("whatever"), Some(3)),
            (anyhow!(std::io::Error::from(std::io::ErrorKind::BrokenPipe)), Some(3)),
        ] {
            assert_eq!(code(&error), wanted, "{error:?}");
            let wrapped = Err::<(), _>(error).context("while doing something").unwrap_err();
            assert_eq!(code(&wrapped), wanted, "{wrapped:?}");
        }
    }

    #[test]
    fn usage_errors_are_one_sentence() {
        for (rendered, wanted) in [
            (
                "error: unexpected argument '--pdi' found\n\n  tip: a similar argument exists: '--pid'\n\nUsage: socklife tail --pid <PID>\n\nFor more information, try '--help'.\n",
                "unexpected argument '--pdi' found; tip: a similar argument exists: '--pid'; see --help",
            ),
            (
                "error: invalid value 'x' for '--kind <KIND>'\n  [possible values: limit_pressure, close_wait_leak]\n\nFor more information, try '--help'.\n",
                "invalid value 'x' for '--kind <KIND>' [possible values: limit_pressure, close_wait_leak]; see --help",
            ),
        ] {
            assert_eq!(sentence(rendered), wanted);
        }
    }
}
