//! Bytes of a recording: a preamble with the format's version, then frames. A frame is its length and the CRC-32 of its
//! payload (four bytes each, little-endian) and the payload in postcard's format, so that a recording cut off anywhere is
//! good up to its last whole frame, and a flipped bit is noticed.

use super::Frame;

/// Version of the format. Whatever changes the bytes of a frame changes it, such as a field more in a type that is
/// recorded.
pub const FORMAT_VERSION: u16 = 4;

const MAGIC: [u8; 8] = *b"socklrec";

/// Bytes before the first frame.
pub const PREAMBLE_BYTES: usize = MAGIC.len() + 2;

/// Bytes of a frame before its payload.
const HEAD_BYTES: usize = 8;

/// Longest payload. A look at 262,144 sockets takes some 20 MiB.
const PAYLOAD_BYTES_MAX: usize = 256 << 20;

/// Why there is no next frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordingError {
    /// It does not begin as recordings do.
    #[error("it is no socklife recording")]
    Foreign,
    /// Another version.
    #[error("it has format {found}, and this socklife reads format {FORMAT_VERSION}: use the version that recorded it")]
    Version {
        /// Its version.
        found: u16,
    },
    /// Bytes that are not as they were written.
    #[error("it is damaged at byte {at}")]
    Damaged {
        /// Where the frame begins that cannot be read.
        at: u64,
    },
}

/// What a recording begins with.
#[must_use]
pub fn preamble() -> [u8; PREAMBLE_BYTES] {
    let mut bytes = [0; PREAMBLE_BYTES];
    let (magic, version) = bytes.split_at_mut(MAGIC.len());
    magic.copy_from_slice(&MAGIC);
    version.copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes
}

/// A frame as bytes. Fails only for one that is longer than any can be.
pub fn encode(frame: &Frame<'_>) -> Result<Vec<u8>, RecordingError> {
    let unfit = || RecordingError::Damaged { at: 0 };
    let mut bytes = postcard::to_extend(frame, vec![0; HEAD_BYTES]).map_err(|_| unfit())?;
    let payload = bytes.get(HEAD_BYTES..).unwrap_or_default();
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(unfit());
    }
    let length = u32::try_from(payload.len()).map_err(|_| unfit())?;
    let head = [length.to_le_bytes(), crc32fast::hash(payload).to_le_bytes()].concat();
    if let Some(place) = bytes.get_mut(..HEAD_BYTES) {
        place.copy_from_slice(&head);
    }
    Ok(bytes)
}

/// Takes bytes in as they come and gives frames out.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Bytes of the buffer that were given out as frames.
    used: usize,
    /// Bytes taken in and given out before those.
    before: u64,
    begun: bool,
}

impl Decoder {
    /// The next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.before += self.used as u64;
        self.buffer.drain(..self.used);
        self.used = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame; `None` if its bytes are not all here. After an error there is no more to be had.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'static>>, RecordingError> {
        if !self.begun {
            let here = self.buffer.get(..self.buffer.len().min(MAGIC.len())).unwrap_or_default();
            if !MAGIC.starts_with(here) {
                return Err(RecordingError::Foreign);
            }
            let Some([low, high]) = self.buffer.get(MAGIC.len()..PREAMBLE_BYTES) else { return Ok(None) };
            let found = u16::from_le_bytes([*low, *high]);
            if found != FORMAT_VERSION {
                return Err(RecordingError::Version { found });
            }
            self.begun = true;
            self.used = PREAMBLE_BYTES;
        }
        let damaged = RecordingError::Damaged { at: self.before + self.used as u64 };
        let rest = self.buffer.get(self.used..).unwrap_or_default();
        let Some((head, rest)) = rest.split_first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        let [a, b, c, d, e, f, g, h] = *head;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if length > PAYLOAD_BYTES_MAX {
            return Err(damaged);
        }
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        if crc32fast::hash(payload) != u32::from_le_bytes([e, f, g, h]) {
            return Err(damaged);
        }
        match postcard::take_from_bytes(payload) {
            Ok((frame, [])) => {
                self.used += HEAD_BYTES + length;
                Ok(Some(frame))
            }
            _ => Err(damaged),
        }
    }

    /// Bytes of a frame that has only begun; with no byte at all, a preamble is missing.
    #[must_use]
    pub fn left(&self) -> usize {
        self.buffer.len() - self.used
    }
}
