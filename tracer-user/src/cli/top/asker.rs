//! Asks the daemon, one question at a time, away from the screen: however slow it is, keys are answered at once.

use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::api::client::{Client, ClientError};
use crate::ui::top::{Answer, Connections, Overview, Query, Wanted};

/// Of the time at most one part in so many goes into answers: where one takes long, they come less often.
const SHARE: u32 = 4;

/// What came of asking.
pub(super) struct Told {
    overview: Option<Result<Overview, ClientError>>,
    connections: Option<(Query, Result<Connections, ClientError>)>,
    next_in: Duration,
}

impl Told {
    /// For the screen, where a failure is a sentence.
    pub(super) fn into_answer(self) -> Answer {
        let sentence = |error: ClientError| error.to_string();
        Answer {
            overview: self.overview.map(|told| told.map_err(sentence)),
            connections: self.connections.map(|(query, told)| (query, told.map_err(sentence))),
            next_in: self.next_in,
        }
    }

    /// Before there is a screen a failure ends the command.
    pub(super) fn or_fail(self) -> Result<Answer, ClientError> {
        let overview = self.overview.transpose()?;
        Ok(Told { overview: overview.map(Ok), ..self }.into_answer())
    }
}

/// Asks for what is wanted, every `interval`, and at once where connections are wanted that nobody has asked for. Ends when
/// nobody listens.
pub(super) async fn ask(
    client: Client,
    interval: Duration,
    mut wants: watch::Receiver<Wanted>,
    tell: mpsc::Sender<Told>,
) {
    let mut due = Instant::now();
    let mut pace = interval;
    let mut asked = None;
    loop {
        let Wanted { overview, connections } = wants.borrow_and_update().clone();
        let is_due = Instant::now() >= due && (overview || connections.is_some());
        if is_due || (connections.is_some() && connections != asked) {
            let began = Instant::now();
            asked.clone_from(&connections);
            let told = question(&client, overview && is_due, connections).await;
            if is_due {
                pace = interval.max(began.elapsed() * SHARE);
                due = began + pace;
            }
            if tell.send(Told { next_in: pace, ..told }).await.is_err() {
                return;
            }
            continue;
        }
        let changed = if overview || connections.is_some() {
            tokio::select! {
                changed = wants.changed() => changed,
                () = tokio::time::sleep_until(due) => Ok(()),
            }
        } else {
            wants.changed().await
        };
        if changed.is_err() {
            return;
        }
    }
}

async fn question(client: &Client, overview: bool, connections: Option<Query>) -> Told {
    let mut told = Told { overview: None, connections: None, next_in: Duration::ZERO };
    if overview {
        let answer = fetch(client, "/v1/overview").await;
        let failed = answer.is_err();
        told.overview = Some(answer);
        if failed {
            return told;
        }
    }
    if let Some(query) = connections {
        let answer = fetch(client, &query.target()).await;
        told.connections = Some((query, answer));
    }
    told
}

/// Parsed on a thread of its own: thousands of connections take longer than a key may wait.
async fn fetch<T: DeserializeOwned + Send + 'static>(client: &Client, target: &str) -> Result<T, ClientError> {
    let json = client.get(target).await?;
    let parsed = tokio::task::spawn_blocking(move || serde_json::from_slice(&json)).await;
    let strange = |why: String| ClientError::Strange { path: client.path().to_owned(), why };
    parsed.map_err(|error| strange(error.to_string()))?.map_err(|error| strange(error.to_string()))
}
