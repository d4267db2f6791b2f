//! Draws the model into a buffer. What is drawn fits the screen whatever its size: parts are left out in a fixed order,
//! and rows that are out of sight cost nothing.

use std::collections::VecDeque;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Line;
use tracer_core::finding::Severity;
use tracer_core::snapshot::{Completeness, Mode};
use unicode_width::UnicodeWidthStr as _;

use super::columns::{self, Column, Context};
use super::figures::{clock, count, duration, fit};
use super::layout::{LEAST, Layout};
use super::model::Model;
use super::page::{Page, Rows, Subject};
use super::palette::letter;
use super::picture::{Overview, process_name};
use super::text;
use crate::ui::escape;

/// Cells that the breadcrumb leaves for the row's number.
const BESIDE_TRAIL: u16 = 12;
/// What was taken so much earlier or later than the rest says so.
const APART_MS: u64 = 2_000;

/// The whole screen.
pub fn draw(model: &Model, buffer: &mut Buffer) {
    let area = Rect { x: 0, y: 0, width: model.size.0, height: model.size.1 }.intersection(buffer.area);
    let Some(layout) = Layout::new(model).filter(|_| area.width == model.size.0 && area.height == model.size.1) else {
        too_small(model, area, buffer);
        return;
    };
    let mut screen = Screen { model, buffer };
    screen.title(layout.title);
    screen.tabs(layout.tabs);
    if let Some(banner) = text::banner(model) {
        screen.bar(layout.banner, &banner, model.look.palette.banner());
    }
    if let Some(from) = model.help {
        screen.help(layout, from);
        return;
    }
    screen.trail(layout.trail);
    screen.lines(layout.panel, &text::panel(model, layout.panel.width, layout.panel.height), 0);
    match model.page().rows {
        Some(rows) => screen.list(rows, layout.heading, layout.rows),
        None => {
            let lines = text::page(model, layout.rows.width);
            screen.lines(layout.rows, &lines, model.page().offset);
        }
    }
    screen.hints(layout.hints);
}

fn too_small(model: &Model, area: Rect, buffer: &mut Buffer) {
    let sentence = format!("too small: {}x{} is needed", LEAST.0, LEAST.1);
    for (y, part) in (area.top()..area.bottom()).zip(super::figures::wrap(&sentence, area.width)) {
        buffer.set_stringn(area.x, y, part, usize::from(area.width), model.look.palette.plain());
    }
}

struct Screen<'a> {
    model: &'a Model,
    buffer: &'a mut Buffer,
}

impl Screen<'_> {
    fn put(&mut self, x: u16, y: u16, text: &str, width: u16, style: Style) {
        let fitted = fit(text, width, self.model.look.glyphs);
        self.buffer.set_stringn(x, y, fitted, usize::from(width), style);
    }

    /// A line in one style from edge to edge.
    fn bar(&mut self, area: Rect, text: &str, style: Style) {
        if area.height > 0 {
            self.buffer.set_style(area, style);
            self.put(area.x, area.y, text, area.width, style);
        }
    }

    fn lines(&mut self, area: Rect, lines: &[Line<'_>], from: usize) {
        for (y, line) in (area.top()..area.bottom()).zip(lines.iter().skip(from)) {
            let mut x = area.x;
            for span in &line.spans {
                let room = area.right().saturating_sub(x);
                let fitted = fit(&span.content, room, self.model.look.glyphs);
                (x, _) = self.buffer.set_stringn(x, y, fitted, usize::from(room), line.style.patch(span.style));
            }
        }
    }

    /// Parts side by side, two blanks apart. Where there is no room, those with the highest number are left out first.
    fn parts(&mut self, area: Rect, parts: &[(String, Style, u8)]) {
        if area.height == 0 {
            return;
        }
        let mut wanted: Vec<&(String, Style, u8)> = parts.iter().filter(|(text, ..)| !text.is_empty()).collect();
        let needed = |parts: &[&(String, Style, u8)]| parts.iter().map(|(text, ..)| text.width() + 2).sum::<usize>();
        while needed(&wanted) > usize::from(area.width) + 2 && wanted.len() > 1 {
            let Some(last) = wanted.iter().map(|(.., drop)| *drop).max() else { break };
            let Some(at) = wanted.iter().rposition(|(.., drop)| *drop == last) else { break };
            wanted.remove(at);
        }
        let mut x = area.x;
        for (text, style, _) in wanted {
            let room = area.right().saturating_sub(x);
            self.put(x, area.y, text, room, *style);
            x = x.saturating_add(u16::try_from(text.width() + 2).unwrap_or(u16::MAX));
        }
    }

    fn title(&mut self, area: Rect) {
        let palette = self.model.look.palette;
        let mut parts = vec![("socklife".to_owned(), palette.strong(), 5)];
        match &self.model.picture {
            None => parts.push(("no answer yet".to_owned(), palette.plain(), 0)),
            Some(picture) => {
                let overview = &picture.overview;
                parts.push((escape(&overview.host.hostname).into_owned(), palette.plain(), 2));
                for (severity, open) in picture.severities(&self.model.only) {
                    let style = if open > 0 { palette.severity(severity) } else { palette.weak() };
                    parts.push((
                        format!(" {} {} ", letter(severity), count(open as u64)),
                        style,
                        severity_drop(severity),
                    ));
                }
                let capture = &overview.capture;
                parts.push((mode(capture.mode).to_owned(), palette.plain(), 6));
                parts.push((worth(capture.completeness, capture.totals).to_owned(), palette.plain(), 4));
                parts.push((self.model.taken().unwrap_or_default(), palette.plain(), 1));
                let pace = duration(self.model.pace.max(self.model.interval).as_secs().max(1));
                parts.push((format!("every {pace}"), palette.weak(), 7));
            }
        }
        self.parts(area, &parts);
    }

    /// The five views: with their names and how many there are of each, where that fits; else with their names, else with
    /// the name of the chosen one alone.
    fn tabs(&mut self, area: Rect) {
        let palette = self.model.look.palette;
        let overview = self.model.picture.as_ref().map(|picture| &picture.overview);
        let counted = Rows::ALL.map(|rows| {
            let number = overview.map(|overview| format!(" {}", count(how_many(overview, rows)))).unwrap_or_default();
            format!(" {} {}{number} ", rows.place() + 1, rows.name())
        });
        let named = Rows::ALL.map(|rows| format!(" {} {} ", rows.place() + 1, rows.name()));
        let short = Rows::ALL.map(|rows| match rows.place() == self.model.view() {
            true => format!(" {} {} ", rows.place() + 1, rows.name()),
            false => format!(" {} ", rows.place() + 1),
        });
        let fits = |texts: &[String; 5]| texts.iter().map(|text| cells(text)).sum::<u16>() <= area.width;
        let texts = [counted, named].into_iter().find(fits).unwrap_or(short);
        let mut x = area.x;
        for (rows, text) in Rows::ALL.into_iter().zip(texts) {
            let style = if self.model.view() == rows.place() { palette.selected() } else { palette.plain() };
            self.put(x, area.y, &text, area.right().saturating_sub(x), style);
            x = x.saturating_add(cells(&text));
        }
    }

    /// Where the user is, how it is sorted, what it is filtered by.
    fn trail(&mut self, area: Rect) {
        let (model, palette) = (self.model, self.model.look.palette);
        let page = model.page();
        let list = page.rows.filter(|_| page.subject != Subject::Everything);
        let list = list.map(|rows| format!(": {}", rows.name())).unwrap_or_default();
        let mut steps: VecDeque<String> = model.trail().map(|page| step(model, page)).collect();
        let way = |steps: &VecDeque<String>, cut: &str| {
            let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
            format!("{cut}{}{list}", steps.join(" > "))
        };
        let mut trail = way(&steps, "");
        // Where one is matters more than how one came there.
        while cells(&trail) > area.width.saturating_sub(BESIDE_TRAIL) && steps.len() > 1 {
            steps.pop_front();
            trail = way(&steps, "< ");
        }
        let mut parts = vec![(trail, palette.strong(), 1)];
        if page.rows.is_some() {
            if model.typing || !page.filter.is_empty() {
                let cursor = if model.typing { "_" } else { "" };
                parts.push((format!("/{}{cursor}", escape(&page.filter)), palette.banner(), 0));
            }
            let total = page.order.len();
            let at = if total == 0 { 0 } else { page.at + 1 };
            parts.push((format!("{at}/{total}"), palette.plain(), 2));
            if let Some(taken) = self.taken_apart(page) {
                parts.push((taken, palette.weak(), 4));
            }
            if let Some(words) = model.only.words() {
                parts.push((escape(&words).into_owned(), palette.banner(), 3));
            }
        }
        self.parts(area, &parts);
    }

    /// When the connections shown are of, if that is not when the rest is of.
    fn taken_apart(&self, page: &Page) -> Option<String> {
        let picture = self.model.picture.as_ref().filter(|_| page.rows == Some(Rows::Connections))?;
        let (_, connections) = picture.connections.as_ref()?;
        let apart_ms = connections.captured_at.unix_ms.abs_diff(picture.overview.captured_at.unix_ms);
        (apart_ms >= APART_MS).then(|| format!("as of {}", clock(connections.captured_at, &self.model.look.zone)))
    }

    fn list(&mut self, rows: Rows, heading: Rect, area: Rect) {
        let Some(context) = self.model.context() else { return };
        let page = self.model.page();
        let columns = fitting(columns::of(rows), area.width);
        self.heading(page, columns::of(rows), &columns, heading);
        if page.order.is_empty() {
            self.put(area.x, area.y, nothing(&context, page, rows), area.width, self.model.look.palette.weak());
        }
        let places = page.order.iter().enumerate().skip(page.offset);
        for (y, (at, item)) in (area.top()..area.bottom()).zip(places) {
            self.row(&context, &columns, *item, Rect { y, height: 1, ..area });
            if at == page.at {
                self.buffer.set_style(Rect { y, height: 1, ..area }, self.model.look.palette.selected());
            }
        }
    }

    fn row(&mut self, context: &Context<'_>, columns: &[(usize, &Column, u16)], item: usize, area: Rect) {
        let mut x = area.x;
        for (_, column, width) in columns {
            let cell = (column.cell)(context, item, *width);
            let fitted = fit(&cell.text, *width, context.look.glyphs);
            let blank = if column.right { width.saturating_sub(cells(&fitted)) } else { 0 };
            self.buffer.set_stringn(x + blank, area.y, fitted, usize::from(*width - blank), cell.style);
            x = x.saturating_add(*width + 1);
        }
    }

    fn heading(&mut self, page: &Page, all: &[Column], columns: &[(usize, &Column, u16)], area: Rect) {
        if area.height == 0 {
            return;
        }
        let palette = self.model.look.palette;
        let mut x = area.x;
        for (place, column, width) in columns {
            let is_sorted = *place == page.sort;
            let arrow = match (is_sorted, page.descending) {
                (false, _) => "",
                (true, true) => "v",
                (true, false) => "^",
            };
            let title = format!("{}{arrow}", column.title);
            // Beside a mark of one cell there is no room for a name and an arrow.
            let title = if is_sorted && *width == 1 { arrow.to_owned() } else { title };
            let blank = if column.right { width.saturating_sub(cells(&title)) } else { 0 };
            let style = if is_sorted { palette.heading().patch(palette.selected()) } else { palette.heading() };
            self.put(x + blank, area.y, &title, *width - blank, style);
            x = x.saturating_add(*width + 1);
        }
        // Sorted by what is not shown: that has to be said somewhere.
        if columns.iter().all(|(place, ..)| *place != page.sort)
            && let Some(column) = all.get(page.sort)
        {
            let note = format!(" by {}{} ", column.title, if page.descending { "v" } else { "^" });
            let from = area.right().saturating_sub(cells(&note));
            self.put(from, area.y, &note, cells(&note), palette.selected());
        }
    }

    fn help(&mut self, layout: Layout, from: usize) {
        let palette = self.model.look.palette;
        self.put(layout.trail.x, layout.trail.y, "help", layout.trail.width, palette.strong());
        let top = layout.trail.bottom();
        let area = Rect { y: top, height: self.model.size.1.saturating_sub(top), ..layout.trail };
        self.lines(area, &text::help(area.width), from);
    }

    fn hints(&mut self, area: Rect) {
        let page = self.model.page();
        let hints: &[(&str, u8)] = match (self.model.typing, page.rows, &page.subject) {
            (true, ..) => &[("type to filter", 0), ("Enter keeps it", 1), ("Esc clears it", 2)],
            (_, None, Subject::Finding(_)) => {
                &[("?:help", 0), ("Enter:whom it is about", 2), ("Backspace:back", 1), ("q:quit", 3)]
            }
            (_, None, _) => &[("?:help", 0), ("Enter:its process", 2), ("Backspace:back", 1), ("q:quit", 3)],
            (_, Some(_), Subject::Everything) => &[
                ("?:help", 0),
                ("Enter:open", 2),
                ("/:filter", 3),
                ("s:sort", 4),
                ("r:reverse", 5),
                ("Space:pause", 6),
                ("Tab:next view", 7),
                ("q:quit", 1),
            ],
            (_, Some(_), _) => &[
                ("?:help", 0),
                ("Enter:open", 2),
                ("Tab:next list", 4),
                ("Backspace:back", 3),
                ("/:filter", 5),
                ("s:sort", 6),
                ("z:zoom", 7),
                ("q:quit", 1),
            ],
        };
        let style = self.model.look.palette.weak();
        let parts: Vec<(String, Style, u8)> =
            hints.iter().map(|(text, drop)| ((*text).to_owned(), style, *drop)).collect();
        self.parts(area, &parts);
    }
}

fn how_many(overview: &Overview, rows: Rows) -> u64 {
    match rows {
        Rows::Endpoints => overview.endpoints.len() as u64,
        Rows::Groups => overview.launcher_groups.len() as u64,
        Rows::Processes => overview.processes.len() as u64,
        Rows::Connections => overview.endpoints.iter().map(|endpoint| u64::from(endpoint.open)).sum(),
        Rows::Findings => overview.findings.len() as u64,
    }
}

/// Why a list is empty.
fn nothing(context: &Context<'_>, page: &Page, rows: Rows) -> &'static str {
    match rows {
        _ if !page.filter.is_empty() => "nothing contains what you typed; Esc clears it",
        Rows::Connections if context.picture.connections.is_none() => "asking for connections",
        Rows::Findings => "no findings",
        _ => "none",
    }
}

/// A page's name in the breadcrumb.
fn step(model: &Model, page: &Page) -> String {
    let picture = model.picture.as_ref();
    let name = match &page.subject {
        Subject::Everything => page.rows.map_or("", Rows::name).to_owned(),
        Subject::Endpoint { id, .. } => picture.map_or(id.as_str(), |picture| picture.endpoint_name(id)).to_owned(),
        Subject::Group(id) => picture.and_then(|it| it.group(id)).map_or(id.as_str(), |group| &group.label).to_owned(),
        Subject::Process { pid, .. } => {
            let name = picture.and_then(|picture| picture.process(*pid)).map_or("pid", process_name);
            format!("{name}[{pid}]")
        }
        Subject::Connection(id) => {
            let ends = picture.and_then(|picture| picture.connection(id)).map(|connection| connection.local.clone());
            ends.unwrap_or_else(|| id.clone())
        }
        Subject::Finding(id) => picture
            .and_then(|picture| picture.finding(id))
            .map_or(id.as_str(), |finding| finding.kind.name())
            .to_owned(),
    };
    escape(&name).into_owned()
}

/// The columns that fit, with their places and widths: while there are too many, the one with the highest `drop` goes; what
/// is left over goes to those that grow, in equal parts.
fn fitting(all: &'static [Column], width: u16) -> Vec<(usize, &'static Column, u16)> {
    let mut kept: Vec<(usize, &Column, u16)> =
        all.iter().enumerate().map(|(place, column)| (place, column, column.width)).collect();
    let needed = |columns: &[(usize, &Column, u16)]| columns.iter().map(|(.., width)| width + 1).sum::<u16>();
    while needed(&kept) > width.saturating_add(1) {
        let Some(last) = kept.iter().map(|(_, column, _)| column.drop).max().filter(|drop| *drop > 0) else { break };
        kept.retain(|(_, column, _)| column.drop != last);
    }
    let spare = width.saturating_add(1).saturating_sub(needed(&kept));
    let growing = kept.iter().filter(|(_, column, _)| column.grows).count();
    let mut left = usize::from(spare);
    for (nth, (.., width)) in kept.iter_mut().filter(|(_, column, _)| column.grows).enumerate() {
        let part = left.div_ceil(growing - nth);
        *width += u16::try_from(part).unwrap_or(0);
        left -= part;
    }
    // Still too wide: the last ones give way, one cell at least each.
    let mut room = width.saturating_add(1);
    kept.retain_mut(|(.., wide)| {
        *wide = (*wide).min(room.saturating_sub(1));
        room = room.saturating_sub(*wide + 1);
        *wide > 0
    });
    kept
}

fn cells(text: &str) -> u16 {
    u16::try_from(text.width()).unwrap_or(u16::MAX)
}

/// The worst stays longest.
fn severity_drop(severity: Severity) -> u8 {
    match severity {
        Severity::Critical => 0,
        Severity::Warning => 3,
        Severity::Info => 8,
    }
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Ebpf => "eBPF",
        Mode::Poll => "polling",
    }
}

/// What counts and totals are worth.
fn worth(counts: Completeness, totals: Completeness) -> &'static str {
    match (counts, totals) {
        (Completeness::Exact, Completeness::Exact) => "exact",
        (Completeness::Exact, _) => "totals at least",
        (Completeness::LowerBound, _) => "at least",
        (Completeness::Unknown, _) => "not ready",
    }
}
