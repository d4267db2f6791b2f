//! The full-screen view: [`model`] is the whole state, pure; [`view`] draws it into a buffer; [`keys`] says what a key means.
//! Knows the API's shapes; knows no socket, no clock and no terminal: tests drive it with keys and answers.

mod columns;
mod figures;
mod keys;
mod layout;
mod model;
mod page;
mod palette;
mod picture;
mod text;
mod view;

#[cfg(test)]
mod tests;

pub use columns::Look;
pub use figures::Glyphs;
pub use model::{Answer, Model, Outcome, Wanted};
pub use palette::Palette;
pub use picture::{Connections, Only, Overview, Query};
pub use view::draw;
