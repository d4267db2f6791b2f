//! A finding's whole text.

use ratatui::style::Style;
use ratatui::text::Line;
use tracer_core::finding::{EvidenceValue, Finding};

use super::super::columns::Look;
use super::super::figures::{date, duration, seconds_between};
use super::super::model::Model;
use super::super::palette::word;
use super::super::picture::{Picture, process_name};
use super::fact;
use crate::ui::escape;

/// Pids that are named; the rest is counted.
const PIDS_SHOWN: usize = 20;

pub fn lines(model: &Model, picture: &Picture, finding: &Finding, width: u16) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    let Look { zone, palette, .. } = &model.look;
    let plain = Style::new();
    let mut say = |name: &str, value: &str| fact(&mut lines, name, value, plain, width);
    let head = format!("{} {}", word(finding.severity), finding.kind.name());
    say("finding", &head);
    say("summary", &escape(&finding.summary));
    say("about", &about(picture, finding));
    let age = duration(seconds_between(finding.first_seen, picture.overview.captured_at));
    say("since", &format!("{}, for {age}", date(finding.first_seen, zone)));
    say("confidence", &super::super::columns::sure(finding));
    for (at, evidence) in finding.evidence.iter().enumerate() {
        let unit = if evidence.unit.is_empty() { String::new() } else { format!(" {}", evidence.unit) };
        let text = format!("{}: {}{unit}", evidence.fact.replace('_', " "), value(&evidence.value));
        say(if at == 0 { "evidence" } else { "" }, &escape(&text));
    }
    for (at, text) in finding.ruled_out.iter().enumerate() {
        say(if at == 0 { "ruled out" } else { "" }, &escape(text));
    }
    say("remedy", &escape(&finding.remedy));
    say("verify", &escape(&finding.verify));
    let other = |id: &String| {
        picture.finding(id).map_or_else(|| id.clone(), |other| format!("{}: {}", other.kind.name(), other.summary))
    };
    if let Some(cause) = &finding.cause {
        say("brought about", &escape(&format!("by {}", other(cause))));
    }
    for (at, related) in finding.related.iter().filter(|id| Some(*id) != finding.cause.as_ref()).enumerate() {
        say(if at == 0 { "related" } else { "" }, &escape(&other(related)));
    }
    say("more", &format!("socklife explain {}", finding.kind.name()));
    if let Some(first) = lines.first_mut()
        && let Some(span) = first.spans.last_mut()
    {
        span.style = palette.severity(finding.severity);
    }
    lines
}

fn about(picture: &Picture, finding: &Finding) -> String {
    let subject = &finding.subject;
    let mut parts = Vec::new();
    if let Some(id) = &subject.endpoint {
        let name = picture.endpoint_name(id);
        parts.push(if name == id { id.clone() } else { format!("{name} {id}") });
    }
    if let Some(id) = &subject.launcher_group {
        parts.push(format!("group {}", picture.group(id).map_or(id.as_str(), |group| &group.label)));
    }
    let named = subject.pids.iter().take(PIDS_SHOWN).map(|pid| match picture.process(*pid) {
        Some(process) => format!("{}[{pid}]", process_name(process)),
        None => format!("pid {pid}"),
    });
    parts.extend(named);
    let more = subject.pids.len().saturating_sub(PIDS_SHOWN);
    if more > 0 {
        parts.push(format!("{more} more"));
    }
    escape(&parts.join(", ")).into_owned()
}

fn value(value: &EvidenceValue) -> String {
    match value {
        EvidenceValue::Integer(number) => number.to_string(),
        EvidenceValue::Number(number) => {
            let text = format!("{number:.3}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        EvidenceValue::Text(text) => text.clone(),
        EvidenceValue::List(parts) => parts.join(", "),
    }
}
