//! The documentation as a reader meets it: pages, the commands in them, what they mention, and where they lead.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Pages of `docs` that are not for users: notes on what is left to do.
const NOT_FOR_USERS: [&str; 1] = ["plan.md"];

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A page of the documentation.
pub struct Page {
    /// From the repository's root.
    pub path: PathBuf,
    /// As it is written.
    pub text: String,
}

/// A command of a page: one line as somebody types it.
#[derive(Debug, PartialEq, Eq)]
pub struct Typed {
    /// Where: page and line.
    pub place: String,
    /// Without its comment.
    pub line: String,
}

/// README.md and every page in `docs` itself, in order.
pub fn pages() -> Result<Vec<Page>> {
    let root = root();
    let mut paths = vec![PathBuf::from("README.md")];
    for entry in fs::read_dir(root.join("docs")).context("cannot list docs")? {
        let name = entry?.file_name();
        let path = Path::new("docs").join(&name);
        if path.extension().is_some_and(|extension| extension == "md") && !NOT_FOR_USERS.iter().any(|not| name == *not)
        {
            paths.push(path);
        }
    }
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(root.join(&path)).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Page { path, text })
    };
    paths.into_iter().map(read).collect()
}

/// Whether a line is inside a fence, and of what language: `None` for the fence itself.
fn fenced(text: &str) -> impl Iterator<Item = (usize, &str, Option<&str>)> {
    let mut language: Option<&str> = None;
    text.lines().enumerate().filter_map(move |(at, line)| {
        if let Some(name) = line.strip_prefix("```") {
            language = if language.is_some() { None } else { Some(name) };
            return None;
        }
        Some((at + 1, line, language))
    })
}

impl Page {
    /// Its commands, with what a `\` at the end goes on with: every line of a block in `sh`, and lines that are indented and begin with socklife.
    pub fn commands(&self) -> Vec<Typed> {
        let of = |(at, line, language): (usize, &str, Option<&str>)| {
            let line = match language {
                Some("sh") => Some(line),
                None => indented(line),
                Some(_) => None,
            }?;
            let line = line.split(" # ").next().unwrap_or_default().trim();
            let place = format!("{}:{at}", self.path.display());
            (!line.is_empty()).then(|| Typed { place, line: line.to_owned() })
        };
        let mut all: Vec<Typed> = Vec::new();
        for typed in fenced(&self.text).filter_map(of) {
            match all.last_mut().and_then(|last| last.line.strip_suffix('\\').map(str::to_owned).zip(Some(last))) {
                Some((begun, last)) => last.line = format!("{}{}", begun, typed.line),
                None => all.push(typed),
            }
        }
        all
    }

    /// Each `socklife …` that its text has between backticks.
    pub fn mentions(&self) -> Vec<Typed> {
        let prose = fenced(&self.text).filter(|(_, line, language)| language.is_none() && !line.starts_with("    "));
        let spans = prose.flat_map(|(at, line, _)| line.split('`').skip(1).step_by(2).map(move |span| (at, span)));
        let of = |(at, span): (usize, &str)| {
            let bare = span.strip_prefix("sudo ").unwrap_or(span);
            let place = format!("{}:{at}", self.path.display());
            bare.starts_with("socklife ").then(|| Typed { place, line: bare.to_owned() })
        };
        spans.filter_map(of).collect()
    }

    /// Where it leads to, with the line; addresses of other sites left out.
    pub fn links(&self) -> Vec<(usize, &str)> {
        let prose = fenced(&self.text).filter(|(_, _, language)| language.is_none());
        let targets = prose.flat_map(|(at, line, _)| {
            line.split("](").skip(1).filter_map(move |rest| Some((at, rest.split_once(')')?.0)))
        });
        targets.filter(|(_, target)| !target.starts_with("http")).collect()
    }

    /// The anchors of its headings, as GitHub makes them.
    pub fn anchors(&self) -> BTreeSet<String> {
        let headings = fenced(&self.text).filter(|(_, line, language)| language.is_none() && line.starts_with('#'));
        headings.map(|(_, line, _)| anchor(line.trim_start_matches('#').trim())).collect()
    }
}

/// An indented line that begins with socklife.
fn indented(line: &str) -> Option<&str> {
    let line = line.strip_prefix("    ")?;
    line.strip_prefix("sudo ").unwrap_or(line).starts_with("socklife ").then_some(line)
}

/// In small letters, with `-` for blanks, without punctuation.
fn anchor(heading: &str) -> String {
    let kept = |letter: char| match letter {
        ' ' => Some('-'),
        '-' | '_' => Some(letter),
        _ => letter.is_alphanumeric().then(|| letter.to_ascii_lowercase()),
    };
    heading.chars().filter_map(kept).collect()
}

/// Puts one word for another, wherever it stands by itself.
pub fn replace_word(text: &str, word: &str, by: &str) -> String {
    let part_of_word = |letter: char| letter.is_alphanumeric() || "_-".contains(letter);
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(word) {
        let (before, found) = rest.split_at(at);
        let after = found.get(word.len()..).unwrap_or_default();
        let alone = !before.ends_with(part_of_word) && !after.starts_with(part_of_word);
        out.push_str(before);
        out.push_str(if alone { by } else { word });
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r"# A page: of `two` words
See `socklife tail --all`, [there](b.md#x) and [far](https://example.com).

    sudo socklife top # a comment
    socklife: not a command
```sh
ls \
  | wc # counts

```
```text
[no](link.md) `socklife none`
```
";

    fn page() -> Page {
        Page { path: PathBuf::from("a.md"), text: PAGE.to_owned() }
    }

    #[test]
    fn what_a_page_has() {
        let typed = |place: &str, line: &str| Typed { place: place.to_owned(), line: line.to_owned() };
        assert_eq!(page().commands(), [typed("a.md:4", "sudo socklife top"), typed("a.md:7", "ls | wc")]);
        assert_eq!(page().mentions(), [typed("a.md:2", "socklife tail --all")]);
        assert_eq!(page().links(), [(2, "b.md#x")]);
        assert!(page().anchors().contains("a-page-of-two-words"));
    }

    #[test]
    fn only_whole_words_are_replaced() {
        assert_eq!(replace_word("412 4123 x412 --pid 412,", "412", "7"), "7 4123 x412 --pid 7,");
        assert_eq!(replace_word("FILE.html FILE", "FILE", "f"), "f.html f");
    }

    #[test]
    fn every_link_leads_somewhere() {
        let pages = pages().unwrap();
        assert!(pages.len() >= 10, "{} pages", pages.len());
        let mut dead = Vec::new();
        for page in &pages {
            for (line, link) in page.links() {
                let (file, wanted) = link.split_once('#').unwrap_or((link, ""));
                let beside = page.path.parent().unwrap();
                let target = if file.is_empty() { root().join(&page.path) } else { root().join(beside).join(file) };
                let anchored = || {
                    let text = fs::read_to_string(&target).unwrap_or_default();
                    Page { path: target.clone(), text }.anchors().contains(wanted)
                };
                if !target.try_exists().unwrap() || (!wanted.is_empty() && !anchored()) {
                    dead.push(format!("{}:{line}: {link}", page.path.display()));
                }
            }
        }
        assert!(dead.is_empty(), "dead links:\n{}", dead.join("\n"));
    }
}
