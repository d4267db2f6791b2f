//! PostgreSQL's frontend/backend protocol 3.0, as much of it as a session without authentication needs, both sides.
//!
//! Framing and messages only: nothing here opens a socket or knows what a query means. Lengths come from the peer
//! and are bounded before anything is allocated. Reference: PostgreSQL's manual, chapter "Message Formats".

use std::io::{Error, ErrorKind, Result};

use tokio::io::{AsyncRead, AsyncReadExt};

/// As PostgreSQL's own MAX_STARTUP_PACKET_LENGTH.
const MAX_STARTUP_BYTES: usize = 10_000;
/// Far more than any message of a demo.
const MAX_MESSAGE_BYTES: usize = 64 << 10;

const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;
const PROTOCOL_MAJOR: u32 = 3;
const INT4_OID: i32 = 23;

/// SQLSTATE of a server that takes no more connections.
pub const TOO_MANY_CONNECTIONS: &str = "53300";

/// The first packet of a connection, which has no tag.
#[derive(Debug, PartialEq, Eq)]
pub enum Startup {
    /// A request for encryption, to be refused with the single byte `N`; another startup packet follows.
    Encryption,
    /// A request to cancel another session's query; the connection ends.
    Cancel,
    /// A session of major version 3.
    Session {
        /// The minor version asked for; 0 is the one spoken here.
        minor: u32,
        /// Protocol options the client asked for, `_pq_.*`; none is known here.
        options: Vec<String>,
    },
}

/// Any later message.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    /// The message's type.
    pub tag: u8,
    /// What follows the length.
    pub body: Vec<u8>,
}

/// Reads the first packet; `None` where the peer closed instead.
pub async fn read_startup(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<Startup>> {
    let Some(body) = read_packet(stream, MAX_STARTUP_BYTES).await? else { return Ok(None) };
    let (code, rest) = body.split_first_chunk().ok_or_else(|| invalid("a startup packet without version"))?;
    Ok(Some(match u32::from_be_bytes(*code) {
        SSL_REQUEST | GSSENC_REQUEST => Startup::Encryption,
        CANCEL_REQUEST => Startup::Cancel,
        version if version >> 16 == PROTOCOL_MAJOR => {
            Startup::Session { minor: version & 0xffff, options: protocol_options(rest) }
        }
        _ => return Err(invalid("a protocol version that is not 3")),
    }))
}

/// Reads one message; `None` where the peer closed between two messages.
pub async fn read_message(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<Message>> {
    let tag = match stream.read_u8().await {
        Ok(tag) => tag,
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    match read_packet(stream, MAX_MESSAGE_BYTES).await? {
        Some(body) => Ok(Some(Message { tag, body })),
        None => Err(ErrorKind::UnexpectedEof.into()),
    }
}

/// A length that counts itself, then that many bytes.
async fn read_packet(stream: &mut (impl AsyncRead + Unpin), max: usize) -> Result<Option<Vec<u8>>> {
    let length = match stream.read_u32().await {
        Ok(length) => usize::try_from(length).unwrap_or(usize::MAX),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let body_bytes =
        length.checked_sub(4).filter(|bytes| *bytes <= max).ok_or_else(|| invalid("a length out of range"))?;
    let mut body = vec![0; body_bytes];
    stream.read_exact(&mut body).await?;
    Ok(Some(body))
}

/// Names of the `_pq_.` options among the startup parameters.
fn protocol_options(parameters: &[u8]) -> Vec<String> {
    let strings = parameters.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    strings.step_by(2).filter(|name| name.starts_with("_pq_.")).map(std::borrow::Cow::into_owned).collect()
}

fn invalid(what: &'static str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}

/// A message with its tag and length.
fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend(packet(body));
    bytes
}

fn packet(body: &[u8]) -> Vec<u8> {
    // Bodies are built here from short strings; a length beyond u32 cannot be, and would be refused by any reader.
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&length.to_be_bytes(), body].concat()
}

/// Strings, each with its terminating zero.
fn strings(values: &[&str]) -> Vec<u8> {
    values.iter().flat_map(|value| value.bytes().chain([0])).collect()
}

/// Client: opens a session.
#[must_use]
pub fn startup(user: &str, database: &str, application: &str) -> Vec<u8> {
    let mut body = (PROTOCOL_MAJOR << 16).to_be_bytes().to_vec();
    body.extend(strings(&["user", user, "database", database, "application_name", application]));
    body.push(0);
    packet(&body)
}

/// Client: a simple query.
#[must_use]
pub fn query(sql: &str) -> Vec<u8> {
    frame(b'Q', &strings(&[sql]))
}

/// Client: ends the session.
#[must_use]
pub fn terminate() -> Vec<u8> {
    frame(b'X', &[])
}

/// Server: no password is asked for.
#[must_use]
pub fn authentication_ok() -> Vec<u8> {
    frame(b'R', &0_u32.to_be_bytes())
}

/// Server: minor version 0 is spoken, and none of these options.
#[must_use]
pub fn negotiate_version(options: &[String]) -> Vec<u8> {
    let mut body = (PROTOCOL_MAJOR << 16).to_be_bytes().to_vec();
    body.extend(u32::try_from(options.len()).unwrap_or(u32::MAX).to_be_bytes());
    for option in options {
        body.extend(strings(&[option]));
    }
    frame(b'v', &body)
}

/// Server: a setting the client library wants to know.
#[must_use]
pub fn parameter_status(name: &str, value: &str) -> Vec<u8> {
    frame(b'S', &strings(&[name, value]))
}

/// Server: what a cancel request would have to show.
#[must_use]
pub fn backend_key_data(process: u32, secret: u32) -> Vec<u8> {
    frame(b'K', &[process.to_be_bytes(), secret.to_be_bytes()].concat())
}

/// Server: idle, outside a transaction.
#[must_use]
pub fn ready_for_query() -> Vec<u8> {
    frame(b'Z', b"I")
}

/// Server: a result of one row with one integer.
#[must_use]
pub fn one_row(column: &str, value: &str) -> Vec<u8> {
    let mut description = 1_u16.to_be_bytes().to_vec();
    description.extend(strings(&[column]));
    // No table, no column number; int4 of 4 bytes, no modifier, as text.
    description.extend(0_u32.to_be_bytes());
    description.extend(0_u16.to_be_bytes());
    description.extend(INT4_OID.to_be_bytes());
    description.extend(4_u16.to_be_bytes());
    description.extend((-1_i32).to_be_bytes());
    description.extend(0_u16.to_be_bytes());
    let mut row = 1_u16.to_be_bytes().to_vec();
    row.extend(u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
    row.extend(value.as_bytes());
    [frame(b'T', &description), frame(b'D', &row), frame(b'C', &strings(&["SELECT 1"]))].concat()
}

/// Server: the query had nothing in it.
#[must_use]
pub fn empty_query() -> Vec<u8> {
    frame(b'I', &[])
}

/// Server: an error; `severity` FATAL announces the end of the session.
#[must_use]
pub fn error_response(severity: &str, sqlstate: &str, message: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for (field, value) in [(b'S', severity), (b'V', severity), (b'C', sqlstate), (b'M', message)] {
        body.push(field);
        body.extend(strings(&[value]));
    }
    body.push(0);
    frame(b'E', &body)
}

/// Client: one field of an ErrorResponse's body, such as `C` (SQLSTATE) or `M` (message).
#[must_use]
pub fn error_field(body: &[u8], field: u8) -> Option<String> {
    body.split(|byte| *byte == 0)
        .find_map(|entry| entry.strip_prefix(&[field]))
        .map(|value| String::from_utf8_lossy(value).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn a_session_request_is_what_the_client_sent() {
        let bytes = startup("app", "orders", "leaky");
        let session = Startup::Session { minor: 0, options: Vec::new() };
        assert_eq!(block_on(read_startup(&mut bytes.as_slice())).unwrap(), Some(session));
    }

    #[test]
    fn requests_before_the_session_are_told_apart() {
        for (code, expected) in [
            (SSL_REQUEST, Startup::Encryption),
            (GSSENC_REQUEST, Startup::Encryption),
            (CANCEL_REQUEST, Startup::Cancel),
        ] {
            let bytes = packet(&code.to_be_bytes());
            assert_eq!(block_on(read_startup(&mut bytes.as_slice())).unwrap(), Some(expected));
        }
    }

    #[test]
    fn a_newer_minor_version_and_its_options_are_seen() {
        let mut body = ((3_u32 << 16) | 2).to_be_bytes().to_vec();
        body.extend(strings(&["user", "app", "_pq_.more", "1", "database", "_pq_.value"]));
        body.push(0);
        let seen = block_on(read_startup(&mut packet(&body).as_slice())).unwrap();
        assert_eq!(seen, Some(Startup::Session { minor: 2, options: vec!["_pq_.more".to_owned()] }));
    }

    #[test]
    fn lengths_are_bounded_before_they_are_believed() {
        for length in [0_u32, 3, 10_005, u32::MAX] {
            let error = block_on(read_startup(&mut length.to_be_bytes().as_slice())).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData, "length {length}");
        }
        let mut bytes = vec![b'Q'];
        bytes.extend(u32::MAX.to_be_bytes());
        assert_eq!(block_on(read_message(&mut bytes.as_slice())).unwrap_err().kind(), ErrorKind::InvalidData);
    }

    #[test]
    fn the_end_is_clean_only_between_messages() {
        assert_eq!(block_on(read_message(&mut [].as_slice())).unwrap(), None);
        let whole = query("SELECT 1");
        for cut in 1..whole.len() {
            let error = block_on(read_message(&mut &whole[..cut])).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "cut at {cut}");
        }
    }

    #[test]
    fn an_error_gives_its_fields_back() {
        let bytes = error_response("FATAL", TOO_MANY_CONNECTIONS, "no more");
        let message = block_on(read_message(&mut bytes.as_slice())).unwrap().unwrap();
        assert_eq!(message.tag, b'E');
        assert_eq!(error_field(&message.body, b'C').as_deref(), Some("53300"));
        assert_eq!(error_field(&message.body, b'M').as_deref(), Some("no more"));
        assert_eq!(error_field(&message.body, b'H'), None);
    }
}
