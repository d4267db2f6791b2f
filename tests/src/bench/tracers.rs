//! What watches while a load runs: nothing, socklife, a peer. Each is started fresh and is ready when `start` returns.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::stage::{Stage, cpu_time, null, until_still};
use crate::daemon::Daemon;
use crate::program::{command, output, until};
use crate::sandbox::socklife_binary;

/// Our own script for bpftrace.
const SCRIPT: &str = "bench/tcplife.bt";

/// What watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Nothing.
    OffA,
    /// Nothing, once more.
    OffB,
    /// The daemon.
    Socklife,
    /// The daemon, and `socklife tail --events --json` that writes into /dev/null.
    SocklifeTail,
    /// libbpf-tools' tcplife, which writes into /dev/null.
    Tcplife,
    /// The same on bpftrace.
    Bpftrace,
}

impl Variant {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::OffA, Self::OffB, Self::Socklife, Self::SocklifeTail, Self::Tcplife, Self::Bpftrace];

    /// Whether it is another's program.
    pub fn is_peer(self) -> bool {
        matches!(self, Self::Tcplife | Self::Bpftrace)
    }

    /// Its part of a figure's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::OffA => "off-a",
            Self::OffB => "off-b",
            Self::Socklife => "socklife",
            Self::SocklifeTail => "socklife-tail",
            Self::Tcplife => "tcplife",
            Self::Bpftrace => "bpftrace",
        }
    }
}

/// A running tracer.
pub enum Tracer {
    /// Nothing runs.
    Off,
    /// The daemon and maybe a tail.
    Socklife(Daemon, Option<Quiet>),
    /// A peer.
    Peer(Quiet),
}

/// A program that writes into /dev/null; killed and reaped when dropped.
pub struct Quiet(Child);

impl Tracer {
    /// Starts it and waits until it is attached.
    pub fn start(stage: &Stage, variant: Variant) -> Result<Self> {
        match variant {
            Variant::OffA | Variant::OffB => Ok(Self::Off),
            Variant::Socklife => Ok(Self::Socklife(Daemon::start_plain(stage.sandbox(), &[])?, None)),
            Variant::SocklifeTail => {
                let daemon = Daemon::start_plain(stage.sandbox(), &[])?;
                let tail = follow_events(&daemon)?;
                Ok(Self::Socklife(daemon, Some(tail)))
            }
            Variant::Tcplife => attached(Quiet::start(command("tcplife"))?).map(Self::Peer),
            Variant::Bpftrace => {
                let mut bpftrace = command("bpftrace");
                bpftrace.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(SCRIPT));
                attached(Quiet::start(bpftrace)?).map(Self::Peer)
            }
        }
    }

    /// The process whose CPU time counts.
    pub fn pid(&self) -> Option<u32> {
        match self {
            Self::Off => None,
            Self::Socklife(daemon, _) => Some(daemon.pid()),
            Self::Peer(peer) => Some(peer.pid()),
        }
    }

    /// Its CPU time so far.
    pub fn cpu_time(&self) -> Result<Duration> {
        self.pid().map_or(Ok(Duration::ZERO), cpu_time)
    }

    /// CPU time so far of the tail that reads from it.
    pub fn reader_cpu_time(&self) -> Result<Duration> {
        match self {
            Self::Socklife(_, Some(tail)) => cpu_time(tail.pid()),
            _ => Ok(Duration::ZERO),
        }
    }

    /// Waits until it, and what reads from it, have nothing left to do.
    pub fn until_still(&self) -> Result<()> {
        self.pid().map_or(Ok(()), until_still)?;
        match self {
            Self::Socklife(_, Some(tail)) => until_still(tail.pid()),
            _ => Ok(()),
        }
    }

    /// The daemon, where it is one.
    pub fn daemon(&self) -> Option<&Daemon> {
        match self {
            Self::Socklife(daemon, _) => Some(daemon),
            _ => None,
        }
    }

    /// Ends it, and expects socklife to end cleanly.
    pub fn stop(self) -> Result<()> {
        match self {
            Self::Off => Ok(()),
            Self::Socklife(daemon, tail) => {
                drop(tail);
                daemon.stop(Signal::SIGTERM)
            }
            Self::Peer(peer) => peer.stop(),
        }
    }
}

impl Quiet {
    fn start(mut command: std::process::Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(null()?).stderr(null()?);
        Ok(Self(command.spawn().with_context(|| format!("start {command:?}"))?))
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Interrupts it and waits for its end, so that none of it goes on into the next round.
    fn stop(mut self) -> Result<()> {
        kill(Pid::from_raw(i32::try_from(self.pid())?), Signal::SIGINT)?;
        self.0.wait().context("wait for a peer").map(drop)
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `socklife tail --events --json > /dev/null`, connected.
fn follow_events(daemon: &Daemon) -> Result<Quiet> {
    let mut tail = command(socklife_binary()?);
    tail.args(["tail", "--events", "--json", "--socket"]).arg(daemon.socket());
    let tail = Quiet::start(tail)?;
    let socket = daemon.socket().to_string_lossy().into_owned();
    until("the tail is connected", || {
        let table = std::fs::read_to_string("/proc/self/net/unix")?;
        // The daemon's end of a connection has the listener's path; state 03 is connected (include/linux/net.h).
        let connected = table.lines().any(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            matches!(columns[..], [_, _, _, _, _, "03", _, path] if path == socket)
        });
        Ok(if connected { Ok(()) } else { Err("not connected".to_owned()) })
    })?;
    Ok(tail)
}

/// Waits until a peer's program is on its tracepoint.
fn attached(mut peer: Quiet) -> Result<Quiet> {
    until("the peer is attached", || {
        let ended = peer.0.try_wait()?;
        ensure!(ended.is_none(), "the peer ended: {ended:?}");
        let all = bpftool(&["perf", "show"])?;
        let pid = peer.pid();
        let there = all.as_array().is_some_and(|all| {
            all.iter().any(|each| each["pid"] == pid && each["tracepoint"] == "inet_sock_set_state")
        });
        Ok(if there { Ok(()) } else { Err(format!("not among {all}")) })
    })?;
    Ok(peer)
}

fn bpftool(args: &[&str]) -> Result<Value> {
    let mut bpftool = command("bpftool");
    bpftool.arg("--json").args(args);
    let said = output(bpftool)?;
    // Nothing at all is said where there is nothing to say.
    if said.trim().is_empty() {
        return Ok(Value::Array(Vec::new()));
    }
    serde_json::from_str(&said).with_context(|| format!("bpftool said {said:?}"))
}

/// What the kernel counted of a BPF program.
pub struct Program {
    /// Its number.
    pub id: u64,
    /// Its name, as much of it as the kernel keeps.
    pub name: String,
    /// Times it ran.
    pub runs: f64,
    /// Time it ran in all, in nanoseconds.
    pub run_ns: f64,
}

/// Every BPF program of this host.
pub fn programs() -> Result<Vec<Program>> {
    let all = bpftool(&["prog", "show"])?;
    let all = all.as_array().context("bpftool lists no programs")?;
    let number = |each: &Value, field: &str| each[field].as_f64().unwrap_or_default();
    Ok(all
        .iter()
        .map(|each| Program {
            id: each["id"].as_u64().unwrap_or_default(),
            name: each["name"].as_str().unwrap_or("?").to_owned(),
            runs: number(each, "run_cnt"),
            run_ns: number(each, "run_time_ns"),
        })
        .collect())
}

/// Numbers of all BPF programs.
pub fn program_ids() -> Result<BTreeSet<u64>> {
    Ok(programs()?.into_iter().map(|program| program.id).collect())
}
