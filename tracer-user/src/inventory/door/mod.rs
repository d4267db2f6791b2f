//! The way into other network namespaces. To enter one takes CAP_SYS_ADMIN, which the daemon does not keep: a helper does,
//! a process of its own that enters a namespace, opens what it is asked for out of a short list, leaves again and hands it
//! over. Commands that look once enter with a thread that ends with it.
//!
//! Knows namespaces by their files; which there are, and what is read of them, is known elsewhere.

mod helper;
mod serve;
mod wire;

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;

pub use helper::{COMMAND, Helper};
pub(super) use serve::open_here;
pub use serve::serve;
pub(super) use wire::{Opened, Thing, file, files, socket};

/// Who enters.
#[derive(Clone, Debug, Default)]
pub enum Door {
    /// A thread of this process, for each request: it needs CAP_SYS_ADMIN.
    #[default]
    Thread,
    /// The helper.
    Helper(Arc<Helper>),
    /// Nobody: there is no helper.
    Closed,
}

impl Door {
    /// Opens these inside a namespace.
    pub(super) fn open(&self, proc_root: &Path, namespace: &(impl AsFd + Sync), things: &[Thing]) -> Opened {
        match self {
            Self::Thread => on_a_thread(|| serve::open_inside(proc_root, namespace, things)),
            Self::Helper(helper) => helper.open(namespace, things),
            Self::Closed => Err(Errno::EPERM),
        }
    }
}

/// No thread of this process is ever anywhere else than at home for longer than that.
fn on_a_thread(visit: impl FnOnce() -> Opened + Send) -> Opened {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("namespace".to_owned()).spawn_scoped(scope, visit);
        thread.map_err(|_| Errno::EAGAIN)?.join().unwrap_or(Err(Errno::EIO))
    })
}
