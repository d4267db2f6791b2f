//! The screen without a terminal: answers and keys go in, the drawn buffer comes out.

mod behaviour;
mod fixture;
mod random;
mod screens;

use std::time::Duration;

use jiff::tz::TimeZone;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use tracer_core::time::{BootNs, WallAnchor};

use super::*;
use fixture::AT;

/// A model and a terminal of a size.
pub(super) struct Seat {
    pub model: Model,
    terminal: Terminal<TestBackend>,
}

/// So many seconds after the picture was taken.
pub(super) fn after(s: u64) -> WallAnchor {
    let start = BootNs(1_000_000_000_000);
    WallAnchor { boot: start.plus(Duration::from_secs(s)), unix_ns: AT.unix_ms * 1_000_000 + s as i64 * 1_000_000_000 }
}

pub(super) fn look(colour: bool) -> Look {
    Look { zone: TimeZone::UTC, palette: Palette { colour }, glyphs: Glyphs::Unicode }
}

impl Seat {
    /// With the usual picture, or whatever it is given.
    pub fn new(width: u16, height: u16) -> Self {
        Self::with(width, height, look(true), Only::default())
    }

    pub fn with(width: u16, height: u16, look: Look, only: Only) -> Self {
        let model = Model::new(look, only, Duration::from_secs(1), (width, height), after(0));
        let mut seat = Self { model, terminal: Terminal::new(TestBackend::new(width, height)).unwrap() };
        seat.tell(fixture::overview());
        seat
    }

    /// The daemon answers with this, and with the usual connections if they are wanted.
    pub fn tell(&mut self, overview: Overview) {
        let connections = self.model.wanted().connections.map(|query| {
            let mut connections = fixture::connections();
            connections.retain(|it| query.pid.is_none_or(|pid| it.holders.iter().any(|holder| holder.pid == pid)));
            (query, Ok(Connections { captured_at: AT, connections }))
        });
        let next_in = Duration::from_secs(1);
        self.model.answer(Answer { overview: Some(Ok(overview)), connections, next_in }, after(0));
    }

    /// Presses keys, by their names or as letters; the daemon answers after each one, if it is asked.
    pub fn press(&mut self, keys: &[&str]) -> Outcome {
        let mut outcome = Outcome::Stay;
        for key in keys {
            outcome = self.model.press(&key_of(key));
            if self.model.wanted().overview {
                self.tell(fixture::overview());
            }
        }
        outcome
    }

    /// The screen as text.
    pub fn screen(&mut self) -> String {
        self.draw();
        self.terminal.backend().to_string()
    }

    /// The screen's cells.
    pub fn draw(&mut self) -> &ratatui::buffer::Buffer {
        let model = &self.model;
        self.terminal.draw(|frame| draw(model, frame.buffer_mut())).unwrap();
        self.terminal.backend().buffer()
    }

    pub fn resize(&mut self, width: u16, height: u16) {
        self.model.resize(width, height);
        self.terminal.backend_mut().resize(width, height);
    }
}

pub(super) fn key_of(name: &str) -> KeyEvent {
    let plain = |code| KeyEvent::new(code, KeyModifiers::NONE);
    match name {
        "Enter" => plain(KeyCode::Enter),
        "Esc" => plain(KeyCode::Esc),
        "Tab" => plain(KeyCode::Tab),
        "BackTab" => plain(KeyCode::BackTab),
        "Backspace" => plain(KeyCode::Backspace),
        "Down" => plain(KeyCode::Down),
        "Up" => plain(KeyCode::Up),
        "PgDn" => plain(KeyCode::PageDown),
        "PgUp" => plain(KeyCode::PageUp),
        "Home" => plain(KeyCode::Home),
        "End" => plain(KeyCode::End),
        "C-c" => KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL),
        "C-z" => KeyEvent::new(KeyCode::Char('z'), KeyModifiers::CONTROL),
        letter => plain(KeyCode::Char(letter.chars().next().unwrap())),
    }
}
