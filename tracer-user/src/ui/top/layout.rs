//! Which line of the screen is for what. One place, so that scrolling and drawing agree.

use ratatui::layout::Rect;

use super::model::Model;
use super::text;

/// Below this the screen only says that it is too small.
pub const LEAST: (u16, u16) = (20, 6);
/// Lines that a list keeps, whatever is above it.
const ROWS_LEAST: u16 = 3;
/// From here on there is a line of hints at the bottom.
const HINTS_FROM: u16 = 12;

/// Areas from top to bottom. Those that are not there have no height.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub title: Rect,
    pub tabs: Rect,
    pub banner: Rect,
    pub trail: Rect,
    pub panel: Rect,
    pub heading: Rect,
    pub rows: Rect,
    pub hints: Rect,
}

impl Layout {
    /// None where there is no room for anything.
    pub fn new(model: &Model) -> Option<Self> {
        let (width, height) = model.size;
        if width < LEAST.0 || height < LEAST.1 {
            return None;
        }
        let mut from = 0;
        let mut take = |lines: u16| {
            let area = Rect { x: 0, y: from, width, height: lines.min(height - from) };
            from += area.height;
            area
        };
        let is_list = model.page().rows.is_some();
        let (title, tabs) = (take(1), take(1));
        let banner = take(u16::from(text::banner(model).is_some()));
        let trail = take(1);
        let hints = u16::from(height >= HINTS_FROM);
        let heading = u16::from(is_list);
        let left = height - trail.bottom();
        let spare = left.saturating_sub(hints + heading + ROWS_LEAST);
        let panel = if is_list && spare > 1 { text::panel(model, width, spare).len() } else { 0 };
        let panel = take(u16::try_from(panel).unwrap_or(0).min(spare));
        let heading = take(heading);
        let rows = take(height.saturating_sub(heading.bottom()).saturating_sub(hints));
        Some(Self { title, tabs, banner, trail, panel, heading, rows, hints: take(hints) })
    }
}
