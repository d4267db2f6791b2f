//! A limit that nobody told, inferred from where an endpoint turned clients away. A wrong limit is worse than none, so all
//! of this must be true, of what this host's own clients saw within a day:
//!
//! - twice, the database took clients and hung up on them, three and more in a row, at the same number of open connections;
//! - it never did at a smaller number: what is turned away for a wrong password is turned away at any;
//! - in between the number fell, and rose to the same again: below it clients got through;
//! - it was never more.

use std::time::Duration;

use super::{Endpoint, Spell};
use crate::event::Role;
use crate::snapshot::{Limit, LimitSource};
use crate::time::BootNs;

/// Older spells tell nothing of today.
const KEPT: Duration = Duration::from_secs(24 * 3_600);
/// Hang-ups that make a spell count.
const HANG_UPS: u32 = 3;
/// No limit is inferred that is smaller.
const LEAST: u32 = 8;

/// The limit of a client's endpoint, if it shows.
pub(super) fn limit(endpoint: &Endpoint, now: BootNs) -> Option<Limit> {
    if endpoint.role != Role::Client || endpoint.spells.len() < 2 {
        return None;
    }
    let lately = || endpoint.spells.iter().filter(|spell| now.since(spell.until) <= KEPT);
    let height = lately().map(|spell| spell.low).min()?;
    // One more or less, or 2 %: clients that are on their way out.
    let near = (height / 50).max(1);
    let mut tops = lately().filter(|spell| spell.hang_ups >= HANG_UPS);
    let (first, last) = (tops.next()?, tops.next_back()?);
    let is_one = height >= LEAST && lately().all(|spell| spell.low - height <= near);
    let well_below = height.saturating_sub((height / 20).max(2));
    let fell = lately().any(|spell| spell.from > first.from && spell.from <= last.from && spell.fell_to <= well_below);
    (is_one && fell && !was_more(endpoint, first, height + near, now))
        .then_some(Limit { value: lately().map(|spell| spell.low).max()?, source: LimitSource::Inferred })
}

fn was_more(endpoint: &Endpoint, first: &Spell, most: u32, now: BootNs) -> bool {
    let (_, open) = endpoint.series.open_within(now.since(first.from), now);
    // Those that are turned away are open for a moment.
    let slack = (most / 20).max(2);
    endpoint.open > most + slack || open.iter().any(|open| *open > most + slack)
}
