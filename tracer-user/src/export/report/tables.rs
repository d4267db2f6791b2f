//! Databases, launcher groups and processes, largest first.

use tracer_core::snapshot::{Endpoint, LauncherGroup, Limit, Process, Snapshot};

use super::connections::title;
use super::format::{bytes, count, first, moment, name};
use super::model::{Cell, Table};

/// Rows of each table.
const ROWS_MAX: usize = 100;
/// Endpoints or processes named in one cell.
const NAMED: usize = 6;

/// Every database.
pub fn endpoints(snapshot: &Snapshot) -> Table {
    let columns = [
        "Database",
        "Kind",
        "#Open",
        "#Limit",
        "#Most open",
        "#Most in use",
        "#Opened",
        "#Closed",
        "#Failed",
        "States",
    ];
    let mut table = Table::new("endpoints", "Databases", &columns);
    let mut all: Vec<&Endpoint> = snapshot.endpoints.iter().collect();
    all.sort_by_key(|endpoint| (std::cmp::Reverse((endpoint.open, endpoint.open_peak)), &endpoint.id));
    table.rows = all.iter().take(ROWS_MAX).map(|endpoint| endpoint_row(endpoint)).collect();
    table.of_all(all.len())
}

fn endpoint_row(endpoint: &Endpoint) -> Vec<Cell> {
    let states: Vec<String> =
        endpoint.by_state.iter().map(|(state, number)| format!("{} {}", count(*number), state.name())).collect();
    let id = if endpoint.name == endpoint.id { "" } else { &endpoint.id };
    vec![
        Cell::text(&endpoint.name).with(&name(id)),
        Cell::text(&format!("{}, {}", endpoint.database, endpoint.role.name())),
        Cell { class: pressure(endpoint), ..Cell::number(count(endpoint.open)) },
        endpoint.limit.map_or_else(|| Cell::number("unknown".to_owned()), limit_cell),
        Cell::number(count(endpoint.open_peak)),
        Cell::number(count(endpoint.in_use_peak)),
        Cell::number(count(endpoint.opened_total)),
        Cell::number(count(endpoint.closed_total)),
        Cell::number(count(endpoint.failed_total)),
        Cell::text(&states.join(", ")),
    ]
}

fn limit_cell(limit: Limit) -> Cell {
    Cell::number(count(limit.value)).with(limit.source.name())
}

/// The class of a count against its limit.
fn pressure(endpoint: &Endpoint) -> &'static str {
    let Some(limit) = endpoint.limit else { return "number" };
    match u64::from(endpoint.open) * 100 {
        open if open >= u64::from(limit.value) * 95 => "number critical",
        open if open >= u64::from(limit.value) * 80 => "number warning",
        _ => "number",
    }
}

/// Every launcher group.
pub fn groups(snapshot: &Snapshot) -> Table {
    let columns = ["Launcher group", "#Connections", "#Processes", "Process ids", "Databases"];
    let mut table = Table::new("groups", "Launcher groups", &columns);
    table.note = "Processes of the same program, script, user and arguments.".to_owned();
    let mut all: Vec<&LauncherGroup> = snapshot.launcher_groups.iter().collect();
    all.sort_by_key(|group| (std::cmp::Reverse((group.open, group.instances)), &group.label));
    let row = |group: &&LauncherGroup| {
        vec![
            Cell::text(&group.label),
            Cell::number(count(group.open)),
            Cell::number(count(group.instances)),
            Cell::text(&first(&group.pids, NAMED)),
            Cell::text(&first(&group.endpoints, NAMED)),
        ]
    };
    table.rows = all.iter().take(ROWS_MAX).map(row).collect();
    table.of_all(all.len())
}

/// Every process.
pub fn processes(snapshot: &Snapshot) -> Table {
    let columns =
        ["Process", "#Pid", "#Open", "#Opened", "#Closed", "#Failed", "#Memory at the database", "Runs as", "Started"];
    let mut table = Table::new("processes", "Processes", &columns);
    let mut all: Vec<(u64, &Process)> =
        snapshot.processes.iter().map(|it| (sum(it, |of| of.open.into()), it)).collect();
    all.sort_by_key(|(open, process)| (std::cmp::Reverse(*open), process.pid));
    table.rows = all.iter().take(ROWS_MAX).map(|(open, process)| process_row(*open, process)).collect();
    table.of_all(all.len())
}

fn sum(process: &Process, of: impl Fn(&tracer_core::snapshot::ProcessConnections) -> u64) -> u64 {
    process.connections.iter().map(of).fold(0, u64::saturating_add)
}

fn process_row(open: u64, process: &Process) -> Vec<Cell> {
    let program = [&process.cmdline, &process.script, &process.exe].into_iter().flatten().next();
    let memory = sum(process, |of| of.estimated_server_memory_bytes.map_or(0, |estimate| estimate.value));
    let place = [&process.systemd_unit, &process.container_id, &process.cgroup].into_iter().flatten().next();
    let user = process.user.clone().or_else(|| process.uid.map(|uid| uid.to_string()));
    let started = Cell { class: "word", ..Cell::text(&moment(process.start_time)) };
    vec![
        Cell::text(&title(process)).with(program.map_or("", String::as_str)),
        Cell::number(process.pid.to_string()),
        Cell::number(count(open)),
        Cell::number(count(sum(process, |of| of.opened_total))),
        Cell::number(count(sum(process, |of| of.closed_total))),
        Cell::number(count(sum(process, |of| of.failed_total))),
        Cell::number(if memory == 0 { "unknown".to_owned() } else { format!("about {}", bytes(memory)) }),
        Cell::text(user.as_deref().unwrap_or("unknown")).with(&name(place.map_or("", String::as_str))),
        if process.alive { started } else { started.with("has ended") },
    ]
}

/// Packets that this host threw away, if it did.
pub fn drops(snapshot: &Snapshot) -> Option<Table> {
    let columns = ["Database", "Reason", "#Packets", "Last"];
    let mut table = Table::new("drops", "Dropped packets", &columns);
    table.note = "Packets from or to a database that this host threw away.".to_owned();
    let mut all: Vec<_> =
        snapshot.endpoints.iter().flat_map(|endpoint| endpoint.drops.iter().map(move |it| (endpoint, it))).collect();
    all.sort_by_key(|(_, drops)| std::cmp::Reverse(drops.packets));
    let rows = all.iter().take(ROWS_MAX).map(|(endpoint, drops)| {
        vec![
            Cell::text(&endpoint.name),
            Cell::text(&drops.reason),
            Cell::number(count(drops.packets)),
            Cell::text(&moment(drops.last_at)),
        ]
    });
    table.rows = rows.collect();
    (!all.is_empty()).then(|| table.of_all(all.len()))
}
