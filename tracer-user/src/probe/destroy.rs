//! Closes one socket of the kernel's by its cookie (`SOCK_DESTROY`): that very socket or none. The request's bytes and
//! the thread that enters its namespace; whether it should be closed is decided elsewhere.

use std::fs::File;
use std::net::{IpAddr, SocketAddr};

use nix::sched::{CloneFlags, setns};

use super::ProbeError;
use crate::inventory::{self, InventoryError, WireError};

/// `SOCK_DESTROY` (include/uapi/linux/sock_diag.h), since Linux 4.5.
const SOCK_DESTROY: u16 = 21;
/// `struct nlmsghdr` and `struct inet_diag_req_v2`.
const REQUEST_LEN: usize = 16 + 56;
/// The only request on its netlink socket.
const SEQUENCE: u32 = 1;

/// One socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doomed {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub cookie: u64,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The kernel has closed it.
    Closed,
    /// There is no such socket any more.
    Gone,
    /// The kernel's reason.
    Failed(String),
}

/// Closes it in the namespace it is in. Its application gets ECONNABORTED, its peer a reset, if the path lets it through.
pub(super) fn destroy(namespace: File, doomed: Doomed) -> Result<Outcome, ProbeError> {
    let work = move || {
        setns(namespace, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| InventoryError::Netlink { step: "enter its network namespace", source: errno.into() })?;
        inventory::command(&request(&doomed), SEQUENCE)
    };
    // On a thread that ends with it: no other thread changes its namespace.
    let thread = std::thread::Builder::new().name("destroy".to_owned()).spawn(work);
    let failed = |source| ProbeError::Inventory(InventoryError::Thread { source });
    match thread.map_err(failed)?.join().map_err(|_| failed(std::io::Error::other("it panicked")))? {
        Ok(()) => Ok(Outcome::Closed),
        Err(InventoryError::Wire(WireError::Kernel(errno))) => match errno {
            libc::ENOENT | libc::ESTALE => Ok(Outcome::Gone),
            libc::EPERM => Err(ProbeError::CloseDenied),
            libc::EOPNOTSUPP => Err(ProbeError::NoDestroy),
            other => Ok(Outcome::Failed(std::io::Error::from_raw_os_error(other).to_string())),
        },
        Err(other) => Ok(Outcome::Failed(other.to_string())),
    }
}

/// `nlmsghdr`, then `inet_diag_req_v2`: family, protocol, extensions, padding, states, `inet_diag_sockid`.
fn request(doomed: &Doomed) -> Vec<u8> {
    let mut out = Vec::with_capacity(REQUEST_LEN);
    out.extend_from_slice(&u32::try_from(REQUEST_LEN).unwrap_or_default().to_ne_bytes());
    out.extend_from_slice(&SOCK_DESTROY.to_ne_bytes());
    let flags = u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_ACK).unwrap_or_default();
    out.extend_from_slice(&flags.to_ne_bytes());
    out.extend_from_slice(&SEQUENCE.to_ne_bytes());
    out.extend_from_slice(&0u32.to_ne_bytes());
    // A socket with v4-mapped addresses is found by its IPv4 ones: the kernel's hash does not know the difference.
    let family = if doomed.local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let byte = |value: libc::c_int| u8::try_from(value).unwrap_or_default();
    out.extend_from_slice(&[byte(family), byte(libc::IPPROTO_TCP), 0, 0]);
    out.extend_from_slice(&u32::MAX.to_ne_bytes());
    out.extend_from_slice(&doomed.local.port().to_be_bytes());
    out.extend_from_slice(&doomed.remote.port().to_be_bytes());
    out.extend_from_slice(&octets(doomed.local.ip()));
    out.extend_from_slice(&octets(doomed.remote.ip()));
    out.extend_from_slice(&0u32.to_ne_bytes());
    // Two words, the lower one first, on any machine.
    let halves = [doomed.cookie & u64::from(u32::MAX), doomed.cookie >> 32];
    out.extend(halves.iter().flat_map(|half| u32::try_from(*half).unwrap_or_default().to_ne_bytes()));
    out
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V6(v6) => v6.octets(),
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_as_the_kernel_lays_it_out() {
        let local = "10.1.2.3:40000".parse().unwrap();
        let remote = "10.1.2.4:5432".parse().unwrap();
        let bytes = request(&Doomed { local, remote, cookie: 0x1122_3344_5566_7788 });
        assert_eq!(bytes.len(), 72);
        assert_eq!(bytes[..4], 72u32.to_ne_bytes());
        // REQUEST and ACK.
        assert_eq!((&bytes[4..6], &bytes[6..8]), (&21u16.to_ne_bytes()[..], &5u16.to_ne_bytes()[..]));
        assert_eq!(bytes[16..20], [2, 6, 0, 0]);
        assert_eq!(bytes[24..28], [0x9c, 0x40, 0x15, 0x38]);
        assert_eq!((&bytes[28..32], &bytes[44..48]), (&[10, 1, 2, 3][..], &[10, 1, 2, 4][..]));
        assert_eq!(bytes[64..68], 0x5566_7788u32.to_ne_bytes());
        assert_eq!(bytes[68..72], 0x1122_3344u32.to_ne_bytes());
        let (local, remote) = ("[2001:db8::1]:1".parse().unwrap(), "[2001:db8::2]:2".parse().unwrap());
        let bytes = request(&Doomed { local, remote, cookie: 1 });
        assert_eq!((bytes[16], bytes[28], bytes[43], bytes[59]), (10, 0x20, 1, 2));
    }
}
