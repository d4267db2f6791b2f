//! Takes secrets out of command lines. Pure.
//!
//! Errs on the side of hiding: what looks like a secret goes, and with it sometimes a word that was none. It cannot know
//! a secret that nothing marks as one (a bare word after an unknown program's own option), which is why command lines
//! are off by default.
//!
//! Here: whole arguments and the conventions of single programs. Inside one argument: [`text`].

mod text;

use tracer_core::identity::file_name;

/// What stands for a secret.
pub const MASK: &str = "***";

/// Bytes of a redacted command line.
pub const CMDLINE_MAX: usize = 4_096;

/// How deep commands within arguments (`sh -c 'sh -c "…"'`) are taken apart.
const DEPTH_MAX: u8 = 3;

/// A program whose options say nothing of secrets in their names.
struct Client {
    /// Names, or beginnings of names where they end in `*`.
    names: &'static [&'static str],
    /// Options with a secret in the same word.
    attached: &'static [&'static str],
    /// Options with a secret in the next word.
    next: &'static [&'static str],
    /// Options with `user:secret` in the same word or the next.
    user: &'static [&'static str],
    /// Whether a word `user/secret@database` logs in.
    slash_login: bool,
}

const CLIENT: Client = Client { names: &[], attached: &[], next: &[], user: &[], slash_login: false };

const CLIENTS: &[Client] = &[
    Client { names: &["mysqlsh", "mycli", "mydumper", "myloader"], attached: &["-p"], next: &["-p"], ..CLIENT },
    // Their `-p` alone asks at the terminal.
    Client { names: &["mysql*", "mariadb*", "xtrabackup", "mariabackup"], attached: &["-p"], ..CLIENT },
    Client { names: &["mongo*", "cqlsh", "cypher-shell", "sshpass"], attached: &["-p"], next: &["-p"], ..CLIENT },
    Client { names: &["redis-*", "valkey-*", "keydb-*"], next: &["-a"], ..CLIENT },
    Client { names: &["sqlcmd", "bcp", "osql", "tsql"], attached: &["-P"], next: &["-P"], ..CLIENT },
    Client { names: &["ldap*"], attached: &["-w"], next: &["-w"], ..CLIENT },
    Client { names: &["influx"], next: &["-t", "-p"], ..CLIENT },
    Client { names: &["curl"], user: &["-u", "-U", "--user", "--proxy-user"], ..CLIENT },
    Client { names: &["etcdctl"], user: &["--user"], ..CLIENT },
    Client { names: &["sqlplus", "sqlldr", "exp", "imp", "expdp", "impdp", "rman"], slash_login: true, ..CLIENT },
];

impl Client {
    fn of(word: &str) -> Option<&'static Self> {
        let name = file_name(word);
        CLIENTS.iter().find(|client| {
            client
                .names
                .iter()
                .any(|known| known.strip_suffix('*').map_or(name == *known, |start| name.starts_with(start)))
        })
    }
}

/// What the word before says of this one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Plain,
    Secret,
    UserAndSecret,
}

/// `arguments` without their secrets; as many as came in.
#[must_use]
pub fn arguments(arguments: &[String]) -> Vec<String> {
    words(arguments.iter().map(String::as_str), 0)
}

/// The arguments as one redacted line, quoted where a shell would need it, at most [`CMDLINE_MAX`] bytes; `…` shows that
/// something was cut off.
#[must_use]
pub fn cmdline(list: &[String]) -> String {
    const CUT: &str = "…";
    let mut line = String::new();
    for word in arguments(list) {
        if !line.is_empty() {
            line.push(' ');
        }
        if word.is_empty() || word.contains(char::is_whitespace) {
            line.push('\'');
            line.push_str(&word.replace('\'', r"'\''"));
            line.push('\'');
        } else {
            line.push_str(&word);
        }
        if line.len() > CMDLINE_MAX {
            line.truncate(line.floor_char_boundary(CMDLINE_MAX - CUT.len()));
            line.push_str(CUT);
            break;
        }
    }
    line
}

fn words<'a>(input: impl Iterator<Item = &'a str>, depth: u8) -> Vec<String> {
    let (mut client, mut next) = (None, Next::Plain);
    input
        .map(|word| {
            client = Client::of(unquoted(word)).or(client);
            // Another long option is no value; a secret may well begin with one dash.
            let is_value =
                !word.strip_prefix("--").is_some_and(|name| name.starts_with(|c: char| c.is_ascii_lowercase()));
            let before = std::mem::replace(&mut next, Next::Plain);
            match before {
                Next::Secret if is_value => return MASK.to_owned(),
                Next::UserAndSecret if is_value => return user_and_secret(word),
                _ => {}
            }
            if let Some(shown) = client.and_then(|client| of_client(word, client)) {
                return shown;
            }
            next = announced(word, client);
            inside(word, depth)
        })
        .collect()
}

/// Whether `word` announces a secret in the next word.
fn announced(word: &str, client: Option<&Client>) -> Next {
    let dashed = word.starts_with('-');
    let name = word.trim_start_matches('-');
    let is_name = !name.is_empty() && name.bytes().all(text::is_key_byte);
    // `--password`, and bare words as in `CONFIG SET requirepass`.
    if is_name && text::is_secret_name(name) && (dashed || text::is_plain_secret_word(name)) {
        return Next::Secret;
    }
    match client {
        Some(client) if client.next.contains(&word) => Next::Secret,
        Some(client) if client.user.contains(&word) => Next::UserAndSecret,
        _ => Next::Plain,
    }
}

/// `word` under the conventions of one program; `None` if they do not apply.
fn of_client(word: &str, client: &Client) -> Option<String> {
    let after = |options: &[&'static str]| {
        options.iter().find_map(|option| Some((*option, word.strip_prefix(option).filter(|rest| !rest.is_empty())?)))
    };
    if let Some((option, _)) = after(client.attached) {
        return Some(format!("{option}{MASK}"));
    }
    if let Some((option, rest)) = after(client.user)
        && (option.starts_with("--") == rest.starts_with('='))
    {
        return Some(format!("{option}{}", user_and_secret(rest)));
    }
    if client.slash_login && !word.starts_with(['-', '@', '/']) {
        let (user, rest) = word.split_once('/')?;
        let database = rest.rfind('@').and_then(|at| rest.get(at..)).unwrap_or_default();
        return Some(format!("{user}/{MASK}{database}"));
    }
    None
}

/// `user:secret` without the secret.
fn user_and_secret(word: &str) -> String {
    word.split_once(':').map_or_else(|| word.to_owned(), |(user, _)| format!("{user}:{MASK}"))
}

/// One argument by itself: what its text shows, then, if it holds words, as a command of its own.
fn inside(word: &str, depth: u8) -> String {
    // `NAME=VALUE`, `--name=value`: all of the value, blanks included.
    if let Some((name, value)) = word.split_once('=')
        && name.bytes().all(text::is_key_byte)
        && text::is_secret_name(name)
        && !value.is_empty()
    {
        return format!("{name}={MASK}");
    }
    let seen = text::redact(word);
    if depth >= DEPTH_MAX || !seen.contains(char::is_whitespace) {
        return seen;
    }
    if let Some(quote) = quote(&seen) {
        return format!("{quote}{}{quote}", inside(unquoted(&seen), depth + 1));
    }
    let pieces = pieces(&seen);
    if pieces.len() < 2 {
        return seen;
    }
    let parts = words(pieces.iter().map(|(_, word)| *word), depth + 1);
    pieces.iter().zip(parts).flat_map(|((blank, _), word)| [(*blank).to_owned(), word]).collect()
}

/// The words of a command and the blanks before each; quotes hold words together. A last empty word keeps the blanks at
/// the end.
fn pieces(line: &str) -> Vec<(&str, &str)> {
    let mut out = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        let start = rest.find(|c: char| !c.is_whitespace()).unwrap_or(rest.len());
        let (blank, from) = rest.split_at(start);
        let mut open = None;
        let end = from.find(|c: char| {
            match (open, c) {
                (None, '"' | '\'') => open = Some(c),
                (Some(quote), _) if quote == c => open = None,
                _ => {}
            }
            open.is_none() && c.is_whitespace()
        });
        let (word, left) = from.split_at(end.unwrap_or(from.len()));
        out.push((blank, word));
        rest = left;
    }
    out
}

/// The quote around the whole of `word`.
fn quote(word: &str) -> Option<char> {
    let quote = word.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let inner = word.strip_prefix(quote)?.strip_suffix(quote)?;
    (!inner.contains(quote)).then_some(quote)
}

fn unquoted(word: &str) -> &str {
    match quote(word) {
        Some(quote) => word.trim_matches(quote),
        None => word,
    }
}

#[cfg(test)]
mod tests;
