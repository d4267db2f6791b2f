//! A terminal to look at: a tmux server of the test's own, with a shell in it. What it shows is asked again and again until
//! it is what was waited for.

use std::ffi::OsStr;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::program::{Program, command, output, until};
use crate::sandbox::Sandbox;

/// The only session.
const SESSION: &str = "suite";

/// A shell in a terminal. Both end when this is dropped, however the suite ends.
pub struct Tmux {
    _server: Program,
    socket: PathBuf,
}

impl Tmux {
    /// Opens a terminal of this size.
    pub fn open(sandbox: &Sandbox, width: u16, height: u16) -> Result<Self> {
        let socket = sandbox.path("tmux");
        let mut server = command("tmux");
        server.arg("-S").arg(&socket).args(["-f", "/dev/null", "-D"]);
        let tmux = Self { _server: Program::start("tmux", server)?, socket };
        until("a tmux server", || Ok(if tmux.socket.try_exists()? { Ok(()) } else { Err("no socket".to_owned()) }))?;
        let size = [width.to_string(), height.to_string()];
        // Colours as a user has them, and a prompt to wait for.
        let shell = "env -u NO_COLOR LC_ALL=C.UTF-8 'PS1=ready$ ' sh";
        tmux.ask(&["new-session", "-d", "-s", SESSION, "-x", &size[0], "-y", &size[1], shell])?;
        tmux.wait("a prompt", |screen| screen.contains("ready$"))?;
        Ok(tmux)
    }

    /// Presses keys, as `tmux send-keys` names them.
    pub fn press(&self, keys: &[&str]) -> Result<()> {
        self.ask(&[&["send-keys", "-t", SESSION], keys].concat()).map(drop)
    }

    /// Types a line for the shell.
    pub fn type_line(&self, line: &str) -> Result<()> {
        self.ask(&["send-keys", "-t", SESSION, "-l", line])?;
        self.press(&["Enter"])
    }

    /// Changes its size.
    pub fn resize(&self, width: u16, height: u16) -> Result<()> {
        let size = [width.to_string(), height.to_string()];
        self.ask(&["resize-window", "-t", SESSION, "-x", &size[0], "-y", &size[1]]).map(drop)
    }

    /// The text on it.
    pub fn screen(&self) -> Result<String> {
        self.ask(&["capture-pane", "-p", "-t", SESSION])
    }

    /// Waits until the screen is as `wanted`; the screen.
    pub fn wait(&self, what: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
        until(what, || {
            let screen = self.screen()?;
            Ok(if wanted(&screen) { Ok(screen) } else { Err(screen) })
        })
    }

    /// Waits until all of this stands on the screen; the screen.
    pub fn shows(&self, texts: &[&str]) -> Result<String> {
        self.wait(&format!("a screen with {texts:?}"), |screen| texts.iter().all(|text| screen.contains(text)))
    }

    /// Waits until the cursor is seen and the ordinary screen is shown, or neither.
    pub fn wait_for_modes(&self, is_ordinary: bool) -> Result<()> {
        let wanted = if is_ordinary { "1 0" } else { "0 1" };
        until("the cursor and the screen", || {
            let now = self.ask(&["display-message", "-p", "-t", SESSION, "#{cursor_flag} #{alternate_on}"])?;
            let now = now.trim();
            Ok(if now == wanted { Ok(()) } else { Err(format!("cursor and alternate screen are {now}, not {wanted}")) })
        })
    }

    /// Sends a signal to the program that the shell has in the foreground.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let shell = self.ask(&["display-message", "-p", "-t", SESSION, "#{pane_pid}"])?;
        let shell = shell.trim();
        let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"))?;
        let children: Vec<&str> = children.split_whitespace().collect();
        ensure!(children.len() == 1, "the shell has these children: {children:?}");
        let pid = children[0].parse().context("a child's pid")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("send {signal}"))
    }

    fn ask<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<String> {
        let mut ask = command("tmux");
        ask.arg("-S").arg(&self.socket).args(args);
        output(ask)
    }
}
