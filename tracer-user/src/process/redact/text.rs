//! Secrets inside one text: addresses with a password (`scheme://user:secret@host`), names with a value
//! (`password=…`, `"token": "…"`, `Authorization: …`), SQL (`IDENTIFIED BY '…'`), and tokens that show what they are.
//!
//! One pass from left to right over the text's names: runs of letters, digits, `_`, `.` and `-`.

use super::MASK;

/// Beginnings of tokens that issuers chose to be recognised by.
const TOKEN_STARTS: &[&str] = &[
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "xoxa-",
    "xapp-",
    "sk-",
    "sk_live_",
    "rk_live_",
    "AKIA",
    "ASIA",
    "hvs.",
    "npm_",
    "pypi-",
    "dop_v1_",
    "SG.",
];
/// Shortest such token, and shortest user name of an address that is taken for one.
const TOKEN_MIN: usize = 16;

/// Names with one of these in them, letter case and separators aside.
const SECRET_PARTS: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "privatekey",
    "credential",
    "requirepass",
    "masterauth",
    "authorization",
];
/// Names with one of these as a word of its own.
const SECRET_WORDS: &[&str] = &["pass", "pw", "pwd", "psk", "cred", "creds", "passin", "passout", "jwt", "otp", "pin"];
/// Names that end in one of these words.
const SECRET_LAST: &[&str] = &["auth", "key", "keys", "sig", "signature", "cookie", "sas"];
/// Last words of names whose value is a place or a rule, not a secret.
const HARMLESS_LAST: &[&str] = &["file", "path", "dir", "policy", "length"];
/// First words of switches, which have no value.
const SWITCHES: &[&str] = &["no", "without", "disable", "skip"];

/// Whether a name can hold this byte.
pub(super) fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-')
}

/// Whether the value of something with this name is a secret.
pub(super) fn is_secret_name(name: &str) -> bool {
    let words = name_words(name);
    let (Some(first), Some(last)) = (words.first(), words.last()) else { return false };
    if HARMLESS_LAST.contains(&last.as_str()) || (words.len() > 1 && SWITCHES.contains(&first.as_str())) {
        return false;
    }
    let compact = words.concat();
    let tokenizer = compact.contains("tokeniz") || compact.contains("tokenis");
    SECRET_PARTS.iter().any(|part| compact.contains(part) && !(tokenizer && *part == "token"))
        || words.iter().any(|word| SECRET_WORDS.contains(&word.as_str()))
        || SECRET_LAST.contains(&last.as_str())
        || compact.ends_with("pwd")
        || (compact.ends_with("pass") && !matches!(compact.as_str(), "bypass" | "compass"))
}

/// Whether a word without dashes, alone in a command, announces a secret: `requirepass`, `set-initial-password`.
pub(super) fn is_plain_secret_word(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    ["password", "passwd", "requirepass", "masterauth"].iter().any(|end| word.ends_with(end)) && !word.contains('.')
}

/// The words of `a-name`, `aName`, `A_NAME`, in small letters.
fn name_words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let (mut was_lower, mut at_start) = (false, true);
    for letter in name.chars() {
        if !letter.is_ascii_alphanumeric() {
            at_start = true;
            continue;
        }
        if at_start || (was_lower && letter.is_ascii_uppercase()) {
            words.push(String::new());
        }
        (was_lower, at_start) = (letter.is_ascii_lowercase() || letter.is_ascii_digit(), false);
        if let Some(word) = words.last_mut() {
            word.push(letter.to_ascii_lowercase());
        }
    }
    words
}

/// `text` without the secrets it shows.
pub(super) fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut identified = false;
    while !rest.is_empty() {
        let start = rest.bytes().position(is_key_byte).unwrap_or(rest.len());
        let (between, from) = rest.split_at(start);
        out.push_str(between);
        let end = from.bytes().position(|byte| !is_key_byte(byte)).unwrap_or(from.len());
        let (name, after) = from.split_at(end);
        identified |= name.eq_ignore_ascii_case("identified");
        let (kept, hidden) = if let Some(address) = after.strip_prefix("://") {
            (name.len() + "://".len(), login(address))
        } else if is_token(name) {
            (0, Some(Hidden { user: 0, end: name.len() }))
        } else {
            let by = identified && (name.eq_ignore_ascii_case("by") || name.eq_ignore_ascii_case("as"));
            value(name, after, by)
                .map_or((name.len(), None), |(skip, len)| (name.len() + skip, Some(Hidden { user: 0, end: len })))
        };
        out.push_str(from.get(..kept).unwrap_or_default());
        rest = from.get(kept..).unwrap_or_default();
        if let Some(Hidden { user, end }) = hidden {
            out.push_str(rest.get(..user).unwrap_or_default());
            out.push_str(MASK);
            rest = rest.get(end..).unwrap_or_default();
        }
    }
    out
}

/// What of the following text is hidden: from `user` to `end`.
struct Hidden {
    user: usize,
    end: usize,
}

fn is_token(name: &str) -> bool {
    let marked = TOKEN_STARTS.iter().any(|start| name.starts_with(start));
    // A JSON web token: three parts, the first one the encoding of `{"`.
    let web = name.starts_with("eyJ") && name.contains('.');
    name.len() >= TOKEN_MIN && (marked || web)
}

/// The password of an address, whose text after `://` is `address`. A password may hold any of `/?#@`, so everything up
/// to the last `@` that can end it is taken for one.
fn login(address: &str) -> Option<Hidden> {
    let end =
        address.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '`')).unwrap_or(address.len());
    let token = address.get(..end)?;
    let first = token.split(['/', '?', '#']).next().unwrap_or(token);
    let before_query = token.split(['?', '#']).next().unwrap_or(token);
    // `host:8080/path?mail=a@b`. A password of digits only up to a slash, with a question mark behind it, looks the same.
    let has_port = token.get(first.len()..).is_some_and(|rest| rest.starts_with('/')) && ends_in_port(first);
    let at = match before_query.rfind('@') {
        // `host/@scope`: nothing that could be a login stands before the path.
        Some(at) if first.contains('@') || first.contains(':') => at,
        None if first.contains(':') && !has_port => token.rfind('@')?,
        _ => return None,
    };
    match token.get(..at)?.find(':') {
        Some(colon) if colon + 1 == at => None,
        Some(colon) => Some(Hidden { user: colon + 1, end: at }),
        None if at >= TOKEN_MIN => Some(Hidden { user: 0, end: at }),
        None => None,
    }
}

/// Whether this is `host:port` or `[address]:port`.
fn ends_in_port(authority: &str) -> bool {
    authority.rsplit_once(':').is_some_and(|(host, port)| {
        let is_host = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
        is_host && !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// The value of `name` in the text behind it: how many bytes lead to it, and its length. `by` marks SQL's
/// `IDENTIFIED BY`.
fn value(name: &str, after: &str, by: bool) -> Option<(usize, usize)> {
    let secret = is_secret_name(name);
    let bearer = name.eq_ignore_ascii_case("bearer");
    if !(secret || by || bearer) {
        return None;
    }
    // What closes the name: `"password"`, `user[password]`, an escaped quote.
    let closed = after.trim_start_matches(['"', '\'', ']', '\\']);
    let open = closed.trim_start();
    let header = open.starts_with(": ");
    let value = match open.strip_prefix(['=', ':']) {
        Some(value) if secret => value.trim_start_matches(['>', '=']).trim_start(),
        // SQL: `PASSWORD 'x'`; `IDENTIFIED BY x` and `Bearer x` need no quote.
        _ if open.len() < closed.len() && (by || bearer || open.starts_with(['\'', '"'])) => open,
        _ => return None,
    };
    let quoted = value.trim_start_matches('\\');
    let (value, len) = match quoted.chars().next() {
        Some(quote @ ('"' | '\'')) => {
            let inner = quoted.get(1..)?;
            (inner, closing(inner, quote))
        }
        // A header's value has several words.
        _ if header => (value, value.find(['"', '\'', '\n', '\r']).unwrap_or(value.len())),
        _ => {
            let end = |c: char| c.is_whitespace() || matches!(c, '&' | ';' | '"' | '\'');
            (value, value.find(end).unwrap_or(value.len()))
        }
    };
    (len > 0).then_some((after.len() - value.len(), len))
}

/// Where `quote` closes: not behind a backslash, and doubled quotes are one (SQL).
fn closing(text: &str, quote: char) -> usize {
    let mut letters = text.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        if letter == '\\' {
            // An escaped quote is part of the secret unless the whole text is escaped and it ends there.
            letters.next();
        } else if letter == quote {
            if letters.peek().is_some_and(|(_, following)| *following == quote) {
                letters.next();
            } else {
                return at;
            }
        }
    }
    text.len()
}
