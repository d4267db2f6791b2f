//! `socklife tail`: findings, or socket events, as they happen.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io::IsTerminal as _;
use std::net::SocketAddr;

use anyhow::Context as _;
use bytes::Bytes;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use futures_util::FutureExt as _;
use jiff::tz::TimeZone;
use tracer_core::finding::{Change, FINDING_SCHEMA, Finding, FindingLine, Kind, Severity};
use tracer_core::snapshot::{EVENT_SCHEMA, EventLine, LOSS_SCHEMA, LossLine};

use super::exit::Failure;
use super::output::Output;
use super::{Verdict, ask, say};
use crate::api::client::{Client, Lines};
use crate::api::{LOST_SCHEMA, LostLine};
use crate::ui::escape::escape_json;
use crate::ui::{line, style};

/// Most findings remembered as shown: the daemon keeps at most 10,000 open.
const SHOWN_MAX: usize = 16_384;

/// Who leaks now: one line per change of a finding, live
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Connections as they open and close, instead of findings
    #[arg(long, conflicts_with_all = ["kind", "min_severity"])]
    events: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Only what concerns this process (repeatable)
    #[arg(long, value_name = "PID")]
    pid: Vec<u32>,
    /// Only what concerns this endpoint (repeatable)
    #[arg(long, value_name = "IP:PORT", value_parser = endpoint)]
    endpoint: Vec<String>,
    /// Only findings of this kind (repeatable)
    #[arg(long, value_name = "KIND", value_parser = kinds())]
    kind: Vec<Kind>,
    /// Only findings at least this bad
    #[arg(long, value_name = "SEVERITY", value_parser = severities())]
    min_severity: Option<Severity>,
    /// Also what another open finding explains, unless it is critical and shown anyway; --json has everything
    #[arg(long, conflicts_with = "events")]
    all: bool,
}

/// Shared with `explain` and `top`.
pub(super) fn kinds() -> impl clap::builder::TypedValueParser<Value = Kind> {
    PossibleValuesParser::new(Kind::ALL.map(Kind::name))
        .try_map(|name| Kind::from_name(&name).ok_or_else(|| format!("no such kind: {name}")))
}

/// Shared with `--fail-on`.
pub(super) fn severities() -> impl clap::builder::TypedValueParser<Value = Severity> {
    PossibleValuesParser::new(["info", "warning", "critical"]).map(|name| match name.as_str() {
        "critical" => Severity::Critical,
        "warning" => Severity::Warning,
        _ => Severity::Info,
    })
}

/// An endpoint's id, in the spelling the daemon uses. Shared with `top`.
pub(super) fn endpoint(text: &str) -> Result<String, String> {
    if text == "other" {
        return Ok(text.to_owned());
    }
    let addr: SocketAddr = text.parse().map_err(|_| "write IP:PORT or [IPv6]:PORT".to_owned())?;
    Ok(SocketAddr::new(addr.ip().to_canonical(), addr.port()).to_string())
}

pub(super) fn main(args: Args, client: Client) -> anyhow::Result<Verdict> {
    ask(follow(args, client), || Ok(Verdict::Fine))
}

async fn follow(args: Args, client: Client) -> anyhow::Result<Verdict> {
    let mut lines = client.stream_lines(if args.events { "/v1/events" } else { "/v1/tail" }).await?;
    if lines.open_findings == Some(0) && !args.json && std::io::stderr().is_terminal() {
        say("watching, no findings yet");
    }
    let mut printer = Printer::new(args);
    let mut output = Output::new();
    while let Some(line) = next(&mut lines, &mut output).await? {
        if let Some(text) =
            printer.text(&line).with_context(|| format!("{} sent a strange line", client.path().display()))?
        {
            output.line(&text).await?;
        }
    }
    let path = client.path().display();
    Err(Failure::Unable(format!("the daemon on {path} has stopped: start it again, then follow it again")).into())
}

/// The next line; what is pending is written before waiting for it.
async fn next(lines: &mut Lines, output: &mut Output) -> anyhow::Result<Option<Bytes>> {
    if let Ok(Some(line)) = lines.take() {
        return Ok(Some(line));
    }
    // What the daemon has written already is read by the connection's own task, which has to have its turn for it.
    tokio::task::yield_now().await;
    let ready = lines.next().now_or_never();
    if let Some(Ok(Some(line))) = ready {
        return Ok(Some(line));
    }
    output.flush().await?;
    match ready {
        Some(end) => Ok(end?),
        None => Ok(lines.next().await?),
    }
}

/// Chooses lines and writes them the way that was asked for.
struct Printer {
    args: Args,
    look: line::Look,
    terminal: bool,
    /// Findings the user has seen: how they go on is news even when they no longer pass the filter.
    shown: HashSet<String>,
}

#[derive(serde::Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    schema: Cow<'a, str>,
}

/// The schema of a line. The daemon writes it first, where it is read off; anywhere else the line is parsed for it.
fn schema(line: &[u8]) -> anyhow::Result<Cow<'_, str>> {
    if let Some(rest) = line.strip_prefix(b"{\"schema\":\"")
        && let Some(end) = memchr::memchr2(b'"', b'\\', rest)
        && let Some((name, [b'"', .., b'}'])) = rest.split_at_checked(end)
    {
        return Ok(str::from_utf8(name)?.into());
    }
    Ok(serde_json::from_slice::<Head<'_>>(line)?.schema)
}

impl Printer {
    fn new(args: Args) -> Self {
        let look = line::Look { zone: TimeZone::system(), colour: style::wanted(&std::io::stdout()) };
        Self { args, look, terminal: Output::is_terminal(), shown: HashSet::new() }
    }

    /// What to write for a line of the daemon's, if anything.
    fn text<'a>(&mut self, line: &'a [u8]) -> anyhow::Result<Option<Cow<'a, [u8]>>> {
        let text = match &*schema(line)? {
            FINDING_SCHEMA => {
                let found: FindingLine = serde_json::from_slice(line)?;
                self.wants_finding(&found).then(|| self.written(|look| line::finding(&found, look)))
            }
            // There may be a hundred thousand a second.
            EVENT_SCHEMA if self.args.json && self.wants_every_event() => Some(String::new()),
            EVENT_SCHEMA => {
                let event: EventLine = serde_json::from_slice(line)?;
                self.wants_event(&event).then(|| self.written(|look| line::event(&event, look)))
            }
            LOST_SCHEMA if !self.args.json => {
                let LostLine { lost, .. } = serde_json::from_slice(line)?;
                say(&format!("{lost} lines are missing here: they came faster than they were read"));
                None
            }
            LOSS_SCHEMA => {
                let lost: LossLine = serde_json::from_slice(line)?;
                Some(self.written(|look| line::loss(&lost, look)))
            }
            // Told apart by its schema, it belongs where the lines it stands for would be.
            LOST_SCHEMA => Some(String::new()),
            other => {
                tracing::debug!("a line of another schema is left out: {other}");
                None
            }
        };
        Ok(text.map(|text| match (self.args.json, self.terminal) {
            (false, _) => text.into_bytes().into(),
            (true, false) => line.into(),
            (true, true) => escape_json(&String::from_utf8_lossy(line)).into_owned().into_bytes().into(),
        }))
    }

    /// The text for people; none with JSON, as the line itself is written then.
    fn written(&self, text: impl FnOnce(&line::Look) -> String) -> String {
        if self.args.json { String::new() } else { text(&self.look) }
    }

    fn wants_every_event(&self) -> bool {
        self.args.pid.is_empty() && self.args.endpoint.is_empty()
    }

    fn wants_finding(&mut self, line: &FindingLine) -> bool {
        let (args, found) = (&self.args, &line.finding);
        let passes = (args.pid.is_empty() || found.subject.pids.iter().any(|pid| args.pid.contains(pid)))
            && (args.endpoint.is_empty()
                || found.subject.endpoint.as_ref().is_some_and(|id| args.endpoint.contains(id)))
            && (args.kind.is_empty() || args.kind.contains(&found.kind))
            && args.min_severity.is_none_or(|least| found.severity >= least)
            && !self.is_explained(found);
        let known = self.shown.contains(&found.id);
        if line.change == Change::Resolved || !passes {
            self.shown.remove(&found.id);
        } else if self.shown.len() < SHOWN_MAX {
            self.shown.insert(found.id.clone());
        }
        passes || known
    }

    /// One problem is one line for people, unless they ask for more: its cause says it.
    fn is_explained(&self, found: &Finding) -> bool {
        let asked = self.args.json || self.args.all || !self.args.kind.is_empty();
        !asked && found.cause.is_some() && found.severity < Severity::Critical
    }

    fn wants_event(&self, line: &EventLine) -> bool {
        let args = &self.args;
        let concerns =
            |pid: &u32| line.opener.as_ref().is_some_and(|opener| opener.pid == *pid) || line.closer_pid == Some(*pid);
        (args.pid.is_empty() || args.pid.iter().any(concerns))
            && (args.endpoint.is_empty() || args.endpoint.contains(&line.endpoint))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Just {
        #[command(flatten)]
        args: Args,
    }

    fn printer(flags: &[&str]) -> Printer {
        let args = Just::try_parse_from([&["tail"], flags].concat()).unwrap_or_else(|error| panic!("{error}")).args;
        let look = line::Look { zone: TimeZone::UTC, colour: false };
        Printer { args, look, terminal: false, shown: HashSet::new() }
    }

    fn finding(change: &str, severity: &str) -> Vec<u8> {
        let status = if change == "resolved" { "resolved" } else { "open" };
        let line = serde_json::json!({
            "schema": FINDING_SCHEMA, "change": change, "at": "2026-11-21T20:41:07.000Z", "id": "f1",
            "kind": "limit_pressure", "severity": severity, "confidence": 1.0, "status": status, "first_seen": "2026-11-21T20:41:07.000Z",
            "last_seen": "2026-11-21T20:41:07.000Z",
            "subject": { "endpoint": "10.0.0.5:5432", "pids": [412, 433], "launcher_group": null },
            "summary": "96 of 100\u{202e} open", "evidence": [], "ruled_out": [], "related": [], "cause": null,
            "remedy": "", "verify": "",
        });
        line.to_string().into_bytes()
    }

    fn event(opener: Option<u32>, closer: Option<u32>) -> Vec<u8> {
        let opener = opener.map(|pid| serde_json::json!({ "pid": pid, "comm": "python3" }));
        let line = serde_json::json!({
            "schema": EVENT_SCHEMA, "event": "opened", "at": "2026-11-21T20:41:07.123Z", "endpoint": "10.0.0.5:5432",
            "database": "postgres", "role": "client", "local": "10.0.0.1:40222", "remote": "10.0.0.5:5432",
            "state": "ESTABLISHED", "opener": opener, "closer_pid": closer, "age_ms": null, "bytes_sent": 0,
            "bytes_received": 0, "retransmits": 0, "consecutive_rtos": 0, "reset": null, "error": null,
        });
        line.to_string().into_bytes()
    }

    #[test]
    fn findings_are_chosen() {
        for (flags, shown) in [
            (&[][..], true),
            (&["--pid", "412"], true),
            (&["--pid", "1", "--pid", "433"], true),
            (&["--pid", "1"], false),
            (&["--endpoint", "10.0.0.5:5432"], true),
            (&["--endpoint", "[::ffff:10.0.0.5]:5432"], true),
            (&["--endpoint", "10.0.0.6:5432"], false),
            (&["--endpoint", "other"], false),
            (&["--kind", "limit_pressure"], true),
            (&["--kind", "close_wait_leak"], false),
            (&["--kind", "close_wait_leak", "--kind", "limit_pressure"], true),
            (&["--min-severity", "warning"], true),
            (&["--min-severity", "critical"], false),
            (&["--min-severity", "info", "--pid", "1"], false),
        ] {
            let line = finding("opened", "warning");
            assert_eq!(printer(flags).text(&line).unwrap().is_some(), shown, "{flags:?}");
        }
    }

    #[test]
    fn one_problem_is_one_line_for_people() {
        let mut line: serde_json::Value = serde_json::from_slice(&finding("opened", "warning")).unwrap();
        line["cause"] = serde_json::json!("f0");
        for (flags, severity, shown) in [
            (&[][..], "warning", false),
            (&[], "critical", true),
            (&["--json"], "warning", true),
            (&["--all"], "warning", true),
            (&["--kind", "limit_pressure"], "warning", true),
        ] {
            line["severity"] = serde_json::json!(severity);
            let line = line.to_string();
            assert_eq!(printer(flags).text(line.as_bytes()).unwrap().is_some(), shown, "{flags:?} {severity}");
        }
    }

    #[test]
    fn what_was_shown_is_shown_to_its_end() {
        let mut printer = printer(&["--min-severity", "critical"]);
        let mut shown = |change, severity| printer.text(&finding(change, severity)).unwrap().is_some();
        assert!(!shown("opened", "warning"));
        assert!(shown("updated", "critical"));
        assert!(shown("updated", "warning"), "that it got better is news");
        assert!(!shown("updated", "warning"));
        assert!(!shown("resolved", "warning"));
        assert!(shown("opened", "critical"));
        assert!(shown("resolved", "critical"));
    }

    #[test]
    fn events_are_chosen() {
        for (flags, opener, closer, shown) in [
            (&[][..], None, None, true),
            (&["--pid", "412"], Some(412), None, true),
            (&["--pid", "412"], Some(1), Some(412), true),
            (&["--pid", "412"], None, None, false),
            (&["--endpoint", "10.0.0.5:5432", "--pid", "412"], Some(412), None, true),
            (&["--endpoint", "10.0.0.6:5432", "--pid", "412"], Some(412), None, false),
        ] {
            let flags = [&["--events"], flags].concat();
            let line = event(opener, closer);
            assert_eq!(printer(&flags).text(&line).unwrap().is_some(), shown, "{flags:?}");
        }
    }

    #[test]
    fn text_is_escaped_and_json_is_the_daemons_own() {
        let line = finding("opened", "critical");
        let text = printer(&[]).text(&line).unwrap().unwrap();
        let wanted = r"20:41:07 CRITICAL  limit_pressure       96 of 100\u{202e} open";
        assert_eq!(String::from_utf8(text.into_owned()).unwrap(), wanted);
        assert_eq!(printer(&["--json"]).text(&line).unwrap().unwrap(), line);
        let mut terminal = Printer { terminal: true, ..printer(&["--json"]) };
        let shown = terminal.text(&line).unwrap().unwrap();
        assert!(!String::from_utf8(shown.to_vec()).unwrap().contains('\u{202e}'));
        assert_eq!(
            serde_json::from_slice::<FindingLine>(&shown).unwrap(),
            serde_json::from_slice::<FindingLine>(&line).unwrap()
        );
    }

    #[test]
    fn a_schema_is_found_wherever_it_stands() {
        for (line, found) in [
            (&br#"{"schema":"socklife.event/v1","at":1}"#[..], Some("socklife.event/v1")),
            (br#"{"schema":"socklife.lost/v1"}"#, Some("socklife.lost/v1")),
            (br#"{"at":"}", "schema" : "socklife.event/v1"}"#, Some("socklife.event/v1")),
            (br#"{"schema":"socklife.\u0065vent/v1","at":1}"#, Some("socklife.event/v1")),
            (br#"{"schema":"socklife.event/v1","at":1"#, None),
            (br#"{"schema":"socklife.event/v1"#, None),
            (br#"{"at":1}"#, None),
            (b"", None),
        ] {
            assert_eq!(schema(line).ok().as_deref(), found, "{}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn losses_stay_in_json_and_leave_text_alone() {
        let lost = br#"{"schema":"socklife.lost/v1","lost":7}"#;
        assert_eq!(printer(&["--json", "--pid", "1"]).text(lost).unwrap().unwrap(), &lost[..]);
        assert_eq!(printer(&[]).text(lost).unwrap(), None);
        assert_eq!(printer(&[]).text(br#"{"schema":"socklife.other/v9"}"#).unwrap(), None);
        assert!(printer(&[]).text(b"no json").is_err());
    }
}
