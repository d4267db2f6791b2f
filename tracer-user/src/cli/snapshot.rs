//! `socklife snapshot`: everything known at this moment, as JSON, to stdout or to a file.

use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bytes::Bytes;
use tracer_core::finding::{Severity, Status};
use tracer_core::snapshot::Snapshot;
use tracer_core::time::WallTime;

use super::exit::Failure;
use super::history::{self, failed, moment};
use super::output::Output;
use super::tail::severities;
use super::{Verdict, ask};
use crate::api::client::Client;
use crate::config::{Config, Overrides};
use crate::history::RebuiltSnapshot;
use crate::ui::escape::escape_json;

/// Everything known now, as JSON
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Write to this file, whole or not at all, readable by its owner and group
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Ask the kernel instead of a daemon: one look, no history
    #[arg(long)]
    standalone: bool,
    /// As it was at this moment, from the history on disk: a time (RFC 3339), or how long ago, such as 2h
    #[arg(long, value_name = "TIME", value_parser = moment, allow_hyphen_values = true, conflicts_with = "standalone")]
    at: Option<WallTime>,
    /// With --at: read the history in this state directory; needs no daemon
    #[arg(long, value_name = "DIR", requires = "at")]
    state_dir: Option<PathBuf>,
    /// Exit with 1 if a finding at least this bad is open
    #[arg(long, value_name = "SEVERITY", value_parser = severities())]
    fail_on: Option<Severity>,
    /// With --standalone: watch a port as this database, or rename one (repeatable)
    #[arg(long = "port", value_name = "PORT=DATABASE", requires = "standalone")]
    ports: Vec<String>,
}

pub(super) fn main(args: Args, client: Client) -> anyhow::Result<Verdict> {
    // Before anything is asked: resolving names blocks, and a bad target is known at once.
    let config = Config::load(&Overrides { ports: args.ports.clone(), ..Overrides::default() })?;
    let target = args.output.as_deref().map(Target::new).transpose()?;
    let interrupted = || Err(Failure::Unable("interrupted before the snapshot was complete".to_owned()).into());
    ask(take(args, client, config, target), interrupted)
}

async fn take(args: Args, client: Client, config: Config, target: Option<Target>) -> anyhow::Result<Verdict> {
    let (json, parsed) = if args.standalone {
        let looked = tokio::task::spawn_blocking(move || crate::standalone::snapshot(&config)).await;
        let snapshot = looked.context("the look at the kernel's tables failed")??;
        (Bytes::from(serde_json::to_vec(&snapshot)?), Some(snapshot))
    } else {
        (whole(&args, &client).await?, None)
    };
    let pretty = target.is_none() && Output::is_terminal();
    let snapshot = match parsed {
        Some(snapshot) => Some(snapshot),
        None if args.fail_on.is_some() || pretty => {
            let strange = || format!("the daemon on {} sent a snapshot of another version", client.path().display());
            Some(serde_json::from_slice::<Snapshot>(&json).with_context(strange)?)
        }
        None => None,
    };
    match target {
        Some(target) => target.write(&json)?,
        None => {
            let mut output = Output::new();
            match &snapshot {
                Some(_) if pretty && args.at.is_some() => {
                    let rebuilt: RebuiltSnapshot = serde_json::from_slice(&json)?;
                    output.line(pretty_json(&rebuilt)?.as_bytes()).await?;
                }
                Some(snapshot) if pretty => output.line(pretty_json(snapshot)?.as_bytes()).await?,
                _ => output.line(&json).await?,
            }
            output.flush().await?;
        }
    }
    Ok(match (args.fail_on, snapshot) {
        (Some(least), Some(snapshot)) => judge(&snapshot, least),
        _ => Verdict::Fine,
    })
}

/// The snapshot as whoever has it wrote it.
async fn whole(args: &Args, client: &Client) -> anyhow::Result<Bytes> {
    let Some(at) = args.at else { return Ok(client.get("/v1/snapshot").await?) };
    let Some(dir) = args.state_dir.clone() else { return Ok(client.get(&format!("/v1/snapshot?at={at}")).await?) };
    let read =
        tokio::task::spawn_blocking(move || history::open(&dir)?.snapshot_at(at).map_err(|error| failed(&error)));
    let rebuilt = read.await.context("the history failed")??;
    Ok(Bytes::from(serde_json::to_vec(&rebuilt)?))
}

/// Shared with `diff` and `replay`. For a terminal: indented, and nothing a process wrote reaches it raw.
pub(super) fn pretty_json(snapshot: &impl serde::Serialize) -> anyhow::Result<String> {
    let text = serde_json::to_string_pretty(snapshot)?;
    let lines: Vec<_> = text.lines().map(escape_json).collect();
    Ok(lines.join("\n"))
}

/// Shared with `replay`.
pub(super) fn judge(snapshot: &Snapshot, least: Severity) -> Verdict {
    let bad = snapshot
        .findings
        .iter()
        .any(|found| found.status == Status::Open && found.severity >= least && found.ignored.is_none());
    if bad { Verdict::Found } else { Verdict::Fine }
}

/// A file that will be there whole or not at all. Shared with `report`.
pub(super) struct Target {
    path: PathBuf,
    dir: PathBuf,
}

impl Target {
    /// Checks what can be checked before there is anything to write. Only a regular file is ever replaced: renaming
    /// over `/dev/null` would destroy it.
    pub(super) fn new(path: &Path) -> Result<Self, Failure> {
        let bad = |why: String| Failure::Input(format!("cannot write {}: {why}", path.display()));
        let path = match path.metadata() {
            Ok(meta) if !meta.is_file() => return Err(bad("it is there and is no regular file".to_owned())),
            // Through a symbolic link, so that the link stays one.
            Ok(_) => path.canonicalize().map_err(|error| bad(error.to_string()))?,
            Err(_) => path.to_owned(),
        };
        let name = path.file_name().is_some();
        let dir = match path.parent() {
            Some(dir) if dir.as_os_str().is_empty() => PathBuf::from("."),
            Some(dir) => dir.to_owned(),
            None => PathBuf::from("/"),
        };
        if !name || !dir.is_dir() {
            return Err(bad(format!("{} is no directory", dir.display())));
        }
        Ok(Self { path, dir })
    }

    pub(super) fn write(&self, text: &[u8]) -> Result<(), Failure> {
        self.try_write(text).map_err(|error| Failure::Unable(format!("cannot write {}: {error}", self.path.display())))
    }

    fn try_write(&self, text: &[u8]) -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".socklife-").tempfile_in(&self.dir)?;
        file.write_all(text)?;
        file.write_all(b"\n")?;
        file.as_file().set_permissions(Permissions::from_mode(0o640))?;
        file.as_file().sync_all()?;
        file.persist(&self.path)?;
        // The name is on disk once the directory is.
        std::fs::File::open(&self.dir)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            dir.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_written_whole_with_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("now.json");
        for json in ["{\"a\":1}", "{}"] {
            Target::new(&path).unwrap().write(json.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{json}\n"));
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o640);
        }
        assert_eq!(entries(dir.path()), ["now.json"]);
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("now.json");
        let target = Target::new(&path).unwrap();
        // In the meantime somebody put a directory there: renaming over it fails.
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("kept"), "").unwrap();
        let error = target.write(b"{}").unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot write {}: ", path.display())), "{error}");
        assert_eq!(entries(dir.path()), ["now.json"]);
        assert_eq!(entries(&path), ["kept"]);
    }

    #[test]
    fn a_link_stays_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real.json"), dir.path().join("link.json"));
        std::fs::write(&real, "old").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        Target::new(&link).unwrap().write(b"{}").unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(std::fs::read_to_string(&real).unwrap(), "{}\n");
    }

    #[test]
    fn bad_targets_are_refused_before_anything_is_asked() {
        for (path, why) in [
            ("/dev/null", "cannot write /dev/null: it is there and is no regular file"),
            ("/nonexistent/now.json", "cannot write /nonexistent/now.json: /nonexistent is no directory"),
            ("/tmp", "cannot write /tmp: it is there and is no regular file"),
        ] {
            let Err(error) = Target::new(Path::new(path)) else { panic!("{path} was taken") };
            assert!(matches!(error, Failure::Input(_)));
            assert_eq!(error.to_string(), why);
        }
    }
}
