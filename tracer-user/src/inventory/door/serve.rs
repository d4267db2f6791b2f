//! Opens things inside another network namespace: on a thread that does not come back, or in the helper, a process that
//! does nothing else. Keeps nothing of a namespace: neither is in it nor has a file of it when it has answered.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, socket, sockopt};
use nix::sys::stat::Mode;

use super::wire::{self, FILES, Opened, SOCKETS, Thing};
use crate::privileges;

/// Signals for a whole terminal or service: the helper ends when the daemon does, and not before.
const IGNORED: [Signal; 3] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM];

/// Enters the namespace with the calling thread and opens these. The thread does not go back.
pub(super) fn open_inside(proc_root: &Path, namespace: impl AsFd, things: &[Thing]) -> Opened {
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    Ok(things.iter().map(|thing| open_here(proc_root, *thing)).collect())
}

/// One thing in the calling thread's network namespace.
pub(in crate::inventory) fn open_here(proc_root: &Path, thing: Thing) -> Result<OwnedFd, Errno> {
    let thing = usize::from(thing);
    match (FILES.get(thing), SOCKETS.get(thing.saturating_sub(FILES.len()))) {
        (Some(path), _) => open(&proc_root.join(path), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()),
        (None, Some(protocol)) => socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, *protocol),
        (None, None) => Err(Errno::EINVAL),
    }
}

/// The helper's whole life, on the standard input that the daemon gave it. Returns when the daemon has ended.
pub fn serve(proc_root: &Path) -> anyhow::Result<()> {
    use anyhow::Context as _;
    let orders = io::stdin().as_fd().try_clone_to_owned().context("cannot keep the standard input")?;
    let is_ours = getsockopt(&orders, sockopt::SockType) == Ok(SockType::SeqPacket);
    anyhow::ensure!(is_ours, "this is a part of `socklife run`, which starts it: it is no command");
    for each in IGNORED {
        // SAFETY: to ignore a signal runs no handler.
        unsafe { signal(each, SigHandler::SigIgn) }.context("cannot ignore a signal")?;
    }
    prctl::set_name(c"socklife-netns").context("cannot take a name")?;
    let home = File::open(proc_root.join("thread-self/ns/net")).context("cannot keep the way home")?;
    privileges::keep(&privileges::HELPER)?;
    // After that: a change of privileges forgets it.
    prctl::set_pdeathsig(Signal::SIGKILL).context("cannot follow the daemon to its end")?;
    if let Err(error) = privileges::seccomp::confine_helper() {
        tracing::warn!(%error, "the helper for network namespaces works without a system call filter");
    }
    while let Some((namespace, things)) = wire::receive_request(&orders) {
        let opened = open_inside(proc_root, &namespace, &things);
        // Whoever stays in a namespace keeps it in existence.
        setns(&home, CloneFlags::CLONE_NEWNET).context("cannot leave a network namespace")?;
        if wire::send_answer(&orders, &opened).is_err() {
            break;
        }
    }
    Ok(())
}
