//! A connection as a snapshot has it, for tests.

use tracer_core::event::Role;
use tracer_core::snapshot::{Age, Connection, HolderFd};
use tracer_core::tcp::TcpState;

/// An established one that this process holds.
pub(crate) fn connection(id: &str, local: &str, remote: &str, fd: u32, inode: u32) -> Connection {
    Connection {
        id: id.to_owned(),
        netns: 1,
        local: local.to_owned(),
        remote: remote.to_owned(),
        endpoint: remote.to_owned(),
        database: "postgres".to_owned(),
        role: Role::Client,
        state: TcpState::Established,
        state_since: None,
        opened_at: None,
        age_s: 0,
        age: Age::AtLeast,
        opener: None,
        closer_pid: None,
        heard_s: None,
        unanswered_probes: 0,
        holders: vec![HolderFd { pid: std::process::id(), fd }],
        inode: Some(inode),
        idle_s: None,
        bytes_sent: 0,
        bytes_received: 0,
        srtt_us: None,
        retransmits: 0,
        consecutive_rtos: 0,
        unacked: 0,
        keepalive: None,
    }
}
