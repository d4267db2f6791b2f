//! Raw tracepoint `kfree_skb`: packets of watched ports that this host threw away, with the kernel's reason (since
//! Linux 5.17). Most reasons are everyday; user space says which ones are of interest, and those are rare.

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use tracer_common::{DropRecord, counter, kind};

use super::now_ns;
use crate::emit::emit;
use crate::filter;
use crate::maps::{DROPPED, count, is_drop_reason, offset};
use crate::sock::{read, words};

/// At most one record in this time and CPU; more are counted.
const REPORT_INTERVAL_NS: u64 = 1_000_000;
const IPPROTO_TCP: u8 = 6;

#[raw_tracepoint(tracepoint = "kfree_skb")]
pub fn discard(ctx: RawTracePointContext) -> i32 {
    let reason: u32 = ctx.arg(2);
    if is_drop_reason(reason) {
        let _ = dropped(ctx.arg(0), reason);
    }
    0
}

#[inline(always)]
fn dropped(skb: u64, reason: u32) -> Option<()> {
    let head: u64 = read(skb, offset!(skb_head))?;
    let network: u16 = read(skb, offset!(skb_network_header))?;
    let ip = head + u64::from(network);
    let mut record = DropRecord { reason, ..EMPTY };
    let first: u8 = read(ip, 0)?;
    let transport = match first >> 4 {
        4 if read::<u8>(ip, 9)? == IPPROTO_TCP => {
            let addresses: u64 = read(ip, 12)?;
            record.source = words([addresses & 0xffff_ffff, 0]);
            record.destination = words([addresses >> 32, 0]);
            record.family = 4;
            usize::from(first & 15) * 4
        }
        6 if read::<u8>(ip, 6)? == IPPROTO_TCP => {
            record.source = words(read(ip, 8)?);
            record.destination = words(read(ip, 24)?);
            record.family = 6;
            40
        }
        _ => return None,
    };
    let ports: u32 = read(ip, transport)?;
    record.source_port = u16::from_be(ports as u16);
    record.destination_port = u16::from_be((ports >> 16) as u16);
    if !filter::watched(record.source_port) && !filter::watched(record.destination_port) {
        return None;
    }
    let at_ns = now_ns();
    let last = DROPPED.get_ptr_mut(0)?;
    // SAFETY: this CPU's slot of a live map; a nested run tells one packet more.
    unsafe {
        if at_ns.wrapping_sub(*last) < REPORT_INTERVAL_NS {
            count(counter::DROPS_UNTOLD);
            return None;
        }
        *last = at_ns;
    }
    emit(kind::DROP, at_ns, |header, slot| {
        slot.write(DropRecord { header, ..record });
    });
    Some(())
}

const EMPTY: DropRecord = DropRecord {
    header: tracer_common::RecordHeader { kind: 0, version: 0, len: 0, pad: 0, at_ns: 0 },
    source: [0; 16],
    destination: [0; 16],
    source_port: 0,
    destination_port: 0,
    family: 0,
    pad: [0; 3],
    reason: 0,
    pad2: 0,
};
