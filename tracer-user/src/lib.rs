//! The library behind the binary `socklife`: everything that touches the system.
pub mod capture;
pub mod clock;
pub mod inventory;
pub mod process;
