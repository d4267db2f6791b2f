//! Recordings: every frame survives its bytes, bytes that are cut off or flipped do no harm, and a replay says what the
//! recorded tracker said, to the byte, each time.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed test says so")]

mod codec;
mod host;
mod replay;

use host::Recorded;
use tracer_core::recording::{Decoder, Frame, RecordingError, encode, preamble};

/// A busy quarter of an hour, with every kind of frame in it.
fn some_frames() -> Vec<Frame<'static>> {
    let mut frames = Vec::new();
    let mut host = Recorded::begin(4, 5, &mut |frame| frames.push(frame));
    host.pass(300, 20, &mut |frame| frames.push(frame));
    host.exit(2, &mut |frame| frames.push(frame));
    host.look(&mut |frame| frames.push(frame));
    host.pass(600, 20, &mut |frame| frames.push(frame));
    frames.push(Frame::End { at: host.now });
    frames
}

fn bytes_of(frames: &[Frame<'_>]) -> Vec<u8> {
    let mut bytes = preamble().to_vec();
    for frame in frames {
        bytes.extend(encode(frame).unwrap());
    }
    bytes
}

/// The frames of bytes that come in pieces, and how it ended.
fn decode(bytes: &[u8], piece: usize) -> (Vec<Frame<'static>>, Result<usize, RecordingError>) {
    let (mut decoder, mut frames) = (Decoder::default(), Vec::new());
    for piece in bytes.chunks(piece) {
        decoder.push(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
    }
    (frames, Ok(decoder.left()))
}
