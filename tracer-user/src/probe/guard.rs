//! A small child process that puts back what a probe has changed if this process dies before it does so itself, by
//! `kill -9` for instance. It holds a copy of each descriptor that has something to put back, for as long as it has.
//!
//! The child hears of the end by the end of its socket. It has a session of its own and ignores every signal that is
//! meant for a group or asks politely: it ends with this process anyway, a moment later. Knows descriptors and one
//! option; no connection and no verdict.

use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::errno::Errno;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, Shutdown, SockFlag, SockType, recvmsg, sendmsg,
    setsockopt, shutdown, socketpair, sockopt::ReceiveTimeout,
};
use nix::sys::time::TimeVal;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, fork, setsid};

use super::{ProbeError, socket};
use crate::inventory::again;

/// Descriptors that it holds at once; more are not asked for.
pub(super) const HELD_MAX: usize = 1_024;
/// Its answer takes microseconds; only a stopped process lets it wait this long.
const ANSWER_TIMEOUT_S: i64 = 5;
/// Signals that end a group of processes, or a process that does not ignore them.
const IGNORED: [Signal; 10] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGPIPE,
    Signal::SIGALRM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGTSTP,
    Signal::SIGTTOU,
];

/// The orders: to hold a descriptor, and to let go of one.
const HOLD: u8 = b'h';
const RELEASE: u8 = b'r';
/// An order, and whose slot it is for.
const MESSAGE_BYTES: usize = 5;

/// The child, from this side.
#[derive(Debug)]
pub struct Guard {
    orders: OwnedFd,
    child: Pid,
}

impl Guard {
    /// Starts the child. Only before this process has any other thread: see [`fork`].
    pub fn start() -> Result<Self, ProbeError> {
        let failed = |errno: Errno| ProbeError::Guard { what: "cannot be started", source: errno.into() };
        let (ours, theirs) = pair().map_err(failed)?;
        // SAFETY: the caller has no other thread, so no lock is held that the child could need.
        match unsafe { fork() }.map_err(failed)? {
            ForkResult::Parent { child } => Ok(Self { orders: ours, child }),
            ForkResult::Child => {
                drop(ours);
                let _ended = catch_unwind(AssertUnwindSafe(|| {
                    withdraw();
                    serve(&theirs);
                }));
                // SAFETY: ends this process without running what belongs to its parent.
                unsafe { libc::_exit(0) }
            }
        }
    }

    /// When this returns, SO_REUSEADDR will be set on `fd` whatever happens.
    pub(super) fn hold(&self, slot: u32, fd: BorrowedFd<'_>) -> Result<(), ProbeError> {
        self.order(HOLD, slot, &[ControlMessage::ScmRights(&[fd.as_raw_fd()])])
    }

    /// When this returns, the child has let go.
    pub(super) fn release(&self, slot: u32) -> Result<(), ProbeError> {
        self.order(RELEASE, slot, &[])
    }

    fn order(&self, what: u8, slot: u32, with: &[ControlMessage<'_>]) -> Result<(), ProbeError> {
        let failed = |source| ProbeError::Guard { what: "does not answer", source };
        let message = encode(what, slot);
        let sent = again(|| {
            sendmsg::<()>(self.orders.as_raw_fd(), &[IoSlice::new(&message)], with, MsgFlags::MSG_NOSIGNAL, None)
        });
        sent.map_err(|errno| failed(errno.into()))?;
        let mut answer = [0; MESSAGE_BYTES];
        let len = again(|| nix::unistd::read(&self.orders, &mut answer)).map_err(|errno| failed(errno.into()))?;
        if len == MESSAGE_BYTES && answer == message {
            Ok(())
        } else {
            Err(failed(io::Error::new(io::ErrorKind::UnexpectedEof, "it has ended, or has no room")))
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // What it still holds it puts back; then it ends, which closes its end. A stopped one is not waited for.
        let _told = shutdown(self.orders.as_raw_fd(), Shutdown::Write);
        if again(|| nix::unistd::read(&self.orders, &mut [0; MESSAGE_BYTES])) == Ok(0) {
            let _reaped = again(|| waitpid(self.child, None));
        }
    }
}

fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    setsockopt(&ours, ReceiveTimeout, &TimeVal::new(ANSWER_TIMEOUT_S, 0))?;
    Ok((ours, theirs))
}

fn encode(what: u8, slot: u32) -> [u8; MESSAGE_BYTES] {
    let [a, b, c, d] = slot.to_ne_bytes();
    [what, a, b, c, d]
}

/// Leaves the session, the directory, the streams and the signals of its parent. What does not work leaves it less
/// protected, and is no reason not to guard.
fn withdraw() {
    let _own_session = setsid();
    for each in IGNORED {
        // SAFETY: to ignore a signal runs no handler.
        let _unchanged = unsafe { signal(each, SigHandler::SigIgn) };
    }
    let _same = chdir("/");
    if let Ok(null) = std::fs::File::options().read(true).write(true).open("/dev/null") {
        let _unchanged = dup2_stdin(&null);
        let _unchanged = dup2_stdout(&null);
        let _unchanged = dup2_stderr(&null);
    }
}

/// Holds and releases as it is told, until nobody is left who could; then puts everything back.
fn serve(orders: &OwnedFd) {
    let mut held: BTreeMap<u32, OwnedFd> = BTreeMap::new();
    while let Some((message, fd)) = receive(orders) {
        let [what, slot @ ..] = message;
        let slot = u32::from_ne_bytes(slot);
        match (what, fd) {
            (HOLD, Some(fd)) if held.len() < HELD_MAX => {
                held.insert(slot, fd);
            }
            (RELEASE, None) => {
                held.remove(&slot);
            }
            // No answer: the parent takes it for a failure, before it has touched anything.
            _ => break,
        }
        if again(|| nix::unistd::write(orders, &message)) != Ok(MESSAGE_BYTES) {
            break;
        }
    }
    for fd in held.values() {
        // There is nobody to tell if it fails, and nothing better to do.
        let _restored = socket::restore_reuse_address(fd.as_fd());
    }
}

/// The next order, with its descriptor; `None` at the end.
fn receive(orders: &OwnedFd) -> Option<([u8; MESSAGE_BYTES], Option<OwnedFd>)> {
    let mut message = [0; MESSAGE_BYTES];
    let mut control = nix::cmsg_space!([std::os::fd::RawFd; 1]);
    let (len, fd) = {
        let mut parts = [IoSliceMut::new(&mut message)];
        loop {
            match recvmsg::<()>(orders.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC) {
                Err(Errno::EINTR) => {}
                Err(_) => return None,
                Ok(received) => break (received.bytes, descriptors(received.cmsgs().ok()?)),
            }
        }
    };
    (len == MESSAGE_BYTES).then_some((message, fd))
}

fn descriptors(messages: nix::sys::socket::CmsgIterator<'_>) -> Option<OwnedFd> {
    let received = messages.flat_map(|message| match message {
        ControlMessageOwned::ScmRights(fds) => fds,
        _ => Vec::new(),
    });
    // SAFETY: the kernel has just made these descriptors for us; each is owned once.
    received.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).next()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::thread::JoinHandle;

    use nix::sys::socket::sockopt::ReuseAddr;

    use super::*;

    /// The child's part on a thread, since a test has others; `None` in place of the child.
    fn guard() -> (OwnedFd, JoinHandle<()>) {
        let (ours, theirs) = pair().unwrap();
        (ours, std::thread::spawn(move || serve(&theirs)))
    }

    /// Sockets with SO_REUSEADDR off: what a probe leaves.
    fn touched(count: usize) -> (TcpListener, Vec<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let streams = (0..count).map(|_| TcpStream::connect(address).unwrap()).collect();
        (listener, streams)
    }

    fn is_set(stream: &TcpStream) -> bool {
        nix::sys::socket::getsockopt(stream, ReuseAddr).unwrap()
    }

    /// A guard for the tests, which must not reap a child that is none.
    struct Orders(std::mem::ManuallyDrop<Guard>);

    impl Orders {
        fn to(orders: OwnedFd) -> Self {
            Self(std::mem::ManuallyDrop::new(Guard { orders, child: Pid::from_raw(0) }))
        }

        fn end(self) {
            let guard = std::mem::ManuallyDrop::into_inner(self.0);
            shutdown(guard.orders.as_raw_fd(), Shutdown::Write).unwrap();
            std::mem::forget(guard);
        }
    }

    #[test]
    fn what_is_held_at_the_end_is_put_back_and_nothing_else() {
        let (ours, thread) = guard();
        let (_listener, streams) = touched(3);
        let orders = Orders::to(ours);
        for (slot, stream) in (0..).zip(&streams) {
            orders.0.hold(slot, stream.as_fd()).unwrap();
        }
        orders.0.release(1).unwrap();
        assert!(!streams.iter().any(is_set), "before the end nothing is touched");
        orders.end();
        thread.join().unwrap();
        assert_eq!(streams.iter().map(is_set).collect::<Vec<_>>(), [true, false, true]);
    }

    #[test]
    fn a_guard_without_room_or_without_life_is_a_failure() {
        let (ours, thread) = guard();
        let (_listener, streams) = touched(1);
        let orders = Orders::to(ours);
        // An order that makes no sense ends it.
        assert!(matches!(orders.0.order(HOLD, 1, &[]), Err(ProbeError::Guard { .. })));
        thread.join().unwrap();
        assert!(matches!(orders.0.hold(2, streams[0].as_fd()), Err(ProbeError::Guard { .. })));
        orders.end();
    }
}
