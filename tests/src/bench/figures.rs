//! Numbers of many rounds and what is told of them: the median, and between which values the rounds lay.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// Every figure measured, by name.
#[derive(Default)]
pub struct Report {
    figures: BTreeMap<String, Figure>,
}

/// One figure.
pub struct Figure {
    /// What its numbers are in.
    pub unit: &'static str,
    /// A number of each round, in the rounds' order.
    pub samples: Vec<f64>,
}

/// What is told of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Half of the rounds lie below, half above.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// Rounds.
    pub n: usize,
}

impl Report {
    /// Adds a round's number to a figure. Names are paths such as `load/reset/socklife/connections_per_s`.
    pub fn add(&mut self, name: impl Into<String>, unit: &'static str, number: f64) {
        let figure = self.figures.entry(name.into()).or_insert_with(|| Figure { unit, samples: Vec::new() });
        figure.samples.push(number);
    }

    /// A figure's rounds.
    pub fn samples(&self, name: &str) -> Result<&[f64]> {
        let figure = self.figures.get(name).with_context(|| format!("{name} was not measured"))?;
        Ok(&figure.samples)
    }

    /// A figure, if it was measured.
    pub fn spread(&self, name: &str) -> Option<Spread> {
        self.figures.get(name).and_then(|figure| spread(&figure.samples))
    }

    /// All figures, by name.
    pub fn figures(&self) -> impl Iterator<Item = (&str, &Figure)> {
        self.figures.iter().map(|(name, figure)| (name.as_str(), figure))
    }

    /// A figure whose rounds are those of two others, put together pair by pair.
    pub fn pair(&mut self, name: &str, unit: &'static str, of: [&str; 2], put: impl Fn(f64, f64) -> f64) -> Result<()> {
        let (left, right) = (self.samples(of[0])?, self.samples(of[1])?);
        ensure!(left.len() == right.len(), "{} and {} have different numbers of rounds", of[0], of[1]);
        let pairs: Vec<f64> = left.iter().zip(right).map(|(left, right)| put(*left, *right)).collect();
        pairs.into_iter().for_each(|number| self.add(name, unit, number));
        Ok(())
    }

    /// Everything, as docs/benchmarks.json has it.
    pub fn json(&self) -> Value {
        let figures: serde_json::Map<String, Value> = self
            .figures()
            .filter_map(|(name, figure)| {
                let Spread { median, min, max, n } = spread(&figure.samples)?;
                let samples: Vec<f64> = figure.samples.iter().map(|number| rounded(*number)).collect();
                let told = json!({ "unit": figure.unit, "median": rounded(median), "min": rounded(min),
                    "max": rounded(max), "n": n, "samples": samples });
                Some((name.to_owned(), told))
            })
            .collect();
        Value::Object(figures)
    }
}

/// `None` without any number.
pub fn spread(samples: &[f64]) -> Option<Spread> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    let (min, max) = (*sorted.first()?, *sorted.last()?);
    let median = f64::midpoint(*sorted.get((n - 1) / 2)?, *sorted.get(n / 2)?);
    Some(Spread { median, min, max, n })
}

/// The smallest number that so many percent of all do not exceed; `None` without any number.
pub fn percentile(samples: &[f64], percent: f64) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

/// Four digits are more than any of these numbers is good for.
fn rounded(number: f64) -> f64 {
    format!("{number:.3e}").parse().unwrap_or(number)
}

/// A number in a JSON answer.
pub fn number(value: &Value, pointer: &str) -> Result<f64> {
    value.pointer(pointer).and_then(Value::as_f64).with_context(|| format!("no number {pointer} in {value}"))
}

/// Puts the variants of each round into another order, the same on every run.
pub struct Shuffle(u64);

impl Shuffle {
    /// With a fixed seed.
    pub fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    /// Fisher and Yates, with Marsaglia's xorshift.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u64 + 1) as usize;
            items.swap(last, other);
        }
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_or_between_the_two_in_the_middle() {
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0, n: 3 }));
        assert_eq!(spread(&[4.0, 1.0, 2.0, 8.0]), Some(Spread { median: 3.0, min: 1.0, max: 8.0, n: 4 }));
    }

    #[test]
    fn a_percentile_is_one_of_the_numbers() {
        let samples: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        let at = |percent| percentile(&samples, percent).unwrap();
        assert_eq!([at(0.0), at(50.0), at(99.0), at(100.0)], [1.0, 100.0, 198.0, 200.0]);
        assert_eq!(percentile(&[], 50.0), None);
    }

    #[test]
    fn pairs_are_of_the_same_round() {
        let mut report = Report::default();
        for (with, without) in [(8.0, 10.0), (3.0, 4.0)] {
            report.add("with", "per s", with);
            report.add("without", "per s", without);
        }
        report.pair("ratio", "of off", ["with", "without"], |with, without| with / without).unwrap();
        assert_eq!(report.samples("ratio").unwrap(), [0.8, 0.75]);
        report.add("with", "per s", 1.0);
        assert!(report.pair("ratio", "of off", ["with", "without"], |with, _| with).is_err());
        assert!(report.samples("nothing").is_err());
    }

    #[test]
    fn a_shuffle_keeps_everything() {
        let mut items: Vec<u32> = (0..6).collect();
        let mut shuffle = Shuffle::new();
        let mut orders = std::collections::BTreeSet::new();
        for _ in 0..20 {
            shuffle.shuffle(&mut items);
            orders.insert(items.clone());
        }
        assert!(orders.len() > 10, "{orders:?}");
        items.sort_unstable();
        assert_eq!(items, (0..6).collect::<Vec<_>>());
    }
}
