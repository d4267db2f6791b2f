//! One life of one socket as it truly is, and what the kernel side remembers and tells of it.

use tracer_core::event::{ProcessId, Role, Task, Tuple};
use tracer_core::inventory::Holder;
use tracer_core::tcp::TcpState;

/// How the kernel side tells.
#[derive(Clone, Copy, Debug)]
pub struct Telling {
    /// Openings are told as they happen, always; else never, and what lives is told by reading the map of owners.
    pub openings: bool,
    /// Changes of state are told, in a thousand.
    pub states: u64,
    /// Accepts are told, in a thousand; the map of owners learns of the rest.
    pub accepts: u64,
    /// Owners that find the map full, in a thousand.
    pub map_full: u64,
}

pub type LifeId = usize;

/// One life of one socket, as it truly is.
#[derive(Clone, Debug)]
pub struct Life {
    pub sk: u64,
    pub tuple: Tuple,
    pub role: Role,
    pub state: TcpState,
    /// When it got there.
    pub changed: u64,
    pub established: Option<u64>,
    pub opener: Option<Task>,
    pub holders: Vec<Holder>,
    /// 0 while no process has it.
    pub inode: u32,
    /// The inode number it had or has.
    pub had_inode: u32,
    pub cookie: u64,
    pub ended: bool,
    /// What the kernel side remembers, if it does.
    pub entry: Option<Entry>,
    /// It began while it was traced and the kernel side had room for it.
    pub traced: bool,
    pub peer: Option<LifeId>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Entry {
    pub birth: u64,
    pub established: u64,
    pub opener: Option<Task>,
    pub closer: Option<ProcessId>,
    pub inode: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub opened: u64,
    pub closed: u64,
    pub failed: u64,
}
