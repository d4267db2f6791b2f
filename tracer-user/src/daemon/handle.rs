//! The interface between the daemon and whoever serves it to others: requests go to the one task that owns the
//! tracker, changes come back on channels that shed slow readers. Knows neither HTTP nor the tracker.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tracer_core::finding::{Finding, FindingLine};
use tracer_core::snapshot::{LossLine, Snapshot};
use tracer_core::tracker::{Extent, GroupOpen};

use super::feed::{self, Feed};
use crate::history::Access;

use super::record::Recording;

/// Requests waiting for the tracker's task.
const REQUESTS_MAX: usize = 64;
/// Finding lines a reader may be behind before it loses the oldest.
const FINDINGS_BEHIND_MAX: usize = 1_024;
/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// What the tracker's task may be asked.
#[derive(Debug)]
pub enum Request {
    /// The state after a look at the socket table that begins now.
    Snapshot {
        /// Where the answer goes.
        reply: oneshot::Sender<Arc<Snapshot>>,
    },
    /// What is known of the state without another look, which may be some seconds old.
    Known {
        /// How much of it.
        extent: Extent,
        /// Where the answer goes.
        reply: oneshot::Sender<Arc<Snapshot>>,
    },
    /// Counts for a scrape.
    Figures {
        /// Where the answer goes.
        reply: oneshot::Sender<Figures>,
    },
    /// The findings that are open.
    OpenFindings {
        /// Where the answer goes.
        reply: oneshot::Sender<Vec<Arc<Finding>>>,
    },
    /// Tell each socket event as it happens from now on: somebody has subscribed.
    FollowEvents {
        /// Told when that is so.
        reply: oneshot::Sender<()>,
    },
    /// Tell everything that enters the tracker from now on.
    Record {
        /// Where the recording goes; `None` if there are as many as may be.
        reply: oneshot::Sender<Option<Recording>>,
    },
}

/// What metrics are made of.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Without connections.
    pub outline: Snapshot,
    /// What the connections are, counted.
    pub open: Vec<GroupOpen>,
    /// Records that the kernel programs handed over, by kind.
    pub records: Vec<(&'static str, u64)>,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandleError {
    /// The daemon is on its way out.
    #[error("the daemon is stopping")]
    Stopping,
    /// The tracker's task has more to do than it can.
    #[error("the daemon is overloaded and did not answer within {} s: try again", ANSWER_WITHIN.as_secs())]
    Overloaded,
}

/// A reader's end. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    findings: broadcast::Sender<Arc<FindingLine>>,
    events: Arc<Feed>,
    loss: watch::Receiver<Option<LossLine>>,
    shutdown: watch::Receiver<bool>,
    history: Option<Access>,
}

/// The daemon's end.
#[derive(Debug)]
pub struct Served {
    /// What readers ask.
    pub requests: mpsc::Receiver<Request>,
    /// Changes of findings. Sending fails when nobody listens, which is no error.
    pub findings: broadcast::Sender<Arc<FindingLine>>,
    /// Socket events. Build a line only when [`Served::has_event_subscribers`].
    pub events: Arc<Feed>,
    /// The latest loss of events, if any.
    pub loss: watch::Sender<Option<LossLine>>,
    /// Set to true to end every stream and the server; dropping it does the same.
    pub shutdown: watch::Sender<bool>,
}

impl Served {
    /// Whether an event line would reach anyone.
    #[must_use]
    pub fn has_event_subscribers(&self) -> bool {
        self.events.has_readers()
    }
}

/// Both ends.
#[must_use]
pub fn channel() -> (Handle, Served) {
    let (request_sender, requests) = mpsc::channel(REQUESTS_MAX);
    let findings = broadcast::Sender::new(FINDINGS_BEHIND_MAX);
    let events = Arc::new(Feed::default());
    let (shutdown_sender, shutdown) = watch::channel(false);
    let (loss_sender, loss) = watch::channel(None);
    let (told_findings, told_events) = (findings.clone(), Arc::clone(&events));
    let handle = Handle {
        requests: request_sender,
        findings: told_findings,
        events: told_events,
        loss,
        shutdown,
        history: None,
    };
    (handle, Served { requests, findings, events, loss: loss_sender, shutdown: shutdown_sender })
}

impl Handle {
    /// Says where the history is.
    pub fn set_history(&mut self, history: Option<Access>) {
        self.history = history;
    }

    /// The history on disk, if one is kept.
    #[must_use]
    pub fn history(&self) -> Option<&Access> {
        self.history.as_ref()
    }

    /// The state as of now.
    pub async fn snapshot(&self) -> Result<Arc<Snapshot>, HandleError> {
        self.ask(|reply| Request::Snapshot { reply }).await
    }

    /// What is known of the state, which may be some seconds old.
    pub async fn known(&self, extent: Extent) -> Result<Arc<Snapshot>, HandleError> {
        self.ask(|reply| Request::Known { extent, reply }).await
    }

    /// Counts, as of now.
    pub async fn figures(&self) -> Result<Figures, HandleError> {
        self.ask(|reply| Request::Figures { reply }).await
    }

    /// The findings that are open. Subscribe first, then ask: so no change is lost in between.
    pub async fn open_findings(&self) -> Result<Vec<Arc<Finding>>, HandleError> {
        self.ask(|reply| Request::OpenFindings { reply }).await
    }

    /// Changes of findings from now on.
    #[must_use]
    pub fn subscribe_findings(&self) -> broadcast::Receiver<Arc<FindingLine>> {
        self.findings.subscribe()
    }

    /// Socket events from now on.
    pub async fn subscribe_events(&self) -> Result<feed::Reader, HandleError> {
        let events = self.events.subscribe();
        self.ask(|reply| Request::FollowEvents { reply }).await?;
        Ok(events)
    }

    /// A recording that begins now; `None` if there are as many as may be.
    pub async fn record(&self) -> Result<Option<Recording>, HandleError> {
        self.ask(|reply| Request::Record { reply }).await
    }

    /// Losses of events: the last one, if there was any, and those to come.
    #[must_use]
    pub fn subscribe_loss(&self) -> watch::Receiver<Option<LossLine>> {
        let mut loss = self.loss.clone();
        loss.mark_changed();
        loss
    }

    /// Whether an event line would reach anyone.
    #[must_use]
    pub fn has_event_subscribers(&self) -> bool {
        self.events.has_readers()
    }

    /// Returns once the daemon is on its way out.
    pub async fn stopping(&self) {
        let mut shutdown = self.shutdown.clone();
        // An error means the daemon's end is gone: that is the end as well.
        let _ended = shutdown.wait_for(|stop| *stop).await;
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, HandleError> {
        let (reply, answer) = oneshot::channel();
        let exchange = async {
            self.requests.send(request(reply)).await.map_err(|_| HandleError::Stopping)?;
            answer.await.map_err(|_| HandleError::Stopping)
        };
        tokio::select! {
            biased;
            answer = exchange => answer,
            () = self.stopping() => Err(HandleError::Stopping),
            () = tokio::time::sleep(ANSWER_WITHIN) => Err(HandleError::Overloaded),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_daemon_that_is_gone_or_stopping_is_said_so() {
        let (handle, served) = channel();
        served.shutdown.send(true).unwrap();
        assert_eq!(handle.snapshot().await.unwrap_err(), HandleError::Stopping);
        drop(served);
        assert_eq!(handle.open_findings().await.unwrap_err(), HandleError::Stopping);
        handle.stopping().await;
    }

    #[tokio::test]
    async fn event_subscribers_are_counted() {
        let (handle, mut served) = channel();
        assert!(!served.has_event_subscribers() && !handle.has_event_subscribers());
        let (subscribed, ()) = tokio::join!(handle.subscribe_events(), async {
            match served.requests.recv().await {
                Some(Request::FollowEvents { reply }) => reply.send(()).unwrap(),
                other => panic!("{other:?}"),
            }
        });
        assert!(served.has_event_subscribers() && handle.has_event_subscribers());
        drop(subscribed);
        assert!(!served.has_event_subscribers());
    }

    #[tokio::test(start_paused = true)]
    async fn a_daemon_that_does_not_answer_is_not_waited_for() {
        let (handle, _served) = channel();
        assert_eq!(handle.known(Extent::Outline).await.unwrap_err(), HandleError::Overloaded);
    }
}
