//! Time as values: kernel boot time measures, wall time is only shown.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
        Self(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// This moment minus `by`; the boot itself if that lies before it.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
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
        match jiff::Timestamp::from_millisecond(self.unix_ms) {
            Ok(at) => write!(f, "{at:.3}"),
            Err(_) => f.write_str("9999-12-31T23:59:59.999Z"),
        }
    }
}

impl From<WallTime> for String {
    fn from(at: WallTime) -> Self {
        at.to_string()
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

    #[test]
    fn boot_time_saturates() {
        assert_eq!(BootNs(5).since(BootNs(9)), Duration::ZERO);
        assert_eq!(BootNs(5).minus(Duration::from_secs(1)), BootNs(0));
        assert_eq!(BootNs(u64::MAX).plus(Duration::from_secs(1)), BootNs(u64::MAX));
    }
}
