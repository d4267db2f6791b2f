//! What a key means. Knows the terminal's keys; knows no state but whether a filter is being typed.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// What the user wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Quit,
    /// Ctrl-Z.
    Suspend,
    /// Ctrl-L: the screen is wrong, draw it all.
    Redraw,
    /// The view with this place.
    View(usize),
    /// The next list, or the one before.
    Turn(isize),
    /// Rows down; up if negative.
    Move(isize),
    /// Screens down; up if negative.
    Screens(isize),
    First,
    Last,
    /// The next column, or the one before.
    Sort(isize),
    Reverse,
    Filter,
    Type(char),
    Erase,
    /// Ends typing and keeps the filter.
    Keep,
    /// Whatever is lightest: typing, the filter, the page.
    Escape,
    Enter,
    Back,
    Pause,
    Zoom,
    Help,
}

/// What a key asks for; `typing` while a filter is typed.
pub fn command(key: &KeyEvent, typing: bool) -> Option<Command> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c') => Some(Command::Quit),
            KeyCode::Char('z') => Some(Command::Suspend),
            KeyCode::Char('l') => Some(Command::Redraw),
            // What terminals send for Backspace, some of them.
            KeyCode::Char('h') if typing => Some(Command::Erase),
            KeyCode::Char('h') => Some(Command::Back),
            KeyCode::Char('f') => Some(Command::Screens(1)),
            KeyCode::Char('b') => Some(Command::Screens(-1)),
            _ => None,
        };
    }
    if key.modifiers.contains(KeyModifiers::ALT) {
        return None;
    }
    match key.code {
        KeyCode::Down => Some(Command::Move(1)),
        KeyCode::Up => Some(Command::Move(-1)),
        KeyCode::PageDown => Some(Command::Screens(1)),
        KeyCode::PageUp => Some(Command::Screens(-1)),
        KeyCode::Home => Some(Command::First),
        KeyCode::End => Some(Command::Last),
        KeyCode::Tab => Some(Command::Turn(1)),
        KeyCode::BackTab => Some(Command::Turn(-1)),
        KeyCode::Esc => Some(Command::Escape),
        KeyCode::Enter if typing => Some(Command::Keep),
        KeyCode::Backspace if typing => Some(Command::Erase),
        KeyCode::Char(c) if typing => Some(Command::Type(c)),
        KeyCode::Enter => Some(Command::Enter),
        KeyCode::Right => Some(Command::Enter),
        KeyCode::Backspace | KeyCode::Left => Some(Command::Back),
        KeyCode::Char(c) => letter(c),
        _ => None,
    }
}

fn letter(c: char) -> Option<Command> {
    Some(match c {
        'q' => Command::Quit,
        'j' => Command::Move(1),
        'k' => Command::Move(-1),
        'g' => Command::First,
        'G' => Command::Last,
        '1'..='5' => Command::View(c as usize - '1' as usize),
        's' | '>' => Command::Sort(1),
        'S' | '<' => Command::Sort(-1),
        'r' => Command::Reverse,
        '/' => Command::Filter,
        'p' | ' ' => Command::Pause,
        'z' => Command::Zoom,
        '?' | 'h' => Command::Help,
        _ => return None,
    })
}

/// The help, as keys and what they do.
pub const HELP: &[(&str, &str)] = &[
    ("1 to 5", "endpoints, launcher groups, processes, connections, findings"),
    ("Tab, Shift-Tab", "the next list, the one before; of what a page is about, where one is open"),
    ("Up, Down, j, k", "another row; PgUp, PgDn, Home, End, g, G farther"),
    ("Enter, Right", "open the row: an endpoint, its processes, a process' connections, one connection's life"),
    ("Backspace, Left", "back to where you came from"),
    ("/", "show only rows that contain what you type; Enter keeps it, Esc clears it"),
    ("s, <, >", "sort by another column; r turns the order round"),
    ("z", "counts over 2 minutes, an hour, 6 hours, a day"),
    ("Space, p", "freeze the picture, and let it go on"),
    ("Ctrl-Z", "suspend; `fg` comes back"),
    ("?", "this; any key closes it"),
    ("q, Ctrl-C", "quit"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_text_while_a_filter_is_typed_and_control_keys_are_not() {
        let plain = |code| KeyEvent::new(code, KeyModifiers::NONE);
        let control = |c| KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
        for (key, typing, wanted) in [
            (plain(KeyCode::Char('q')), false, Some(Command::Quit)),
            (plain(KeyCode::Char('q')), true, Some(Command::Type('q'))),
            (plain(KeyCode::Char(' ')), true, Some(Command::Type(' '))),
            (plain(KeyCode::Char('3')), false, Some(Command::View(2))),
            (plain(KeyCode::Backspace), true, Some(Command::Erase)),
            (plain(KeyCode::Backspace), false, Some(Command::Back)),
            (plain(KeyCode::Down), true, Some(Command::Move(1))),
            (control('c'), true, Some(Command::Quit)),
            (control('z'), false, Some(Command::Suspend)),
            (control('x'), true, None),
            (plain(KeyCode::F(1)), false, None),
        ] {
            assert_eq!(command(&key, typing), wanted, "{key:?}");
        }
    }
}
