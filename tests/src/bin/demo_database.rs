//! `demo-database`: speaks enough of PostgreSQL's protocol for a session, and takes few connections.
//!
//! Sessions are real sockets that stay open as long as their client wants; one more than the limit gets PostgreSQL's
//! own refusal. It answers every query with one row and stores nothing. For the demo and the tests of the demo only.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use socklife_tests::ending::asked_to_end;
use socklife_tests::wire::{self, Message, Startup};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Connections that have not said yet what they want; more are dropped.
const MAX_PENDING: usize = 64;
/// How long one may stay so; PostgreSQL's authentication_timeout is 60 s.
const STARTUP_WITHIN: Duration = Duration::from_secs(10);
/// An encryption request of each kind, then the session.
const MAX_STARTUP_PACKETS: usize = 3;
/// PostgreSQL 15's own words.
const REFUSAL: &str = "remaining connection slots are reserved for non-replication superuser connections";

/// A small server that speaks enough of PostgreSQL's protocol for a demo.
#[derive(Parser)]
struct Options {
    /// Address to listen on; port 0 takes a free one. It is printed
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Sessions it takes at a time
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// End when standard input does
    #[arg(long)]
    until_stdin_ends: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = Options::parse();
    let listener =
        TcpListener::bind(options.listen).await.with_context(|| format!("cannot listen on {}", options.listen))?;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "listening on {}", listener.local_addr()?)?;
    stdout.flush()?;
    tokio::select! {
        result = serve(listener, usize::from(options.limit)) => result,
        result = asked_to_end(options.until_stdin_ends) => Ok(result?),
    }
}

/// Accepts until it is dropped, which ends every session.
async fn serve(listener: TcpListener, limit: usize) -> Result<()> {
    let pending = Arc::new(Semaphore::new(MAX_PENDING));
    let slots = Arc::new(Semaphore::new(limit));
    let mut sessions = JoinSet::new();
    let mut process = 0_u32;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted.context("cannot accept")?;
                let Ok(permit) = Arc::clone(&pending).try_acquire_owned() else { continue };
                process = process.wrapping_add(1);
                let slots = Arc::clone(&slots);
                sessions.spawn(async move {
                    let opened = tokio::time::timeout(STARTUP_WITHIN, open_session(stream, process, &slots)).await;
                    drop(permit);
                    // A peer that breaks the protocol or goes away loses its session; there is nobody to tell.
                    if let Ok(Ok(Some((stream, _slot)))) = opened {
                        let _ = session(stream).await;
                    }
                });
            }
            Some(_) = sessions.join_next() => {}
        }
    }
}

/// From the first byte to ReadyForQuery; `None` where no session came of it. The permit is the session's slot.
async fn open_session(
    mut stream: TcpStream,
    process: u32,
    slots: &Semaphore,
) -> std::io::Result<Option<(TcpStream, tokio::sync::SemaphorePermit<'_>)>> {
    for _ in 0..MAX_STARTUP_PACKETS {
        let (minor, options) = match wire::read_startup(&mut stream).await? {
            None | Some(Startup::Cancel) => return Ok(None),
            Some(Startup::Encryption) => {
                stream.write_all(b"N").await?;
                continue;
            }
            Some(Startup::Session { minor, options }) => (minor, options),
        };
        let Ok(slot) = slots.try_acquire() else {
            stream.write_all(&wire::error_response("FATAL", wire::TOO_MANY_CONNECTIONS, REFUSAL)).await?;
            stream.shutdown().await?;
            return Ok(None);
        };
        stream.write_all(&greeting(process, minor, &options)).await?;
        return Ok(Some((stream, slot)));
    }
    Ok(None)
}

fn greeting(process: u32, minor: u32, options: &[String]) -> Vec<u8> {
    let mut bytes = Vec::new();
    if minor > 0 || !options.is_empty() {
        bytes.extend(wire::negotiate_version(options));
    }
    bytes.extend(wire::authentication_ok());
    for (name, value) in [
        ("server_version", "15.0"),
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO, MDY"),
        ("TimeZone", "UTC"),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
    ] {
        bytes.extend(wire::parameter_status(name, value));
    }
    bytes.extend(wire::backend_key_data(process, 0));
    bytes.extend(wire::ready_for_query());
    bytes
}

/// Answers until Terminate or the end of the connection.
async fn session(mut stream: TcpStream) -> std::io::Result<()> {
    let mut skip_to_sync = false;
    while let Some(Message { tag, body }) = wire::read_message(&mut stream).await? {
        let answer = match tag {
            b'X' => return Ok(()),
            b'S' => {
                skip_to_sync = false;
                wire::ready_for_query()
            }
            _ if skip_to_sync => continue,
            b'Q' => [query_result(&body), wire::ready_for_query()].concat(),
            // The extended protocol: after an error everything up to Sync is to be ignored.
            b'P' | b'B' | b'C' | b'D' | b'E' | b'F' | b'H' => {
                skip_to_sync = true;
                wire::error_response("ERROR", "0A000", "only simple queries are understood here")
            }
            _ => {
                stream.write_all(&wire::error_response("FATAL", "08P01", "unexpected message type")).await?;
                return stream.shutdown().await;
            }
        };
        stream.write_all(&answer).await?;
    }
    Ok(())
}

fn query_result(body: &[u8]) -> Vec<u8> {
    let empty = body.iter().all(|byte| byte.is_ascii_whitespace() || matches!(byte, b';' | 0));
    if empty { wire::empty_query() } else { wire::one_row("?column?", "1") }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use socklife_tests::session::{Opened, Session};
    use tokio::io::AsyncReadExt;

    use super::*;

    /// Runs `client` against a server with `limit` slots; the server ends with it.
    fn check<T>(limit: usize, client: impl AsyncFnOnce(SocketAddr) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            tokio::select! {
                ended = serve(listener, limit) => panic!("the server ended: {ended:?}"),
                result = client(address) => result,
            }
        })
    }

    async fn open(address: SocketAddr) -> Session {
        match Session::open(address, "test").await.unwrap() {
            Opened::Session(session) => session,
            refused => panic!("{refused:?}"),
        }
    }

    #[test]
    fn a_query_gives_one_row_and_an_empty_one_none() {
        check(1, async |address| {
            let mut session = open(address).await;
            assert_eq!(session.query("SELECT 1").await.unwrap(), 1);
            assert_eq!(session.query(" ;\n").await.unwrap(), 0);
            assert_eq!(session.query("SELECT 1").await.unwrap(), 1);
            session.close().await.unwrap();
        });
    }

    #[test]
    fn one_more_than_the_limit_is_refused_until_another_has_closed() {
        check(2, async |address| {
            let first = open(address).await;
            let mut second = open(address).await;
            let refused = Session::open(address, "test").await.unwrap();
            let Opened::Refused { sqlstate, message } = refused else { panic!("taken beyond the limit") };
            assert_eq!((sqlstate.as_str(), message.as_str()), ("53300", REFUSAL));
            assert_eq!(second.query("SELECT 1").await.unwrap(), 1);
            // The server's own end of the session, which `close` waits for, is what frees the slot.
            first.close().await.unwrap();
            open(address).await;
        });
    }

    #[test]
    fn encryption_is_declined_and_the_session_goes_on_in_clear() {
        check(1, async |address| {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // SSLRequest, as libpq sends it.
            stream.write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]).await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), b'N');
            stream.write_all(&wire::startup("u", "d", "a")).await.unwrap();
            assert_eq!(wire::read_message(&mut stream).await.unwrap().unwrap().tag, b'R');
        });
    }

    #[test]
    fn a_peer_that_speaks_something_else_is_dropped_and_holds_no_slot() {
        check(1, async |address| {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            let mut rest = Vec::new();
            // Closed with our bytes unread, the kernel may send a reset: both are an end.
            let _ = stream.read_to_end(&mut rest).await;
            assert_eq!(rest, b"");
            open(address).await;
        });
    }

    #[test]
    fn the_extended_protocol_is_refused_in_its_own_terms() {
        check(1, async |address| {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(&wire::startup("u", "d", "a")).await.unwrap();
            while wire::read_message(&mut stream).await.unwrap().unwrap().tag != b'Z' {}
            // Parse and Describe with empty bodies, then Sync: one error, one ReadyForQuery.
            stream.write_all(b"P\0\0\0\x04D\0\0\0\x04S\0\0\0\x04").await.unwrap();
            let error = wire::read_message(&mut stream).await.unwrap().unwrap();
            assert_eq!((error.tag, wire::error_field(&error.body, b'C').as_deref()), (b'E', Some("0A000")));
            assert_eq!(wire::read_message(&mut stream).await.unwrap().unwrap().tag, b'Z');
        });
    }

    /// PostgreSQL's own client is the judge of our protocol. `cargo xtask setup` installs it.
    #[test]
    fn psql_gets_its_row_and_its_refusal() {
        check(1, async |address| {
            let psql = move || {
                let mut command = Command::new("psql");
                command.args(["--no-psqlrc", "--no-align", "--tuples-only", "--command", "SELECT 1"]);
                let target = format!("host=127.0.0.1 port={} user=u dbname=d", address.port());
                command.args(["--dbname", &target]).env_remove("PGSSLMODE").stdin(Stdio::null());
                command.output().expect("psql is not installed: run `cargo xtask setup --only test`")
            };
            let served = tokio::task::spawn_blocking(psql).await.unwrap();
            assert_eq!(String::from_utf8_lossy(&served.stdout), "1\n", "{served:?}");
            assert!(served.status.success(), "{served:?}");
        });
        check(1, async |address| {
            let _held = open(address).await;
            let refused = tokio::task::spawn_blocking(move || {
                let target = format!("host=127.0.0.1 port={} user=u dbname=d", address.port());
                Command::new("psql")
                    .args(["--no-psqlrc", "--command", "SELECT 1", "--dbname", &target])
                    .output()
                    .unwrap()
            });
            let refused = refused.await.unwrap();
            assert!(String::from_utf8_lossy(&refused.stderr).contains(REFUSAL), "{refused:?}");
            assert!(!refused.status.success());
        });
    }
}
