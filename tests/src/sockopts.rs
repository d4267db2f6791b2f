//! Every option of a socket, byte for byte: what must be the same after somebody else has used a copy of its descriptor.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd};

use nix::libc::{self, c_int, c_void, socklen_t};

/// More than any level has.
const NAMES: c_int = 100;
/// The largest option that is not left out.
const VALUE_BYTES: usize = 256;
/// What only reads out a state that moves by itself, or does something when it is asked for: level, number, why.
const LEFT_OUT: &[(c_int, c_int, &str)] = &[
    (libc::SOL_SOCKET, libc::SO_ERROR, "takes the error away"),
    (libc::SOL_SOCKET, libc::SO_INCOMING_CPU, "the CPU of the last packet"),
    (libc::SOL_SOCKET, 55, "SO_MEMINFO: counters"),
    (libc::SOL_SOCKET, 56, "SO_INCOMING_NAPI_ID: of the last packet"),
    (libc::SOL_SOCKET, 77, "SO_PEERPIDFD: makes a descriptor"),
    (libc::SOL_SOCKET, libc::SO_SNDBUF, "grows with the traffic"),
    (libc::SOL_SOCKET, libc::SO_RCVBUF, "grows with the traffic"),
    (libc::IPPROTO_TCP, libc::TCP_INFO, "counters"),
    (libc::IPPROTO_TCP, 26, "TCP_CC_INFO: counters"),
    (libc::IPPROTO_TCP, 24, "TCP_TIMESTAMP: a clock"),
    (libc::IPPROTO_TCP, libc::TCP_QUICKACK, "follows the traffic"),
    (libc::IPPROTO_TCP, libc::TCP_WINDOW_CLAMP, "grows with the traffic"),
    (libc::IPPROTO_TCP, 35, "TCP_ZEROCOPY_RECEIVE: receives"),
];

/// Level and number, and the value's bytes or the error's number.
pub type Options = BTreeMap<(c_int, c_int), Result<Vec<u8>, i32>>;

/// Every option of `socket` that does not move by itself.
pub fn options(socket: &impl AsFd) -> Options {
    let fd = socket.as_fd().as_raw_fd();
    let levels = [libc::SOL_SOCKET, libc::IPPROTO_IP, libc::IPPROTO_TCP];
    let all = levels.into_iter().flat_map(|level| (0..NAMES).map(move |name| (level, name)));
    let asked = all.filter(|asked| !LEFT_OUT.iter().any(|(level, name, _)| (*level, *name) == *asked));
    asked.map(|(level, name)| ((level, name), get(fd, level, name))).collect()
}

/// `tcpi_state` and `tcpi_probes`: its state in the kernel's numbering, and keepalive or window probes without answer.
pub fn state_and_probes(socket: &impl AsFd) -> Option<(u8, u8)> {
    let info = get(socket.as_fd().as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO).ok()?;
    Some((*info.first()?, *info.get(3)?))
}

fn get(fd: c_int, level: c_int, name: c_int) -> Result<Vec<u8>, i32> {
    let mut value = vec![0u8; VALUE_BYTES];
    let mut len = socklen_t::try_from(VALUE_BYTES).map_err(|_| libc::EINVAL)?;
    // SAFETY: `value` is writable for `len` bytes, and `len` for the call.
    let outcome = unsafe { libc::getsockopt(fd, level, name, value.as_mut_ptr().cast::<c_void>(), &raw mut len) };
    if outcome != 0 {
        return Err(std::io::Error::last_os_error().raw_os_error().unwrap_or_default());
    }
    value.truncate(len as usize);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use nix::sys::socket::{setsockopt, sockopt};

    use super::*;

    #[test]
    fn a_change_of_any_option_shows() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let before = options(&socket);
        assert!(before.values().filter(|value| value.is_ok()).count() > 40, "{before:?}");
        assert_eq!(options(&socket), before);
        setsockopt(&socket, sockopt::ReuseAddr, &false).unwrap();
        assert_ne!(options(&socket), before);
        setsockopt(&socket, sockopt::ReuseAddr, &true).unwrap();
        assert_eq!(options(&socket), before);
        setsockopt(&socket, sockopt::TcpKeepIdle, &77).unwrap();
        assert_ne!(options(&socket), before);
    }
}
