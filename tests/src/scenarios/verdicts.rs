//! What lines about findings say, put together: by kind and finding, and how long after it was true.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::Value;

/// Findings, and when the first of each kind came.
#[derive(Debug, Default)]
pub struct Verdicts {
    /// The last line of each finding, by kind and id.
    pub findings: BTreeMap<(String, String), Value>,
    /// Seconds from the moment a kind was true to its line.
    pub seconds: BTreeMap<String, f64>,
    true_since: BTreeMap<String, Instant>,
}

impl Verdicts {
    /// From now on this kind is true, if it was not before: the time to its verdict counts from here.
    pub fn is_true(&mut self, kind: &str) {
        self.true_since.entry(kind.to_owned()).or_insert_with(Instant::now);
    }

    /// Takes in a line that came then. What is not about a finding is passed over.
    pub fn take(&mut self, at: Instant, line: &Value) {
        let word = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        let (kind, id) = (word("kind"), word("id"));
        if kind.is_empty() {
            return;
        }
        if line["change"] == "opened"
            && let Some(since) = self.true_since.get(&kind)
        {
            let seconds = at.saturating_duration_since(*since).as_secs_f64();
            self.seconds.entry(kind.clone()).or_insert(seconds);
        }
        self.findings.insert((kind, id), line.clone());
    }

    /// The kinds that were found, each once.
    pub fn kinds(&self) -> Vec<String> {
        let mut kinds: Vec<String> = self.findings.keys().map(|(kind, _)| kind.clone()).collect();
        kinds.dedup();
        kinds
    }

    /// Everything that was found, a line each.
    pub fn lines(&self) -> String {
        let lines: Vec<String> = self.findings.values().map(ToString::to_string).collect();
        lines.join("\n")
    }
}
