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
    /// The word from which on the options mean that; none if they always do.
    from: Option<&'static str>,
    /// Options with a secret in the same word.
    attached: &'static [&'static str],
    /// Options with a secret in the next word.
    next: &'static [&'static str],
    /// Options with a user and a secret in the same word or the next.
    user: &'static [&'static str],
    /// What stands between those two.
    between: char,
    /// Words that a secret follows: how many words lie between, and how many are one.
    after: &'static [(&'static str, usize, usize)],
    /// Whether a word `h=host,p=secret` logs in.
    letters_login: bool,
    /// Whether a word `user/secret@database` logs in.
    slash_login: bool,
    /// Whether a word `user:secret@host` logs in.
    colon_login: bool,
}

const CLIENT: Client = Client {
    names: &[],
    from: None,
    attached: &[],
    next: &[],
    user: &[],
    between: ':',
    after: &[],
    letters_login: false,
    slash_login: false,
    colon_login: false,
};

/// To the end.
const ALL: usize = usize::MAX;

const CLIENTS: &[Client] = &[
    Client { names: &["mysqlsh"], attached: &["-p"], next: &["-p"], colon_login: true, ..CLIENT },
    Client { names: &["mycli", "mydumper", "myloader"], attached: &["-p"], next: &["-p"], ..CLIENT },
    // Their `-p` alone asks at the terminal.
    Client { names: &["mysql*", "mariadb*", "xtrabackup", "mariabackup"], attached: &["-p"], ..CLIENT },
    Client { names: &["mongo*", "cqlsh", "cypher-shell", "sshpass"], attached: &["-p"], next: &["-p"], ..CLIENT },
    Client { names: &["couchbase-cli", "cbq", "beeline", "rdesktop", "useradd", "usermod"], next: &["-p"], ..CLIENT },
    Client {
        names: &["redis-*", "valkey-*", "keydb-*"],
        attached: &[">"],
        next: &["-a"],
        after: &[("auth", 0, ALL)],
        ..CLIENT
    },
    Client { names: &["sqlcmd", "bcp", "osql", "tsql", "isql"], attached: &["-P"], next: &["-P"], ..CLIENT },
    Client { names: &["zip", "unzip", "ipmitool", "mosquitto_*"], next: &["-P"], ..CLIENT },
    Client { names: &["7z*", "rar", "unrar"], attached: &["-p", "-hp"], ..CLIENT },
    Client { names: &["ldap*"], attached: &["-w"], next: &["-w"], ..CLIENT },
    Client { names: &["snmp*"], next: &["-A", "-X", "-c"], ..CLIENT },
    Client { names: &["xfreerdp*"], attached: &["/p:"], ..CLIENT },
    Client { names: &["openssl"], next: &["-k", "-K"], ..CLIENT },
    Client { names: &["influx"], next: &["-t", "-p"], ..CLIENT },
    Client { names: &["curl"], next: &["-b"], user: &["-u", "-U", "--user", "--proxy-user"], ..CLIENT },
    Client { names: &["http", "https"], user: &["-a"], ..CLIENT },
    Client { names: &["ab"], user: &["-A", "-P"], ..CLIENT },
    Client { names: &["etcdctl"], user: &["--user"], ..CLIENT },
    Client { names: &["lftp"], user: &["-u"], between: ',', ..CLIENT },
    Client { names: &["smbclient", "rpcclient"], user: &["-U", "--user"], between: '%', ..CLIENT },
    // Elsewhere their `-p` is a port, or something else.
    Client {
        names: &["docker", "podman", "nerdctl", "buildah", "helm", "az"],
        from: Some("login"),
        next: &["-p"],
        ..CLIENT
    },
    Client { names: &["pt-*"], letters_login: true, ..CLIENT },
    Client { names: &["vault"], after: &[("unseal", 0, 1)], ..CLIENT },
    Client { names: &["aws"], after: &[("aws_secret_access_key", 0, 1), ("aws_session_token", 0, 1)], ..CLIENT },
    Client { names: &["rabbitmqctl"], after: &[("add_user", 1, 1), ("change_password", 1, 1)], ..CLIENT },
    Client { names: &["db2"], after: &[("using", 0, 1)], ..CLIENT },
    Client {
        names: &["htpasswd"],
        after: &[("-b", 2, 1), ("-bc", 2, 1), ("-cb", 2, 1), ("-nb", 1, 1), ("-bn", 1, 1)],
        ..CLIENT
    },
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

/// What the words before say of this one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Plain,
    Secret,
    /// With this between them.
    UserAndSecret(char),
    /// So many words, then so many secrets.
    Counted(usize, usize),
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
    // A later name may be that of a database or a host: who was named before is still meant.
    let mut named: Vec<&'static Client> = Vec::new();
    let mut begun: Vec<&'static Client> = Vec::new();
    let mut next = Next::Plain;
    input
        .map(|word| {
            let found = Client::of(unquoted(word));
            named.extend(found.filter(|found| !named.iter().any(|it| std::ptr::eq(*it, *found))));
            let is_begun = |it: &&&Client| it.from.is_none() || it.from == Some(word);
            let new = named.iter().filter(is_begun).filter(|it| !begun.iter().any(|old| std::ptr::eq(*old, **it)));
            let new: Vec<&'static Client> = new.copied().collect();
            begun.extend(new);
            // Another long option is no value; a secret may well begin with one dash.
            let is_value =
                !word.strip_prefix("--").is_some_and(|name| name.starts_with(|c: char| c.is_ascii_lowercase()));
            match std::mem::replace(&mut next, Next::Plain) {
                Next::Secret if is_value => return MASK.to_owned(),
                Next::UserAndSecret(between) if is_value => return user_and_secret(word, between),
                Next::Counted(0, secrets) => {
                    if secrets > 1 {
                        next = Next::Counted(0, secrets - 1);
                    }
                    return MASK.to_owned();
                }
                Next::Counted(others, secrets) => {
                    next = Next::Counted(others - 1, secrets);
                    return inside(word, depth);
                }
                _ => {}
            }
            if let Some(shown) = begun.iter().find_map(|client| of_client(word, client)) {
                return shown;
            }
            next = announced(word, &begun);
            inside(word, depth)
        })
        .collect()
}

/// Whether `word` announces a secret in the next words.
fn announced(word: &str, clients: &[&Client]) -> Next {
    let after = clients.iter().flat_map(|client| client.after).find(|(known, ..)| word.eq_ignore_ascii_case(known));
    if let Some((_, others, secrets)) = after {
        return Next::Counted(*others, *secrets);
    }
    let dashed = word.starts_with('-');
    let name = word.trim_start_matches('-');
    let is_name = !name.is_empty() && name.bytes().all(text::is_key_byte);
    // `--password`, and bare words as in `CONFIG SET requirepass`.
    if is_name && text::is_secret_name(name) && (dashed || text::is_plain_secret_word(name)) {
        return Next::Secret;
    }
    if clients.iter().any(|client| client.next.contains(&word)) {
        return Next::Secret;
    }
    let user = clients.iter().find(|client| client.user.iter().any(|option| is_or_ends_in(word, option)));
    user.map_or(Next::Plain, |client| Next::UserAndSecret(client.between))
}

/// `-u`, and `-sSu`: switches of one letter in one word, the last of which is the option.
fn is_or_ends_in(word: &str, option: &str) -> bool {
    let letters = word.strip_prefix('-').filter(|letters| letters.bytes().all(|byte| byte.is_ascii_alphabetic()));
    let letter = option.strip_prefix('-').filter(|letter| letter.len() == 1);
    word == option || letters.zip(letter).is_some_and(|(letters, letter)| letters.ends_with(letter))
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
        return Some(format!("{option}{}", user_and_secret(rest, client.between)));
    }
    if client.slash_login && !word.starts_with(['-', '@', '/']) {
        return slash_login(word);
    }
    if client.letters_login && word.contains("p=") && !word.starts_with('-') {
        let hidden = |part: &str| if part.starts_with("p=") { format!("p={MASK}") } else { part.to_owned() };
        return Some(word.split(',').map(hidden).collect::<Vec<_>>().join(","));
    }
    if client.colon_login {
        let address = word.strip_prefix("--uri=").unwrap_or(word);
        let hidden = text::login("", address).filter(|_| !address.contains("://") && !address.starts_with('-'))?;
        let shown = |text: Option<&str>| text.unwrap_or_default().to_owned();
        let option = shown(word.get(..word.len() - address.len()));
        return Some(option + &shown(address.get(..hidden.user)) + MASK + &shown(address.get(hidden.end..)));
    }
    None
}

/// `user/secret@database` without the secret.
fn slash_login(word: &str) -> Option<String> {
    let (user, rest) = word.split_once('/')?;
    let database = rest.rfind('@').and_then(|at| rest.get(at..)).unwrap_or_default();
    Some(format!("{user}/{MASK}{database}"))
}

/// A user and a secret without the secret.
fn user_and_secret(word: &str, between: char) -> String {
    word.split_once(between).map_or_else(|| word.to_owned(), |(user, _)| format!("{user}{between}{MASK}"))
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
    // `jdbc:oracle:thin:user/secret@host`
    let oracle = ["oracle:thin:", "oracle:oci:"].iter().find_map(|it| word.find(it).map(|at| at + it.len()));
    if let Some((driver, login)) = oracle.and_then(|at| word.split_at_checked(at))
        && login
            .split_once('/')
            .is_some_and(|(user, rest)| !user.is_empty() && !user.contains('@') && rest.contains('@'))
        && let Some(shown) = slash_login(login)
    {
        return format!("{driver}{shown}");
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
