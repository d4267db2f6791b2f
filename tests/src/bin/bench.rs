//! `bench`: what `cargo xtask bench` builds and runs; see `socklife_tests::bench`.

use anyhow::Result;
use clap::Parser;
use socklife_tests::bench;

/// Measures what socklife costs. Needs root.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    bench: bench::Options,
}

fn main() -> Result<()> {
    bench::run(&Options::parse().bench)
}
