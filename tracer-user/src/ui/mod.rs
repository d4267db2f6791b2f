//! Text for people: escaping, colours, the lines of `tail`. Knows the domain's shapes; knows no socket, no file and
//! no clock.

pub mod diff;
pub mod escape;
pub mod history;
pub mod line;
pub mod style;
pub(crate) mod top;

pub use escape::escape;
