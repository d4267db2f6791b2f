//! The incident lab: real drivers against real servers, each incident with its healthy twin. What socklife finds in each
//! is compared with what it has to find, and nothing else: once while it plays, and once more when its recording is
//! replayed with the default settings and time stretched to hours.
//!
//! Most play in compressed time, by configuration (`window_s`, `after_s` of the kinds), and last seconds. Some play with
//! the defaults: they say how long a user waits.

mod cgroup;
mod command;
mod defaults;
mod healthy;
mod incidents;
pub(crate) mod lab;
mod servers;
mod stretch;
mod table;
mod verdicts;

pub use command::run;
pub use lab::Lab;
pub use table::{Outcome, table};

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
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
    /// With what settings it plays.
    pub pace: Pace,
    /// What `socklife run` is told besides.
    pub settings: &'static [&'static str],
    /// Within how many seconds of being true a kind is wanted.
    pub within: &'static [(&'static str, u32)],
    /// What its recording shows.
    pub stretched: Stretched,
    /// Plays it.
    pub play: fn(&mut Lab) -> Result<()>,
}

/// With what settings a scenario plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// A window of a second instead of ten, and what is counted in minutes counted in seconds.
    Compressed,
    /// Nothing is set: what users have.
    Default,
}

/// What a recording shows with the default settings, replayed as if it had lasted hours.
#[derive(Clone, Copy, Debug)]
pub struct Stretched {
    /// So many times as long.
    pub times: u32,
    /// Why that is less than for most.
    pub why: &'static str,
    /// Kinds that cannot be found then, and why.
    pub hidden: &'static [(&'static str, &'static str)],
    /// Kinds that become true then, and why.
    pub made: &'static [(&'static str, &'static str)],
}

impl Stretched {
    /// A second becomes six minutes: what is expected is expected here too.
    const PLAIN: Self = Self { times: 360, why: "", hidden: &[], made: &[] };
}

impl Scenario {
    /// What most have in common.
    pub(crate) const PLAIN: Self = Self {
        name: "",
        story: "",
        expected: &[],
        also: &[],
        pace: Pace::Compressed,
        settings: &[],
        within: &[],
        stretched: Stretched::PLAIN,
        play: |_| Ok(()),
    };
}

/// Every scenario: what takes longest first, then the incidents, then their twins.
#[must_use]
pub fn all() -> Vec<&'static Scenario> {
    defaults::ALL.iter().chain(incidents::ALL).chain(healthy::ALL).collect()
}

/// Plays each of them so many times, `lanes` at a time, and calls `done` with what came of each; all in their order.
///
/// They do not see each other: each has a network namespace, a directory and a daemon of its own. What they share is the
/// machine, which is what a daemon has to bear.
pub fn perform_all(
    scenarios: &[&Scenario],
    (rounds, lanes): (u32, u32),
    recordings: Option<&Path>,
    done: impl Fn(&Outcome) + Sync,
) -> Vec<Outcome> {
    let all = (1..=rounds).flat_map(|round| scenarios.iter().map(move |scenario| (round, *scenario)));
    let queue: Mutex<VecDeque<_>> = Mutex::new(all.enumerate().collect());
    let outcomes = Mutex::new(Vec::new());
    let lane = || {
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some((number, (round, scenario))) = next else { return };
            eprintln!("round {round}: {}: {}", scenario.name, scenario.story);
            let outcome = perform(scenario, recordings);
            done(&outcome);
            outcomes.lock().unwrap_or_else(PoisonError::into_inner).push((number, outcome));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..lanes {
            scope.spawn(lane);
        }
    });
    let mut outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
    outcomes.sort_by_key(|(number, _)| *number);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

/// Plays one; what came of it, whatever went wrong.
fn perform(scenario: &Scenario, recordings: Option<&Path>) -> Outcome {
    let began = Instant::now();
    let played = catch_unwind(AssertUnwindSafe(|| play(scenario, recordings)));
    let played = played.unwrap_or_else(|_| Err(anyhow!("it panicked")));
    Outcome::new(scenario, played, began.elapsed())
}

fn play(scenario: &Scenario, recordings: Option<&Path>) -> Result<lab::Shown> {
    let mut lab = Lab::enter(scenario)?;
    let played = (scenario.play)(&mut lab);
    lab.finish(played, scenario, recordings)
}
