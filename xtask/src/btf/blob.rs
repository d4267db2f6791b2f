//! BTF as the kernel has it: a header, types of variable length with ids in their order, and their names.
//!
//! Little-endian only. Format: Documentation/bpf/btf.rst.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

/// Magic, version 1, no flags, length of the header.
pub const START: [u8; 8] = [0x9f, 0xeb, 1, 0, HEADER_BYTES, 0, 0, 0];
const HEADER_BYTES: u8 = 24;

/// What a type can be, by its number in the format and with the format's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Int = 1,
    Ptr,
    Array,
    Struct,
    Union,
    Enum,
    Fwd,
    Typedef,
    Volatile,
    Const,
    Restrict,
    Func,
    FuncProto,
    Var,
    Datasec,
    Float,
    DeclTag,
    TypeTag,
    Enum64,
}

const KINDS: [Kind; 19] = [
    Kind::Int,
    Kind::Ptr,
    Kind::Array,
    Kind::Struct,
    Kind::Union,
    Kind::Enum,
    Kind::Fwd,
    Kind::Typedef,
    Kind::Volatile,
    Kind::Const,
    Kind::Restrict,
    Kind::Func,
    Kind::FuncProto,
    Kind::Var,
    Kind::Datasec,
    Kind::Float,
    Kind::DeclTag,
    Kind::TypeTag,
    Kind::Enum64,
];

/// One type. Its id is its place in the list, counted from 1; id 0 is `void`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Type {
    /// Empty where it has none.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// A bit whose meaning depends on the kind: for structures, members may be bit fields.
    pub flag: bool,
    /// Its size in bytes, or the id of the type it is made of.
    pub size_or_type: u32,
    /// Members of structures.
    pub members: Vec<Member>,
    /// Values of an enumeration of 32 bits.
    pub values: Vec<(String, u32)>,
    /// What follows types that have neither, as it stands.
    pub rest: Vec<u32>,
}

/// A member of a structure or union.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// Empty for an anonymous structure or union.
    pub name: String,
    /// Id of its type.
    pub id: u32,
    /// In bits; with the structure's flag, the width is in the upper 8 bits.
    pub offset: u32,
}

impl Kind {
    /// 32-bit words after the type, given the number of its members or values.
    fn words(self, count: usize) -> usize {
        match self {
            Self::Int | Self::Var | Self::DeclTag => 1,
            Self::Array => 3,
            Self::Struct | Self::Union | Self::Datasec | Self::Enum64 => 3 * count,
            Self::Enum | Self::FuncProto => 2 * count,
            _ => 0,
        }
    }

    /// Whether it has members.
    pub fn has_members(self) -> bool {
        matches!(self, Self::Struct | Self::Union)
    }
}

/// Lengths of the parts: types, names. `None` where `bytes` is no such thing from its first byte on.
pub fn lengths(bytes: &[u8]) -> Option<(usize, usize)> {
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize);
    let (types_at, types, names_at, names) = (word(8)?, word(12)?, word(16)?, word(20)?);
    let whole = bytes.starts_with(&START)
        && types_at == 0
        && names_at == types
        && types > 0
        && names > 0
        && bytes.len() >= usize::from(HEADER_BYTES) + types + names;
    whole.then_some((types, names))
}

/// Its length in bytes.
pub fn length(bytes: &[u8]) -> Option<usize> {
    lengths(bytes).map(|(types, names)| usize::from(HEADER_BYTES) + types + names)
}

/// Reads all types.
pub fn read(bytes: &[u8]) -> Result<Vec<Type>> {
    let (types, names) = lengths(bytes).context("no BTF, or one of another version or byte order")?;
    let (words, names) = bytes[usize::from(HEADER_BYTES)..][..types + names].split_at(types);
    ensure!(words.len() % 4 == 0, "its types end within a word");
    let mut words = words.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    let name = |at: u32| -> Result<String> {
        let rest = names.get(at as usize..).context("a name beyond the names")?;
        let end = rest.iter().position(|byte| *byte == 0).context("a name without an end")?;
        Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
    };
    let mut all = Vec::new();
    while let Some(name_at) = words.next() {
        let (Some(info), Some(size_or_type)) = (words.next(), words.next()) else { bail!("it ends within a type") };
        let number = (info >> 24 & 0x1f) as usize;
        let kind = *number.checked_sub(1).and_then(|at| KINDS.get(at)).with_context(|| format!("kind {number}"))?;
        let after = kind.words((info & 0xffff) as usize);
        let rest: Vec<u32> = words.by_ref().take(after).collect();
        ensure!(rest.len() == after, "it ends within a type");
        let (name_of_type, flag) = (name(name_at)?, info >> 31 == 1);
        let mut read =
            Type { name: name_of_type, kind, flag, size_or_type, members: Vec::new(), values: Vec::new(), rest };
        if kind.has_members() {
            for member in std::mem::take(&mut read.rest).chunks_exact(3) {
                read.members.push(Member { name: name(member[0])?, id: member[1], offset: member[2] });
            }
        }
        if kind == Kind::Enum {
            for value in std::mem::take(&mut read.rest).chunks_exact(2) {
                read.values.push((name(value[0])?, value[1]));
            }
        }
        all.push(read);
    }
    Ok(all)
}

/// Writes types; each name once.
pub fn write(all: &[Type]) -> Result<Vec<u8>> {
    let mut names = Names { bytes: vec![0], known: BTreeMap::from([(String::new(), 0)]) };
    let mut words: Vec<u32> = Vec::new();
    for each in all {
        let count = u32::try_from(each.members.len() + each.values.len())?;
        words.push(names.place(&each.name)?);
        words.push(u32::from(each.flag) << 31 | (each.kind as u32) << 24 | count);
        words.push(each.size_or_type);
        for member in &each.members {
            words.extend([names.place(&member.name)?, member.id, member.offset]);
        }
        for (name, value) in &each.values {
            words.extend([names.place(name)?, *value]);
        }
        words.extend(&each.rest);
    }
    let types = u32::try_from(words.len() * 4)?;
    let mut bytes = START.to_vec();
    for word in [0, types, types, u32::try_from(names.bytes.len())?].iter().chain(&words) {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(names.bytes);
    Ok(bytes)
}

struct Names {
    bytes: Vec<u8>,
    known: BTreeMap<String, u32>,
}

impl Names {
    fn place(&mut self, name: &str) -> Result<u32> {
        if let Some(at) = self.known.get(name) {
            return Ok(*at);
        }
        let at = u32::try_from(self.bytes.len())?;
        self.bytes.extend(name.bytes().chain([0]));
        self.known.insert(name.to_owned(), at);
        Ok(at)
    }
}
