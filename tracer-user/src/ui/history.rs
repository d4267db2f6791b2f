//! One line of `history` for what happened, or for what it amounts to.

use std::fmt::Write as _;

use jiff::tz::TimeZone;
use tracer_core::finding::{FINDING_SCHEMA, FindingLine};
use tracer_core::time::WallTime;

use super::escape;
use super::line::{self, Look};
use super::style::{Colour, paint};
use crate::history::{Line, What};

/// `Nov 21 22:41:07 CRITICAL  limit_pressure       orders-db 10.0.0.5:5432   96 of 100 open, ...`
#[must_use]
pub fn text(line: &Line, look: &Look) -> String {
    let at = stamp(line.at, &look.zone, "%b %d ");
    let row = |word: &str, colour: Colour, text: String| {
        let time = stamp(line.at, &look.zone, "%H:%M:%S");
        format!("{at}{time} {}  {text}", paint(&format!("{word:<8}"), colour, look.colour))
    };
    match &line.what {
        What::Finding { change, finding } => {
            let told = FindingLine {
                schema: FINDING_SCHEMA.to_owned(),
                change: *change,
                at: line.at,
                finding: (**finding).clone(),
            };
            format!("{at}{}", line::finding(&told, look))
        }
        What::RunStarted { source, version, .. } if source == "live" => {
            row("started", Colour::Dim, format!("socklife {} began to watch", escape(version)))
        }
        What::RunStarted { source, .. } => row("started", Colour::Dim, format!("a {} begins", escape(source))),
        What::RunStopped {} => row("stopped", Colour::Dim, "socklife ended".to_owned()),
        What::RunEnds {} => row("last", Colour::Dim, "the last that is known of this run".to_owned()),
        What::Loss { stage, lost } => {
            row("LOST", Colour::Yellow, format!("{} {lost} since the start; counts are lower bounds", escape(stage)))
        }
        What::Gap { since, kind, rows, reason } => {
            let from = stamp(*since, &look.zone, "%H:%M:%S");
            row("GAP", Colour::Yellow, format!("{}: {rows} not kept since {from}: {}", escape(kind), escape(reason)))
        }
        What::Growth(growth) => {
            let pid = growth.pid.map(|pid| format!("[{pid}]")).unwrap_or_default();
            let text = format!(
                "{}{pid} at {}: {} to {} open, {} at most, {} opened, {} closed",
                escape(&growth.who),
                escape(&growth.endpoint_name),
                growth.open_first,
                growth.open_last,
                growth.open_peak,
                growth.opened,
                growth.closed
            );
            row("open", Colour::Dim, text)
        }
        What::Closed(closed) => {
            let who = if closed.who.is_empty() { "unknown" } else { &closed.who };
            let pid = closed.pid.map(|pid| format!("[{pid}]")).unwrap_or_default();
            let mut text = format!("{}{pid} at {}: {}", escape(who), escape(&closed.endpoint_name), closed.connections);
            for (index, (why, count)) in closed.why.iter().enumerate() {
                let _infallible = write!(text, "{}{count} by {}", if index == 0 { ", " } else { " + " }, escape(why));
            }
            let _infallible = write!(text, ", {} B sent, {} B received", closed.bytes_sent, closed.bytes_received);
            row("closed", Colour::Dim, text)
        }
        What::Truncated { lines } => {
            row("MORE", Colour::Yellow, format!("{lines} lines more: ask for a shorter time, or with --json"))
        }
    }
}

fn stamp(at: WallTime, zone: &TimeZone, format: &str) -> String {
    jiff::Timestamp::from_millisecond(at.unix_ms)
        .map_or_else(|_| "--".to_owned(), |at| at.to_zoned(zone.clone()).strftime(format).to_string())
}
