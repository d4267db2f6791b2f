//! A client's session with a PostgreSQL server that asks for no password: open it, run a query, hold it.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::wire::{self, Message};

/// An open session; dropping it closes the socket without a word, as a killed program does.
#[derive(Debug)]
pub struct Session {
    stream: TcpStream,
}

/// What a server said to a new session.
#[derive(Debug)]
pub enum Opened {
    /// Come in.
    Session(Session),
    /// Its error: SQLSTATE and message.
    Refused {
        /// SQLSTATE, such as 53300.
        sqlstate: String,
        /// The message, for people. Not to be trusted.
        message: String,
    },
}

impl Session {
    /// Connects and waits until the server is ready for a query or has refused.
    pub async fn open(address: SocketAddr, application: &str) -> Result<Opened> {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(&wire::startup("demo", "demo", application)).await?;
        loop {
            match expect_message(&mut stream).await? {
                Message { tag: b'Z', .. } => return Ok(Opened::Session(Self { stream })),
                Message { tag: b'E', body } => return Ok(refused(&body)),
                Message { tag: b'R', body } if body != [0; 4] => {
                    return Err(Error::new(ErrorKind::Unsupported, "the server asks for a password"));
                }
                _ => {}
            }
        }
    }

    /// Runs one simple query; gives the number of rows.
    pub async fn query(&mut self, sql: &str) -> Result<usize> {
        self.stream.write_all(&wire::query(sql)).await?;
        let mut rows = 0;
        let mut error = None;
        loop {
            match expect_message(&mut self.stream).await? {
                Message { tag: b'D', .. } => rows += 1,
                Message { tag: b'E', body } => error = wire::error_field(&body, b'M'),
                Message { tag: b'Z', .. } => return error.map_or(Ok(rows), |text| Err(Error::other(text))),
                _ => {}
            }
        }
    }

    /// Ends the session as a well-behaved client does, and waits for the server's end of it.
    pub async fn close(mut self) -> Result<()> {
        self.stream.write_all(&wire::terminate()).await?;
        match wire::read_message(&mut self.stream).await? {
            None => Ok(()),
            Some(message) => Err(Error::new(ErrorKind::InvalidData, format!("after the end: {message:?}"))),
        }
    }
}

async fn expect_message(stream: &mut TcpStream) -> Result<Message> {
    wire::read_message(stream).await?.ok_or_else(|| ErrorKind::UnexpectedEof.into())
}

fn refused(body: &[u8]) -> Opened {
    let field = |name| wire::error_field(body, name).unwrap_or_default();
    Opened::Refused { sqlstate: field(b'C'), message: field(b'M') }
}
