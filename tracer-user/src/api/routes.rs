//! What each path answers.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracer_core::finding::{Change, FINDING_SCHEMA, Finding, FindingLine};
use tracer_core::snapshot::{Capture, Completeness, Connection, Endpoint, Host, LauncherGroup, Process, Snapshot};
use tracer_core::tcp::TcpState;
use tracer_core::time::WallTime;
use tracer_core::tracker::Extent;

use super::{ErrorBody, Health, OPEN_FINDINGS_HEADER, past, stream};
use crate::daemon::handle::{Handle, HandleError};
use crate::daemon::record::RECORDERS_MAX;
use crate::export::metrics;
use crate::inventory::own_use;
use crate::ndjson::push_line;

const PROC: &str = "/proc";

/// Whole-state answers alive at once, from the question to the last byte sent: each may be tens of megabytes.
const BODIES_MAX: usize = 4;
/// How long a whole-state answer waits for its turn.
const TURN_WITHIN: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
struct App {
    handle: Handle,
    started: Instant,
    bodies: Arc<Semaphore>,
}

/// The whole API.
pub(super) fn router(handle: Handle) -> Router {
    let app = App { handle, started: Instant::now(), bodies: Arc::new(Semaphore::new(BODIES_MAX)) };
    Router::new()
        .route("/v1/snapshot", get(snapshot))
        .route("/v1/overview", get(overview))
        .route("/v1/findings", get(findings))
        .route("/v1/processes", get(processes))
        .route("/v1/connections", get(connections))
        .route("/v1/tail", get(tail))
        .route("/v1/events", get(events))
        .route("/v1/record", get(record))
        .route("/v1/history", get(history))
        .route("/v1/health", get(health))
        .route("/metrics", get(metrics))
        .method_not_allowed_fallback(|| async {
            Failure(StatusCode::METHOD_NOT_ALLOWED, "only GET is allowed".to_owned())
        })
        .fallback(|| async { Failure(StatusCode::NOT_FOUND, format!("no such path: there are {PATHS}")) })
        .with_state(app)
}

const PATHS: &str = "/v1/snapshot, /v1/overview, /v1/findings, /v1/processes, /v1/connections, /v1/tail, /v1/events, \
                     /v1/record, /v1/history, /v1/health and /metrics";

/// Metrics alone.
pub(super) fn metrics_router(handle: Handle) -> Router {
    let app = App { handle, started: Instant::now(), bodies: Arc::new(Semaphore::new(BODIES_MAX)) };
    let elsewhere = || async { Failure(StatusCode::NOT_FOUND, "there is /metrics, and nothing else".to_owned()) };
    Router::new().route("/metrics", get(metrics)).fallback(elsewhere).with_state(app)
}

/// A router that answers everything with one refusal.
pub(super) fn refusal(status: StatusCode, sentence: &'static str) -> Router {
    Router::new().fallback(move || async move { Failure(status, sentence.to_owned()) })
}

/// An answer that is not 200.
#[derive(Debug)]
pub(super) struct Failure(pub(super) StatusCode, pub(super) String);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, axum::Json(ErrorBody { error: self.1 })).into_response()
    }
}

impl From<HandleError> for Failure {
    fn from(error: HandleError) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

/// Query parameters as they came.
pub(super) type Asked = Result<Query<Vec<(String, String)>>, axum::extract::rejection::QueryRejection>;

/// The parameters, each at most once and each one of `allowed`.
fn parameters(asked: Asked, allowed: &[&str]) -> Result<BTreeMap<String, String>, Failure> {
    let bad = |sentence| Failure(StatusCode::BAD_REQUEST, sentence);
    let Query(pairs) = asked.map_err(|error| bad(error.body_text()))?;
    let mut found = BTreeMap::new();
    for (name, value) in pairs {
        if !allowed.contains(&name.as_str()) {
            let known = if allowed.is_empty() { "none".to_owned() } else { allowed.join(", ") };
            return Err(bad(format!("unknown parameter {name:?}: this path takes {known}")));
        }
        if found.insert(name.clone(), value).is_some() {
            return Err(bad(format!("parameter {name:?} is given twice")));
        }
    }
    Ok(found)
}

async fn snapshot(State(app): State<App>, asked: Asked) -> Result<Response, Failure> {
    let parameters = parameters(asked, &["at"])?;
    if let Some(at) = parameters.get("at") {
        return past::snapshot(app.handle.history(), at).await;
    }
    whole(&app, serde_json::to_vec::<Snapshot>).await
}

/// A snapshot without its connections.
#[derive(Serialize)]
struct Overview<'a> {
    captured_at: WallTime,
    host: &'a Host,
    capture: &'a Capture,
    endpoints: &'a [Endpoint],
    processes: &'a [Process],
    launcher_groups: &'a [LauncherGroup],
    findings: &'a [Finding],
}

/// Without a look at the socket table: who watches asks every second.
async fn overview(State(app): State<App>, asked: Asked) -> Result<Response, Failure> {
    parameters(asked, &[])?;
    let write = |snapshot: &Snapshot| {
        serde_json::to_vec(&Overview {
            captured_at: snapshot.captured_at,
            host: &snapshot.host,
            capture: &snapshot.capture,
            endpoints: &snapshot.endpoints,
            processes: &snapshot.processes,
            launcher_groups: &snapshot.launcher_groups,
            findings: &snapshot.findings,
        })
    };
    json(&app, app.handle.known(Extent::Overview), write).await
}

#[derive(Serialize)]
struct Findings<'a> {
    captured_at: WallTime,
    completeness: Completeness,
    findings: &'a [Finding],
}

async fn findings(State(app): State<App>, asked: Asked) -> Result<Response, Failure> {
    parameters(asked, &[])?;
    whole(&app, |snapshot| {
        serde_json::to_vec(&Findings {
            captured_at: snapshot.captured_at,
            completeness: snapshot.capture.completeness,
            findings: &snapshot.findings,
        })
    })
    .await
}

#[derive(Serialize)]
struct Processes<'a> {
    captured_at: WallTime,
    completeness: Completeness,
    processes: &'a [Process],
}

async fn processes(State(app): State<App>, asked: Asked) -> Result<Response, Failure> {
    parameters(asked, &[])?;
    whole(&app, |snapshot| {
        serde_json::to_vec(&Processes {
            captured_at: snapshot.captured_at,
            completeness: snapshot.capture.completeness,
            processes: &snapshot.processes,
        })
    })
    .await
}

#[derive(Serialize)]
struct Connections<'a> {
    captured_at: WallTime,
    completeness: Completeness,
    connections: Vec<&'a Connection>,
}

async fn connections(State(app): State<App>, asked: Asked) -> Result<Response, Failure> {
    let given = parameters(asked, &["pid", "endpoint", "state", "fresh"])?;
    let filter = ConnectionFilter::new(&given)?;
    let write = move |snapshot: &Snapshot| {
        serde_json::to_vec(&Connections {
            captured_at: snapshot.captured_at,
            completeness: snapshot.capture.completeness,
            connections: filter.apply(snapshot),
        })
    };
    match given.get("fresh").map(String::as_str) {
        None | Some("true") => whole(&app, write).await,
        Some("false") => json(&app, app.handle.known(Extent::Whole), write).await,
        Some(text) => {
            Err(Failure(StatusCode::BAD_REQUEST, format!("fresh is {text:?}: give true (look first) or false")))
        }
    }
}

struct ConnectionFilter {
    /// Opener or holder.
    pid: Option<u32>,
    /// Id or name.
    endpoint: Option<String>,
    state: Option<TcpState>,
}

impl ConnectionFilter {
    fn new(parameters: &BTreeMap<String, String>) -> Result<Self, Failure> {
        let bad = |sentence| Failure(StatusCode::BAD_REQUEST, sentence);
        let pid = match parameters.get("pid") {
            Some(text) => Some(text.parse().map_err(|_| bad(format!("pid {text:?} is no process id: give a number")))?),
            None => None,
        };
        let state = match parameters.get("state") {
            Some(text) => {
                let found = TcpState::ALL.into_iter().find(|state| state.name().eq_ignore_ascii_case(text));
                let known = || TcpState::ALL.map(TcpState::name).join(", ");
                Some(found.ok_or_else(|| bad(format!("unknown state {text:?}: the states are {}", known())))?)
            }
            None => None,
        };
        Ok(Self { pid, endpoint: parameters.get("endpoint").cloned(), state })
    }

    fn apply<'a>(&self, snapshot: &'a Snapshot) -> Vec<&'a Connection> {
        let names: HashMap<&str, &str> =
            snapshot.endpoints.iter().map(|endpoint| (endpoint.id.as_str(), endpoint.name.as_str())).collect();
        let matches = |connection: &&Connection| {
            let of_pid = |pid| {
                connection.opener.as_ref().is_some_and(|opener| opener.pid == pid)
                    || connection.holders.iter().any(|holder| holder.pid == pid)
            };
            let at = |wanted: &str| {
                connection.endpoint == wanted
                    || names.get(connection.endpoint.as_str()).is_some_and(|name| *name == wanted)
            };
            self.pid.is_none_or(of_pid)
                && self.endpoint.as_deref().is_none_or(at)
                && self.state.is_none_or(|state| connection.state == state)
        };
        snapshot.connections.iter().filter(matches).collect()
    }
}

/// Without a look at the socket table, and without a line for each connection: a scrape costs little.
async fn metrics(State(app): State<App>, asked: Asked) -> Result<Response, Failure> {
    parameters(asked, &[])?;
    written(&app, app.handle.figures(), metrics::CONTENT_TYPE, |figures| {
        metrics::text(figures, own_use(Path::new(PROC))).map(String::into_bytes)
    })
    .await
}

/// JSON made from a fresh snapshot.
async fn whole<W>(app: &App, write: W) -> Result<Response, Failure>
where
    W: FnOnce(&Snapshot) -> serde_json::Result<Vec<u8>> + Send + 'static,
{
    json(app, app.handle.snapshot(), write).await
}

/// JSON made from a snapshot.
async fn json<W>(
    app: &App,
    snapshot: impl Future<Output = Result<Arc<Snapshot>, HandleError>>,
    write: W,
) -> Result<Response, Failure>
where
    W: FnOnce(&Snapshot) -> serde_json::Result<Vec<u8>> + Send + 'static,
{
    written(app, snapshot, "application/json", move |snapshot| write(snapshot)).await
}

/// An answer made from a snapshot. Written away from the tracker and from the runtime's own threads; its turn ends when
/// the last byte is out or the reader is gone.
async fn written<T, W, E>(
    app: &App,
    state: impl Future<Output = Result<T, HandleError>>,
    content_type: &'static str,
    write: W,
) -> Result<Response, Failure>
where
    T: Send + 'static,
    W: FnOnce(&T) -> Result<Vec<u8>, E> + Send + 'static,
    E: Display + Send + 'static,
{
    let turn = tokio::time::timeout(TURN_WITHIN, Arc::clone(&app.bodies).acquire_owned()).await;
    let Ok(Ok(turn)) = turn else {
        let sentence = "too many snapshots are being fetched: try again";
        return Err(Failure(StatusCode::SERVICE_UNAVAILABLE, sentence.to_owned()));
    };
    let state = state.await?;
    let written = tokio::task::spawn_blocking(move || write(&state)).await;
    let failed =
        |why: String| Failure(StatusCode::INTERNAL_SERVER_ERROR, format!("the snapshot cannot be written: {why}"));
    let bytes = written.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
    let body = Full::new(Bytes::from(bytes)).map_frame(move |frame| {
        let _held_until_sent = &turn;
        frame
    });
    Ok(([(header::CONTENT_TYPE, content_type)], Body::new(body)).into_response())
}

const NDJSON: (header::HeaderName, &str) = (header::CONTENT_TYPE, "application/x-ndjson");

async fn tail(State(app): State<App>, asked: Asked) -> Result<Response, Failure> {
    parameters(asked, &[])?;
    let lines = app.handle.subscribe_findings();
    let open = app.handle.open_findings().await?;
    let count = open.len().to_string();
    let mut first = Vec::new();
    for finding in &open {
        let line = FindingLine {
            schema: FINDING_SCHEMA.to_owned(),
            change: Change::Opened,
            at: finding.last_seen,
            finding: Finding::clone(finding),
        };
        push_line(&line, &mut first);
    }
    let mut told: HashMap<String, WallTime> =
        open.iter().map(|finding| (finding.id.clone(), finding.last_seen)).collect();
    let body = stream::body(
        first,
        stream::Findings { lines, keep: move |line: &_| !is_old_news(line, &mut told) },
        app.handle,
    );
    Ok(([NDJSON, (header::HeaderName::from_static(OPEN_FINDINGS_HEADER), &count)], body).into_response())
}

/// Whether a line was sent between subscribing and asking, so that the open findings already say as much. A run of
/// the detectors sends at most one line a finding and has one `now`, so the time tells.
fn is_old_news(line: &FindingLine, told: &mut HashMap<String, WallTime>) -> bool {
    let Some(at) = told.get(&line.finding.id) else { return false };
    if line.change != Change::Resolved && line.finding.last_seen <= *at {
        return true;
    }
    told.remove(&line.finding.id);
    false
}

async fn events(State(app): State<App>, asked: Asked) -> Result<Response, Failure> {
    parameters(asked, &[])?;
    let lines = app.handle.subscribe_events().await?;
    Ok(([NDJSON], stream::body(Vec::new(), lines, app.handle)).into_response())
}

async fn record(State(app): State<App>, asked: Asked) -> Result<Response, Failure> {
    parameters(asked, &[])?;
    let Some(recording) = app.handle.record().await? else {
        let sentence = format!("{RECORDERS_MAX} recordings are being made: end one, and try again");
        return Err(Failure(StatusCode::SERVICE_UNAVAILABLE, sentence));
    };
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], stream::recording(recording, app.handle)).into_response())
}

async fn history(State(app): State<App>, asked: Asked) -> Result<Response, Failure> {
    past::history(app.handle.history(), asked).await
}

async fn health(State(app): State<App>, asked: Asked) -> Result<Response, Failure> {
    parameters(asked, &[])?;
    let snapshot = app.handle.known(Extent::Outline).await?;
    let health = Health {
        status: "ok".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_s: app.started.elapsed().as_secs(),
        mode: snapshot.capture.mode,
        completeness: snapshot.capture.completeness,
        history: app.handle.history().map(|history| history.status.health()),
    };
    Ok(axum::Json(health).into_response())
}
