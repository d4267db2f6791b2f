//! The reading end of the ring buffer.

use std::time::Duration;

use aya::Ebpf;
use aya::maps::{MapData, RingBuf};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracer_common::WAKE_INTERVAL_NS;
use tracer_core::decode::{self, DecodeError};
use tracer_core::event::Event;

use super::CaptureError;

/// After a wake-up the kernel side stays silent for this long: look again then, until a look finds nothing.
pub const WAKE_INTERVAL: Duration = Duration::from_nanos(WAKE_INTERVAL_NS);

/// The ring buffer with its wake-ups.
pub struct Ring {
    fd: AsyncFd<RingBuf<MapData>>,
}

impl Ring {
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self, CaptureError> {
        let error = |reason: String| CaptureError::Map { map: "EVENTS", reason };
        let map = ebpf.take_map("EVENTS").ok_or_else(|| error("already taken".to_owned()))?;
        let ring = RingBuf::try_from(map).map_err(|reason| error(reason.to_string()))?;
        // SAFETY: the ring owns its descriptor for as long as it lives, and `AsyncFd` owns the ring.
        let fd = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        let fd = fd.map_err(|reason| error(reason.to_string()))?;
        Ok(Self { fd })
    }

    /// Waits for a wake-up from the kernel side.
    pub async fn readable(&mut self) -> std::io::Result<()> {
        self.fd.readable_mut().await.map(|mut guard| guard.clear_ready())
    }

    /// Hands up to `most` waiting records, decoded, to `each`; returns how many there were.
    pub fn drain(&mut self, most: usize, mut each: impl FnMut(Result<Event, DecodeError>)) -> usize {
        self.drain_raw(most, |record| each(decode::decode(record)))
    }

    /// The same with the records as the kernel side wrote them.
    pub fn drain_raw(&mut self, most: usize, mut each: impl FnMut(&[u8])) -> usize {
        let ring = self.fd.get_mut();
        for seen in 0..most {
            match ring.next() {
                Some(record) => each(&record),
                None => return seen,
            }
        }
        most
    }
}
