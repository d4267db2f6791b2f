//! One finding with all that supports it.

use std::collections::HashMap;

use serde::Serialize;
use tracer_core::finding::{Evidence, EvidenceValue, Finding};
use tracer_core::snapshot::Snapshot;

use super::connections::{Index, telling};
use super::format::{TEXT_MAX, bytes, clip, count, duration, first, many, moment, name, words};
use super::model::{Table, VERDICTS_MAX, severity};

/// Process ids named.
const PIDS: usize = 24;
/// Entries of a list in the evidence.
const ENTRIES: usize = 8;
/// Facts, and excluded look-alikes, of one finding.
const FACTS: usize = 40;
/// Related findings named.
const RELATED: usize = 16;

/// A finding with its evidence.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// Its number on the page.
    pub number: usize,
    /// `critical`, `warning`, `info` or `resolved`.
    pub severity: &'static str,
    /// Its kind.
    pub kind: &'static str,
    /// The sentence.
    pub summary: String,
    /// What it is about, since when, and how sure it is: names and values.
    pub head: Vec<(&'static str, String)>,
    /// The number of the finding that brings it about.
    pub cause: Option<usize>,
    /// Numbers of findings that belong to it.
    pub related: Vec<usize>,
    /// Facts: name, values with their unit.
    pub evidence: Vec<(String, Vec<String>)>,
    /// Look-alikes that were excluded.
    pub ruled_out: Vec<String>,
    /// What to do.
    pub remedy: String,
    /// A command that shows the same.
    pub verify: String,
    /// Its most telling connections.
    pub connections: Option<Table>,
}

/// The finding with this number on the page.
pub fn verdict(
    number: usize,
    found: &Finding,
    snapshot: &Snapshot,
    index: &Index<'_>,
    numbers: &HashMap<&str, usize>,
) -> Verdict {
    // Only what is on the page can be led to.
    let of = |id: &String| numbers.get(id.as_str()).copied().filter(|it| *it <= VERDICTS_MAX);
    let cause = found.cause.as_ref().and_then(of);
    let related = found.related.iter().filter_map(of).filter(|it| Some(*it) != cause).take(RELATED).collect();
    Verdict {
        number,
        severity: severity(found),
        kind: found.kind.name(),
        summary: clip(&found.summary, TEXT_MAX),
        head: head(found, index),
        cause,
        related,
        evidence: found.evidence.iter().take(FACTS).map(fact).collect(),
        ruled_out: found.ruled_out.iter().take(FACTS).map(|text| clip(text, TEXT_MAX)).collect(),
        remedy: clip(&found.remedy, TEXT_MAX),
        verify: clip(&found.verify, TEXT_MAX),
        connections: telling(found, snapshot, index),
    }
}

fn head(found: &Finding, index: &Index<'_>) -> Vec<(&'static str, String)> {
    let mut head = Vec::new();
    if let Some(id) = &found.subject.endpoint {
        head.push(("Database", index.endpoint_name(id)));
    }
    if let Some(id) = &found.subject.launcher_group {
        head.push(("Launcher group", name(index.label(id).unwrap_or(id))));
    }
    if !found.subject.pids.is_empty() {
        head.push(("Processes", first(&found.subject.pids, PIDS)));
    }
    head.push(("First seen", format!("{} UTC", moment(found.first_seen))));
    head.push(("Last seen", format!("{} UTC", moment(found.last_seen))));
    head.push(("Confidence", format!("{:.0} %", found.confidence.clamp(0.0, 1.0) * 100.0)));
    head
}

/// A fact as words, and its value with the unit; of a list, its first entries.
fn fact(evidence: &Evidence) -> (String, Vec<String>) {
    let unit = evidence.unit.as_str();
    let values = match &evidence.value {
        EvidenceValue::Integer(number) => vec![integer(*number, unit)],
        EvidenceValue::Number(number) => vec![with_unit(&format!("{}", (number * 100.0).round() / 100.0), unit)],
        EvidenceValue::Text(text) => vec![with_unit(&clip(text, TEXT_MAX), unit)],
        EvidenceValue::List(list) => {
            let more = list.len().checked_sub(ENTRIES).filter(|more| *more > 0);
            let entries = list.iter().take(ENTRIES).map(|entry| clip(entry, TEXT_MAX));
            entries.chain(more.map(|more| format!("and {} more", many(more)))).collect()
        }
    };
    (words(&evidence.fact), values)
}

fn integer(number: i64, unit: &str) -> String {
    let sign = if number < 0 { "-" } else { "" };
    let size = number.unsigned_abs();
    match unit {
        "s" => format!("{sign}{}", duration(size)),
        "bytes" | "B" => format!("{sign}{}", bytes(size)),
        _ => with_unit(&format!("{sign}{}", count(size)), unit),
    }
}

fn with_unit(value: &str, unit: &str) -> String {
    match unit {
        "" => value.to_owned(),
        "percent" | "%" => format!("{value} %"),
        _ => format!("{value} {}", words(unit)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_have_their_units() {
        let text = |text: &str| EvidenceValue::Text(text.to_owned());
        for (name, value, unit, shown) in [
            ("open", EvidenceValue::Integer(12_345), "connections", "12,345 connections"),
            ("idle", EvidenceValue::Integer(302), "s", "5 min 2 s"),
            ("memory", EvidenceValue::Integer(1_449_000), "bytes", "1.4 MB"),
            ("change", EvidenceValue::Integer(-4), "per_min", "-4 per min"),
            ("rate", EvidenceValue::Number(1.006), "", "1.01"),
            ("share", EvidenceValue::Number(50.0), "percent", "50 %"),
            ("group", text("a_b.py"), "", "a_b.py"),
        ] {
            let evidence = Evidence { fact: name.to_owned(), value, unit: unit.to_owned() };
            assert_eq!(fact(&evidence), (name.to_owned(), vec![shown.to_owned()]));
        }
        let list = EvidenceValue::List((0..10).map(|at| at.to_string()).collect());
        let evidence = Evidence { fact: "pids".to_owned(), value: list, unit: String::new() };
        assert_eq!(fact(&evidence).1, ["0", "1", "2", "3", "4", "5", "6", "7", "and 2 more"]);
    }
}
