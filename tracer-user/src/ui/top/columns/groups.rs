//! Processes started the same way.

use tracer_core::snapshot::LauncherGroup;

use super::super::page::Subject;
use super::super::picture::{Picture, group_open, members, sums};
use super::{Cell, Column, Context, Rank, counted, mark, severity_rank, shown};

pub const COLUMNS: &[Column] = &[
    Column {
        title: "!",
        width: 1,
        grows: false,
        right: false,
        drop: 0,
        descending: true,
        cell: |context, item, _| mark(context, with(context, item, |it| context.picture.group_severity(it))),
        rank: |context, item| severity_rank(with(context, item, |it| context.picture.group_severity(it))),
    },
    Column {
        title: "LAUNCHER GROUP",
        width: 16,
        grows: true,
        right: false,
        drop: 0,
        descending: false,
        cell: |context, item, _| with(context, item, |it| Some(shown(&it.label))).unwrap_or_default(),
        rank: |context, item| Rank::Text(with(context, item, |it| Some(it.label.clone())).unwrap_or_default()),
    },
    Column {
        title: "COPIES",
        width: 7,
        grows: false,
        right: true,
        drop: 1,
        descending: true,
        cell: |context, item, _| with(context, item, |it| Some(counted(it.instances.into()))).unwrap_or_default(),
        rank: |context, item| with(context, item, |it| Some(u64::from(it.instances))).into(),
    },
    Column {
        title: "OPEN",
        width: 6,
        grows: false,
        right: true,
        drop: 0,
        descending: true,
        cell: |context, item, _| with(context, item, |it| Some(counted(open(context, it)))).unwrap_or_default(),
        rank: |context, item| with(context, item, |it| Some(open(context, it))).into(),
    },
    Column {
        title: "ENDPOINTS",
        width: 22,
        grows: true,
        right: false,
        drop: 2,
        descending: true,
        cell: |context, item, _| with(context, item, |it| Some(endpoints(context, it))).unwrap_or_default(),
        rank: |context, item| with(context, item, |it| Some(it.endpoints.len() as u64)).into(),
    },
    Column {
        title: "PIDS",
        width: 24,
        grows: false,
        right: false,
        drop: 3,
        descending: false,
        cell: |context, item, _| with(context, item, |it| Some(pids(it).into())).unwrap_or_default(),
        rank: |context, item| with(context, item, |it| it.pids.first().map(|pid| u64::from(*pid))).into(),
    },
];

/// Pids that are named; the rest is counted.
const PIDS_SHOWN: usize = 3;

pub fn items(context: &Context<'_>) -> Vec<usize> {
    let (picture, only) = (context.picture, context.only);
    let is_wanted = |it: &LauncherGroup| {
        (only.pids.is_empty() || it.pids.iter().any(|pid| only.pid(*pid)))
            && (only.endpoints.is_empty() || it.endpoints.iter().any(|id| only.endpoint(id)))
    };
    let endpoint = context.subject.endpoint();
    let there: std::collections::HashSet<&str> = match endpoint {
        None => std::collections::HashSet::new(),
        Some((id, role)) => {
            let processes = picture.overview.processes.iter();
            let at = processes
                .filter(|process| process.connections.iter().any(|each| each.endpoint == id && each.role == role));
            at.filter_map(|process| process.launcher_group.as_deref()).collect()
        }
    };
    let belongs = |it: &LauncherGroup| endpoint.is_none() || there.contains(it.id.as_str());
    let all = picture.overview.launcher_groups.iter().enumerate();
    all.filter(|(_, it)| is_wanted(it) && belongs(it)).map(|(item, _)| item).collect()
}

pub fn words(picture: &Picture, item: usize, has: &dyn Fn(&str) -> bool) -> Option<bool> {
    let it = picture.overview.launcher_groups.get(item)?;
    let at = |id: &String| has(id) || has(picture.endpoint_name(id));
    Some(has(&it.label) || it.endpoints.iter().any(at) || it.pids.iter().any(|pid| has(&pid.to_string())))
}

fn with<T>(context: &Context<'_>, item: usize, what: impl FnOnce(&LauncherGroup) -> Option<T>) -> Option<T> {
    context.picture.overview.launcher_groups.get(item).and_then(what)
}

/// At the endpoint that the page is about, else everywhere.
fn open(context: &Context<'_>, it: &LauncherGroup) -> u64 {
    match context.subject {
        Subject::Endpoint { id, role } if !it.pids.is_empty() => group_open(context.picture, it, Some((id, *role))),
        Subject::Endpoint { id, role } => {
            let pids = members(context.picture, &it.id);
            let processes = pids.iter().filter_map(|pid| context.picture.process(*pid));
            processes.map(|process| sums(process, Some((id, *role))).open).sum()
        }
        _ => u64::from(it.open),
    }
}

fn endpoints(context: &Context<'_>, it: &LauncherGroup) -> Cell {
    let names: Vec<&str> = it.endpoints.iter().map(|id| context.picture.endpoint_name(id)).collect();
    shown(&names.join(" "))
}

fn pids(it: &LauncherGroup) -> String {
    let named: Vec<String> = it.pids.iter().take(PIDS_SHOWN).map(u32::to_string).collect();
    let more = it.pids.len().saturating_sub(PIDS_SHOWN);
    if more > 0 { format!("{} +{more} more", named.join(" ")) } else { named.join(" ") }
}
