//! The few system calls on somebody else's socket. No judgement; every `unsafe` of `probe` but the guard's fork.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use libc::{c_int, c_void, socklen_t};
use tracer_core::inventory::SocketInfo;
use tracer_core::tcp::TcpState;

use crate::inventory;

/// `TCP_REPAIR_OFF` (include/uapi/linux/tcp.h): ends a repair that there is none of, and sends a probe.
const TCP_REPAIR_OFF: c_int = 0;
/// `SK_CAN_REUSE` (include/net/sock.h): what SO_REUSEADDR sets. The kernel has a third value, for sockets under repair.
const CAN_REUSE: c_int = 1;
/// `struct tcp_info` of Linux 6.18 has 280 bytes; what is longer is cut off by the kernel.
const INFO_BYTES: usize = 256;
/// Where `tcpi_segs_in` is in it, since Linux 4.2.
const SEGMENTS_IN: usize = 140;
/// `SIOCGSKNS` (include/uapi/linux/sockios.h), since Linux 4.10.
const SIOCGSKNS: u16 = 0x894c;

/// A descriptor of a process that cannot be mixed up with a later one of the same number.
pub(super) fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes numbers only; a descriptor that it returns is new and nobody else's.
    unsafe { descriptor(libc::syscall(libc::SYS_pidfd_open, pid, 0)) }
}

/// A copy of a process' descriptor, closed on exec.
pub(super) fn pidfd_getfd(process: BorrowedFd<'_>, fd: u32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes numbers only; a descriptor that it returns is new and nobody else's.
    unsafe { descriptor(libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0)) }
}

/// # Safety
/// `returned` has to be what a system call that makes a descriptor returned.
unsafe fn descriptor(returned: libc::c_long) -> io::Result<OwnedFd> {
    match c_int::try_from(returned) {
        // SAFETY: the caller vouches for it: the descriptor is open and ours alone.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What `struct tcp_info` says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub state: TcpState,
    pub info: SocketInfo,
    /// Segments received.
    pub segments_in: u32,
}

pub(super) fn facts(fd: BorrowedFd<'_>) -> io::Result<Facts> {
    let mut bytes = [0u8; INFO_BYTES];
    let len = get(fd, libc::IPPROTO_TCP, libc::TCP_INFO, &mut bytes)?;
    let bytes = bytes.get(..len).unwrap_or_default();
    let strange = || io::Error::other("TCP_INFO is too short");
    let state = bytes.first().and_then(|number| TcpState::from_kernel(*number)).ok_or_else(strange)?;
    let segments = bytes.get(SEGMENTS_IN..).and_then(|rest| rest.first_chunk::<4>()).ok_or_else(strange)?;
    Ok(Facts { state, info: inventory::socket_info(bytes), segments_in: u32::from_ne_bytes(*segments) })
}

/// The kernel's own identity of a socket, which sock_diag knows it by.
pub(super) fn cookie(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let mut bytes = [0u8; 8];
    get(fd, libc::SOL_SOCKET, libc::SO_COOKIE, &mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

/// The network namespace a socket is in.
pub(super) fn namespace(fd: BorrowedFd<'_>) -> io::Result<File> {
    // SAFETY: this ioctl takes no argument; a descriptor that it returns is new and nobody else's.
    unsafe { descriptor(libc::ioctl(fd.as_raw_fd(), SIOCGSKNS.into()).into()) }.map(File::from)
}

/// Whether somebody has the socket under repair, to move it (CRIU): then it is not to be touched.
pub(super) fn is_under_repair(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let repair = get_int(fd, libc::IPPROTO_TCP, libc::TCP_REPAIR)?;
    Ok(repair != 0 || get_int(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR)? > CAN_REUSE)
}

/// SO_REUSEADDR.
pub(super) fn reuses_address(fd: BorrowedFd<'_>) -> io::Result<bool> {
    get_int(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR).map(|value| value != 0)
}

/// Sets SO_REUSEADDR where it is not set.
pub(super) fn restore_reuse_address(fd: BorrowedFd<'_>) -> io::Result<()> {
    if reuses_address(fd)? { Ok(()) } else { set_int(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, CAN_REUSE) }
}

/// Has the kernel send one probe, if the connection is established. Clears SO_REUSEADDR.
pub(super) fn send_probe(fd: BorrowedFd<'_>) -> io::Result<()> {
    set_int(fd, libc::IPPROTO_TCP, libc::TCP_REPAIR, TCP_REPAIR_OFF)
}

fn get_int(fd: BorrowedFd<'_>, level: c_int, name: c_int) -> io::Result<c_int> {
    let mut bytes = [0u8; size_of::<c_int>()];
    get(fd, level, name, &mut bytes)?;
    Ok(c_int::from_ne_bytes(bytes))
}

/// The bytes that the kernel wrote.
fn get(fd: BorrowedFd<'_>, level: c_int, name: c_int, value: &mut [u8]) -> io::Result<usize> {
    let mut len = socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    // SAFETY: `value` is writable for `len` bytes, and `len` for the call.
    let outcome =
        unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, value.as_mut_ptr().cast::<c_void>(), &raw mut len) };
    if outcome == 0 { Ok(len as usize) } else { Err(io::Error::last_os_error()) }
}

fn set_int(fd: BorrowedFd<'_>, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let len = socklen_t::try_from(size_of::<c_int>()).map_err(io::Error::other)?;
    // SAFETY: `value` is readable for the call, and `len` is its size.
    let outcome = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast::<c_void>(), len) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
