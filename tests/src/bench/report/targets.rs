//! What must hold, as data, and whether it does.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::super::figures::{Report, percentile, spread};

/// Which of a figure's rounds is held against the bound.
#[derive(Clone, Copy, Debug)]
enum Pick {
    Median,
    /// The worst of all figures whose name begins and ends so.
    Largest,
}

#[derive(Clone, Copy, Debug)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

struct Target {
    fact: &'static str,
    /// The figure's name; for `Largest` its beginning and its end.
    figure: (&'static str, &'static str),
    pick: Pick,
    bound: Bound,
    /// Nothing against nothing: where that is spread widely, the figure says nothing.
    control: Option<&'static str>,
    unit: &'static str,
    digits: usize,
}

/// How far the middle half of the control's rounds may spread, and their median be from 1, for a ratio to be judged.
const QUIET: f64 = 0.05;
const CONTROL: Option<&str> = Some("load/reset/control");

const TARGETS: [Target; 8] = [
    Target {
        fact: "throughput with socklife, of off",
        figure: ("load/reset/socklife/kept", ""),
        pick: Pick::Median,
        bound: Bound::AtLeast(0.97),
        control: CONTROL,
        unit: "",
        digits: 3,
    },
    Target {
        fact: "throughput it costs, of what tcplife costs",
        figure: ("load/reset/socklife/cost", ""),
        pick: Pick::Median,
        bound: Bound::AtMost(0.2),
        control: CONTROL,
        unit: "",
        digits: 3,
    },
    Target {
        fact: "events lost at full speed, 1 MiB ring, worst round of any load",
        figure: ("", "/lost"),
        pick: Pick::Largest,
        bound: Bound::AtMost(0.0),
        control: None,
        unit: "",
        digits: 0,
    },
    Target {
        fact: "openings and ends not counted, worst round",
        figure: ("load/", "/uncounted"),
        pick: Pick::Largest,
        bound: Bound::AtMost(0.0),
        control: None,
        unit: "",
        digits: 0,
    },
    Target {
        fact: "CPU of the daemon a connection, a tail attached",
        figure: ("load/reset/socklife-tail/cpu", ""),
        pick: Pick::Median,
        bound: Bound::AtMost(3.0),
        control: None,
        unit: "us",
        digits: 2,
    },
    Target {
        fact: "memory a live connection, at 100,000",
        figure: ("memory/100000/each", ""),
        pick: Pick::Median,
        bound: Bound::AtMost(400.0),
        control: None,
        unit: "B",
        digits: 0,
    },
    Target {
        fact: "back-fill of 100,000 sockets with pids, of `ss -tnp`",
        figure: ("scale/100000/ready/of_ss_tnp", ""),
        pick: Pick::Median,
        bound: Bound::AtMost(0.5),
        control: None,
        unit: "",
        digits: 2,
    },
    Target {
        fact: "daemon on an idle host",
        figure: ("idle/none/cpu", ""),
        pick: Pick::Median,
        bound: Bound::AtMost(0.1),
        control: None,
        unit: "% of a core",
        digits: 3,
    },
];

/// A target and what was measured.
pub struct Verdict {
    target: &'static Target,
    /// `None` if it was not measured.
    value: Option<f64>,
    /// How far the control is from saying that nothing is as fast as nothing, where there is one.
    noise: Option<f64>,
}

/// Holds the figures against every target.
pub fn judge(report: &Report) -> Vec<Verdict> {
    let noise = |control: &str| {
        let samples = report.samples(control).ok()?;
        let spread = percentile(samples, 75.0)? - percentile(samples, 25.0)?;
        Some(spread.max((percentile(samples, 50.0)? - 1.0).abs()))
    };
    let verdict = |target| Verdict { target, value: value(report, target), noise: target.control.and_then(noise) };
    TARGETS.iter().map(verdict).collect()
}

fn value(report: &Report, target: &Target) -> Option<f64> {
    let (begin, end) = target.figure;
    match target.pick {
        Pick::Median => report.spread(begin).map(|figure| figure.median),
        Pick::Largest => report
            .figures()
            .filter(|(name, _)| name.starts_with(begin) && name.ends_with(end))
            .filter_map(|(_, figure)| spread(&figure.samples))
            .map(|figure| figure.max)
            .max_by(f64::total_cmp),
    }
}

impl Verdict {
    fn word(&self) -> &'static str {
        let Some(value) = self.value else { return "not measured" };
        if self.noise.is_some_and(|noise| noise > QUIET) {
            return "too noisy to say";
        }
        let holds = match self.target.bound {
            Bound::AtLeast(bound) => value >= bound,
            Bound::AtMost(bound) => value <= bound,
        };
        if holds { "met" } else { "missed" }
    }

    fn bound(&self) -> String {
        match self.target.bound {
            Bound::AtLeast(bound) => format!("at least {bound}"),
            Bound::AtMost(bound) => format!("at most {bound}"),
        }
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let Target { fact, unit, figure: (begin, end), .. } = self.target;
        let figure = if end.is_empty() { (*begin).to_owned() } else { format!("{begin}*{end}") };
        json!({ "fact": fact, "figure": figure, "value": self.value, "target": self.bound(), "unit": unit,
            "verdict": self.word() })
    }
}

/// A row for each target.
pub fn markdown(verdicts: &[Verdict]) -> String {
    let mut text = String::from("| what must hold | target | measured | verdict |\n|---|---|---:|---|\n");
    for verdict in verdicts {
        let Target { fact, unit, digits, .. } = verdict.target;
        let value = verdict.value.map_or_else(|| "-".to_owned(), |value| with(&format!("{value:.digits$}"), unit));
        let bound = verdict.bound();
        // Writing to a string does not fail.
        let _ = writeln!(text, "| {fact} | {} | {} | {} |", with(&bound, unit), value, verdict.word());
    }
    text
}

fn with(number: &str, unit: &str) -> String {
    format!("{number} {unit}").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(report: &Report) -> Vec<&'static str> {
        judge(report).iter().map(Verdict::word).collect()
    }

    #[test]
    fn a_target_is_met_missed_or_not_measured() {
        let mut report = Report::default();
        assert_eq!(words(&report), ["not measured"; TARGETS.len()]);
        for (name, numbers) in [
            ("load/reset/socklife/kept", &[0.9, 0.97, 0.99][..]),
            ("load/reset/socklife/cost", &[0.21]),
            ("load/fin/socklife/lost", &[0.0, 0.0]),
            ("load/reset/socklife-tail/lost", &[0.0, 1.0]),
            ("load/reset/socklife/uncounted", &[0.0]),
        ] {
            numbers.iter().for_each(|number| report.add(name, "", *number));
        }
        assert_eq!(words(&report)[..5], ["met", "missed", "missed", "met", "not measured"]);
        [0.99, 1.0, 1.01, 1.02].iter().for_each(|number| report.add("load/reset/control", "", *number));
        assert_eq!(words(&report)[..3], ["met", "missed", "missed"]);
        let table = markdown(&judge(&report));
        assert!(table.contains("| throughput with socklife, of off | at least 0.97 | 0.970 | met |"), "{table}");
        assert!(table.contains("| daemon on an idle host | at most 0.1 % of a core | - | not measured |"), "{table}");
        [0.8, 0.8, 1.2, 1.2].iter().for_each(|number| report.add("load/reset/control", "", *number));
        assert_eq!(words(&report)[..3], ["too noisy to say", "too noisy to say", "missed"]);
    }
}
