//! Which file an interpreter runs, from the arguments of the process. Pure: no /proc here.
//!
//! Each interpreter is one row of [`INTERPRETERS`]: which options take a value, which ones name the program. What is
//! no file (`python -c`, standard input, a shell that reads from a terminal) has no script.

use tracer_core::identity::{file_name, undeleted};

/// What is run, and where in the arguments it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// A path as given, a module or a class.
    pub target: Target,
    /// Its place in the arguments: what follows belongs to the program.
    pub at: usize,
    /// What runs it, without a version: `python` for any of them.
    pub interpreter: &'static str,
}

/// What an interpreter was told to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A file.
    File(String),
    /// A name the interpreter looks up itself: a Python module, a Java class.
    Name(String),
}

/// The options of one interpreter. Short options are single letters and can be bundled (`-Bu`); a letter that takes a
/// value ends its bundle.
struct Interpreter {
    /// Program names without their version.
    names: &'static [&'static str],
    /// Letters with a value, in the same word or the next.
    short_value: &'static str,
    /// Letters whose value can only stand in the same word.
    short_rest: &'static str,
    /// Letters with a value in the next word while the bundle goes on (`bash -eo pipefail`).
    short_next: &'static str,
    /// Letters after which there is no file: program text, standard input.
    short_none: &'static str,
    /// Long options with a value.
    long_value: &'static [&'static str],
    /// Long options after which there is no file.
    long_none: &'static [&'static str],
    /// Options whose value is the file.
    file: &'static [&'static str],
    /// Options whose value is a name.
    name: &'static [&'static str],
    /// Words before the file that are none.
    subcommands: &'static [&'static str],
    /// If not empty, the only endings a file can have.
    endings: &'static [&'static str],
}

const NONE: Interpreter = Interpreter {
    names: &[],
    short_value: "",
    short_rest: "",
    short_next: "",
    short_none: "",
    long_value: &[],
    long_none: &[],
    file: &[],
    name: &[],
    subcommands: &[],
    endings: &[],
};

const INTERPRETERS: &[Interpreter] = &[
    Interpreter {
        names: &["python", "pypy"],
        short_value: "WXQ",
        short_none: "c",
        long_value: &["--check-hash-based-pycs"],
        name: &["-m"],
        ..NONE
    },
    Interpreter {
        names: &["node", "nodejs"],
        short_value: "rC",
        short_none: "ep",
        long_value: &[
            "--require",
            "--import",
            "--loader",
            "--experimental-loader",
            "--conditions",
            "--env-file",
            "--env-file-if-exists",
            "--title",
            "--icu-data-dir",
            "--inspect-port",
            "--input-type",
            "--openssl-config",
            "--redirect-warnings",
            "--report-dir",
            "--report-directory",
            "--report-filename",
            "--report-signal",
            "--diagnostic-dir",
            "--cpu-prof-dir",
            "--cpu-prof-name",
            "--heap-prof-dir",
            "--heapsnapshot-signal",
            "--unhandled-rejections",
            "--trace-event-categories",
            "--trace-event-file-pattern",
            "--tls-cipher-list",
            "--tls-keylog",
            "--disable-warning",
            "--watch-path",
            "--max-http-header-size",
            "--dns-result-order",
        ],
        long_none: &["--eval", "--print", "--run", "--test"],
        subcommands: &["inspect", "debug"],
        ..NONE
    },
    Interpreter {
        names: &["deno", "bun"],
        short_value: "cLr",
        short_none: "e",
        long_value: &["--config", "--import-map", "--lock", "--cert", "--preload", "--env-file", "--cwd"],
        subcommands: &["run", "serve"],
        endings: &[".js", ".mjs", ".cjs", ".jsx", ".ts", ".mts", ".cts", ".tsx"],
        ..NONE
    },
    Interpreter {
        names: &["ruby", "jruby", "truffleruby"],
        short_value: "IrCE",
        short_rest: "xFKTWi",
        short_none: "e",
        long_value: &["--encoding", "--external-encoding", "--internal-encoding"],
        ..NONE
    },
    Interpreter {
        names: &["php"],
        short_value: "cdzSt",
        short_none: "rBRE",
        long_value: &["--php-ini", "--define", "--zend-extension", "--server", "--docroot"],
        long_none: &["--run", "--process-begin", "--process-code", "--process-end"],
        file: &["-f", "--file", "-F", "--process-file"],
        ..NONE
    },
    Interpreter { names: &["perl"], short_value: "I", short_rest: "MmixFCDVd", short_none: "eE", ..NONE },
    Interpreter {
        names: &["bash", "sh", "dash", "ash", "zsh", "ksh", "mksh"],
        short_next: "oO",
        short_none: "cs",
        long_value: &["--rcfile", "--init-file"],
        ..NONE
    },
    Interpreter {
        names: &["java"],
        long_value: &[
            "-cp",
            "-classpath",
            "--class-path",
            "-p",
            "--module-path",
            "--upgrade-module-path",
            "--add-modules",
            "--add-exports",
            "--add-opens",
            "--add-reads",
            "--patch-module",
            "--limit-modules",
            "--enable-native-access",
            "--source",
        ],
        file: &["-jar"],
        name: &["-m", "--module"],
        ..NONE
    },
    Interpreter {
        names: &["dotnet"],
        long_value: &["--depsfile", "--runtimeconfig", "--additionalprobingpath", "--fx-version", "--roll-forward"],
        subcommands: &["exec"],
        endings: &[".dll"],
        ..NONE
    },
];

/// What the process runs, if it is an interpreter. The program file tells which interpreter it is; the first argument
/// counts where that tells nothing (busybox, an unreadable link).
#[must_use]
pub fn find(exe: Option<&str>, arguments: &[String]) -> Option<Script> {
    let first = arguments.first().map(|name| name.strip_prefix('-').unwrap_or(name));
    let exe = exe.map(undeleted);
    let interpreter = [exe, first].into_iter().flatten().find_map(interpreter)?;
    let mut at = 1;
    loop {
        let word = arguments.get(at)?;
        let step = match word.as_str() {
            "-" => return None,
            "--" => return interpreter.file_at(arguments, at + 1),
            _ if interpreter.is_option(word) => interpreter.option(word),
            _ if interpreter.subcommands.contains(&word.as_str()) => Step::Skip(1),
            // Java reads more options from such a file.
            _ if interpreter.is_java() && word.starts_with('@') => Step::Skip(1),
            _ => return interpreter.file_at(arguments, at),
        };
        let found = |value: Option<&str>, target: fn(String) -> Target| {
            let (text, at) = match value {
                Some(value) => (value.to_owned(), at),
                None => (arguments.get(at + 1)?.clone(), at + 1),
            };
            (!text.is_empty()).then(|| Script { target: target(text), at, interpreter: interpreter.name_of_all() })
        };
        match step {
            Step::Skip(words) => at += words,
            Step::NoFile => return None,
            Step::File(value) => return found(value, Target::File),
            Step::Name(value) => return found(value, Target::Name),
        }
    }
}

/// What an option means for the search; a value that stands in the same word comes with it.
enum Step<'a> {
    Skip(usize),
    NoFile,
    File(Option<&'a str>),
    Name(Option<&'a str>),
}

/// What a shell was given to run as text (`sh -c LINE`), if it was.
#[must_use]
pub fn shell_line<'a>(exe: Option<&str>, arguments: &'a [String]) -> Option<&'a str> {
    let first = arguments.first().map(String::as_str);
    let shell = [exe.map(undeleted), first].into_iter().flatten().find_map(interpreter)?;
    let options = arguments.iter().skip(1).take_while(|word| shell.is_option(word)).count();
    let last = arguments.get(options).filter(|_| options > 0 && shell.is_shell())?;
    let text = last.strip_prefix('-').is_some_and(|letters| !letters.starts_with('-') && letters.ends_with('c'));
    arguments.get(options + 1).map(String::as_str).filter(|_| text)
}

/// Whether a program is an interpreter, by its path.
#[must_use]
pub fn is_interpreter(program: &str) -> bool {
    interpreter(undeleted(program)).is_some()
}

impl Interpreter {
    /// The first of its names stands for all.
    fn name_of_all(&self) -> &'static str {
        self.names.first().copied().unwrap_or_default()
    }

    fn is_shell(&self) -> bool {
        !self.short_next.is_empty()
    }

    fn is_java(&self) -> bool {
        self.file.contains(&"-jar")
    }

    /// Shells take `+e` as well as `-e`.
    fn is_option(&self, word: &str) -> bool {
        word.starts_with('-') || (self.is_shell() && word.starts_with('+') && word.len() > 1)
    }

    fn option<'a>(&self, word: &'a str) -> Step<'a> {
        let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        if self.long_none.contains(&name) {
            return Step::NoFile;
        }
        if self.file.contains(&name) {
            return Step::File(value);
        }
        if self.name.contains(&name) && (self.is_java() || value.is_none()) {
            return Step::Name(value);
        }
        if self.long_value.contains(&name) {
            return Step::Skip(if value.is_some() { 1 } else { 2 });
        }
        if word.starts_with("--") || self.is_java() { Step::Skip(1) } else { self.bundle(word) }
    }

    /// A word of single letters.
    fn bundle<'a>(&self, word: &'a str) -> Step<'a> {
        let mut words = 1;
        for (at, letter) in word.char_indices().skip(1) {
            let rest = word.get(at + letter.len_utf8()..).unwrap_or_default();
            let value = (!rest.is_empty()).then_some(rest);
            let listed = |options: &[&str]| {
                options.iter().any(|option| option.strip_prefix('-').is_some_and(|name| name.chars().eq([letter])))
            };
            if self.short_none.contains(letter) {
                return Step::NoFile;
            } else if listed(self.name) {
                return Step::Name(value);
            } else if listed(self.file) {
                return Step::File(value);
            } else if self.short_value.contains(letter) {
                return Step::Skip(if value.is_some() { 1 } else { 2 });
            } else if self.short_rest.contains(letter) {
                break;
            } else if self.short_next.contains(letter) {
                words += 1;
            }
        }
        Step::Skip(words)
    }

    /// The word at `at` as what is run.
    fn file_at(&self, arguments: &[String], at: usize) -> Option<Script> {
        let word = arguments.get(at).filter(|word| !word.is_empty())?;
        if !self.endings.is_empty() && !self.endings.iter().any(|ending| word.ends_with(ending)) {
            return None;
        }
        let is_class = self.is_java() && !word.ends_with(".java");
        let target = if is_class { Target::Name(word.clone()) } else { Target::File(word.clone()) };
        Some(Script { target, at, interpreter: self.name_of_all() })
    }
}

/// The row for a program: `/usr/bin/python3.11` is `python`.
fn interpreter(program: &str) -> Option<&'static Interpreter> {
    let name = file_name(program);
    let name = name.trim_end_matches(|letter: char| letter.is_ascii_digit() || letter == '.');
    INTERPRETERS.iter().find(|row| row.names.contains(&name))
}

/// A relative path as seen from the working directory. Kept as given where that is unknown, or is `/`: programs that
/// make themselves daemons go there, and then it says nothing of where they were started.
#[must_use]
pub fn resolve(path: &str, cwd: Option<&str>) -> String {
    let from = cwd.filter(|cwd| cwd.starts_with('/') && *cwd != "/" && !cwd.ends_with(" (deleted)"));
    match from {
        Some(cwd) if !path.starts_with('/') => {
            let mut path = path;
            while let Some(rest) = path.strip_prefix("./") {
                path = rest.trim_start_matches('/');
            }
            format!("{}/{path}", cwd.trim_end_matches('/'))
        }
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests;
