//! A timeline as SVG, once for wide pages and paper and once for phones. Colours are those of the light page; the style
//! sheet turns each into the one of the dark page, by its value.

use std::ops::Range;

use plotters::backend::SVGBackend;
use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::Shift;
use plotters::coord::cartesian::Cartesian2d;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::coord::types::RangedCoordi64;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::{PathElement, Polygon, Text};
use plotters::series::{AreaSeries, LineSeries};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, IntoFont, RGBColor, ShapeStyle, TextStyle};

use super::ReportError;
use super::format::{count, strftime};
use super::timeline::{Mark, Point, Timeline};
use tracer_core::time::WallTime;

const INK: RGBColor = RGBColor(0x59, 0x63, 0x6E);
const GRID: RGBColor = RGBColor(0xD8, 0xDE, 0xE4);
const OPEN: RGBColor = RGBColor(0x09, 0x69, 0xDA);
const IN_USE: RGBColor = RGBColor(0x1A, 0x7F, 0x37);
const LIMIT: RGBColor = RGBColor(0xCF, 0x22, 0x2E);
const CRITICAL: RGBColor = RGBColor(0xCF, 0x22, 0x2F);
const WARNING: RGBColor = RGBColor(0x9A, 0x67, 0x00);
const PLAIN: RGBColor = RGBColor(0x6E, 0x77, 0x81);
/// Of the groups' staircases, in their order.
const GROUPS: [RGBColor; super::timeline::STAIRCASES_MAX] =
    [RGBColor(0x82, 0x50, 0xDF), RGBColor(0xBC, 0x4C, 0x00), RGBColor(0x0E, 0x7C, 0x86), RGBColor(0xBF, 0x39, 0x89)];

/// Marks closer than this share their sign.
const SIGN_PX: i32 = 16;
/// Names of lines are this far from each other, at least.
const LETTER_PX: i32 = 12;

/// What a chart's size allows.
struct Format {
    size: (u32, u32),
    font: f64,
    ticks: usize,
    left: i32,
}

const WIDE: Format = Format { size: (960, 280), font: 15.0, ticks: 10, left: 48 };
const NARROW: Format = Format { size: (380, 260), font: 14.0, ticks: 4, left: 40 };

/// One timeline, drawn.
#[derive(Debug)]
pub struct Chart {
    /// For wide pages, and for paper.
    pub wide: String,
    /// For phones.
    pub narrow: String,
}

/// Draws it.
pub fn draw(timeline: &Timeline) -> Result<Chart, ReportError> {
    Ok(Chart { wide: svg(timeline, &WIDE)?, narrow: svg(timeline, &NARROW)? })
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Context<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<TimeAxis, RangedCoordi64>>;

fn svg(timeline: &Timeline, format: &Format) -> Result<String, ReportError> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, format.size).into_drawing_area();
        lines(timeline, format, &area).map_err(|error| ReportError::Chart(error.to_string()))?;
        area.present().map_err(|error| ReportError::Chart(error.to_string()))?;
    }
    Ok(text)
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

fn lines(timeline: &Timeline, format: &Format, area: &Area<'_>) -> Drawn {
    let time = TimeAxis { from_ms: timeline.from_ms, to_ms: timeline.to_ms, ticks: format.ticks };
    let top = i64::from(timeline.top);
    // Room above for the signs of the marks, and to the right for the letters.
    let mut builder = ChartBuilder::on(area);
    builder.margin_top(20).margin_right(20).margin_left(2).x_label_area_size(24).y_label_area_size(format.left);
    let mut chart = builder.build_cartesian_2d(time, 0..top + (top / 12).max(1))?;
    let label = TextStyle::from(("sans-serif", format.font).into_font()).color(&INK);
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(GRID.mix(0.0))
        .bold_line_style(GRID)
        .axis_style(GRID)
        .label_style(label)
        .y_labels(6)
        .y_label_formatter(&|number| count(u64::try_from(*number).unwrap_or(0)))
        .draw()?;
    chart.draw_series(AreaSeries::new(corners(&timeline.open), 0, OPEN.mix(0.12)))?;
    chart.draw_series(LineSeries::new(corners(&timeline.open), ShapeStyle::from(&OPEN).stroke_width(2)))?;
    chart.draw_series(LineSeries::new(corners(&timeline.in_use), ShapeStyle::from(&IN_USE).stroke_width(2)))?;
    for (staircase, colour) in timeline.staircases.iter().zip(GROUPS) {
        chart.draw_series(LineSeries::new(corners(&staircase.points), ShapeStyle::from(&colour).stroke_width(2)))?;
    }
    if let Some(limit) = timeline.limit {
        let line = [(timeline.from_ms, i64::from(limit)), (timeline.to_ms, i64::from(limit))];
        chart.draw_series(LineSeries::new(line, ShapeStyle::from(&LIMIT).stroke_width(2)))?;
    }
    letters(timeline, format, &chart, area)?;
    marks(timeline, format, &chart, area)
}

/// From points to the line through them: a number holds until the next one.
fn corners(points: &[Point]) -> Vec<(i64, i64)> {
    let mut line = Vec::with_capacity(points.len() * 2);
    let mut last = None;
    for (at, number) in points {
        let number = i64::from(*number);
        line.extend(last.map(|last| (*at, last)));
        line.push((*at, number));
        last = Some(number);
    }
    line
}

/// The staircases' letters, where their lines end.
fn letters(timeline: &Timeline, format: &Format, chart: &Context<'_, '_>, area: &Area<'_>) -> Drawn {
    let mut taken: Vec<i32> = Vec::new();
    for (staircase, colour) in timeline.staircases.iter().zip(GROUPS) {
        let Some((at, number)) = staircase.points.last() else { continue };
        let (x, mut y) = chart.backend_coord(&(*at, i64::from(*number)));
        while taken.iter().any(|other| (other - y).abs() < LETTER_PX) {
            y += LETTER_PX;
        }
        taken.push(y);
        let style = TextStyle::from(("sans-serif", format.font).into_font()).color(&colour);
        area.draw(&Text::new(staircase.letter.to_string(), (x + 6, y), style.pos(Pos::new(HPos::Left, VPos::Center))))?;
    }
    Ok(())
}

/// Upright lines with their signs above; triangles where processes started.
fn marks(timeline: &Timeline, format: &Format, chart: &Context<'_, '_>, area: &Area<'_>) -> Drawn {
    let mut signs: Vec<(i32, Vec<&Mark>)> = Vec::new();
    for mark in &timeline.marks {
        let (x, bottom) = chart.backend_coord(&(mark.at_ms, 0));
        let line = PathElement::new(vec![(x, 18), (x, bottom)], ShapeStyle::from(&colour(mark.class).mix(0.7)));
        area.draw(&line)?;
        match signs.last_mut() {
            Some((last, together)) if x - *last < SIGN_PX => together.push(mark),
            _ => signs.push((x, vec![mark])),
        }
    }
    for (x, together) in signs {
        let worst = together.iter().map(|mark| mark.class).max_by_key(|class| rank(class)).unwrap_or("plain");
        let text = match together.as_slice() {
            [one] => one.sign.clone(),
            [one, two] => format!("{},{}", one.sign, two.sign),
            [one, .., last] => format!("{}…{}", one.sign, last.sign),
            [] => continue,
        };
        let colour = colour(worst);
        let style = TextStyle::from(("sans-serif", format.font).into_font()).color(&colour);
        area.draw(&Text::new(text, (x, 15), style.pos(Pos::new(HPos::Center, VPos::Bottom))))?;
    }
    let mut last = i32::MIN;
    for start in &timeline.starts {
        let (x, y) = chart.backend_coord(&(*start, 0));
        if x.saturating_sub(last) >= 3 {
            area.draw(&Polygon::new(vec![(x, y - 7), (x - 4, y), (x + 4, y)], PLAIN.filled()))?;
            last = x;
        }
    }
    Ok(())
}

fn colour(class: &str) -> RGBColor {
    match class {
        "critical" => CRITICAL,
        "warning" => WARNING,
        _ => PLAIN,
    }
}

fn rank(class: &str) -> u8 {
    match class {
        "critical" => 2,
        "warning" => 1,
        _ => 0,
    }
}

/// Time from left to right, with ticks at round moments of UTC.
struct TimeAxis {
    from_ms: i64,
    to_ms: i64,
    ticks: usize,
}

/// Lengths between ticks, in seconds.
const STEPS_S: [i64; 19] = [
    5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800,
    2_592_000,
];

impl TimeAxis {
    fn span_ms(&self) -> i64 {
        self.to_ms.saturating_sub(self.from_ms).max(1)
    }

    fn step_ms(&self) -> i64 {
        let most = i64::try_from(self.ticks).unwrap_or(1).max(1);
        let fits = |step: &&i64| self.span_ms() / (**step * 1_000) < most;
        // Wider than all of them: as many ticks as there may be.
        STEPS_S.iter().find(fits).map_or(self.span_ms() / most, |step| step * 1_000).max(1)
    }
}

impl Ranged for TimeAxis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = i64;

    fn map(&self, value: &i64, limit: (i32, i32)) -> i32 {
        let share = i128::from(value.saturating_sub(self.from_ms)) * i128::from(limit.1 - limit.0);
        limit.0.saturating_add(i32::try_from(share / i128::from(self.span_ms())).unwrap_or(0))
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<i64> {
        let step = self.step_ms();
        let first = self.from_ms.div_euclid(step).saturating_add(1).saturating_mul(step);
        (0..self.ticks)
            .map_while(|at| {
                let at = first.saturating_add(i64::try_from(at).ok()?.saturating_mul(step));
                (at <= self.to_ms).then_some(at)
            })
            .collect()
    }

    fn range(&self) -> Range<i64> {
        self.from_ms..self.to_ms
    }
}

impl ValueFormatter<i64> for TimeAxis {
    fn format_ext(&self, at: &i64) -> String {
        let format = match self.step_ms() {
            ..60_000 => "%H:%M:%S",
            60_000..86_400_000 => "%H:%M",
            _ => "%m-%d",
        };
        strftime(WallTime { unix_ms: *at }, format)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The style sheet has to know each colour: one that it does not know is the light page's on the dark page too.
    #[test]
    fn every_colour_has_a_dark_one() {
        let css = include_str!("../../../templates/report.css");
        for RGBColor(red, green, blue) in
            [INK, GRID, OPEN, IN_USE, LIMIT, CRITICAL, WARNING, PLAIN].into_iter().chain(GROUPS)
        {
            let colour = format!("\"#{red:02X}{green:02X}{blue:02X}\"");
            assert!(css.contains(&colour), "{colour}");
        }
    }

    #[test]
    fn ticks_are_at_round_moments() {
        let from_ms = 1_795_293_667_000;
        for (span_s, ticks, shown) in [
            (60, 4, &["20:41:30", "20:42:00"][..]),
            (3_600, 4, &["21:00", "21:30"]),
            (86_400, 10, &["21:00", "00:00", "03:00", "06:00", "09:00", "12:00", "15:00", "18:00"]),
        ] {
            let axis = TimeAxis { from_ms, to_ms: from_ms + span_s * 1_000, ticks };
            let points = axis.key_points(plotters::coord::ranged1d::BoldPoints(ticks));
            let labels: Vec<String> = points.iter().map(|at| axis.format_ext(at)).collect();
            assert_eq!(labels, shown, "{span_s}");
        }
    }
}
