//! Takes a checkpoint forward to a later moment, one part of the snapshot each. A span is after its first moment, up to
//! and including its last.

use std::collections::{BTreeMap, HashMap, HashSet};

use rusqlite::{Connection, params};
use tracer_core::event::Role;
use tracer_core::finding::{Finding, Status};
use tracer_core::snapshot::{
    Age, Connection as Open, Endpoint, LauncherGroup, Limit, LimitSource, Loss, Opener, Process, ProcessConnections,
    Series, Snapshot,
};
use tracer_core::tcp::TcpState;
use tracer_core::time::WallTime;

use super::StoreError;

/// From, until.
type Span = (i64, i64);
/// Two readings of a moment off two clocks differ by less.
const SAME_MS: i64 = 2_000;
/// Steps and their number, as in a live snapshot, but for the finest.
const RESOLUTIONS: [(u32, i64); 3] = [(10, 360), (60, 360), (600, 144)];

fn role(name: &str) -> Role {
    if name == Role::Server.name() { Role::Server } else { Role::Client }
}

fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn small(value: i64) -> u32 {
    u32::try_from(value).unwrap_or(if value < 0 { 0 } else { u32::MAX })
}

/// Removes what closed, and adds what opened and is known by its end or by the next checkpoint.
pub fn connections(
    db: &Connection,
    snapshot: &mut Snapshot,
    next: Option<&Snapshot>,
    (from, until): Span,
) -> Result<(), StoreError> {
    let mut closed = HashSet::new();
    let mut statement = db.prepare(
        "SELECT netns, local, remote FROM closed
         WHERE closed_ms > ?1 AND closed_ms <= ?2 AND (opened_ms IS NULL OR opened_ms <= ?1 + ?3)",
    )?;
    let mut rows = statement.query(params![from, until, SAME_MS])?;
    while let Some(row) = rows.next()? {
        closed.insert((row.get::<_, u32>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?));
    }
    let tuple = |open: &Open| (open.netns, open.local.clone(), open.remote.clone());
    snapshot.connections.retain(|open| !closed.contains(&tuple(open)));
    for open in &mut snapshot.connections {
        open.age_s += count(until - from) / 1_000;
    }
    let mut known: HashSet<_> = snapshot.connections.iter().map(tuple).collect();
    let mut statement = db.prepare(
        "SELECT c.rowid, c.netns, c.local, c.remote, e.key, e.database, e.role, c.opened_ms, p.pid, p.comm
         FROM closed c JOIN endpoint e ON e.id = c.endpoint LEFT JOIN process p ON p.id = c.process
         WHERE c.closed_ms > ?2 AND c.opened_ms > ?1 AND c.opened_ms <= ?2",
    )?;
    let mut rows = statement.query(params![from, until])?;
    while let Some(row) = rows.next()? {
        let opened: i64 = row.get(7)?;
        let opener: Option<(u32, String)> = row.get::<_, Option<u32>>(8)?.zip(row.get(9)?);
        let open = Open {
            id: format!("closed-{}", row.get::<_, i64>(0)?),
            netns: row.get(1)?,
            local: row.get(2)?,
            remote: row.get(3)?,
            endpoint: row.get(4)?,
            database: row.get(5)?,
            role: role(&row.get::<_, String>(6)?),
            opener: opener.map(|(pid, comm)| Opener { pid, comm }),
            ..opened_at(opened, until)
        };
        if known.insert(tuple(&open)) {
            snapshot.connections.push(open);
        }
    }
    for open in next.into_iter().flat_map(|next| &next.connections) {
        let opened = open.opened_at.map(|at| at.unix_ms).filter(|at| from < *at && *at <= until);
        let Some(opened) = opened else { continue };
        if known.insert(tuple(open)) {
            let Open { age_s, state, .. } = opened_at(opened, until);
            snapshot.connections.push(Open { age_s, state, state_since: open.opened_at, idle_s: None, ..open.clone() });
        }
    }
    Ok(())
}

/// A connection of which no more is known than when it opened.
fn opened_at(opened_ms: i64, now_ms: i64) -> Open {
    let at = WallTime { unix_ms: opened_ms };
    Open {
        id: String::new(),
        netns: 0,
        local: String::new(),
        remote: String::new(),
        endpoint: String::new(),
        database: String::new(),
        role: Role::Client,
        state: TcpState::Established,
        state_since: Some(at),
        opened_at: Some(at),
        age_s: count(now_ms - opened_ms) / 1_000,
        age: Age::Exact,
        opener: None,
        holders: Vec::new(),
        inode: None,
        idle_s: None,
        bytes_sent: 0,
        bytes_received: 0,
        srtt_us: None,
        retransmits: 0,
        consecutive_rtos: 0,
        unacked: 0,
        keepalive: None,
        unanswered_probes: 0,
        heard_s: None,
        closer_pid: None,
    }
}

/// Takes counts forward and adds what was counted over the day before; when the last counts are of.
pub fn endpoints(db: &Connection, snapshot: &mut Snapshot, (from, until): Span) -> Result<i64, StoreError> {
    let mut places: HashMap<(String, Role), usize> = snapshot
        .endpoints
        .iter()
        .enumerate()
        .map(|(index, endpoint)| ((endpoint.id.clone(), endpoint.role), index))
        .collect();
    let mut courses = BTreeMap::<usize, Course>::new();
    let mut statement = db.prepare(
        "SELECT s.at_ms, e.key, e.role, e.name, e.database, e.max_source, s.open, s.opened, s.closed, s.failed, s.in_use,
           s.max_connections
         FROM endpoint_series s JOIN endpoint e ON e.id = s.endpoint
         WHERE s.at_ms > ?1 AND s.at_ms <= ?2 ORDER BY s.at_ms, s.rowid",
    )?;
    let mut rows = statement.query(params![from.min(until - 86_400_000), until])?;
    let mut last_ms = from;
    while let Some(row) = rows.next()? {
        let at_ms: i64 = row.get(0)?;
        let key = (row.get::<_, String>(1)?, role(&row.get::<_, String>(2)?));
        let is_later = at_ms > from;
        let index = match places.get(&key) {
            Some(index) => *index,
            None if is_later => {
                let (id, role) = key.clone();
                snapshot.endpoints.push(empty_endpoint(id, role, row.get(3)?, row.get(4)?));
                places.insert(key, snapshot.endpoints.len() - 1);
                snapshot.endpoints.len() - 1
            }
            None => continue,
        };
        let (open, opened, closed, in_use): (i64, i64, i64, i64) =
            (row.get(6)?, row.get(7)?, row.get(8)?, row.get(10)?);
        courses.entry(index).or_insert_with(|| Course::new(until)).add(at_ms, [open, opened, closed, in_use]);
        let Some(endpoint) = snapshot.endpoints.get_mut(index).filter(|_| is_later) else { continue };
        last_ms = last_ms.max(at_ms);
        endpoint.open = small(open);
        endpoint.open_peak = endpoint.open_peak.max(endpoint.open);
        endpoint.in_use_peak = endpoint.in_use_peak.max(small(in_use));
        endpoint.opened_total += count(opened);
        endpoint.closed_total += count(closed);
        endpoint.failed_total += count(row.get(9)?);
        endpoint.limit = limit(row.get(11)?, row.get::<_, Option<String>>(5)?.as_deref());
    }
    for (index, endpoint) in snapshot.endpoints.iter_mut().enumerate() {
        endpoint.series = courses.remove(&index).map(Course::into_series).unwrap_or_default();
        endpoint.by_state.clear();
    }
    for open in &snapshot.connections {
        let index = places.get(&(open.endpoint.clone(), open.role));
        if let Some(endpoint) = index.and_then(|index| snapshot.endpoints.get_mut(*index)) {
            *endpoint.by_state.entry(open.state).or_default() += 1;
        }
    }
    snapshot.endpoints.sort_by(|a, b| (&a.id, a.role).cmp(&(&b.id, b.role)));
    Ok(last_ms)
}

fn limit(value: Option<u32>, source: Option<&str>) -> Option<Limit> {
    let source = match source {
        Some("config") => LimitSource::Config,
        Some("database") => LimitSource::Database,
        _ => LimitSource::Inferred,
    };
    value.map(|value| Limit { value, source })
}

/// An endpoint of which no more is known.
pub fn empty_endpoint(id: String, role: Role, name: String, database: String) -> Endpoint {
    Endpoint {
        id,
        name,
        database,
        role,
        limit: None,
        open: 0,
        in_use_peak: 0,
        open_peak: 0,
        opened_total: 0,
        closed_total: 0,
        failed_total: 0,
        by_state: BTreeMap::new(),
        drops: Vec::new(),
        series: Vec::new(),
    }
}

/// Counts of one endpoint at every resolution, made from rows in their order.
struct Course {
    until: i64,
    rings: Vec<Vec<[i64; 4]>>,
}

impl Course {
    fn new(until: i64) -> Self {
        Self { until, rings: vec![Vec::new(); RESOLUTIONS.len()] }
    }

    fn add(&mut self, at_ms: i64, [open, opened, closed, in_use]: [i64; 4]) {
        for ((step_s, most), ring) in RESOLUTIONS.iter().zip(&mut self.rings) {
            let step = i64::from(*step_s) * 1_000;
            let back = self.until.div_euclid(step) - at_ms.div_euclid(step);
            if back >= *most {
                continue;
            }
            fill(ring, back, opened, closed, open);
            if let Some(sample) = ring.last_mut() {
                *sample = [open, sample[1] + opened, sample[2] + closed, sample[3].max(in_use)];
            }
        }
    }

    fn into_series(mut self) -> Vec<Series> {
        let mut all = Vec::new();
        for ((step_s, _), ring) in RESOLUTIONS.iter().zip(&mut self.rings) {
            if let Some([open, ..]) = ring.last().copied() {
                fill(ring, 0, 0, 0, open);
            }
            // A ring's first sample says how far back it begins; see `fill`.
            let samples: Vec<[i64; 4]> = ring.iter().skip(1).copied().collect();
            let step = i64::from(*step_s) * 1_000;
            let first = (self.until.div_euclid(step) + 1 - i64::try_from(samples.len()).unwrap_or(0)) * step;
            let column = |which: usize| samples.iter().map(|sample| small(sample[which])).collect::<Vec<u32>>();
            all.push(Series {
                step_s: *step_s,
                start: WallTime { unix_ms: first },
                open: column(0),
                opened: column(1),
                closed: column(2),
                in_use: column(3),
            });
        }
        all
    }
}

/// Brings a ring to the step that lies `back` steps before its end. Its first sample is none: it holds in its first place
/// the step that the ring begins with.
fn fill(ring: &mut Vec<[i64; 4]>, back: i64, opened: i64, closed: i64, open: i64) {
    if ring.is_empty() {
        ring.push([back, 0, 0, 0]);
        ring.push([(open + closed - opened).max(0), 0, 0, 0]);
        return;
    }
    let first = ring.first().map_or(back, |head| head[0]);
    let wanted = usize::try_from(first - back).unwrap_or(0) + 2;
    while ring.len() < wanted {
        let before = ring.last().map_or(0, |sample| sample[0]);
        ring.push([before, 0, 0, 0]);
    }
}

/// Takes the counts of processes forward, adds those that came, and ends those that went.
pub fn processes(db: &Connection, snapshot: &mut Snapshot, (from, until): Span) -> Result<(), StoreError> {
    let mut places: HashMap<u32, usize> = HashMap::new();
    for (index, process) in snapshot.processes.iter().enumerate() {
        // Of two with one pid, the later.
        let later = places.get(&process.pid).and_then(|other| snapshot.processes.get(*other));
        if later.is_none_or(|other| other.start_time <= process.start_time) {
            places.insert(process.pid, index);
        }
    }
    let mut statement = db.prepare(
        "SELECT p.pid, p.start_ms, p.identity, e.key, e.role, s.open, s.opened, s.closed
         FROM process_series s JOIN process p ON p.id = s.process JOIN endpoint e ON e.id = s.endpoint
         WHERE s.at_ms > ?1 AND s.at_ms <= ?2 ORDER BY s.at_ms, s.rowid",
    )?;
    let mut rows = statement.query(params![from, until])?;
    while let Some(row) = rows.next()? {
        let (pid, start_ms): (u32, i64) = (row.get(0)?, row.get(1)?);
        let known = places.get(&pid).copied().filter(|index| {
            let process = snapshot.processes.get(*index);
            process.is_some_and(|process| (process.start_time.unix_ms - start_ms).abs() <= SAME_MS)
        });
        let index = match known {
            Some(index) => index,
            None => {
                let Some(identity) = row.get::<_, Option<String>>(2)? else { continue };
                let process: Process = serde_json::from_str(&identity)?;
                snapshot.processes.push(Process { alive: true, ..process });
                places.insert(pid, snapshot.processes.len() - 1);
                snapshot.processes.len() - 1
            }
        };
        let Some(process) = snapshot.processes.get_mut(index) else { continue };
        let (endpoint, role) = (row.get::<_, String>(3)?, role(&row.get::<_, String>(4)?));
        let (open, opened, closed): (i64, i64, i64) = (row.get(5)?, row.get(6)?, row.get(7)?);
        let place = process.connections.iter().position(|one| one.endpoint == endpoint && one.role == role);
        let place = place.unwrap_or_else(|| {
            process.connections.push(no_connections(endpoint, role));
            process.connections.len() - 1
        });
        if let Some(account) = process.connections.get_mut(place) {
            account.open = small(open);
            account.opened_total += count(opened);
            account.closed_total += count(closed);
        }
    }
    let mut statement = db.prepare("SELECT pid, start_ms FROM process WHERE ended_ms > ?1 AND ended_ms <= ?2")?;
    let mut rows = statement.query(params![from, until])?;
    while let Some(row) = rows.next()? {
        let (pid, start_ms): (u32, i64) = (row.get(0)?, row.get(1)?);
        let process = places.get(&pid).and_then(|index| snapshot.processes.get_mut(*index));
        if let Some(process) = process.filter(|process| (process.start_time.unix_ms - start_ms).abs() <= SAME_MS) {
            process.alive = false;
        }
    }
    Ok(())
}

fn no_connections(endpoint: String, role: Role) -> ProcessConnections {
    ProcessConnections {
        endpoint,
        role,
        open: 0,
        opened_total: 0,
        closed_total: 0,
        failed_total: 0,
        in_use_peak: 0,
        last_active_at: None,
        estimated_server_memory_bytes: None,
    }
}

/// Makes the groups of the processes that live.
pub fn groups(db: &Connection, snapshot: &mut Snapshot) -> Result<(), StoreError> {
    let mut labels: HashMap<String, String> =
        snapshot.launcher_groups.drain(..).map(|group| (group.id, group.label)).collect();
    let mut groups = BTreeMap::<String, LauncherGroup>::new();
    for process in snapshot.processes.iter().filter(|process| process.alive) {
        let Some(id) = &process.launcher_group else { continue };
        let held: Vec<_> = process.connections.iter().filter(|account| account.open > 0).collect();
        if held.is_empty() {
            continue;
        }
        if !labels.contains_key(id) {
            let label = db.query_row("SELECT label FROM launcher_group WHERE key = ?1", [id], |row| row.get(0));
            labels.insert(id.clone(), label.unwrap_or_else(|_| id.clone()));
        }
        let group = groups.entry(id.clone()).or_insert_with(|| LauncherGroup {
            id: id.clone(),
            label: labels.get(id).cloned().unwrap_or_default(),
            instances: 0,
            pids: Vec::new(),
            open: 0,
            endpoints: Vec::new(),
        });
        group.instances += 1;
        group.pids.push(process.pid);
        for account in held {
            group.open += account.open;
            if !group.endpoints.contains(&account.endpoint) {
                group.endpoints.push(account.endpoint.clone());
            }
        }
    }
    for group in groups.values_mut() {
        group.pids.sort_unstable();
        group.endpoints.sort_unstable();
    }
    snapshot.launcher_groups = groups.into_values().collect();
    Ok(())
}

/// Takes each finding to its last change; worst first.
pub fn findings(db: &Connection, snapshot: &mut Snapshot, (from, until): Span) -> Result<(), StoreError> {
    let open = snapshot.findings.drain(..).filter(|finding| finding.status == Status::Open);
    let mut open: BTreeMap<String, Finding> = open.map(|finding| (finding.id.clone(), finding)).collect();
    let mut statement =
        db.prepare("SELECT json FROM finding WHERE at_ms > ?1 AND at_ms <= ?2 ORDER BY at_ms, rowid")?;
    let mut rows = statement.query(params![from, until])?;
    while let Some(row) = rows.next()? {
        let finding: Finding = serde_json::from_str(&row.get::<_, String>(0)?)?;
        match finding.status {
            Status::Open => open.insert(finding.id.clone(), finding),
            Status::Resolved => open.remove(&finding.id),
        };
    }
    snapshot.findings = open.into_values().collect();
    snapshot.findings.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.kind.cmp(&b.kind)));
    Ok(())
}

/// Takes losses forward; how much was lost or not kept since.
pub fn losses(db: &Connection, snapshot: &mut Snapshot, (from, until): Span) -> Result<u64, StoreError> {
    let mut loss = serde_json::to_value(snapshot.capture.loss)?;
    let mut statement = db.prepare("SELECT stage, lost FROM loss WHERE at_ms > ?1 AND at_ms <= ?2 ORDER BY at_ms")?;
    let mut rows = statement.query(params![from, until])?;
    let mut gaps = 0;
    while let Some(row) = rows.next()? {
        let (stage, lost): (String, i64) = (row.get(0)?, row.get(1)?);
        if let Some(known) = loss.get_mut(&stage) {
            gaps += u64::from(known.as_i64() != Some(lost));
            *known = lost.into();
        }
    }
    snapshot.capture.loss = serde_json::from_value::<Loss>(loss)?;
    let not_kept: i64 = db.query_row(
        "SELECT ifnull(sum(max(rows, 1)), 0) FROM (SELECT rows FROM gap WHERE until_ms > ?1 AND at_ms <= ?2)",
        params![from, until],
        |row| row.get(0),
    )?;
    Ok(gaps + count(not_kept))
}

/// Whether the connections are as many as were counted.
pub fn adds_up(snapshot: &Snapshot) -> bool {
    snapshot.endpoints.iter().all(|endpoint| {
        let open: u32 = endpoint.by_state.iter().filter(|(state, _)| state.is_open()).map(|(_, open)| *open).sum();
        open == endpoint.open
    })
}
