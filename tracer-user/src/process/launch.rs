//! How a process was started: what it runs behind interpreters and wrappers, and its launcher group. Pure.

use tracer_core::identity::{LauncherGroup, file_name, undeleted};

use super::group::{Launch, launcher_group, normalise, path};
use super::script::{self, Script, Target};
use super::{redact, wrapper};

/// Programs that look up what they run by a name, from where they are started, and what interprets them. The same one in
/// another environment is the same program; in another directory it runs something else.
const TOOLS: &[(&str, &[&str])] = &[
    (
        "python",
        &[
            "gunicorn",
            "uvicorn",
            "hypercorn",
            "daphne",
            "granian",
            "waitress-serve",
            "celery",
            "flask",
            "fastapi",
            "django-admin",
            "rq",
            "rqworker",
            "dramatiq",
            "arq",
            "huey_consumer",
            "airflow",
            "dagster",
            "prefect",
            "streamlit",
            "scrapy",
            "pytest",
        ],
    ),
    ("node", &["ts-node", "tsx", "nodemon", "next", "nest", "vite", "nuxt"]),
    ("ruby", &["puma", "unicorn", "thin", "rails", "rake", "sidekiq", "resque", "rackup"]),
];

/// Endings of files that say what interprets them.
const ENDINGS: &[(&str, &str)] = &[
    (".py", "python"),
    (".js", "node"),
    (".mjs", "node"),
    (".cjs", "node"),
    (".rb", "ruby"),
    (".php", "php"),
    (".pl", "perl"),
];

/// Options of a Java machine that change how it runs, not what.
const JAVA_TUNING: &[&str] = &["-X", "-server", "-client", "-verbose", "-ea", "-esa", "-javaagent:", "-agentlib:"];

/// What /proc says of a start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen<'a> {
    /// Program file, as `/proc/PID/exe` has it.
    pub exe: Option<&'a str>,
    /// The process' name.
    pub comm: &'a str,
    /// Working directory.
    pub cwd: Option<&'a str>,
    /// Effective user id.
    pub uid: Option<u32>,
    /// All arguments, the program's name first.
    pub arguments: &'a [String],
}

/// What a process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launched {
    /// The file or name that an interpreter runs.
    pub script: Option<String>,
    /// Which starts are like it.
    pub group: LauncherGroup,
    /// What tells its program from others: the same for a master and its workers, whatever their arguments.
    program: Program,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Program {
    file: Option<String>,
    script: Option<String>,
    /// It is a wrapper, or says so itself: npm, which runs in the interpreter of what it starts.
    starts_others: bool,
}

impl Launched {
    /// From what /proc says.
    #[must_use]
    pub fn of(seen: &Seen<'_>) -> Self {
        let (words, wrapped) = wrapper::command(seen.exe, seen.arguments);
        let exe = seen.exe.filter(|_| !wrapped);
        let found = script::find(exe, &words).or_else(|| bare(&words).filter(|_| wrapped));
        let script = found.as_ref().map(|script| match &script.target {
            Target::File(path) => script::resolve(path, seen.cwd),
            Target::Name(name) => name.clone(),
        });
        let shown = redact::arguments(&words);
        let first = words.first().map(String::as_str);
        let title = first.filter(|first| found.is_none() && is_title(exe, first)).map(title_of);
        let program = exe.map(undeleted).or(first.filter(|_| wrapped));
        let (tool, is_name) = match found.as_ref().map(|script| &script.target) {
            Some(Target::File(path)) => (tool(path), tool(path).is_some()),
            Some(Target::Name(name)) => (Some(name.as_str()), true),
            None => (None, false),
        };
        let key = match (&tool, &script) {
            (Some(tool), _) => Some((*tool).to_owned()),
            (None, Some(script)) => Some(path::normalise(script)),
            (None, None) => title.clone(),
        };
        let arguments = if title.is_some() { Vec::new() } else { own(&shown, found.as_ref()) };
        let group = launcher_group(&Launch {
            program: &found.as_ref().map_or_else(
                || program.map_or_else(|| seen.comm.to_owned(), path::normalise),
                |script| script.interpreter.to_owned(),
            ),
            script: key.as_deref(),
            place: seen.cwd.filter(|_| is_name).map(path::normalise).as_deref(),
            uid: seen.uid,
            arguments: &arguments,
            label: label(script.as_deref(), title.as_deref(), program, seen.comm),
        });
        let program = Program {
            file: seen.exe.map(|exe| undeleted(exe).to_owned()),
            script: key.filter(|_| title.is_none()),
            starts_others: wrapped || first.is_some_and(wrapper::is_wrapper),
        };
        Self { script, group, program }
    }

    /// Whether `parent` runs the same program, so that it may be the master of this one. A title hides what a process
    /// runs: two with titles are taken for the same, and one with a title for a worker of one without.
    #[must_use]
    pub fn is_child_of_same(&self, parent: &Self) -> bool {
        let (own, other) = (&self.program, &parent.program);
        let same_file = own.file.is_some() && own.file == other.file;
        same_file && !other.starts_others && (own.script == other.script || own.script.is_none())
    }
}

/// A command that an unknown interpreter runs, as wrappers are given it: `uv run job.py`, `npx tsx`.
fn bare(words: &[String]) -> Option<Script> {
    let first = words.first()?;
    let by_ending = ENDINGS.iter().find(|(ending, _)| first.ends_with(ending)).map(|(_, name)| *name);
    let by_name = || TOOLS.iter().find(|(_, tools)| tools.contains(&file_name(first))).map(|(name, _)| *name);
    let interpreter = by_ending.or_else(by_name)?;
    Some(Script { target: Target::File(first.clone()), at: 0, interpreter })
}

/// The name of a tool, by the path of its script.
fn tool(path: &str) -> Option<&str> {
    let name = file_name(path);
    let packaged = path.contains("/node_modules/");
    let name = [".js", ".mjs", ".cjs"].into_iter().find_map(|end| name.strip_suffix(end).filter(|_| packaged));
    let name = name.unwrap_or(file_name(path));
    TOOLS.iter().any(|(_, tools)| tools.contains(&name)).then_some(name)
}

/// The arguments that belong to the program, secrets already out of them.
fn own(shown: &[String], found: Option<&Script>) -> Vec<String> {
    let kept = |word: &&String| !JAVA_TUNING.iter().any(|option| word.starts_with(option));
    let words: Vec<&String> = match found {
        // Where a class is found counts, too.
        Some(Script { target: Target::Name(_), at, interpreter: "java" }) => {
            let before = shown.iter().take(*at).skip(1).filter(kept);
            before.chain(shown.iter().skip(at + 1)).collect()
        }
        Some(script) => shown.iter().skip(script.at + 1).collect(),
        None => shown.iter().skip(1).collect(),
    };
    words.into_iter().map(|word| if word.contains("://") { word.clone() } else { path::normalise(word) }).collect()
}

/// Whether the first argument of an interpreter names no interpreter: the process wrote a title there.
fn is_title(exe: Option<&str>, first: &str) -> bool {
    exe.is_some_and(script::is_interpreter) && !script::is_interpreter(first.trim_start_matches('-'))
}

/// A title without what follows its first two words: states and counters come there.
fn title_of(title: &str) -> String {
    let words: Vec<&str> = title.split_ascii_whitespace().take(2).collect();
    normalise(&words.join(" "))
}

fn label<'a>(script: Option<&'a str>, title: Option<&'a str>, program: Option<&'a str>, comm: &'a str) -> &'a str {
    let title = title.and_then(|title| title.split(' ').next()).map(|word| word.trim_end_matches(':'));
    script.or(title).or(program).map(file_name).filter(|name| !name.is_empty()).unwrap_or(comm)
}

#[cfg(test)]
mod tests;
