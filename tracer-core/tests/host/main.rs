//! The tracker against a simulated host, a million events and more: processes, connections and descriptors come and go,
//! tuples, pids and kernel addresses are reused at once, looks at the socket table are not atomic, and events are lost,
//! repeated, held back and late. `SOCKLIFE_SEED=N` runs other seeds, `SOCKLIFE_ROUNDS=N` more of them.
#![expect(clippy::unwrap_used, reason = "the model panics where it cannot count")]

mod kernel;
mod life;
mod pipe;
mod rng;
mod world;

use life::Telling;
use pipe::Faults;
use world::{Failure, Profile, World};

const STEPS: usize = 4_000;
const ALL: usize = 16_384;
/// Everything is told as it happens.
const EAGER: Telling = Telling { openings: true, states: 1_000, accepts: 1_000, map_full: 0 };
/// Short lives are told by their end alone, others by reading the map of owners.
const LAZY: Telling = Telling { openings: false, states: 0, accepts: 0, map_full: 0 };
const MIXED: Telling = Telling { openings: false, states: 500, accepts: 1_000, map_full: 0 };
const NONE: Faults = Faults { lose: 0, lose_end: 0, burst: 0, duplicate: 0, reorder: 0, late: 0, miss_row: 0 };
const REPEATED: Faults = Faults { duplicate: 50, miss_row: 20, ..NONE };
const HARMLESS: Faults = Faults { duplicate: 50, reorder: 100, miss_row: 20, ..NONE };

const PROFILES: &[Profile] = &[
    Profile { name: "eager", telling: EAGER, faults: NONE, tombstones: ALL },
    Profile { name: "lazy", telling: LAZY, faults: NONE, tombstones: ALL },
    Profile { name: "mixed", telling: MIXED, faults: NONE, tombstones: ALL },
    Profile { name: "eager, repeated", telling: EAGER, faults: REPEATED, tombstones: ALL },
    Profile { name: "lazy, repeated", telling: LAZY, faults: REPEATED, tombstones: ALL },
    Profile { name: "mixed, repeated", telling: MIXED, faults: REPEATED, tombstones: ALL },
    Profile { name: "eager, harmless", telling: EAGER, faults: HARMLESS, tombstones: ALL },
    Profile { name: "lazy, harmless", telling: LAZY, faults: HARMLESS, tombstones: ALL },
    Profile { name: "mixed, harmless", telling: MIXED, faults: HARMLESS, tombstones: ALL },
    Profile { name: "eager, ends lost", telling: EAGER, faults: Faults { lose_end: 100, ..NONE }, tombstones: ALL },
    Profile { name: "eager, 2 % lost", telling: EAGER, faults: Faults { lose: 20, ..HARMLESS }, tombstones: ALL },
    Profile { name: "eager, half lost", telling: EAGER, faults: Faults { lose: 500, ..NONE }, tombstones: ALL },
    Profile { name: "eager, bursts", telling: EAGER, faults: Faults { burst: 5, ..HARMLESS }, tombstones: ALL },
    Profile { name: "lazy, 5 % lost", telling: LAZY, faults: Faults { lose: 50, ..HARMLESS }, tombstones: ALL },
    Profile {
        name: "mixed, bursts",
        telling: MIXED,
        faults: Faults { burst: 5, lose: 10, ..HARMLESS },
        tombstones: ALL,
    },
    Profile { name: "eager, late", telling: EAGER, faults: Faults { late: 30, ..HARMLESS }, tombstones: ALL },
    Profile { name: "mixed, late", telling: MIXED, faults: Faults { late: 30, ..HARMLESS }, tombstones: ALL },
    Profile {
        name: "everything",
        telling: Telling { map_full: 30, ..EAGER },
        faults: Faults { lose: 30, lose_end: 50, burst: 2, late: 20, ..HARMLESS },
        tombstones: ALL,
    },
    Profile {
        name: "everything, lazily",
        telling: Telling { map_full: 30, ..MIXED },
        faults: Faults { lose: 30, lose_end: 50, burst: 2, late: 20, ..HARMLESS },
        tombstones: ALL,
    },
    Profile { name: "short memory", telling: EAGER, faults: HARMLESS, tombstones: 40 },
    Profile { name: "short memory, 2 % lost", telling: EAGER, faults: Faults { lose: 20, ..HARMLESS }, tombstones: 40 },
];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

fn run(profile: &Profile, seed: u64, steps: usize, keep_story: bool) -> Result<u64, Failure> {
    let mut world = World::new(*profile, seed);
    world.run(steps, keep_story).map(|()| world.events)
}

/// The shortest run among many that goes wrong, or that one, with what led to it.
fn explain(profile: &Profile, seed: u64) -> String {
    let short = (1..=40).flat_map(|steps| (0..60).map(move |seed| (steps * 10, seed)));
    let all = short.chain([(STEPS, seed)]);
    let found = all.into_iter().find_map(|(steps, seed)| Some((steps, seed, run(profile, seed, steps, true).err()?)));
    let Some((steps, seed, failure)) = found else { return "not again".to_owned() };
    format!("{} with seed {seed}, {steps} steps: {}\n  {}", profile.name, failure.what, failure.story.join("\n  "))
}

#[test]
fn a_million_events_with_faults() {
    let first = number("SOCKLIFE_SEED").unwrap_or(1);
    let rounds = number("SOCKLIFE_ROUNDS").unwrap_or(ROUNDS);
    let only = std::env::var("SOCKLIFE_PROFILE").ok();
    let mut events = 0;
    for seed in first..first + rounds {
        for profile in PROFILES.iter().filter(|profile| only.as_deref().is_none_or(|only| only == profile.name)) {
            match run(profile, seed, STEPS, false) {
                Ok(run) => events += run,
                Err(failure) => panic!("seed {seed}: {}\n{}", failure.what, explain(profile, seed)),
            }
        }
    }
    println!("{events} events");
    assert!(only.is_some() || events >= rounds * 1_000_000 / ROUNDS, "{events} events");
}

/// Rounds that make a million events.
const ROUNDS: u64 = 24;
