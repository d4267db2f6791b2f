//! Asks /proc who processes are, on a thread of its own: a slow /proc must not hold up events.

use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};

use tokio::sync::mpsc;
use tracer_core::event::ProcessId;

use super::Message;
use crate::config::Config;
use crate::process::IdentityReader;

/// Processes that may wait to be asked about.
const QUEUE: usize = 1_024;

/// Starts the thread; it ends when the sender is dropped or the actor is gone.
pub fn spawn(config: &Config, messages: mpsc::Sender<Message>) -> SyncSender<ProcessId> {
    let (sender, receiver) = sync_channel::<ProcessId>(QUEUE);
    let mut reader = IdentityReader::new(Path::new("/proc"), config.privacy.cmdline);
    std::thread::spawn(move || {
        for id in receiver {
            let message = match reader.read(id.pid) {
                // A pid that belongs to a later process now: the one asked for is gone.
                Ok(Some(identity)) if identity.id == id => Message::Identity(Box::new(identity)),
                Ok(_) => Message::Gone(id),
                Err(error) => {
                    tracing::debug!(pid = id.pid, %error, "cannot identify");
                    continue;
                }
            };
            if messages.blocking_send(message).is_err() {
                return;
            }
        }
    });
    sender
}
