//! Time as values: kernel boot time measures, wall time is only shown.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

/// Nanoseconds of the kernel's boot-time clock (`CLOCK_BOOTTIME`: counts through suspend, never steps).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BootNs(pub u64);

impl BootNs {
    /// Time since `earlier`; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// This moment plus `by`, saturating.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(ns(by)))
    }

    /// This moment minus `by`; the boot itself if that lies before it.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(ns(by)))
    }
}

/// A length of time as the clock counts it: where thousands of moments are compared, numbers are.
pub(crate) fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// One moment seen on both clocks, taken when something is shown: a stepped wall clock moves the display, never a
/// measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WallAnchor {
    /// The moment in boot time.
    pub boot: BootNs,
    /// The same moment in nanoseconds since 1970-01-01 UTC.
    pub unix_ns: i64,
}

impl WallAnchor {
    /// `at` as wall time.
    #[must_use]
    pub fn wall(&self, at: BootNs) -> WallTime {
        let offset = i128::from(at.0) - i128::from(self.boot.0);
        let unix_ms = (i128::from(self.unix_ns) + offset).div_euclid(1_000_000);
        WallTime { unix_ms: i64::try_from(unix_ms).unwrap_or(i64::MAX) }
    }
}

/// Wall time for people and JSON: RFC 3339, UTC, milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct WallTime {
    /// Milliseconds since 1970-01-01 UTC.
    pub unix_ms: i64,
}

impl JsonSchema for WallTime {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "WallTime".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "date-time" })
    }
}

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(text) = self.digits() {
            return f.write_str(str::from_utf8(&text).map_err(|_| fmt::Error)?);
        }
        match jiff::Timestamp::from_millisecond(self.unix_ms) {
            Ok(at) => write!(f, "{at:.3}"),
            Err(_) => f.write_str("9999-12-31T23:59:59.999Z"),
        }
    }
}

impl Serialize for WallTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.digits() {
            Some(text) => serializer.serialize_str(str::from_utf8(&text).map_err(serde::ser::Error::custom)?),
            None => serializer.collect_str(self),
        }
    }
}

/// Milliseconds of a day, of 400 years, and from 0000-03-01 to 1970-01-01.
const DAY_MS: u64 = 86_400_000;
const ERA_DAYS: u64 = 146_097;
const EPOCH_DAYS: u64 = 719_468;

impl WallTime {
    /// The text of a moment from 1970 to 9999, without a calendar's library: every line of a tail has one. Days are
    /// counted from March, so that leap days come last (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms",
    /// `civil_from_days`).
    fn digits(self) -> Option<[u8; 24]> {
        // Where that library ends: a time zone's offset before the year 10000.
        const END: u64 = 253_402_207_200_000;
        let ms = u64::try_from(self.unix_ms).ok().filter(|ms| *ms < END)?;
        let (days, of_day) = (ms / DAY_MS + EPOCH_DAYS, ms % DAY_MS);
        let (era, day) = (days / ERA_DAYS, days % ERA_DAYS);
        // 4 years are 1,461 days, a century 36,524, an era one day more than 4 centuries.
        let year = (day - day / 1_460 + day / 36_524 - day / (ERA_DAYS - 1)) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        // From March on, five months in a row have 153 days.
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        let mut text = *b"0000-00-00T00:00:00.000Z";
        put(&mut text[0..4], 400 * era + year + next);
        put(&mut text[5..7], month);
        put(&mut text[8..10], day);
        put(&mut text[11..13], of_day / 3_600_000);
        put(&mut text[14..16], of_day / 60_000 % 60);
        put(&mut text[17..19], of_day / 1_000 % 60);
        put(&mut text[20..23], of_day % 1_000);
        Some(text)
    }
}

/// The last digits of a number, as many as there is room for.
fn put(room: &mut [u8], mut number: u64) {
    for place in room.iter_mut().rev() {
        *place = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

impl TryFrom<String> for WallTime {
    type Error = jiff::Error;

    fn try_from(text: String) -> Result<Self, jiff::Error> {
        text.parse::<jiff::Timestamp>().map(|at| Self { unix_ms: at.as_millisecond() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_is_rfc_3339_with_milliseconds() {
        let anchor = WallAnchor { boot: BootNs(5_000_000_000), unix_ns: 1_795_232_015_250_000_000 };
        assert_eq!(anchor.wall(BootNs(5_000_000_000)).to_string(), "2026-11-21T03:33:35.250Z");
        assert_eq!(anchor.wall(BootNs(0)).to_string(), "2026-11-21T03:33:30.250Z");
        let text = serde_json::to_string(&anchor.wall(BootNs(6_000_000_000))).unwrap();
        assert_eq!(text, "\"2026-11-21T03:33:36.250Z\"");
        assert_eq!(serde_json::from_str::<WallTime>(&text).unwrap(), anchor.wall(BootNs(6_000_000_000)));
    }

    fn as_jiff_writes_it(unix_ms: i64) {
        let at = WallTime { unix_ms };
        let expected = match jiff::Timestamp::from_millisecond(unix_ms) {
            Ok(at) => format!("{at:.3}"),
            Err(_) => "9999-12-31T23:59:59.999Z".to_owned(),
        };
        assert_eq!(at.to_string(), expected, "{unix_ms}");
        assert_eq!(serde_json::to_string(&at).unwrap(), format!("\"{expected}\""), "{unix_ms}");
    }

    #[test]
    fn every_day_has_the_calendars_name() {
        // A whole round of 400 years, then month by month.
        for day in (0..147_000).chain((147_000..2_932_897).step_by(31)) {
            as_jiff_writes_it(day * 86_400_000);
        }
        for edge in
            [i64::MIN, -86_400_000, -1, 0, 999, 253_402_207_199_999, 253_402_207_200_000, 253_402_207_200_001, i64::MAX]
        {
            as_jiff_writes_it(edge);
        }
    }

    proptest::proptest! {
        #[test]
        fn wall_time_is_what_a_calendar_says(near in -1_000_000_000_000_i64..300_000_000_000_000, any: i64) {
            as_jiff_writes_it(near);
            as_jiff_writes_it(any);
        }
    }

    #[test]
    fn boot_time_saturates() {
        assert_eq!(BootNs(5).since(BootNs(9)), Duration::ZERO);
        assert_eq!(BootNs(5).minus(Duration::from_secs(1)), BootNs(0));
        assert_eq!(BootNs(u64::MAX).plus(Duration::from_secs(1)), BootNs(u64::MAX));
    }
}
