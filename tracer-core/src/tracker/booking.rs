//! Who and what a life is counted on: its endpoint, and the process that answers for it. Knows nothing of how the life
//! was learnt of.

use std::time::Duration;

use super::{Slot, Tracker};
use crate::event::{ProcessId, Role, SocketEvent, Tuple};
use crate::history::Life;
use crate::socket::{Began, Socket};
use crate::tcp::TcpState;
use crate::time::BootNs;

/// How a life was over.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ending {
    /// It was open.
    Closed(Life),
    /// It never was: the errno, 0 if there is none.
    Failed(u16),
}

/// What the event of its end tells of a life that was open.
pub(super) fn life_told_by(end: &SocketEvent, lasted: Option<Duration>) -> Life {
    // The states that a socket gets to when the other side hangs up first; a reset leaves an errno.
    let hung_up = matches!(end.old_state, TcpState::CloseWait | TcpState::LastAck);
    Life {
        lasted,
        bytes: Some((end.totals.bytes_sent, end.totals.bytes_received)),
        ended_by_peer: hung_up || end.error != 0,
    }
}

impl Tracker {
    /// Books the life on a process: the opener if it is known, else the first holder seen.
    pub(super) fn assign_account(&mut self, slot: Slot, id: ProcessId) {
        let Some(socket) = self.socket_mut(slot) else { return };
        let opener = socket.opener.map(|opener| opener.id);
        let before = socket.account;
        if before == Some(id) || (before.is_some() && opener != Some(id)) {
            return;
        }
        socket.account = Some(id);
        let (endpoint, open) = (socket.endpoint(), socket.is_open());
        let at = socket.began().moment();
        if !open {
            return;
        }
        // A holder was booked what turns out to be another's.
        if let Some(account) = before.and_then(|before| self.account_mut(before, endpoint, at)) {
            account.opened_total = account.opened_total.saturating_sub(1);
        }
        if let Some(account) = self.account_mut(id, endpoint, at) {
            account.count_opened(at);
        }
    }

    /// Ends a life by the event of its end, and books it: closed if it was open, failed if it never was.
    pub(super) fn remove(&mut self, slot: Slot, end: &SocketEvent) -> Option<Socket> {
        let socket = self.sockets.remove(slot)?;
        self.tombstones.bury(&socket, Some(end), end.at);
        let lasted = match socket.began() {
            Began::At(began) => Some(end.at.since(began)),
            Began::Before(_) => None,
        };
        let ending = match socket.is_open() {
            true => Ending::Closed(life_told_by(end, lasted)),
            false => Ending::Failed(end.error),
        };
        self.book_removed(&socket, end.at, ending);
        self.note_end(Some(&socket), end);
        Some(socket)
    }

    pub(super) fn book_removed(&mut self, socket: &Socket, at: BootNs, ending: Ending) {
        self.book_end((socket.endpoint(), socket.role, socket.tuple), socket.account, ending, at);
        if let (Some(id), Some(active)) = (socket.account, socket.last_active())
            && let Some(account) = self.account_mut(id, socket.endpoint(), at)
        {
            account.last_active = account.last_active.max(Some(active));
        }
    }

    pub(super) fn book_open(&mut self, endpoint: usize, account: Option<ProcessId>, at: BootNs) {
        if let Some(endpoint) = self.endpoints.get_mut(endpoint) {
            endpoint.count_opened(at);
        }
        if let Some(account) = account.and_then(|id| self.account_mut(id, endpoint, at)) {
            account.count_opened(at);
        }
    }

    /// Books the end of a life at an endpoint.
    pub(super) fn book_end(
        &mut self,
        (endpoint, role, tuple): (usize, Role, Tuple),
        account: Option<ProcessId>,
        ending: Ending,
        at: BootNs,
    ) {
        // A handshake that the database's side never finished is no connection of anybody.
        if matches!(ending, Ending::Failed(_)) && role == Role::Server {
            return;
        }
        let mut turned_away = false;
        if let Some(endpoint) = self.endpoints.get_mut(endpoint) {
            match ending {
                Ending::Closed(life) => {
                    endpoint.count_closed(at);
                    turned_away = role == Role::Client && endpoint.turned_away(&life);
                    if turned_away {
                        endpoint.count_hung_up(at, account, tuple);
                    }
                }
                Ending::Failed(error) => endpoint.count_failed(at, error, account, tuple),
            }
        }
        if let Some(account) = account.and_then(|id| self.account_mut(id, endpoint, at)) {
            match ending {
                // One that was turned away was no exchange, however brief.
                Ending::Closed(life) => account.count_closed(at, if turned_away { Life::UNSEEN } else { life }),
                Ending::Failed(_) => account.failed_total += 1,
            }
        }
    }
}
