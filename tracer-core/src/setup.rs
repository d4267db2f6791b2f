//! What the configuration tells the tracker and the detectors. A reload of the configuration brings another one.

use serde::{Deserialize, Serialize};

use crate::detect::DetectConfig;
use crate::ports::PortMap;
use crate::rules::Rules;
use crate::time::BootNs;

/// Which configuration is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    /// 1 from the start, one more with each reload that was applied.
    pub generation: u32,
    /// Names what is in force: the same settings have the same hash.
    pub hash: String,
    /// When it was loaded.
    pub loaded: BootNs,
    /// The file that it came from, if one did.
    pub file: Option<String>,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// Watched ports, those that were recognised not included.
    pub ports: PortMap,
    /// What the user said of endpoints.
    pub rules: Rules,
    /// What the user said of detectors.
    pub detect: DetectConfig,
    /// Where that is from.
    pub in_force: InForce,
    /// Command lines are shown from now on, or are not; nothing changed if `None`.
    pub cmdlines: Option<bool>,
}
