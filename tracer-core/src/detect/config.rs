//! Thresholds. Each detector declares its own with their defaults and bounds; the user may set any of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{DETECTORS, limit_pressure};
use crate::finding::Kind;

/// A number that the user may set: `[detect.KIND] KEY = NUMBER`.
#[derive(Debug, PartialEq, Eq)]
pub struct Threshold {
    /// Its name below the kind; the unit comes last.
    pub key: &'static str,
    /// Used unless the user says otherwise.
    pub default: u32,
    /// Smallest and largest value that make sense.
    pub bounds: (u32, u32),
    /// What it means, one sentence.
    pub meaning: &'static str,
}

/// Why a setting was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// The kind has no such number.
    #[error("unknown key `{key}`: {kind} has {known}", kind = .kind.name())]
    UnknownKey {
        /// Of which kind.
        kind: Kind,
        /// What was given.
        key: String,
        /// What there is.
        known: String,
    },
    /// Beyond the bounds.
    #[error("{key} is {value}: it must be from {min} to {max}")]
    OutOfBounds {
        /// Which.
        key: &'static str,
        /// What was given.
        value: i64,
        /// Smallest.
        min: u32,
        /// Largest.
        max: u32,
    },
}

/// What the user set, over the defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetectConfig {
    /// Smallest time scale.
    pub window: Duration,
    disabled: BTreeSet<Kind>,
    /// Values other than the default, by kind and key.
    values: BTreeMap<(Kind, &'static str), u32>,
}

impl Default for DetectConfig {
    fn default() -> Self {
        Self { window: Duration::from_secs(10), disabled: BTreeSet::new(), values: BTreeMap::new() }
    }
}

impl DetectConfig {
    /// Whether findings of this kind are wanted.
    #[must_use]
    pub fn is_enabled(&self, kind: Kind) -> bool {
        !self.disabled.contains(&kind)
    }

    /// Wants findings of this kind, or not.
    pub fn enable(&mut self, kind: Kind, enabled: bool) {
        if enabled {
            self.disabled.remove(&kind);
        } else {
            self.disabled.insert(kind);
        }
    }

    /// The value of a threshold of this kind.
    #[must_use]
    pub fn get(&self, kind: Kind, threshold: &Threshold) -> u32 {
        self.values.get(&(kind, threshold.key)).copied().unwrap_or(threshold.default)
    }

    /// The same as a time, for a threshold in seconds.
    #[must_use]
    pub fn time(&self, kind: Kind, threshold: &Threshold) -> Duration {
        Duration::from_secs(u64::from(self.get(kind, threshold)))
    }

    /// Sets a threshold by its name.
    pub fn set(&mut self, kind: Kind, key: &str, value: i64) -> Result<(), SettingError> {
        let thresholds = thresholds(kind);
        let Some(threshold) = thresholds.iter().find(|threshold| threshold.key == key) else {
            let names = std::iter::once("`enabled`".to_owned());
            let known: Vec<String> = names.chain(thresholds.iter().map(|known| format!("`{}`", known.key))).collect();
            return Err(SettingError::UnknownKey { kind, key: key.to_owned(), known: known.join(", ") });
        };
        let (min, max) = threshold.bounds;
        match u32::try_from(value) {
            Ok(value) if (min..=max).contains(&value) => {
                self.values.insert((kind, threshold.key), value);
                Ok(())
            }
            _ => Err(SettingError::OutOfBounds { key: threshold.key, value, min, max }),
        }
    }
}

impl DetectConfig {
    /// What no single value shows; an error says which two do not fit together.
    pub fn check(&self) -> Result<(), String> {
        let (warn, critical) = limit_pressure::percents(self);
        if warn >= critical {
            return Err(format!(
                "detect.limit_pressure.warn_percent is {warn} and critical_percent is {critical}: the first must be \
                 below the second"
            ));
        }
        Ok(())
    }
}

/// What the user set, as a recording keeps it: names instead of what this version knows by them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Smallest time scale.
    pub window: Duration,
    /// Kinds that were switched off.
    pub disabled: Vec<String>,
    /// Values other than the default, by kind and key.
    pub values: Vec<(String, String, u32)>,
}

impl DetectConfig {
    /// As a recording keeps it.
    #[must_use]
    pub fn settings(&self) -> Settings {
        let values = self.values.iter().map(|((kind, key), value)| (kind.name().to_owned(), (*key).to_owned(), *value));
        let disabled = self.disabled.iter().map(|kind| kind.name().to_owned());
        Settings { window: self.window, disabled: disabled.collect(), values: values.collect() }
    }
}

/// As it was recorded; a kind or a threshold that this version does not have, or would refuse, is at its default.
impl From<&Settings> for DetectConfig {
    fn from(settings: &Settings) -> Self {
        let mut config = Self { window: settings.window, ..Self::default() };
        config.disabled = settings.disabled.iter().filter_map(|kind| Kind::from_name(kind)).collect();
        for (kind, key, value) in &settings.values {
            // Refused is what has no meaning here.
            let _refused = Kind::from_name(kind).map(|kind| config.set(kind, key, i64::from(*value)));
        }
        config
    }
}

/// The thresholds of a kind.
#[must_use]
pub fn thresholds(kind: Kind) -> &'static [Threshold] {
    DETECTORS.into_iter().find(|detector| detector.kind() == kind).map_or(&[], |detector| detector.thresholds())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_within_its_bounds_and_has_a_meaning() {
        for kind in Kind::ALL {
            for threshold in thresholds(kind) {
                let (min, max) = threshold.bounds;
                assert!((min..=max).contains(&threshold.default), "{kind:?} {threshold:?}");
                assert!(threshold.meaning.ends_with('.') && threshold.key != "enabled", "{kind:?} {threshold:?}");
            }
        }
    }

    #[test]
    fn values_are_set_by_name_within_bounds() {
        let mut config = DetectConfig::default();
        let kind = Kind::CloseWaitLeak;
        let after = &thresholds(kind)[0];
        assert_eq!(config.time(kind, after), Duration::from_secs(60));
        config.set(kind, "after_s", 5).unwrap();
        assert_eq!(config.get(kind, after), 5);
        assert_eq!(config.set(kind, "after_s", 0).unwrap_err().to_string(), "after_s is 0: it must be from 1 to 86400");
        assert_eq!(
            config.set(kind, "before_s", 1).unwrap_err().to_string(),
            "unknown key `before_s`: close_wait_leak has `enabled`, `after_s`"
        );
        assert!(config.is_enabled(kind));
        config.enable(kind, false);
        assert!(!config.is_enabled(kind) && config.is_enabled(Kind::LimitPressure));
    }
}
