//! Colours: only on a terminal and only while NO_COLOR is unset (<https://no-color.org>).

use std::io::IsTerminal;

/// Whether escape codes may be written to `stream`.
#[must_use]
pub fn wanted(stream: &impl IsTerminal) -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !no_color && std::env::var_os("TERM").is_none_or(|term| term != "dumb") && stream.is_terminal()
}

/// A colour of the terminal's own palette.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// Hurts now.
    Red,
    /// Will hurt.
    Yellow,
    /// Is over.
    Green,
    /// In passing.
    Dim,
}

/// `text` in `colour` if `on`, else as it is.
#[must_use]
pub fn paint(text: &str, colour: Colour, on: bool) -> String {
    if !on {
        return text.to_owned();
    }
    let code = match colour {
        Colour::Red => "1;31",
        Colour::Yellow => "33",
        Colour::Green => "32",
        Colour::Dim => "2",
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paint_leaves_no_codes_when_off() {
        assert_eq!(paint("CRITICAL", Colour::Red, false), "CRITICAL");
        assert_eq!(paint("CRITICAL", Colour::Red, true), "\u{1b}[1;31mCRITICAL\u{1b}[0m");
    }
}
