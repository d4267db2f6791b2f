//! Tables that there may be several of: `[[endpoint]]`, `[[group]]` and `[[ignore]]`.

use toml::de::{DeTable, DeValue};
use tracer_core::detect::{Changes, Ignore};
use tracer_core::finding::Kind;
use tracer_core::time::WallTime;

use super::endpoints::Whose;
use super::reader::{Reader, Value};
use super::values::{nearest, number, shown};
use super::{EndpointRule, GroupRule, IgnoreRule, keys};

impl Reader<'_, '_> {
    /// One `[[endpoint]]`.
    pub(super) fn endpoint(&mut self, value: &Value<'_>, table: &DeTable<'_>) {
        self.only_known("endpoint", table, keys::ENDPOINT);
        let name = self.text("endpoint", table, "name", |text| keys::name("name", text));
        let database = self.text("endpoint", table, "database", keys::database);
        let limit = table.get("limit").and_then(|value| {
            let given = shown(value.get_ref());
            let outcome = match value.get_ref() {
                DeValue::Integer(integer) => keys::within("endpoint.limit", &given, number(integer), 1, u32::MAX),
                _ => Err(format!("endpoint.limit is {given}: it must be a whole number")),
            };
            outcome.map_err(|why| self.mistakes.add(value.span(), why)).ok()
        });
        let detect = table.get("detect").map_or_else(Changes::default, |value| self.kinds("endpoint.detect", value));
        let Some(matches) = table.get("match") else {
            return self.mistakes.add(value.span(), "[[endpoint]] has no `match`: say which endpoints it is for");
        };
        let Some(whose) = self.text("endpoint", table, "match", Whose::parse) else { return };
        let place = self.mistakes.source.place(matches.span().start);
        let mut rules = self.config.endpoints.iter().zip(&self.places.endpoints).skip(self.before.endpoints);
        if let Some((_, first)) = rules.find(|(rule, _)| rule.whose == whose) {
            let why = format!("endpoint {} is already given in {first}", shown(matches.get_ref()));
            return self.mistakes.add(matches.span(), why);
        }
        self.config.endpoints.push(EndpointRule { whose, name, limit, database, detect });
        self.places.endpoints.push(place);
    }
}

impl Reader<'_, '_> {
    /// One `[[group]]`.
    pub(super) fn group(&mut self, value: &Value<'_>, table: &DeTable<'_>) {
        self.only_known("group", table, keys::GROUP);
        let detect = table.get("detect").map_or_else(Changes::default, |value| self.kinds("group.detect", value));
        let Some(matches) = table.get("match") else {
            return self.mistakes.add(value.span(), "[[group]] has no `match`: say which labels it is for");
        };
        let Some(label) = self.text("group", table, "match", |text| keys::glob("match", text)) else { return };
        if detect.is_empty() && !table.contains_key("detect") {
            self.mistakes.add(value.span(), "[[group]] has no `detect`: say what is different for it");
        }
        let place = self.mistakes.source.place(matches.span().start);
        let mut rules = self.config.groups.iter().zip(&self.places.groups).skip(self.before.groups);
        if let Some((_, first)) = rules.find(|(rule, _)| rule.label == label) {
            let why = format!("group {} is already given in {first}", shown(matches.get_ref()));
            return self.mistakes.add(matches.span(), why);
        }
        self.config.groups.push(GroupRule { label, detect });
        self.places.groups.push(place);
    }

    /// One `[[ignore]]`.
    pub(super) fn ignore(&mut self, value: &Value<'_>, table: &DeTable<'_>) {
        self.only_known("ignore", table, keys::IGNORE);
        let mut glob = |key: &str| self.text("ignore", table, key, |text| keys::glob(key, text));
        let (group, exe, script) = (glob("group"), glob("exe"), glob("script"));
        let (user, unit) = (glob("user"), glob("unit"));
        let kind = self.text("ignore", table, "kind", |text| {
            Kind::from_name(text).ok_or_else(|| match nearest(text, Kind::ALL.iter().map(|kind| kind.name())) {
                Some(meant) => format!("{text:?} is no kind of finding: did you mean {meant:?}?"),
                None => format!("{text:?} is no kind of finding: `socklife explain` lists them"),
            })
        });
        let whose = self.text("ignore", table, "endpoint", Whose::parse);
        let until = table.get("until").and_then(|value| {
            let outcome = match value.get_ref() {
                DeValue::String(text) => WallTime::try_from(text.to_string()).ok(),
                // TOML's own times need no quotes; without an offset they say no moment.
                DeValue::Datetime(time) => WallTime::try_from(time.to_string()).ok(),
                _ => None,
            };
            if outcome.is_none() {
                let given = shown(value.get_ref());
                let why = format!("ignore.until is {given}: write a time such as \"2026-12-01T00:00:00Z\"");
                self.mistakes.add(value.span(), why);
            }
            outcome
        });
        let reason = match table.contains_key("reason") {
            true => self.text("ignore", table, "reason", |text| keys::name("reason", text)),
            false => {
                self.mistakes.add(value.span(), "[[ignore]] has no `reason`: whoever reads this later needs one");
                None
            }
        };
        if !keys::IGNORE.iter().any(|key| !matches!(key.name, "until" | "reason") && table.contains_key(key.name)) {
            let why = "[[ignore]] is for every finding: say which, by `kind`, `endpoint`, `group`, `exe`, `script`, `user` or `unit`";
            self.mistakes.add(value.span(), why);
        }
        let Some(reason) = reason else { return };
        let what = Ignore { kind, endpoints: None, group, exe, script, user, unit, until, reason };
        self.config.ignores.push(IgnoreRule { whose, what });
        self.places.ignores.push(self.mistakes.source.place(value.span().start));
    }
}
