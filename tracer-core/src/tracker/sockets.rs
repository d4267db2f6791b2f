//! The live sockets: where they are kept and how they are found. Knows nothing of what an event or a look means.
//!
//! Sockets lie in chunks, so that growing moves and reserves nothing. The indexes hold slots alone: a key is read from
//! the socket that the slot has, so a socket's tuple and kernel address change through here only.

use std::hash::BuildHasher;
use std::num::NonZeroU64;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::event::Tuple;
use crate::socket::Socket;

/// Index of a live socket.
pub(super) type Slot = u32;

/// Sockets in a chunk.
const CHUNK: usize = 512;

#[derive(Debug, Default)]
pub(super) struct Sockets {
    chunks: Chunks,
    free: Vec<Slot>,
    by_tuple: HashTable<Slot>,
    by_sk: HashTable<Slot>,
    hasher: DefaultHashBuilder,
}

#[derive(Debug, Default)]
struct Chunks(Vec<Vec<Option<Socket>>>);

impl Chunks {
    fn get(&self, slot: Slot) -> Option<&Socket> {
        self.0.get(slot as usize / CHUNK)?.get(slot as usize % CHUNK)?.as_ref()
    }

    fn entry(&mut self, slot: Slot) -> Option<&mut Option<Socket>> {
        self.0.get_mut(slot as usize / CHUNK)?.get_mut(slot as usize % CHUNK)
    }

    /// Appends a socket. Slots end at 2^32, far beyond the bound on live sockets.
    fn push(&mut self, socket: Socket) -> Slot {
        if self.0.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.0.push(Vec::with_capacity(CHUNK));
        }
        let full = (self.0.len() - 1) * CHUNK;
        let chunk = self.0.last_mut().map_or(0, |chunk| {
            chunk.push(Some(socket));
            chunk.len() - 1
        });
        Slot::try_from(full + chunk).unwrap_or(Slot::MAX)
    }
}

impl Sockets {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.by_tuple.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Socket> {
        self.chunks.0.iter().flatten().flatten()
    }

    pub(super) fn numbered(&self) -> impl Iterator<Item = (Slot, &Socket)> {
        let numbered = (0..).zip(self.chunks.0.iter().flatten());
        numbered.filter_map(|(slot, socket)| socket.as_ref().map(|socket| (slot, socket)))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Slot, &mut Socket)> {
        let numbered = (0..).zip(self.chunks.0.iter_mut().flatten());
        numbered.filter_map(|(slot, socket)| socket.as_mut().map(|socket| (slot, socket)))
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&Socket> {
        self.chunks.get(slot)
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut Socket> {
        self.chunks.entry(slot).and_then(Option::as_mut)
    }

    /// The live socket with these ends.
    pub(super) fn by_tuple(&self, tuple: &Tuple) -> Option<Slot> {
        let same = |slot: &Slot| self.chunks.get(*slot).is_some_and(|socket| socket.tuple == *tuple);
        self.by_tuple.find(self.hasher.hash_one(tuple), same).copied()
    }

    /// The live socket at that kernel address.
    pub(super) fn by_sk(&self, sk: u64) -> Option<Slot> {
        let same =
            |slot: &Slot| self.chunks.get(*slot).is_some_and(|socket| socket.sk.is_some_and(|at| at.get() == sk));
        self.by_sk.find(self.hasher.hash_one(sk), same).copied()
    }

    /// Takes a socket in. Its tuple must be free: a tuple has one live socket.
    pub(super) fn insert(&mut self, mut socket: Socket) -> Slot {
        let (tuple, sk) = (socket.tuple, socket.sk.take());
        let reused = self.free.pop();
        let slot = match reused.and_then(|slot| self.chunks.entry(slot).map(|entry| (slot, entry))) {
            Some((slot, entry)) => {
                *entry = Some(socket);
                slot
            }
            None => self.chunks.push(socket),
        };
        let (chunks, hasher) = (&self.chunks, &self.hasher);
        let hash = |slot: &Slot| chunks.get(*slot).map_or(0, |socket| hasher.hash_one(socket.tuple));
        self.by_tuple.insert_unique(hasher.hash_one(tuple), slot, hash);
        if let Some(sk) = sk {
            self.set_sk(slot, sk.get());
        }
        slot
    }

    /// Takes a socket out.
    pub(super) fn remove(&mut self, slot: Slot) -> Option<Socket> {
        let socket = self.get(slot)?;
        if let Ok(entry) = self.by_tuple.find_entry(self.hasher.hash_one(socket.tuple), |at| *at == slot) {
            entry.remove();
        }
        let sk = self.unset_sk(slot);
        let mut socket = self.chunks.entry(slot).and_then(Option::take)?;
        socket.sk = sk;
        self.free.push(slot);
        Some(socket)
    }

    /// The socket is at that kernel address, and whatever was found there before is not found there any more.
    pub(super) fn set_sk(&mut self, slot: Slot, sk: u64) {
        self.unset_sk(slot);
        let Some(sk) = NonZeroU64::new(sk) else { return };
        if let Some(before) = self.by_sk(sk.get()) {
            self.unlink_sk(before, sk);
        }
        let Some(socket) = self.get_mut(slot) else { return };
        socket.sk = Some(sk);
        let (chunks, hasher) = (&self.chunks, &self.hasher);
        let hash = |slot: &Slot| {
            let sk = chunks.get(*slot).and_then(|socket| socket.sk);
            sk.map_or(0, |sk| hasher.hash_one(sk.get()))
        };
        self.by_sk.insert_unique(hasher.hash_one(sk.get()), slot, hash);
    }

    /// Forgets at which kernel address the socket is; returns where it was.
    pub(super) fn unset_sk(&mut self, slot: Slot) -> Option<NonZeroU64> {
        let sk = self.get(slot)?.sk?;
        self.unlink_sk(slot, sk);
        self.get_mut(slot)?.sk.take()
    }

    /// Takes the slot out of the index of addresses, if the address still leads there.
    fn unlink_sk(&mut self, slot: Slot, sk: NonZeroU64) {
        if let Ok(entry) = self.by_sk.find_entry(self.hasher.hash_one(sk.get()), |at| *at == slot) {
            entry.remove();
        }
    }
}
