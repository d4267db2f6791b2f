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
    "xoxr-",
    "xoxs-",
    "sk-",
    "sk_live_",
    "sk_test_",
    "rk_live_",
    "rk_test_",
    "whsec_",
    "shpat_",
    "dckr_pat_",
    "lin_api_",
    "hf_",
    "AIza",
    "ya29.",
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

/// Addresses whose path is the secret, from there on.
const SECRET_PATHS: &[&str] = &["hooks.slack.com/services/", "api.telegram.org/bot", "discord.com/api/webhooks/"];
/// What stands around a private key.
const KEY_BEGIN: &str = "-----BEGIN ";
const KEY_END: &str = "PRIVATE KEY-----";
/// Shortest text behind `Basic` that is taken for a login in base64.
const BASIC_MIN: usize = 12;

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
const SECRET_LAST: &[&str] = &["auth", "bearer", "key", "keys", "sig", "signature", "cookie", "sas"];
/// Parts of names that look like one of [`SECRET_PARTS`].
const HARMLESS_PARTS: &[&str] = &["tokeniz", "tokenis", "secretar", "passwordless"];
/// Last words of names whose value is a place, a rule or a number, not a secret, or that have none.
const HARMLESS_LAST: &[&str] = &["file", "path", "dir", "policy", "length", "size", "count", "ttl", "stdin", "type"];
/// First words of switches, which have no value, and of numbers.
const HARMLESS_FIRST: &[&str] = &["no", "without", "disable", "skip", "ask", "prompt", "max", "min", "num"];

/// Whether a name can hold this byte.
pub(super) fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-')
}

/// Whether the value of something with this name is a secret.
pub(super) fn is_secret_name(name: &str) -> bool {
    let words = name_words(name);
    let (Some(first), Some(last)) = (words.first(), words.last()) else { return false };
    if HARMLESS_LAST.contains(&last.as_str()) || (words.len() > 1 && HARMLESS_FIRST.contains(&first.as_str())) {
        return false;
    }
    let compact = HARMLESS_PARTS.iter().fold(words.concat(), |name, part| name.replace(part, " "));
    SECRET_PARTS.iter().any(|part| compact.contains(part))
        || words.iter().any(|word| SECRET_WORDS.contains(&word.as_str()))
        || SECRET_LAST.contains(&last.as_str())
        || compact.ends_with("pwd")
        || (compact.ends_with("pass") && !matches!(compact.as_str(), "bypass" | "compass"))
}

/// Whether a word without dashes, alone in a command, announces a secret: `requirepass`, `set-initial-password`.
pub(super) fn is_plain_secret_word(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    let program = matches!(word.as_str(), "htpasswd" | "chpasswd" | "smbpasswd" | "vncpasswd");
    let ends = |end: &&str| word.ends_with(end);
    !program && ["password", "passwd", "requirepass", "masterauth"].iter().any(ends) && !word.contains('.')
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
    if let Some((before, after)) = around_a_key(text) {
        return format!("{}{MASK}{}", redact(before), redact(after));
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let (mut identified, mut set_for) = (false, false);
    while !rest.is_empty() {
        let start = rest.bytes().position(is_key_byte).unwrap_or(rest.len());
        let (between, from) = rest.split_at(start);
        out.push_str(between);
        let end = from.bytes().position(|byte| !is_key_byte(byte)).unwrap_or(from.len());
        let (name, after) = from.split_at(end);
        identified |= name.eq_ignore_ascii_case("identified");
        set_for |= name.eq_ignore_ascii_case("password") && starts_with(after, " for ");
        let (kept, hidden) = if let Some(address) = after.strip_prefix("://") {
            (name.len() + "://".len(), login(name, address))
        } else if is_token(name) {
            (0, Some(Hidden { user: 0, end: name.len() }))
        } else {
            let by = identified && (name.eq_ignore_ascii_case("by") || name.eq_ignore_ascii_case("as"));
            // `= PASSWORD('x')` is left to that name.
            let assigned = set_for && after.trim_start().strip_prefix('=').is_some_and(|it| !it.contains('('));
            value(name, after, by, assigned)
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

/// What stands before and behind a private key, as much of it as there is.
fn around_a_key(text: &str) -> Option<(&str, &str)> {
    let start = text.find(KEY_BEGIN)?;
    let (before, key) = text.split_at(start);
    let named = key.find(KEY_END)? + KEY_END.len();
    let body = key.get(named..)?;
    let end = body.find(KEY_END).map_or(body.len(), |at| at + KEY_END.len());
    Some((before, body.get(end..)?))
}

fn starts_with(text: &str, small: &str) -> bool {
    text.get(..small.len()).is_some_and(|start| start.eq_ignore_ascii_case(small))
}

/// What of the following text is hidden: from `user` to `end`.
#[derive(Clone, Copy)]
pub(super) struct Hidden {
    pub(super) user: usize,
    pub(super) end: usize,
}

fn is_token(name: &str) -> bool {
    let marked = TOKEN_STARTS.iter().any(|start| name.starts_with(start));
    // A JSON web token: three parts, the first one the encoding of `{"`.
    let web = name.starts_with("eyJ") && name.contains('.');
    name.len() >= TOKEN_MIN && (marked || web)
}

/// The password of an address, whose text after `://` is `address`. A password may hold any of `/?#@`, so everything up
/// to the last `@` that can end it is taken for one.
pub(super) fn login(scheme: &str, address: &str) -> Option<Hidden> {
    let end =
        address.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '`')).unwrap_or(address.len());
    let token = address.get(..end)?;
    if let Some(place) = SECRET_PATHS.iter().find(|place| token.starts_with(**place)) {
        return Some(Hidden { user: place.len(), end });
    }
    let first = token.split(['/', '?', '#']).next().unwrap_or(token);
    let before_query = token.split(['?', '#']).next().unwrap_or(token);
    // `host:8080/path`, or a password of digits only up to a slash.
    let has_port = token.get(first.len()..).is_some_and(|rest| rest.starts_with('/')) && ends_in_port(first);
    let web = ["http", "https", "ws", "wss"].iter().any(|name| scheme.eq_ignore_ascii_case(name));
    let at = match before_query.rfind('@') {
        // `host:8080/@scope/package`.
        Some(at) if web && has_port && before_query.get(..at)?.ends_with('/') => return None,
        // `host/@scope`: nothing that could be a login stands before the path.
        Some(at) if first.contains('@') || first.contains(':') => at,
        None if first.contains(':') => {
            let at = token.rfind('@')?;
            // `host:8080/path?mail=a@b`: a query has names. A password of digits, a slash, `?` and `=` looks the same.
            let query = token.get(before_query.len()..at)?;
            if has_port && query.contains('=') {
                return None;
            }
            at
        }
        _ => return None,
    };
    match token.get(..at)?.find(':') {
        Some(colon) if colon + 1 == at => None,
        Some(colon) if is_hex_token(token.get(..colon)?) => Some(Hidden { user: 0, end: at }),
        Some(colon) => Some(Hidden { user: colon + 1, end: at }),
        None if at >= TOKEN_MIN => Some(Hidden { user: 0, end: at }),
        None => None,
    }
}

fn is_hex_token(user: &str) -> bool {
    user.len() >= 2 * TOKEN_MIN && user.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether this is `host:port` or `[address]:port`.
fn ends_in_port(authority: &str) -> bool {
    authority.rsplit_once(':').is_some_and(|(host, port)| {
        let is_host = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
        is_host && !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// The value of `name` in the text behind it: how many bytes lead to it, and its length. `by` marks SQL's
/// `IDENTIFIED BY`, `assigned` its `SET PASSWORD FOR name = value`.
fn value(name: &str, after: &str, by: bool, assigned: bool) -> Option<(usize, usize)> {
    let secret = assigned || is_secret_name(name);
    let bearer = name.eq_ignore_ascii_case("bearer") || (name.eq_ignore_ascii_case("basic") && is_base64(after));
    if !(secret || by || bearer) {
        return None;
    }
    // `<password>x</password>`
    if let Some(inner) = after.strip_prefix('>') {
        let len = inner.find('<').unwrap_or(inner.len());
        return (len > 0).then_some((1, len));
    }
    // `PASSWORD('x')`
    if let Some(inner) = after.strip_prefix("('") {
        let len = closing(inner, '\'');
        return (len > 0).then_some((2, len));
    }
    // What closes the name: `"password"`, `user[password]`, an escaped quote.
    let closed = after.trim_start_matches(['"', '\'', ']', '\\']);
    let open = paired(after).filter(|_| secret).unwrap_or_else(|| closed.trim_start());
    let header = open.starts_with(": ") || [":bearer ", ":basic ", ":token "].iter().any(|it| starts_with(open, it));
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
    // `key="password" value="x"`: this is the name.
    let names = name.eq_ignore_ascii_case("key") && paired(value.get(len..)?).is_some();
    (len > 0 && !names).then_some((after.len() - value.len(), len))
}

/// From `=` or `:` on, where what is behind a name says that its value stands under another one: `key="password"
/// value="x"`, `{"name": "password", "value": "x"}`, `name=password,value=x`.
fn paired(after: &str) -> Option<&str> {
    const QUOTES: [char; 3] = ['"', '\'', '\\'];
    let other = after.trim_start_matches(QUOTES).trim_start().trim_start_matches(',').trim_start();
    let other = other.trim_start_matches(QUOTES);
    let is_behind = other.len() < after.len() && starts_with(other, "value");
    let assigned = other.get("value".len()..).filter(|_| is_behind)?.trim_start_matches(QUOTES).trim_start();
    assigned.starts_with(['=', ':']).then_some(assigned)
}

/// Whether a login in base64 follows.
fn is_base64(after: &str) -> bool {
    let Some(word) = after.split_whitespace().next().filter(|_| after.starts_with(' ')) else { return false };
    let word = word.trim_end_matches(['"', '\'']);
    let digit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    word.len() >= BASIC_MIN && word.len().is_multiple_of(4) && word.bytes().all(digit)
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
