//! What came of the scenarios, for people and for programs.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::Scenario;
use super::lab::Seen;

/// What came of one scenario.
#[derive(Debug)]
pub struct Outcome {
    name: &'static str,
    expected: Vec<String>,
    found: Vec<String>,
    missed: Vec<String>,
    /// Kind and summary of what must not have been found.
    wrong: Vec<(String, String)>,
    /// Kind and seconds from being true to its line.
    verdicts: Vec<(String, f64)>,
    error: Option<String>,
    took: Duration,
}

impl Outcome {
    pub(super) fn new(scenario: &Scenario, played: Result<Seen>, took: Duration) -> Self {
        let (seen, error) = match played {
            Ok(seen) => (seen, None),
            Err(error) => (Seen::default(), Some(format!("{error:#}"))),
        };
        let expected: Vec<String> = scenario.expected.iter().map(|kind| (*kind).to_owned()).collect();
        let is_true = |kind: &String| expected.contains(kind) || scenario.also.contains(&kind.as_str());
        let mut found: Vec<String> = seen.findings.keys().map(|(kind, _)| kind.clone()).collect();
        found.dedup();
        let wrong = seen.findings.iter().filter(|((kind, _), _)| !is_true(kind));
        Self {
            name: scenario.name,
            missed: expected.iter().filter(|kind| !found.contains(kind)).cloned().collect(),
            wrong: wrong.map(|((kind, _), line)| (kind.clone(), summary(line))).collect(),
            verdicts: seen.verdicts.into_iter().collect(),
            expected,
            found,
            error,
            took,
        }
    }

    /// Everything that had to be found was, and nothing else.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.error.is_none() && self.missed.is_empty() && self.wrong.is_empty()
    }

    /// One line for programs.
    #[must_use]
    pub fn line(&self) -> Value {
        let wrong: Vec<Value> = self.wrong.iter().map(|(kind, says)| json!({"kind": kind, "says": says})).collect();
        let verdicts: serde_json::Map<String, Value> =
            self.verdicts.iter().map(|(kind, seconds)| (kind.clone(), json!(tenths(*seconds)))).collect();
        json!({
            "scenario": self.name, "right": self.is_right(), "expected": self.expected, "found": self.found,
            "missed": self.missed, "wrong": wrong, "seconds_to_verdict": verdicts, "error": self.error,
            "seconds": self.took.as_secs(),
        })
    }
}

fn summary(line: &Value) -> String {
    line["summary"].as_str().unwrap_or_default().to_owned()
}

fn tenths(seconds: f64) -> f64 {
    (seconds * 10.0).round() / 10.0
}

/// The table, and below it what went wrong.
#[must_use]
pub fn table(outcomes: &[Outcome]) -> String {
    let mut text = format!(
        "{:<26} {:<44} {:<44} {:<24} {}\n",
        "scenario", "expected", "found", "seconds to verdict", "false findings"
    );
    for outcome in outcomes {
        let verdicts: Vec<String> = outcome.verdicts.iter().map(|(_, seconds)| format!("{seconds:.1}")).collect();
        let list = |kinds: &[String]| if kinds.is_empty() { "nothing".to_owned() } else { kinds.join(", ") };
        let found = if outcome.error.is_some() { "failed, see below".to_owned() } else { list(&outcome.found) };
        text.push_str(&format!(
            "{:<26} {:<44} {:<44} {:<24} {}\n",
            outcome.name,
            list(&outcome.expected),
            found,
            verdicts.join(", "),
            outcome.wrong.len()
        ));
    }
    for outcome in outcomes.iter().filter(|outcome| !outcome.is_right()) {
        text.push_str(&format!("\n{}:\n", outcome.name));
        if !outcome.missed.is_empty() {
            text.push_str(&format!("  missed: {}\n", outcome.missed.join(", ")));
        }
        for (kind, says) in &outcome.wrong {
            text.push_str(&format!("  must not be found: {kind}: {says}\n"));
        }
        if let Some(error) = &outcome.error {
            text.push_str(&format!("  {}\n", error.replace('\n', "\n  ")));
        }
    }
    let right = outcomes.iter().filter(|outcome| outcome.is_right()).count();
    text.push_str(&format!("\n{right} of {} scenarios right\n", outcomes.len()));
    text
}
