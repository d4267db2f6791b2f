//! Who a process is: program, script, user, control group, container, unit, launcher group. Read from /proc, whose root
//! is handed in.
//!
//! Everything here that comes from a process is hostile: bounded when read, lossy UTF-8, never trusted to be what it
//! says.

pub mod cgroup;
pub mod files;
pub mod group;
pub mod identity;
pub mod launch;
pub mod redact;
pub mod script;
pub mod wrapper;

pub use identity::{IdentityError, IdentityReader};

/// Whether command lines are kept. Arguments are private: off unless configured on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CmdlinePolicy {
    /// Not kept.
    #[default]
    Off,
    /// Kept without what looks like a secret; see [`redact`].
    Redacted,
}
