//! What the host's own network knows of connections that are idle or in trouble: the entry that connection tracking has of
//! each, and whether there is a way to the peer. Of the namespace that the calling thread is in. What cannot be read is not
//! known; nothing is loaded into the kernel for it.

use std::path::Path;
use std::time::Duration;

use nix::sys::socket::SockProtocol;
use tracer_core::event::Tuple;
use tracer_core::inventory::{PathRow, SocketInfo};
use tracer_core::tcp::TcpState;

use super::place::Place;
use super::{path_wire, sock_diag};
use crate::process::files::read_bounded;

/// Connections of one look that are asked about, those that have been silent longest first. Two questions each, of a few
/// microseconds.
pub(super) const MOST_ASKED: usize = 512;
/// A connection on which nothing passed for so long may be forgotten by somebody.
const IDLE: Duration = Duration::from_secs(5);

/// The list of modules, generously.
const MODULES_BYTES: usize = 256 * 1024;
/// The entry of one connection, or one route.
const ANSWER_BYTES: usize = 8 * 1024;

/// What to ask about one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub tuple: Tuple,
    /// How long nothing passed, in milliseconds; in trouble counts as for ever.
    pub silent_ms: u32,
    /// An answer is overdue: the way is asked for, too.
    pub troubled: bool,
}

impl Asked {
    /// A connection that may be forgotten on the way, or that gets no answer.
    pub fn of(tuple: Tuple, state: TcpState, info: &SocketInfo) -> Option<Self> {
        let troubled = info.consecutive_rtos > 0 || info.probes > 0;
        let silent_ms = info.heard_ms().min(info.last_data_sent_ms);
        let idle = state == TcpState::Established && Duration::from_millis(u64::from(silent_ms)) >= IDLE;
        let (local, remote) = (tuple.local().ip(), tuple.remote().ip());
        let is_here = remote.is_loopback() || remote == local;
        let silent_ms = if troubled { u32::MAX } else { silent_ms };
        ((troubled || idle) && !is_here).then_some(Self { tuple, silent_ms, troubled })
    }
}

/// Asks, at most about [`MOST_ASKED`] and about `most`. `tracks` is whether connections are tracked in this namespace at
/// all.
pub(super) fn ask(place: &Place<'_>, mut asked: Vec<Asked>, most: usize, tracks: bool) -> Vec<PathRow> {
    asked.sort_by_key(|asked| (std::cmp::Reverse(asked.silent_ms), asked.tuple));
    asked.truncate(most.min(MOST_ASKED));
    if asked.is_empty() || !(tracks || asked.iter().any(|asked| asked.troubled)) {
        return Vec::new();
    }
    let mut buffer = vec![0; ANSWER_BYTES];
    let mut tracking =
        (tracks && has_ctnetlink(place.proc_root)).then(|| Asker::new(place, SockProtocol::NetlinkNetFilter)).flatten();
    let mut routing =
        asked.iter().any(|asked| asked.troubled).then(|| Asker::new(place, SockProtocol::NetlinkRoute)).flatten();
    let mut rows = Vec::with_capacity(asked.len());
    for Asked { tuple, troubled, .. } in asked {
        let tracked = question(&mut tracking, &mut buffer, |sequence| path_wire::ask_tracked(sequence, &tuple));
        let tracked = tracked.and_then(|(bytes, sequence)| path_wire::tracked(bytes, sequence).ok());
        // Refused once, refused always.
        if tracked.is_none() {
            tracking = None;
        }
        let mut no_route = None;
        if troubled {
            let answer = question(&mut routing, &mut buffer, |sequence| path_wire::ask_route(sequence, &tuple));
            no_route = answer.and_then(|(bytes, sequence)| path_wire::no_route(bytes, sequence).ok().flatten());
        }
        if tracked.is_some() || no_route.is_some() {
            rows.push(PathRow { tuple, tracked, no_route });
        }
    }
    rows
}

/// Whether the part of the kernel that answers is there: asking for a missing one would load it.
fn has_ctnetlink(proc_root: &Path) -> bool {
    let Ok(modules) = read_bounded(&proc_root.join("modules"), MODULES_BYTES) else {
        // A kernel without modules.
        return true;
    };
    let text = String::from_utf8_lossy(&modules.bytes);
    let has = |name: &str| text.lines().any(|line| line.split(' ').next() == Some(name));
    has("nf_conntrack_netlink") || !has("nf_conntrack")
}

/// A conversation with a part of the kernel.
struct Asker {
    socket: std::os::fd::OwnedFd,
    sequence: u32,
}

impl Asker {
    fn new(place: &Place<'_>, protocol: SockProtocol) -> Option<Self> {
        Some(Self { socket: sock_diag::open(place, protocol).ok()?, sequence: 0 })
    }
}

/// The answer to one question and the number of that; `None` if nobody is there to ask.
fn question<'a>(
    asker: &mut Option<Asker>,
    buffer: &'a mut [u8],
    request: impl FnOnce(u32) -> Vec<u8>,
) -> Option<(&'a [u8], u32)> {
    let Asker { socket, sequence } = asker.as_mut()?;
    *sequence += 1;
    sock_diag::ask(socket, &request(*sequence)).ok()?;
    let len = sock_diag::datagram(socket, buffer).ok()?;
    Some((buffer.get(..len)?, *sequence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_idle_and_the_troubled_are_asked_about() {
        let info = |silent_ms: u32, consecutive_rtos: u8| SocketInfo {
            last_data_sent_ms: silent_ms,
            last_data_received_ms: silent_ms,
            last_ack_received_ms: silent_ms,
            consecutive_rtos,
            ..SocketInfo::default()
        };
        let check = |remote: &str, state: TcpState, info: SocketInfo, expected: Option<(u32, bool)>| {
            let tuple = Tuple::new(7, "10.0.0.9:40000".parse().unwrap(), remote.parse().unwrap());
            let asked = Asked::of(tuple, state, &info).map(|asked| (asked.silent_ms, asked.troubled));
            assert_eq!(asked, expected, "{tuple:?} {state:?} {info:?}");
        };
        let far = "10.0.0.5:5432";
        check(far, TcpState::Established, info(9_000, 0), Some((9_000, false)));
        check(far, TcpState::Established, info(4_000, 0), None);
        check(far, TcpState::CloseWait, info(9_000, 0), None);
        check(far, TcpState::FinWait1, info(9_000, 3), Some((u32::MAX, true)));
        check("10.0.0.9:5432", TcpState::Established, info(9_000, 0), None);
        check("127.0.0.1:5432", TcpState::Established, info(9_000, 1), None);
    }

    #[test]
    fn nothing_is_loaded_to_be_asked() {
        let root = tempfile::tempdir().unwrap();
        assert!(has_ctnetlink(root.path()));
        let check = |modules: &str, expected: bool| {
            std::fs::write(root.path().join("modules"), modules).unwrap();
            assert_eq!(has_ctnetlink(root.path()), expected, "{modules:?}");
        };
        check("", true);
        check("nf_conntrack 180224 3 nf_nat, Live 0x0\n", false);
        check("nf_conntrack_netlink 57344 0 - Live 0x0\nnf_conntrack 180224 3 nf_conntrack_netlink, Live 0x0\n", true);
    }
}
