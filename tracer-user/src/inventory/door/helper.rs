//! The helper from the daemon's side: started before privileges are given up, asked one thing at a time, ended with the
//! daemon. It cannot be started again afterwards; without it the other namespaces count as unreachable.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt::ReceiveTimeout};
use nix::sys::time::TimeVal;

use super::wire::{self, Opened, Thing};

/// The hidden command that it is.
pub const COMMAND: &str = "netns-helper";
/// Its answer takes microseconds; only a stopped process lets it wait this long.
const ANSWER_TIMEOUT_S: i64 = 5;

/// The helper.
#[derive(Debug)]
pub struct Helper(Mutex<Option<Process>>);

#[derive(Debug)]
struct Process {
    orders: OwnedFd,
    child: Child,
}

impl Helper {
    /// Starts it, from the file that this process runs.
    pub fn start(proc_root: &Path) -> io::Result<Self> {
        let (orders, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        setsockopt(&orders, ReceiveTimeout, &TimeVal::new(ANSWER_TIMEOUT_S, 0))?;
        let mut command = Command::new(proc_root.join("self/exe"));
        command.arg0("socklife").arg(COMMAND).current_dir("/").stdin(theirs).stdout(Stdio::null());
        let child = command.spawn()?;
        Ok(Self(Mutex::new(Some(Process { orders, child }))))
    }

    /// Its process, while it lives.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|process| process.child.id())
    }

    /// Has it open these inside a namespace.
    pub(super) fn open(&self, namespace: &impl AsFd, things: &[Thing]) -> Opened {
        let mut process = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Process { orders, .. }) = process.as_ref() else { return Err(Errno::EPIPE) };
        let answer = wire::send_request(orders, namespace, things);
        let answer = answer.and_then(|()| wire::receive_answer(orders, things.len()));
        answer.unwrap_or_else(|error| {
            tracing::warn!(
                %error,
                "the helper that enters other network namespaces is gone: they count as unreachable from now on; restart \
                 socklife to look into them again"
            );
            // Ends it, if it has not: an answer that comes too late must not be taken for the next one.
            *process = None;
            Err(Errno::EPIPE)
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has nothing to finish. Both fail only if it has been waited for, which nobody else does.
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}
