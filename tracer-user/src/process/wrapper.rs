//! Programs that do nothing but start another: `nohup`, `timeout`, `uv run`, `sh -c`. What counts is the command behind
//! them. Pure.

use tracer_core::identity::file_name;

use super::script::{self, Target};

/// Wrappers within each other that are taken off.
const DEPTH_MAX: usize = 8;

/// How a wrapper's words lie before those of its command.
struct Wrapper {
    names: &'static [&'static str],
    /// Short options with a value in the same word or the next.
    short_value: &'static str,
    /// Long options with a value in the next word, if there is no `=`.
    long_value: &'static [&'static str],
    /// `NAME=VALUE` may stand before the command.
    assignments: bool,
    /// Words before the command that are no options.
    operands: usize,
    /// If not empty, one of these has to follow the name: another word makes it something else.
    subcommands: &'static [&'static str],
}

const NONE: Wrapper =
    Wrapper { names: &[], short_value: "", long_value: &[], assignments: false, operands: 0, subcommands: &[] };

const WRAPPERS: &[Wrapper] = &[
    Wrapper {
        names: &["nohup", "setsid", "time", "catchsegv", "dumb-init", "catatonit", "ddtrace-run", "caffeinate", "uvx"],
        ..NONE
    },
    Wrapper { names: &["tini", "docker-init"], short_value: "pe", ..NONE },
    Wrapper { names: &["nice"], short_value: "n", long_value: &["--adjustment"], ..NONE },
    Wrapper { names: &["ionice"], short_value: "cn", long_value: &["--class", "--classdata"], ..NONE },
    Wrapper { names: &["timeout"], short_value: "ks", long_value: &["--signal", "--kill-after"], operands: 1, ..NONE },
    Wrapper { names: &["stdbuf"], short_value: "ioe", long_value: &["--input", "--output", "--error"], ..NONE },
    Wrapper { names: &["flock"], short_value: "wE", long_value: &["--wait", "--timeout"], operands: 1, ..NONE },
    Wrapper { names: &["taskset", "gosu", "su-exec", "chrt"], operands: 1, ..NONE },
    Wrapper { names: &["chpst"], short_value: "uUbemdoprcftl/", ..NONE },
    Wrapper { names: &["env"], short_value: "uC", long_value: &["--unset", "--chdir"], assignments: true, ..NONE },
    Wrapper {
        names: &["sudo", "doas"],
        short_value: "ughpCrtTUDR",
        long_value: &["--user", "--group", "--host", "--prompt", "--chdir", "--chroot", "--close-from"],
        assignments: true,
        ..NONE
    },
    Wrapper { names: &["runuser"], short_value: "ugG", long_value: &["--user", "--group"], ..NONE },
    Wrapper {
        names: &["setpriv"],
        long_value: &["--reuid", "--regid", "--ruid", "--euid", "--rgid", "--egid", "--groups", "--inh-caps"],
        ..NONE
    },
    Wrapper { names: &["xvfb-run"], short_value: "nsefp", ..NONE },
    Wrapper { names: &["opentelemetry-instrument"], long_value: OTEL, ..NONE },
    Wrapper { names: &["newrelic-admin"], subcommands: &["run-program"], ..NONE },
    Wrapper {
        names: &["uv", "poetry", "pipenv", "pdm", "hatch", "rye", "conda", "mamba", "micromamba", "dotenv", "dotenvx"],
        short_value: "pnfPC",
        long_value: &[
            "--python",
            "--with",
            "--project",
            "--directory",
            "--env-file",
            "--extra",
            "--group",
            "--package",
            "--name",
            "--prefix",
            "--cwd",
            "--env",
        ],
        subcommands: &["run"],
        ..NONE
    },
    Wrapper { names: &["npx", "pnpx", "bunx"], short_value: "p", long_value: &["--package", "--workspace"], ..NONE },
    Wrapper {
        names: &["npm", "pnpm", "yarn"],
        short_value: "pwC",
        long_value: &["--package", "--workspace", "--prefix", "--dir"],
        subcommands: &["exec", "x", "dlx", "node"],
        ..NONE
    },
    Wrapper { names: &["bundle"], subcommands: &["exec"], ..NONE },
];

const OTEL: &[&str] =
    &["--traces_exporter", "--metrics_exporter", "--logs_exporter", "--service_name", "--exporter_otlp_endpoint"];

/// The command behind all wrappers, and whether there was one: then the program file is not that of the command.
#[must_use]
pub fn command(exe: Option<&str>, arguments: &[String]) -> (Vec<String>, bool) {
    let mut words = arguments.to_vec();
    // A process that gives itself a title leaves the rest of its arguments empty.
    while words.last().is_some_and(String::is_empty) {
        words.pop();
    }
    let mut wrapped = false;
    for _ in 0..DEPTH_MAX {
        let exe = exe.filter(|_| !wrapped);
        match inner(exe, &words).filter(|inner| !inner.is_empty()) {
            Some(inner) => (words, wrapped) = (inner, true),
            None => break,
        }
    }
    (words, wrapped)
}

/// Whether the first word of a title or a path is a wrapper's.
#[must_use]
pub fn is_wrapper(word: &str) -> bool {
    let name = word.split(' ').next().unwrap_or_default();
    of(name).is_some()
}

/// The command within one wrapper; `None` if there is none.
fn inner(exe: Option<&str>, words: &[String]) -> Option<Vec<String>> {
    let first = words.first()?;
    if let [title] = words
        && title.contains(' ')
        && !title.starts_with('/')
        && is_wrapper(title)
    {
        // npm writes its whole command line over its first argument.
        return inner(None, &title.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>());
    }
    if let Some(line) = script::shell_line(exe, words) {
        return simple(line);
    }
    let (wrapper, at) = match of(first) {
        Some(wrapper) => (wrapper, 0),
        None => {
            let script = script::find(exe, words)?;
            let Target::File(path) = &script.target else { return None };
            (of(path)?, script.at)
        }
    };
    let start = at + 1 + wrapper.own_words(words.get(at + 1..)?)?;
    Some(words.get(start..)?.to_vec())
}

/// The wrapper of that program or script.
fn of(path: &str) -> Option<&'static Wrapper> {
    let name = file_name(path);
    let name = [".js", ".cjs", ".mjs"].into_iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
    let name = name.strip_suffix("-cli").unwrap_or(name);
    WRAPPERS.iter().find(|wrapper| wrapper.names.contains(&name))
}

impl Wrapper {
    /// How many words belong to it; `None` if it does not start a command.
    fn own_words(&self, words: &[String]) -> Option<usize> {
        let (mut at, mut operands) = (0, self.operands);
        let mut subcommand = !self.subcommands.is_empty();
        loop {
            let word = words.get(at)?;
            if word == "--" && !subcommand {
                return Some(at + 1 + operands);
            } else if word.len() > 1 && word.starts_with('-') {
                at += self.option(word);
            } else if subcommand {
                if !self.subcommands.contains(&word.as_str()) {
                    return None;
                }
                subcommand = false;
                at += 1;
            } else if self.assignments && is_assignment(word) {
                at += 1;
            } else if operands > 0 {
                operands -= 1;
                at += 1;
            } else {
                return Some(at);
            }
        }
    }

    /// How many words an option takes.
    fn option(&self, word: &str) -> usize {
        if word.starts_with("--") {
            return if self.long_value.contains(&word) { 2 } else { 1 };
        }
        let value = word.char_indices().skip(1).find(|(_, letter)| self.short_value.contains(*letter));
        let in_next = value.is_some_and(|(at, letter)| at + letter.len_utf8() == word.len());
        if in_next { 2 } else { 1 }
    }
}

fn is_assignment(word: &str) -> bool {
    let name = word.split_once('=').map(|(name, _)| name);
    name.is_some_and(|name| !name.is_empty() && name.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric()))
}

/// The words of a shell's line that is one command without any of a shell's own characters.
fn simple(line: &str) -> Option<Vec<String>> {
    if line.contains(|letter: char| letter.is_control() || ";|&<>$`\\\"'*?()[]{}#~!".contains(letter)) {
        return None;
    }
    let mut words = line.split_ascii_whitespace().peekable();
    words.next_if(|word| *word == "exec");
    words.by_ref().peek()?;
    Some(words.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_behind_wrappers() {
        #[track_caller]
        fn check(line: &str, expected: &str) {
            // A bar stands for a blank within a word.
            let words: Vec<String> = line.split(' ').map(|word| word.replace('|', " ")).collect();
            let (command, wrapped) = command(None, &words);
            assert_eq!(command.join(" "), expected, "{line}");
            assert_eq!(wrapped, line.replace('|', " ") != expected, "{line}");
        }
        check("python3 job.py", "python3 job.py");
        check("nohup python3 job.py", "python3 job.py");
        check("/usr/bin/nice -n 10 nohup python3 job.py", "python3 job.py");
        check("nice -n10 -- python3 job.py", "python3 job.py");
        check("timeout --signal KILL -k 5 1h python3 -u job.py", "python3 -u job.py");
        check("env -i -u HOME A=b C=d python3 job.py a=b", "python3 job.py a=b");
        check("sudo -E -u app -- python3 job.py", "python3 job.py");
        check("sudo -nu app python3 job.py", "python3 job.py");
        check("flock -n /run/lock/x python3 job.py", "python3 job.py");
        check("gosu app python3 job.py", "python3 job.py");
        check("uv run python job.py", "python job.py");
        check("uv run --python 3.12 --with rich job.py x", "job.py x");
        check("uv pip install x", "uv pip install x");
        check("/usr/bin/python3 /usr/bin/poetry run python job.py", "python job.py");
        check("/usr/bin/python3 /usr/bin/poetry install", "/usr/bin/python3 /usr/bin/poetry install");
        check("conda run -n web --no-capture-output python job.py", "python job.py");
        check("node /usr/bin/npx -y tsx server.ts", "tsx server.ts");
        check("node /usr/lib/node_modules/npm/bin/npm-cli.js exec -- tsx server.ts", "tsx server.ts");
        check("npm|exec|tsx|server.ts", "tsx server.ts");
        check("npm|run|dev", "npm run dev");
        check("ruby /usr/local/bin/bundle exec puma -C x.rb", "puma -C x.rb");
        check("sh -c exec|python3|job.py|--id|7", "python3 job.py --id 7");
        check("/bin/bash -lc python3|job.py", "python3 job.py");
        check("bash -c cd|/srv;|python3|job.py", "bash -c cd /srv; python3 job.py");
        check("bash -c python3|job.py|$X", "bash -c python3 job.py $X");
        check("sh -c exec", "sh -c exec");
        check("nohup", "nohup");
        check("timeout 5", "timeout 5");
        check(&["nohup"; 20].join(" "), &["nohup"; 12].join(" "));
    }
}
