//! Control groups named like those of container runtimes: what makes processes look as if each ran in a container. Made
//! in the v2 hierarchy and gone with the lab.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::program::until;

/// Where the v2 hierarchy is: on a hybrid host beside the others, else the only one.
const ROOTS: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

/// One control group; its processes have to be gone before it is dropped.
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// The group of a Docker container with an id that is told from others by `number`.
    pub fn of_container(number: u32) -> Result<Self> {
        let root = ROOTS.into_iter().find(|root| Path::new(root).join("cgroup.controllers").is_file());
        let root = root.context("no cgroup v2 hierarchy is mounted")?;
        let id = format!("{:032x}{:032x}", std::process::id(), number);
        let path = Path::new(root).join(format!("docker-{id}.scope"));
        match fs::create_dir(&path) {
            // Left by a lab that was killed, whose process had this one's number.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => made.with_context(|| format!("make {}", path.display()))?,
        }
        Ok(Self { path })
    }

    /// Where a process writes its number to be in it.
    pub fn door(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A process that was reaped may be in it a moment longer. Nothing more can be done than to try.
        let _ = until("an empty control group", || Ok(fs::remove_dir(&self.path).map_err(|error| error.to_string())));
    }
}
