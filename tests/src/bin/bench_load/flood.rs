//! Connect, one byte, close, as fast as it goes.
//!
//! `together`: a thread on each CPU is both ends of its connections, one after the other, so that nothing ever waits,
//! every CPU is busy, and whatever a tracer takes it takes from the load. `apart`: pairs of threads, a client on one CPU
//! and its server on another, which wait for each other as programs do.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use nix::libc::linger;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, Shutdown, SockFlag, SockType, SockaddrIn, accept4, bind, connect, listen, recv,
    send, setsockopt, shutdown, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use serde_json::json;

use crate::{cpus, pin};

const BACKLOG: i32 = 128;

#[derive(clap::Args)]
pub struct Options {
    /// Connections in all
    #[arg(long, default_value_t = 30_000, value_parser = clap::value_parser!(u32).range(2..=10_000_000))]
    count: u32,
    /// Connections before the clock starts
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    warm_up: u32,
    /// The listener's port
    #[arg(long, default_value_t = 5432)]
    port: u16,
    /// How the client ends a connection
    #[arg(long, value_enum, default_value_t = Close::Reset)]
    close: Close,
    /// Where a connection's two ends are
    #[arg(long, value_enum, default_value_t = Ends::Together)]
    ends: Ends,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Close {
    /// SO_LINGER 0: one RST
    Reset,
    /// FIN from the client, then from the server
    Fin,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Ends {
    /// In one thread
    Together,
    /// In two threads on different CPUs
    Apart,
}

/// What one worker did.
struct Done {
    began: Instant,
    ended: Instant,
    /// Duration of each connect(2) in nanoseconds.
    connects: Vec<u32>,
}

pub fn flood(options: &Options) -> Result<()> {
    let cpus = cpus()?;
    let workers = match options.ends {
        Ends::Together => cpus.len(),
        Ends::Apart => (cpus.len() / 2).max(1),
    };
    let share = |total: u32, worker: usize| -> Result<u32> {
        let (total, all) = (usize::try_from(total)?, workers);
        Ok(u32::try_from(total / all + usize::from(worker < total % all))?)
    };
    let start = Barrier::new(workers);
    let before = getrusage(UsageWho::RUSAGE_SELF)?;
    let done: Vec<Done> = thread::scope(|scope| {
        let mut handles = Vec::new();
        for worker in 0..workers {
            let (count, warm_up) = (share(options.count, worker)?, share(options.warm_up, worker)?);
            let end = Worker::new(options, worker, count, warm_up)?;
            let (start, cpus) = (&start, &cpus);
            handles.push(scope.spawn(move || match options.ends {
                Ends::Together => end.together(cpus[worker], start),
                Ends::Apart => end.apart([cpus[2 * worker % cpus.len()], cpus[(2 * worker + 1) % cpus.len()]], start),
            }));
        }
        handles
            .into_iter()
            .map(|handle| handle.join().map_err(|_| anyhow!("a worker panicked"))?)
            .collect::<Result<_>>()
    })?;
    let after = getrusage(UsageWho::RUSAGE_SELF)?;
    let began = done.iter().map(|done| done.began).min().context("no worker")?;
    let ended = done.iter().map(|done| done.ended).max().context("no worker")?;
    let mut connects: Vec<u32> = done.into_iter().flat_map(|done| done.connects).collect();
    ensure!(connects.len() == usize::try_from(options.count)?, "{} connects", connects.len());
    connects.sort_unstable();
    let at = |percent: usize| connects[(connects.len() - 1) * percent / 100];
    let took = ended.duration_since(began);
    let cpu = |from: TimeVal, to: TimeVal| (to - from).num_microseconds();
    println!(
        "{}",
        json!({
            "connections": options.count,
            "warm_up": options.warm_up,
            "took_us": took.as_micros(),
            "connections_per_s": f64::from(options.count) / took.as_secs_f64(),
            "connect_ns": { "p50": at(50), "p90": at(90), "p99": at(99), "max": at(100) },
            "cpu_user_us": cpu(before.user_time(), after.user_time()),
            "cpu_system_us": cpu(before.system_time(), after.system_time()),
        })
    );
    Ok(())
}

struct Worker {
    listener: OwnedFd,
    address: SockaddrIn,
    close: Close,
    count: u32,
    warm_up: u32,
}

impl Worker {
    /// Each worker has an address, and so a listener and local ports, of its own.
    fn new(options: &Options, index: usize, count: u32, warm_up: u32) -> Result<Self> {
        let ip = Ipv4Addr::new(127, 0, 0, u8::try_from(index + 1).context("too many CPUs")?);
        let [a, b, c, d] = ip.octets();
        let address = SockaddrIn::new(a, b, c, d, options.port);
        let listener = new_socket()?;
        setsockopt(&listener, sockopt::ReuseAddr, &true)?;
        bind(listener.as_raw_fd(), &address).with_context(|| format!("bind {ip}:{}", options.port))?;
        listen(&listener, Backlog::new(BACKLOG)?)?;
        Ok(Self { listener, address, close: options.close, count, warm_up })
    }

    fn together(&self, cpu: usize, start: &Barrier) -> Result<Done> {
        pin(cpu)?;
        timed(self.count, self.warm_up, start, || self.life())
    }

    /// One connection from socket to close, both ends; the duration of its connect.
    fn life(&self) -> Result<u32> {
        let (client, took) = self.open()?;
        let server = self.accept()?;
        send_byte(&client)?;
        ensure!(receive(&server)? == 1, "the server's end got nothing");
        drop(client);
        Ok(took)
    }

    fn apart(&self, [client_cpu, server_cpu]: [usize; 2], start: &Barrier) -> Result<Done> {
        thread::scope(|scope| {
            let server = scope.spawn(move || -> Result<()> {
                pin(server_cpu)?;
                for _ in 0..self.count + self.warm_up {
                    let end = self.accept()?;
                    receive(&end)?;
                    send_byte(&end)?;
                    // Its end: zero bytes after a FIN, an error after a reset.
                    let _ = recv(end.as_raw_fd(), &mut [0], MsgFlags::empty());
                }
                Ok(())
            });
            let life = || -> Result<u32> {
                let (client, took) = self.open()?;
                send_byte(&client)?;
                ensure!(receive(&client)? == 1, "no answer");
                Ok(took)
            };
            let done = pin(client_cpu).and_then(|()| timed(self.count, self.warm_up, start, life));
            if done.is_err() {
                // The server would wait for the rest for ever.
                shutdown(self.listener.as_raw_fd(), Shutdown::Both)?;
            }
            server.join().map_err(|_| anyhow!("the server panicked"))?.and(done)
        })
    }

    fn open(&self) -> Result<(OwnedFd, u32)> {
        let client = new_socket()?;
        if self.close == Close::Reset {
            setsockopt(&client, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 })?;
        }
        let from = Instant::now();
        connect(client.as_raw_fd(), &self.address).context("connect")?;
        let took = from.elapsed();
        Ok((client, u32::try_from(took.as_nanos()).unwrap_or(u32::MAX)))
    }

    fn accept(&self) -> Result<OwnedFd> {
        let end = accept4(self.listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC).context("accept")?;
        // SAFETY: accept4 has just made the descriptor, and nobody else has it.
        Ok(unsafe { OwnedFd::from_raw_fd(end) })
    }
}

/// Runs `life` for the warm-up and then, together with the other workers, against the clock.
fn timed(count: u32, warm_up: u32, start: &Barrier, life: impl Fn() -> Result<u32>) -> Result<Done> {
    let warm = (0..warm_up).try_for_each(|_| life().map(drop));
    let mut connects = Vec::with_capacity(usize::try_from(count)?);
    // Whatever became of the warm-up: the others wait here.
    start.wait();
    warm?;
    let began = Instant::now();
    for _ in 0..count {
        connects.push(life()?);
    }
    Ok(Done { began, ended: Instant::now(), connects })
}

fn new_socket() -> Result<OwnedFd> {
    socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).context("make a socket")
}

fn send_byte(end: &impl AsFd) -> Result<()> {
    ensure!(send(end.as_fd().as_raw_fd(), b"x", MsgFlags::empty()).context("send")? == 1, "nothing was sent");
    Ok(())
}

fn receive(end: &impl AsFd) -> Result<usize> {
    recv(end.as_fd().as_raw_fd(), &mut [0], MsgFlags::empty()).context("receive")
}
