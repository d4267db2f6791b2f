//! `pool_sprawl`: to be written.

use std::time::Duration;

use super::{Context, DetectConfig, Detector, Threshold, Verdict};
use crate::finding::Kind;

pub(super) struct PoolSprawl;

impl Detector for PoolSprawl {
    fn kind(&self) -> Kind {
        Kind::PoolSprawl
    }

    fn thresholds(&self) -> &'static [Threshold] {
        &[]
    }

    fn clear_after(&self, config: &DetectConfig) -> Duration {
        config.window
    }

    fn detect(&self, _: &Context<'_>) -> Vec<Verdict> {
        Vec::new()
    }

    fn resolved_summary(&self, _: &Context<'_>, last: &Verdict) -> String {
        last.summary.clone()
    }
}
