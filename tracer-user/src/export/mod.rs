//! What socklife knows in the formats of others. Made from a snapshot; knows neither the daemon nor HTTP.

pub mod metrics;
pub mod report;
