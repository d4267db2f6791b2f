//! Recordings: everything that enters a tracker, in the order in which it did, so that the same verdicts can be had
//! again. Shapes here, bytes in `codec`, other times in `stretch`, the tracker and the detectors in `replay`.
//!
//! Knows neither files nor streams. The same recording gives the same output, to the byte.

mod codec;
mod replay;
mod stretch;

use std::borrow::Cow;

pub use codec::{Decoder, FORMAT_VERSION, PREAMBLE_BYTES, RecordingError, encode, preamble};
pub use replay::{OutOfRange, Replay, Until, Witness};
use serde::{Deserialize, Serialize};

use crate::detect::Settings;
use crate::event::{Event, ProcessId};
use crate::identity::Identity;
use crate::inventory::{Glance, Inventory, RecognizedPort};
use crate::rules::Rules;
use crate::setup::Setup;
use crate::snapshot::Loss;
use crate::time::{BootNs, WallAnchor};
use crate::tracker::About;

/// What a recording begins with: how the tracker was set up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The host and how it was traced.
    pub about: About,
    /// When the recording began, on both clocks.
    pub anchor: WallAnchor,
    /// The daemon's own network namespace.
    pub home: Option<u32>,
    /// Watched ports, those recognised until then included.
    pub ports: Vec<(u16, String)>,
    /// Ports recognised until then.
    pub recognized: Vec<RecognizedPort>,
    /// What the user said of endpoints.
    pub rules: Rules,
    /// Window and thresholds.
    pub settings: Settings,
    /// What was lost before the recording began.
    pub loss: Loss,
    /// Thrown away packets that were not told before the recording began.
    pub drops_untold: u64,
}

/// One step of a recording. `at` is when the tracker took it in.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "a recording has one header, and frames are not kept")]
pub enum Frame<'a> {
    /// The first frame, and no other.
    Header(Cow<'a, Header>),
    /// Events, in order.
    Events {
        /// When.
        at: BootNs,
        /// What happened.
        events: Cow<'a, [Event]>,
    },
    /// A look at the socket table.
    Look {
        /// When.
        at: BootNs,
        /// What it found.
        look: Cow<'a, Inventory>,
    },
    /// What /proc said of a process.
    Identity {
        /// When.
        at: BootNs,
        /// Who it is.
        identity: Cow<'a, Identity>,
    },
    /// A process was found gone.
    Gone {
        /// When.
        at: BootNs,
        /// Which.
        id: ProcessId,
    },
    /// What was lost since the daemon's start, before the tracker.
    Loss {
        /// When it was counted.
        at: BootNs,
        /// How much at each stage.
        loss: Loss,
        /// Thrown away packets that were not told.
        drops_untold: u64,
    },
    /// The reader was slow: frames are missing here.
    LeftOut {
        /// When the last of them would have been sent.
        at: BootNs,
        /// How many.
        frames: u64,
        /// How many events were in them.
        events: u64,
    },
    /// The recording was ended here; one without this was cut off.
    End {
        /// When.
        at: BootNs,
    },
    /// Another configuration.
    Configured {
        /// When.
        at: BootNs,
        /// What it says.
        setup: Cow<'a, Setup>,
    },
    /// A look at some sockets alone.
    Glance {
        /// When.
        at: BootNs,
        /// What it found.
        glance: Cow<'a, Glance>,
    },
}

impl Frame<'_> {
    /// When the tracker took it in.
    #[must_use]
    pub fn at(&self) -> BootNs {
        match self {
            Self::Header(header) => header.anchor.boot,
            Self::Events { at, .. }
            | Self::Look { at, .. }
            | Self::Identity { at, .. }
            | Self::Gone { at, .. }
            | Self::Loss { at, .. }
            | Self::LeftOut { at, .. }
            | Self::Glance { at, .. }
            | Self::Configured { at, .. }
            | Self::End { at } => *at,
        }
    }

    /// How many events are in it.
    #[must_use]
    pub fn events(&self) -> u64 {
        match self {
            Self::Events { events, .. } => events.len() as u64,
            _ => 0,
        }
    }
}
