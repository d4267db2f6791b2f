//! A database's host at the other end of a cable: a namespace with a server that sends back what it gets, and packets
//! that it throws away when it is told to.

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sched::{CloneFlags, setns};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream as Stream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::postgres::PORT;
use crate::program::{command, output};
use crate::sandbox::{NETWORK, Namespace, link_to};

/// Bytes of one request and of its answer.
const REQUEST_BYTES: usize = 64;
/// nftables' table of dropped packets.
const TABLE: &str = "socklife_test";

/// The far host. Its server ends first, then its namespace.
pub struct Far {
    server: Option<(oneshot::Sender<()>, JoinHandle<Result<()>>)>,
    namespace: Namespace,
}

impl Far {
    /// Makes a host `name`, linked to the sandbox, and its server.
    pub fn start(name: &str) -> Result<Self> {
        let namespace = Namespace::named(name)?;
        link_to(&namespace.file())?;
        let file = File::open(namespace.file())?;
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = sync_channel(1);
        let thread = thread::spawn(move || serve(file, stopped, &ready));
        if is_ready.recv().is_err() {
            thread.join().map_err(|_| anyhow!("the server panicked"))??;
            bail!("the server ended early");
        }
        Ok(Self { server: Some((stop, thread)), namespace })
    }

    /// Where the server listens.
    pub fn address() -> Result<SocketAddr> {
        Ok(format!("{NETWORK}.2:{PORT}").parse()?)
    }

    /// From now on it throws away what comes from these ports.
    pub fn drop_from(&self, ports: &[u16]) -> Result<()> {
        let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
        self.nft(&format!(
            "add table ip {TABLE}; add chain ip {TABLE} input {{ type filter hook input priority 0; }}; \
             add rule ip {TABLE} input tcp sport {{ {} }} drop",
            ports.join(", ")
        ))
    }

    /// From now on it throws nothing away.
    pub fn drop_nothing(&self) -> Result<()> {
        self.nft(&format!("delete table ip {TABLE}"))
    }

    fn nft(&self, rules: &str) -> Result<()> {
        let [first, rest @ ..] = self.namespace.way();
        let mut nft = command(first);
        nft.args(rest).arg("nft").arg(rules);
        output(nft).map(drop)
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.server.take() {
            // Errors mean that it has ended already.
            let _ = stop.send(());
            let _ = thread.join();
        }
    }
}

fn serve(namespace: File, stopped: oneshot::Receiver<()>, ready: &SyncSender<()>) -> Result<()> {
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    runtime()?.block_on(async {
        let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
        ready.send(())?;
        let accept = async {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(echo(stream));
            }
        };
        tokio::select! {
            () = accept => {}
            _ = stopped => {}
        }
        Ok(())
    })
}

async fn echo(mut stream: Stream) {
    let (mut reader, mut writer) = stream.split();
    // An error is the client's end.
    let _ = tokio::io::copy(&mut reader, &mut writer).await;
}

fn runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("start a runtime")
}

/// Lets this process have as many descriptors as it may.
pub fn raise_descriptors(least: u64) -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    ensure!(most >= least, "this process may have {most} descriptors, and needs {least}");
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
}

/// One request, which has to come back.
pub async fn exchange(stream: &mut Stream, number: u64) -> Result<()> {
    let request: Vec<u8> = number.to_ne_bytes().repeat(REQUEST_BYTES / 8);
    stream.write_all(&request).await?;
    let mut answer = [0; REQUEST_BYTES];
    stream.read_exact(&mut answer).await?;
    ensure!(answer[..] == request[..], "sent {request:?}, got back {answer:?}");
    Ok(())
}

/// One request on each of these connections, one after the other.
pub fn exchange_all(streams: &[TcpStream]) -> Result<()> {
    runtime()?.block_on(async {
        for (number, stream) in (1..).zip(streams) {
            let own = stream.try_clone()?;
            own.set_nonblocking(true)?;
            let done = exchange(&mut Stream::from_std(own)?, number).await;
            // Copies share it.
            stream.set_nonblocking(false)?;
            done?;
        }
        Ok(())
    })
}

/// Requests on connections, without a pause, from a thread of its own.
pub struct Load {
    stop: Arc<AtomicBool>,
    requests: Arc<AtomicU64>,
    thread: JoinHandle<Result<()>>,
}

impl Load {
    /// Begins; ends at the first error.
    pub fn start(streams: &[TcpStream]) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let requests = Arc::new(AtomicU64::new(0));
        let own: Vec<TcpStream> = streams.iter().map(TcpStream::try_clone).collect::<Result<_, _>>()?;
        let (stopping, counter) = (Arc::clone(&stop), Arc::clone(&requests));
        let thread = thread::spawn(move || runtime()?.block_on(run(own, &stopping, &counter)));
        Ok(Self { stop, requests, thread })
    }

    /// Requests that were answered so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Ends it; fails if any request did, or any byte was another.
    pub fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the load panicked"))??;
        Ok(self.requests.load(Ordering::Relaxed))
    }
}

async fn run(streams: Vec<TcpStream>, stop: &Arc<AtomicBool>, requests: &Arc<AtomicU64>) -> Result<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for stream in streams {
        stream.set_nonblocking(true)?;
        let mut stream = Stream::from_std(stream)?;
        let (stop, requests) = (Arc::clone(stop), Arc::clone(requests));
        tasks.spawn(async move {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                number += 1;
                exchange(&mut stream, number).await?;
                requests.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.context("a connection's task")??;
    }
    Ok(())
}
