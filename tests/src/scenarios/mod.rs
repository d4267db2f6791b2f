//! The incident lab: real drivers against real servers, each incident with its healthy twin. What socklife finds in each
//! is compared with what it has to find, and nothing else.
//!
//! Time is compressed by configuration (`window_s`, `after_s` of the kinds): a scenario lasts seconds.

mod command;
mod healthy;
mod incidents;
pub(crate) mod lab;
mod servers;
mod table;

pub use command::run;
pub use lab::Lab;
pub use table::{Outcome, table};

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use anyhow::{Result, anyhow};

/// What a scenario has to show.
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// One sentence: what happens.
    pub story: &'static str,
    /// Kinds that must be found; anything else is a false finding, except for those in `also`.
    pub expected: &'static [&'static str],
    /// Kinds that are true here as well, and need not be found.
    pub also: &'static [&'static str],
    /// What `socklife run` is told besides [`lab::COMPRESSED`].
    pub settings: &'static [&'static str],
    /// Plays it.
    pub play: fn(&mut Lab) -> Result<()>,
}

/// Every scenario, incidents first.
#[must_use]
pub fn all() -> Vec<&'static Scenario> {
    incidents::ALL.iter().chain(healthy::ALL).collect()
}

/// Plays one; what came of it, whatever went wrong.
#[must_use]
pub fn perform(scenario: &Scenario) -> Outcome {
    let began = Instant::now();
    let played = catch_unwind(AssertUnwindSafe(|| play(scenario)));
    let played = played.unwrap_or_else(|_| Err(anyhow!("it panicked")));
    Outcome::new(scenario, played, began.elapsed())
}

fn play(scenario: &Scenario) -> Result<lab::Seen> {
    let mut lab = Lab::enter(scenario)?;
    let played = (scenario.play)(&mut lab);
    lab.finish(played)
}
