//! Sockets that no process holds: closed by their application, and the FIN never acknowledged. There is no descriptor
//! to ask through; the kernel's own facts, read right before, have to be enough. Looks and judges; closes nothing.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tracer_core::event::Tuple;
use tracer_core::inventory::{SocketRow, Timer};
use tracer_core::ports::PortMap;
use tracer_core::snapshot::Connection;
use tracer_core::tcp::TcpState;

use super::ProbeError;
use super::question::RTOS_DEAD;
use crate::clock;
use crate::inventory::door::Door;
use crate::inventory::{Looker, Settings};

/// Least silence of the peer.
const SILENT_LEAST: Duration = Duration::from_secs(5);
/// And as a multiple of the round trip.
const SILENT_ROUND_TRIPS: u32 = 5;
/// Before Linux 6.11 (commit bac76cf89816, "tcp: fix forever orphan socket caused by tcp_abort") closing an orphan took
/// its timers away and left it there for ever.
const FIXED_IN: (u32, u32) = (6, 11);

/// Orphans by their namespace and ends, from one look at the socket tables.
#[derive(Debug)]
pub(super) struct Orphans(HashMap<Tuple, SocketRow>);

impl Orphans {
    /// Looks for those of these connections that nobody holds.
    pub fn look(connections: &[Connection], proc_root: &Path) -> Result<Self, ProbeError> {
        let mut ports = PortMap::none();
        for connection in connections {
            for end in [&connection.local, &connection.remote] {
                if let Ok(end) = end.parse::<SocketAddr>() {
                    ports.insert(end.port(), connection.database.clone());
                }
            }
        }
        let settings =
            Settings { ports, proc_root: proc_root.to_owned(), namespaces: true, recognize: false, door: Door::Thread };
        let tables = Looker::new(settings).tables(&clock::boot_clock)?;
        let rows = tables.tables.into_iter().flat_map(|table| table.sockets).filter(|row| row.inode == 0);
        Ok(Self(rows.map(|row| (row.tuple, row)).collect()))
    }

    /// The socket of a connection, if it is an orphan now.
    pub fn of(&self, connection: &Connection) -> Option<&SocketRow> {
        let (local, remote) = (connection.local.parse().ok()?, connection.remote.parse().ok()?);
        self.0.get(&Tuple::new(connection.netns, local, remote))
    }
}

/// Whether the peer is known not to hear it; else why not.
pub(super) fn is_dead(row: &SocketRow) -> Result<(), String> {
    let Some(info) = row.info else { return Err("the kernel gives no counters of it".to_owned()) };
    if !matches!(row.state, TcpState::FinWait1 | TcpState::LastAck | TcpState::Closing) {
        return Err(format!("it is in {}, where nothing is waited for", row.state.name()));
    }
    // What this host does not let out is tried again by the timer of window probes.
    let probes = if info.timer == Timer::Probe { info.probes } else { 0 };
    let rtos = info.consecutive_rtos.max(probes);
    if rtos < RTOS_DEAD {
        return Err(format!("its FIN was sent again only {rtos} times in a row; {RTOS_DEAD} are enough"));
    }
    let silent = Duration::from_millis(u64::from(info.last_ack_received_ms.min(info.last_data_received_ms)));
    let trip = info.srtt_us.map_or(Duration::ZERO, |us| Duration::from_micros(u64::from(us)));
    if silent < SILENT_LEAST.max(SILENT_ROUND_TRIPS * trip) {
        return Err(format!("its peer was heard {} ms ago", silent.as_millis()));
    }
    Ok(())
}

/// Whether this kernel closes orphans for good; else why not. `release` is `uname -r`.
pub(super) fn can_close(release: &str) -> Result<(), String> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(|digits| digits.parse::<u32>().ok());
    let version = (numbers.next().flatten().unwrap_or(0), numbers.next().flatten().unwrap_or(0));
    if version >= FIXED_IN {
        return Ok(());
    }
    let (major, minor) = FIXED_IN;
    Err(format!(
        "no process holds it, and before Linux {major}.{minor} closing such a socket can leave it for ever; the kernel \
         gives it up by itself (net.ipv4.tcp_orphan_retries)"
    ))
}

#[cfg(test)]
mod tests {
    use tracer_core::event::Role;
    use tracer_core::inventory::{Certainty, Holders, SocketInfo};

    use super::*;

    #[test]
    fn only_a_fin_that_was_sent_again_into_silence_is_dead() {
        let check = |state, rtos, silent_ms, srtt_us, dead: bool| {
            let info = SocketInfo {
                consecutive_rtos: rtos,
                last_ack_received_ms: silent_ms,
                last_data_received_ms: 90_000,
                srtt_us: Some(srtt_us),
                ..SocketInfo::default()
            };
            let row = SocketRow {
                tuple: Tuple::new(1, "10.0.0.1:4".parse().unwrap(), "10.0.0.2:5".parse().unwrap()),
                role: Role::Client,
                certainty: Certainty::Sure,
                state,
                uid: 0,
                inode: 0,
                cookie: 1,
                info: Some(info),
                holders: Holders::default(),
            };
            assert_eq!(is_dead(&row).is_ok(), dead, "{row:?}");
            // What cannot be sent is counted otherwise; a peer whose window is closed answers.
            let probed = SocketInfo { consecutive_rtos: 0, probes: rtos, timer: Timer::Probe, ..info };
            assert_eq!(is_dead(&SocketRow { info: Some(probed), ..row.clone() }).is_ok(), dead, "{probed:?}");
            assert!(is_dead(&SocketRow { info: None, ..row }).is_err());
        };
        for state in [TcpState::FinWait1, TcpState::LastAck, TcpState::Closing] {
            check(state, 3, 5_000, 100, true);
            check(state, 2, 5_000, 100, false);
            check(state, 3, 4_999, 100, false);
            check(state, 3, 5_000, 1_000_001, false);
        }
        for state in [TcpState::Established, TcpState::FinWait2, TcpState::CloseWait] {
            check(state, 9, 60_000, 100, false);
        }
    }

    #[test]
    fn kernels_that_would_leave_an_orphan_for_ever_are_told_by_their_release() {
        for (release, can) in [
            ("6.11.0-rc1", true),
            ("6.12.38+deb12-cloud-amd64", true),
            ("6.18", true),
            ("7.0.1", true),
            ("6.1.0-37-amd64", false),
            ("5.10.0", false),
            ("6.10.14", false),
            ("", false),
            ("linux", false),
        ] {
            assert_eq!(can_close(release).is_ok(), can, "{release}");
        }
    }
}
