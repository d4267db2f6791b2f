//! How fast the machine is that the suite runs on: what may take how long, and how large a load is.
//!
//! `SOCKLIFE_TEST_SLOWER=10` says that it is ten times slower than a developer's, as a machine emulated in software is:
//! loads are divided by that and patience is multiplied. What is asserted stays the same.

use std::sync::OnceLock;
use std::time::Duration;

/// The environment's say.
const SLOWER: &str = "SOCKLIFE_TEST_SLOWER";
/// Patience has a bound on any machine.
const MOST: u32 = 100;

/// How long anything may take that is expected to happen. Generous: a loaded machine is slow, not wrong.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long anything may take on this machine that is expected to happen.
pub fn patience() -> Duration {
    PATIENCE * slower()
}

/// How many of `count` of anything this machine can do in the time a developer's does all.
pub fn load(count: u64) -> u64 {
    count / u64::from(slower())
}

fn slower() -> u32 {
    static FACTOR: OnceLock<u32> = OnceLock::new();
    *FACTOR.get_or_init(|| factor(std::env::var(SLOWER).ok().as_deref()))
}

/// A value that means nothing would be taken for a fast machine, in silence: the suite stops instead.
#[expect(clippy::panic, reason = "a suite that misreads what it was told must not go on and call that a result")]
fn factor(said: Option<&str>) -> u32 {
    let Some(said) = said else { return 1 };
    let factor = said.parse().ok().filter(|factor| (1..=MOST).contains(factor));
    factor.unwrap_or_else(|| panic!("{SLOWER}={said} is not a number from 1 to {MOST}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_number_slows_the_suite_down() {
        assert_eq!(factor(None), 1);
        assert_eq!(factor(Some("10")), 10);
        for wrong in ["0", "101", "-1", "", "fast"] {
            assert!(std::panic::catch_unwind(|| factor(Some(wrong))).is_err(), "{wrong:?} was taken");
        }
    }
}
