//! Where the user is: a subject, the list shown of it, how that is sorted and filtered, and which row is chosen.

use tracer_core::event::Role;
use tracer_core::snapshot::Process;
use tracer_core::time::WallTime;

/// Longest filter.
const FILTER_CHARS_MAX: usize = 64;

/// What a page is about; also what a row stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    Everything,
    Endpoint { id: String, role: Role },
    Group(String),
    Process { pid: u32, started: WallTime },
    Connection(String),
    Finding(String),
}

impl Subject {
    pub fn process(process: &Process) -> Self {
        Self::Process { pid: process.pid, started: process.start_time }
    }

    /// The endpoint's key, if it is one.
    pub fn endpoint(&self) -> Option<(&str, Role)> {
        match self {
            Self::Endpoint { id, role } => Some((id, *role)),
            _ => None,
        }
    }

    /// The lists a page about it has, the first one first; none for a page of text.
    pub fn lists(&self) -> &'static [Rows] {
        match self {
            Self::Everything => &Rows::ALL,
            Self::Endpoint { .. } => &[Rows::Processes, Rows::Groups, Rows::Connections, Rows::Findings],
            Self::Group(_) => &[Rows::Processes, Rows::Endpoints, Rows::Findings],
            Self::Process { .. } => &[Rows::Connections, Rows::Endpoints, Rows::Findings],
            Self::Connection(_) | Self::Finding(_) => &[],
        }
    }
}

/// What a list consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    Endpoints,
    Groups,
    Processes,
    Connections,
    Findings,
}

impl Rows {
    /// In the order of the keys 1 to 5.
    pub const ALL: [Self; 5] = [Self::Endpoints, Self::Groups, Self::Processes, Self::Connections, Self::Findings];

    pub fn name(self) -> &'static str {
        match self {
            Self::Endpoints => "endpoints",
            Self::Groups => "groups",
            Self::Processes => "processes",
            Self::Connections => "connections",
            Self::Findings => "findings",
        }
    }

    /// Its place among [`Rows::ALL`].
    pub fn place(self) -> usize {
        Self::ALL.iter().position(|rows| *rows == self).unwrap_or(0)
    }
}

/// One page.
#[derive(Clone, Debug)]
pub struct Page {
    pub subject: Subject,
    /// The list shown; none on a page of text.
    pub rows: Option<Rows>,
    /// The column sorted by: its place among all the list has.
    pub sort: usize,
    pub descending: bool,
    /// Shown are rows that contain this.
    pub filter: String,
    /// The chosen row, wherever it moves.
    pub chosen: Option<Subject>,
    /// Its place in `order`.
    pub at: usize,
    /// The first row drawn, or the first line of a text.
    pub offset: usize,
    /// Places of the rows in the picture, filtered and sorted.
    pub order: Vec<usize>,
}

impl Page {
    pub fn new(subject: Subject) -> Self {
        let rows = subject.lists().first().copied();
        let mut page = Self::blank(subject, rows);
        page.sort_as_usual();
        page
    }

    /// One of the five views.
    pub fn root(rows: Rows) -> Self {
        let mut page = Self::blank(Subject::Everything, Some(rows));
        page.sort_as_usual();
        page
    }

    fn blank(subject: Subject, rows: Option<Rows>) -> Self {
        let (filter, order) = (String::new(), Vec::new());
        Self { subject, rows, sort: 0, descending: false, filter, chosen: None, at: 0, offset: 0, order }
    }

    /// The next list of this subject, or the one before.
    pub fn turn(&mut self, by: isize) {
        let lists = self.subject.lists();
        let Some(now) = self.rows.and_then(|rows| lists.iter().position(|each| *each == rows)) else { return };
        let next = (now as isize + by).rem_euclid(lists.len() as isize) as usize;
        let (subject, rows) = (self.subject.clone(), lists.get(next).copied());
        *self = Self::blank(subject, rows);
        self.sort_as_usual();
    }

    fn sort_as_usual(&mut self) {
        if let Some(rows) = self.rows {
            (self.sort, self.descending) = super::columns::usual_sort(rows);
        }
    }

    /// Sorts by the next column, or the one before, the way that column is usually looked at.
    pub fn sort_by_neighbour(&mut self, by: isize) {
        let Some(rows) = self.rows else { return };
        let columns = super::columns::of(rows);
        let next = (self.sort as isize + by).rem_euclid(columns.len().max(1) as isize) as usize;
        self.sort = next;
        self.descending = columns.get(next).is_some_and(|column| column.descending);
    }

    pub fn type_into_filter(&mut self, c: char) {
        if self.filter.chars().count() < FILTER_CHARS_MAX && !c.is_control() {
            self.filter.push(c);
            self.go_to_top();
        }
    }

    pub fn erase_from_filter(&mut self) {
        self.filter.pop();
        self.go_to_top();
    }

    pub fn clear_filter(&mut self) {
        self.filter.clear();
    }

    fn go_to_top(&mut self) {
        (self.chosen, self.at, self.offset) = (None, 0, 0);
    }
}
