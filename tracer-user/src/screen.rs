//! The terminal while a full-screen command has it: raw mode, the alternate screen, no cursor; and what it was before, whatever way this
//! ends: the end of the command, an error, a panic, a signal, a suspension. Nothing can be done about `kill -9`: `reset`
//! puts the terminal right after that. Knows nothing of what is drawn.

use std::io::{self, Stdout, stdout};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use ratatui::layout::{Position, Rect};
use ratatui::{Frame, Terminal};

/// Whether the terminal is ours.
static OURS: AtomicBool = AtomicBool::new(false);

/// The terminal; given back when dropped.
#[derive(Debug)]
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// Takes the terminal.
    pub fn enter() -> anyhow::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let usual = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                give_back();
                usual(panic);
            }));
        });
        take().context("cannot take the terminal")?;
        match Terminal::new(CrosstermBackend::new(stdout())) {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                give_back();
                Err(error).context("cannot take the terminal")
            }
        }
    }

    /// Draws a whole screen, in the terminal's size as it is now. False if the terminal is gone.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> anyhow::Result<bool> {
        match self.terminal.draw(draw) {
            Ok(_) => Ok(true),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(error).context("cannot draw"),
        }
    }

    /// Gives the terminal back, stops as Ctrl-Z does, and takes it again once the shell says so.
    pub fn suspend(&mut self) -> anyhow::Result<()> {
        give_back();
        stop_here().context("cannot suspend")?;
        self.renew()
    }

    /// Takes the terminal as if for the first time, and draws all of it: somebody else may have written to it.
    pub fn renew(&mut self) -> anyhow::Result<()> {
        give_back();
        take().context("cannot take the terminal back")?;
        let size = self.terminal.size().context("cannot learn the terminal's size")?;
        // Not `clear`, which asks the terminal where its cursor is: the answer would be taken for keys.
        self.terminal.resize(Rect::from((Position::ORIGIN, size))).context("cannot clear the terminal")
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn take() -> io::Result<()> {
    enable_raw_mode()?;
    OURS.store(true, Ordering::Release);
    let entered = execute!(stdout(), EnterAlternateScreen, Hide);
    if entered.is_err() {
        give_back();
    }
    entered
}

/// Once for each [`take`], whoever comes first.
fn give_back() {
    if OURS.swap(false, Ordering::AcqRel) {
        // The terminal may be gone: then there is nothing to give back.
        let _gone = execute!(stdout(), LeaveAlternateScreen, Show);
        let _gone = disable_raw_mode();
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EIO | Errno::EPIPE | Errno::ENXIO))
}

/// SIGTSTP as it is without a handler: the kernel ignores it where no shell could resume us, which SIGSTOP does not.
fn stop_here() -> nix::Result<()> {
    let usual = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs no code of ours; what was there before is put back as it was.
    let ours = unsafe { sigaction(Signal::SIGTSTP, &usual) }?;
    let raised = raise(Signal::SIGTSTP);
    // SAFETY: the handler that was there before, with its own flags and mask.
    unsafe { sigaction(Signal::SIGTSTP, &ours) }?;
    raised
}
