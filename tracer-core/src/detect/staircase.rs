//! An account's course over whole steps at every scale of time, and whether it climbs without coming back. Knows marks
//! and counts; who is behind them and what that means is for the detectors to say.

use std::time::Duration;

use crate::history::{History, SCALES, Step};
use crate::time::{BootNs, ns};

/// Scales of a course: those of a history, and hours made of its coarsest steps.
pub(super) const COURSES: usize = SCALES.len() + 1;
/// Steps of the history's coarsest scale in one of ours.
const MERGED: usize = 6;
/// From so many steps on a climb may have flat steps and small dips: noise of a busy pool beneath it.
pub(super) const LONG: usize = 8;
/// What came before a climb is looked at for so many times its length: a count that only returns to where it was is no
/// climb.
const LOOK_BACK: usize = 3;

/// Whole steps, oldest first.
pub(super) struct Course {
    /// How long each is.
    pub step: Duration,
    /// When the last one ended.
    pub end: BootNs,
    /// The steps.
    pub steps: Vec<Step>,
}

/// How a course rose over its last steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Climb {
    /// Low-water mark of the first step.
    pub from: u32,
    /// Of the last.
    pub to: u32,
    /// Rise of what was open and not used: what more use explains is taken off.
    pub unused: f64,
}

/// How long a step of that scale is.
pub(super) fn step_of(window: Duration, scale: usize) -> Duration {
    let merged = if scale < SCALES.len() { 1 } else { MERGED };
    let windows = SCALES.get(scale.min(SCALES.len() - 1)).map_or(1, |(windows, _)| *windows);
    window.saturating_mul(windows).saturating_mul(u32::try_from(merged).unwrap_or(1))
}

/// How often connections were used again since then, at least: each look that saw one used counts it once, and where
/// looks are not kept one by one each step does. By the finest scale that has the time.
pub(super) fn reuses_since(history: &History, from: BootNs) -> u64 {
    let (mut uses, mut until) = (0, None::<BootNs>);
    for scale in 0..SCALES.len() {
        let length = ns(history.step(scale));
        let is_new =
            |began: BootNs| began >= from && until.is_none_or(|until| began.0.saturating_add(length) <= until.0);
        let mut oldest = until;
        for (began, step) in history.kept(scale).filter(|(began, _)| is_new(*began)) {
            uses += u64::from(step.reused);
            oldest = Some(oldest.map_or(began, |oldest| oldest.min(began)));
        }
        until = oldest;
    }
    uses
}

/// The whole steps of a history at a scale; `open` is the count now.
pub(super) fn course(history: &History, scale: usize, now: BootNs, open: u32) -> Course {
    let kept = scale.min(SCALES.len() - 1);
    let fine = history.step(kept);
    let fine_ns = u64::try_from(fine.as_nanos()).unwrap_or(u64::MAX).max(1);
    let current = now.0 / fine_ns;
    let mut steps = history.steps(kept, now, open, usize::MAX);
    if scale < SCALES.len() {
        return Course { step: fine, end: BootNs(current * fine_ns), steps };
    }
    let merged = u64::try_from(MERGED).unwrap_or(1);
    let surplus = usize::try_from(current % merged).unwrap_or(0);
    steps.truncate(steps.len().saturating_sub(surplus));
    let mut hours: Vec<Step> = steps.rchunks_exact(MERGED).map(merge).collect();
    hours.reverse();
    let step = fine.saturating_mul(u32::try_from(MERGED).unwrap_or(1));
    Course { step, end: BootNs(current / merged * merged * fine_ns), steps: hours }
}

fn merge(steps: &[Step]) -> Step {
    let mut all = steps.iter().copied();
    let first = all.next().unwrap_or_default();
    all.fold(first, |sum, step| Step {
        low: sum.low.min(step.low),
        high: sum.high.max(step.high),
        opened: sum.opened.saturating_add(step.opened),
        closed: sum.closed.saturating_add(step.closed),
        looks: sum.looks.saturating_add(step.looks),
        in_use: sum.in_use.max(step.in_use),
        in_use_sum: sum.in_use_sum.saturating_add(step.in_use_sum),
        used: sum.used.max(step.used),
        reused: sum.reused.max(step.reused),
    })
}

/// How the last `count` steps climb; `None` if they do not: a short course must rise in every step, a long one may dip by
/// a quarter of its rise, in its low-water marks or in what is left of them when what was used is taken off; and it must
/// end well above where it has been before.
pub(super) fn climb(steps: &[Step], count: usize) -> Option<Climb> {
    let start = steps.len().checked_sub(count)?;
    let (before, last) = steps.split_at(start);
    let lows: Vec<f64> = last.iter().map(|step| f64::from(step.low)).collect();
    let idle: Vec<f64> = last.iter().map(idle).collect();
    let used: Vec<f64> = last.iter().map(|step| f64::from(step.used)).collect();
    let (first, end) = (last.first()?, last.last()?);
    let rise = lows.last()? - lows.first()?;
    let steady = if count < LONG {
        lows.windows(2).all(|pair| pair[0] < pair[1])
    } else {
        rise > 0.0 && deepest_dip(&lows) * 4.0 <= rise
    };
    let by_marks = rise - growth(&used).max(0.0);
    let by_idle = growth(&idle);
    let idle_steady = count >= LONG && by_idle > 0.0 && deepest_dip(&idle) * 4.0 <= by_idle;
    let unused = match (steady, idle_steady) {
        // In an evening less is used: that makes no connection more.
        (true, _) => by_marks,
        (false, true) => by_idle,
        (false, false) => return None,
    };
    let older = &before[before.len().saturating_sub(count * LOOK_BACK)..];
    let was = older.iter().map(self::idle).chain([idle[0]]).fold(f64::MIN, f64::max);
    let quarter = idle.len().div_ceil(4);
    let is = mean(&idle[idle.len() - quarter..]).max(*idle.last()?);
    (unused > 0.0 && (is - was) * 2.0 >= unused).then_some(Climb { from: first.low, to: end.low, unused })
}

/// Open all through a step and not used in it.
fn idle(step: &Step) -> f64 {
    f64::from(step.low) - f64::from(step.used)
}

/// By how much a noisy course grew from its beginning to its end: twice the difference of its halves' means.
pub(super) fn growth(values: &[f64]) -> f64 {
    let half = values.len() / 2;
    2.0 * (mean(&values[values.len() - half..]) - mean(&values[..half]))
}

pub(super) fn mean(values: &[f64]) -> f64 {
    let count = u32::try_from(values.len()).unwrap_or(u32::MAX).max(1);
    values.iter().sum::<f64>() / f64::from(count)
}

/// The most that a course fell below an earlier value.
fn deepest_dip(values: &[f64]) -> f64 {
    let mut top = f64::MIN;
    values.iter().fold(0.0, |deepest: f64, value| {
        top = top.max(*value);
        deepest.max(top - value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(low: u32, used: u32) -> Step {
        Step { low, high: low, looks: 1, used, ..Step::default() }
    }

    fn unused(course: &[(u32, u32)], count: usize) -> Option<u32> {
        let steps: Vec<Step> = course.iter().map(|(low, used)| step(*low, *used)).collect();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small positive numbers")]
        climb(&steps, count).map(|climb| climb.unused.round() as u32)
    }

    #[test]
    fn a_short_course_climbs_if_every_step_rises() {
        assert_eq!(unused(&[(5, 1), (10, 1), (15, 1), (20, 1)], 4), Some(15));
        assert_eq!(unused(&[(5, 1), (10, 1), (10, 1), (20, 1)], 4), None);
        assert_eq!(unused(&[(5, 1), (10, 1), (15, 1)], 4), None);
        assert_eq!(unused(&[(5, 5), (10, 10), (15, 15), (20, 20)], 4), None, "all of them are used");
    }

    #[test]
    fn a_long_course_may_rest_and_dip_a_little() {
        let rests: Vec<(u32, u32)> = [5, 7, 7, 9, 11, 10, 13, 15].map(|low| (low, 2)).to_vec();
        assert_eq!(unused(&rests, 8), Some(10));
        let dips: Vec<(u32, u32)> = [5, 7, 7, 9, 15, 9, 13, 15].map(|low| (low, 2)).to_vec();
        assert_eq!(unused(&dips, 8), None);
        let busy: Vec<(u32, u32)> =
            [(30, 20), (29, 18), (26, 14), (24, 11), (24, 10), (25, 10), (25, 9), (26, 9)].to_vec();
        assert!(unused(&busy, 8).is_some_and(|unused| unused >= 7), "{:?}", unused(&busy, 8));
    }

    #[test]
    fn coming_back_to_where_it_was_is_no_climb() {
        let mut course = vec![(20, 2); 10];
        course.extend([(0, 2), (5, 2), (10, 2), (15, 2), (18, 2)]);
        assert_eq!(unused(&course, 5), None);
    }

    #[test]
    fn hours_are_made_of_whole_steps() {
        let (window, minute) = (Duration::from_secs(10), 60_000_000_000);
        let mut history = History::new(window, BootNs(0));
        for minutes in 0..200 {
            history.opened(BootNs(minutes * minute), u32::try_from(minutes).unwrap());
        }
        let hours = course(&history, 3, BootNs(200 * minute), 200);
        assert_eq!(
            hours.steps.iter().map(|step| (step.low, step.opened)).collect::<Vec<_>>(),
            [(0, 60), (60, 60), (120, 60)]
        );
        assert_eq!((hours.end, hours.step), (BootNs(180 * minute), step_of(window, 3)));
    }
}
