//! Styles: the terminal's own 16 colours, so that they fit a light and a dark background; text keeps the terminal's own
//! foreground, and a coloured badge brings its own background. Nothing is told by colour alone.

use ratatui::style::{Color, Modifier, Style};
use tracer_core::finding::Severity;

/// With or without colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Palette {
    /// Colours wanted: not with NO_COLOR.
    pub colour: bool,
}

impl Palette {
    fn badge(self, on: Color, text: Color, without: Modifier) -> Style {
        if self.colour { Style::new().bg(on).fg(text) } else { Style::new().add_modifier(without) }
    }

    /// Ordinary text.
    pub fn plain(self) -> Style {
        Style::new()
    }

    /// The bar at the top and the breadcrumb's end.
    pub fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// What matters less.
    pub fn weak(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// Names of columns.
    pub fn heading(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED)
    }

    /// The chosen row or tab.
    pub fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// A severity's word or letter.
    pub fn severity(self, severity: Severity) -> Style {
        match severity {
            Severity::Critical => self.badge(Color::Red, Color::White, Modifier::REVERSED).add_modifier(Modifier::BOLD),
            Severity::Warning => self.badge(Color::Yellow, Color::Black, Modifier::BOLD),
            Severity::Info => self.badge(Color::Cyan, Color::Black, Modifier::empty()),
        }
    }

    /// A line that must be seen: the picture is frozen, old, or short of something.
    pub fn banner(self) -> Style {
        self.badge(Color::Yellow, Color::Black, Modifier::REVERSED).add_modifier(Modifier::BOLD)
    }

    /// Charts.
    pub fn chart(self) -> Style {
        if self.colour { Style::new().fg(Color::Blue) } else { Style::new() }
    }
}

/// One letter: `C`, `W`, `i`.
pub fn letter(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "C",
        Severity::Warning => "W",
        Severity::Info => "i",
    }
}

/// One word, as `tail` has it.
pub fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "CRITICAL",
        Severity::Warning => "WARNING",
        Severity::Info => "INFO",
    }
}
