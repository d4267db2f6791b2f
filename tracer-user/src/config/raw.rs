//! The shape of the TOML, every value optional and with its place in the text. An unknown key is an error.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use toml::Spanned;
use tracer_core::finding::Kind;

/// A whole file, or one `--set`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Raw {
    pub capture: Capture,
    pub inventory: Inventory,
    pub detect: Detect,
    pub endpoint: Vec<Spanned<Endpoint>>,
    pub privacy: Privacy,
    pub api: Api,
    pub history: History,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Capture {
    pub ring_bytes: Option<Spanned<i64>>,
    pub map_entries: Option<Spanned<i64>>,
    pub btf: Option<Spanned<String>>,
    pub recognize: Option<bool>,
    pub hooks: Option<Spanned<toml::Value>>,
    pub ports: BTreeMap<Spanned<String>, Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Inventory {
    pub reconcile_s: Option<Spanned<i64>>,
    pub namespaces: Option<bool>,
}

/// `window_s`, and a table for each kind of finding.
#[derive(Debug, Default)]
pub(super) struct Detect {
    pub window_s: Option<Spanned<i64>>,
    pub kinds: Vec<(Kind, Settings)>,
}

/// `enabled` and thresholds by name.
pub(super) type Settings = BTreeMap<Spanned<String>, Spanned<toml::Value>>;

impl<'de> Deserialize<'de> for Detect {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Table;

        impl<'de> Visitor<'de> for Table {
            type Value = Detect;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Detect, A::Error> {
                let mut detect = Detect::default();
                while let Some(key) = map.next_key::<String>()? {
                    match (key.as_str(), Kind::from_name(&key)) {
                        ("window_s", _) => detect.window_s = Some(map.next_value()?),
                        (_, Some(kind)) => detect.kinds.push((kind, map.next_value()?)),
                        (_, None) => {
                            let known = "expected `window_s` or a kind of finding";
                            return Err(A::Error::custom(format!("unknown field `{key}`, {known}")));
                        }
                    }
                }
                Ok(detect)
            }
        }

        deserializer.deserialize_map(Table)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Endpoint {
    #[serde(rename = "match")]
    pub matches: Spanned<String>,
    pub name: Option<Spanned<String>>,
    pub limit: Option<Spanned<i64>>,
    pub database: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Privacy {
    pub cmdline: Option<Cmdline>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Api {
    pub socket: Option<Spanned<String>>,
    pub group: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct History {
    pub dir: Option<Spanned<String>>,
    pub max_age_s: Option<Spanned<i64>>,
    pub max_bytes: Option<Spanned<i64>>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Cmdline {
    Off,
    Redacted,
}
