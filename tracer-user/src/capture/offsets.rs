//! Where the running kernel keeps the members that the kernel programs read, resolved from its BTF.

use std::collections::BTreeMap;
use std::path::Path;

use btfparse::{Integer32Value, Offset, Readable, TypeInformation, TypeVariant};
use tracer_common::{DROP_REASONS, Offsets};

use super::CaptureError;

/// The kernel's own description of its types.
pub const VMLINUX_BTF: &str = "/sys/kernel/btf/vmlinux";

/// What the running kernel's types say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Types {
    /// Where members are.
    pub offsets: Offsets,
    /// Reasons for throwing packets away that tell of trouble; empty before Linux 5.17.
    pub drop_reasons: BTreeMap<u32, String>,
}

/// Resolves every offset, or names the first member that is missing.
pub fn resolve(path: &Path) -> Result<Types, CaptureError> {
    let bytes = std::fs::read(path)
        .map_err(|source| CaptureError::NoBtf { path: path.to_owned(), reason: source.to_string() })?;
    resolve_bytes(&bytes).map_err(|reason| CaptureError::NoBtf { path: path.to_owned(), reason })
}

fn resolve_bytes(bytes: &[u8]) -> Result<Types, String> {
    let types = TypeInformation::new(&Bytes(bytes)).map_err(|error| error.message().to_owned())?;
    let at = |name: &str, member: &str| offset(&types, name, member);
    let offsets = Offsets {
        skc_daddr: at("sock_common", "skc_daddr")?,
        skc_rcv_saddr: at("sock_common", "skc_rcv_saddr")?,
        skc_dport: at("sock_common", "skc_dport")?,
        skc_num: at("sock_common", "skc_num")?,
        skc_family: at("sock_common", "skc_family")?,
        skc_net: at("sock_common", "skc_net.net")?,
        skc_v6_daddr: at("sock_common", "skc_v6_daddr")?,
        skc_v6_rcv_saddr: at("sock_common", "skc_v6_rcv_saddr")?,
        skc_flags: at("sock_common", "skc_flags")?,
        net_inum: at("net", "ns.inum")?,
        sk_protocol: at("sock", "sk_protocol")?,
        sk_shutdown: at("sock", "sk_shutdown")?,
        sk_err: at("sock", "sk_err")?,
        inet_sport: at("inet_sock", "inet_sport")?,
        icsk_retransmits: at("inet_connection_sock", "icsk_retransmits")?,
        tcp_bytes_sent: at("tcp_sock", "bytes_sent")?,
        tcp_bytes_received: at("tcp_sock", "bytes_received")?,
        tcp_srtt_us: at("tcp_sock", "srtt_us")?,
        tcp_total_retrans: at("tcp_sock", "total_retrans")?,
        task_group_leader: at("task_struct", "group_leader")?,
        task_start_boottime: at("task_struct", "start_boottime")?,
        task_signal: at("task_struct", "signal")?,
        signal_live: at("signal_struct", "live.counter")?,
        task_flags: at("task_struct", "flags")?,
        task_files: at("task_struct", "files")?,
        files_fdt: at("files_struct", "fdt")?,
        fdt_fd: at("fdtable", "fd")?,
        file_private_data: at("file", "private_data")?,
        socket_sk: at("socket", "sk")?,
        sk_socket: at("sock", "sk_socket")?,
        socket_ino: at("socket_alloc", "vfs_inode.i_ino")?,
        socket_state: at("socket", "state")?,
        skb_head: at("sk_buff", "head")?,
        skb_network_header: at("sk_buff", "network_header")?,
        regs_first: register(&types, "di", 0)?,
        regs_second: register(&types, "si", 1)?,
        regs_returned: register(&types, "ax", 0)?,
        regs_call_first: at("pt_regs", "di").or_else(|_| at("pt_regs", "orig_x0"))?,
    };
    check_layout(&offsets, at("sock_common", "skc_state")?)?;
    Ok(Types { offsets, drop_reasons: drop_reasons(&types) })
}

/// Reasons that are everyday, by their names without `SKB_DROP_REASON_`: what TCP throws away in a healthy connection's
/// life, and what is not TCP's.
const EVERYDAY: &[&str] = &[
    "NOT_SPECIFIED",
    "SOCKET_CLOSE",
    "OTHERHOST",
    "TCP_ABORT_ON_DATA",
    "TCP_CLOSE",
    "TCP_FASTOPEN",
    "TCP_FLAGS",
    "TCP_INVALID_SYN",
    "TCP_OFOMERGE",
    "TCP_OLD_ACK",
    "TCP_OLD_DATA",
    "TCP_OLD_SEQUENCE",
    "TCP_RESET",
    "TCP_TOO_OLD_ACK",
];

/// `enum skb_drop_reason` without what is everyday; its numbers change with every kernel.
fn drop_reasons(types: &TypeInformation) -> BTreeMap<u32, String> {
    let named = types.get().values().find_map(|variant| match variant {
        TypeVariant::Enum(reasons) if reasons.name().as_deref() == Some("skb_drop_reason") => Some(reasons),
        _ => None,
    });
    let all = named.into_iter().flat_map(|reasons| reasons.named_value_list());
    all.filter_map(|reason| {
        let number = match reason.value {
            Integer32Value::Unsigned(number) => number,
            Integer32Value::Signed(number) => u32::try_from(number).ok()?,
        };
        let name = reason.name.strip_prefix("SKB_DROP_REASON_")?;
        let fits = usize::try_from(number).is_ok_and(|number| number < DROP_REASONS);
        (fits && !EVERYDAY.contains(&name)).then(|| (number, name.to_owned()))
    })
    .collect()
}

/// A register in `struct pt_regs`: by its name on x86-64, by its number on arm64, whose registers are an array of 64-bit
/// values at the start (arch/arm64/include/asm/ptrace.h).
fn register(types: &TypeInformation, x86: &str, arm: u32) -> Result<u32, String> {
    offset(types, "pt_regs", x86).or_else(|_| offset(types, "pt_regs", "orig_x0").map(|_| 8 * arm))
}

/// The kernel side reads ports and family in one go, and the start of a socket in another: see `sock::Ports` and
/// `sock::Head` in tracer-ebpf.
fn check_layout(offsets: &Offsets, skc_state: u32) -> Result<(), String> {
    const HEAD_BYTES: u32 = 104;
    let ends = [
        offsets.skc_dport + 8,
        offsets.skc_daddr + 4,
        offsets.skc_rcv_saddr + 4,
        offsets.skc_net + 8,
        offsets.skc_v6_daddr + 16,
        offsets.skc_v6_rcv_saddr + 16,
    ];
    if ends.iter().any(|end| *end > HEAD_BYTES) {
        return Err("struct sock_common is larger than any known".to_owned());
    }
    let together = offsets.skc_num == offsets.skc_dport + 2
        && offsets.skc_family == offsets.skc_dport + 4
        && skc_state == offsets.skc_dport + 6;
    if together { Ok(()) } else { Err("struct sock_common has its ports and family apart".to_owned()) }
}

/// Byte offset of `member` (a dotted path) in `struct name`. A name may also belong to a function or a variable, so the
/// kind is checked.
fn offset(types: &TypeInformation, name: &str, member: &str) -> Result<u32, String> {
    let named = |id: u32| types.name_of(id).is_some_and(|text| text == name);
    let first = types.id_of(name).filter(|id| matches!(types.from_id(*id), Some(TypeVariant::Struct(_))));
    let id = first
        .or_else(|| {
            let structs = types.get().iter().filter(|(_, variant)| matches!(variant, TypeVariant::Struct(_)));
            structs.map(|(id, _)| *id).find(|id| named(*id))
        })
        .ok_or_else(|| format!("it has no struct {name}"))?;
    match types.offset_of(id, member) {
        Ok((_, Offset::ByteOffset(offset))) => Ok(offset),
        Ok(_) => Err(format!("struct {name}: {member} is a bit field")),
        Err(_) => Err(format!("struct {name} has no member {member}")),
    }
}

struct Bytes<'a>(&'a [u8]);

impl Readable for Bytes<'_> {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> btfparse::Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let part = start.checked_add(buffer.len()).and_then(|end| self.0.get(start..end));
        match part {
            Some(part) => {
                buffer.copy_from_slice(part);
                Ok(())
            }
            None => Err(btfparse::Error::new(btfparse::ErrorKind::InvalidOffset, "beyond the end of the file")),
        }
    }
}

#[cfg(test)]
mod tests;
