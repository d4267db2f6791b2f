//! The one way hostile text reaches a terminal or a log. Names of processes, files and databases are whatever their
//! owner wrote: escape codes, line breaks, text that runs backwards or does not show.

use std::borrow::Cow;
use std::fmt::Write as _;

/// `text` with every character that could move the cursor, reorder the line or hide in it written as an escape.
#[must_use]
pub fn escape(text: &str) -> Cow<'_, str> {
    replace(text, |c, out| match c {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        _ => {
            let _infallible = write!(out, "\\u{{{:x}}}", u32::from(c));
        }
    })
}

/// The same JSON value with such characters as JSON escapes, for JSON shown on a terminal. `json` must be valid JSON
/// without line breaks between its tokens: then they can only be inside strings.
#[must_use]
pub fn escape_json(json: &str) -> Cow<'_, str> {
    replace(json, |c, out| {
        let mut units = [0u16; 2];
        for unit in c.encode_utf16(&mut units) {
            let _infallible = write!(out, "\\u{unit:04x}");
        }
    })
}

fn replace(text: &str, mut with: impl FnMut(char, &mut String)) -> Cow<'_, str> {
    let Some(first) = text.find(is_hazard) else { return Cow::Borrowed(text) };
    let mut out = String::with_capacity(text.len() + 16);
    let (clean, rest) = text.split_at(first);
    out.push_str(clean);
    for c in rest.chars() {
        if is_hazard(c) {
            with(c, &mut out);
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Control characters and the invisible or reordering ones of Unicode (categories Cc, Cf, Zl, Zp as far as they can
/// mislead a reader; see UTS 39 and CVE-2021-42574).
fn is_hazard(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{00ad}' // soft hyphen
            | '\u{061c}' // Arabic letter mark
            | '\u{115f}'..='\u{1160}' | '\u{3164}' | '\u{ffa0}' // Hangul fillers
            | '\u{180e}' // Mongolian vowel separator
            | '\u{200b}'..='\u{200f}' // zero width, marks
            | '\u{2028}'..='\u{202e}' // line and paragraph separators, embeddings, overrides
            | '\u{2060}'..='\u{206f}' // word joiner, isolates
            | '\u{fe00}'..='\u{fe0f}' // variation selectors
            | '\u{feff}' // byte order mark
            | '\u{fff9}'..='\u{fffb}' // interlinear annotation
            | '\u{e0000}'..='\u{e0fff}') // tags, variation selectors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_characters_are_shown_not_obeyed() {
        for (text, shown) in [
            ("", ""),
            ("python3", "python3"),
            ("Größe 数据库", "Größe 数据库"),
            (r"dev-disk\x2dby", r"dev-disk\x2dby"),
            ("a\nb\r\tc", r"a\nb\r\tc"),
            ("\u{1b}[31mred\u{1b}[0m", r"\u{1b}[31mred\u{1b}[0m"),
            ("bell\u{7}del\u{7f}nul\0", r"bell\u{7}del\u{7f}nul\u{0}"),
            ("c1\u{9b}31m", r"c1\u{9b}31m"),
            ("user\u{202e}toor", r"user\u{202e}toor"),
            ("\u{2066}x\u{2069}", r"\u{2066}x\u{2069}"),
            ("zero\u{200b}width\u{feff}", r"zero\u{200b}width\u{feff}"),
            ("line\u{2028}par\u{2029}", r"line\u{2028}par\u{2029}"),
            ("tag\u{e0041}", r"tag\u{e0041}"),
        ] {
            assert_eq!(escape(text), shown, "{text:?}");
        }
    }

    #[test]
    fn every_control_character_and_bidi_override_is_covered() {
        let hazards = (0..0x20)
            .chain(0x7f..0xa0)
            .chain(0x200b..=0x200f)
            .chain(0x202a..=0x202e)
            .chain(0x2066..=0x2069)
            .filter_map(char::from_u32);
        for c in hazards {
            let shown = escape(&c.to_string()).into_owned();
            assert!(shown.starts_with('\\') && shown.is_ascii() && !shown.chars().any(char::is_control), "{c:?}");
        }
    }

    #[test]
    fn clean_text_is_not_copied() {
        assert!(matches!(escape("route_builder_launcher.py"), Cow::Borrowed(_)));
    }

    #[test]
    fn escaped_json_means_the_same() {
        let value = serde_json::json!({ "comm": "a\u{202e}b\u{9b}c\u{7f}\u{e0041}", "ok": "ü" });
        let json = value.to_string();
        let shown = escape_json(&json);
        assert_eq!(shown, r#"{"comm":"a\u202eb\u009bc\u007f\udb40\udc41","ok":"ü"}"#);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }
}
