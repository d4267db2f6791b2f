//! A look at some sockets alone: in each of their network namespaces the kernel is asked about one after the other. It costs
//! microseconds a socket, where a look at the host walks its whole hash table.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use nix::sys::socket::SockProtocol;
use tracer_core::event::Tuple;
use tracer_core::inventory::{Glance, GlanceRow};
use tracer_core::time::BootNs;

use super::door::{self, Door, Thing};
use super::namespaces::{self, Entered, Ways};
use super::place::Place;
use super::{InventoryError, netns, network, paths, sock_diag};

/// Connections of one glance whose way is asked about.
const MOST_PATHS: usize = 128;

/// What is asked about: both ends, and the cookie if it is known, else 0.
pub type Asked = [(Tuple, u64)];

/// Asks; the namespaces that no known way leads into go to `missed`. Sockets in these are left out, as are those that are not
/// there.
pub(super) fn glance(
    proc_root: &Path,
    door: &Door,
    ways: &Ways,
    asked: &Asked,
    missed: &mut HashSet<u32>,
    now: &impl Fn() -> BootNs,
) -> Result<Glance, InventoryError> {
    let home = netns::own_netns(proc_root)?;
    let mut by_namespace = BTreeMap::<u32, Vec<(Tuple, u64)>>::new();
    for (tuple, cookie) in asked {
        by_namespace.entry(tuple.netns()).or_default().push((*tuple, *cookie));
    }
    let mut glance = Glance { started: now(), ..Glance::default() };
    if let Some(here) = by_namespace.remove(&home) {
        ask(&Place::here(proc_root), &here, &mut glance)?;
    }
    let ahead: Vec<Thing> = door::socket(SockProtocol::NetlinkSockDiag).into_iter().collect();
    for (netns, asked) in &by_namespace {
        let known = ways.get(netns).map_or(&[][..], Vec::as_slice);
        let Entered::Yes(place) = namespaces::enter(proc_root, door, *netns, known, &ahead) else {
            missed.insert(*netns);
            continue;
        };
        if let Err(error) = ask(&place, asked, &mut glance) {
            tracing::warn!(netns, %error, "cannot ask about sockets of a network namespace");
        }
    }
    glance.finished = now();
    Ok(glance)
}

fn ask(place: &Place<'_>, asked: &Asked, glance: &mut Glance) -> Result<(), InventoryError> {
    let (rows, mut troubled) = (&mut glance.sockets, Vec::new());
    sock_diag::ask_each(place, asked, |tuple, row| {
        if let Some(info) = row.info {
            troubled.extend(paths::Asked::of(*tuple, row.state, &info).filter(|asked| asked.troubled));
            rows.push(GlanceRow { tuple: *tuple, cookie: row.cookie, state: row.state, info });
        }
    })?;
    if !troubled.is_empty() {
        let most = MOST_PATHS.saturating_sub(glance.paths.len());
        glance.paths.extend(paths::ask(place, troubled, most, network::tracks(place)));
    }
    Ok(())
}
