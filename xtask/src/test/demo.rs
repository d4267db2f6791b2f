//! The demo as a user sees it: `cargo xtask run --demo` prints a line that names the leaking pid.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::sh;

/// README promises 30 s from the daemon's `ready`; the leak crosses its first threshold after 16 s.
const FOR: &str = "30s";
const FINDING: &str = "limit_pressure";
/// What `run --demo` says of the leak before it shows any finding.
const LEAKING: &str = "leaking pid ";

/// Runs the demo until the line is there, ends it by SIGTERM, and expects a clean end.
pub fn names_the_leaking_pid() -> Result<()> {
    let this = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(this);
    command.args(["run", "--demo", "--for", FOR]).current_dir(sh::root()).stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot start the demo")?;
    let stdout = child.stdout.take().context("the demo has no stdout")?;
    let mut screen = Screen::default();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = String::from_utf8_lossy(&line.context("cannot read the demo's screen")?).into_owned();
        println!("{line}");
        let named_before = screen.named;
        screen.see(&line);
        if screen.named && !named_before {
            // Not waited for yet, so the pid is still its own.
            kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).context("cannot end the demo")?;
        }
    }
    let status = child.wait().context("cannot wait for the demo")?;
    match (screen.named, screen.leaking) {
        (true, _) if status.success() => Ok(()),
        (true, _) => bail!("the finding was shown, but the demo did not end cleanly: {status}"),
        (false, Some(pid)) => bail!("no {FINDING} that names pid {pid} within {FOR}; the demo ended with {status}"),
        (false, None) => bail!("the demo did not start its leak: {status}"),
    }
}

/// What has been shown so far.
#[derive(Default)]
struct Screen {
    leaking: Option<String>,
    named: bool,
}

impl Screen {
    fn see(&mut self, line: &str) {
        let numbers = |text: &str| -> Vec<String> {
            text.split(|c: char| !c.is_ascii_digit()).filter(|word| !word.is_empty()).map(str::to_owned).collect()
        };
        if let Some((_, rest)) = line.split_once(LEAKING) {
            self.leaking = numbers(rest).into_iter().next();
        } else if line.contains(FINDING) && !line.starts_with("demo: ") {
            self.named |= self.leaking.as_ref().is_some_and(|pid| numbers(line).contains(pid));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(lines: &[&str]) -> bool {
        let mut screen = Screen::default();
        lines.iter().for_each(|line| screen.see(line));
        screen.named
    }

    #[test]
    fn only_a_finding_with_the_very_pid_counts() {
        let said = "demo: leaking pid 412. Within 30 s limit_pressure should name it below.";
        assert!(named(&[said, "22:41:07 WARNING  limit_pressure  16 of 20 open; leaky-client (412) holds 16"]));
        assert!(!named(&[said]));
        assert!(!named(&[said, "22:41:07 WARNING  limit_pressure  16 of 20 open; leaky-client (4120) holds 16"]));
        assert!(!named(&[said, "22:41:07 WARNING  close_wait_leak  412 holds 16"]));
        assert!(!named(&["22:41:07 WARNING  limit_pressure  412 holds 16", said]));
    }
}
