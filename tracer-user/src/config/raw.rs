//! The shape of the TOML, every value optional and with its place in the text. An unknown key is an error.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

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

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Detect {
    pub window_s: Option<Spanned<i64>>,
    pub limit_pressure: LimitPressure,
    pub close_wait_leak: CloseWaitLeak,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LimitPressure {
    pub enabled: Option<bool>,
    pub warn_percent: Option<Spanned<i64>>,
    pub critical_percent: Option<Spanned<i64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct CloseWaitLeak {
    pub enabled: Option<bool>,
    pub after_s: Option<Spanned<i64>>,
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

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Cmdline {
    Off,
    Redacted,
}
