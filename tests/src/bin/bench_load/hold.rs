//! Opens connections and holds both ends, in several processes because one may not have that many descriptors.
//!
//! Says how many sockets there are once all are there, and ends, with all of them, when standard input does.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;

/// Sockets of one process; hard limits on descriptors begin at 20,000 here.
const SOCKETS_EACH: u32 = 17_000;

#[derive(clap::Args)]
pub struct Options {
    /// Sockets in all: two for each connection
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..=2_000_000))]
    sockets: u32,
    /// The listeners' port
    #[arg(long, default_value_t = 5432)]
    port: u16,
    /// One holder: its number
    #[arg(long, hide = true)]
    holder: Option<u8>,
}

pub fn hold(options: &Options) -> Result<()> {
    match options.holder {
        Some(holder) => hold_some(options, holder),
        None => hold_all(options),
    }
}

/// Starts the holders; they end with our end of their input, however we go.
fn hold_all(options: &Options) -> Result<()> {
    let mut holders = Vec::new();
    let mut left = options.sockets / 2 * 2;
    while left > 0 {
        let sockets = left.min(SOCKETS_EACH);
        left -= sockets;
        let number = u8::try_from(holders.len() + 1).context("too many holders")?;
        holders.push(start(options, number, sockets)?);
    }
    let mut all = 0;
    let mut pids = Vec::new();
    for holder in &mut holders {
        let mut line = String::new();
        BufReader::new(holder.stdout.as_mut().context("a holder has no stdout")?).read_line(&mut line)?;
        all += line.trim().parse::<u32>().with_context(|| format!("a holder said {line:?}"))?;
        pids.push(holder.id());
    }
    say(&json!({ "sockets": all, "pids": pids }).to_string())?;
    await_end_of_input()?;
    for mut holder in holders {
        drop(holder.stdin.take());
        holder.wait().context("wait for a holder")?;
    }
    Ok(())
}

fn start(options: &Options, number: u8, sockets: u32) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe().context("find this program")?);
    command.args(["hold", "--sockets", &sockets.to_string(), "--port", &options.port.to_string()]);
    command.args(["--holder", &number.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().context("start a holder")
}

fn hold_some(options: &Options, number: u8) -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = u64::from(options.sockets) + 64;
    ensure!(hard >= wanted, "the limit on open files is {hard}, {wanted} are needed");
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(wanted), hard)?;
    // An address of its own has local ports of its own.
    let address = SocketAddr::from((Ipv4Addr::new(127, 0, 1, number), options.port));
    let listener = TcpListener::bind(address).with_context(|| format!("listen on {address}"))?;
    let mut held = Vec::new();
    for at in 0..options.sockets / 2 {
        held.push(TcpStream::connect(address).with_context(|| format!("connection {at}"))?);
        held.push(listener.accept().with_context(|| format!("accept {at}"))?.0);
    }
    say(&held.len().to_string())?;
    await_end_of_input()
}

fn say(line: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")?;
    Ok(stdout.flush()?)
}

fn await_end_of_input() -> Result<()> {
    let mut rest = Vec::new();
    std::io::stdin().lock().read_to_end(&mut rest).context("read standard input").map(drop)
}
