//! The parts that are sentences: the banner, what stands above a list about its subject, the pages of a connection and of a
//! finding, the help. Every string of a process is escaped here.

mod connection;
mod finding;
mod panel;

use ratatui::style::Style;
use ratatui::text::{Line, Span};
use tracer_core::snapshot::{Completeness, Loss};

use super::figures::{duration, wrap};
use super::keys::HELP;
use super::model::Model;
use super::page::Subject;
use crate::ui::escape;

pub use panel::panel;

/// Cells for the names of facts, where the page is wide enough.
const LABEL_WIDTH: u16 = 14;

/// What must be known before anything on the screen is believed.
pub fn banner(model: &Model) -> Option<String> {
    if let Some(silent) = model.silence() {
        let since = model.taken().map_or_else(|| "yet".to_owned(), |taken| format!("since {taken}"));
        let why = model.trouble.as_ref().map(|why| format!(": {}", escape(why))).unwrap_or_default();
        return Some(format!("NO ANSWER {since} ({}), asking again{why}", duration(silent.as_secs())));
    }
    if let Some(paused) = model.paused {
        let paused = super::figures::clock(paused, &model.look.zone);
        let taken = model.taken().map(|taken| format!(", picture of {taken}")).unwrap_or_default();
        return Some(format!("PAUSED since {paused}{taken}; Space goes on"));
    }
    let capture = &model.picture.as_ref()?.overview.capture;
    match capture.completeness {
        Completeness::Exact => None,
        Completeness::LowerBound => {
            let lost = lost(&capture.loss);
            let lost = if lost.is_empty() { String::new() } else { format!(": {lost}") };
            Some(format!("COUNTS ARE LOWER BOUNDS: not all was seen{lost}"))
        }
        Completeness::Unknown => Some("NOT READY: the daemon has not looked at the socket table yet".to_owned()),
    }
}

/// `ring_full 312, ends 40`: stages that lost something.
pub fn lost(loss: &Loss) -> String {
    let stages = serde_json::to_value(loss).ok();
    let stages = stages.as_ref().and_then(serde_json::Value::as_object).into_iter().flatten();
    let stages = stages.filter(|(_, count)| **count != 0).map(|(stage, count)| format!("{stage} {count}"));
    stages.collect::<Vec<_>>().join(", ")
}

/// The lines of a page of text, `width` cells wide.
pub fn page(model: &Model, width: u16) -> Vec<Line<'static>> {
    let Some(picture) = &model.picture else { return vec![Line::raw("no answer yet")] };
    match &model.page().subject {
        Subject::Connection(id) => match picture.connection(id) {
            Some(connection) => connection::lines(model, picture, connection, width),
            None => vec![Line::raw(format!("connection {} is gone: it was closed", escape(id)))],
        },
        Subject::Finding(id) => match picture.finding(id) {
            Some(finding) => finding::lines(model, picture, finding, width),
            None => vec![Line::raw("this finding is resolved: what it says holds no more")],
        },
        _ => Vec::new(),
    }
}

/// All keys, and what is to be known about the figures.
pub fn help(width: u16) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for (keys, what) in HELP {
        fact(&mut lines, keys, what, Style::new(), width);
    }
    lines.push(Line::raw(""));
    for sentence in [
        "C, W, i: something critical, a warning or a note is open about this row.",
        "+/MIN and -/MIN: opened and closed in the last minute. IN USE: most seen in use at one look.",
        "IDLE, QUIET, bytes, RTT and holders are as of the daemon's last look (every 10 s by default).",
        "> before an age: at least so old, it was there before the daemon. ~ before a limit: inferred.",
        "What columns are shown where the screen is narrow: docs/top.md.",
    ] {
        lines.extend(wrap(sentence, width).into_iter().map(Line::raw));
    }
    lines
}

/// A fact with its name at the left, or above it where there is no room.
fn fact(lines: &mut Vec<Line<'static>>, name: &str, value: &str, style: Style, width: u16) {
    let label = Style::new().add_modifier(ratatui::style::Modifier::BOLD);
    let beside = width >= 3 * LABEL_WIDTH;
    let indent = if beside { LABEL_WIDTH + 2 } else { 2 };
    if !beside {
        lines.push(Line::styled(name.to_owned(), label));
    }
    for (at, part) in wrap(value, width.saturating_sub(indent)).into_iter().enumerate() {
        let name = if beside && at == 0 { name } else { "" };
        let start = format!("{name:<0$}", usize::from(indent));
        lines.push(Line::from(vec![Span::styled(start, label), Span::styled(part, style)]));
    }
}
