//! Runs the tracker and the detectors on a recording, as the daemon did: frames when they came, detectors once a second
//! of recorded time.

use std::time::Duration;

use super::stretch::Stretch;
use super::{Frame, Header};
use crate::detect::{DetectConfig, Store};
use crate::event::Event;
use crate::finding::{Finding, FindingLine};
use crate::setup::Setup;
use crate::snapshot::{Loss, Snapshot};
use crate::time::{BootNs, WallAnchor, WallTime};
use crate::tracker::{About, Effect, Tracker};

/// As often as in the daemon.
const DETECT_EVERY: Duration = Duration::from_secs(1);

/// Longest recording: a frame later than that is not believed.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// Where a replay ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// With the recording.
    End,
    /// At this moment, in the replay's time.
    At(WallTime),
    /// So long after its beginning, in the replay's time.
    After(Duration),
}

/// A moment that is not in the recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{asked} is not in the recording: it goes from {first} to {last}")]
pub struct OutOfRange {
    asked: WallTime,
    first: WallTime,
    last: WallTime,
}

/// Who watches a replay closely.
pub trait Witness {
    /// A finding changed.
    fn finding(&mut self, line: FindingLine);
    /// The tracker took an event in.
    fn event(&mut self, tracker: &Tracker, event: &Event, effect: Effect, anchor: &WallAnchor) {
        let _ = (tracker, event, effect, anchor);
    }
    /// The detectors have run at that moment.
    fn second(&mut self, tracker: &Tracker, told: (&About, &Store), now: BootNs, anchor: &WallAnchor) {
        let _ = (tracker, told, now, anchor);
    }
    /// The replay is where it was to end.
    fn end(&mut self, tracker: &Tracker, told: (&About, &Store), now: BootNs, anchor: &WallAnchor) {
        let _ = (tracker, told, now, anchor);
    }
}

/// Wants to know of findings alone.
struct Teller<'a, F>(&'a mut F);

impl<F: FnMut(FindingLine)> Witness for Teller<'_, F> {
    fn finding(&mut self, line: FindingLine) {
        (self.0)(line);
    }
}

/// A replay under way.
#[derive(Debug)]
pub struct Replay {
    tracker: Tracker,
    findings: Store,
    detect: DetectConfig,
    about: About,
    anchor: WallAnchor,
    stretch: Stretch,
    until: Option<BootNs>,
    now: BootNs,
    next_tick: BootNs,
    /// The last detection, if any.
    judged_at: Option<BootNs>,
    /// What was lost before the recording began.
    lost_before: (Loss, u64),
    /// What is lost since, before the tracker.
    lost: Loss,
    left_out: u64,
    /// A frame was refused because it came after the end.
    is_over: bool,
    /// Settings of detectors stay as they are, whatever the recording brings.
    keeps_settings: bool,
}

impl Replay {
    /// Begins one, with time `stretch` times as long (at least 1) and these settings instead of the recorded ones.
    #[must_use]
    pub fn new(mut header: Header, detect: DetectConfig, stretch: u32, until: Until) -> Self {
        let stretch = Stretch(stretch.max(1));
        stretch.header(&mut header);
        let (anchor, now) = (header.anchor, header.anchor.boot);
        let mut tracker = Tracker::of_header(&header);
        tracker.set_window(detect.window);
        tracker.set_pace(stretch.0);
        // Totals count from here on.
        let about = About { started: now, ..header.about };
        Self {
            tracker,
            findings: Store::default(),
            detect,
            about,
            anchor,
            stretch,
            until: match until {
                Until::End => None,
                Until::At(at) => Some(boot(&anchor, at)),
                Until::After(duration) => Some(now.plus(duration)),
            },
            now,
            next_tick: now,
            judged_at: None,
            lost_before: (header.loss, header.drops_untold),
            lost: Loss::default(),
            left_out: 0,
            is_over: false,
            keeps_settings: false,
        }
    }

    /// Goes by its settings of detectors to the end, whatever was configured while it was recorded.
    #[must_use]
    pub fn keeping_settings(self) -> Self {
        Self { keeps_settings: true, ..self }
    }

    /// Takes the next frame in; changes of findings go to `tell`. False once the replay is where it was to end.
    pub fn apply(&mut self, frame: Frame<'static>, tell: &mut impl FnMut(FindingLine)) -> bool {
        self.apply_before(frame, &mut Teller(tell))
    }

    /// The same before a witness.
    pub fn apply_before(&mut self, mut frame: Frame<'static>, witness: &mut impl Witness) -> bool {
        self.stretch.frame(&mut frame);
        let longest = LONGEST.saturating_mul(self.stretch.0);
        let at = frame.at().max(self.now).min(self.anchor.boot.plus(longest));
        if self.until.is_some_and(|until| until < at) {
            self.is_over = true;
            return false;
        }
        self.pass(at, witness);
        match frame {
            Frame::Events { events, .. } => {
                for event in events.iter() {
                    let effect = self.tracker.apply(event);
                    witness.event(&self.tracker, event, effect, &self.anchor);
                }
            }
            Frame::Look { look, .. } => {
                // Whether the daemon looked again is in the recording.
                self.tracker.apply_inventory(look.into_owned());
            }
            Frame::Configured { setup, .. } => self.configure(setup.into_owned(), at),
            Frame::Glance { glance, .. } => self.tracker.apply_glance(&glance),
            Frame::Identity { identity, .. } => self.tracker.apply_identity(identity.into_owned()),
            Frame::Gone { id, .. } => self.tracker.apply_gone(id, at),
            Frame::Loss { loss, drops_untold, .. } => {
                self.lost = since(loss, self.lost_before.0);
                self.tracker.note_drops_untold(drops_untold.saturating_sub(self.lost_before.1));
                self.note_loss(at);
            }
            Frame::LeftOut { events, frames, .. } => {
                self.left_out = self.left_out.saturating_add(events.max(frames));
                self.note_loss(at);
            }
            Frame::Header(_) | Frame::End { .. } => {}
        }
        // The recording says who they are.
        drop(self.tracker.take_unidentified());
        true
    }

    /// Ends the replay: detects once more and gives what is true then.
    pub fn end(&mut self, tell: &mut impl FnMut(FindingLine)) -> Result<Snapshot, OutOfRange> {
        self.end_before(&mut Teller(tell))
    }

    /// The same before a witness.
    pub fn end_before(&mut self, witness: &mut impl Witness) -> Result<Snapshot, OutOfRange> {
        let (first, last) = (self.anchor.boot, self.now);
        let end = self.until.unwrap_or(last);
        // Between two frames nothing is known to have happened, after the last one nothing is known.
        if end < first || (end > last && !self.is_over) {
            let wall = |at| self.anchor.wall(at);
            return Err(OutOfRange { asked: wall(end), first: wall(first), last: wall(last) });
        }
        self.pass(end, witness);
        self.judge(end, witness);
        witness.end(&self.tracker, (&self.about, &self.findings), end, &self.anchor);
        Ok(self.tracker.snapshot(&self.about, &self.findings, end, &self.anchor))
    }

    /// The findings that are open.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        self.findings.findings(&self.anchor)
    }

    fn configure(&mut self, setup: Setup, at: BootNs) {
        let Setup { ports, rules, detect, in_force, cmdlines } = setup;
        if cmdlines.is_some() {
            self.tracker.forget_cmdlines();
        }
        self.tracker.configure(ports, rules, at);
        self.about.config = in_force;
        if !self.keeps_settings {
            self.detect = detect;
        }
    }

    fn note_loss(&mut self, at: BootNs) {
        let queue_full = self.lost.queue_full.saturating_add(self.left_out);
        self.tracker.note_loss(Loss { queue_full, ..self.lost }, at);
    }

    /// Lets time pass.
    fn pass(&mut self, to: BootNs, witness: &mut impl Witness) {
        while self.next_tick < to {
            let tick = self.next_tick;
            self.judge(tick, witness);
            self.next_tick = tick.plus(DETECT_EVERY);
        }
        self.now = self.now.max(to);
    }

    fn judge(&mut self, now: BootNs, witness: &mut impl Witness) {
        if self.judged_at.replace(now) != Some(now) {
            let news = self.findings.run(&self.tracker, &self.detect, now, &self.anchor);
            news.into_iter().for_each(|line| witness.finding(line));
            witness.second(&self.tracker, (&self.about, &self.findings), now, &self.anchor);
        }
    }
}

/// That moment in boot time; the boot itself if it was before it.
fn boot(anchor: &WallAnchor, at: WallTime) -> BootNs {
    let since = i128::from(at.unix_ms) * 1_000_000 - i128::from(anchor.unix_ns);
    BootNs(u64::try_from(i128::from(anchor.boot.0) + since).unwrap_or(0))
}

/// What was lost since `before`, in the stages before the tracker.
fn since(loss: Loss, before: Loss) -> Loss {
    Loss {
        ring_full: loss.ring_full.saturating_sub(before.ring_full),
        ends: loss.ends.saturating_sub(before.ends),
        read_failed: loss.read_failed.saturating_sub(before.read_failed),
        map_full: loss.map_full.saturating_sub(before.map_full),
        process_map_full: loss.process_map_full.saturating_sub(before.process_map_full),
        accept_map_full: loss.accept_map_full.saturating_sub(before.accept_map_full),
        program_skipped: loss.program_skipped.saturating_sub(before.program_skipped),
        queue_full: loss.queue_full.saturating_sub(before.queue_full),
        decode_errors: loss.decode_errors.saturating_sub(before.decode_errors),
        ..Loss::default()
    }
}
