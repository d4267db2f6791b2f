//! The state directory: what outlives a restart of the daemon, in one file that is replaced whole.
//!
//! A crash at any moment leaves the file of a few seconds before. A file that cannot be used is set aside, never an
//! obstacle to starting.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tracer_core::state::{State, StateError};

/// How often it is written. Together with the time that takes, less than the ten seconds that may be lost.
pub const KEEP_EVERY: Duration = Duration::from_secs(5);

/// Larger than any state within the tracker's bounds.
const BYTES_MAX: u64 = 256 << 20;

/// The directory, and the right to write there for as long as this lives.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Makes the directory if need be, and takes it: an error if another daemon has it.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let made = fs::DirBuilder::new().recursive(true).mode(0o750).create(path);
        made.with_context(|| format!("cannot make the state directory {shown}"))?;
        let lock = path.join("lock");
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o640).open(lock);
        let lock = lock.with_context(|| format!("cannot write to the state directory {shown}"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                bail!("another socklife uses the state directory {shown}: give each its own --state-dir")
            }
            Err(TryLockError::Error(error)) => Err(error).context(format!("cannot lock the state directory {shown}")),
        }
    }

    /// What was left there in this boot, if it can be used.
    #[must_use]
    pub fn read(&self, boot_id: &str) -> Option<State> {
        let file = self.file();
        let bytes = match read_bounded(&file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "cannot read the state: starting without it");
                return None;
            }
        };
        match State::decode(&bytes) {
            Ok(state) if state.boot_id == boot_id => Some(state),
            Ok(_) => {
                tracing::info!(file = %file.display(), "the state is of an earlier boot: starting without it");
                None
            }
            Err(error) => {
                self.set_aside(error);
                None
            }
        }
    }

    /// Keeps one file that could not be used, for whoever wants to know why.
    fn set_aside(&self, why: StateError) {
        let (file, aside) = (self.file(), self.path.join("state.damaged"));
        match fs::rename(&file, &aside) {
            Ok(()) => {
                let aside = aside.display();
                tracing::warn!(file = %file.display(), error = %why, %aside, "the state is set aside: starting without it");
            }
            Err(error) => {
                tracing::warn!(file = %file.display(), error = %why, rename = %error, "starting without the state");
            }
        }
    }

    /// Replaces what is there.
    pub fn write(&self, bytes: &[u8]) -> std::io::Result<()> {
        let unfinished = self.path.join("state.new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        fs::rename(&unfinished, self.file())?;
        // The rename itself survives a loss of power only then.
        File::open(&self.path)?.sync_all()
    }

    fn file(&self) -> PathBuf {
        self.path.join("state")
    }
}

fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State { boot_id: "this".to_owned(), ..State::default() }
    }

    #[test]
    fn what_was_written_is_read_in_the_same_boot() {
        let root = tempfile::tempdir().unwrap();
        let dir = StateDir::open(&root.path().join("a/b")).unwrap();
        assert_eq!(dir.read("this"), None);
        dir.write(&state().encode().unwrap()).unwrap();
        assert_eq!(dir.read("this"), Some(state()));
        assert_eq!(dir.read("another"), None);
    }

    #[test]
    fn a_damaged_state_is_set_aside_and_not_in_the_way() {
        let root = tempfile::tempdir().unwrap();
        let dir = StateDir::open(root.path()).unwrap();
        for damage in [&b""[..], b"socklsta", b"something else"] {
            fs::write(dir.file(), damage).unwrap();
            assert_eq!(dir.read("this"), None);
            assert!(!dir.file().try_exists().unwrap());
            assert_eq!(fs::read(root.path().join("state.damaged")).unwrap(), damage);
        }
        dir.write(&state().encode().unwrap()).unwrap();
        assert_eq!(dir.read("this"), Some(state()));
    }

    #[test]
    fn a_write_that_was_cut_off_leaves_what_was_before() {
        let root = tempfile::tempdir().unwrap();
        let dir = StateDir::open(root.path()).unwrap();
        dir.write(&state().encode().unwrap()).unwrap();
        fs::write(root.path().join("state.new"), b"half").unwrap();
        assert_eq!(dir.read("this"), Some(state()));
    }

    #[test]
    fn two_daemons_do_not_share_a_directory() {
        let root = tempfile::tempdir().unwrap();
        let first = StateDir::open(root.path()).unwrap();
        let error = StateDir::open(root.path()).unwrap_err().to_string();
        assert!(error.starts_with("another socklife uses the state directory"), "{error}");
        drop(first);
        StateDir::open(root.path()).unwrap();
    }
}
