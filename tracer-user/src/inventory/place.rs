//! One network namespace that is asked: the calling thread's own, or another one by way of the [`Door`]. What is read of a
//! namespace is read through this, so that nobody need be in it.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::door::{self, Door, Thing};
use crate::process::files::{Bounded, bounded, read_bounded};

/// A network namespace.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub proc_root: &'a Path,
    elsewhere: Option<Elsewhere<'a>>,
}

#[derive(Debug)]
struct Elsewhere<'a> {
    door: &'a Door,
    namespace: File,
    /// What was opened ahead and not used yet.
    ahead: RefCell<Vec<(Thing, Result<OwnedFd, Errno>)>>,
}

impl<'a> Place<'a> {
    /// The calling thread's own.
    pub fn here(proc_root: &'a Path) -> Self {
        Self { proc_root, elsewhere: None }
    }

    /// The namespace of this file, if it may be entered. Opens these things in the same breath.
    pub fn enter(proc_root: &'a Path, door: &'a Door, namespace: File, ahead: &[Thing]) -> Result<Self, Errno> {
        let elsewhere = Elsewhere { door, namespace, ahead: RefCell::default() };
        elsewhere.open_ahead(proc_root, ahead)?;
        Ok(Self { proc_root, elsewhere: Some(elsewhere) })
    }

    /// Opens files that are about to be read all at once.
    pub fn ahead(&self, files: &[&str]) {
        if let Some(elsewhere) = &self.elsewhere {
            // What cannot be had shows when it is read.
            let _ = elsewhere.open_ahead(self.proc_root, &door::files(files));
        }
    }

    /// At most `max` bytes of a file below the root of /proc that tells of a namespace ([`door::file`]).
    pub fn read(&self, path: &str, max: usize) -> io::Result<Bounded> {
        match &self.elsewhere {
            None => read_bounded(&self.proc_root.join(path), max),
            Some(elsewhere) => {
                let file = elsewhere.take(self.proc_root, door::file(path).ok_or(Errno::EINVAL)?)?;
                bounded(&File::from(file), max)
            }
        }
    }

    /// A socket to the kernel in this namespace.
    pub fn socket(&self, protocol: SockProtocol) -> Result<OwnedFd, Errno> {
        let thing = door::socket(protocol).ok_or(Errno::EINVAL)?;
        match &self.elsewhere {
            None => door::open_here(self.proc_root, thing),
            Some(elsewhere) => elsewhere.take(self.proc_root, thing),
        }
    }
}

impl Elsewhere<'_> {
    fn open_ahead(&self, proc_root: &Path, things: &[Thing]) -> Result<(), Errno> {
        let opened = self.door.open(proc_root, &self.namespace, things)?;
        self.ahead.borrow_mut().extend(things.iter().copied().zip(opened));
        Ok(())
    }

    fn take(&self, proc_root: &Path, thing: Thing) -> Result<OwnedFd, Errno> {
        let mut ahead = self.ahead.borrow_mut();
        if let Some(index) = ahead.iter().position(|(known, _)| *known == thing) {
            return ahead.swap_remove(index).1;
        }
        let opened = self.door.open(proc_root, &self.namespace, &[thing])?;
        opened.into_iter().next().unwrap_or(Err(Errno::EIO))
    }
}
