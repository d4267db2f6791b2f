//! A copy of a holder's descriptor that is the very connection asked for: pids, descriptors and addresses are reused, so
//! its inode number and both ends are compared. Knows the snapshot's connection; asks the peer nothing.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::sys::socket::{SockaddrStorage, getpeername, getsockname};
use nix::sys::stat::fstat;
use tracer_core::snapshot::{Connection, HolderFd};

use super::{ProbeError, socket};

/// A copy, and whose.
#[derive(Debug)]
pub(super) struct Copy {
    fd: OwnedFd,
    process: OwnedFd,
    pub holder: HolderFd,
    pub cookie: u64,
}

/// Why there is none.
#[derive(Debug)]
pub(super) enum NoCopy {
    /// No process holds it, as far as the daemon saw.
    NoHolder,
    /// The daemon does not know its inode number, or its ends make no sense: nothing could be compared.
    NoIdentity,
    /// No holder has it any more.
    Gone,
    /// Not just this one: nothing can be asked.
    Cannot(ProbeError),
    /// The kernel's reason.
    Failed(io::Error),
}

impl Copy {
    /// From the first holder that still has it.
    pub fn take(connection: &Connection) -> Result<Self, NoCopy> {
        if connection.holders.is_empty() {
            return Err(NoCopy::NoHolder);
        }
        let (local, remote) = (connection.local.parse(), connection.remote.parse());
        let (Ok(local), Ok(remote), Some(inode)) = (local, remote, connection.inode) else {
            return Err(NoCopy::NoIdentity);
        };
        for holder in &connection.holders {
            let taken = take_from(*holder).and_then(|(process, fd)| {
                let same = is_socket(fd.as_fd(), inode) && ends(fd.as_fd()) == Some((local, remote));
                Ok(if same { Some((process, socket::cookie(fd.as_fd())?, fd)) } else { None })
            });
            match taken {
                Ok(Some((process, cookie, fd))) => return Ok(Self { fd, process, holder: *holder, cookie }),
                Ok(None) => {}
                Err(error) => match error.raw_os_error() {
                    // The process has ended; the descriptor is closed; it has no descriptors any more.
                    Some(libc::ESRCH | libc::EBADF | libc::ENOENT) => {}
                    Some(libc::EPERM | libc::EACCES) => {
                        let step = "copy a descriptor";
                        return Err(NoCopy::Cannot(ProbeError::Denied { step, pid: holder.pid }));
                    }
                    _ => return Err(NoCopy::Failed(error)),
                },
            }
        }
        Err(NoCopy::Gone)
    }

    /// Whether the holder still has it: while a copy exists, its close() does not reach the peer.
    pub fn is_still_held(&self) -> bool {
        let again = socket::pidfd_getfd(self.process.as_fd(), self.holder.fd);
        again.is_ok_and(|fd| socket::cookie(fd.as_fd()).is_ok_and(|cookie| cookie == self.cookie))
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn take_from(holder: HolderFd) -> io::Result<(OwnedFd, OwnedFd)> {
    let process = socket::pidfd_open(holder.pid)?;
    let fd = socket::pidfd_getfd(process.as_fd(), holder.fd)?;
    Ok((process, fd))
}

fn is_socket(fd: BorrowedFd<'_>, inode: u32) -> bool {
    let is_it = |stat: nix::sys::stat::FileStat| {
        stat.st_ino == u64::from(inode) && stat.st_mode & libc::S_IFMT == libc::S_IFSOCK
    };
    fstat(fd).is_ok_and(is_it)
}

/// Both ends as snapshots have them; `None` if it is not connected.
fn ends(fd: BorrowedFd<'_>) -> Option<(SocketAddr, SocketAddr)> {
    let local = getsockname::<SockaddrStorage>(fd.as_raw_fd()).ok()?;
    let remote = getpeername::<SockaddrStorage>(fd.as_raw_fd()).ok()?;
    Some((address(&local)?, address(&remote)?))
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = storage.as_sockaddr_in() {
        return Some(SocketAddr::new(IpAddr::V4(v4.ip()), v4.port()));
    }
    let v6 = storage.as_sockaddr_in6()?;
    Some(SocketAddr::new(IpAddr::V6(v6.ip()).to_canonical(), v6.port()))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::fs::MetadataExt as _;

    use super::super::fixture;
    use super::*;

    fn inode_of(stream: &TcpStream) -> u32 {
        let file = std::fs::File::from(OwnedFd::from(stream.try_clone().unwrap()));
        u32::try_from(file.metadata().unwrap().ino()).unwrap()
    }

    /// As a snapshot has a connection of this process.
    fn connection(stream: &TcpStream) -> Connection {
        let fd = u32::try_from(stream.as_raw_fd()).unwrap();
        let (local, remote) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        fixture::connection("0", &local.to_string(), &remote.to_string(), fd, inode_of(stream))
    }

    #[test]
    fn only_the_very_connection_is_copied() {
        let listener = TcpListener::bind("[::]:0").unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], listener.local_addr().unwrap().port()));
        let (stream, other) = (TcpStream::connect(address).unwrap(), TcpStream::connect(address).unwrap());
        let right = connection(&stream);
        let copy = Copy::take(&right).unwrap();
        assert!(copy.is_still_held() && copy.holder.pid == std::process::id() && copy.cookie != 0);

        // Each single difference counts.
        let gone = |connection: Connection| matches!(Copy::take(&connection), Err(NoCopy::Gone));
        assert!(gone(Connection { inode: Some(inode_of(&other)), ..right.clone() }));
        assert!(gone(Connection { local: other.local_addr().unwrap().to_string(), ..right.clone() }));
        assert!(gone(Connection { remote: "127.0.0.1:1".to_owned(), ..right.clone() }));
        assert!(gone(Connection { holders: connection(&other).holders, ..right.clone() }));
        let unknown = Connection { inode: None, ..right.clone() };
        assert!(matches!(Copy::take(&unknown), Err(NoCopy::NoIdentity)));
        let orphan = Connection { holders: Vec::new(), ..right.clone() };
        assert!(matches!(Copy::take(&orphan), Err(NoCopy::NoHolder)));

        drop(stream);
        assert!(!copy.is_still_held());
        assert!(gone(right));
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_one() {
        let listener = TcpListener::bind("[::]:0").unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], listener.local_addr().unwrap().port()));
        let stream = TcpStream::connect(address).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert_eq!(ends(accepted.as_fd()), Some((address, stream.local_addr().unwrap())));
    }
}
