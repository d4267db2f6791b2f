//! The conversation with `NETLINK_SOCK_DIAG`: one dump for each address family, in the calling thread's network
//! namespace. Knows sockets and retries; the bytes are [`super::inet_diag`]'s.

use std::collections::HashSet;
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recvmsg, sendto, setsockopt, socket,
    sockopt::ReceiveTimeout,
};
use nix::sys::time::TimeVal;

use super::InventoryError;
use super::inet_diag::{self, DiagRow, WireError};
use super::port_filter::PortFilter;

/// Most sockets one look takes: the tracker's bound on live sockets.
pub const MAX_SOCKETS: usize = 262_144;

/// The kernel fills datagrams of up to 32 KiB (`netlink_recvmsg`: `max_recvmsg_len`) if the reader once offered as
/// much; the rest is room for kernels that fill more.
const BUFFER_BYTES: usize = 256 * 1024;

/// How often a dump is begun again when the table changed under it.
const ATTEMPTS: u32 = 4;

/// The kernel answers a dump from the reader's own context; only a fault lets it wait this long.
const ANSWER_TIMEOUT_S: i64 = 5;

/// Every watched full socket of both families, each life once.
pub(super) fn dump(filter: &PortFilter, keep: impl Fn(&DiagRow) -> bool) -> Result<Vec<DiagRow>, InventoryError> {
    let mut buffer = vec![0u8; BUFFER_BYTES];
    let mut rows = Vec::new();
    // A socket can appear twice when its hash bucket changes between two datagrams.
    let mut seen = HashSet::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        family_rows(u8::try_from(family).unwrap_or(0), filter, &mut buffer, |row| {
            if keep(&row) && seen.insert(row.cookie) {
                rows.push(row);
            }
            rows.len() <= MAX_SOCKETS
        })?;
    }
    Ok(rows)
}

/// One family's dump, begun again while the kernel says that the table changed under it. Rows of a broken-off attempt
/// are kept: they were true when they were read, and the next attempt brings those that were missed.
fn family_rows(
    family: u8,
    filter: &PortFilter,
    buffer: &mut [u8],
    mut row: impl FnMut(DiagRow) -> bool,
) -> Result<(), InventoryError> {
    for attempt in 1..=ATTEMPTS {
        // A fresh socket for each attempt: no leftovers of a dump that failed half way.
        let diag = open()?;
        let request = inet_diag::request(family, attempt, filter);
        send(&diag, &request)?;
        if !receive(&diag, attempt, buffer, &mut row)? {
            return Ok(());
        }
    }
    Err(InventoryError::Interrupted { attempts: ATTEMPTS })
}

/// Reads to the end of the dump; whether it was interrupted.
fn receive(
    diag: &OwnedFd,
    sequence: u32,
    buffer: &mut [u8],
    row: &mut impl FnMut(DiagRow) -> bool,
) -> Result<bool, InventoryError> {
    let mut interrupted = false;
    let mut room = true;
    loop {
        let len = datagram(diag, buffer)?;
        let bytes = buffer.get(..len).unwrap_or_default();
        let progress = inet_diag::parse(bytes, sequence, |found| room = room && row(found))?;
        if !room {
            return Err(InventoryError::TooManySockets { most: MAX_SOCKETS });
        }
        interrupted |= progress.interrupted;
        if progress.done {
            return Ok(interrupted);
        }
    }
}

fn open() -> Result<OwnedFd, InventoryError> {
    let failed = |step| move |errno: Errno| InventoryError::Netlink { step, source: errno.into() };
    let diag = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)
        .map_err(failed("open the sock_diag socket"))?;
    setsockopt(&diag, ReceiveTimeout, &TimeVal::new(ANSWER_TIMEOUT_S, 0)).map_err(failed("set its time-out"))?;
    Ok(diag)
}

fn send(diag: &OwnedFd, request: &[u8]) -> Result<(), InventoryError> {
    let sent = again(|| sendto(diag.as_raw_fd(), request, &NetlinkAddr::new(0, 0), MsgFlags::empty()))
        .map_err(|errno| InventoryError::Netlink { step: "ask for the socket table", source: errno.into() })?;
    if sent == request.len() { Ok(()) } else { Err(InventoryError::ShortRequest { sent, of: request.len() }) }
}

/// The length of the next datagram from the kernel.
fn datagram(diag: &OwnedFd, buffer: &mut [u8]) -> Result<usize, InventoryError> {
    loop {
        let mut parts = [IoSliceMut::new(buffer)];
        let message = again(|| {
            recvmsg::<NetlinkAddr>(diag.as_raw_fd(), &mut parts, None, MsgFlags::empty())
                .map(|message| (message.bytes, message.flags, message.address.map_or(0, |address| address.pid())))
        })
        .map_err(|errno| InventoryError::Netlink { step: "read the socket table", source: errno.into() })?;
        let (len, flags, sender) = message;
        if sender != 0 {
            // Any process may send to a netlink socket; only the kernel has port id 0.
            continue;
        }
        if flags.contains(MsgFlags::MSG_TRUNC) {
            let have = buffer.len();
            return Err(WireError::Truncated { what: "a datagram", need: have + 1, have }.into());
        }
        if len == 0 {
            return Err(WireError::Truncated { what: "the dump", need: 1, have: 0 }.into());
        }
        return Ok(len);
    }
}

/// Repeats a call that a signal interrupted.
fn again<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            done => return done,
        }
    }
}
