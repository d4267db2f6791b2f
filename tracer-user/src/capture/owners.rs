//! What the kernel side remembers of living sockets, read from its map in a few calls: most openings and changes of
//! state are not told by a record, but found here.

use std::os::fd::{AsFd, AsRawFd};

use aya::Ebpf;
use aya::maps::MapData;
use aya_obj::generated::{bpf_attr, bpf_cmd};
use tracer_common::Owner;

use super::CaptureError;

/// Entries fetched by one call. More than a hash bucket ever holds, which is what the kernel asks for.
const BATCH: usize = 1024;

/// The owner map.
pub struct Owners {
    map: MapData,
    keys: Vec<u64>,
    values: Vec<Owner>,
}

impl Owners {
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self, CaptureError> {
        let map = ebpf.take_map("OWNERS").ok_or_else(|| error("missing".to_owned()))?;
        let aya::maps::Map::HashMap(map) = map else { return Err(error("not a hash map".to_owned())) };
        Ok(Self { map, keys: vec![0; BATCH], values: vec![Owner::default(); BATCH] })
    }

    /// Hands every entry to `each`. Entries that come or go meanwhile may be missed or told twice.
    pub(super) fn each(&mut self, mut each: impl FnMut(u64, &Owner)) -> Result<(), CaptureError> {
        // Where the kernel stopped; it keeps the number of a bucket there.
        let mut position = [0u64; 2];
        let mut first = true;
        loop {
            let (count, more) = self.batch(&mut position, first).map_err(|reason| error(reason.to_string()))?;
            for (key, value) in self.keys.iter().zip(&self.values).take(count) {
                each(*key, value);
            }
            if !more {
                return Ok(());
            }
            first = false;
        }
    }

    /// Fetches the next entries; how many there are, and whether there are more.
    fn batch(&mut self, position: &mut [u64; 2], first: bool) -> std::io::Result<(usize, bool)> {
        let mut next = [0u64; 2];
        // SAFETY: a plain C union of integers, for which all-zero bytes are a value.
        let mut attr = unsafe { std::mem::zeroed::<bpf_attr>() };
        attr.batch.in_batch = if first { 0 } else { position.as_ptr() as u64 };
        attr.batch.out_batch = next.as_mut_ptr() as u64;
        attr.batch.keys = self.keys.as_mut_ptr() as u64;
        attr.batch.values = self.values.as_mut_ptr() as u64;
        attr.batch.count = u32::try_from(BATCH).unwrap_or(0);
        attr.batch.map_fd = u32::try_from(self.map.fd().as_fd().as_raw_fd()).unwrap_or(u32::MAX);
        // SAFETY: the kernel writes at most `count` keys and values, both vectors have that many of the map's sizes, and
        // all memory outlives the call.
        let result = unsafe {
            libc::syscall(libc::SYS_bpf, bpf_cmd::BPF_MAP_LOOKUP_BATCH, &raw mut attr, size_of::<bpf_attr>())
        };
        *position = next;
        // SAFETY: `batch` is the variant that the call used.
        let count = usize::try_from(unsafe { attr.batch.count }).unwrap_or(0).min(BATCH);
        match result {
            0 => Ok((count, true)),
            _ => match std::io::Error::last_os_error() {
                // That was the last bucket.
                error if error.raw_os_error() == Some(libc::ENOENT) => Ok((count, false)),
                error => Err(error),
            },
        }
    }
}

fn error(reason: String) -> CaptureError {
    CaptureError::Map { map: "OWNERS", reason }
}
