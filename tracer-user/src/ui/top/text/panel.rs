//! What stands above a list: the endpoint, group or process that it belongs to.

use ratatui::style::Style;
use ratatui::text::Line;
use tracer_core::snapshot::{Endpoint, LauncherGroup, Process};

use super::super::columns::{role, states};
use super::super::figures::{chart, count, date, duration, gauge, percent};
use super::super::model::Model;
use super::super::page::Subject;
use super::super::picture::{Picture, last_minute, process_name, series};
use crate::ui::escape;

/// Lines of an endpoint's chart.
const CHART_HIGH: u16 = 4;
/// Cells of its gauge.
const GAUGE_WIDE: u16 = 34;
/// Parents that are named.
const PARENTS_SHOWN: usize = 6;

/// At most `high` lines.
pub fn panel(model: &Model, width: u16, high: u16) -> Vec<Line<'static>> {
    let Some(picture) = &model.picture else { return Vec::new() };
    let mut lines = match &model.page().subject {
        Subject::Everything | Subject::Connection(_) | Subject::Finding(_) => return Vec::new(),
        Subject::Endpoint { id, role } => match picture.endpoint(id, *role) {
            Some(endpoint) => about_endpoint(model, endpoint, width, high),
            None => vec![Line::raw("this endpoint has no connections any more")],
        },
        Subject::Group(id) => match picture.group(id) {
            Some(group) => about_group(picture, group),
            None => vec![Line::raw("this group has no processes any more")],
        },
        Subject::Process { pid, started } => match picture.process(*pid).filter(|it| it.start_time == *started) {
            Some(process) => about_process(model, picture, process),
            None => vec![Line::raw(format!("pid {pid} has ended and is forgotten"))],
        },
    };
    lines.truncate(usize::from(high));
    lines
}

fn about_endpoint(model: &Model, it: &Endpoint, width: u16, high: u16) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    let id = if it.name == it.id { String::new() } else { format!("  {}", escape(&it.id)) };
    let head = format!("{}{id}  {}, this host is the {}", escape(&it.name), escape(&it.database), role(it.role));
    lines.push(Line::styled(head, model.look.palette.strong()));
    let peaks = format!("at most {} open, {} in use", count(it.open_peak.into()), count(it.in_use_peak.into()));
    lines.push(Line::raw(match it.limit {
        Some(limit) => {
            let gauge = gauge(it.open, limit.value, GAUGE_WIDE.min(width / 2), model.look.glyphs);
            let left = limit.value.saturating_sub(it.open);
            let source = limit.source.name();
            format!("{} of {} open {gauge}, {left} left (limit: {source})", it.open, limit.value)
        }
        None => format!("{} open, limit unknown (--limit tells it)", it.open),
    }));
    let states = states(it);
    let states = if states.is_empty() { "no live sockets".to_owned() } else { states };
    lines.push(Line::raw(format!("{states}; {peaks}")));
    let (opened, closed, known_s) = last_minute(it);
    let dropped: u64 = it.drops.iter().map(|drops| drops.packets).sum();
    let dropped = match it.drops.first() {
        Some(most) => format!("; {dropped} packets dropped here, most by {}", escape(&most.reason)),
        None => String::new(),
    };
    lines.push(Line::raw(format!(
        "opened {} (+{opened} in {known_s} s), closed {} (-{closed}), failed {}{dropped}",
        it.opened_total, it.closed_total, it.failed_total
    )));
    if high > 4 + CHART_HIGH {
        lines.extend(counts_over_time(model, it, width));
    }
    lines
}

fn counts_over_time(model: &Model, it: &Endpoint, width: u16) -> Vec<Line<'static>> {
    let Some(series) = series(it, model.zoom) else { return Vec::new() };
    let (least, most) = (series.open.iter().min().unwrap_or(&0), series.open.iter().max().unwrap_or(&0));
    let length = duration(u64::from(series.step_s) * series.open.len() as u64);
    let share = it.limit.map(|limit| format!(", {}% of the limit", percent(*most, limit.value))).unwrap_or_default();
    let caption = format!("open over {length}, a step is {} s: {least} to {most}{share} (z: longer)", series.step_s);
    let style = model.look.palette.chart();
    let bars = chart(&series.open, width, CHART_HIGH, model.look.glyphs).into_iter();
    bars.map(|line| Line::styled(line, style)).chain([Line::styled(caption, model.look.palette.weak())]).collect()
}

fn about_group(picture: &Picture, it: &LauncherGroup) -> Vec<Line<'static>> {
    let names: Vec<_> = it.endpoints.iter().map(|id| escape(picture.endpoint_name(id))).collect();
    let head = Style::new().add_modifier(ratatui::style::Modifier::BOLD);
    vec![
        Line::styled(format!("launcher group {}", escape(&it.label)), head),
        Line::raw(format!("{} live processes hold {} connections to {}", it.instances, it.open, names.join(", "))),
    ]
}

fn about_process(model: &Model, picture: &Picture, it: &Process) -> Vec<Line<'static>> {
    let inside = it.ns_pid.map(|pid| format!(" ({pid} in its container)")).unwrap_or_default();
    let ended = if it.alive { "" } else { ", ended" };
    let user =
        it.user.clone().or_else(|| it.uid.map(|uid| format!("uid {uid}"))).unwrap_or_else(|| "unknown".to_owned());
    let started = date(it.start_time, &model.look.zone);
    let head = format!("{}  pid {}{inside}{ended}, user {}", escape(process_name(it)), it.pid, escape(&user));
    let mut lines = vec![Line::styled(head, model.look.palette.strong())];
    let mut parts = vec![format!("started {started}")];
    parts.extend(it.exe.as_ref().map(|exe| format!("runs {}", escape(exe))));
    parts.extend(it.script.as_ref().map(|script| format!("script {}", escape(script))));
    lines.push(Line::raw(parts.join(", ")));
    let parents = it.ancestors.iter().take(PARENTS_SHOWN);
    let parents: Vec<String> = parents.map(|each| format!("{}[{}]", escape(&each.comm), each.pid)).collect();
    if !parents.is_empty() {
        lines.push(Line::raw(format!("started by {}", parents.join(" < "))));
    }
    let group = it.launcher_group.as_deref().and_then(|id| picture.group(id));
    let mut home = Vec::new();
    home.extend(group.map(|group| format!("group {}", escape(&group.label))));
    home.extend(it.systemd_unit.as_ref().map(|unit| format!("unit {}", escape(unit))));
    home.extend(it.container_id.as_ref().map(|id| format!("container {}", escape(id))));
    if !home.is_empty() {
        lines.push(Line::raw(home.join(", ")));
    }
    lines.extend(it.cmdline.as_ref().map(|line| Line::raw(format!("command line {}", escape(line)))));
    lines
}
