//! The control socket's file: made, guarded against a second daemon, replaced when stale, removed at the end.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::unistd::{Gid, Group};

use crate::config::ApiConfig;

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody answers there.
    #[error("another socklife is running on {}: use that one, or give this one its own --socket PATH", .0.display())]
    Running(PathBuf),
    /// The path is taken by something else.
    #[error("{} exists and is not a socket: remove it, or give another --socket PATH", .0.display())]
    NotASocket(PathBuf),
    /// The system says no.
    #[error("cannot {what} {}: {error}: run as root, or give another --socket PATH", .path.display())]
    System {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What came of it.
        error: io::Error,
    },
}

/// A bound control socket. Dropping it removes the file, if it is still this one.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    pub(super) group: Option<Gid>,
    path: PathBuf,
    /// Device and inode of the file.
    file: (u64, u64),
    // Held for as long as the socket: the kernel gives it up when the process ends, however it ends.
    _lock: Flock<File>,
}

impl Socket {
    /// Binds `config.socket`.
    pub fn bind(config: &ApiConfig) -> Result<Self, BindError> {
        let path = config.socket.clone();
        let fail = |what| {
            let path = path.clone();
            move |error: io::Error| BindError::System { what, path, error }
        };
        make_directory(&path).map_err(fail("create the directory of"))?;
        let lock = lock(&path)?;
        clear_stale(&path)?;
        // Between here and the change of mode the file is open to whoever the umask lets in: the credentials of each
        // peer are checked anyway.
        let listener = UnixListener::bind(&path).map_err(fail("create the control socket"))?;
        let made = path.symlink_metadata().map_err(fail("look at the control socket"))?;
        let file = (made.dev(), made.ino());
        let group = Group::from_name(&config.group).ok().flatten().map(|group| group.gid);
        let group = group.filter(|gid| give_to_group(&path, *gid, &config.group));
        let mode = if group.is_some() { 0o660 } else { 0o600 };
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).map_err(fail("set the mode of"))?;
        listener.set_nonblocking(true).map_err(fail("set up the control socket"))?;
        Ok(Self { listener, group, path, file, _lock: lock })
    }
}

impl Socket {
    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes connections. Must be called inside a runtime.
    pub(super) fn listen(&self) -> io::Result<tokio::net::UnixListener> {
        tokio::net::UnixListener::from_std(self.listener.try_clone()?)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let ours = self.path.symlink_metadata().is_ok_and(|meta| (meta.dev(), meta.ino()) == self.file);
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

fn give_to_group(path: &Path, gid: Gid, name: &str) -> bool {
    match std::os::unix::fs::chown(path, None, Some(gid.as_raw())) {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!("cannot give {} to group {name}, it stays its owner's alone: {error}", path.display());
            false
        }
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else { return Ok(()) };
    if parent.try_exists()? {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    // The umask may have taken what members of the group need.
    std::fs::set_permissions(parent, Permissions::from_mode(0o755))
}

/// One daemon a path, decided by the kernel: two that start together cannot both find the socket stale. The file
/// stays, since removing a lock file lets two processes hold two locks of one name.
fn lock(path: &Path) -> Result<Flock<File>, BindError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let path_of_lock = PathBuf::from(name);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path_of_lock)
        .map_err(|error| BindError::System { what: "open the lock file", path: path_of_lock.clone(), error })?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => BindError::Running(path.to_owned()),
        errno => BindError::System { what: "lock", path: path_of_lock, error: errno.into() },
    })
}

/// Removes a socket nobody listens on.
fn clear_stale(path: &Path) -> Result<(), BindError> {
    let fail = |error| BindError::System { what: "look at the control socket", path: path.to_owned(), error };
    match path.symlink_metadata() {
        Ok(meta) if meta.file_type().is_socket() => {}
        Ok(_) => return Err(BindError::NotASocket(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fail(error)),
    }
    match answers(path) {
        Ok(true) => Err(BindError::Running(path.to_owned())),
        Ok(false) => {
            tracing::info!("replacing {}, left by a daemon that is gone", path.display());
            std::fs::remove_file(path).map_err(|error| BindError::System {
                what: "remove the stale socket",
                path: path.to_owned(),
                error,
            })
        }
        Err(errno) => Err(fail(errno.into())),
    }
}

/// Whether somebody listens. Does not block: with a full backlog connect says EAGAIN, and somebody owns that backlog.
fn answers(path: &Path) -> Result<bool, Errno> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let probe = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    match connect(probe.as_raw_fd(), &UnixAddr::new(path)?) {
        Ok(()) | Err(Errno::EAGAIN | Errno::EINPROGRESS) => Ok(true),
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(path: &Path) -> ApiConfig {
        ApiConfig { socket: path.to_owned(), group: "no-such-group-here".to_owned(), metrics: None }
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o7777
    }

    #[tokio::test]
    async fn made_with_its_directory_and_removed_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/socklife/s.sock");
        let socket = Socket::bind(&config(&path)).unwrap();
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o755));
        drop(socket);
        assert!(!path.try_exists().unwrap());
    }

    #[tokio::test]
    async fn belongs_to_the_group_that_exists() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let own = Group::from_gid(nix::unistd::getgid()).unwrap().unwrap();
        let socket = Socket::bind(&ApiConfig { group: own.name, socket: path.clone(), metrics: None }).unwrap();
        assert_eq!(socket.group, Some(own.gid));
        assert_eq!((mode(&path), path.metadata().unwrap().gid()), (0o660, own.gid.as_raw()));
    }

    #[tokio::test]
    async fn a_second_daemon_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let _first = Socket::bind(&config(&path)).unwrap();
        let error = Socket::bind(&config(&path)).unwrap_err();
        assert!(matches!(error, BindError::Running(_)));
        let sentence = format!("another socklife is running on {}: ", path.display());
        assert!(error.to_string().starts_with(&sentence), "{error}");
        assert!(path.try_exists().unwrap(), "the first one's socket was touched");
    }

    #[tokio::test]
    async fn whoever_listens_without_the_lock_is_respected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let _other = UnixListener::bind(&path).unwrap();
        assert!(matches!(Socket::bind(&config(&path)).unwrap_err(), BindError::Running(_)));
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.try_exists().unwrap());
        let _socket = Socket::bind(&config(&path)).unwrap();
        assert!(answers(&path).unwrap());
    }

    #[tokio::test]
    async fn other_files_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(Socket::bind(&config(&path)).unwrap_err(), BindError::NotASocket(_)));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_socket_of_another_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let socket = Socket::bind(&config(&path)).unwrap();
        std::fs::rename(&path, dir.path().join("moved")).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(socket);
        assert!(path.try_exists().unwrap());
    }
}
