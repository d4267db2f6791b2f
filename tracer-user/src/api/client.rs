//! The client's end of the control API. Every wait and every buffer has a bound; every failure is a sentence that says
//! what to do.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::handshake;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use nix::unistd::{Gid, Group};
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use super::{ErrorBody, OPEN_FINDINGS_HEADER};

/// Largest whole answer. A connection is about 600 bytes of JSON and at most 262,144 are tracked.
pub const BODY_BYTES_MAX: usize = 256 << 20;
/// Longest line of a stream.
pub const LINE_BYTES_MAX: usize = 1 << 20;
/// How long a whole answer, or the beginning of a stream, may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no daemon answers on {}: start one with `socklife run` (as root), or give its --socket PATH", .0.display())]
    Absent(PathBuf),
    /// The file says no.
    #[error("permission denied on {}: run as root{}", .path.display(), .group.as_ref().map(|name| format!(" or as a member of group {name}")).unwrap_or_default())]
    Denied {
        /// The socket.
        path: PathBuf,
        /// Its group, if that would help.
        group: Option<String>,
    },
    /// The daemon says no.
    #[error("the daemon on {} refused: {sentence}", .path.display())]
    Refused {
        /// The socket.
        path: PathBuf,
        /// HTTP's status.
        status: u16,
        /// Its reason.
        sentence: String,
    },
    /// The answer broke off.
    #[error("the daemon on {} ended before its answer did: see its log, and start it again", .0.display())]
    Lost(PathBuf),
    /// No answer in time.
    #[error("the daemon on {} does not answer: see its log, and start it again if need be", .0.display())]
    Silent(PathBuf),
    /// What came is not what was asked for.
    #[error("{} does not speak socklife's API ({why}): is it another program, or another version?", .path.display())]
    Strange {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// Asks the daemon on one socket.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
}

/// A connection, driven until this is dropped.
#[derive(Debug)]
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Client {
    /// For the daemon on `path`. Connects when asked something.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The whole answer as it came.
    pub async fn get(&self, target: &str) -> Result<Bytes, ClientError> {
        let answer = async {
            let (response, _driver) = self.send(target).await?;
            self.collect(response.into_body(), BODY_BYTES_MAX).await
        };
        tokio::time::timeout(ANSWER_WITHIN, answer).await.map_err(|_| ClientError::Silent(self.path.clone()))?
    }

    /// The whole answer as a value.
    pub async fn get_json<T: DeserializeOwned>(&self, target: &str) -> Result<T, ClientError> {
        let json = self.get(target).await?;
        serde_json::from_slice(&json).map_err(|error| self.strange(error))
    }

    /// A stream of lines.
    pub async fn stream_lines(&self, target: &str) -> Result<Lines, ClientError> {
        let begin = tokio::time::timeout(ANSWER_WITHIN, self.send(target));
        let (response, driver) = begin.await.map_err(|_| ClientError::Silent(self.path.clone()))??;
        let open = response.headers().get(OPEN_FINDINGS_HEADER);
        let open_findings = open.and_then(|count| count.to_str().ok()?.parse().ok());
        Ok(Lines {
            client: self.clone(),
            body: response.into_body(),
            buffer: BytesMut::new(),
            scanned: 0,
            open_findings,
            _driver: driver,
        })
    }

    /// A stream of bytes.
    pub async fn stream_bytes(&self, target: &str) -> Result<Chunks, ClientError> {
        let begin = tokio::time::timeout(ANSWER_WITHIN, self.send(target));
        let (response, driver) = begin.await.map_err(|_| ClientError::Silent(self.path.clone()))??;
        Ok(Chunks { client: self.clone(), body: response.into_body(), _driver: driver })
    }

    async fn send(&self, target: &str) -> Result<(Response<Incoming>, Driver), ClientError> {
        let stream = UnixStream::connect(&self.path).await.map_err(|error| self.unreachable(&error))?;
        let (mut sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|_| ClientError::Lost(self.path.clone()))?;
        let driver = Driver(tokio::spawn(async move {
            // How it ends is seen by whoever waits for the answer.
            let _ended = connection.await;
        }));
        let request = Request::get(target).header(header::HOST, "socklife").body(Empty::<Bytes>::new());
        let request = request.map_err(|error| self.strange(error))?;
        let response = sender.send_request(request).await.map_err(|error| self.broken(&error))?;
        let status = response.status();
        if status == StatusCode::OK {
            return Ok((response, driver));
        }
        let body = self.collect(response.into_body(), LINE_BYTES_MAX).await?;
        let sentence = serde_json::from_slice(&body)
            .map_or_else(|_| format!("it answered {status} to {target}"), |body: ErrorBody| body.error);
        Err(ClientError::Refused { path: self.path.clone(), status: status.as_u16(), sentence })
    }

    async fn collect(&self, mut body: Incoming, bytes_max: usize) -> Result<Bytes, ClientError> {
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.broken(&error))?;
            let Ok(data) = frame.into_data() else { continue };
            if whole.len() + data.len() > bytes_max {
                return Err(self.strange(format!("an answer of more than {bytes_max} bytes")));
            }
            whole.extend_from_slice(&data);
        }
        Ok(whole.freeze())
    }

    fn unreachable(&self, error: &io::Error) -> ClientError {
        let path = self.path.clone();
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory => {
                ClientError::Absent(path)
            }
            io::ErrorKind::PermissionDenied => {
                // The group helps only where the file lets it in.
                let file = path.metadata().ok().filter(|file| file.mode() & 0o060 == 0o060);
                let group = file.and_then(|file| Group::from_gid(Gid::from_raw(file.gid())).ok()?);
                ClientError::Denied { path, group: group.map(|group| group.name) }
            }
            // A full backlog: it lives and does not accept.
            io::ErrorKind::WouldBlock => ClientError::Silent(path),
            _ => ClientError::Strange { path, why: error.to_string() },
        }
    }

    fn broken(&self, error: &hyper::Error) -> ClientError {
        if error.is_parse() { self.strange(error) } else { ClientError::Lost(self.path.clone()) }
    }

    fn strange(&self, why: impl ToString) -> ClientError {
        ClientError::Strange { path: self.path.clone(), why: why.to_string() }
    }
}

/// The bytes of a stream.
#[derive(Debug)]
pub struct Chunks {
    client: Client,
    body: Incoming,
    _driver: Driver,
}

impl Chunks {
    /// The next bytes; `None` when the daemon ended the stream. May be dropped and called again: nothing is lost.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => return Err(self.client.broken(&error)),
                None => return Ok(None),
            }
        }
    }
}

/// The lines of a stream.
#[derive(Debug)]
pub struct Lines {
    client: Client,
    body: Incoming,
    buffer: BytesMut,
    /// Bytes of the buffer known to hold no line end.
    scanned: usize,
    /// How many findings were open when the stream began, if it is one of findings.
    pub open_findings: Option<u64>,
    _driver: Driver,
}

impl Lines {
    /// The next line without its end; `None` when the daemon ended the stream. May be dropped and called again: nothing
    /// is lost.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            if let Some(line) = self.take()? {
                return Ok(Some(line));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(self.client.broken(&error)),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(ClientError::Lost(self.client.path.clone())),
            }
        }
    }

    /// A line that is already here.
    pub fn take(&mut self) -> Result<Option<Bytes>, ClientError> {
        let rest = self.buffer.get(self.scanned..).unwrap_or_default();
        if let Some(end) = memchr::memchr(b'\n', rest) {
            let mut line = self.buffer.split_to(self.scanned + end + 1);
            self.scanned = 0;
            line.truncate(line.len() - 1);
            return Ok(Some(line.freeze()));
        }
        self.scanned = self.buffer.len();
        if self.scanned > LINE_BYTES_MAX {
            return Err(self.client.strange(format!("a line of more than {LINE_BYTES_MAX} bytes")));
        }
        Ok(None)
    }
}
