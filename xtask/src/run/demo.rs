//! The demo: a small database that takes few connections, and a client that leaks them to it.
//!
//! Both are programs of the `tests` crate and end when their standard input does, so they cannot outlive this run.
//! Known here: how they are started, what they print, and what the daemon is to be told of them.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::processes::{Processes, Via};
use crate::sh;

/// The small database's binary.
pub const DATABASE: &str = "demo-database";
/// The leaking client's binary.
pub const CLIENT: &str = "leaky-client";

/// At one connection a second the warning (80 %) comes after 16 s.
const LIMIT: u32 = 20;
/// What the database prints before the address it chose.
const LISTENING: &str = "listening on ";
const FIRST_LINE_BYTES: u64 = 256;

/// A running demo. Its directory goes with it.
pub struct Demo {
    /// IP:PORT of the database.
    address: String,
    port: u16,
    database_pid: u32,
    directory: PathBuf,
}

impl Demo {
    /// Starts the database and learns its port.
    pub fn start_database(processes: &mut Processes) -> Result<Self> {
        let limit = LIMIT.to_string();
        let mut command = program(DATABASE);
        command.args(["--limit", &limit]).stdout(Stdio::piped());
        let child = processes.spawn(DATABASE, Via::Direct, &mut command)?;
        let database_pid = child.id();
        let stdout = child.stdout.take().context("the demo database has no stdout")?;
        let mut line = String::new();
        BufReader::new(stdout.take(FIRST_LINE_BYTES)).read_line(&mut line).context("the demo database says nothing")?;
        let (address, port) = parse_listening(&line)?;
        let template = std::env::temp_dir().join("socklife-demo.XXXXXX");
        let directory = nix::unistd::mkdtemp(&template)
            .with_context(|| format!("cannot create a directory like {}", template.display()))?;
        Ok(Self { address, port, database_pid, directory })
    }

    /// Starts the leak and tells the user what to compare with.
    pub fn start_client(&self, processes: &mut Processes) -> Result<()> {
        let mut command = program(CLIENT);
        command.args(["--address", &self.address]).stdout(Stdio::null());
        let pid = processes.spawn(CLIENT, Via::Direct, &mut command)?.id();
        println!(
            "demo: {DATABASE} (pid {}) at {} takes {LIMIT} connections; {CLIENT} (pid {pid}) opens one a second and never \
             closes.\n\
             demo: leaking pid {pid}. Within 30 s limit_pressure should name it below. Ctrl-C ends everything.",
            self.database_pid, self.address
        );
        Ok(())
    }

    /// The control socket, in a directory of our own: a demo meets no daemon that runs already.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("socklife.sock")
    }

    /// What the daemon is told of the demo.
    pub fn daemon_arguments(&self) -> Vec<OsString> {
        vec![
            "--port".into(),
            format!("{}=postgres", self.port).into(),
            "--limit".into(),
            format!("{}={LIMIT}", self.address).into(),
        ]
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if std::fs::remove_dir_all(&self.directory).is_err() && !sh::is_root() {
            // What a daemon started by sudo left in it is root's. If this fails too, a temporary directory stays.
            let _ = sh::output(Command::new("sudo").args(["--non-interactive", "rm", "-r"]).arg(&self.directory));
        }
    }
}

fn program(name: &str) -> Command {
    let mut command = Command::new(super::program(name));
    // The pipe's other end is ours and is never written to: it ends when we do. The group: see the daemon's.
    command.arg("--until-stdin-ends").stdin(Stdio::piped()).process_group(0);
    command
}

/// "listening on 127.0.0.1:40123".
fn parse_listening(line: &str) -> Result<(String, u16)> {
    let Some(address) = line.trim_end().strip_prefix(LISTENING) else {
        bail!("the demo database did not start: instead of its address it said {line:?}");
    };
    let parsed: std::net::SocketAddr = address.parse().with_context(|| format!("no address: {address:?}"))?;
    Ok((parsed.to_string(), parsed.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_what_the_database_says() {
        assert_eq!(parse_listening("listening on 127.0.0.1:40123\n").unwrap(), ("127.0.0.1:40123".to_owned(), 40123));
    }

    #[test]
    fn anything_else_is_an_error_that_quotes_it() {
        for line in ["", "listening on nowhere\n", "Address already in use\n"] {
            assert!(parse_listening(line).is_err(), "{line:?}");
        }
    }
}
