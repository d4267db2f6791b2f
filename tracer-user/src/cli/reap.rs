//! `socklife reap`: closes connections that are confirmed dead. Says what it would do unless it is told to.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::ArgGroup;
use futures_util::StreamExt as _;
use tracer_core::finding::Finding;
use tracer_core::snapshot::Snapshot;

use super::exit::Failure;
use super::output::Output;
use super::selection::{self, Named, PROC};
use super::{Verdict, ask};
use crate::api::client::Client;
use crate::ndjson::push_line;
use crate::probe::report::{Action, ReapLine};
use crate::probe::{AT_ONCE, PROBES, PROBES_MAX, Plan, Prober, Reaper};
use crate::ui::escape;
use crate::ui::escape::escape_json;

/// Findings whose connections may be dead: `peer_unreachable` here, `half_open_at_database` over there.
const ZOMBIES: [&str; 2] = ["peer_unreachable", "half_open_at_database"];

/// Close connections that are confirmed dead; says what it would do unless --yes is given
#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("which").args(["connections", "findings"]).multiple(true).required(true)))]
#[command(after_help = "Each connection is verified right before; a live one is never closed. Its application gets \
                        ECONNABORTED at its next read or write. Exit codes: 0 each one was confirmed; 1 one was refused or could not be \
                        closed; 2 usage; 3 cannot work here.")]
pub(super) struct Args {
    #[command(flatten)]
    named: Named,
    /// Close them
    #[arg(long)]
    yes: bool,
    /// Append one JSON line for each connection to this file, readable by its owner and group
    #[arg(long, value_name = "FILE")]
    audit: Option<PathBuf>,
    /// Probes that have to go unanswered, a second apart
    #[arg(long, value_name = "N", default_value_t = PROBES, value_parser = clap::value_parser!(u32).range(1..=i64::from(PROBES_MAX)))]
    probes: u32,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

pub(super) fn main(args: Args, client: Client) -> anyhow::Result<Verdict> {
    selection::check_pids()?;
    // Before anything is asked: what cannot be written down is not done.
    let audit = args.audit.as_deref().map(Audit::open).transpose()?;
    // Forks: before there is any thread.
    let prober = Prober::start(Plan { probes: args.probes })?;
    let interrupted = || Err(Failure::Unable("interrupted before every connection was dealt with".to_owned()).into());
    ask(reap(args, client, &prober, audit), interrupted)
}

async fn reap(args: Args, client: Client, prober: &Prober, mut audit: Option<Audit>) -> anyhow::Result<Verdict> {
    let snapshot: Snapshot = client.get_json("/v1/snapshot").await?;
    let wanted = selection::named(&snapshot.connections, &snapshot.findings, &args.named, is_of_zombies)?;
    drop(snapshot);
    let reaper = Reaper::new(prober, &wanted, Path::new(PROC), args.yes);
    let mut output = Output::new();
    let (mut confirmed, mut refused) = (0u32, 0u32);
    let mut reaped =
        futures_util::stream::iter(wanted.iter().map(|wanted| reaper.reap(wanted))).buffer_unordered(AT_ONCE);
    while let Some(line) = reaped.next().await {
        let line = line?;
        match line.action {
            Action::WouldClose | Action::Closed => confirmed += 1,
            Action::Refused | Action::Failed => refused += 1,
        }
        if args.yes {
            log(&line);
        }
        if let Some(audit) = &mut audit {
            audit.write(&line)?;
        }
        output.line(shown(&line, args.json)?.as_bytes()).await?;
        output.flush().await?;
    }
    if !args.json {
        output.line(summary(args.yes, confirmed, refused).as_bytes()).await?;
    }
    output.flush().await?;
    Ok(if refused > 0 { Verdict::Found } else { Verdict::Fine })
}

fn is_of_zombies(finding: &Finding) -> Result<(), Failure> {
    let kind = finding.kind.name();
    if ZOMBIES.contains(&kind) {
        return Ok(());
    }
    let (id, known) = (&finding.id, ZOMBIES.join(" and "));
    Err(Failure::Input(format!("finding {id:?} is {kind}: only connections of {known} are closed")))
}

fn log(line: &ReapLine) {
    let ReapLine { action, detail, uid, evidence, .. } = line;
    let (id, local, remote) = (&evidence.id, &evidence.local, &evidence.remote);
    let pid = evidence.holder.map(|holder| holder.pid);
    match action {
        Action::Closed => tracing::info!(id, local, remote, pid, uid, detail, "closed a dead connection"),
        Action::Failed => tracing::warn!(id, local, remote, pid, uid, detail, "could not close a dead connection"),
        Action::Refused | Action::WouldClose => {
            tracing::info!(id, local, remote, pid, uid, detail, "left a connection alone");
        }
    }
}

fn summary(yes: bool, confirmed: u32, refused: u32) -> String {
    let sees = "the application of each gets ECONNABORTED at its next read or write";
    match (yes, confirmed) {
        (_, 0) => format!("nothing closed, {refused} refused"),
        (false, _) => {
            format!("nothing closed: a dry run; --yes closes {confirmed}, and {sees}; {refused} refused")
        }
        (true, _) => format!("closed {confirmed}: {sees}; {refused} refused"),
    }
}

fn shown(line: &ReapLine, json: bool) -> anyhow::Result<String> {
    if !json {
        return Ok(escape(&line.text()).into_owned());
    }
    let json = serde_json::to_string(line)?;
    Ok(if Output::is_terminal() { escape_json(&json).into_owned() } else { json })
}

/// The file that lines are appended to.
struct Audit {
    file: File,
    path: PathBuf,
}

impl Audit {
    fn open(path: &Path) -> Result<Self, Failure> {
        let file = File::options().append(true).create(true).mode(0o640).open(path);
        let cannot = |error| Failure::Unable(format!("cannot write {}: {error}", path.display()));
        Ok(Self { file: file.map_err(cannot)?, path: path.to_owned() })
    }

    /// On disk when this returns.
    fn write(&mut self, line: &ReapLine) -> Result<(), Failure> {
        let mut text = Vec::new();
        push_line(line, &mut text);
        let written = self.file.write_all(&text).and_then(|()| self.file.sync_data());
        written.map_err(|error| Failure::Unable(format!("cannot write {}: {error}", self.path.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_says_what_the_application_will_see() {
        assert_eq!(summary(true, 0, 2), "nothing closed, 2 refused");
        for (yes, begins) in [(false, "nothing closed: a dry run; --yes closes 3, and the"), (true, "closed 3: the")] {
            let said = summary(yes, 3, 0);
            assert!(said.starts_with(begins) && said.contains("ECONNABORTED"), "{said}");
        }
    }

    #[test]
    fn an_audit_file_is_appended_to_and_its_owners() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit");
        for _ in 0..2 {
            Audit::open(&path).unwrap().file.write_all(b"x\n").unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "x\nx\n");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o137, 0);
        let Err(Failure::Unable(sentence)) = Audit::open(dir.path()) else { panic!("a directory was opened") };
        assert!(sentence.starts_with("cannot write "), "{sentence}");
    }
}
