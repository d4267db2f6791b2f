//! Processes. On an endpoint's page the figures are those at that endpoint.

use tracer_core::snapshot::Process;

use super::super::figures::{clock, duration, seconds_between};
use super::super::page::Subject;
use super::super::picture::{Picture, Sums, process_name, sums};
use super::{Cell, Column, Context, Rank, counted, mark, severity_rank, shown};

pub const COLUMNS: &[Column] = &[
    Column {
        title: "!",
        width: 1,
        grows: false,
        right: false,
        drop: 0,
        descending: true,
        cell: |context, item, _| mark(context, with(context, item, |it| context.picture.pid_severity(it.pid))),
        rank: |context, item| severity_rank(with(context, item, |it| context.picture.pid_severity(it.pid))),
    },
    Column {
        title: "PID",
        width: 7,
        grows: false,
        right: true,
        drop: 0,
        descending: false,
        cell: |context, item, _| with(context, item, |it| Some(it.pid.to_string().into())).unwrap_or_default(),
        rank: |context, item| with(context, item, |it| Some(u64::from(it.pid))).into(),
    },
    Column {
        title: "PROCESS",
        width: 14,
        grows: true,
        right: false,
        drop: 0,
        descending: false,
        cell: |context, item, _| with(context, item, |it| Some(name(context, it))).unwrap_or_default(),
        rank: |context, item| {
            Rank::Text(with(context, item, |it| Some(process_name(it).to_owned())).unwrap_or_default())
        },
    },
    Column {
        title: "GROUP",
        width: 14,
        grows: true,
        right: false,
        drop: 5,
        descending: false,
        cell: |context, item, _| with(context, item, |it| group(context, it).map(shown)).unwrap_or_default(),
        rank: |context, item| {
            Rank::Text(with(context, item, |it| group(context, it).map(str::to_owned)).unwrap_or_default())
        },
    },
    Column {
        title: "USER",
        width: 8,
        grows: false,
        right: false,
        drop: 6,
        descending: false,
        cell: |context, item, _| with(context, item, |it| Some(shown(&user(it)))).unwrap_or_default(),
        rank: |context, item| Rank::Text(with(context, item, |it| Some(user(it))).unwrap_or_default()),
    },
    Column {
        title: "OPEN",
        width: 5,
        grows: false,
        right: true,
        drop: 0,
        descending: true,
        cell: |context, item, _| with(context, item, |it| Some(counted(at(context, it).open))).unwrap_or_default(),
        rank: |context, item| with(context, item, |it| Some(at(context, it).open)).into(),
    },
    Column {
        title: "IN USE",
        width: 7,
        grows: false,
        right: true,
        drop: 4,
        descending: true,
        cell: |context, item, _| {
            with(context, item, |it| Some(counted(at(context, it).in_use_peak))).unwrap_or_default()
        },
        rank: |context, item| with(context, item, |it| Some(at(context, it).in_use_peak)).into(),
    },
    Column {
        title: "OPENED",
        width: 7,
        grows: false,
        right: true,
        drop: 1,
        descending: true,
        cell: |context, item, _| with(context, item, |it| Some(counted(at(context, it).opened))).unwrap_or_default(),
        rank: |context, item| with(context, item, |it| Some(at(context, it).opened)).into(),
    },
    Column {
        title: "CLOSED",
        width: 7,
        grows: false,
        right: true,
        drop: 2,
        descending: true,
        cell: |context, item, _| with(context, item, |it| Some(counted(at(context, it).closed))).unwrap_or_default(),
        rank: |context, item| with(context, item, |it| Some(at(context, it).closed)).into(),
    },
    Column {
        title: "FAILED",
        width: 7,
        grows: false,
        right: true,
        drop: 7,
        descending: true,
        cell: |context, item, _| with(context, item, |it| Some(counted(at(context, it).failed))).unwrap_or_default(),
        rank: |context, item| with(context, item, |it| Some(at(context, it).failed)).into(),
    },
    Column {
        title: "QUIET",
        width: 6,
        grows: false,
        right: true,
        drop: 3,
        descending: true,
        cell: |context, item, _| {
            with(context, item, |it| quiet_s(context, it)).map(|s| duration(s).into()).unwrap_or_default()
        },
        rank: |context, item| with(context, item, |it| quiet_s(context, it)).into(),
    },
    Column {
        title: "STARTED",
        width: 8,
        grows: false,
        right: false,
        drop: 8,
        descending: false,
        cell: |context, item, _| {
            with(context, item, |it| Some(clock(it.start_time, &context.look.zone).into())).unwrap_or_default()
        },
        rank: |context, item| with(context, item, |it| u64::try_from(it.start_time.unix_ms).ok()).into(),
    },
];

pub fn items(context: &Context<'_>) -> Vec<usize> {
    let belongs = |it: &Process| match context.subject {
        Subject::Endpoint { id, role } => it.connections.iter().any(|each| each.endpoint == *id && each.role == *role),
        Subject::Group(id) => it.launcher_group.as_deref() == Some(id),
        _ => true,
    };
    let all = context.picture.overview.processes.iter().enumerate();
    all.filter(|(_, it)| context.only.process(it) && belongs(it)).map(|(item, _)| item).collect()
}

pub fn words(picture: &Picture, item: usize, has: &dyn Fn(&str) -> bool) -> Option<bool> {
    let it = picture.overview.processes.get(item)?;
    let texts = [&it.script, &it.exe, &it.user, &it.systemd_unit, &it.container_id];
    let group = it.launcher_group.as_ref().and_then(|id| picture.group(id));
    Some(
        has(&it.comm)
            || has(&it.pid.to_string())
            || texts.iter().any(|text| text.as_ref().is_some_and(|text| has(text)))
            || group.is_some_and(|group| has(&group.label)),
    )
}

fn with<T>(context: &Context<'_>, item: usize, what: impl FnOnce(&Process) -> Option<T>) -> Option<T> {
    context.picture.overview.processes.get(item).and_then(what)
}

fn at(context: &Context<'_>, it: &Process) -> Sums {
    sums(it, context.subject.endpoint())
}

fn name(context: &Context<'_>, it: &Process) -> Cell {
    let cell = shown(process_name(it));
    if it.alive {
        return cell;
    }
    Cell { text: format!("{} (ended)", cell.text), style: context.look.palette.weak() }
}

fn group<'a>(context: &Context<'a>, it: &Process) -> Option<&'a str> {
    context.picture.group(it.launcher_group.as_deref()?).map(|group| group.label.as_str())
}

fn user(it: &Process) -> String {
    it.user.clone().or_else(|| it.uid.map(|uid| uid.to_string())).unwrap_or_default()
}

/// Since the last byte on any of its connections.
fn quiet_s(context: &Context<'_>, it: &Process) -> Option<u64> {
    at(context, it).last_active_at.map(|last| seconds_between(last, context.picture.overview.captured_at))
}
