//! Live connections, as many as were fetched.

use tracer_core::event::Role;
use tracer_core::snapshot::{Age, Connection};

use super::super::figures::{bytes, count, duration, microseconds};
use super::super::page::Subject;
use super::super::picture::Picture;
use super::{Cell, Column, Context, Rank, mark, severity_rank, shown};

pub const COLUMNS: &[Column] = &[
    Column {
        title: "!",
        width: 1,
        grows: false,
        right: false,
        drop: 0,
        descending: true,
        cell: |context, item, _| mark(context, severity(context, item)),
        rank: |context, item| severity_rank(severity(context, item)),
    },
    Column {
        title: "STATE",
        width: 11,
        grows: false,
        right: false,
        drop: 0,
        descending: false,
        cell: |context, item, _| with(context, item, |it| Some(it.state.name().to_owned().into())).unwrap_or_default(),
        rank: |context, item| {
            Rank::Text(with(context, item, |it| Some(it.state.name().to_owned())).unwrap_or_default())
        },
    },
    Column {
        title: "ENDPOINT",
        width: 14,
        grows: true,
        right: false,
        drop: 2,
        descending: false,
        cell: |context, item, _| {
            with(context, item, |it| Some(shown(context.picture.endpoint_name(&it.endpoint)))).unwrap_or_default()
        },
        rank: |context, item| {
            let name = |it: &Connection| Some(context.picture.endpoint_name(&it.endpoint).to_owned());
            Rank::Text(with(context, item, name).unwrap_or_default())
        },
    },
    Column {
        title: "OPENED BY",
        width: 14,
        grows: true,
        right: false,
        drop: 0,
        descending: false,
        cell: |context, item, _| with(context, item, |it| Some(opener(it))).unwrap_or_default(),
        rank: |context, item| with(context, item, |it| it.opener.as_ref().map(|opener| u64::from(opener.pid))).into(),
    },
    Column {
        title: "HELD BY",
        width: 11,
        grows: false,
        right: false,
        drop: 5,
        descending: true,
        cell: |context, item, _| with(context, item, |it| Some(holders(it).into())).unwrap_or_default(),
        rank: |context, item| with(context, item, |it| Some(it.holders.len() as u64)).into(),
    },
    Column {
        title: "AGE",
        width: 7,
        grows: false,
        right: true,
        drop: 0,
        descending: true,
        cell: |context, item, _| with(context, item, |it| Some(age(it).into())).unwrap_or_default(),
        rank: |context, item| with(context, item, |it| Some(it.age_s)).into(),
    },
    Column {
        title: "IDLE",
        width: 6,
        grows: false,
        right: true,
        drop: 1,
        descending: true,
        cell: |context, item, _| with(context, item, |it| it.idle_s.map(|s| duration(s).into())).unwrap_or_default(),
        rank: |context, item| with(context, item, |it| it.idle_s).into(),
    },
    Column {
        title: "SENT",
        width: 5,
        grows: false,
        right: true,
        drop: 4,
        descending: true,
        cell: |context, item, _| with(context, item, |it| Some(bytes(it.bytes_sent).into())).unwrap_or_default(),
        rank: |context, item| with(context, item, |it| Some(it.bytes_sent)).into(),
    },
    Column {
        title: "RECVD",
        width: 6,
        grows: false,
        right: true,
        drop: 3,
        descending: true,
        cell: |context, item, _| with(context, item, |it| Some(bytes(it.bytes_received).into())).unwrap_or_default(),
        rank: |context, item| with(context, item, |it| Some(it.bytes_received)).into(),
    },
    Column {
        title: "RTT",
        width: 7,
        grows: false,
        right: true,
        drop: 6,
        descending: true,
        cell: |context, item, _| {
            with(context, item, |it| it.srtt_us.map(|us| microseconds(us).into())).unwrap_or_default()
        },
        rank: |context, item| with(context, item, |it| it.srtt_us.map(u64::from)).into(),
    },
    Column {
        title: "RETR",
        width: 5,
        grows: false,
        right: true,
        drop: 7,
        descending: true,
        cell: |context, item, _| {
            with(context, item, |it| Some(count(it.retransmits.into()).into())).unwrap_or_default()
        },
        rank: |context, item| with(context, item, |it| Some(u64::from(it.retransmits))).into(),
    },
    Column {
        title: "LOCAL -> REMOTE",
        width: 40,
        grows: true,
        right: false,
        drop: 8,
        descending: false,
        cell: |context, item, _| with(context, item, |it| Some(shown(&ends(it)))).unwrap_or_default(),
        rank: |context, item| Rank::Text(with(context, item, |it| Some(it.local.clone())).unwrap_or_default()),
    },
];

pub fn items(context: &Context<'_>) -> Vec<usize> {
    let belongs = |it: &Connection| match context.subject {
        Subject::Endpoint { id, role } => it.endpoint == *id && it.role == *role,
        Subject::Process { pid, .. } => concerns(it, *pid),
        _ => true,
    };
    let all = context.picture.connection_list().iter().enumerate();
    all.filter(|(_, it)| context.only.connection(it) && belongs(it)).map(|(item, _)| item).collect()
}

pub fn words(picture: &Picture, item: usize, has: &dyn Fn(&str) -> bool) -> Option<bool> {
    let it = picture.connection_list().get(item)?;
    Some(
        has(&it.local)
            || has(&it.remote)
            || has(it.state.name())
            || has(&it.id)
            || has(picture.endpoint_name(&it.endpoint))
            || it.opener.as_ref().is_some_and(|opener| has(&opener.comm) || has(&opener.pid.to_string()))
            || it.holders.iter().any(|holder| has(&holder.pid.to_string())),
    )
}

/// Opened or held by it.
pub fn concerns(it: &Connection, pid: u32) -> bool {
    it.opener.as_ref().is_some_and(|opener| opener.pid == pid) || it.holders.iter().any(|holder| holder.pid == pid)
}

fn with<T>(context: &Context<'_>, item: usize, what: impl FnOnce(&Connection) -> Option<T>) -> Option<T> {
    context.picture.connection_list().get(item).and_then(what)
}

/// Of whoever answers for it.
fn severity(context: &Context<'_>, item: usize) -> Option<tracer_core::finding::Severity> {
    with(context, item, |it| {
        let pids = it.opener.iter().map(|opener| opener.pid).chain(it.holders.iter().map(|holder| holder.pid));
        pids.filter_map(|pid| context.picture.pid_severity(pid)).max()
    })
}

fn opener(it: &Connection) -> Cell {
    it.opener.as_ref().map_or_else(|| "unknown".to_owned().into(), |by| shown(&format!("{}[{}]", by.comm, by.pid)))
}

fn holders(it: &Connection) -> String {
    match it.holders.as_slice() {
        [] => "nobody".to_owned(),
        [only] => only.pid.to_string(),
        [first, rest @ ..] => format!("{} +{}", first.pid, rest.len()),
    }
}

/// A lower bound says so.
pub fn age(it: &Connection) -> String {
    match it.age {
        Age::Exact => duration(it.age_s),
        Age::AtLeast => format!(">{}", duration(it.age_s)),
    }
}

/// The arrow points to the database.
pub fn ends(it: &Connection) -> String {
    match it.role {
        Role::Client => format!("{} -> {}", it.local, it.remote),
        Role::Server => format!("{} <- {}", it.local, it.remote),
    }
}
