//! What came in to processes while they opened connections, and whether the two go together.
//!
//! Requests are counted as accepts, on ports that are not watched. That is a lower bound: a connection that is kept alive
//! carries many requests, and what comes in by a unix socket, from a queue, or on a connection that another process
//! accepted and handed on is not counted at all. So requests that match are evidence, and their absence is none.

use std::time::Duration;

use super::{Context, spoken};
use crate::history::FLOWS_KEPT;

/// Windows in which accepts must have been counted for them to be compared with anything.
const LEAST_WINDOWS: usize = 2;
/// Fewer than one request for so many connections is hardly any.
const HARDLY: u32 = 10;
/// Of what else is in doubt, requests that come in exactly as often as connections are opened settle so much.
const SETTLED: f64 = 0.75;

/// Counts by how many windows ago.
pub(super) type ByWindow = [u32; FLOWS_KEPT];

/// What came in, against what was opened in the same windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Requests {
    pub accepted: u32,
    pub opened: u32,
    pub windows: usize,
    /// Most connections that a client opens.
    per_client: u32,
}

impl Requests {
    /// In those of the last `windows` windows that were counted whole; `None` if these are too few.
    pub fn of(
        context: &Context<'_>,
        (opened, accepted): (&ByWindow, &ByWindow),
        windows: usize,
        per_client: u32,
    ) -> Option<Self> {
        let since = context.tracker.accepts_since()?;
        let window_ns = u64::try_from(context.config.window.as_nanos()).unwrap_or(u64::MAX).max(1);
        let whole = (context.now.0 / window_ns).saturating_sub(since.0.div_ceil(window_ns));
        let windows = usize::try_from(whole).unwrap_or(usize::MAX).min(windows).min(FLOWS_KEPT);
        let sum = |of: &ByWindow| of.iter().take(windows).fold(0, |sum: u32, one| sum.saturating_add(*one));
        let (accepted, opened) = (sum(accepted), sum(opened));
        (windows >= LEAST_WINDOWS && opened > 0).then_some(Self { accepted, opened, windows, per_client })
    }

    /// How near the two are, from a half to 1; `None` if one is more than twice the other.
    pub fn closeness(self) -> Option<f64> {
        let accepted = f64::from(self.accepted);
        let near = |each: u32| {
            let clients = f64::from(self.opened) / f64::from(each);
            accepted.min(clients) / accepted.max(clients)
        };
        (1..=self.per_client).map(near).max_by(f64::total_cmp).filter(|near| *near >= 0.5)
    }

    /// A confidence with these taken into account: it rises if they match, and stays what it is if not.
    pub fn confirm(self, confidence: f64) -> f64 {
        confidence + (1.0 - confidence) * self.closeness().map_or(0.0, |near| SETTLED * near)
    }

    /// Accepted connections a second.
    pub fn rate(self, context: &Context<'_>) -> f64 {
        rate(self.accepted, context.config.window, self.windows)
    }

    /// What comes after a rate of openings in a sentence: ` against 4.1 requests/s`.
    pub fn said(self, context: &Context<'_>) -> String {
        let rate = || per_second(self.rate(context));
        if self.closeness().is_some() || self.accepted > self.opened {
            format!(" against {} requests/s", rate())
        } else if self.accepted == 0 {
            ", no inbound requests seen".to_owned()
        } else if self.accepted.saturating_mul(HARDLY) < self.opened {
            let lasted = context.config.window * u32::try_from(self.windows).unwrap_or(u32::MAX);
            format!(", hardly any inbound requests seen ({} in {})", self.accepted, spoken(lasted))
        } else {
            format!(" against at least {} requests/s", rate())
        }
    }
}

/// So many a second.
pub(super) fn rate(count: u32, window: Duration, windows: usize) -> f64 {
    let seconds = window.as_secs_f64() * f64::from(u32::try_from(windows).unwrap_or(u32::MAX));
    f64::from(count) / seconds.max(1e-9)
}

/// The number before `/s`.
pub(super) fn per_second(rate: f64) -> String {
    if rate >= 10.0 { format!("{rate:.0}") } else { format!("{rate:.1}") }
}
