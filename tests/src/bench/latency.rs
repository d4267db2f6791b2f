//! From a close to the line of `tail --events --json` that tells of it.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::Value;

use super::Size;
use super::figures::{Report, Shuffle};
use super::load::WORKLOADS;
use super::stage::Stage;
use crate::daemon::Daemon;
use crate::program::{command, until};
use crate::sandbox::socklife_binary;

/// Ours alone, so that our lines are told from a flood's before they are parsed.
const HOST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);
const PORT: u16 = 5432;
/// Longest pause between two acts, in microseconds: several times what the daemon gathers records for.
const PAUSE_US: u64 = 20_000;
/// A line that has not come by then is not coming.
const LINE_WITHIN: Duration = Duration::from_secs(2);
/// The schema of a line that tells of lines left out.
const LOST: &str = "\"socklife.lost/v1\"";
/// Lines that may wait to be read.
const WAITING: usize = 65_536;

/// On an otherwise idle host, then beside a flood.
pub fn measure(stage: &Stage, size: &Size, report: &mut Report) -> Result<()> {
    let daemon = Daemon::start_plain(stage.sandbox(), &[])?;
    let tail = Tail::start(&daemon)?;
    let listener = TcpListener::bind(SocketAddr::from((HOST, PORT))).context("listen")?;
    until("the tail shows what happens", || {
        let (client, _) = one_life(&listener, &tail, 0)?;
        Ok(tail.closed(client)?.map(drop).ok_or_else(|| "no line".to_owned()))
    })?;
    let mut shuffle = Shuffle::new();
    for _ in 0..size.closes {
        one_close(&listener, &tail, &mut shuffle, report, "idle")?;
    }
    let flood = WORKLOADS[0].arguments(size.apart * 4, 0);
    thread::scope(|scope| {
        let flood = scope.spawn(|| stage.load(&flood));
        loop {
            one_close(&listener, &tail, &mut shuffle, report, "busy")?;
            if flood.is_finished() {
                break;
            }
        }
        flood.join().map_err(|_| anyhow!("the flood panicked"))?.map(drop)
    })?;
    report.add("latency/busy/shed", "lines", tail.shed.load(Ordering::Relaxed) as f64);
    drop(tail);
    daemon.stop(nix::sys::signal::Signal::SIGTERM)
}

fn one_close(
    listener: &TcpListener,
    tail: &Tail,
    shuffle: &mut Shuffle,
    report: &mut Report,
    when: &str,
) -> Result<()> {
    let (client, closed_at) = one_life(listener, tail, shuffle.below(PAUSE_US))?;
    let told_at = tail.closed(client)?;
    report.add(format!("latency/{when}/unseen"), "closes", if told_at.is_some() { 0.0 } else { 1.0 });
    if let Some(told_at) = told_at {
        let took = told_at.saturating_duration_since(closed_at);
        report.add(format!("latency/{when}/closed"), "ms", took.as_secs_f64() * 1e3);
    }
    tail.pass(Duration::from_micros(shuffle.below(PAUSE_US)))
}

/// Opens a connection, pauses, and resets it; the client's address and the moment before the reset.
fn one_life(listener: &TcpListener, tail: &Tail, pause_us: u64) -> Result<(SocketAddr, Instant)> {
    let client = TcpStream::connect((HOST, PORT)).context("connect")?;
    let (_server, _) = listener.accept().context("accept")?;
    setsockopt(&client, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 })?;
    let local = client.local_addr()?;
    tail.pass(Duration::from_micros(pause_us))?;
    let closed_at = Instant::now();
    drop(client);
    Ok((local, closed_at))
}

/// `socklife tail --events --json`, each line with the moment it arrived.
struct Tail {
    child: Child,
    lines: Receiver<(Instant, String)>,
    /// Events that the daemon says this reader was too slow for.
    shed: Arc<AtomicU64>,
}

impl Tail {
    fn start(daemon: &Daemon) -> Result<Self> {
        let mut tail = command(socklife_binary()?);
        tail.args(["tail", "--events", "--json", "--socket"]).arg(daemon.socket());
        tail.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = tail.spawn().context("start socklife tail")?;
        let stdout = child.stdout.take().context("the tail has no stdout")?;
        let (sender, lines) = sync_channel(WAITING);
        let shed = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&shed);
        thread::spawn(move || {
            let ours = format!("\"{HOST}:");
            for line in BufReader::new(stdout).lines() {
                let now = Instant::now();
                let Ok(line) = line else { return };
                if line.contains(LOST) {
                    let line: Value = serde_json::from_str(&line).unwrap_or_default();
                    count.fetch_add(line["lost"].as_u64().unwrap_or(1), Ordering::Relaxed);
                }
                // Never waits: what nobody reads is what nobody asked for.
                if line.contains(&ours) && sender.try_send((now, line)).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, lines, shed })
    }

    /// When the line arrived that this client's socket is gone; `None` if it does not come.
    fn closed(&self, client: SocketAddr) -> Result<Option<Instant>> {
        let deadline = Instant::now() + LINE_WITHIN;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok((at, line)) => {
                    let line: Value = serde_json::from_str(&line).with_context(|| format!("tail said {line:?}"))?;
                    if line["event"] == "closed" && line["role"] == "client" && line["local"] == client.to_string() {
                        return Ok(Some(at));
                    }
                }
                Err(RecvTimeoutError::Timeout) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => return Err(anyhow!("the tail ended")),
            }
        }
    }

    /// Lets time pass, and lines with it.
    fn pass(&self, time: Duration) -> Result<()> {
        let deadline = Instant::now() + time;
        while let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            ensure!(!line.1.is_empty(), "the tail said nothing in a line");
        }
        Ok(())
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
