//! Thresholds. Each detector declares its own with their defaults and bounds; the user may set any of them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ignore::Ignore;
use super::{DETECTORS, limit_pressure};
use crate::finding::Kind;
use crate::glob::Glob;
use crate::rules::Matcher;

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

/// What the user set of detectors: kinds switched on or off, and thresholds. What is not in it stays as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Changes {
    enabled: BTreeMap<Kind, bool>,
    values: BTreeMap<(Kind, &'static str), u32>,
}

impl Changes {
    /// Whether nothing is changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.enabled.is_empty() && self.values.is_empty()
    }

    /// Wants findings of this kind, or not.
    pub fn enable(&mut self, kind: Kind, enabled: bool) {
        self.enabled.insert(kind, enabled);
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

    /// Whether something of this kind is changed.
    pub(super) fn concern(&self, kind: Kind) -> bool {
        self.enabled.contains_key(&kind) || self.values.keys().any(|(of, _)| *of == kind)
    }

    /// Those of some kinds.
    pub(super) fn only(&self, wanted: impl Fn(Kind) -> bool) -> Self {
        Self {
            enabled: self.enabled.iter().filter(|(kind, _)| wanted(**kind)).map(|(kind, on)| (*kind, *on)).collect(),
            values: self
                .values
                .iter()
                .filter(|((kind, _), _)| wanted(*kind))
                .map(|(key, value)| (*key, *value))
                .collect(),
        }
    }

    pub(super) fn overlay(&mut self, over: &Self) {
        self.enabled.extend(&over.enabled);
        self.values.extend(&over.values);
    }
}

/// What the changes of a [`Scope`] are for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Of {
    /// An endpoint.
    Endpoint(Matcher),
    /// Launcher groups with such a label.
    Group(Glob),
}

/// Changes for some endpoints or launcher groups alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// For whom.
    pub of: Of,
    /// What is different there.
    pub changes: Changes,
}

/// What the user set, over the defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Settings", into = "Settings")]
pub struct DetectConfig {
    /// Smallest time scale.
    pub window: Duration,
    everywhere: Changes,
    /// The first that says something counts: groups before endpoints, of groups the later, of endpoints the most specific.
    pub(super) scopes: Vec<Scope>,
    /// Findings that are not told.
    pub ignores: Vec<Ignore>,
}

impl Default for DetectConfig {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(10),
            everywhere: Changes::default(),
            scopes: Vec::new(),
            ignores: Vec::new(),
        }
    }
}

impl DetectConfig {
    /// Whether findings of this kind are wanted, unless an endpoint or a launcher group says otherwise.
    #[must_use]
    pub fn is_enabled(&self, kind: Kind) -> bool {
        self.everywhere.enabled.get(&kind).copied().unwrap_or(true)
    }

    /// For somebody to whom these apply.
    pub(super) fn with(&self, changes: &Changes) -> Self {
        let mut config =
            Self { window: self.window, everywhere: self.everywhere.clone(), scopes: Vec::new(), ignores: Vec::new() };
        config.change(changes);
        config
    }

    /// Wants findings of this kind, or not.
    pub fn enable(&mut self, kind: Kind, enabled: bool) {
        self.everywhere.enable(kind, enabled);
    }

    /// The value of a threshold of this kind, unless an endpoint or a launcher group says otherwise.
    #[must_use]
    pub fn get(&self, kind: Kind, threshold: &Threshold) -> u32 {
        self.everywhere.values.get(&(kind, threshold.key)).copied().unwrap_or(threshold.default)
    }

    /// The same as a time, for a threshold in seconds.
    #[must_use]
    pub fn time(&self, kind: Kind, threshold: &Threshold) -> Duration {
        Duration::from_secs(u64::from(self.get(kind, threshold)))
    }

    /// Sets a threshold by its name.
    pub fn set(&mut self, kind: Kind, key: &str, value: i64) -> Result<(), SettingError> {
        self.everywhere.set(kind, key, value)
    }

    /// Lays changes over what holds everywhere.
    pub fn change(&mut self, changes: &Changes) {
        self.everywhere.overlay(changes);
    }

    /// Takes changes for endpoints and launcher groups, in the order in which they were said, in place of earlier ones.
    pub fn set_scopes(&mut self, mut scopes: Vec<Scope>) {
        scopes.reverse();
        scopes.sort_by_key(|scope| match &scope.of {
            Of::Group(_) => (0, (0, 0)),
            Of::Endpoint(matcher) => (1, matcher.breadth()),
        });
        self.scopes = scopes;
    }

    /// What no single value shows, everywhere; an error says which two do not fit together.
    pub fn check(&self) -> Result<(), String> {
        self.check_with(&Changes::default())
    }

    /// The same with changes for an endpoint or a launcher group.
    pub fn check_with(&self, changes: &Changes) -> Result<(), String> {
        let all = self.with(changes);
        let (warn, critical) = limit_pressure::percents(|threshold| all.get(Kind::LimitPressure, threshold));
        if warn >= critical {
            return Err(format!(
                "detect.limit_pressure.warn_percent is {warn} and critical_percent is {critical}: the first must be \
                 below the second"
            ));
        }
        Ok(())
    }
}

/// Changes, as a recording keeps them: names instead of what this version knows by them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptChanges {
    /// Kinds that were switched on or off.
    pub enabled: Vec<(String, bool)>,
    /// Values, by kind and key.
    pub values: Vec<(String, String, u32)>,
}

/// What the user set, as a recording keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Smallest time scale.
    pub window: Duration,
    /// For every endpoint and launcher group.
    pub everywhere: KeptChanges,
    /// For some of them, the first that says something counts.
    pub scopes: Vec<(Of, KeptChanges)>,
    /// Findings that were not told.
    pub ignores: Vec<Ignore>,
}

impl From<&Changes> for KeptChanges {
    fn from(changes: &Changes) -> Self {
        let values = changes.values.iter();
        Self {
            enabled: changes.enabled.iter().map(|(kind, enabled)| (kind.name().to_owned(), *enabled)).collect(),
            values: values.map(|((kind, key), value)| (kind.name().to_owned(), (*key).to_owned(), *value)).collect(),
        }
    }
}

/// A kind or a threshold that this version does not have, or would refuse, is left out.
impl From<&KeptChanges> for Changes {
    fn from(kept: &KeptChanges) -> Self {
        let mut changes = Self::default();
        for (kind, enabled) in &kept.enabled {
            changes.enabled.extend(Kind::from_name(kind).map(|kind| (kind, *enabled)));
        }
        for (kind, key, value) in &kept.values {
            // Refused is what has no meaning here.
            let _refused = Kind::from_name(kind).map(|kind| changes.set(kind, key, i64::from(*value)));
        }
        changes
    }
}

impl DetectConfig {
    /// As a recording keeps it.
    #[must_use]
    pub fn settings(&self) -> Settings {
        let scopes = self.scopes.iter().map(|scope| (scope.of.clone(), (&scope.changes).into()));
        Settings {
            window: self.window,
            everywhere: (&self.everywhere).into(),
            scopes: scopes.collect(),
            ignores: self.ignores.clone(),
        }
    }
}

/// As it was recorded.
impl From<&Settings> for DetectConfig {
    fn from(settings: &Settings) -> Self {
        let scopes = settings.scopes.iter().map(|(of, kept)| Scope { of: of.clone(), changes: kept.into() });
        Self {
            window: settings.window,
            everywhere: (&settings.everywhere).into(),
            scopes: scopes.collect(),
            ignores: settings.ignores.clone(),
        }
    }
}

impl From<Settings> for DetectConfig {
    fn from(settings: Settings) -> Self {
        Self::from(&settings)
    }
}

impl From<DetectConfig> for Settings {
    fn from(config: DetectConfig) -> Self {
        config.settings()
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
