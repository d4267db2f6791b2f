//! The whole state of the screen: what the daemon answered last, where the user is. Pure: answers, keys, sizes and the time
//! come in; what to ask for and what to draw are read off.

use std::time::Duration;

use ratatui::crossterm::event::{KeyEvent, KeyEventKind};
use tracer_core::time::{WallAnchor, WallTime};

use super::columns::{self, Context, Look};
use super::figures;
use super::keys::{self, Command};
use super::layout::Layout;
use super::page::{Page, Rows, Subject};
use super::picture::{Connections, Only, Overview, Picture, Query};
use super::text;

/// Pages above one another.
const PAGES_MAX: usize = 32;
/// Resolutions of counts over time.
const ZOOMS: usize = 4;
/// After so many intervals without an answer the picture is called old; never sooner than [`SILENCE_LEAST`].
const SILENCE_INTERVALS: u32 = 3;
const SILENCE_LEAST: Duration = Duration::from_secs(3);

/// What the daemon is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub overview: bool,
    pub connections: Option<Query>,
}

/// What came of asking. A failure is a sentence.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub overview: Option<Result<Overview, String>>,
    pub connections: Option<(Query, Result<Connections, String>)>,
    /// How long until the next one: longer than asked for where an answer takes long.
    pub next_in: Duration,
}

/// What the caller has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Stay,
    Quit,
    Suspend,
    Redraw,
}

/// The screen's state.
#[derive(Clone, Debug)]
pub struct Model {
    pub look: Look,
    pub only: Only,
    pub interval: Duration,
    /// How often there is an answer, if that is less often.
    pub pace: Duration,
    pub picture: Option<Picture>,
    /// Why the last question had no answer.
    pub trouble: Option<String>,
    /// When the last answer came; before the first, when the first question was asked.
    pub answered: WallAnchor,
    pub now: WallAnchor,
    /// Since when the picture is frozen.
    pub paused: Option<WallTime>,
    pub typing: bool,
    /// The first line of the help that is drawn, while it is open.
    pub help: Option<usize>,
    pub zoom: usize,
    pub size: (u16, u16),
    roots: [Page; 5],
    view: usize,
    above: Vec<Page>,
}

impl Model {
    /// Nothing is known yet.
    pub fn new(look: Look, only: Only, interval: Duration, size: (u16, u16), now: WallAnchor) -> Self {
        let view = if only.kinds.is_empty() { Rows::Endpoints } else { Rows::Findings };
        let mut model = Self {
            look,
            only,
            interval,
            pace: interval,
            picture: None,
            trouble: None,
            answered: now,
            now,
            paused: None,
            typing: false,
            help: None,
            zoom: 0,
            size,
            roots: Rows::ALL.map(Page::root),
            view: view.place(),
            above: Vec::new(),
        };
        model.settle();
        model
    }

    /// The page on top.
    pub fn page(&self) -> &Page {
        self.above.last().or(self.roots.get(self.view)).unwrap_or(&self.roots[0])
    }

    fn page_mut(&mut self) -> &mut Page {
        let view = self.view.min(self.roots.len() - 1);
        self.above.last_mut().unwrap_or(&mut self.roots[view])
    }

    /// Which of the five views is below all pages.
    pub fn view(&self) -> usize {
        self.view
    }

    /// The pages from the view on.
    pub fn trail(&self) -> impl Iterator<Item = &Page> {
        self.roots.get(self.view).into_iter().chain(&self.above)
    }

    /// What rows are shown with.
    pub fn context(&self) -> Option<Context<'_>> {
        let picture = self.picture.as_ref()?;
        Some(Context { picture, subject: &self.page().subject, only: &self.only, look: &self.look, zoom: self.zoom })
    }

    /// What to ask for next. While paused: only connections that nobody has asked for yet.
    pub fn wanted(&self) -> Wanted {
        let connections = self.query();
        if self.paused.is_none() {
            return Wanted { overview: true, connections };
        }
        let have = self.picture.as_ref().and_then(|picture| picture.connections.as_ref().map(|(query, _)| query));
        Wanted { overview: self.picture.is_none(), connections: connections.filter(|query| Some(query) != have) }
    }

    /// The connections that the page on top shows, or the page below a connection's.
    fn query(&self) -> Option<Query> {
        let shows = |page: &&Page| page.rows.is_some() || matches!(page.subject, Subject::Finding(_));
        let page = self.above.iter().rev().chain(self.roots.get(self.view)).find(shows)?;
        if page.rows != Some(Rows::Connections) {
            return None;
        }
        let one = |pids: &[u32]| if let [pid] = pids { Some(*pid) } else { None };
        let alone = if let [id] = self.only.endpoints.as_slice() { Some(id.clone()) } else { None };
        let (pid, endpoint) = (one(&self.only.pids), alone);
        Some(match &page.subject {
            Subject::Process { pid, .. } => Query { pid: Some(*pid), endpoint },
            Subject::Endpoint { id, .. } => Query { pid, endpoint: Some(id.clone()) },
            _ => Query { pid, endpoint },
        })
    }

    /// Takes what came of asking.
    pub fn answer(&mut self, answer: Answer, now: WallAnchor) {
        self.now = now;
        self.pace = answer.next_in;
        let mut failed = None;
        match answer.overview {
            Some(Ok(overview)) if self.paused.is_none() || self.picture.is_none() => {
                let connections = self.picture.take().and_then(|picture| picture.connections);
                self.picture.insert(Picture::new(overview)).connections = connections;
            }
            Some(Ok(_)) | None => {}
            Some(Err(sentence)) => failed = Some(sentence),
        }
        match answer.connections {
            Some((query, Ok(connections))) => {
                if let Some(picture) = &mut self.picture {
                    picture.connections = Some((query, connections));
                }
            }
            Some((_, Err(sentence))) => failed = Some(sentence),
            None => {}
        }
        if failed.is_none() {
            self.answered = now;
        }
        self.trouble = failed;
        self.settle();
    }

    /// Time has passed.
    pub fn tick(&mut self, now: WallAnchor) {
        self.now = now;
    }

    /// How long the daemon has been silent, if that is too long.
    pub fn silence(&self) -> Option<Duration> {
        let silent = self.now.boot.since(self.answered.boot);
        let bound = (self.pace.max(self.interval) * SILENCE_INTERVALS).max(SILENCE_LEAST);
        (self.paused.is_none() && (self.trouble.is_some() || silent > bound)).then_some(silent)
    }

    /// The terminal has another size.
    pub fn resize(&mut self, width: u16, height: u16) {
        self.size = (width, height);
        self.settle();
    }

    /// Does what a key asks for.
    pub fn press(&mut self, key: &KeyEvent) -> Outcome {
        match keys::command(key, self.typing) {
            Some(command) => self.act(command),
            None => {
                if key.kind != KeyEventKind::Release {
                    self.help = None;
                }
                Outcome::Stay
            }
        }
    }

    /// Does what the user wants.
    fn act(&mut self, command: Command) -> Outcome {
        let outcome = match command {
            Command::Quit => return Outcome::Quit,
            Command::Suspend => return Outcome::Suspend,
            Command::Redraw => return Outcome::Redraw,
            _ if self.help.is_some() => {
                self.act_in_help(command);
                return Outcome::Stay;
            }
            _ => Outcome::Stay,
        };
        match command {
            Command::View(view) => {
                self.above.clear();
                self.view = view.min(self.roots.len() - 1);
            }
            Command::Turn(by) if self.above.is_empty() => {
                self.view = (self.view as isize + by).rem_euclid(self.roots.len() as isize) as usize;
            }
            Command::Turn(by) => self.page_mut().turn(by),
            Command::Move(by) => self.travel(by),
            Command::Screens(by) => self.travel(by.saturating_mul(self.rows_high().max(2) as isize - 1)),
            Command::First => self.travel(isize::MIN),
            Command::Last => self.travel(isize::MAX),
            Command::Sort(by) => self.page_mut().sort_by_neighbour(by),
            Command::Reverse => {
                let page = self.page_mut();
                page.descending = !page.descending;
            }
            Command::Filter => self.typing = self.page().rows.is_some(),
            Command::Type(c) => self.page_mut().type_into_filter(c),
            Command::Erase => self.page_mut().erase_from_filter(),
            Command::Keep => self.typing = false,
            Command::Escape => self.escape(),
            Command::Enter => self.enter(),
            Command::Back => drop(self.above.pop()),
            Command::Pause => self.paused = if self.paused.is_some() { None } else { Some(self.wall()) },
            Command::Zoom => self.zoom = (self.zoom + 1) % ZOOMS,
            Command::Help => self.help = Some(0),
            Command::Quit | Command::Suspend | Command::Redraw => {}
        }
        self.typing &= self.page().rows.is_some() && !matches!(command, Command::View(_) | Command::Turn(_));
        match command {
            // The rows are as they were: ten thousand of them are not sorted again for a key that moves.
            Command::Move(_) | Command::Screens(_) | Command::First | Command::Last => self.show_chosen(),
            _ => self.settle(),
        }
        outcome
    }

    fn act_in_help(&mut self, command: Command) {
        let last = text::help(self.size.0).len().saturating_sub(usize::from(self.size.1.max(3)) - 2);
        self.help = match (command, self.help) {
            (Command::Move(by), Some(at)) => Some(at.saturating_add_signed(by).min(last)),
            (Command::Screens(by), Some(at)) => Some(at.saturating_add_signed(by * 8).min(last)),
            _ => None,
        };
    }

    fn wall(&self) -> WallTime {
        self.now.wall(self.now.boot)
    }

    fn escape(&mut self) {
        let was_typing = std::mem::take(&mut self.typing);
        if was_typing || !self.page().filter.is_empty() {
            self.page_mut().clear_filter();
        } else {
            self.above.pop();
        }
    }

    fn enter(&mut self) {
        let target = match &self.page().subject {
            Subject::Finding(id) => self.subject_of(id),
            Subject::Connection(id) => self.opener_of(id),
            _ => self.page().chosen.clone(),
        };
        if let Some(target) = target.filter(|_| self.above.len() < PAGES_MAX) {
            self.above.push(Page::new(target));
        }
    }

    /// What a finding is about: its process if there is one, else its endpoint, else its group.
    fn subject_of(&self, finding: &str) -> Option<Subject> {
        let picture = self.picture.as_ref()?;
        let subject = &picture.finding(finding)?.subject;
        let endpoint = subject.endpoint.as_ref().and_then(|id| {
            let found = picture.overview.endpoints.iter().find(|endpoint| endpoint.id == *id)?;
            Some(Subject::Endpoint { id: found.id.clone(), role: found.role })
        });
        let process = match subject.pids.as_slice() {
            [pid] => picture.process(*pid).map(Subject::process),
            _ => None,
        };
        let group = subject.launcher_group.as_ref().and_then(|id| picture.group(id));
        process.or_else(|| group.map(|group| Subject::Group(group.id.clone()))).or(endpoint)
    }

    fn opener_of(&self, connection: &str) -> Option<Subject> {
        let picture = self.picture.as_ref()?;
        let connection = picture.connection(connection)?;
        let pids = connection.opener.iter().map(|opener| opener.pid).chain(connection.holders.iter().map(|it| it.pid));
        pids.filter_map(|pid| picture.process(pid)).map(Subject::process).next()
    }

    /// Moves the choice, or a text.
    fn travel(&mut self, by: isize) {
        let step = |at: usize, last: usize| at.saturating_add_signed(by).min(last);
        let page = self.page_mut();
        if page.rows.is_none() {
            // `settle` knows where the text ends.
            page.offset = step(page.offset, usize::MAX >> 1);
            return;
        }
        page.at = step(page.at, page.order.len().saturating_sub(1));
        page.chosen = None;
    }

    fn rows_high(&self) -> usize {
        usize::from(Layout::new(self).map_or(1, |layout| layout.rows.height))
    }

    /// Orders the rows of the page on top, finds the chosen one again, and brings it into sight.
    fn settle(&mut self) {
        if let (Some(rows), Some(context)) = (self.page().rows, self.context()) {
            let page = self.page();
            let order = columns::order(&context, rows, page.sort, page.descending, &page.filter);
            let subject = |at: usize| order.get(at).and_then(|item| columns::subject(context.picture, rows, *item));
            let again = page.chosen.as_ref().and_then(|chosen| {
                // Most often it is where it was.
                if subject(page.at).as_ref() == Some(chosen) {
                    return Some(page.at);
                }
                (0..order.len()).find(|at| subject(*at).as_ref() == Some(chosen))
            });
            let at = again.unwrap_or(page.at);
            let page = self.page_mut();
            (page.order, page.at) = (order, at);
        }
        self.show_chosen();
    }

    /// Brings what is chosen into sight; of a text, what there is.
    fn show_chosen(&mut self) {
        let high = self.rows_high().max(1);
        let Some(rows) = self.page().rows else {
            let lines = Layout::new(self).map_or(0, |layout| text::page(self, layout.rows.width).len());
            let page = self.page_mut();
            page.offset = page.offset.min(lines.saturating_sub(high));
            return;
        };
        let Some(picture) = &self.picture else { return };
        let page = self.page();
        let at = page.at.min(page.order.len().saturating_sub(1));
        let chosen = page.order.get(at).and_then(|item| columns::subject(picture, rows, *item));
        let page = self.page_mut();
        let offset = page.offset.min(page.order.len().saturating_sub(high)).min(at);
        (page.at, page.chosen, page.offset) = (at, chosen, offset.max((at + 1).saturating_sub(high)));
    }

    /// When the picture is of.
    pub fn taken(&self) -> Option<String> {
        let picture = self.picture.as_ref()?;
        Some(figures::clock(picture.overview.captured_at, &self.look.zone))
    }
}
