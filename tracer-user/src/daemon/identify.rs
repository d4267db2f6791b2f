//! Asks /proc who processes are, on a thread of its own: a slow /proc must not hold up events.

use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};

use tokio::sync::mpsc;
use tracer_core::event::ProcessId;
use tracer_core::time::BootNs;

use super::Message;
use crate::config::{CmdlinePolicy, Config};
use crate::process::IdentityReader;

/// Questions that may wait.
const QUEUE: usize = 1_024;

/// What the thread is asked, and answers in this order.
pub enum Ask {
    /// Who is this?
    Who(ProcessId),
    /// Which of these are gone?
    Alive(Vec<ProcessId>),
    /// Which of these have another parent than this, and who are they then?
    Kin(Vec<(ProcessId, u32)>),
    /// Read command lines like this from now on.
    Cmdlines(CmdlinePolicy),
    /// Say when everything before this is answered; the look at the socket table that the questions came from.
    Done(BootNs),
}

/// Starts the thread; it ends when the sender is dropped or the actor is gone.
pub fn spawn(config: &Config, messages: mpsc::Sender<Message>) -> SyncSender<Ask> {
    let (sender, receiver) = sync_channel::<Ask>(QUEUE);
    let mut reader = IdentityReader::new(Path::new(super::PROC), config.privacy.cmdline);
    std::thread::spawn(move || {
        for ask in receiver {
            let answers = match ask {
                Ask::Who(id) => who(&mut reader, id).into_iter().collect(),
                Ask::Alive(ids) => ids.into_iter().filter(|id| !reader.is_alive(*id)).map(Message::Gone).collect(),
                Ask::Kin(kin) => adopted(&mut reader, kin),
                Ask::Cmdlines(policy) => {
                    reader.set_policy(policy);
                    Vec::new()
                }
                Ask::Done(look_started) => vec![Message::Asked(look_started)],
            };
            for answer in answers {
                if messages.blocking_send(answer).is_err() {
                    return;
                }
            }
        }
    });
    sender
}

/// Those whose parent is not the one that they had, as they are now.
fn adopted(reader: &mut IdentityReader, kin: Vec<(ProcessId, u32)>) -> Vec<Message> {
    let has_another = |(id, had): &(ProcessId, u32)| reader.parent(*id).is_some_and(|has| has != *had);
    let adopted: Vec<_> = kin.into_iter().filter(has_another).collect();
    adopted.into_iter().filter_map(|(id, _)| who(reader, id)).collect()
}

fn who(reader: &mut IdentityReader, id: ProcessId) -> Option<Message> {
    match reader.read(id.pid) {
        // A pid that belongs to a later process now: the one asked for is gone.
        Ok(Some(identity)) if identity.id == id => Some(Message::Identity(Box::new(identity))),
        Ok(_) => Some(Message::Gone(id)),
        Err(error) => {
            tracing::debug!(pid = id.pid, %error, "cannot identify");
            None
        }
    }
}
