//! What may be opened inside another network namespace, and how that is asked for: one packet with the namespace's file
//! and a few numbers; the answer has an errno for each number, and the files that could be opened.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockProtocol, recvmsg, sendmsg};

use crate::inventory::again;

/// Files below /proc that tell of the network namespace of whoever opens them. Nothing else is opened.
pub(in crate::inventory) const FILES: [&str; 13] = [
    "thread-self/net/sockstat6",
    "thread-self/net/sockstat",
    "thread-self/net/route",
    "thread-self/net/ipv6_route",
    "thread-self/net/stat/nf_conntrack",
    "sys/net/ipv4/ip_local_port_range",
    "sys/net/ipv4/tcp_keepalive_time",
    "sys/net/ipv4/tcp_keepalive_intvl",
    "sys/net/ipv4/tcp_keepalive_probes",
    "sys/net/ipv4/tcp_retries2",
    "sys/net/netfilter/nf_conntrack_count",
    "sys/net/netfilter/nf_conntrack_max",
    "sys/net/netfilter/nf_conntrack_tcp_timeout_established",
];

/// Netlink sockets that are made. To make one is nothing: the kernel asks what its user may do at each request.
pub(in crate::inventory) const SOCKETS: [SockProtocol; 3] =
    [SockProtocol::NetlinkSockDiag, SockProtocol::NetlinkNetFilter, SockProtocol::NetlinkRoute];

/// Most things of one request.
pub(super) const THINGS_MAX: usize = FILES.len() + SOCKETS.len();
/// Bytes of the longest answer: an errno for the entering, and one for each thing.
const ANSWER_BYTES: usize = (1 + THINGS_MAX) * 4;

/// Something that may be opened: the files, then the sockets.
pub(in crate::inventory) type Thing = u8;

/// The number of a file below /proc.
pub(in crate::inventory) fn file(path: &str) -> Option<Thing> {
    FILES.iter().position(|known| *known == path).and_then(|index| Thing::try_from(index).ok())
}

/// Those of several files.
pub(in crate::inventory) fn files(paths: &[&str]) -> Vec<Thing> {
    paths.iter().filter_map(|path| file(path)).collect()
}

/// The number of a socket.
pub(in crate::inventory) fn socket(protocol: SockProtocol) -> Option<Thing> {
    let index = SOCKETS.iter().position(|known| *known == protocol)?;
    Thing::try_from(FILES.len() + index).ok()
}

/// What came of a request: why the namespace could not be entered, or what came of each thing.
pub(in crate::inventory) type Opened = Result<Vec<Result<OwnedFd, Errno>>, Errno>;

/// Asks.
pub(super) fn send_request(to: &OwnedFd, namespace: &impl AsFd, things: &[Thing]) -> io::Result<()> {
    send(to, things, &[namespace.as_fd().as_raw_fd()])
}

/// The next request; `None` at the end, or if it makes no sense.
pub(super) fn receive_request(from: &OwnedFd) -> Option<(OwnedFd, Vec<Thing>)> {
    let mut bytes = [0; THINGS_MAX + 1];
    let (len, mut fds) = receive(from, &mut bytes).ok()?;
    let things = bytes.get(..len)?;
    let is_one = fds.len() == 1 && (1..=THINGS_MAX).contains(&len);
    is_one.then(|| fds.pop().map(|namespace| (namespace, things.to_vec()))).flatten()
}

/// Answers.
pub(super) fn send_answer(to: &OwnedFd, opened: &Opened) -> io::Result<()> {
    let code = |outcome: Result<(), Errno>| outcome.err().map_or(0, |errno| errno as i32).to_ne_bytes();
    let things = opened.as_deref().unwrap_or_default();
    let entered = opened.as_ref().map(drop).map_err(|errno| *errno);
    let codes = things.iter().map(|thing| thing.as_ref().map(drop).map_err(|errno| *errno));
    let bytes: Vec<u8> = std::iter::once(entered).chain(codes).flat_map(code).collect();
    let fds: Vec<RawFd> = things.iter().filter_map(|thing| Some(thing.as_ref().ok()?.as_raw_fd())).collect();
    send(to, &bytes, &fds)
}

/// The answer about so many things.
pub(super) fn receive_answer(from: &OwnedFd, things: usize) -> io::Result<Opened> {
    let mut bytes = [0; ANSWER_BYTES];
    let (len, fds) = receive(from, &mut bytes)?;
    let words = bytes.get(..len).unwrap_or_default().as_chunks::<4>().0;
    let mut codes = words.iter().map(|word| i32::from_ne_bytes(*word));
    let nonsense = || io::Error::new(io::ErrorKind::InvalidData, "it does not answer, or makes no sense");
    match codes.next().ok_or_else(nonsense)? {
        0 => {}
        errno => return Ok(Err(Errno::from_raw(errno))),
    }
    let mut fds = fds.into_iter();
    let one = |code| if code == 0 { fds.next().map(Ok) } else { Some(Err(Errno::from_raw(code))) };
    let opened: Option<Vec<_>> = codes.map(one).collect();
    opened.filter(|opened| opened.len() == things).map(Ok).ok_or_else(nonsense)
}

fn send(to: &OwnedFd, bytes: &[u8], fds: &[RawFd]) -> io::Result<()> {
    let rights = [ControlMessage::ScmRights(fds)];
    let with = if fds.is_empty() { &[][..] } else { &rights };
    let sent = again(|| sendmsg::<()>(to.as_raw_fd(), &[IoSlice::new(bytes)], with, MsgFlags::MSG_NOSIGNAL, None))?;
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// A packet and the descriptors that came with it. More bytes than there is room for are an error.
fn receive(from: &OwnedFd, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut control = nix::cmsg_space!([RawFd; THINGS_MAX]);
    let mut parts = [IoSliceMut::new(bytes)];
    let (len, flags, fds) = loop {
        match recvmsg::<()>(from.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
            Ok(received) => break (received.bytes, received.flags, descriptors(received.cmsgs()?)),
        }
    };
    match flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
        true => Err(io::ErrorKind::InvalidData.into()),
        false => Ok((len, fds)),
    }
}

fn descriptors(messages: nix::sys::socket::CmsgIterator<'_>) -> Vec<OwnedFd> {
    let received = messages.flat_map(|message| match message {
        ControlMessageOwned::ScmRights(fds) => fds,
        _ => Vec::new(),
    });
    // SAFETY: the kernel has just made these descriptors for us; each is owned once.
    received.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap()
    }

    #[test]
    fn requests_and_answers_arrive_as_they_were_sent() {
        let (ours, theirs) = pair();
        let file = File::open("/dev/null").unwrap();
        send_request(&ours, &file, &[3, 1]).unwrap();
        assert_eq!(receive_request(&theirs).unwrap().1, [3, 1]);
        send_answer(&theirs, &Ok(vec![Err(Errno::ENOENT), Ok(file.into())])).unwrap();
        let answer = receive_answer(&ours, 2).unwrap().unwrap();
        assert!(matches!(answer.as_slice(), [Err(Errno::ENOENT), Ok(_)]), "{answer:?}");
        send_answer(&theirs, &Err(Errno::EPERM)).unwrap();
        assert_eq!(receive_answer(&ours, 2).unwrap().unwrap_err(), Errno::EPERM);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let file = File::open("/dev/null").unwrap();
        let fd = file.as_raw_fd();
        let cases: [(&[u8], &[RawFd]); 5] =
            [(&[], &[fd]), (&[1], &[]), (&[1], &[fd, fd]), (&[0; THINGS_MAX + 1], &[fd]), (&[0; 4_096], &[fd])];
        for (bytes, fds) in cases {
            let (ours, theirs) = pair();
            send(&ours, bytes, fds).unwrap();
            assert!(receive_request(&theirs).is_none(), "{} bytes, {} descriptors", bytes.len(), fds.len());
        }
        // An answer with a file too few, one about too little, and the end.
        let (ours, theirs) = pair();
        send(&theirs, &[0; 8], &[]).unwrap();
        assert!(receive_answer(&ours, 1).is_err());
        send(&theirs, &[0; 4], &[]).unwrap();
        assert!(receive_answer(&ours, 1).is_err());
        drop(theirs);
        assert!(receive_answer(&ours, 1).is_err());
    }

    #[test]
    fn every_thing_has_a_number() {
        for (index, path) in FILES.iter().enumerate() {
            assert_eq!(file(path).map(usize::from), Some(index));
        }
        assert_eq!(SOCKETS.map(|protocol| socket(protocol).map(usize::from)), [Some(13), Some(14), Some(15)]);
        assert_eq!((file("self/mem"), socket(SockProtocol::NetlinkAudit)), (None, None));
    }
}
