//! Hash maps of the kernel side, each read in a few calls.

use std::os::fd::{AsFd, AsRawFd};

use aya::maps::{HashMap, IterableMap, MapData};
use aya::{Ebpf, Pod};
use aya_obj::generated::{bpf_attr, bpf_cmd};

use super::CaptureError;

/// Entries fetched by one call. More than a hash bucket ever holds, which is what the kernel asks for.
const BATCH: usize = 1024;

/// A map by its name.
pub struct Batched<K: Pod, V: Pod> {
    name: &'static str,
    map: HashMap<MapData, K, V>,
    keys: Vec<K>,
    values: Vec<V>,
}

impl<K: Pod + Default, V: Pod + Default> Batched<K, V> {
    pub(super) fn new(ebpf: &mut Ebpf, name: &'static str) -> Result<Self, CaptureError> {
        let error = |reason: String| CaptureError::Map { map: name, reason };
        let map = ebpf.take_map(name).ok_or_else(|| error("missing".to_owned()))?;
        let map = HashMap::try_from(map).map_err(|reason| error(reason.to_string()))?;
        Ok(Self { name, map, keys: vec![K::default(); BATCH], values: vec![V::default(); BATCH] })
    }

    /// One entry; `None` if it is not there, or cannot be read.
    pub(super) fn get(&self, key: &K) -> Option<V> {
        self.map.get(key, 0).ok()
    }

    /// Takes an entry out. One that is not there is as good as taken out.
    pub(super) fn remove(&mut self, key: &K) {
        let _ = self.map.remove(key);
    }

    /// Hands every entry to `each`. Entries that come or go meanwhile may be missed or told twice.
    pub(super) fn each(&mut self, mut each: impl FnMut(K, &V)) -> Result<(), CaptureError> {
        // Where the kernel stopped; it keeps the number of a bucket there.
        let mut position = [0u64; 2];
        let mut first = true;
        loop {
            let (count, more) = match self.batch(&mut position, first) {
                Ok(fetched) => fetched,
                Err(error) => return Err(CaptureError::Map { map: self.name, reason: error.to_string() }),
            };
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
        attr.batch.map_fd = u32::try_from(self.map.map().fd().as_fd().as_raw_fd()).unwrap_or(u32::MAX);
        // SAFETY: the kernel writes at most `count` keys and values, both vectors have that many of the map's sizes, which
        // were compared when it was taken, any bytes are a value of a `Pod`, and all memory outlives the call.
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
