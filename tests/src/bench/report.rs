//! What is told.

use std::path::Path;

use anyhow::{Context, Result};

use super::figures::{Report, spread};

/// Prints every figure, and writes what is asked for.
pub fn publish(report: &Report, _write: bool, json: Option<&Path>) -> Result<()> {
    for (name, figure) in report.figures() {
        if let Some(told) = spread(&figure.samples) {
            println!(
                "{name:<60} {:>12.3} {:<24} {:.3}..{:.3} n={}",
                told.median, figure.unit, told.min, told.max, told.n
            );
        }
    }
    if let Some(path) = json {
        std::fs::write(path, format!("{:#}\n", report.json())).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}
