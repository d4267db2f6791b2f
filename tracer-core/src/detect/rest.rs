//! What a pool at rest cannot look like. A pool opens a connection only while none of its members is idle, so a
//! connection that was opened while another had long been idle tells that the other is not for taking. Knows times
//! and ports; judges nothing.

use std::time::Duration;

use super::survey::Held;
use crate::time::BootNs;

/// Local ports listed as evidence.
const PORTS_LISTED: usize = 20;

/// The most of these connections that were opened one after the other, each when the one before had said its last for
/// `settle` or longer. They come oldest first. A pool that grew with load gives 1: its members were all in use when the
/// last was opened.
pub(super) fn one_after_the_other<'a>(
    oldest_first: impl DoubleEndedIterator<Item = &'a Held<'a>>,
    settle: Duration,
) -> usize {
    let mut next = None;
    let mut length = 0;
    // The longest chain of intervals without overlap, from the last to begin.
    for held in oldest_first.rev() {
        if next.is_none_or(|next| held.idle_since().plus(settle) <= next) {
            next = Some(held.began);
            length += 1;
        }
    }
    length
}

/// Local ports of the oldest of these, ascending: enough to find them with another tool.
pub(super) fn local_ports<'a>(oldest_first: impl Iterator<Item = &'a Held<'a>>) -> Vec<String> {
    let mut ports: Vec<u16> = oldest_first.take(PORTS_LISTED).map(|held| held.port).collect();
    ports.sort_unstable();
    ports.iter().map(u16::to_string).collect()
}

/// How often, in time, some connections went idle for good and others were opened at least `settle` after that. Both come
/// sorted.
pub(super) fn rounds(idle_since: &[BootNs], began: impl Iterator<Item = BootNs>, settle: Duration) -> usize {
    let (mut idle, mut rounds) = (idle_since.iter().peekable(), 0);
    for began in began {
        if idle.peek().is_some_and(|since| since.plus(settle) <= began) {
            rounds += 1;
            while idle.peek().is_some_and(|since| **since <= began) {
                idle.next();
            }
        }
    }
    rounds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_of_rest_and_then_opening() {
        let check = |idle: &[u64], began: &[u64], expected: usize| {
            let idle: Vec<BootNs> = idle.iter().map(|at| BootNs(*at)).collect();
            let began = began.iter().map(|at| BootNs(*at));
            assert_eq!(rounds(&idle, began, Duration::from_nanos(2)), expected, "{idle:?}");
        };
        check(&[], &[1, 2, 3], 0);
        check(&[10, 20, 30], &[1, 2, 3], 0);
        check(&[10, 20, 30], &[1, 11, 31], 1);
        check(&[10], &[1, 11], 0);
        check(&[10, 20, 30], &[1, 12, 22, 32], 3);
        check(&[10, 11, 12, 13], &[40, 41, 42, 43], 1);
        check(&[10, 50], &[20, 30, 40, 60, 70], 2);
    }
}
