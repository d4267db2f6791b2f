//! x
pub mod capture;
