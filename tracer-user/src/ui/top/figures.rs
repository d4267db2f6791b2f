//! Numbers, times and little charts as text. Knows widths and glyphs; knows neither the terminal nor what a figure means.

use std::fmt::Write as _;

use jiff::tz::TimeZone;
use tracer_core::time::WallTime;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Characters that may share one cell: marks upon marks are cut off here.
const MARKS_MAX: usize = 4;

/// What the terminal's font can be trusted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glyphs {
    /// Blocks and arrows, where the locale is UTF-8.
    Unicode,
    /// Nothing beyond ASCII.
    Ascii,
}

impl Glyphs {
    /// Eight heights, the lowest first.
    fn levels(self) -> [char; 8] {
        match self {
            Self::Unicode => ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'],
            Self::Ascii => ['.', ':', '-', '=', '+', '*', '#', '@'],
        }
    }

    /// What stands for text that is cut off.
    pub fn cut(self) -> char {
        match self {
            Self::Unicode => '…',
            Self::Ascii => '~',
        }
    }
}

/// `text` in at most `width` cells; what does not fit is cut off, and that is seen.
pub fn fit(text: &str, width: u16, glyphs: Glyphs) -> String {
    let room = usize::from(width);
    let is_short = text.len() <= room.saturating_mul(MARKS_MAX);
    if is_short && text.width() <= room {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut used = 0;
    for c in text.chars().take(room.saturating_mul(MARKS_MAX)) {
        let wide = c.width().unwrap_or(0);
        if used + wide + 1 > room {
            break;
        }
        out.push(c);
        used += wide;
    }
    if room > 0 {
        out.push(glyphs.cut());
    }
    out
}

/// `text` as lines of at most `width` cells, broken between words where that is possible.
pub fn wrap(text: &str, width: u16) -> Vec<String> {
    let room = usize::from(width).max(1);
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split_inclusive(' ') {
        let wide = word.trim_end().width();
        if used > 0 && used + wide > room {
            lines.push(String::new());
            used = 0;
        }
        for c in word.chars() {
            let wide = c.width().unwrap_or(0);
            if used + wide > room {
                // A blank at the end of a line is the break itself.
                if c == ' ' {
                    continue;
                }
                lines.push(String::new());
                used = 0;
            }
            if let Some(line) = lines.last_mut() {
                line.push(c);
            }
            used += wide;
        }
    }
    lines.iter_mut().for_each(|line| line.truncate(line.trim_end().len()));
    lines
}

/// The newest values as a line of bars, `width` cells wide; several steps share a cell as their largest. 0 is blank.
pub fn sparkline(values: &[u32], width: u16, glyphs: Glyphs) -> String {
    let columns = columns(values, width);
    let most = columns.iter().copied().max().unwrap_or(0).max(1);
    let mut text = " ".repeat(usize::from(width).saturating_sub(columns.len()));
    text.extend(columns.iter().map(|value| bar(*value, most, 1, 0, glyphs)));
    text
}

/// The same, `height` lines high, the top line first.
pub fn chart(values: &[u32], width: u16, height: u16, glyphs: Glyphs) -> Vec<String> {
    let columns = columns(values, width);
    let most = columns.iter().copied().max().unwrap_or(0).max(1);
    let line = |row: u16| columns.iter().map(|value| bar(*value, most, height, row, glyphs)).collect();
    (0..height).rev().map(line).collect()
}

/// What a cell shows of `value` in a chart of `height` rows, `row` counted from below.
fn bar(value: u32, most: u32, height: u16, row: u16, glyphs: Glyphs) -> char {
    let eighths = u64::from(value) * u64::from(height) * 8 / u64::from(most);
    // What is there is never drawn as nothing.
    let eighths = if value > 0 { eighths.max(1) } else { 0 };
    let levels = glyphs.levels();
    match eighths.saturating_sub(u64::from(row) * 8).min(8) {
        0 => ' ',
        level => levels.get(level as usize - 1).copied().unwrap_or(' '),
    }
}

/// One value a cell, the newest last: as many steps to each as the width asks for.
fn columns(values: &[u32], width: u16) -> Vec<u32> {
    let width = usize::from(width).max(1);
    let each = values.len().div_ceil(width).max(1);
    let first = values.len() % each;
    let (head, rest) = values.split_at_checked(first).unwrap_or((&[], values));
    let head = (!head.is_empty()).then(|| head.iter().copied().max().unwrap_or(0));
    head.into_iter().chain(rest.chunks(each).map(|chunk| chunk.iter().copied().max().unwrap_or(0))).collect()
}

/// A gauge in brackets, `width` cells wide, and the share in percent: told by digits, not by length alone.
pub fn gauge(part: u32, whole: u32, width: u16, glyphs: Glyphs) -> String {
    let percent = format!("{:>4}", format!("{}%", percent(part, whole)));
    let inside = usize::from(width).saturating_sub(2 + percent.len());
    if inside < 2 {
        return percent;
    }
    let full = (u64::from(part.min(whole)) * inside as u64 / u64::from(whole.max(1))) as usize;
    let full = if part > 0 { full.max(1) } else { 0 };
    let (on, off) = match glyphs {
        Glyphs::Unicode => ("█", "·"),
        Glyphs::Ascii => ("#", "."),
    };
    format!("[{}{}]{percent}", on.repeat(full), off.repeat(inside - full))
}

/// `part` of `whole` in percent, rounded down so that 100 means full.
pub fn percent(part: u32, whole: u32) -> u64 {
    u64::from(part) * 100 / u64::from(whole.max(1))
}

/// A count in at most five characters: `950`, `12.3k`, `1.20M`.
pub fn count(value: u64) -> String {
    scaled(value, 1_000, 10_000, &["k", "M", "G", "T", "P", "E"], "")
}

/// Bytes in powers of 1,024: `512B`, `4.00K`, `1.25M`.
pub fn bytes(value: u64) -> String {
    scaled(value, 1_024, 1_000, &["K", "M", "G", "T", "P", "E"], "B")
}

fn scaled(value: u64, base: u64, until: u64, units: &[&str], plain: &str) -> String {
    if value < until {
        return format!("{value}{plain}");
    }
    let mut whole = value as f64 / base as f64;
    let mut unit = units.iter();
    let mut name = unit.next().copied().unwrap_or("");
    while whole >= 999.5 {
        let Some(next) = unit.next() else { break };
        whole /= base as f64;
        name = next;
    }
    match whole {
        whole if whole < 9.995 => format!("{whole:.2}{name}"),
        whole if whole < 99.95 => format!("{whole:.1}{name}"),
        _ => format!("{whole:.0}{name}"),
    }
}

/// A time in two units at most: `7s`, `5m02s`, `3h10m`, `2d04h`.
pub fn duration(s: u64) -> String {
    match s {
        0..60 => format!("{s}s"),
        60..3_600 => format!("{}m{:02}s", s / 60, s % 60),
        3_600..86_400 => format!("{}h{:02}m", s / 3_600, s % 3_600 / 60),
        _ => format!("{}d{:02}h", s / 86_400, s % 86_400 / 3_600),
    }
}

/// Seconds from one moment to a later one; 0 if it is earlier.
pub fn seconds_between(earlier: WallTime, later: WallTime) -> u64 {
    u64::try_from(later.unix_ms.saturating_sub(earlier.unix_ms)).unwrap_or(0) / 1_000
}

/// A round-trip time: `850us`, `12.5ms`, `1.2s`.
pub fn microseconds(us: u32) -> String {
    match us {
        0..1_000 => format!("{us}us"),
        1_000..1_000_000 => format!("{:.1}ms", f64::from(us) / 1e3),
        _ => format!("{:.1}s", f64::from(us) / 1e6),
    }
}

/// The reader's own clock.
pub fn clock(at: WallTime, zone: &TimeZone) -> String {
    local(at, zone, "%H:%M:%S", "--:--:--")
}

/// The reader's own clock, with the day.
pub fn date(at: WallTime, zone: &TimeZone) -> String {
    local(at, zone, "%Y-%m-%d %H:%M:%S", "unknown")
}

fn local(at: WallTime, zone: &TimeZone, format: &str, unknown: &str) -> String {
    let mut text = String::new();
    let shown = jiff::Timestamp::from_millisecond(at.unix_ms)
        .ok()
        .and_then(|at| write!(text, "{}", at.to_zoned(zone.clone()).strftime(format)).ok());
    if shown.is_some() { text } else { unknown.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_off_is_seen_and_wide_characters_take_two_cells() {
        for (text, width, shown) in [
            ("orders-db", 9, "orders-db"),
            ("orders-db", 8, "orders-…"),
            ("数据库", 6, "数据库"),
            ("数据库", 5, "数据…"),
            ("数据库", 4, "数…"),
            ("x", 0, ""),
            ("xy", 1, "…"),
        ] {
            assert_eq!(fit(text, width, Glyphs::Unicode), shown, "{text} in {width}");
        }
        assert_eq!(fit("orders-db", 4, Glyphs::Ascii), "ord~");
        let marks = format!("e{}", "\u{301}".repeat(10_000));
        assert!(fit(&marks, 10, Glyphs::Unicode).chars().count() <= 10 * MARKS_MAX + 1);
    }

    #[test]
    fn lines_break_between_words_and_inside_long_ones() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefgh ij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrap("", 4), [""]);
    }

    #[test]
    fn bars_share_cells_by_their_largest_and_never_hide_what_is_there() {
        assert_eq!(sparkline(&[0, 1, 8], 3, Glyphs::Unicode), " ▁█");
        assert_eq!(sparkline(&[0, 1000], 4, Glyphs::Unicode), "   █");
        assert_eq!(sparkline(&[1, 1000], 2, Glyphs::Ascii), ".@");
        assert_eq!(sparkline(&[9, 0, 0, 0], 2, Glyphs::Ascii), "@ ");
        assert_eq!(sparkline(&[], 3, Glyphs::Unicode), "   ");
        assert_eq!(chart(&[1, 2], 2, 2, Glyphs::Unicode), [" █", "██"]);
    }

    #[test]
    fn gauges_say_their_share() {
        assert_eq!(gauge(96, 100, 16, Glyphs::Unicode), "[█████████·] 96%");
        assert_eq!(gauge(1, 1_000, 16, Glyphs::Ascii), "[#.........]  0%");
        assert_eq!(gauge(120, 100, 16, Glyphs::Ascii), "[##########]120%");
        assert_eq!(gauge(1, 2, 6, Glyphs::Ascii), " 50%");
        assert_eq!(gauge(0, 0, 16, Glyphs::Ascii), "[..........]  0%");
    }

    #[test]
    fn figures() {
        assert_eq!([0, 9_999, 12_345, 1_200_000, u64::MAX].map(count), ["0", "9999", "12.3k", "1.20M", "18.4E"]);
        assert_eq!([0, 999, 1_000, 1_310_720, u64::MAX].map(bytes), ["0B", "999B", "0.98K", "1.25M", "16.0E"]);
        assert_eq!([7, 302, 11_400, 187_200].map(duration), ["7s", "5m02s", "3h10m", "2d04h"]);
        assert_eq!([850, 12_500, 1_200_000].map(microseconds), ["850us", "12.5ms", "1.2s"]);
    }
}
