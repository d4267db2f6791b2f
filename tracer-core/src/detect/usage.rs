//! How many of an account's connections were needed at once, between two bounds: what looks caught in use is the lower
//! one, what moved a byte between two looks the upper one.

use crate::finding::{Evidence, EvidenceValue};
use crate::history::{History, SCALES};
use crate::time::BootNs;

/// Over the steps that began since some moment, the current one included.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Usage {
    /// Looks at the socket table, as far as they are kept one scale at a time.
    pub looks: u32,
    /// Mean in use at these looks; 0 without one.
    pub mean: f64,
    /// Most caught in use at one look.
    pub in_use: u32,
    /// Most that were used between two looks, logins left out; never below `in_use`.
    pub used: u32,
    /// Fewest open.
    pub low: u32,
    /// Most open.
    pub high: u32,
}

impl Usage {
    /// Of the account's history since `from`, with `open` as of now.
    pub fn since(from: BootNs, history: &History, open: u32) -> Self {
        let mut usage = Self { low: open, high: open, ..Self::default() };
        for scale in 0..SCALES.len() {
            let (mut looks, mut sum) = (0u32, 0u64);
            for (_, step) in history.kept(scale).filter(|(began, _)| *began >= from) {
                looks = looks.saturating_add(step.looks);
                sum += u64::from(step.in_use_sum);
                usage.in_use = usage.in_use.max(step.in_use);
                usage.used = usage.used.max(step.reused);
                usage.low = usage.low.min(step.low);
                usage.high = usage.high.max(step.high);
            }
            // The scale that has seen the most of it gives the mean.
            if looks > usage.looks {
                #[expect(clippy::cast_precision_loss, reason = "connections added up over a day of looks")]
                let mean = sum as f64 / f64::from(looks);
                (usage.looks, usage.mean) = (looks, mean);
            }
        }
        usage.used = usage.used.max(usage.in_use);
        usage
    }
}

/// A measured number as evidence, to one decimal.
pub(super) fn measure(fact: &str, value: f64, unit: &str) -> Evidence {
    let value = EvidenceValue::Number((value * 10.0).round() / 10.0);
    Evidence { fact: fact.to_owned(), value, unit: unit.to_owned() }
}
