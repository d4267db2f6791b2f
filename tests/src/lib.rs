//! What the suites and the demo's programs share.

pub mod ending;
pub mod session;
pub mod wire;
