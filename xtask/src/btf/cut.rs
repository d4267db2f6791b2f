//! What is kept of a kernel's types: the structures that the kernel programs read, whole; of everything that they only
//! contain, name and size.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};

use super::blob::{Kind, Member, Type};

/// Structures with all their members. Those of `tracer-user/src/capture/offsets.rs` have to be among them.
const KEPT: &[&str] = &[
    "sock_common",
    "sock",
    "inet_sock",
    "inet_connection_sock",
    "tcp_sock",
    "request_sock",
    "inet_request_sock",
    "net",
    "ns_common",
    "task_struct",
    "signal_struct",
    "files_struct",
    "fdtable",
    "file",
    "socket",
    "socket_alloc",
    "inode",
    "sk_buff",
    "pt_regs",
    "proto_accept_arg",
];
/// Enumerations with all their values, where there are any.
const KEPT_ENUMS: &[&str] = &["skb_drop_reason"];
/// Which structures every kernel has.
const REQUIRED: &[&str] = &["sock_common", "sock", "tcp_sock", "task_struct", "file", "pt_regs"];
/// Types that contain each other by value are never this deep.
const MAX_DEPTH: u32 = 64;

/// The types to keep, in an order in which each stands after those it is made of.
pub fn cut(all: &[Type]) -> Result<Vec<Type>> {
    let mut kept = Kept { all, out: Vec::new(), same: BTreeMap::new(), ids: BTreeMap::new() };
    for (at, each) in all.iter().enumerate() {
        let wanted = match each.kind {
            Kind::Struct => KEPT,
            Kind::Enum => KEPT_ENUMS,
            _ => &[],
        };
        if wanted.contains(&each.name.as_str()) {
            kept.keep(u32::try_from(at)? + 1, 0)?;
        }
    }
    for name in REQUIRED {
        ensure!(kept.out.iter().any(|each| each.name == *name && !each.members.is_empty()), "it has no struct {name}");
    }
    Ok(kept.out)
}

struct Kept<'a> {
    all: &'a [Type],
    out: Vec<Type>,
    /// Types that have come out the same are one.
    same: BTreeMap<Type, u32>,
    /// Old id to new id.
    ids: BTreeMap<u32, u32>,
}

impl Kept<'_> {
    /// Keeps a type and what it is made of; its new id.
    fn keep(&mut self, id: u32, depth: u32) -> Result<u32> {
        ensure!(depth < MAX_DEPTH, "types that contain themselves");
        if id == 0 {
            return Ok(0);
        }
        if let Some(new) = self.ids.get(&id) {
            return Ok(*new);
        }
        let Some(old) = self.all.get(id as usize - 1) else { bail!("a type refers to id {id}, which is not there") };
        let mut new = old.clone();
        match old.kind {
            Kind::Struct | Kind::Union if old.name.is_empty() || KEPT.contains(&old.name.as_str()) => {
                for Member { id, .. } in &mut new.members {
                    *id = self.keep(*id, depth + 1)?;
                }
            }
            Kind::Struct | Kind::Union => new.members.clear(),
            Kind::Enum if KEPT_ENUMS.contains(&old.name.as_str()) => {}
            Kind::Enum => new.values.clear(),
            Kind::Enum64 => new.rest.clear(),
            // What it points to is another structure's matter.
            Kind::Ptr => new.size_or_type = 0,
            Kind::Array => {
                for part in new.rest.iter_mut().take(2) {
                    *part = self.keep(*part, depth + 1)?;
                }
            }
            Kind::Typedef | Kind::Volatile | Kind::Const | Kind::Restrict | Kind::TypeTag => {
                new.size_or_type = self.keep(old.size_or_type, depth + 1)?;
            }
            Kind::Int | Kind::Fwd | Kind::Float => {}
            Kind::Func | Kind::FuncProto | Kind::Var | Kind::Datasec | Kind::DeclTag => {
                bail!("a structure with a member of a kind that none can have: {:?}", old.kind)
            }
        }
        let next = u32::try_from(self.out.len())? + 1;
        let place = *self.same.entry(new.clone()).or_insert(next);
        if place == next {
            self.out.push(new);
        }
        self.ids.insert(id, place);
        Ok(place)
    }
}

#[cfg(test)]
mod tests {
    use super::super::blob;
    use super::*;

    fn new(kind: Kind, name: &str, size_or_type: u32, members: &[(&str, u32, u32)], rest: &[u32]) -> Type {
        let member =
            |(name, id, offset): &(&str, u32, u32)| Member { name: (*name).to_owned(), id: *id, offset: *offset };
        let members = members.iter().map(member).collect();
        Type {
            name: name.to_owned(),
            kind,
            flag: false,
            size_or_type,
            members,
            values: Vec::new(),
            rest: rest.to_vec(),
        }
    }

    /// A kernel in small: the required structures with one member each, and what surrounds them.
    fn kernel() -> Vec<Type> {
        let mut all = vec![
            new(Kind::Int, "int", 4, &[], &[0x20]),
            new(Kind::Struct, "other", 8, &[("inner", 1, 0)], &[]),
            new(Kind::Ptr, "", 2, &[], &[]),
            new(Kind::Union, "", 8, &[("named_in_it", 1, 0), ("pointer", 3, 0)], &[]),
            new(Kind::FuncProto, "", 1, &[], &[]),
            new(Kind::Func, "file", 5, &[], &[]),
            new(Kind::Struct, "unrelated", 8, &[("x", 1, 0)], &[]),
            new(Kind::Struct, "sock_common", 24, &[("", 4, 0), ("other", 2, 64), ("last", 1, 128)], &[]),
        ];
        all.extend(REQUIRED[1..].iter().map(|name| new(Kind::Struct, name, 4, &[("x", 1, 0)], &[])));
        all
    }

    #[test]
    fn members_stay_where_they_are_and_the_rest_goes() {
        let cut = cut(&kernel()).unwrap();
        let names: Vec<&str> = cut.iter().map(|each| each.name.as_str()).collect();
        assert_eq!(names[..5], ["int", "", "", "other", "sock_common"], "{names:?}");
        assert_eq!(cut.len(), 4 + REQUIRED.len());
        assert_eq!(cut[1], new(Kind::Ptr, "", 0, &[], &[]));
        assert_eq!(
            cut[2].members,
            [("named_in_it", 1), ("pointer", 2)].map(|(name, id)| Member { name: name.to_owned(), id, offset: 0 })
        );
        assert_eq!(cut[3], new(Kind::Struct, "other", 8, &[], &[]), "size alone");
        assert_eq!(
            cut[4],
            new(Kind::Struct, "sock_common", 24, &[("", 3, 0), ("other", 4, 64), ("last", 1, 128)], &[])
        );
    }

    #[test]
    fn what_is_written_is_read_again() {
        let cut = cut(&kernel()).unwrap();
        let bytes = blob::write(&cut).unwrap();
        assert_eq!(blob::length(&bytes), Some(bytes.len()));
        assert_eq!(blob::read(&bytes).unwrap(), cut);
        for end in 0..bytes.len() {
            assert!(blob::read(&bytes[..end]).is_err(), "{end} bytes were taken for the whole");
        }
    }

    #[test]
    fn a_kernel_without_a_structure_is_refused() {
        let error = cut(&kernel()[..8]).unwrap_err().to_string();
        assert!(error.contains("no struct sock"), "{error}");
    }
}
