//! Launcher groups: which processes were started the same way. Pure.
//!
//! Two processes share a group when program, script, user and arguments are the same, where numbers, dates and random
//! ids count as the same, and so do releases, versions and temporary names in paths ([`path`]) and versions of an
//! interpreter. A wrong group makes a wrong verdict, so anything in doubt keeps processes apart: words with digits in
//! them (`queue2`, `sha256`) stay as they are. Containers do not count: the same program in several is a replica.

pub mod path;

use tracer_core::identity::{Fnv1a, LauncherGroup};

/// Arguments that count; more are cut off.
const ARGUMENTS_MAX: usize = 64;
/// Bytes of one argument that count.
const ARGUMENT_MAX: usize = 1_024;

/// What the members of a group share.
#[derive(Clone, Copy, Debug, Default)]
pub struct Launch<'a> {
    /// The interpreter's name without its version; where there is none, the program file.
    pub program: &'a str,
    /// What an interpreter runs: a path without its release, a name, or the title a process gave itself.
    pub script: Option<&'a str>,
    /// Where a script that is no path was started (a Python module is looked up there).
    pub place: Option<&'a str>,
    /// Effective user id.
    pub uid: Option<u32>,
    /// The arguments that follow the script, or the program where there is none; secrets already taken out, so that
    /// the id gives no way to test guesses at one.
    pub arguments: &'a [String],
    /// What people call it.
    pub label: &'a str,
}

/// The group of a launch. The id is [`Fnv1a`] over program, script, place, user id and normalised arguments, each preceded
/// by its length as eight little-endian bytes and absent ones by `u64::MAX`. Part of what users store: never changed
/// without a new schema version.
#[must_use]
pub fn launcher_group(launch: &Launch<'_>) -> LauncherGroup {
    let mut hash = Fnv1a::default();
    field(&mut hash, Some(launch.program));
    field(&mut hash, launch.script);
    field(&mut hash, launch.place);
    field(&mut hash, launch.uid.map(|uid| uid.to_string()).as_deref());
    for argument in launch.arguments.iter().take(ARGUMENTS_MAX) {
        field(&mut hash, Some(&normalise(argument)));
    }
    LauncherGroup { id: hash.to_string(), label: launch.label.to_owned() }
}

/// Adds a field, so that it cannot run into the next one.
fn field(hash: &mut Fnv1a, text: Option<&str>) {
    let len = text.map_or(u64::MAX, |text| u64::try_from(text.len()).unwrap_or(u64::MAX));
    hash.write(&len.to_le_bytes());
    hash.write(text.unwrap_or_default().as_bytes());
}

/// `argument` with what differs from one start to the next replaced by placeholders: `{uuid}`, `{date}`, `{hex}`, `{n}`.
#[must_use]
pub fn normalise(argument: &str) -> String {
    let mut rest = argument;
    if rest.len() > ARGUMENT_MAX {
        rest = rest.get(..rest.floor_char_boundary(ARGUMENT_MAX)).unwrap_or_default();
    }
    let mut out = String::with_capacity(rest.len());
    while !rest.is_empty() {
        let (placeholder, used) = uuid(rest).or_else(|| date(rest)).unwrap_or_else(|| {
            let used = rest.find(|letter: char| !letter.is_alphanumeric()).unwrap_or(rest.len());
            (word(rest.get(..used).unwrap_or_default()), used)
        });
        match placeholder {
            Some(name) => out.push_str(name),
            None => out.push_str(rest.get(..used).unwrap_or_default()),
        }
        rest = rest.get(used..).unwrap_or_default();
        // Up to the next word.
        let next = rest.find(char::is_alphanumeric).unwrap_or(rest.len());
        out.push_str(rest.get(..next).unwrap_or_default());
        rest = rest.get(next..).unwrap_or_default();
    }
    out
}

type Placeholder = (Option<&'static str>, usize);

/// The placeholder of a whole word.
fn word(word: &str) -> Option<&'static str> {
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    let hex = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if digits > 0 && digits == word.len() {
        Some("{n}")
    } else if word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")).is_some_and(hex)
        || (word.len() >= 8 && digits > 0 && hex(word))
    {
        Some("{hex}")
    } else {
        None
    }
}

/// A UUID at the start of `text`, which begins a word.
fn uuid(text: &str) -> Option<Placeholder> {
    const LEN: usize = 36;
    let bytes = text.as_bytes().get(..LEN)?;
    let fits = bytes.iter().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    (fits && ends_word(text, LEN)).then_some((Some("{uuid}"), LEN))
}

/// An ISO 8601 date at the start of `text`, with its time if there is one.
fn date(text: &str) -> Option<Placeholder> {
    const DATE: &[u8] = b"dddd-dd-dd";
    if !matches(text, 0, DATE) {
        return None;
    }
    let mut end = DATE.len();
    for time in [&b"Tdd:dd:dd"[..], b"tdd:dd:dd", b" dd:dd:dd", b"_dd:dd:dd", b"Tdddddd", b"Tdd:dd"] {
        if matches(text, end, time) {
            end += time.len();
            end += fraction_and_zone(text.as_bytes().get(end..).unwrap_or_default());
            break;
        }
    }
    ends_word(text, end).then_some((Some("{date}"), end))
}

/// Length of `.123Z`, `Z`, `+01:00` or nothing.
fn fraction_and_zone(bytes: &[u8]) -> usize {
    let mut len = 0;
    if let Some((b'.', digits)) = bytes.split_first() {
        let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count > 0 {
            len = count + 1;
        }
    }
    match bytes.get(len..).unwrap_or_default() {
        [b'Z' | b'z', ..] => len + 1,
        [b'+' | b'-', a, b, b':', c, d, ..] if [a, b, c, d].iter().all(|byte| byte.is_ascii_digit()) => len + 6,
        _ => len,
    }
}

/// Whether `text` at `at` has the shape `shape`, where `d` is a digit.
fn matches(text: &str, at: usize, shape: &[u8]) -> bool {
    let part = text.as_bytes().get(at..at + shape.len());
    part.is_some_and(|part| {
        part.iter().zip(shape).all(|(byte, want)| if *want == b'd' { byte.is_ascii_digit() } else { byte == want })
    })
}

fn ends_word(text: &str, at: usize) -> bool {
    text.get(at..).is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
}

#[cfg(test)]
mod tests;
