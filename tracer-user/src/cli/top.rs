//! `socklife top`: the loop between the terminal, the daemon and the model. What is shown is `ui::top`'s matter.

mod asker;

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use anyhow::Context as _;
use jiff::tz::TimeZone;
use ratatui::crossterm::event::{self, Event};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tracer_core::finding::Kind;

use super::exit::Failure;
use super::tail::{endpoint, kinds};
use super::{StopSignals, Verdict, until_stopped};
use crate::api::client::Client;
use crate::clock;
use crate::screen::Screen;
use crate::ui::style;
use crate::ui::top::{self, Glyphs, Look, Model, Only, Outcome, Palette};
use asker::Told;

/// Keys that wait to be looked at.
const KEYS_MAX: usize = 64;
/// A daemon that cannot answer says so within this; one that is slow is waited for with the screen open.
const FIRST_ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// How often the screen looks whether the daemon has fallen silent.
const TICK: Duration = Duration::from_secs(1);
/// The shortest interval: below it the daemon would be watched for its own sake.
const INTERVAL_LEAST: Duration = Duration::from_millis(100);
/// The longest.
const INTERVAL_MOST: Duration = Duration::from_secs(3_600);

/// Full-screen: endpoints, launcher groups, processes, connections, findings; `?` lists the keys
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How often the daemon is asked
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// Only this process (repeatable)
    #[arg(long, value_name = "PID")]
    pid: Vec<u32>,
    /// Only this endpoint (repeatable)
    #[arg(long, value_name = "IP:PORT", value_parser = endpoint)]
    endpoint: Vec<String>,
    /// Only findings of this kind, and those first (repeatable)
    #[arg(long, value_name = "KIND", value_parser = kinds())]
    kind: Vec<Kind>,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| format!("{error}: write it like 1s or 500ms"))?;
    if (INTERVAL_LEAST..=INTERVAL_MOST).contains(&interval) {
        return Ok(interval);
    }
    Err("from 100ms to 1h".to_owned())
}

pub(super) fn main(args: Args, client: Client) -> anyhow::Result<Verdict> {
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb" || term.is_empty());
    if is_dumb || !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        let why = if is_dumb { "TERM names none that can move its cursor" } else { "stdin or stdout is none" };
        let sentence = format!("top needs a terminal, and {why}: `socklife tail` and `snapshot` do without");
        return Err(Failure::Unable(sentence).into());
    }
    until_stopped(async |stop| watch_until(args, client, stop).await)
}

/// The signals that a terminal brings along, besides those that end every command.
struct TerminalSignals {
    hang_up: Signal,
    quit: Signal,
    stop: Signal,
    resume: Signal,
}

impl TerminalSignals {
    fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for the terminal's signals");
        Ok(Self {
            hang_up: listen(SignalKind::hangup())?,
            quit: listen(SignalKind::quit())?,
            stop: listen(SignalKind::from_raw(libc::SIGTSTP))?,
            resume: listen(SignalKind::from_raw(libc::SIGCONT))?,
        })
    }
}

async fn watch_until(args: Args, client: Client, mut stop: StopSignals) -> anyhow::Result<Verdict> {
    let mut signals = TerminalSignals::new()?;
    let only = Only { pids: args.pid, endpoints: args.endpoint, kinds: args.kind };
    let mut model = Model::new(look(), only, args.interval, (0, 0), clock::wall_anchor());
    let (wanted, wants) = watch::channel(model.wanted());
    let (tell, mut told) = mpsc::channel(1);
    tokio::spawn(asker::ask(client, args.interval, wants, tell));
    let first = tokio::select! {
        told = told.recv() => told,
        () = tokio::time::sleep(FIRST_ANSWER_WITHIN) => None,
        () = stop.recv() => return Ok(Verdict::Fine),
    };
    if let Some(first) = first {
        model.answer(first.or_fail()?, clock::wall_anchor());
    }
    let mut screen = Screen::enter()?;
    let mut events = read_events();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let is_there = screen.draw(|frame| {
            let area = frame.area();
            if model.size != (area.width, area.height) {
                model.resize(area.width, area.height);
            }
            top::draw(&model, frame.buffer_mut());
        })?;
        if !is_there {
            return Ok(Verdict::Fine);
        }
        let now_wanted = model.wanted();
        wanted.send_if_modified(|old| {
            let is_new = *old != now_wanted;
            *old = now_wanted;
            is_new
        });
        tokio::select! {
            () = stop.recv() => return Ok(Verdict::Fine),
            _ = signals.hang_up.recv() => return Ok(Verdict::Fine),
            _ = signals.quit.recv() => return Ok(Verdict::Fine),
            _ = signals.stop.recv() => screen.suspend()?,
            _ = signals.resume.recv() => screen.renew()?,
            answer = told.recv() => {
                let answer: Told = answer.context("nobody asks the daemon any more")?;
                model.answer(answer.into_answer(), clock::wall_anchor());
            }
            _ = tick.tick() => model.tick(clock::wall_anchor()),
            event = events.recv() => {
                let mut next = Some(event.context("the terminal cannot be read any more")?);
                while let Some(event) = next {
                    if !take(&mut model, &mut screen, &event)? {
                        return Ok(Verdict::Fine);
                    }
                    next = events.try_recv().ok();
                }
            }
        }
    }
}

/// Does what an event asks for; false ends the command.
fn take(model: &mut Model, screen: &mut Screen, event: &Event) -> anyhow::Result<bool> {
    let Event::Key(key) = event else { return Ok(true) };
    model.tick(clock::wall_anchor());
    match model.press(key) {
        Outcome::Stay => {}
        Outcome::Quit => return Ok(false),
        Outcome::Suspend => screen.suspend()?,
        Outcome::Redraw => screen.renew()?,
    }
    Ok(true)
}

/// The terminal's events, read on a thread of their own: it ends with the process.
fn read_events() -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel(KEYS_MAX);
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if sender.blocking_send(event).is_err() {
                return;
            }
        }
    });
    receiver
}

fn look() -> Look {
    let locale =
        ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(std::env::var_os).find(|value| !value.is_empty());
    let locale = locale.map(|locale| locale.to_string_lossy().to_lowercase()).unwrap_or_default();
    let is_utf8 = locale.contains("utf-8") || locale.contains("utf8");
    Look {
        zone: TimeZone::system(),
        palette: Palette { colour: style::wanted(&io::stdout()) },
        glyphs: if is_utf8 { Glyphs::Unicode } else { Glyphs::Ascii },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_have_bounds() {
        assert_eq!(interval("500ms"), Ok(Duration::from_millis(500)));
        for wrong in ["0s", "99ms", "2h", "soon", ""] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }
}
