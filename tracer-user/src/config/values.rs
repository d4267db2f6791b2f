//! Values of TOML as they stand in the text: shown to the user, or taken for what they are.

use toml::de::{DeInteger, DeValue};

/// Longest text of a value that is repeated to the user, in characters.
const SHOWN_CHARS_MAX: usize = 80;

/// As the user wrote it, more or less.
pub(super) fn shown(value: &DeValue<'_>) -> String {
    let whole = match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    };
    match whole.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((at, _)) => format!("{}...", whole.get(..at).unwrap_or_default()),
        None => whole,
    }
}

/// Its number, if that is one that fits.
pub(super) fn number(integer: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// The one of `known` that `given` was probably meant to be.
pub(super) fn nearest<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Names are short; what is longer is no slip of the fingers.
    let far = (given.chars().count() / 3).clamp(1, 4);
    let near = |name: &&str| name.len() <= 64 && given.len() <= 64;
    known
        .filter(near)
        .map(|name| (strsim::damerau_levenshtein(given, name), name))
        .filter(|(distance, _)| *distance <= far)
        .min()
        .map(|(_, name)| name)
}
