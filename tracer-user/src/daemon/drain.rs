//! Moves events from the ring to the actor's queue, and keeps the order that reconciles rely on: a look at the socket
//! table is passed on only after every event that was in the ring when it ended.

use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tracer_core::event::{Event, ProcessId};
use tracer_core::inventory::Inventory;

use super::Message;
use crate::capture::{Capture, Ring, WAKE_INTERVAL};

/// Events in one message.
pub const BATCH: usize = 512;
/// How often the kernel side's counters are read.
const COUNTERS_EVERY: Duration = Duration::from_secs(1);

/// What others ask of the drain.
pub enum Command {
    /// Pass this look on, after the events it already knows.
    Inventory(Result<Inventory, String>),
    /// Report these processes' exec and exit from now on.
    Watch(Vec<ProcessId>),
    /// This one has ended.
    Unwatch(ProcessId),
    /// Report sockets with these ports from now on, and say when that is so.
    WatchPorts(Vec<u16>, oneshot::Sender<()>),
}

struct Drain {
    capture: Capture,
    ring: Ring,
    messages: mpsc::Sender<Message>,
    decode_errors: u64,
}

/// Runs until the actor is gone, then detaches and unloads the programs.
pub async fn run(
    capture: Capture,
    ring: Ring,
    messages: mpsc::Sender<Message>,
    mut commands: mpsc::Receiver<Command>,
) -> anyhow::Result<()> {
    let mut drain = Drain { capture, ring, messages, decode_errors: 0 };
    let mut counters = tokio::time::interval(COUNTERS_EVERY);
    counters.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // After a wake-up the kernel side stays silent for a while: look again until a look finds nothing.
    let mut busy = false;
    loop {
        tokio::select! {
            readable = drain.ring.readable() => {
                readable.context("cannot wait for the ring buffer")?;
                drain.empty();
                busy = true;
            }
            () = tokio::time::sleep(WAKE_INTERVAL), if busy => busy = drain.empty() > 0,
            command = commands.recv() => match command {
                Some(command) => drain.obey(command).await?,
                None => return Ok(()),
            },
            _ = counters.tick() => {
                drain.empty();
                drain.report().await?;
            }
        }
        if drain.messages.is_closed() {
            return Ok(());
        }
    }
}

impl Drain {
    /// Empties the ring into the queue; returns how many records there were. Records for which the queue has no room
    /// stay in the ring, where what does not fit is counted; then there is more to come.
    fn empty(&mut self) -> usize {
        let mut total = 0;
        loop {
            let permit = match self.messages.try_reserve() {
                Ok(permit) => permit,
                Err(TrySendError::Full(())) => return total.max(1),
                Err(TrySendError::Closed(())) => return 0,
            };
            let mut batch: Vec<Event> = Vec::new();
            let decode_errors = &mut self.decode_errors;
            let seen = self.ring.drain(BATCH, |event| match event {
                Ok(event) => batch.push(event),
                Err(error) => {
                    *decode_errors += 1;
                    tracing::warn!(%error, "unreadable record");
                }
            });
            total += seen;
            if !batch.is_empty() {
                permit.send(Message::Events(batch));
            }
            if seen < BATCH {
                return total;
            }
        }
    }

    async fn obey(&mut self, command: Command) -> anyhow::Result<()> {
        let message = match command {
            Command::Watch(processes) => {
                for process in processes {
                    self.capture.watch_process(process);
                }
                return Ok(());
            }
            Command::Unwatch(process) => {
                self.capture.unwatch_process(process);
                return Ok(());
            }
            Command::WatchPorts(ports, done) => {
                for port in ports {
                    self.capture.watch_port(port)?;
                }
                // Fails only when the one who looks is gone.
                let _ = done.send(());
                return Ok(());
            }
            Command::Inventory(Ok(inventory)) => Message::Inventory(Box::new(inventory)),
            Command::Inventory(Err(reason)) => Message::InventoryFailed(reason),
        };
        self.empty();
        // The tracker has to know of a loss before it trusts what it had.
        self.report().await?;
        // Fails only when the actor is gone, which the loop notices.
        let _ = self.messages.send(message).await;
        Ok(())
    }

    async fn report(&mut self) -> anyhow::Result<()> {
        let kernel = self.capture.counters()?;
        let message = Message::Counters { kernel, decode_errors: self.decode_errors };
        let _ = self.messages.send(message).await;
        Ok(())
    }
}
