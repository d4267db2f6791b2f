//! Tells recorders what enters the tracker, in the order in which it does. A recorder that does not keep up is shed: it
//! gets a frame that says how much it missed, then a fresh look. While nobody records, nothing is built.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;
use tracer_core::event::{Event, ProcessId};
use tracer_core::identity::Identity;
use tracer_core::inventory::{Glance, Inventory};
use tracer_core::recording::{Frame, Header, encode, preamble};
use tracer_core::setup::Setup;
use tracer_core::snapshot::Loss;
use tracer_core::time::BootNs;
use tracer_core::tracker::Tracker;

use super::drain::BATCH;
use crate::clock;

/// Recordings at once.
pub const RECORDERS_MAX: usize = 4;
/// Frames that may wait for one recorder.
const WAITING_FRAMES_MAX: usize = 65_536;
/// Bytes that may wait for one recorder. A frame that is longer alone goes out alone.
const WAITING_BYTES_MAX: usize = 8 << 20;

/// The bytes of a recording as they come.
#[derive(Debug)]
pub struct Recording {
    frames: mpsc::Receiver<Bytes>,
    waiting: Arc<AtomicUsize>,
}

impl Recording {
    /// The next bytes; `None` at the end.
    pub async fn next(&mut self) -> Option<Bytes> {
        let bytes = self.frames.recv().await?;
        self.waiting.fetch_sub(bytes.len(), Ordering::AcqRel);
        Some(bytes)
    }
}

/// The daemon's end of a [`Recording`].
#[derive(Clone, Debug)]
pub struct FrameSender {
    frames: mpsc::Sender<Bytes>,
    waiting: Arc<AtomicUsize>,
}

impl FrameSender {
    /// Sends bytes, however many wait already. Into a queue that is full, or for a reader who has gone, nothing is sent.
    pub fn push(&self, bytes: Bytes) {
        let length = bytes.len();
        self.waiting.fetch_add(length, Ordering::AcqRel);
        if self.frames.try_send(bytes).is_err() {
            self.waiting.fetch_sub(length, Ordering::AcqRel);
        }
    }

    /// Whether there is room for so many bytes in two frames.
    fn has_room(&self, bytes: usize) -> bool {
        let waiting = self.waiting.load(Ordering::Acquire);
        self.frames.capacity() >= 2 && (waiting == 0 || waiting + bytes <= WAITING_BYTES_MAX)
    }
}

/// Both ends of a recording.
#[must_use]
pub fn channel() -> (FrameSender, Recording) {
    let (frames, receiver) = mpsc::channel(WAITING_FRAMES_MAX);
    let waiting = Arc::new(AtomicUsize::new(0));
    (FrameSender { frames, waiting: Arc::clone(&waiting) }, Recording { frames: receiver, waiting })
}

/// One who records.
#[derive(Debug)]
struct Recorder {
    frames: FrameSender,
    /// Frames that did not fit since the last that did, and the events in them.
    left_out: (u64, u64),
    /// A look that began since then is wanted, and after it what is known of processes.
    wants_look: Option<BootNs>,
    /// Looks are told: one that began before the recording misses what happened in between.
    has_look: bool,
}

/// A frame, and what it costs to leave it out.
struct Encoded {
    bytes: Bytes,
    at: BootNs,
    events: u64,
}

impl Encoded {
    fn of(frame: &Frame<'_>) -> Option<Self> {
        match encode(frame) {
            Ok(bytes) => Some(Self { bytes: bytes.into(), at: frame.at(), events: frame.events() }),
            Err(error) => {
                tracing::error!(%error, "a frame of the recording could not be written");
                None
            }
        }
    }
}

impl Recorder {
    fn send(&mut self, frame: &Encoded) {
        let gap = match self.left_out {
            (0, _) => None,
            (frames, events) => Encoded::of(&Frame::LeftOut { at: frame.at, frames, events }),
        };
        let bytes = frame.bytes.len() + gap.as_ref().map_or(0, |gap| gap.bytes.len());
        if !self.frames.has_room(bytes) {
            self.left_out = (self.left_out.0 + 1, self.left_out.1 + frame.events);
            return;
        }
        if let Some(gap) = gap {
            self.frames.push(gap.bytes);
            self.left_out = (0, 0);
            self.wants_look = Some(frame.at);
        }
        self.frames.push(frame.bytes.clone());
    }
}

/// Everybody who records.
#[derive(Debug, Default)]
pub(super) struct Recorders {
    all: Vec<Recorder>,
    /// What was lost when that was last told.
    loss: (Loss, u64),
}

impl Recorders {
    /// One more, from now on; `None` if there are as many as may be. A fresh look has to be asked for.
    pub(super) fn begin(&mut self, header: Header, tracker: &Tracker) -> Option<Recording> {
        self.forget();
        if self.all.len() >= RECORDERS_MAX {
            return None;
        }
        let (frames, recording) = channel();
        let at = header.anchor.boot;
        let mut new = Recorder { frames, left_out: (0, 0), wants_look: Some(at), has_look: false };
        new.frames.push(Bytes::copy_from_slice(&preamble()));
        let first = Frame::Header(Cow::Owned(header));
        let remembered = tracker.remembered();
        let events = remembered.chunks(BATCH).map(|events| Frame::Events { at, events: Cow::Borrowed(events) });
        for frame in std::iter::once(first).chain(events) {
            new.send(&Encoded::of(&frame)?);
        }
        self.all.push(new);
        Some(recording)
    }

    /// Whether anybody waits for a look that began after one that is under way.
    pub(super) fn want_look(&self) -> bool {
        self.all.iter().any(|recorder| recorder.wants_look.is_some())
    }

    pub(super) fn events(&mut self, events: &[Event]) {
        if !self.all.is_empty() {
            self.tell(&Frame::Events { at: clock::boot_clock(), events: Cow::Borrowed(events) });
        }
    }

    pub(super) fn identity(&mut self, identity: &Identity) {
        if !self.all.is_empty() {
            self.tell(&Frame::Identity { at: clock::boot_clock(), identity: Cow::Borrowed(identity) });
        }
    }

    pub(super) fn glance(&mut self, glance: &Glance) {
        if !self.all.is_empty() {
            self.tell(&Frame::Glance { at: clock::boot_clock(), glance: Cow::Borrowed(glance) });
        }
    }

    pub(super) fn configured(&mut self, setup: &Setup, at: BootNs) {
        if !self.all.is_empty() {
            self.tell(&Frame::Configured { at, setup: Cow::Borrowed(setup) });
        }
    }

    pub(super) fn gone(&mut self, id: ProcessId, at: BootNs) {
        if !self.all.is_empty() {
            self.tell(&Frame::Gone { at, id });
        }
    }

    /// The daemon counts every second; what did not change is no news.
    pub(super) fn loss(&mut self, at: BootNs, loss: Loss, drops_untold: u64) {
        if !self.all.is_empty() && (loss, drops_untold) != self.loss {
            self.tell(&Frame::Loss { at, loss, drops_untold });
        }
        self.loss = (loss, drops_untold);
    }

    /// Before the tracker takes the look in.
    pub(super) fn look(&mut self, look: &Inventory) {
        self.forget();
        let started = look.started;
        for recorder in &mut self.all {
            recorder.has_look |= recorder.wants_look.is_some_and(|wanted| wanted <= started);
        }
        if self.all.iter().any(|recorder| recorder.has_look)
            && let Some(frame) = Encoded::of(&Frame::Look { at: clock::boot_clock(), look: Cow::Borrowed(look) })
        {
            self.all.iter_mut().filter(|recorder| recorder.has_look).for_each(|recorder| recorder.send(&frame));
        }
    }

    /// After the tracker took the look in that began then: those who waited for it learn who everybody is.
    pub(super) fn looked(&mut self, started: BootNs, tracker: &Tracker) {
        let waited = |recorder: &&mut Recorder| recorder.wants_look.is_some_and(|wanted| wanted <= started);
        let mut waiting: Vec<&mut Recorder> = self.all.iter_mut().filter(waited).collect();
        if waiting.is_empty() {
            return;
        }
        waiting.iter_mut().for_each(|recorder| recorder.wants_look = None);
        let at = clock::boot_clock();
        let who = tracker.identities().map(|identity| Frame::Identity { at, identity: Cow::Owned(identity) });
        let gone = tracker.ended().into_iter().map(|id| Frame::Gone { at, id });
        for frame in who.chain(gone).filter_map(|frame| Encoded::of(&frame)) {
            waiting.iter_mut().for_each(|recorder| recorder.send(&frame));
        }
    }

    fn tell(&mut self, frame: &Frame<'_>) {
        self.forget();
        if self.all.is_empty() {
            return;
        }
        if let Some(frame) = Encoded::of(frame) {
            self.all.iter_mut().for_each(|recorder| recorder.send(&frame));
        }
    }

    /// Drops those whose reader has gone.
    fn forget(&mut self) {
        self.all.retain(|recorder| !recorder.frames.frames.is_closed());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tracer_core::detect::DetectConfig;
    use tracer_core::ports::PortMap;
    use tracer_core::recording::{Decoder, FORMAT_VERSION};
    use tracer_core::snapshot::{Host, Mode};
    use tracer_core::time::WallAnchor;
    use tracer_core::tracker::{About, Bounds};

    use super::*;

    fn tracker() -> Tracker {
        Tracker::new(Bounds::default(), PortMap::default(), BTreeMap::new())
    }

    fn header(tracker: &Tracker) -> Header {
        let text = || "x".to_owned();
        let host = Host { hostname: text(), kernel: text(), arch: text(), boot_id: text(), socklife_version: text() };
        let (probes, drop_reasons) = (Vec::new(), BTreeMap::new());
        let about = About {
            host,
            mode: Mode::Ebpf,
            started: BootNs(1),
            probes,
            drop_reasons,
            host_pids: true,
            config: tracer_core::setup::InForce::default(),
        };
        tracker.header(&about, &DetectConfig::default(), WallAnchor { boot: BootNs(5), unix_ns: 0 })
    }

    fn identity(pid: u32, text: &str) -> Identity {
        let id = ProcessId { pid, start_ticks: 1 };
        let group = tracer_core::identity::LauncherGroup { id: text.to_owned(), label: String::new() };
        Identity {
            id,
            comm: String::new(),
            exe: None,
            script: None,
            cmdline: None,
            ns_pid: None,
            ppid: None,
            ancestors: Vec::new(),
            master: None,
            uid: None,
            user: None,
            cgroup: None,
            container_id: None,
            systemd_unit: None,
            group,
        }
    }

    async fn frames(recording: &mut Recording, decoder: &mut Decoder) -> Vec<Frame<'static>> {
        let mut frames = Vec::new();
        while recording.waiting.load(Ordering::Acquire) > 0 {
            decoder.push(&recording.next().await.unwrap());
            while let Some(frame) = decoder.next_frame().unwrap() {
                frames.push(frame);
            }
        }
        frames
    }

    #[tokio::test]
    async fn a_slow_reader_is_shed_and_told_and_gets_a_look() {
        let tracker = tracker();
        let mut recorders = Recorders::default();
        let (mut recording, mut decoder) = (recorders.begin(header(&tracker), &tracker).unwrap(), Decoder::default());
        let first = frames(&mut recording, &mut decoder).await;
        assert!(matches!(first[..], [Frame::Header(_)]), "{first:?} of format {FORMAT_VERSION}");
        recorders.looked(BootNs(6), &tracker);
        assert!(!recorders.want_look());
        let big = "x".repeat(1 << 20);
        for pid in 0..20 {
            recorders.identity(&identity(pid, &big));
        }
        assert!(recording.waiting.load(Ordering::Acquire) <= WAITING_BYTES_MAX);
        let kept = frames(&mut recording, &mut decoder).await;
        assert_eq!(kept.len(), 7, "as many as fit");
        recorders.gone(ProcessId { pid: 7, start_ticks: 1 }, BootNs(9));
        assert!(recorders.want_look(), "after a gap");
        let after = frames(&mut recording, &mut decoder).await;
        assert!(matches!(after[..], [Frame::LeftOut { frames: 13, events: 0, .. }, Frame::Gone { .. }]), "{after:?}");
    }

    #[tokio::test]
    async fn looks_that_began_before_the_recording_are_not_in_it() {
        let tracker = tracker();
        let mut recorders = Recorders::default();
        let (mut recording, mut decoder) = (recorders.begin(header(&tracker), &tracker).unwrap(), Decoder::default());
        for started in [4, 6, 5] {
            recorders.look(&Inventory { started: BootNs(started), ..Inventory::default() });
            recorders.looked(BootNs(started), &tracker);
        }
        let told = frames(&mut recording, &mut decoder).await;
        let looks: Vec<u64> = told
            .iter()
            .filter_map(|frame| match frame {
                Frame::Look { look, .. } => Some(look.started.0),
                _ => None,
            })
            .collect();
        assert_eq!(looks, [6, 5]);
    }

    #[test]
    fn recorders_are_bounded_and_places_come_back() {
        let tracker = tracker();
        let mut recorders = Recorders::default();
        let mut held: Vec<Recording> =
            (0..RECORDERS_MAX).map(|_| recorders.begin(header(&tracker), &tracker).unwrap()).collect();
        assert!(recorders.begin(header(&tracker), &tracker).is_none());
        held.pop();
        assert!(recorders.begin(header(&tracker), &tracker).is_some());
    }
}
