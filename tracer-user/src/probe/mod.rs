//! Asking the peer of a connection whether it is still there, and closing what is confirmed dead. Only ever on a user's
//! word: the daemon does not come here.
//!
//! Works on a copy of the holder's descriptor (pidfd_getfd) that is checked to be the very connection. Knows sockets and
//! verdicts; reads no /proc (what it needs of that is [`crate::inventory`]'s) and prints nothing.
//!
//! How it asks: `setsockopt(TCP_REPAIR, TCP_REPAIR_OFF)` on a socket that is not under repair makes the kernel send one
//! probe (`tcp_send_window_probe`), the very segment of a keepalive: no data, a sequence number that the peer has
//! acknowledged, which it must answer. Turning keepalive on would do as well for a healthy connection, but not for a
//! dead one: each unanswered probe counts in `icsk_probes_out`, which only an acknowledgement resets, so that after the
//! options are put back the application's own keepalive (or its TCP_USER_TIMEOUT) kills the connection sooner than it
//! would have; and TCP_KEEPIDLE, once set, cannot be made to follow the sysctl again. The probe used here counts nowhere
//! and arms no timer (`do_tcp_setsockopt` in net/ipv4/tcp.c, `tcp_send_window_probe` in tcp_output.c). Its one side effect
//! is that SO_REUSEADDR is cleared, which is put back by the next call, and by [`guard`] if there is none. The same
//! on Linux 5.10, 6.12 and 6.18.

mod ask;
mod copy;
mod destroy;
#[cfg(test)]
pub(crate) mod fixture;
pub mod guard;
mod orphan;
mod question;
mod reap;
pub mod report;
mod socket;

pub use ask::{AT_ONCE, Asked, PROBES, PROBES_MAX, Plan, Prober, Step};
pub use reap::{Reaper, Wanted};

/// Why nothing can be asked or closed here at all.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The kernel says no.
    #[error(
        "permission denied to {step} (pid {pid}): run as root, or with CAP_SYS_PTRACE and CAP_NET_ADMIN in the host's \
         user namespace (kernel.yama.ptrace_scope=3 forbids it to everybody)"
    )]
    Denied {
        /// What was tried.
        step: &'static str,
        /// On whose descriptor.
        pid: u32,
    },
    /// SOCK_DESTROY is for the privileged.
    #[error("permission denied to close a socket: run as root, or with CAP_NET_ADMIN in the host's user namespace")]
    CloseDenied,
    /// The kernel was built without it.
    #[error(
        "this kernel cannot close another process' socket: it was built without CONFIG_INET_DIAG_DESTROY; restart the \
         process that holds it instead"
    )]
    NoDestroy,
    /// The child that puts options back could not be started, or has ended.
    #[error("the process that would put options back if this one died {what}: {source}")]
    Guard {
        /// What is wrong with it.
        what: &'static str,
        /// The kernel's reason.
        source: std::io::Error,
    },
    /// The socket table cannot be read.
    #[error(transparent)]
    Inventory(#[from] crate::inventory::InventoryError),
}
