//! Records as the kernel side wrote them, for the tests and the benchmark. It cuts the file apart and knows no record.

/// Recorded on Linux 6.18, x86-64, while `fixtures/events.py` ran, in a network namespace of its own: one process that
/// is both ends; closes by the client, by the server, by reset; a v4-mapped, an IPv6 and a refused connect; two
/// requests that are only counted; and a child that connects, starts another program and ends.
const RECORDED: &[u8] = include_bytes!("../fixtures/events-6.18-x86_64.bin");

/// The recorded records, in their order.
pub fn records() -> Vec<&'static [u8]> {
    let mut rest = RECORDED;
    let mut all = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let (record, after) = after.split_at(u32::from_le_bytes(*length) as usize);
        all.push(record);
        rest = after;
    }
    all
}
