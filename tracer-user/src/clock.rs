//! The two clocks: the kernel's boot time, which measures, and the wall clock, which is only shown. The one place
//! that reads them; everything else is handed a value.

use nix::time::{ClockId, clock_gettime};
use tracer_core::time::{BootNs, WallAnchor};

/// Now, on the kernel's boot-time clock (`CLOCK_BOOTTIME`).
#[must_use]
pub fn boot_clock() -> BootNs {
    BootNs(u64::try_from(read(ClockId::CLOCK_BOOTTIME)).unwrap_or(0))
}

/// The same moment on both clocks. The wall clock is read between two readings of boot time and belongs to their
/// middle; of three tries the one with the closest readings wins, so being scheduled away in between does no harm.
#[must_use]
pub fn wall_anchor() -> WallAnchor {
    let one = || {
        let before = boot_clock();
        let unix_ns = read(ClockId::CLOCK_REALTIME);
        let gap = boot_clock().0.saturating_sub(before.0);
        (gap, WallAnchor { boot: BootNs(before.0 + gap / 2), unix_ns })
    };
    let (mut gap, mut anchor) = one();
    for _ in 0..2 {
        let (next_gap, next) = one();
        if next_gap < gap {
            (gap, anchor) = (next_gap, next);
        }
    }
    anchor
}

/// Nanoseconds of `clock`. Both clocks exist since Linux 2.6.39 and the call has no other way to fail.
fn read(clock: ClockId) -> i64 {
    clock_gettime(clock).map_or(0, |time| time.tv_sec().saturating_mul(1_000_000_000).saturating_add(time.tv_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_time_never_steps_back_and_the_anchor_lies_between_two_readings() {
        let before = boot_clock();
        let anchor = wall_anchor();
        let after = boot_clock();
        assert!(before.0 > 0 && before <= anchor.boot && anchor.boot <= after);
        let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(anchor.wall(anchor.boot).unix_ms / 60_000, i64::try_from(since_1970.as_millis()).unwrap() / 60_000);
    }
}
