//! Moves events from the ring to the actor's queue, and keeps the order that reconciles rely on: a look at the socket
//! table is passed on only after every event that was in the ring when it ended.
//!
//! Openings and changes of state are not told by the ring but left in the kernel side's map, which is read every
//! [`SECOND`] if something in it is new, and passed on in the order in which they began. What the ring has by then is
//! passed on before what the map told: a socket in the map may have the kernel address of one whose end is still in the
//! ring. An end that overtakes its beginning in this way is told apart by the tracker's tombstones. What processes accept
//! is counted in another map, which is read as often. After that the actor is told that a second is over: what it judges
//! then it knows all of.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::runtime::Builder;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracer_core::event::{Event, ProcessId, SocketEvent};
use tracer_core::inventory::{Glance, Inventory};
use tracer_core::setup::Setup;

use super::feed::Feed;
use super::{Message, every};
use crate::capture::{Capture, KernelCounters, Ring, WAKE_INTERVAL};
use crate::clock;

/// Events in one message.
pub const BATCH: usize = 512;
/// How often the kernel side's counters are read, and its map if something in it is new. A life that is shorter is told
/// by its end alone.
const SECOND: Duration = Duration::from_secs(1);

/// How often the ring is looked at while it is busy and somebody watches events live.
const LIVE_INTERVAL: Duration = Duration::from_millis(5);

/// What others ask of the drain.
pub enum Command {
    /// Pass this look on, after the events it already knows.
    Inventory(Result<Inventory, String>),
    /// Pass this look at some sockets on, after the events it already knows.
    Glance(Glance),
    /// Report these processes' exec and exit from now on.
    Watch(Vec<ProcessId>),
    /// This one has ended.
    Unwatch(ProcessId),
    /// Report sockets with these ports from now on, and say when that is so.
    WatchPorts(Vec<u16>, oneshot::Sender<()>),
    /// Go by another configuration: these ports join, these leave. The setup is passed on after the events of before, and
    /// before any look that knows it. What could not be done leaves everything as it was.
    Configure(Box<Change>, oneshot::Sender<Result<(), String>>),
    /// Somebody watches events: tell each as it happens, and say so.
    Follow(oneshot::Sender<()>),
}

/// Another configuration, as far as the kernel side is concerned, and the rest of it for the tracker.
pub struct Change {
    /// Ports that are watched from now on.
    pub watch: Vec<u16>,
    /// Ports that are not any more.
    pub unwatch: Vec<u16>,
    /// For the tracker and the detectors.
    pub setup: Setup,
}

/// The kernel side, its ring, and who may watch events live.
struct Kernel {
    capture: Capture,
    ring: Ring,
    watchers: Arc<Feed>,
}

/// What came of emptying the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Emptied {
    /// There was nothing.
    WasEmpty,
    /// There was something.
    Had,
    /// There is more, for which the queue has no room.
    QueueFull,
}

struct Drain {
    kernel: Kernel,
    messages: mpsc::Sender<Message>,
    decode_errors: u64,
    is_live: bool,
    /// Records that found the ring full when the whole map was last read.
    ring_full: u64,
}

/// Starts the drain on a thread of its own, which goes before others: at full speed the ring lasts for some 20 ms.
/// Without a capture there is nothing to drain, and commands are answered all the same. Ends when the actor is gone; then
/// the programs are detached and unloaded.
pub fn spawn(
    capture: Option<Capture>,
    watchers: Arc<Feed>,
    messages: mpsc::Sender<Message>,
    commands: mpsc::Receiver<Command>,
) -> JoinHandle<anyhow::Result<()>> {
    tokio::task::spawn_blocking(move || {
        let runtime = Builder::new_current_thread().enable_all().build().context("cannot start the drain's runtime")?;
        runtime.block_on(async {
            let Some(mut capture) = capture else { return pass_on(messages, commands).await };
            go_first();
            let ring = capture.take_ring()?;
            let kernel = Kernel { capture, ring, watchers };
            let drain = Drain { kernel, messages, decode_errors: 0, is_live: false, ring_full: 0 };
            drain.run(commands).await
        })
    })
}

/// How much weight that is.
pub(super) const NICE: libc::c_int = -10;

/// Gives this thread, and no other, more weight than usual. Where that is not allowed, it works with the usual one.
fn go_first() {
    // SAFETY: no pointers; 0 is the calling thread, to which Linux applies it alone.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
}

/// Looks at the socket table have to do, and the seconds that go by.
async fn pass_on(messages: mpsc::Sender<Message>, mut commands: mpsc::Receiver<Command>) -> anyhow::Result<()> {
    let mut tick = every(SECOND);
    loop {
        // Sending fails when the actor is gone; then nobody sends commands any more either.
        tokio::select! {
            command = commands.recv() => match command {
                Some(Command::Inventory(result)) => drop(messages.send(looked(result)).await),
                Some(Command::Glance(glance)) => drop(messages.send(Message::Glance(Box::new(glance))).await),
                // The client has gone, if this fails.
                Some(Command::Follow(reply) | Command::WatchPorts(_, reply)) => drop(reply.send(())),
                Some(Command::Configure(change, reply)) => {
                    drop(messages.send(Message::Configure(Box::new(change.setup))).await);
                    drop(reply.send(Ok(())));
                }
                Some(Command::Watch(_) | Command::Unwatch(_)) => {}
                None => return Ok(()),
            },
            _ = tick.tick() => drop(messages.send(Message::Second).await),
        }
    }
}

fn looked(result: Result<Inventory, String>) -> Message {
    match result {
        Ok(inventory) => Message::Inventory(Box::new(inventory)),
        Err(reason) => Message::InventoryFailed(reason),
    }
}

impl Drain {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) -> anyhow::Result<()> {
        let mut tick = every(SECOND);
        // After a wake-up the kernel side stays silent for a while: look again until a look after that finds nothing.
        let mut busy = false;
        let mut silent_until = Instant::now();
        loop {
            tokio::select! {
                readable = self.kernel.ring.readable() => {
                    readable.context("cannot wait for the ring buffer")?;
                    self.empty();
                    busy = true;
                    silent_until = Instant::now() + WAKE_INTERVAL;
                }
                () = tokio::time::sleep(if self.is_live { LIVE_INTERVAL } else { WAKE_INTERVAL }), if busy => {
                    let is_over = Instant::now() >= silent_until;
                    busy = self.empty() != Emptied::WasEmpty || !is_over;
                }
                command = commands.recv() => match command {
                    Some(command) => self.obey(command).await?,
                    None => return Ok(()),
                },
                _ = tick.tick() => {
                    self.follow_watchers()?;
                    self.tell_untold(false).await?;
                    self.empty();
                    self.tell_accepts().await;
                    self.report().await?;
                    let _ = self.messages.send(Message::Second).await;
                }
            }
            if self.messages.is_closed() {
                return Ok(());
            }
        }
    }

    /// Whoever watches events wants each as it happens.
    fn follow_watchers(&mut self) -> anyhow::Result<()> {
        let live = self.kernel.watchers.has_readers();
        if live != self.is_live {
            self.kernel.capture.set_live(live)?;
            self.is_live = live;
        }
        Ok(())
    }

    /// Passes on what is only in the kernel side's map; all of it if records were lost since that was last done.
    async fn tell_untold(&mut self, after_loss: bool) -> anyhow::Result<()> {
        let mut told: Vec<SocketEvent> = Vec::new();
        let decode_errors = &mut self.decode_errors;
        let read = self.kernel.capture.untold(after_loss, clock::boot_clock, |event| match event {
            Ok(event) => told.push(event),
            Err(error) => unreadable(decode_errors, error),
        });
        if let Err(error) = read {
            // Such as no memory for the moment: it stays untold until the next time.
            tracing::warn!(%error, "cannot read what the kernel side remembers");
        }
        if !told.is_empty() {
            self.empty_whole().await;
        }
        // A count by time takes what comes late for what happens now.
        told.sort_by_key(|event| event.established.unwrap_or(event.at));
        let events: Vec<Event> = told.into_iter().map(Event::Socket).collect();
        self.send(&events).await;
        Ok(())
    }

    /// Passes on what processes accepted since the last time.
    async fn tell_accepts(&mut self) {
        let mut events: Vec<Event> = Vec::new();
        let decode_errors = &mut self.decode_errors;
        let read = self.kernel.capture.accepts(clock::boot_clock(), |event| match event {
            Ok(event) => events.push(event),
            Err(error) => unreadable(decode_errors, error),
        });
        if let Err(error) = read {
            // They stay counted until the next time.
            tracing::warn!(%error, "cannot read what the kernel side counted of accepts");
        }
        self.send(&events).await;
    }

    async fn send(&self, events: &[Event]) {
        for batch in events.chunks(BATCH) {
            // Fails only when the actor is gone, which the loop notices.
            let _ = self.messages.send(Message::Events(batch.to_vec())).await;
        }
    }

    /// Empties the ring however long it takes: what came before this call is in the queue afterwards.
    async fn empty_whole(&mut self) {
        while self.empty() == Emptied::QueueFull {
            // An error means that the actor is gone, which the loop notices.
            if self.messages.reserve().await.is_err() {
                return;
            }
        }
    }

    /// Empties the ring into the queue. Records for which the queue has no room stay in the ring, where what does not fit
    /// is counted.
    fn empty(&mut self) -> Emptied {
        let mut outcome = Emptied::WasEmpty;
        loop {
            let permit = match self.messages.try_reserve() {
                Ok(permit) => permit,
                Err(TrySendError::Full(())) => return Emptied::QueueFull,
                Err(TrySendError::Closed(())) => return Emptied::WasEmpty,
            };
            let mut batch: Vec<Event> = Vec::new();
            let decode_errors = &mut self.decode_errors;
            let seen = self.kernel.ring.drain(BATCH, |event| match event {
                Ok(event) => batch.push(event),
                Err(error) => unreadable(decode_errors, error),
            });
            if !batch.is_empty() {
                permit.send(Message::Events(batch));
            }
            if seen > 0 {
                outcome = Emptied::Had;
            }
            if seen < BATCH {
                return outcome;
            }
        }
    }

    async fn obey(&mut self, command: Command) -> anyhow::Result<()> {
        match command {
            Command::Watch(processes) => {
                for process in processes {
                    self.kernel.capture.watch_process(process);
                }
            }
            Command::Unwatch(process) => self.kernel.capture.unwatch_process(process),
            Command::Follow(reply) => {
                self.follow_watchers()?;
                // What was there before is nothing new to whoever comes now.
                self.tell_untold(false).await?;
                let _ = reply.send(());
            }
            Command::WatchPorts(ports, done) => {
                for port in ports {
                    self.kernel.capture.watch_port(port)?;
                }
                // Fails only when the one who looks is gone.
                let _ = done.send(());
            }
            Command::Configure(change, reply) => {
                let outcome = self.configure(*change).await;
                // Fails only when the one who asked is gone.
                let _ = reply.send(outcome);
            }
            Command::Glance(glance) => {
                self.empty_whole().await;
                // Fails only when the actor is gone, which the loop notices.
                let _ = self.messages.send(Message::Glance(Box::new(glance))).await;
            }
            Command::Inventory(result) => {
                let lost = self.kernel.capture.counters()?.ring_full_total();
                self.tell_untold(lost != self.ring_full).await?;
                self.ring_full = lost;
                self.empty();
                self.tell_accepts().await;
                // The tracker has to know of a loss before it trusts what it had.
                self.report().await?;
                // Fails only when the actor is gone, which the loop notices.
                let _ = self.messages.send(looked(result)).await;
            }
        }
        Ok(())
    }

    async fn configure(&mut self, change: Change) -> Result<(), String> {
        let Change { watch, unwatch, setup } = change;
        let capture = &mut self.kernel.capture;
        let refused =
            |what: &str, port: u16, error: &dyn std::fmt::Display| format!("cannot {what} port {port}: {error}");
        for (at, port) in watch.iter().enumerate() {
            if let Err(error) = capture.watch_port(*port) {
                // None of them was watched before.
                watch.iter().take(at).for_each(|port| drop(capture.unwatch_port(*port)));
                return Err(refused("watch", *port, &error));
            }
        }
        for port in &unwatch {
            if let Err(error) = capture.unwatch_port(*port) {
                unwatch.iter().for_each(|port| drop(capture.watch_port(*port)));
                watch.iter().for_each(|port| drop(capture.unwatch_port(*port)));
                return Err(refused("stop to watch", *port, &error));
            }
        }
        self.empty_whole().await;
        // Fails only when the actor is gone, which the loop notices.
        let _ = self.messages.send(Message::Configure(Box::new(setup))).await;
        Ok(())
    }

    async fn report(&mut self) -> anyhow::Result<()> {
        let kernel: KernelCounters = self.kernel.capture.counters()?;
        let message = Message::Counters { kernel, decode_errors: self.decode_errors };
        let _ = self.messages.send(message).await;
        Ok(())
    }
}

fn unreadable(decode_errors: &mut u64, error: tracer_core::decode::DecodeError) {
    *decode_errors += 1;
    tracing::warn!(%error, "unreadable record");
}
