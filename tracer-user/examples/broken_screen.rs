//! A full-screen command that fails while it has the terminal: by a `panic` or by an `error`, as its argument says. For the
//! live suite, which looks at what is left of the terminal.

use anyhow::{Result, bail};
use tracer_user::screen::Screen;

fn main() -> Result<()> {
    let how = std::env::args().nth(1).unwrap_or_default();
    let mut screen = Screen::enter()?;
    screen.draw(|frame| {
        let area = frame.area();
        frame.buffer_mut().set_string(area.x, area.y, "about to fail", ratatui::style::Style::new());
    })?;
    match how.as_str() {
        "panic" => broken(),
        _ => bail!("broken on purpose"),
    }
}

#[expect(clippy::panic, reason = "it is what this program is for")]
fn broken() -> ! {
    panic!("broken on purpose")
}
