//! Reads one text of TOML into the configuration and gathers every mistake in it. The keys are those of [`keys`]; what is
//! said about the whole, from all sources, is checked in [`super::layers`].

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use tracer_core::detect::{Changes, SettingError, thresholds};
use tracer_core::finding::Kind;

use super::keys::{self, KEYS, Key, Shape, TableKey};
use super::mistakes::Mistakes;
use super::values::{nearest, number, shown};
use super::{Config, Hooks};

/// Tables at the top, besides those that there may be several of.
pub(super) const SECTIONS: [&str; 6] = ["capture", "inventory", "detect", "privacy", "api", "history"];
/// Tables that there may be several of.
pub(super) const ARRAYS: [&str; 3] = ["endpoint", "group", "ignore"];

/// Keys of the capture section and of the detect section that are tables.
const PORTS: &str = "ports";

pub(super) type Value<'i> = Spanned<DeValue<'i>>;
pub(super) type Name<'i> = Spanned<std::borrow::Cow<'i, str>>;

/// Reads one source.
pub(super) struct Reader<'a, 's> {
    pub mistakes: &'a mut Mistakes<'s>,
    pub config: &'a mut Config,
    /// Where each rule was given.
    pub places: &'a mut Places,
    /// How many of these are from earlier sources.
    pub before: Before,
}

/// Where each rule of a table that there may be several of was given.
#[derive(Default)]
pub(super) struct Places {
    pub endpoints: Vec<String>,
    pub groups: Vec<String>,
    pub ignores: Vec<String>,
}

/// How many rules there were before.
pub(super) struct Before {
    pub endpoints: usize,
    pub groups: usize,
}

impl Places {
    pub fn count(&self) -> Before {
        Before { endpoints: self.endpoints.len(), groups: self.groups.len() }
    }
}

impl Reader<'_, '_> {
    /// Takes over what is fine.
    pub fn read(&mut self, text: &str) {
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let why = error.message().trim_end().replace('\n', ", ");
            self.mistakes.unreadable(error.span().map_or(0, |span| span.start.min(text.len())), why);
        }
        for (name, value) in table.get_ref() {
            match name.get_ref().as_ref() {
                "endpoint" => self.each_table(name, value, Self::endpoint),
                "group" => self.each_table(name, value, Self::group),
                "ignore" => self.each_table(name, value, Self::ignore),
                section if SECTIONS.contains(&section) => self.section(section, value),
                unknown => {
                    let known = || SECTIONS.into_iter().chain(ARRAYS);
                    let what = format!("unknown section [{unknown}]");
                    self.unknown(name, &what, known, |section| format!("[{section}]"));
                }
            }
        }
    }

    fn section(&mut self, section: &str, value: &Value<'_>) {
        let Some(table) = value.get_ref().as_table() else {
            return self
                .mistakes
                .add(value.span(), format!("{section} is {}: it must be a table", shown(value.get_ref())));
        };
        let mut changes = Changes::default();
        for (name, value) in table {
            let key = name.get_ref().as_ref();
            match Kind::from_name(key) {
                Some(kind) if section == "detect" => self.kind("detect", kind, value, &mut changes),
                _ if section == "capture" && key == PORTS => self.ports(value),
                _ => match keys::of_section(section).find(|known| known.name == key) {
                    Some(key) => self.value(key, value),
                    None => self.unknown_key(section, name),
                },
            }
        }
        self.config.detect.change(&changes);
    }

    fn unknown_key(&mut self, section: &str, name: &Name<'_>) {
        let key = name.get_ref().as_ref();
        if let Some(elsewhere) = KEYS.iter().find(|known| known.name == key) {
            let why = format!("unknown key `{key}` in [{section}]: it belongs to [{}]", elsewhere.section);
            return self.mistakes.add(name.span(), why);
        }
        let kinds = Kind::ALL.iter().filter(|_| section == "detect").map(|kind| kind.name());
        let tables = std::iter::once(PORTS).filter(|_| section == "capture");
        let known = || keys::of_section(section).map(|key| key.name).chain(tables.clone()).chain(kinds.clone());
        self.unknown(name, &format!("unknown key `{key}` in [{section}]"), known, |name| format!("`{name}`"));
    }

    /// A name that there is none of: the nearest one, else all there are.
    fn unknown<'k, I: Iterator<Item = &'k str>>(
        &mut self,
        name: &Name<'_>,
        what: &str,
        known: impl Fn() -> I,
        written: impl Fn(&str) -> String,
    ) {
        let why = match nearest(name.get_ref(), known()) {
            Some(meant) => format!("{what}: did you mean {}?", written(meant)),
            None => format!("{what}: there is {}", known().map(written).collect::<Vec<_>>().join(", ")),
        };
        self.mistakes.add(name.span(), why);
    }

    /// A key with one value.
    fn value(&mut self, key: &Key, value: &Value<'_>) {
        let path = format!("{}.{}", key.section, key.name);
        let given = value.get_ref();
        let wants = |what: &str| Err(format!("{path} is {}: it must be {what}", shown(given)));
        let outcome = match (&key.shape, given) {
            (Shape::Number { min, max, set }, DeValue::Integer(integer)) => {
                keys::within(&path, &shown(given), number(integer), *min, *max).map(|number| set(self.config, number))
            }
            // From 64 KiB up every power of two is a multiple of any page size Linux has.
            (Shape::PowerOfTwo { min, max, set }, DeValue::Integer(integer)) => {
                match keys::within(&path, &shown(given), number(integer), *min, *max) {
                    Ok(number) if !number.is_power_of_two() => wants("a power of two"),
                    checked => checked.map(|number| set(self.config, number)),
                }
            }
            (Shape::Flag(set), DeValue::Boolean(flag)) => {
                set(self.config, *flag);
                Ok(())
            }
            (Shape::Text(set), DeValue::String(text)) => set(self.config, text),
            (Shape::Hooks, given) => Hooks::from_toml(given).map(|hooks| self.config.capture.hooks = hooks),
            (Shape::Number { .. } | Shape::PowerOfTwo { .. }, _) => wants("a whole number"),
            (Shape::Flag(_), _) => wants("true or false"),
            (Shape::Text(_), _) => wants("a text in quotes"),
        };
        if let Err(why) = outcome {
            self.mistakes.add(value.span(), why);
        }
    }

    fn ports(&mut self, value: &Value<'_>) {
        let Some(table) = value.get_ref().as_table() else {
            let why = format!(
                "capture.ports is {}: it must be a table such as {{ 15432 = \"postgres\" }}",
                shown(value.get_ref())
            );
            return self.mistakes.add(value.span(), why);
        };
        for (port, database) in table {
            let number = super::endpoints::parse_port(port.get_ref());
            let name = match database.get_ref() {
                DeValue::String(name) => keys::database(name),
                other => Err(format!("{} is no database name: write it in quotes", shown(other))),
            };
            match (number, name) {
                (Ok(port), Ok(database)) => self.config.capture.ports.insert(port, database),
                (number, name) => {
                    let mut refuse = |span, why: Option<String>| {
                        why.into_iter().for_each(|why| {
                            self.mistakes.add(std::ops::Range::clone(&span), format!("capture.ports: {why}"))
                        });
                    };
                    refuse(port.span(), number.err());
                    refuse(database.span(), name.err());
                }
            }
        }
    }

    /// The table of one kind of finding.
    pub fn kind(&mut self, path: &str, kind: Kind, value: &Value<'_>, to: &mut Changes) {
        let path = format!("{path}.{}", kind.name());
        let Some(table) = value.get_ref().as_table() else {
            return self
                .mistakes
                .add(value.span(), format!("{path} is {}: it must be a table", shown(value.get_ref())));
        };
        for (name, value) in table {
            let key = name.get_ref().as_ref();
            let given = shown(value.get_ref());
            let known = || std::iter::once("enabled").chain(thresholds(kind).iter().map(|threshold| threshold.key));
            match (key, value.get_ref()) {
                ("enabled", DeValue::Boolean(enabled)) => to.enable(kind, *enabled),
                ("enabled", _) => {
                    self.mistakes.add(value.span(), format!("{path}.enabled is {given}: it must be true or false"));
                }
                (key, _) if !known().any(|known| known == key) => {
                    self.unknown(name, &format!("unknown key `{key}` in [{path}]"), known, |name| format!("`{name}`"));
                }
                (key, DeValue::Integer(integer)) => {
                    // A number that does not fit is beyond every bound.
                    match to.set(kind, key, number(integer).unwrap_or(i64::MAX)) {
                        Ok(()) => {}
                        Err(SettingError::OutOfBounds { min, max, .. }) => {
                            let why = format!("{path}.{key} is {given}: it must be from {min} to {max}");
                            self.mistakes.add(value.span(), why);
                        }
                        Err(error) => self.mistakes.add(value.span(), error.to_string()),
                    }
                }
                (key, _) => {
                    self.mistakes.add(value.span(), format!("{path}.{key} is {given}: it must be a whole number"));
                }
            }
        }
    }

    /// A table with one table for each kind of finding.
    pub fn kinds(&mut self, path: &str, value: &Value<'_>) -> Changes {
        let mut changes = Changes::default();
        let Some(table) = value.get_ref().as_table() else {
            self.mistakes.add(value.span(), format!("{path} is {}: it must be a table", shown(value.get_ref())));
            return changes;
        };
        for (name, value) in table {
            match Kind::from_name(name.get_ref()) {
                Some(kind) => self.kind(path, kind, value, &mut changes),
                None => {
                    let what = format!("unknown key `{}` in [{path}]", name.get_ref());
                    self.unknown(name, &what, || Kind::ALL.iter().map(|kind| kind.name()), |name| format!("`{name}`"));
                }
            }
        }
        changes
    }

    /// Each table of an array of tables.
    fn each_table(
        &mut self,
        name: &Name<'_>,
        value: &Value<'_>,
        mut read: impl FnMut(&mut Self, &Value<'_>, &DeTable<'_>),
    ) {
        let tables = value.get_ref().as_array();
        let Some(tables) = tables.filter(|tables| tables.iter().all(|table| table.get_ref().is_table())) else {
            let name = name.get_ref();
            let why = format!("{name} is {}: write [[{name}]], once for each", shown(value.get_ref()));
            return self.mistakes.add(value.span(), why);
        };
        for value in tables {
            if let Some(table) = value.get_ref().as_table() {
                read(self, value, table);
            }
        }
    }

    /// Says which keys of the table are none of `known`.
    pub fn only_known(&mut self, section: &str, table: &DeTable<'_>, known: &[TableKey]) {
        for name in table.keys() {
            let key = name.get_ref().as_ref();
            if !known.iter().any(|known| known.name == key) {
                let what = format!("unknown key `{key}` in [[{section}]]");
                self.unknown(name, &what, || known.iter().map(|key| key.name), |name| format!("`{name}`"));
            }
        }
    }

    /// The text of a key, if it is one that `check` takes; a mistake and `None` if it is not.
    pub fn text<T>(
        &mut self,
        section: &str,
        table: &DeTable<'_>,
        key: &str,
        check: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let value = table.get(key)?;
        let outcome = match value.get_ref() {
            DeValue::String(text) => check(text).map_err(|why| format!("{section}: {why}")),
            other => Err(format!("{section}.{key} is {}: it must be a text in quotes", shown(other))),
        };
        outcome.map_err(|why| self.mistakes.add(value.span(), why)).ok()
    }
}
