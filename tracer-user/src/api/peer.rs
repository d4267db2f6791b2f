//! Who may use the control socket: root, the daemon's own user, members of the configured group.

use std::ffi::CString;

use nix::unistd::{Gid, Uid, User, getgrouplist};
use tokio::net::unix::UCred;

/// The rule, as data.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gate {
    own: Uid,
    group: Option<Gid>,
}

impl Gate {
    pub(super) fn new(group: Option<Gid>) -> Self {
        Self { own: Uid::effective(), group }
    }

    /// Whether a peer with these credentials, taken by the kernel when it connected, may ask.
    pub(super) async fn admits(self, peer: UCred) -> bool {
        let (uid, gid) = (Uid::from_raw(peer.uid()), Gid::from_raw(peer.gid()));
        if uid.is_root() || uid == self.own || Some(gid) == self.group {
            return true;
        }
        let Some(group) = self.group else { return false };
        // The name service may be slow: not on the runtime's own threads.
        tokio::task::spawn_blocking(move || is_member(uid, gid, group)).await.unwrap_or(false)
    }
}

fn is_member(uid: Uid, gid: Gid, group: Gid) -> bool {
    let Ok(Some(user)) = User::from_uid(uid) else { return false };
    let Ok(name) = CString::new(user.name) else { return false };
    getgrouplist(&name, gid).is_ok_and(|groups| groups.contains(&group))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn membership_is_the_name_services() {
        let (root, own) = (Uid::from_raw(0), Gid::from_raw(0));
        assert!(is_member(root, own, own));
        assert!(!is_member(root, own, Gid::from_raw(4_000_123)));
        assert!(!is_member(Uid::from_raw(4_000_123), own, own), "no such user");
    }

    #[tokio::test]
    async fn own_user_is_admitted_without_a_group() {
        let (one, _other) = tokio::net::UnixStream::pair().unwrap();
        assert!(Gate::new(None).admits(one.peer_cred().unwrap()).await);
    }

    #[tokio::test]
    async fn strangers_are_not() {
        let (one, _other) = tokio::net::UnixStream::pair().unwrap();
        let peer = one.peer_cred().unwrap();
        // Only a peer that is not root can be a stranger: root always passes.
        let gate = Gate { own: Uid::from_raw(4_000_123), group: None };
        assert_eq!(gate.admits(peer).await, peer.uid() == 0);
    }
}
