//! Mistakes: where each one is, and what is wrong. They are gathered, so that a user sees all of them at once.

use std::ops::Range;

/// Most mistakes that are listed; the rest is counted.
const LISTED_MAX: usize = 100;

/// Where a text of TOML comes from.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// A file, as it is shown, and its text.
    File { path: &'a str, text: &'a str },
    /// `--set`
    Set(&'a str),
}

impl Source<'_> {
    /// `FILE:LINE:COLUMN`, both from 1, columns in characters.
    pub fn place(&self, offset: usize) -> String {
        match self {
            Self::File { path, text } => {
                let before = text.get(..offset).unwrap_or(text);
                let line = before.bytes().filter(|byte| *byte == b'\n').count();
                let column = before.rsplit('\n').next().unwrap_or_default().chars().count();
                format!("{path}:{}:{}", line + 1, column + 1)
            }
            Self::Set(set) => format!("--set {set:?}"),
        }
    }

    /// The line at that place, from 0.
    fn line(&self, offset: usize) -> usize {
        match self {
            Self::File { text, .. } => text.get(..offset).unwrap_or(text).bytes().filter(|byte| *byte == b'\n').count(),
            Self::Set(_) => 0,
        }
    }
}

/// What was found in one source so far.
pub(super) struct Mistakes<'a> {
    pub source: Source<'a>,
    found: Vec<(usize, String)>,
    /// Lines that cannot be read: what follows from that is not worth a word.
    unreadable: Vec<usize>,
}

impl<'a> Mistakes<'a> {
    pub fn new(source: Source<'a>) -> Self {
        Self { source, found: Vec::new(), unreadable: Vec::new() }
    }

    /// A text that is no TOML there.
    pub fn unreadable(&mut self, offset: usize, why: impl Into<String>) {
        let line = self.source.line(offset);
        if !self.unreadable.contains(&line) {
            self.unreadable.push(line);
            self.found.push((offset, why.into()));
        }
    }

    /// A value that will not do.
    pub fn add(&mut self, span: Range<usize>, why: impl Into<String>) {
        if !self.unreadable.contains(&self.source.line(span.start)) {
            self.found.push((span.start, why.into()));
        }
    }

    /// Sentences with their places, in the order of the text.
    pub fn sentences(mut self) -> Vec<String> {
        self.found.sort();
        self.found.dedup();
        self.found.into_iter().map(|(offset, why)| format!("{}: {why}", self.source.place(offset))).collect()
    }
}

/// Every mistake in the configuration, at least one: each a sentence that says where and what.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub(crate) Vec<String>);

impl ConfigError {
    /// The sentences.
    pub fn mistakes(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Fine if there is none.
    pub(super) fn unless_none(mut mistakes: Vec<String>) -> Result<(), Self> {
        if mistakes.is_empty() {
            return Ok(());
        }
        let beyond = mistakes.len().saturating_sub(LISTED_MAX);
        mistakes.truncate(LISTED_MAX);
        if beyond > 0 {
            mistakes.push(format!("and {beyond} more mistakes"));
        }
        Err(Self(mistakes))
    }
}

impl From<String> for ConfigError {
    fn from(mistake: String) -> Self {
        Self(vec![mistake])
    }
}

impl From<super::Checked> for ConfigError {
    fn from(checked: super::Checked) -> Self {
        Self(checked.mistakes)
    }
}
