//! Connects and closes at full speed, both ends in this process, on PostgreSQL's port.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow};
use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};

use crate::postgres::PORT;
use crate::program::until;
use crate::truth::ss;

/// One a core of the smallest machine the suite is meant for.
const WORKERS: u64 = 2;

/// A flood under way.
pub struct Flood {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    opened: Arc<AtomicU64>,
    workers: Vec<JoinHandle<Result<()>>>,
}

impl Flood {
    /// Starts `count` connects from this thread's network namespace.
    pub fn start(count: u64) -> Result<Self> {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)), count)
    }

    /// The same to another address.
    pub fn start_at(address: SocketAddr, count: u64) -> Result<Self> {
        let listener = Arc::new(TcpListener::bind(address).context("listen for the flood")?);
        let (stop, opened) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let workers = (0..WORKERS)
            .map(|_| {
                let (listener, stop, opened) = (Arc::clone(&listener), Arc::clone(&stop), Arc::clone(&opened));
                thread::spawn(move || {
                    // Each worker takes a number before it connects: together they open `count`, not one more.
                    while !stop.load(Ordering::Relaxed) {
                        let number = opened.fetch_add(1, Ordering::Relaxed);
                        if number >= count {
                            opened.fetch_sub(1, Ordering::Relaxed);
                            break;
                        }
                        one_life(&listener, address, number).with_context(|| format!("connection {number}"))?;
                    }
                    Ok(())
                })
            })
            .collect();
        Ok(Self { address, stop, opened, workers })
    }

    /// Connections begun so far.
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// Whether every connect is done.
    pub fn is_over(&self) -> bool {
        self.workers.iter().all(JoinHandle::is_finished)
    }

    /// Ends it early.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Waits for its end, that of its last sockets in the kernel as well; how many connections were opened, accepted and
    /// closed.
    pub fn finish(self) -> Result<u64> {
        for worker in self.workers {
            worker.join().map_err(|_| anyhow!("a worker of the flood panicked"))??;
        }
        until("the last sockets of the flood are gone", || {
            let left = ss()?.into_keys().filter(|(local, remote)| [local, remote].contains(&&self.address)).count();
            Ok(if left == 0 { Ok(()) } else { Err(format!("{left} are left")) })
        })?;
        Ok(self.opened.load(Ordering::Relaxed))
    }
}

/// Connect, accept (maybe the other worker's connection), one byte, close in one of three ways.
fn one_life(listener: &TcpListener, address: SocketAddr, number: u64) -> Result<()> {
    let mut client = TcpStream::connect(address)?;
    client.write_all(b"x")?;
    let (mut server, _) = listener.accept()?;
    // Zero bytes or an error: the other worker has already reset or closed this one.
    let _ = server.read(&mut [0]);
    match number % 3 {
        0 => drop(client),
        1 => drop(server),
        _ => {
            setsockopt(&client, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 })?;
            drop(client);
        }
    }
    Ok(())
}
