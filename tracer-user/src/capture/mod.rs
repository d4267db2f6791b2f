//! Facts from the kernel as they happen: loads the kernel programs, attaches them, reads their ring buffer and counters.
//!
//! The only module that knows aya. It hands out decoded events and numbers, never what they mean.

mod accepts;
mod batch;
mod counters;
mod hooks;
mod load;
mod log;
mod offsets;
mod ring;
mod skipped;
mod tracefs;

pub use counters::KernelCounters;
pub use hooks::{Allowed, KINDS, Kind, without_hooks};
pub use load::{Capture, Settings, probe_host};
pub use offsets::VMLINUX_BTF;
pub use ring::{Ring, WAKE_INTERVAL};

use std::path::PathBuf;

/// Why capture cannot work here. Each says what to do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaptureError {
    /// The kernel's types are unknown.
    #[error("cannot read kernel types from {}: {reason}; socklife needs a kernel built with CONFIG_DEBUG_INFO_BTF (Linux 5.8 or later)", path.display())]
    NoBtf {
        /// The BTF file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The kernel refused for lack of privilege.
    #[error("no permission to load eBPF programs; run as root, or with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN")]
    NoPrivilege,
    /// The object could not be loaded.
    #[error("the kernel refused the eBPF object: {0}; `socklife doctor` shows what this host offers")]
    Load(String),
    /// No hook delivers a fact that capture cannot do without.
    #[error("no hook delivers {fact}: {reason}; `socklife doctor` shows what this host offers")]
    Attach {
        /// Which fact.
        fact: &'static str,
        /// What the kernel said.
        reason: String,
    },
    /// A map of the loaded object could not be used.
    #[error("eBPF map {map}: {reason}")]
    Map {
        /// Which map.
        map: &'static str,
        /// What went wrong.
        reason: String,
    },
}

/// An error with its causes, each once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
