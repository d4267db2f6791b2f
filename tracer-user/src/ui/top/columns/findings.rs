//! Verdicts.

use tracer_core::finding::Finding;

use super::super::figures::{duration, seconds_between};
use super::super::page::Subject;
use super::super::palette::word;
use super::super::picture::{Picture, members};
use super::{Cell, Column, Context, Rank, severity_rank, shown};

/// In place of a severity, where the configuration says not to tell.
const IGNORED: &str = "ignored";

pub const COLUMNS: &[Column] = &[
    Column {
        title: "SEVERITY",
        width: 9,
        grows: false,
        right: false,
        drop: 0,
        descending: true,
        cell: |context, item, _| with(context, item, |it| Some(severity(context, it))).unwrap_or_default(),
        rank: |context, item| {
            severity_rank(with(context, item, |it| Some(it.severity).filter(|_| it.ignored.is_none())))
        },
    },
    Column {
        title: "KIND",
        width: 20,
        grows: false,
        right: false,
        drop: 1,
        descending: false,
        cell: |context, item, _| with(context, item, |it| Some(it.kind.name().to_owned().into())).unwrap_or_default(),
        rank: |context, item| Rank::Text(with(context, item, |it| Some(it.kind.name().to_owned())).unwrap_or_default()),
    },
    Column {
        title: "FOR",
        width: 6,
        grows: false,
        right: true,
        drop: 2,
        descending: true,
        cell: |context, item, _| {
            with(context, item, |it| Some(duration(age_s(context, it)).into())).unwrap_or_default()
        },
        rank: |context, item| with(context, item, |it| Some(age_s(context, it))).into(),
    },
    Column {
        title: "SURE",
        width: 5,
        grows: false,
        right: true,
        drop: 3,
        descending: true,
        cell: |context, item, _| with(context, item, |it| Some(sure(it).into())).unwrap_or_default(),
        rank: |context, item| with(context, item, |it| Some((it.confidence * 1_000.0) as u64)).into(),
    },
    Column {
        title: "SUMMARY",
        width: 20,
        grows: true,
        right: false,
        drop: 0,
        descending: false,
        cell: |context, item, _| with(context, item, |it| Some(shown(&it.summary))).unwrap_or_default(),
        rank: |context, item| Rank::Text(with(context, item, |it| Some(it.summary.clone())).unwrap_or_default()),
    },
];

pub fn items(context: &Context<'_>) -> Vec<usize> {
    let pids = match context.subject {
        Subject::Group(id) => members(context.picture, id),
        Subject::Process { pid, .. } => [*pid].into(),
        _ => std::collections::HashSet::new(),
    };
    let names = |it: &Finding| it.subject.pids.iter().any(|pid| pids.contains(pid));
    let belongs = |it: &Finding| match context.subject {
        Subject::Endpoint { id, .. } => it.subject.endpoint.as_ref() == Some(id),
        Subject::Group(id) => it.subject.launcher_group.as_ref() == Some(id) || names(it),
        Subject::Process { .. } => names(it),
        _ => true,
    };
    let all = context.picture.overview.findings.iter().enumerate();
    all.filter(|(_, it)| context.only.finding(it) && belongs(it)).map(|(item, _)| item).collect()
}

pub fn words(picture: &Picture, item: usize, has: &dyn Fn(&str) -> bool) -> Option<bool> {
    let it = picture.overview.findings.get(item)?;
    Some(has(&it.summary) || has(it.kind.name()) || has(if it.ignored.is_some() { IGNORED } else { word(it.severity) }))
}

fn with<T>(context: &Context<'_>, item: usize, what: impl FnOnce(&Finding) -> Option<T>) -> Option<T> {
    context.picture.overview.findings.get(item).and_then(what)
}

fn severity(context: &Context<'_>, it: &Finding) -> Cell {
    if it.ignored.is_some() {
        return IGNORED.to_owned().into();
    }
    Cell { text: word(it.severity).to_owned(), style: context.look.palette.severity(it.severity) }
}

fn age_s(context: &Context<'_>, it: &Finding) -> u64 {
    seconds_between(it.first_seen, context.picture.overview.captured_at)
}

pub fn sure(it: &Finding) -> String {
    format!("{:.0}%", it.confidence * 100.0)
}
