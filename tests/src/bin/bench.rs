//! `bench`: what `cargo xtask bench` builds and runs; see `socklife_tests::bench`.

use anyhow::Result;
use clap::Parser;
use socklife_tests::bench;

fn main() -> Result<()> {
    bench::run(&bench::Options::parse())
}
