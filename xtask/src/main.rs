//! `cargo xtask`: what a developer or a first-time user runs from the repository's root.
//!
//! Parse and dispatch only. Each command is a module of its own; `sh` is what they share. Nothing here is part of
//! socklife itself, and nothing here knows the crates' types: it sees programs, files and exit codes.

mod bench;
mod btf;
mod build_ebpf;
mod dist;
mod lint;
mod run;
mod scenarios;
mod setup;
mod sh;
mod test;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Build, run and test socklife.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what `build-ebpf` and the tests need (Debian, Ubuntu), or list it (elsewhere)
    Setup(setup::Options),
    /// Compile the kernel programs into tracer-ebpf/object/
    BuildEbpf(build_ebpf::Options),
    /// Build socklife, start the daemon, and show live who leaks
    Run(run::Options),
    /// Formatting, clippy, the rules of the architecture, dependencies
    Lint,
    /// Everything that must hold before a change lands; needs root
    Test(test::Options),
    /// What socklife costs, beside nothing and beside its peers; needs root and a quiet machine
    Bench(bench::Options),
    /// The incident lab: real drivers against real servers, and what socklife finds; needs root
    Scenarios(scenarios::Options),
    /// The path lab: firewalls, NAT and dead peers between an application and its database, and what socklife finds; needs root
    Paths(scenarios::Options),
    /// The live suite on other kernels, each in a guest (QEMU)
    Vm(vm::Options),
    /// What users install: a Debian package and an archive, in target/dist
    Dist(dist::Options),
    /// Cut a kernel's types down to a fixture for the tests of offsets
    BtfFixture(btf::Options),
}

fn main() -> ExitCode {
    let result = match Options::parse().command {
        Command::Setup(options) => setup::setup(&options).map(|()| ExitCode::SUCCESS),
        Command::BuildEbpf(options) => build_ebpf::build_ebpf(&options).map(|()| ExitCode::SUCCESS),
        Command::Run(options) => run::run(&options).map(|()| ExitCode::SUCCESS),
        Command::Lint => lint::lint().map(|()| ExitCode::SUCCESS),
        Command::Test(options) => test::test(&options),
        Command::Bench(_) => bench::bench(),
        Command::Scenarios(options) => scenarios::scenarios(scenarios::INCIDENTS, &options),
        Command::Paths(options) => scenarios::scenarios(scenarios::PATHS, &options),
        Command::Vm(options) => vm::vm(&options),
        Command::Dist(options) => dist::dist(&options).map(|()| ExitCode::SUCCESS),
        Command::BtfFixture(options) => btf::fixture(&options).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
