//! One connection's life.

use ratatui::style::Style;
use ratatui::text::Line;
use tracer_core::snapshot::Connection;

use super::super::columns::{age, ends, role};
use super::super::figures::{bytes, date, duration, microseconds};
use super::super::model::Model;
use super::super::palette::word;
use super::super::picture::{Picture, process_name};
use super::fact;
use crate::ui::escape;

/// Holders that are named; the rest is counted.
const HOLDERS_SHOWN: usize = 16;
/// Findings that are shown.
const FINDINGS_SHOWN: usize = 16;

pub fn lines(model: &Model, picture: &Picture, it: &Connection, width: u16) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    let zone = &model.look.zone;
    let mut say = |name: &str, value: &str| fact(&mut lines, name, &escape(value), Style::new(), width);
    say("connection", &it.id);
    say("ends", &ends(it));
    let name = picture.endpoint_name(&it.endpoint);
    say("endpoint", &format!("{name} ({}), this side is the {}", it.database, role(it.role)));
    let opened = it.opened_at.map_or_else(|| "before the daemon looked".to_owned(), |at| date(at, zone));
    say("opened", &format!("{opened}; age {}", age(it)));
    let opener = it.opener.as_ref().map_or_else(
        || "unknown: it was there before, or its opening was not seen".to_owned(),
        |by| who(picture, by.pid, &by.comm),
    );
    say("opened by", &opener);
    say("held by", &holders(picture, it));
    let since = it.state_since.map(|at| format!(" since {}", date(at, zone))).unwrap_or_default();
    say("state", &format!("{}{since}", it.state.name()));
    if let Some(pid) = it.closer_pid {
        say("closed by", &who(picture, pid, "pid"));
    }
    say("idle", &it.idle_s.map_or_else(|| "unknown".to_owned(), |s| format!("{} at the last look", duration(s))));
    say("heard of peer", &it.heard_s.map_or_else(|| "unknown".to_owned(), |s| format!("{} ago", duration(s))));
    let (sent, received) = (it.bytes_sent, it.bytes_received);
    say("bytes", &format!("{} sent ({sent}), {} received ({received})", bytes(sent), bytes(received)));
    say("round trip", &it.srtt_us.map_or_else(|| "unknown".to_owned(), microseconds));
    let rtos = it.consecutive_rtos;
    say(
        "sent again",
        &format!("{} segments, {rtos} time-outs in a row, {} not acknowledged", it.retransmits, it.unacked),
    );
    let keepalive = match it.keepalive {
        Some(true) => "on",
        Some(false) => "off",
        None => "unknown",
    };
    say("keepalive", &format!("{keepalive}, {} probes without an answer", it.unanswered_probes));
    let inode = it.inode.map_or_else(|| "unknown".to_owned(), |inode| inode.to_string());
    say("kernel", &format!("socket inode {inode}, network namespace {}", it.netns));
    let related: Vec<String> = related(picture, it);
    for (at, finding) in related.iter().enumerate() {
        say(if at == 0 { "findings" } else { "" }, finding);
    }
    if related.is_empty() {
        say("findings", "none about its endpoint and process");
    }
    say("ask its peer", &format!("socklife verify {}", it.id));
    lines
}

fn who(picture: &Picture, pid: u32, comm: &str) -> String {
    match picture.process(pid) {
        Some(process) if process.alive => format!("{}[{pid}]", process_name(process)),
        Some(process) => format!("{}[{pid}], which has ended", process_name(process)),
        None => format!("{comm}[{pid}]"),
    }
}

fn holders(picture: &Picture, it: &Connection) -> String {
    if it.holders.is_empty() {
        return "nobody at the last look".to_owned();
    }
    let named = it.holders.iter().take(HOLDERS_SHOWN);
    let mut parts: Vec<String> =
        named.map(|holder| format!("{} as descriptor {}", who(picture, holder.pid, "pid"), holder.fd)).collect();
    let more = it.holders.len().saturating_sub(HOLDERS_SHOWN);
    if more > 0 {
        parts.push(format!("{more} more"));
    }
    parts.join(", ")
}

/// Findings about its endpoint that name a process of its, or none at all.
fn related(picture: &Picture, it: &Connection) -> Vec<String> {
    let concerns = super::super::columns::concerns;
    let about = picture.overview.findings.iter().filter(|finding| {
        finding.subject.endpoint.as_ref().is_none_or(|id| *id == it.endpoint)
            && (finding.subject.pids.iter().any(|pid| concerns(it, *pid))
                || (finding.subject.pids.is_empty() && finding.subject.endpoint.is_some()))
    });
    let text = about.map(|each| format!("{} {}: {}", word(each.severity), each.kind.name(), each.summary));
    text.take(FINDINGS_SHOWN).collect()
}
