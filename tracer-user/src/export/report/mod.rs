//! `socklife report`: a snapshot as one HTML page for the post-mortem. [`model`] says what is shown, as text; [`chart`]
//! draws the timelines; the template has the rest. Knows neither files nor the daemon.
//!
//! Every value in the template passes [`Shown`]: names of processes and of files are what their owners wrote. The charts
//! hold numbers and times alone, so that no such name gets near them.

mod chart;
mod connections;
mod findings;
mod format;
pub mod model;
mod quality;
mod tables;
mod timeline;

use std::fmt;

use askama::Template;
use tracer_core::snapshot::Snapshot;

use crate::ui::escape::escape;
use chart::Chart;
use model::{Page, Timeline};

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A chart could not be drawn.
    #[error("cannot draw a chart: {0}")]
    Chart(String),
    /// The template could not be filled.
    #[error("cannot write the page: {0}")]
    Template(#[from] askama::Error),
}

/// The whole page.
pub fn html(snapshot: &Snapshot) -> Result<String, ReportError> {
    let page = Page::of(snapshot);
    let drawn = page.timelines.iter().map(|timeline| Ok((timeline, chart::draw(timeline)?)));
    let timelines = drawn.collect::<Result<Vec<(&Timeline, Chart)>, ReportError>>()?;
    Ok(Html { page: &page, timelines: &timelines }.render()?)
}

#[derive(Template)]
#[template(path = "report.html")]
struct Html<'a> {
    page: &'a Page,
    timelines: &'a [(&'a Timeline, Chart)],
}

/// How the template escapes: characters that do not show, or reorder what does, become visible; then what HTML reads as
/// markup is taken its meaning.
#[derive(Clone, Copy)]
pub(crate) struct Shown;

impl askama::filters::Escaper for Shown {
    fn write_escaped_str<W: fmt::Write>(&self, to: W, text: &str) -> fmt::Result {
        askama::filters::Html.write_escaped_str(to, &escape(text))
    }
}
