//! The conversation with `NETLINK_SOCK_DIAG`: one dump of a network namespace. Knows sockets and retries; the bytes are [`super::inet_diag`]'s.

use std::collections::HashSet;
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recvmsg, send, setsockopt, socket,
    sockopt::ReceiveTimeout,
};
use nix::sys::time::TimeVal;

use tracer_core::event::Tuple;

use super::InventoryError;
use super::inet_diag::{self, DiagRow, WireError};
use super::place::Place;
use super::port_filter::PortFilter;

/// Most sockets one look takes: the tracker's bound on live sockets.
pub const MAX_SOCKETS: usize = 262_144;

/// The kernel fills datagrams of up to 32 KiB (`netlink_recvmsg`: `max_recvmsg_len`) if the reader once offered as
/// much; the rest is room for kernels that fill more.
pub(super) const BUFFER_BYTES: usize = 256 * 1024;

/// The answer about one socket: `inet_sk_attr_size`, generously.
const ANSWER_BYTES: usize = 8 * 1024;

/// How often a dump is begun again when the table changed under it.
const ATTEMPTS: u32 = 4;

/// The kernel answers a dump from the reader's own context; only a fault lets it wait this long.
const ANSWER_TIMEOUT_S: i64 = 5;

/// Every listener and every other full socket that passes the filter and that `keep` accepts, of both families, each
/// life once; at most `most`. The kernel tells of listeners first. Rows of a broken-off attempt are kept: they were true
/// when they were read, and the next attempt brings those that were missed. `buffer` is of [`BUFFER_BYTES`].
pub(super) fn dump(
    place: &Place<'_>,
    filter: &PortFilter,
    buffer: &mut [u8],
    most: usize,
    keep: impl Fn(&DiagRow) -> bool,
) -> Result<Vec<DiagRow>, InventoryError> {
    let mut rows = Vec::new();
    // A socket can appear twice when its hash bucket changes between two datagrams.
    let mut seen = HashSet::new();
    until_whole(|attempt| {
        // A fresh socket for each attempt: no leftovers of a dump that failed half way. None is kept from look to look:
        // it would keep its network namespace in existence.
        let diag = open(place, SockProtocol::NetlinkSockDiag)?;
        ask(&diag, &inet_diag::request(attempt, filter.bytecode()))?;
        receive(&diag, attempt, buffer, &mut |row| {
            if keep(&row) && seen.insert(row.cookie) {
                rows.push(row);
            }
            rows.len() <= most
        })
    })
    .map_err(name_what_is_missing)?;
    Ok(rows)
}

/// Without inet_diag a dump is not supported, without tcp_diag there is no such protocol.
fn name_what_is_missing(error: InventoryError) -> InventoryError {
    match error {
        InventoryError::Wire(WireError::Kernel(errno @ (libc::EOPNOTSUPP | libc::ENOENT))) => {
            InventoryError::NoSocketDiag { source: std::io::Error::from_raw_os_error(errno) }
        }
        other => other,
    }
}

/// One request about one socket that the kernel acknowledges, or answers with an error, in the calling thread's network
/// namespace.
pub(crate) fn command(request: &[u8], sequence: u32) -> Result<(), InventoryError> {
    let diag = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag);
    let diag = set_up(diag)?;
    ask(&diag, request)?;
    let mut buffer = [0; 4_096];
    let len = datagram(&diag, &mut buffer)?;
    match inet_diag::parse(buffer.get(..len).unwrap_or_default(), sequence, |_| {}) {
        // An error that is none is the acknowledgement.
        Err(WireError::Kernel(0)) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Err(WireError::Truncated { what: "the acknowledgement", need: 1, have: 0 }.into()),
    }
}

/// One socket after the other, by its ends and its cookie; those that are not there are left out. An answer that is an
/// error ends it.
pub(super) fn ask_each(
    place: &Place<'_>,
    asked: &[(Tuple, u64)],
    mut row: impl FnMut(&Tuple, DiagRow),
) -> Result<(), InventoryError> {
    let diag = open(place, SockProtocol::NetlinkSockDiag)?;
    let mut buffer = vec![0; ANSWER_BYTES];
    for (sequence, (tuple, cookie)) in (1..).zip(asked) {
        ask(&diag, &inet_diag::request_one(sequence, tuple, *cookie))?;
        let len = datagram(&diag, &mut buffer)?;
        match inet_diag::parse(buffer.get(..len).unwrap_or_default(), sequence, |found| row(tuple, found)) {
            Ok(_) | Err(WireError::Kernel(libc::ENOENT | libc::ESTALE)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Begins a dump again while the kernel says that the table changed under it.
fn until_whole(mut dump: impl FnMut(u32) -> Result<bool, InventoryError>) -> Result<(), InventoryError> {
    for attempt in 1..=ATTEMPTS {
        if !dump(attempt)? {
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

/// A socket that talks to the kernel and nobody else: once connected to port id 0, the kernel refuses datagrams of other
/// processes to it (`netlink_getsockbyportid`).
pub(super) fn open(place: &Place<'_>, protocol: SockProtocol) -> Result<OwnedFd, InventoryError> {
    set_up(place.socket(protocol))
}

fn set_up(opened: Result<OwnedFd, Errno>) -> Result<OwnedFd, InventoryError> {
    let failed = |step| move |errno: Errno| InventoryError::Netlink { step, source: errno.into() };
    let diag = opened.map_err(failed("open a netlink socket"))?;
    setsockopt(&diag, ReceiveTimeout, &TimeVal::new(ANSWER_TIMEOUT_S, 0)).map_err(failed("set its time-out"))?;
    connect(diag.as_raw_fd(), &NetlinkAddr::new(0, 0)).map_err(failed("connect it to the kernel"))?;
    Ok(diag)
}

pub(super) fn ask(diag: &OwnedFd, request: &[u8]) -> Result<(), InventoryError> {
    let sent = again(|| send(diag.as_raw_fd(), request, MsgFlags::empty()))
        .map_err(|errno| InventoryError::Netlink { step: "send a sock_diag request", source: errno.into() })?;
    if sent == request.len() { Ok(()) } else { Err(InventoryError::ShortRequest { sent, of: request.len() }) }
}

/// The length of the next datagram.
pub(super) fn datagram(diag: &OwnedFd, buffer: &mut [u8]) -> Result<usize, InventoryError> {
    let have = buffer.len();
    let mut parts = [IoSliceMut::new(buffer)];
    let receive = || {
        let message = recvmsg::<()>(diag.as_raw_fd(), &mut parts, None, MsgFlags::empty())?;
        Ok((message.bytes, message.flags))
    };
    let (len, flags) = again(receive)
        .map_err(|errno| InventoryError::Netlink { step: "read the socket table", source: errno.into() })?;
    if flags.contains(MsgFlags::MSG_TRUNC) {
        return Err(WireError::Truncated { what: "a datagram", need: have + 1, have }.into());
    }
    if len == 0 {
        return Err(WireError::Truncated { what: "the dump", need: 1, have: 0 }.into());
    }
    Ok(len)
}

/// Repeats a call that a signal interrupted.
pub(crate) fn again<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::socketpair;

    use super::*;

    /// What `receive` makes of these datagrams, the last one followed by the end of the stream.
    fn received(datagrams: &[&[u8]]) -> Result<bool, InventoryError> {
        let (kernel, reader) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        for datagram in datagrams {
            assert_eq!(send(kernel.as_raw_fd(), datagram, MsgFlags::empty()).unwrap(), datagram.len());
        }
        drop(kernel);
        receive(&reader, 1, &mut [0; 64], &mut |_| true)
    }

    /// A netlink message without a body.
    fn message(kind: i32, flags: i32) -> Vec<u8> {
        let word = |value: i32| u16::try_from(value).unwrap().to_ne_bytes();
        [&16u32.to_ne_bytes()[..], &word(kind), &word(flags), &1u32.to_ne_bytes(), &[0; 4]].concat()
    }

    #[test]
    fn a_dump_ends_with_its_last_message_and_remembers_an_interruption() {
        let (done, noop) = (message(libc::NLMSG_DONE, 0), message(libc::NLMSG_NOOP, 0));
        let interrupted = message(libc::NLMSG_NOOP, libc::NLM_F_DUMP_INTR);
        assert!(!received(&[&noop, &done]).unwrap());
        assert!(received(&[&noop, &interrupted, &noop, &done]).unwrap());
    }

    #[test]
    fn missing_modules_are_named_with_what_to_do() {
        for errno in [libc::EOPNOTSUPP, libc::ENOENT] {
            let length = 20_u32.to_ne_bytes();
            let answer = [&length[..], &message(libc::NLMSG_ERROR, 0)[4..], &(-errno).to_ne_bytes()].concat();
            let said = name_what_is_missing(received(&[&answer]).unwrap_err()).to_string();
            assert!(said.contains("run `modprobe tcp_diag`"), "{said}");
        }
        let other = name_what_is_missing(WireError::Kernel(libc::EPERM).into());
        assert!(matches!(other, InventoryError::Wire(WireError::Kernel(libc::EPERM))), "{other}");
    }

    #[test]
    fn a_dump_without_an_end_is_an_error() {
        let truncated = |outcome: Result<bool, InventoryError>, of: &str| match outcome {
            Err(InventoryError::Wire(WireError::Truncated { what, .. })) => assert_eq!(what, of),
            other => panic!("{other:?}"),
        };
        truncated(received(&[]), "the dump");
        truncated(received(&[&message(libc::NLMSG_NOOP, 0)]), "the dump");
        // Longer than the buffer.
        truncated(received(&[&message(libc::NLMSG_NOOP, 0).repeat(5)]), "a datagram");
        truncated(received(&[&message(libc::NLMSG_DONE, 0)[..15]]), "a netlink header");
    }

    #[test]
    fn an_interrupted_dump_is_begun_again_three_times() {
        let run = |interruptions: u32| {
            let mut attempts = 0;
            let outcome = until_whole(|attempt| {
                attempts += 1;
                assert_eq!(attempt, attempts);
                Ok(attempt <= interruptions)
            });
            (attempts, outcome.is_ok())
        };
        assert_eq!((run(0), run(3), run(4), run(9)), ((1, true), (4, true), (4, false), (4, false)));
        let refused = until_whole(|_| Err(WireError::Overrun.into()));
        assert!(matches!(refused, Err(InventoryError::Wire(WireError::Overrun))));
    }
}
