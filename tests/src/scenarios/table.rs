//! What came of the scenarios, for people and for programs.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::Scenario;
use super::lab::Shown;
use super::verdicts::Verdicts;

/// What was found, compared with what had to be.
#[derive(Debug, Default)]
struct Judged {
    expected: Vec<String>,
    found: Vec<String>,
    missed: Vec<String>,
    /// Kind and summary of what must not have been found.
    wrong: Vec<(String, String)>,
}

impl Judged {
    fn new(expected: Vec<String>, also: &[&str], seen: &Verdicts) -> Self {
        let is_true = |kind: &String| expected.contains(kind) || also.contains(&kind.as_str());
        let found = seen.kinds();
        let wrong = seen.findings.iter().filter(|((kind, _), _)| !is_true(kind));
        Self {
            missed: expected.iter().filter(|kind| !found.contains(kind)).cloned().collect(),
            wrong: wrong.map(|((kind, _), line)| (kind.clone(), summary(line))).collect(),
            expected,
            found,
        }
    }

    fn is_right(&self) -> bool {
        self.missed.is_empty() && self.wrong.is_empty()
    }

    fn json(&self) -> Value {
        let wrong: Vec<Value> = self.wrong.iter().map(|(kind, says)| json!({"kind": kind, "says": says})).collect();
        json!({"expected": self.expected, "found": self.found, "missed": self.missed, "wrong": wrong})
    }

    /// What went wrong, a line each.
    fn complaints(&self, when: &str) -> String {
        let missed = self.missed.iter().map(|kind| format!("  missed{when}: {kind}\n"));
        let wrong = self.wrong.iter().map(|(kind, says)| format!("  must not be found{when}: {kind}: {says}\n"));
        missed.chain(wrong).collect()
    }
}

/// Seconds from being true to its line, and within how many it is wanted.
#[derive(Debug)]
struct Wait {
    kind: String,
    seconds: f64,
    within: Option<u32>,
}

impl Wait {
    fn is_late(&self) -> bool {
        self.within.is_some_and(|within| self.seconds > f64::from(within))
    }
}

/// What came of one scenario.
#[derive(Debug)]
pub struct Outcome {
    name: &'static str,
    live: Judged,
    replayed: Judged,
    times: u32,
    /// Why something is not expected of the replay, or allowed there.
    notes: Vec<String>,
    waits: Vec<Wait>,
    error: Option<String>,
    took: Duration,
}

impl Outcome {
    pub(super) fn new(scenario: &Scenario, played: Result<Shown>, took: Duration) -> Self {
        let (shown, error) = match played {
            Ok(shown) => (Some(shown), None),
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        let stretched = &scenario.stretched;
        let expected: Vec<String> = scenario.expected.iter().map(|kind| (*kind).to_owned()).collect();
        let hides = |kind: &String| stretched.hidden.iter().any(|(hidden, _)| hidden == kind);
        let visible = expected.iter().filter(|kind| !hides(kind)).cloned().collect();
        // What is hidden is true all the same.
        let all = stretched.hidden.iter().chain(stretched.made);
        let also: Vec<&str> = scenario.also.iter().copied().chain(all.map(|(kind, _)| *kind)).collect();
        let notes = stretched.hidden.iter().map(|(kind, why)| format!("{kind} is not to be had: {why}"));
        let why = Some(stretched.why).filter(|why| !why.is_empty());
        let why = why.map(|why| match stretched.times {
            1 => format!("not stretched: {why}"),
            times => format!("no more than {times} times: {why}"),
        });
        let made = stretched.made.iter().map(|(kind, why)| format!("{kind} is true: {why}"));
        let within = |kind: &str| scenario.within.iter().find(|(known, _)| *known == kind).map(|(_, within)| *within);
        let waits = shown.iter().flat_map(|shown| &shown.live.seconds);
        Self {
            name: scenario.name,
            waits: waits
                .map(|(kind, seconds)| Wait { kind: kind.clone(), seconds: *seconds, within: within(kind) })
                .collect(),
            live: match &shown {
                Some(shown) => Judged::new(expected, scenario.also, &shown.live),
                None => Judged { expected, ..Judged::default() },
            },
            replayed: shown.as_ref().map(|shown| Judged::new(visible, &also, &shown.replayed)).unwrap_or_default(),
            times: stretched.times,
            notes: why.into_iter().chain(notes).chain(made).collect(),
            error,
            took,
        }
    }

    /// Everything that had to be found was, and nothing else, live and in the replay.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.error.is_none() && self.live.is_right() && self.replayed.is_right()
    }

    /// One line for programs.
    #[must_use]
    pub fn line(&self) -> Value {
        let waits = self.waits.iter().map(|wait| (wait.kind.clone(), json!(tenths(wait.seconds))));
        let waits: serde_json::Map<String, Value> = waits.collect();
        let late: Vec<&str> = self.waits.iter().filter(|wait| wait.is_late()).map(|wait| wait.kind.as_str()).collect();
        let mut line = self.live.json();
        let mut replayed = self.replayed.json();
        replayed["times"] = json!(self.times);
        replayed["notes"] = json!(self.notes);
        for (key, value) in [
            ("scenario", json!(self.name)),
            ("right", json!(self.is_right())),
            ("seconds_to_verdict", json!(waits)),
            ("late", json!(late)),
            ("replayed", replayed),
            ("error", json!(self.error)),
            ("seconds", json!(self.took.as_secs())),
        ] {
            line[key] = value;
        }
        line
    }
}

fn summary(line: &Value) -> String {
    line["summary"].as_str().unwrap_or_default().to_owned()
}

fn tenths(seconds: f64) -> f64 {
    (seconds * 10.0).round() / 10.0
}

/// What was found while they played, then in their recordings, and below it what went wrong.
#[must_use]
pub fn table(outcomes: &[Outcome]) -> String {
    let mut rows = vec![["scenario", "expected", "found", "seconds to verdict", "false findings"].map(str::to_owned)];
    rows.extend(outcomes.iter().map(live_row));
    let mut text = aligned(&rows);
    text.push_str("\nTheir recordings, replayed with default settings and time stretched:\n\n");
    let mut rows = vec![["scenario", "stretched", "expected", "found", "false findings"].map(str::to_owned)];
    rows.extend(outcomes.iter().filter(|outcome| outcome.error.is_none()).map(replayed_row));
    text.push_str(&aligned(&rows));
    let mut notes: Vec<String> = outcomes
        .iter()
        .flat_map(|outcome| outcome.notes.iter().map(move |note| format!("  {}: {note}\n", outcome.name)))
        .collect();
    notes.sort_unstable();
    notes.dedup();
    if !notes.is_empty() {
        text.push_str("\nWhat stretching changes:\n");
        text.extend(notes);
    }
    for outcome in outcomes.iter().filter(|outcome| !outcome.is_right()) {
        let complaints = [outcome.live.complaints(""), outcome.replayed.complaints(" in the replay")].concat();
        let error = outcome.error.iter().map(|error| format!("  {}\n", error.replace('\n', "\n  ")));
        let _infallible = write!(text, "\n{}:\n{complaints}{}", outcome.name, error.collect::<String>());
    }
    let right = outcomes.iter().filter(|outcome| outcome.is_right()).count();
    let late = outcomes.iter().flat_map(|outcome| &outcome.waits).filter(|wait| wait.is_late()).count();
    if late > 0 {
        let _infallible = write!(text, "\n{late} verdicts later than wanted\n");
    }
    let _infallible = write!(text, "\n{right} of {} scenarios right\n", outcomes.len());
    text
}

fn live_row(outcome: &Outcome) -> [String; 5] {
    let wait = |wait: &Wait| {
        let within = wait.within.map(|within| format!(" of {within}")).unwrap_or_default();
        format!("{:.1}{within}{}", wait.seconds, if wait.is_late() { " LATE" } else { "" })
    };
    let waits: Vec<String> = outcome.waits.iter().map(wait).collect();
    let found = if outcome.error.is_some() { "failed, see below".to_owned() } else { list(&outcome.live.found) };
    let (expected, wrong) = (list(&outcome.live.expected), outcome.live.wrong.len().to_string());
    [outcome.name.to_owned(), expected, found, waits.join(", "), wrong]
}

fn replayed_row(outcome: &Outcome) -> [String; 5] {
    let Judged { expected, found, wrong, .. } = &outcome.replayed;
    let wrong = wrong.len().to_string();
    [outcome.name.to_owned(), format!("x {}", outcome.times), list(expected), list(found), wrong]
}

fn list(kinds: &[String]) -> String {
    if kinds.is_empty() { "nothing".to_owned() } else { kinds.join(", ") }
}

/// Rows with their columns one below the other.
fn aligned(rows: &[[String; 5]]) -> String {
    let widths: [usize; 5] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let cell = |(text, width): (&String, usize)| format!("{text:<width$}  ");
    let line = |row: &[String; 5]| row.iter().zip(widths).map(cell).collect::<String>().trim_end().to_owned() + "\n";
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Stretched;
    use super::*;

    const SCENARIO: Scenario = Scenario {
        name: "stairs",
        expected: &["connection_leak", "client_per_request"],
        also: &["idle_hold"],
        within: &[("connection_leak", 60)],
        stretched: Stretched { hidden: &[("client_per_request", "it takes an hour")], ..Stretched::PLAIN },
        ..Scenario::PLAIN
    };

    fn seen(kinds: &[&str]) -> Verdicts {
        let mut seen = Verdicts::default();
        for kind in kinds {
            let line = json!({"kind": kind, "id": "1", "change": "opened", "summary": "so it is"});
            seen.take(std::time::Instant::now(), &line);
        }
        seen
    }

    fn outcome(live: &[&str], replayed: &[&str]) -> Outcome {
        let shown = Shown { live: seen(live), replayed: seen(replayed) };
        Outcome::new(&SCENARIO, Ok(shown), Duration::from_secs(3))
    }

    #[test]
    fn what_is_hidden_from_a_replay_has_to_be_found_live() {
        let all = ["connection_leak", "client_per_request"];
        assert!(outcome(&all, &["connection_leak", "idle_hold"]).is_right());
        assert!(outcome(&all, &all).is_right());
        assert!(!outcome(&all, &["client_per_request"]).is_right());
        assert!(!outcome(&["connection_leak"], &all).is_right());
        assert!(!outcome(&all, &["connection_leak", "pool_sprawl"]).is_right());
    }

    #[test]
    fn the_table_says_what_went_wrong_and_what_was_late() {
        let mut wrong = outcome(&["connection_leak", "pool_sprawl"], &[]);
        wrong.waits = vec![Wait { kind: "connection_leak".to_owned(), seconds: 61.26, within: Some(60) }];
        let text = table(&[wrong]);
        for words in [
            "61.3 of 60 LATE",
            "must not be found: pool_sprawl: so it is",
            "missed: client_per_request",
            "missed in the replay: connection_leak",
            "client_per_request is not to be had: it takes an hour",
            "\n1 verdicts later than wanted\n",
            "\n0 of 1 scenarios right\n",
        ] {
            assert!(text.contains(words), "{words:?} is not in\n{text}");
        }
    }
}
