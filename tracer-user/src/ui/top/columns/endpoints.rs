//! Databases.

use tracer_core::event::Role;
use tracer_core::snapshot::{Endpoint, LimitSource};
use tracer_core::tcp::TcpState;

use super::super::figures::{count, gauge, percent, sparkline};
use super::super::page::Subject;
use super::super::picture::{Picture, last_minute, series};
use super::{Cell, Column, Context, Rank, counted, mark, severity_rank, shown};

/// From here on a gauge is painted as what it is: the daemon's own thresholds are in its findings.
const FULL_PERCENT: u64 = 95;
const NEARLY_FULL_PERCENT: u64 = 80;

pub const COLUMNS: &[Column] = &[
    Column {
        title: "!",
        width: 1,
        grows: false,
        right: false,
        drop: 0,
        descending: true,
        cell: |context, item, _| mark(context, with(context, item, |it| context.picture.endpoint_severity(&it.id))),
        rank: |context, item| severity_rank(with(context, item, |it| context.picture.endpoint_severity(&it.id))),
    },
    Column {
        title: "ENDPOINT",
        width: 13,
        grows: true,
        right: false,
        drop: 0,
        descending: false,
        cell: |context, item, _| with(context, item, |it| Some(shown(&it.name))).unwrap_or_default(),
        rank: |context, item| Rank::Text(with(context, item, |it| Some(it.name.clone())).unwrap_or_default()),
    },
    Column {
        title: "ROLE",
        width: 6,
        grows: false,
        right: false,
        drop: 2,
        descending: false,
        cell: |context, item, _| with(context, item, |it| Some(role(it.role).to_owned().into())).unwrap_or_default(),
        rank: |context, item| Rank::Text(with(context, item, |it| Some(role(it.role).to_owned())).unwrap_or_default()),
    },
    Column {
        title: "DATABASE",
        width: 10,
        grows: false,
        right: false,
        drop: 9,
        descending: false,
        cell: |context, item, _| with(context, item, |it| Some(shown(&it.database))).unwrap_or_default(),
        rank: |context, item| Rank::Text(with(context, item, |it| Some(it.database.clone())).unwrap_or_default()),
    },
    Column {
        title: "OPEN",
        width: 5,
        grows: false,
        right: true,
        drop: 0,
        descending: true,
        cell: |context, item, _| with(context, item, |it| Some(counted(it.open.into()))).unwrap_or_default(),
        rank: |context, item| with(context, item, |it| Some(u64::from(it.open))).into(),
    },
    Column {
        title: "LIMIT",
        width: 6,
        grows: false,
        right: true,
        drop: 4,
        descending: true,
        cell: |context, item, _| with(context, item, |it| Some(limit(it).into())).unwrap_or_default(),
        rank: |context, item| with(context, item, |it| it.limit.map(|limit| u64::from(limit.value))).into(),
    },
    Column {
        title: "USED",
        width: 11,
        grows: false,
        right: false,
        drop: 1,
        descending: true,
        cell: |context, item, width| with(context, item, |it| used(context, it, width)).unwrap_or_default(),
        rank: |context, item| with(context, item, |it| it.limit.map(|limit| percent(it.open, limit.value))).into(),
    },
    Column {
        title: "TREND",
        width: 12,
        grows: true,
        right: false,
        drop: 3,
        descending: true,
        cell: |context, item, width| with(context, item, |it| trend(context, it, width)).unwrap_or_default(),
        rank: |context, item| with(context, item, |it| Some(growth(it))).into(),
    },
    Column {
        title: "+/MIN",
        width: 6,
        grows: false,
        right: true,
        drop: 5,
        descending: true,
        cell: |context, item, _| with(context, item, |it| Some(counted(last_minute(it).0))).unwrap_or_default(),
        rank: |context, item| with(context, item, |it| Some(last_minute(it).0)).into(),
    },
    Column {
        title: "-/MIN",
        width: 6,
        grows: false,
        right: true,
        drop: 6,
        descending: true,
        cell: |context, item, _| with(context, item, |it| Some(counted(last_minute(it).1))).unwrap_or_default(),
        rank: |context, item| with(context, item, |it| Some(last_minute(it).1)).into(),
    },
    Column {
        title: "FAILED",
        width: 7,
        grows: false,
        right: true,
        drop: 7,
        descending: true,
        cell: |context, item, _| with(context, item, |it| Some(counted(it.failed_total))).unwrap_or_default(),
        rank: |context, item| with(context, item, |it| Some(it.failed_total)).into(),
    },
    Column {
        title: "STATES",
        width: 24,
        grows: false,
        right: false,
        drop: 8,
        descending: true,
        cell: |context, item, _| with(context, item, |it| Some(states(it).into())).unwrap_or_default(),
        // What is not ESTABLISHED is what one looks for.
        rank: |context, item| with(context, item, |it| Some(unusual(it))).into(),
    },
];

pub fn items(context: &Context<'_>) -> Vec<usize> {
    let picture = context.picture;
    let belongs = |it: &Endpoint| match context.subject {
        Subject::Process { pid, .. } => picture.process(*pid).is_some_and(|process| {
            process.connections.iter().any(|each| each.endpoint == it.id && each.role == it.role)
        }),
        Subject::Group(id) => picture.group(id).is_some_and(|group| group.endpoints.contains(&it.id)),
        _ => true,
    };
    let all = picture.overview.endpoints.iter().enumerate();
    all.filter(|(_, it)| context.only.endpoint(&it.id) && belongs(it)).map(|(item, _)| item).collect()
}

pub fn words(picture: &Picture, item: usize, has: &dyn Fn(&str) -> bool) -> Option<bool> {
    let it = picture.overview.endpoints.get(item)?;
    Some(has(&it.name) || has(&it.id) || has(&it.database) || has(role(it.role)))
}

fn with<T>(context: &Context<'_>, item: usize, what: impl FnOnce(&Endpoint) -> Option<T>) -> Option<T> {
    context.picture.overview.endpoints.get(item).and_then(what)
}

pub fn role(role: Role) -> &'static str {
    match role {
        Role::Client => "client",
        Role::Server => "server",
    }
}

/// An inferred one is about so many.
fn limit(it: &Endpoint) -> String {
    match it.limit {
        Some(limit) if limit.source == LimitSource::Inferred => format!("~{}", count(limit.value.into())),
        Some(limit) => count(limit.value.into()),
        None => "-".to_owned(),
    }
}

fn used(context: &Context<'_>, it: &Endpoint, width: u16) -> Option<Cell> {
    let limit = it.limit?;
    let text = gauge(it.open, limit.value, width, context.look.glyphs);
    let palette = context.look.palette;
    let style = match percent(it.open, limit.value) {
        FULL_PERCENT.. => palette.severity(tracer_core::finding::Severity::Critical),
        NEARLY_FULL_PERCENT.. => palette.severity(tracer_core::finding::Severity::Warning),
        _ => palette.plain(),
    };
    Some(Cell { text, style })
}

fn trend(context: &Context<'_>, it: &Endpoint, width: u16) -> Option<Cell> {
    let series = series(it, context.zoom)?;
    Some(Cell { text: sparkline(&series.open, width, context.look.glyphs), style: context.look.palette.chart() })
}

/// By how much more are open than a minute ago.
fn growth(it: &Endpoint) -> u64 {
    let (opened, closed, _) = last_minute(it);
    opened.saturating_sub(closed)
}

/// `93 ESTABLISHED 3 CLOSE_WAIT`, the most first.
pub fn states(it: &Endpoint) -> String {
    let mut states: Vec<(&TcpState, &u32)> = it.by_state.iter().filter(|(_, count)| **count > 0).collect();
    states.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let words: Vec<String> = states.iter().map(|(state, count)| format!("{count} {}", state.name())).collect();
    words.join(" ")
}

fn unusual(it: &Endpoint) -> u64 {
    let usual = |state: &TcpState| *state == TcpState::Established;
    it.by_state.iter().filter(|(state, _)| !usual(state)).map(|(_, count)| u64::from(*count)).sum()
}
