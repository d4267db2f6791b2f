//! Paths without what a deployment changes in them: the release, the version, a directory made up for one run.

/// Directories whose children are one release each.
const RELEASES: &[&str] = &["releases", "deployments", "deploys", "revisions", "builds"];
/// A link to the release that counts.
const CURRENT: &[&str] = &["current"];
/// What stands for a release.
const RELEASE: &str = "{release}";
/// What stands for a version.
const VERSION: &str = "{version}";
/// What stands for a temporary directory or file.
const TEMPORARY: &str = "{tmp}";
/// Digits from which a name of numbers is a time or a build, not a shard or a tenant.
const DIGITS_MIN: usize = 8;

/// `path` with releases, versions and temporary names replaced by placeholders. Text that is no path comes back as it is,
/// but for a version in it. Parts are what slashes, colons, commas and equals signs separate.
#[must_use]
pub fn normalise(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let (mut before, mut rest) = ("", path);
    loop {
        let end = rest.find(['/', ':', ',', '=']).unwrap_or(rest.len());
        let (part, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
        let is_directory = after.starts_with('/');
        if is_directory && RELEASES.contains(&before) {
            // The directory of releases and the release in it are one.
            out.truncate(out.len().saturating_sub(before.len() + 1));
            out.push_str(RELEASE);
        } else {
            out.push_str(&self::part(part, before, is_directory && !out.is_empty()));
        }
        let Some(separator) = after.chars().next() else { return out };
        out.push(separator);
        before = if separator == '/' { part } else { "" };
        rest = after.get(separator.len_utf8()..).unwrap_or_default();
    }
}

fn part(part: &str, before: &str, is_directory: bool) -> String {
    if before == "tmp" && is_made_up(part) {
        return TEMPORARY.to_owned();
    }
    if is_directory && (CURRENT.contains(&part) || is_moment(part) || is_version(part)) {
        return RELEASE.to_owned();
    }
    if is_directory && part.strip_prefix("python").is_some_and(is_version) {
        return "python".to_owned();
    }
    versioned(part).unwrap_or_else(|| part.to_owned())
}

/// What Python's `tempfile` and `mktemp` make up.
fn is_made_up(name: &str) -> bool {
    let of = |text: &str, len: usize| {
        let (name, end) = text.split_at_checked(len).unwrap_or((text, "?"));
        let plain = name.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric());
        plain && (end.is_empty() || end.starts_with('.'))
    };
    name.strip_prefix("tmp.").is_some_and(|rest| of(rest, 10))
        || name.strip_prefix("tmp").is_some_and(|rest| of(rest, 8))
}

/// A date, a time, a build number, a commit, a UUID, and nothing else.
fn is_moment(name: &str) -> bool {
    let digits = name.bytes().filter(u8::is_ascii_digit).count();
    let joined = |byte: u8| matches!(byte, b'-' | b'_' | b'.' | b'T' | b'Z');
    let of_numbers = name.bytes().all(|byte| byte.is_ascii_digit() || joined(byte));
    let letters = name.bytes().filter(|byte| (b'a'..=b'f').contains(byte)).count();
    let dashes = name.bytes().filter(|byte| *byte == b'-').count();
    let of_hex = digits + letters + dashes == name.len() && letters > 0 && digits > 0;
    let commit = of_hex && dashes == 0 && (7..=64).contains(&name.len());
    let uuid = of_hex && dashes == 4 && name.len() == 36;
    (of_numbers && digits >= DIGITS_MIN) || commit || uuid
}

/// `1.4.2`, `v1.4`, `1.4.2-rc1`; one number alone is none.
fn is_version(text: &str) -> bool {
    let text = text.strip_prefix('v').unwrap_or(text);
    let numbers = text.split(['-', '+']).next().unwrap_or_default();
    let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    numbers.contains('.') && numbers.split('.').all(number)
}

/// `app-1.4.2.jar` without its version; `None` if there is none.
fn versioned(name: &str) -> Option<String> {
    let at = name.match_indices('-').map(|(at, _)| at + 1).find(|at| {
        let rest = name.get(*at..).unwrap_or_default();
        rest.strip_prefix('v').unwrap_or(rest).starts_with(|letter: char| letter.is_ascii_digit())
    })?;
    let (stem, rest) = name.split_at_checked(at)?;
    let number = rest.strip_prefix('v').unwrap_or(rest);
    let digits = number.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(number.len());
    let (version, after) = number.split_at_checked(digits)?;
    let after =
        ["-SNAPSHOT", "-RELEASE", "Final"].into_iter().find_map(|mark| after.strip_prefix(mark)).unwrap_or(after);
    let dots = version.trim_end_matches('.');
    // `.jar` keeps its dot, which the digits took along.
    let ending = if after.is_empty() { "" } else { version.get(dots.len()..).unwrap_or_default() };
    let is_ending = after.is_empty() || after.starts_with('.') || ending == ".";
    (is_version(dots) && is_ending && !after.contains(['-', '_'])).then(|| format!("{stem}{VERSION}{ending}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lose_what_a_deployment_changes() {
        let check = |path: &str, expected: &str| assert_eq!(normalise(path), expected, "{path}");
        for same in [
            "",
            "job.py",
            "/srv/app/job.py",
            "/srv/app/v2/job.py",
            "/opt/pg/15/bin/postgres",
            "a:b",
            "x=y",
            "/srv/tenants/17/job.py",
            "/srv/app-2/job.py",
            "/tmp/queue-a",
            "/srv/releases",
            "/srv/deadbeef/x",
            "/home/a/current",
            "10.0.0.5",
            "release-notes-2",
            "/",
            "//",
            "--since=2026-11-01",
        ] {
            check(same, same);
        }
        check("/srv/app/releases/2026-11-01/job.py", "/srv/app/{release}/job.py");
        check("/srv/app/releases/blue/job.py", "/srv/app/{release}/job.py");
        check("/srv/app/current/job.py", "/srv/app/{release}/job.py");
        check("/srv/app/20261101120000/job.py", "/srv/app/{release}/job.py");
        check("/srv/app/2026-11-01_12.00.00/job.py", "/srv/app/{release}/job.py");
        check("/srv/app/3f1c2b9/job.py", "/srv/app/{release}/job.py");
        check("/srv/app/123e4567-e89b-12d3-a456-426614174000/job.py", "/srv/app/{release}/job.py");
        check("/opt/app/v1.4.2/bin/app", "/opt/app/{release}/bin/app");
        check("/opt/app-1.4.2/bin/app", "/opt/app-{version}/bin/app");
        check("/opt/app-1.4.2.jar", "/opt/app-{version}.jar");
        check("/opt/app-1.4.2-SNAPSHOT.jar", "/opt/app-{version}.jar");
        check("lib/a-1.0.jar:lib/b-2.1.3.jar", "lib/a-{version}.jar:lib/b-{version}.jar");
        check("/usr/lib/python3.11/site-packages/x.py", "/usr/lib/python/site-packages/x.py");
        check("--config=/tmp/tmpab12cd_9/c.yml", "--config=/tmp/{tmp}/c.yml");
        check("/tmp/tmp.aB3dE5gH1j", "/tmp/{tmp}");
        check("/tmp/tmpab12cd34.json", "/tmp/{tmp}");
        check("é/releases/ü/ß-1.2.x", "é/{release}/ß-{version}.x");
    }
}
