//! What this process may do, and how it gives up what it needs no more. Each capability that is kept has its reason here and
//! in docs/security.md; a test holds the two and the running daemon against each other.
//!
//! Capabilities belong to threads: give them up before there is a second one.

pub mod seccomp;

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl;

/// A capability that is kept.
pub type Kept = (Capability, &'static str);

/// The daemon's, from the time on when everything is attached.
pub const DAEMON: [Kept; 4] = [
    (Capability::CAP_BPF, "maps of the kernel programs, before Linux 5.19"),
    (Capability::CAP_NET_ADMIN, "details of sockets, and the connection tracking table"),
    (Capability::CAP_SYS_PTRACE, "descriptors, namespaces, program and directory of other users' processes"),
    (Capability::CAP_DAC_READ_SEARCH, "the same, where only their owner may look"),
];

/// The daemon's where no kernel program runs.
pub const POLLING: [Kept; 3] = [DAEMON[1], DAEMON[2], DAEMON[3]];

/// The helper's: see [`crate::inventory::door`].
pub const HELPER: [Kept; 2] = [
    (Capability::CAP_SYS_ADMIN, "enters network namespaces"),
    // netlink_net_capable(): the opener's credentials count as well as the asker's.
    (
        Capability::CAP_NET_ADMIN,
        "the kernel asks for it of who opened a netlink socket, too, before it shows connection tracking",
    ),
];

/// Privileges could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// The kernel refused.
    #[error("cannot {step}: {reason}")]
    Refused {
        /// What was tried.
        step: &'static str,
        /// What it said.
        reason: String,
    },
}

fn refused<E: ToString>(step: &'static str) -> impl FnOnce(E) -> PrivilegeError {
    move |error| PrivilegeError::Refused { step, reason: error.to_string() }
}

/// Gives up every capability of the calling thread but these, for good; nothing that is executed has more.
pub fn keep(kept: &[Kept]) -> Result<(), PrivilegeError> {
    prctl::set_no_new_privs().map_err(refused("set no_new_privs"))?;
    let wanted: CapsHashSet = kept.iter().map(|(capability, _)| *capability).collect();
    caps::clear(None, CapSet::Ambient).map_err(refused("clear the ambient capabilities"))?;
    // It takes CAP_SETPCAP, and is a bound on what programs get that are executed: with no_new_privs none gets anything.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).map_err(refused("read the capabilities"))? {
        let bound = caps::read(None, CapSet::Bounding).map_err(refused("read the bounding set"))?;
        for each in bound.difference(&wanted) {
            caps::drop(None, CapSet::Bounding, *each).map_err(refused("shrink the bounding set"))?;
        }
    }
    let held = caps::read(None, CapSet::Permitted).map_err(refused("read the capabilities"))?;
    let left: CapsHashSet = held.intersection(&wanted).copied().collect();
    caps::set(None, CapSet::Effective, &left).map_err(refused("give up effective capabilities"))?;
    caps::set(None, CapSet::Permitted, &left).map_err(refused("give up permitted capabilities"))?;
    caps::clear(None, CapSet::Inheritable).map_err(refused("clear the inheritable capabilities"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of the table under that heading: a capability and its reason.
    fn table(heading: &str) -> Vec<(String, String)> {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/security.md")).unwrap();
        let (_, section) = page.split_once(&format!("\n## {heading}\n")).unwrap();
        let rows =
            section.lines().take_while(|line| !line.starts_with("## ")).filter(|line| line.starts_with("| `CAP_"));
        let cell = |text: &str| text.trim().trim_matches('`').to_owned();
        rows.map(|row| {
            let cells: Vec<&str> = row.split('|').collect();
            (cell(cells[1]), cell(cells[2]))
        })
        .collect()
    }

    #[test]
    fn the_documentation_says_what_is_kept_and_why() {
        for (heading, kept) in [("What the daemon keeps", &DAEMON[..]), ("The helper", &HELPER)] {
            let kept: Vec<_> = kept.iter().map(|(name, why)| (name.to_string(), (*why).to_owned())).collect();
            assert_eq!(table(heading), kept, "{heading}");
        }
    }

    #[test]
    fn what_is_given_up_stays_given_up() {
        // Of this thread alone.
        let thread = std::thread::spawn(|| {
            keep(&POLLING).unwrap();
            let all = |set| caps::read(None, set).unwrap();
            let wanted: CapsHashSet = POLLING.iter().map(|(capability, _)| *capability).collect();
            assert!(all(CapSet::Permitted).is_subset(&wanted) && all(CapSet::Effective).is_subset(&wanted));
            assert!(all(CapSet::Inheritable).is_empty() && all(CapSet::Ambient).is_empty());
            assert!(caps::raise(None, CapSet::Permitted, Capability::CAP_SYS_ADMIN).is_err());
            assert!(prctl::get_no_new_privs().unwrap());
        });
        thread.join().unwrap();
    }
}
