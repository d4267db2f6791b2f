//! What the lists show: columns as data, and which rows belong to a subject. Every string of a process is escaped here, on its
//! way into a cell.

mod connections;
mod endpoints;
mod findings;
mod groups;
mod processes;

pub use connections::{age, concerns, ends};
pub use endpoints::{role, states};
pub use findings::sure;

use jiff::tz::TimeZone;
use ratatui::style::Style;
use tracer_core::finding::Severity;

use super::figures::Glyphs;
use super::page::{Rows, Subject};
use super::palette::{Palette, letter};
use super::picture::{Only, Picture};
use crate::ui::escape;

/// What is needed to show anything.
#[derive(Clone, Debug)]
pub struct Look {
    /// Where the reader's clock is.
    pub zone: TimeZone,
    pub palette: Palette,
    pub glyphs: Glyphs,
}

/// Where a row stands.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub picture: &'a Picture,
    pub subject: &'a Subject,
    pub only: &'a Only,
    pub look: &'a Look,
    /// Which resolution of counts over time.
    pub zoom: usize,
}

/// A cell's text and how it looks.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    pub text: String,
    pub style: Style,
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text, style: Style::new() }
    }
}

/// What rows are compared by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    Unknown,
    Number(u64),
    Text(String),
}

impl From<Option<u64>> for Rank {
    fn from(value: Option<u64>) -> Self {
        value.map_or(Self::Unknown, Self::Number)
    }
}

/// One column.
pub struct Column {
    pub title: &'static str,
    /// Cells it needs.
    pub width: u16,
    /// Takes what is left over.
    pub grows: bool,
    /// Numbers stand at the right.
    pub right: bool,
    /// Columns with the highest number go first where there is no room; 0 stays.
    pub drop: u8,
    /// The largest first, when sorted by it.
    pub descending: bool,
    /// The cell of a row, given its place in the picture and its width.
    pub cell: fn(&Context<'_>, usize, u16) -> Cell,
    /// What to sort by.
    pub rank: fn(&Context<'_>, usize) -> Rank,
}

/// The columns of a list, from left to right.
pub fn of(rows: Rows) -> &'static [Column] {
    match rows {
        Rows::Endpoints => endpoints::COLUMNS,
        Rows::Groups => groups::COLUMNS,
        Rows::Processes => processes::COLUMNS,
        Rows::Connections => connections::COLUMNS,
        Rows::Findings => findings::COLUMNS,
    }
}

/// How a list is sorted at first: the column's place, and whether the largest comes first.
pub fn usual_sort(rows: Rows) -> (usize, bool) {
    let title = match rows {
        Rows::Endpoints | Rows::Groups | Rows::Processes => "OPEN",
        Rows::Connections => "AGE",
        Rows::Findings => "SEVERITY",
    };
    let columns = of(rows);
    let at = columns.iter().position(|column| column.title == title).unwrap_or(0);
    (at, columns.get(at).is_some_and(|column| column.descending))
}

/// Places in the picture of the rows that belong to the subject.
pub fn items(context: &Context<'_>, rows: Rows) -> Vec<usize> {
    match rows {
        Rows::Endpoints => endpoints::items(context),
        Rows::Groups => groups::items(context),
        Rows::Processes => processes::items(context),
        Rows::Connections => connections::items(context),
        Rows::Findings => findings::items(context),
    }
}

/// What a row stands for.
pub fn subject(picture: &Picture, rows: Rows, item: usize) -> Option<Subject> {
    let overview = &picture.overview;
    Some(match rows {
        Rows::Endpoints => {
            let endpoint = overview.endpoints.get(item)?;
            Subject::Endpoint { id: endpoint.id.clone(), role: endpoint.role }
        }
        Rows::Groups => Subject::Group(overview.launcher_groups.get(item)?.id.clone()),
        Rows::Processes => Subject::process(overview.processes.get(item)?),
        Rows::Connections => Subject::Connection(picture.connection_list().get(item)?.id.clone()),
        Rows::Findings => Subject::Finding(overview.findings.get(item)?.id.clone()),
    })
}

/// Whether a row contains what the filter says, in any case; `wanted` is in lower case.
pub fn contains(picture: &Picture, rows: Rows, item: usize, wanted: &str) -> bool {
    let has = |text: &str| text.to_lowercase().contains(wanted);
    let found = match rows {
        Rows::Endpoints => endpoints::words(picture, item, &has),
        Rows::Groups => groups::words(picture, item, &has),
        Rows::Processes => processes::words(picture, item, &has),
        Rows::Connections => connections::words(picture, item, &has),
        Rows::Findings => findings::words(picture, item, &has),
    };
    found.unwrap_or(false)
}

/// Filters and sorts; rows that are equal stay in the picture's order, which is stable.
pub fn order(context: &Context<'_>, rows: Rows, sort: usize, descending: bool, filter: &str) -> Vec<usize> {
    let mut order = items(context, rows);
    if !filter.is_empty() {
        let wanted = filter.to_lowercase();
        order.retain(|item| contains(context.picture, rows, *item, &wanted));
    }
    let Some(column) = of(rows).get(sort) else { return order };
    if descending {
        order.sort_by_cached_key(|item| std::cmp::Reverse((column.rank)(context, *item)));
    } else {
        order.sort_by_cached_key(|item| (column.rank)(context, *item));
    }
    order
}

/// The letter of what is open about a row.
fn mark(context: &Context<'_>, severity: Option<Severity>) -> Cell {
    match severity {
        Some(severity) => Cell { text: letter(severity).to_owned(), style: context.look.palette.severity(severity) },
        None => Cell::default(),
    }
}

/// Text of somebody else's.
fn shown(text: &str) -> Cell {
    escape(text).into_owned().into()
}

/// A number for a column of counts.
fn counted(value: u64) -> Cell {
    super::figures::count(value).into()
}

fn severity_rank(severity: Option<Severity>) -> Rank {
    severity.map(|severity| severity as u64).into()
}
