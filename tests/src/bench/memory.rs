//! Memory of the daemon.

use anyhow::{Context, Result};

/// Proportional set size of a process, in KiB (Documentation/filesystems/proc.rst).
pub fn pss_kib(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).with_context(|| format!("no Pss in {path}"))?;
    let number = line.split_whitespace().next().with_context(|| format!("no number in {line:?}"))?;
    number.parse().with_context(|| format!("not a number: {number:?}"))
}
