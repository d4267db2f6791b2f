//! What the history on disk answers. Read on threads that may block, one answer's rows at a time.

use std::sync::LazyLock;

use axum::body::Body;
use axum::extract::Query;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use tokio::sync::Semaphore;
use tracer_core::finding::Kind;
use tracer_core::time::WallTime;

use super::routes::{Asked as Parameters, Failure};
use crate::history::{Access, Asked, Reader, StoreError};
use crate::ndjson::push_line;

/// Answers being read at once: each may take as long as the disk does.
const READERS_MAX: usize = 2;

static READERS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(READERS_MAX));

/// The snapshot of a moment that is over.
pub(super) async fn snapshot(history: Option<&Access>, at: &str) -> Result<Response, Failure> {
    let at = moment("at", at)?;
    let json = read(history, move |reader| Ok(serde_json::to_vec(&reader.snapshot_at(at)?)?)).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from(json)).into_response())
}

/// What happened, as lines.
pub(super) async fn history(history: Option<&Access>, asked: Parameters) -> Result<Response, Failure> {
    let asked = parse(asked)?;
    let lines = read(history, move |reader| {
        let mut bytes = Vec::new();
        for line in reader.history(&asked)? {
            push_line(&line, &mut bytes);
        }
        Ok(bytes)
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from(lines.await?)).into_response())
}

async fn read(
    history: Option<&Access>,
    answer: impl FnOnce(&Reader) -> Result<Vec<u8>, StoreError> + Send + 'static,
) -> Result<Vec<u8>, Failure> {
    let Some(history) = history.cloned() else {
        let sentence = "this daemon keeps no history: start it with --state-dir DIR, or set history.dir";
        return Err(Failure(StatusCode::NOT_FOUND, sentence.to_owned()));
    };
    let failed = |why: String| Failure(StatusCode::INTERNAL_SERVER_ERROR, format!("the history failed: {why}"));
    let _turn = READERS.acquire().await.map_err(|error| failed(error.to_string()))?;
    let read = tokio::task::spawn_blocking(move || answer(&history.reader()?));
    match read.await.map_err(|error| failed(error.to_string()))? {
        Ok(bytes) => Ok(bytes),
        Err(error @ StoreError::OutOfRange(_)) => Err(Failure(StatusCode::BAD_REQUEST, error.to_string())),
        Err(error) => Err(failed(error.to_string())),
    }
}

fn bad(sentence: String) -> Failure {
    Failure(StatusCode::BAD_REQUEST, sentence)
}

fn moment(name: &str, text: &str) -> Result<WallTime, Failure> {
    let wants = || bad(format!("{name} {text:?} is no time: write one such as 2026-11-21T20:41:07Z"));
    WallTime::try_from(text.to_owned()).map_err(|_| wants())
}

/// Filters may be given several times.
fn parse(asked: Parameters) -> Result<Asked, Failure> {
    let Query(pairs) = asked.map_err(|error| bad(error.body_text()))?;
    let mut parsed = Asked { until: WallTime { unix_ms: i64::MAX }, ..Asked::default() };
    for (name, value) in pairs {
        match name.as_str() {
            "since" => parsed.since = moment("since", &value)?,
            "until" => parsed.until = moment("until", &value)?,
            "pid" => {
                let wants = || bad(format!("pid {value:?} is no process id: give a number"));
                parsed.pids.push(value.parse().map_err(|_| wants())?);
            }
            "endpoint" => parsed.endpoints.push(value),
            "kind" => {
                let wants = || bad(format!("unknown kind {value:?}: see `socklife history --help`"));
                parsed.kinds.push(Kind::from_name(&value).ok_or_else(wants)?);
            }
            _ => {
                let known = "this path takes since, until, pid, endpoint, kind";
                return Err(bad(format!("unknown parameter {name:?}: {known}")));
            }
        }
    }
    Ok(parsed)
}
