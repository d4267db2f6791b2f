//! Numbers, times and texts the way the page shows them. Times are UTC: a post-mortem is read in several places.

use tracer_core::time::WallTime;

/// Characters of a name in a table.
pub const NAME_MAX: usize = 160;
/// Characters of a sentence, a command or a value.
pub const TEXT_MAX: usize = 2_000;

/// `12,345`.
pub fn count(number: impl Into<u64>) -> String {
    let digits = number.into().to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `12,345` of a length.
pub fn many(length: usize) -> String {
    count(u64::try_from(length).unwrap_or(u64::MAX))
}

/// `1 process`, `12,345 processes`.
pub fn of_them(length: usize, one: &str, more: &str) -> String {
    format!("{} {}", many(length), if length == 1 { one } else { more })
}

/// The two largest units: `42 s`, `5 min 2 s`, `3 h 10 min`, `2 d 4 h`.
pub fn duration(s: u64) -> String {
    let two = |large: u64, unit: &str, small: u64, of: &str| match small {
        0 => format!("{large} {unit}"),
        _ => format!("{large} {unit} {small} {of}"),
    };
    match s {
        0..60 => format!("{s} s"),
        60..3_600 => two(s / 60, "min", s % 60, "s"),
        3_600..86_400 => two(s / 3_600, "h", s % 3_600 / 60, "min"),
        _ => two(s / 86_400, "d", s % 86_400 / 3_600, "h"),
    }
}

/// `512 B`, `1.4 MB`: powers of a thousand.
pub fn bytes(number: u64) -> String {
    let (mut whole, mut tenth, mut unit) = (number, 0, "B");
    for larger in ["kB", "MB", "GB", "TB", "PB", "EB"] {
        if whole < 1_000 {
            break;
        }
        (tenth, whole, unit) = (whole % 1_000 / 100, whole / 1_000, larger);
    }
    if unit == "B" || whole >= 100 { format!("{whole} {unit}") } else { format!("{whole}.{tenth} {unit}") }
}

/// `2026-11-21 20:41:07`.
pub fn moment(at: WallTime) -> String {
    strftime(at, "%Y-%m-%d %H:%M:%S")
}

/// `at` by a format; a moment that no calendar has is shown as the last that one has.
pub fn strftime(at: WallTime, format: &str) -> String {
    let at = jiff::Timestamp::from_millisecond(at.unix_ms).unwrap_or(jiff::Timestamp::MAX);
    at.strftime(format).to_string()
}

/// `text`, cut off visibly behind `max` characters.
pub fn clip(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// A name for a table.
pub fn name(text: &str) -> String {
    clip(text, NAME_MAX)
}

/// `limit_pressure` as words.
pub fn words(name: &str) -> String {
    clip(&name.replace('_', " "), NAME_MAX)
}

/// The first of a list, and how many more there are.
pub fn first<T: ToString>(list: &[T], shown: usize) -> String {
    let names: Vec<String> = list.iter().take(shown).map(|item| name(&item.to_string())).collect();
    let text = names.join(", ");
    match list.len().checked_sub(shown).filter(|more| *more > 0) {
        Some(more) => format!("{text}, and {} more", many(more)),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (number, text) in [(0_u64, "0"), (999, "999"), (1_000, "1,000"), (12_345_678, "12,345,678")] {
            assert_eq!(count(number), text);
        }
        for (number, text) in
            [(0, "0 B"), (999, "999 B"), (1_000, "1.0 kB"), (1_449_000, "1.4 MB"), (123_456_789, "123 MB")]
        {
            assert_eq!(bytes(number), text);
        }
        assert_eq!(bytes(u64::MAX), "18.4 EB");
    }

    #[test]
    fn durations() {
        for (s, text) in [(0, "0 s"), (60, "1 min"), (302, "5 min 2 s"), (11_400, "3 h 10 min"), (187_200, "2 d 4 h")] {
            assert_eq!(duration(s), text);
        }
    }

    #[test]
    fn moments() {
        assert_eq!(moment(WallTime { unix_ms: 1_795_293_667_123 }), "2026-11-21 20:41:07");
        assert_eq!(moment(WallTime { unix_ms: i64::MAX }), "9999-12-30 22:00:00");
    }

    #[test]
    fn what_is_cut_off_shows() {
        assert_eq!(clip("größe", 5), "größe");
        assert_eq!(clip("größer", 5), "größe…");
        assert_eq!(first(&[412, 433, 518], 2), "412, 433, and 1 more");
        assert_eq!(first(&[412, 433], 2), "412, 433");
    }
}
