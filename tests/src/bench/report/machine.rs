//! Where and with what it was measured.

use std::fs;

use anyhow::{Context, Result};
use jiff::Timestamp;
use nix::sys::utsname::uname;
use serde_json::{Value, json};

use crate::program::{command, output};

/// What the command is called.
const COMMAND: &str = "cargo xtask bench";

/// The host, the time and the programs.
pub struct Machine {
    cpu: String,
    cores: usize,
    memory_mib: u64,
    kernel: String,
    system: String,
    at: Timestamp,
    programs: Vec<(&'static str, String)>,
    load: String,
}

impl Machine {
    /// Looks at this host.
    pub fn look() -> Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("read /proc/cpuinfo")?;
        let meminfo = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let memory: u64 =
            field(&meminfo, "MemTotal:").and_then(|text| text.split(' ').next()?.parse().ok()).unwrap_or(0);
        let name = uname().context("uname")?;
        let programs = [("bpftrace", &["bpftrace", "--version"][..]), ("ss", &["ss", "-V"])]
            .into_iter()
            .map(|(name, words)| (name, version(words)))
            .chain([
                ("libbpf-tools", version(&["dpkg-query", "--show", "--showformat=${Version}", "libbpf-tools"])),
                ("commit", version(&["git", "-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty"])),
            ])
            .collect();
        Ok(Self {
            cpu: field(&cpuinfo, "model name").map_or_else(|| "unknown".to_owned(), |text| text.replace(": ", "")),
            cores: std::thread::available_parallelism()?.get(),
            memory_mib: memory / 1024,
            kernel: format!(
                "{} {}",
                name.sysname().to_string_lossy(),
                kernel_version(&name.release().to_string_lossy())
            ),
            system: field(&release, "PRETTY_NAME=").unwrap_or_default().trim_matches('"').to_owned(),
            at: Timestamp::now(),
            programs,
            load: fs::read_to_string("/proc/loadavg").unwrap_or_default(),
        })
    }

    /// For the page.
    pub fn markdown(&self) -> String {
        let Self { cpu, cores, memory_mib, kernel, system, .. } = self;
        let programs: Vec<String> = self.programs.iter().map(|(name, version)| format!("{name} {version}")).collect();
        format!(
            "`{COMMAND}`, {}; {cpu}, {cores} cores, {memory_mib} MiB, {kernel}, {system}; {}.\n",
            self.at.strftime("%F %H:%M UTC"),
            programs.join(", "),
        )
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let programs: serde_json::Map<String, Value> =
            self.programs.iter().map(|(name, version)| ((*name).to_owned(), Value::from(version.as_str()))).collect();
        json!({
            "command": COMMAND,
            "at": self.at.strftime("%FT%TZ").to_string(),
            "cpu": self.cpu,
            "cores": self.cores,
            "memory_mib": self.memory_mib,
            "kernel": self.kernel,
            "system": self.system,
            "programs": programs,
            "load_at_the_end": self.load.trim(),
        })
    }
}

/// The numbers alone: what a vendor appends says nothing here.
fn kernel_version(release: &str) -> &str {
    release.split('-').next().unwrap_or(release)
}

/// What follows the first line's beginning.
fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(|rest| rest.trim().to_owned())
}

/// The first line a program says, without its own name.
fn version(words: &[&str]) -> String {
    let [program, args @ ..] = words else { return String::new() };
    let mut asked = command(program);
    asked.args(args);
    let said = output(asked).unwrap_or_default();
    let line = said.lines().next().unwrap_or("unknown");
    line.trim_start_matches(program).trim_start_matches(" utility,").trim().to_owned()
}
