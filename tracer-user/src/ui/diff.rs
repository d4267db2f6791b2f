//! What changed between two snapshots, as text: one line a change, in columns, the largest change first.

use std::fmt::Write as _;

use jiff::tz::TimeZone;
use tracer_core::diff::{ConnectionRef, Diff, EndpointChange, Fate, GroupChange, LimitPair, Pair, ProcessChange};
use tracer_core::event::Role;
use tracer_core::finding::{Finding, Severity};
use tracer_core::snapshot::{Completeness, Limit, LimitSource};
use tracer_core::time::WallTime;

use super::escape;

/// Lines of one section; the rest is counted.
const LINES_MAX: usize = 20;

/// The whole text, without a line break at its end.
#[must_use]
pub fn text(diff: &Diff, zone: &TimeZone) -> String {
    let mut text = head(diff, zone);
    section(&mut text, "findings", findings(diff));
    section(&mut text, "databases", rows(diff.endpoints.iter().map(endpoint)));
    section(&mut text, "launcher groups", rows(diff.launcher_groups.iter().map(group)));
    section(&mut text, "processes", rows(diff.processes.iter().map(process)));
    section(
        &mut text,
        &format!("connections opened ({})", diff.opened.len()),
        rows(diff.opened.iter().map(connection)),
    );
    section(
        &mut text,
        &format!("connections closed ({})", diff.closed.len()),
        rows(diff.closed.iter().map(connection)),
    );
    if diff.is_empty() {
        text.push_str("\nnothing changed\n");
    }
    text.truncate(text.trim_end().len());
    text
}

fn head(diff: &Diff, zone: &TimeZone) -> String {
    let (before, after) = (&diff.before, &diff.after);
    let mut text = format!(
        "{} to {}, {} s on {}; {} connections stayed\n",
        local(before.captured_at, zone),
        local(after.captured_at, zone),
        diff.elapsed_s,
        escape(&after.hostname),
        diff.kept
    );
    let mut note = |sentence: &str| {
        let _infallible = writeln!(text, "note: {sentence}");
    };
    if diff.elapsed_s < 0 {
        note("the second snapshot is older than the first");
    }
    if !diff.same_host {
        note(&format!("the first snapshot is of another host, {}", escape(&before.hostname)));
    } else if !diff.same_run {
        note("the snapshots are of different runs of socklife: totals cannot be compared");
    }
    if before.completeness != Completeness::Exact || after.completeness != Completeness::Exact {
        note("not everything was seen: counts may be short");
    }
    text
}

fn section(text: &mut String, title: &str, lines: Vec<String>) {
    if lines.is_empty() {
        return;
    }
    let _infallible = writeln!(text, "\n{title}");
    for line in lines.iter().take(LINES_MAX) {
        let _infallible = writeln!(text, "  {}", line.trim_end());
    }
    if let Some(more) = lines.len().checked_sub(LINES_MAX).filter(|more| *more > 0) {
        let _infallible = writeln!(text, "  and {more} more: see --json");
    }
}

/// Columns as wide as their widest cell.
fn rows<const N: usize>(rows: impl Iterator<Item = [String; N]>) -> Vec<String> {
    let rows: Vec<[String; N]> = rows.collect();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: [usize; N] = std::array::from_fn(|column| width(column).unwrap_or(0));
    let cell = |(cell, width): (&String, usize)| format!("{cell:<width$}");
    rows.iter().map(|row| row.iter().zip(widths).map(cell).collect::<Vec<_>>().join("  ")).collect()
}

fn findings(diff: &Diff) -> Vec<String> {
    let line = |word: &str, severity: Severity, finding: &Finding| {
        [
            word.to_owned(),
            name(severity).to_owned(),
            finding.kind.name().to_owned(),
            escape(&finding.summary).into_owned(),
        ]
    };
    let appeared = diff.appeared.iter().map(|each| line("appeared", each.severity, each));
    let cleared = diff.cleared.iter().map(|each| line("cleared", each.severity, each));
    let changed = diff.changed.iter().map(|each| {
        let summary = format!("{} (was {})", escape(&each.summary_after), escape(&each.summary_before));
        ["changed".to_owned(), name(each.severity_after).to_owned(), each.kind.name().to_owned(), summary]
    });
    rows(appeared.chain(changed).chain(cleared))
}

fn name(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "INFO",
        Severity::Warning => "WARNING",
        Severity::Critical => "CRITICAL",
    }
}

/// `+12`, `-3`, `0`.
fn signed(pair: Pair) -> String {
    match pair.change() {
        0 => "0".to_owned(),
        change => format!("{change:+}"),
    }
}

fn open(pair: Pair) -> String {
    format!("{} -> {} open", pair.before, pair.after)
}

fn fate(fate: Fate) -> &'static str {
    match fate {
        Fate::Appeared => "new",
        Fate::Gone => "gone",
        Fate::Changed => "",
    }
}

fn side(role: Role) -> &'static str {
    match role {
        Role::Client => "client",
        Role::Server => "server",
    }
}

fn endpoint(change: &EndpointChange) -> [String; 6] {
    let name = if change.name == change.id { change.id.clone() } else { format!("{} {}", change.name, change.id) };
    let totals = match (change.opened, change.closed, change.failed) {
        (Some(opened), Some(closed), Some(failed)) => {
            let failed = if failed > 0 { format!(", {failed} failed") } else { String::new() };
            format!("{opened} opened, {closed} closed{failed}")
        }
        _ => String::new(),
    };
    let notes = [fate(change.fate).to_owned(), relimited(change)];
    let notes = notes.into_iter().filter(|note| !note.is_empty()).collect::<Vec<_>>().join(", ");
    [signed(change.open), escape(&name).into_owned(), side(change.role).to_owned(), open(change.open), totals, notes]
}

/// `limit unknown -> about 40`, if a database that is in both snapshots has another one now.
fn relimited(change: &EndpointChange) -> String {
    let LimitPair { before, after } = change.limit;
    let said = |limit: Option<Limit>| match limit {
        None => "unknown".to_owned(),
        Some(Limit { value, source: LimitSource::Inferred }) => format!("about {value}"),
        Some(Limit { value, .. }) => value.to_string(),
    };
    let differs = change.fate == Fate::Changed && before != after;
    if differs { format!("limit {} -> {}", said(before), said(after)) } else { String::new() }
}

fn group(change: &GroupChange) -> [String; 5] {
    let Pair { before, after } = change.instances;
    let copies = format!("{before} -> {after} copies");
    [signed(change.open), escape(&change.label).into_owned(), copies, open(change.open), fate(change.fate).to_owned()]
}

fn process(change: &ProcessChange) -> [String; 5] {
    let word = match (change.fate, change.alive) {
        (Fate::Appeared, _) => "new",
        (_, false) => "ended",
        _ => "",
    };
    let label = escape(&change.label).into_owned();
    [signed(change.open), format!("pid {}", change.pid), label, open(change.open), word.to_owned()]
}

fn connection(connection: &ConnectionRef) -> [String; 4] {
    let arrow = match connection.role {
        Role::Client => "->",
        Role::Server => "<-",
    };
    let who = match (&connection.opener, connection.holder_pids.first()) {
        (Some(opener), _) => format!("{}[{}]", escape(&opener.comm), opener.pid),
        (None, Some(holder)) => format!("held by {holder}"),
        (None, None) => "opener unknown".to_owned(),
    };
    let ends = format!("{} {arrow} {}", escape(&connection.local), escape(&connection.remote));
    [ends, side(connection.role).to_owned(), connection.state.name().to_owned(), who]
}

fn local(at: WallTime, zone: &TimeZone) -> String {
    jiff::Timestamp::from_millisecond(at.unix_ms)
        .map_or_else(|_| at.to_string(), |at| at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string())
}
