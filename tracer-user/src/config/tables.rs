//! Tables that there may be several of: `[[endpoint]]`.

use toml::de::{DeTable, DeValue};
use tracer_core::detect::Changes;

use super::endpoints::Whose;
use super::reader::{Reader, Value};
use super::values::{number, shown};
use super::{EndpointRule, keys};

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
        let mut rules = self.config.endpoints.iter().zip(&*self.places).skip(self.before);
        if let Some((_, first)) = rules.find(|(rule, _)| rule.whose == whose) {
            let why = format!("endpoint {} is already given in {first}", shown(matches.get_ref()));
            return self.mistakes.add(matches.span(), why);
        }
        self.config.endpoints.push(EndpointRule { whose, name, limit, database, detect });
        self.places.push(place);
    }
}
