//! Holds the workspace's Rust files against `rules`: words in the wrong place, files that grew too long.
//!
//! Works on tokens, so comments do not count and a string is never taken for code. Macros are not expanded.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

use super::FINE;
use super::rules::{EXCEPTIONS, Exception, LONG_FILES, MAX_LINES, RULES, Rule, SOURCES, Word};
use crate::sh;

/// Reads every Rust file of ours; the error lists all that is wrong.
pub fn check() -> Result<&'static str> {
    let root = sh::root();
    let mut complaints = Vec::new();
    let mut needed = Vec::new();
    for folder in SOURCES {
        for file in rust_files(&root.join(folder))? {
            let name = file.strip_prefix(&root).unwrap_or(&file).to_string_lossy().into_owned();
            let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {name}"))?;
            complaints.extend(length_complaint(&name, text.lines().count()));
            let found = misplaced_words(&name, &text)?;
            for (rule, line) in found {
                match EXCEPTIONS.iter().position(|known| known.file == name && known.word == rule.word) {
                    Some(index) => needed.push(index),
                    None => complaints.push(format!("{name}:{line}: {:?}: {}", rule.word, rule.reason)),
                }
            }
        }
    }
    for (index, exception) in EXCEPTIONS.iter().enumerate() {
        if !needed.contains(&index) {
            let Exception { file, word, reason } = exception;
            complaints.push(format!("{file}: the exception for {word:?} ({reason}) is not needed any more"));
        }
    }
    for (file, _, reason) in LONG_FILES {
        if !root.join(file).is_file() {
            complaints.push(format!("{file}: may be long ({reason}) but is not there"));
        }
    }
    if complaints.is_empty() {
        return Ok(FINE);
    }
    bail!("\n  {}", complaints.join("\n  "))
}

fn length_complaint(name: &str, lines: usize) -> Option<String> {
    match LONG_FILES.iter().find(|(file, ..)| *file == name) {
        Some((_, allowed, _)) if lines > *allowed => Some(format!("{name}: {lines} lines, allowed {allowed}")),
        Some((_, _, reason)) if lines <= MAX_LINES => {
            Some(format!("{name}: is no longer long: drop it from the list ({reason})"))
        }
        Some(_) => None,
        None if lines > MAX_LINES => {
            Some(format!("{name}: {lines} lines, more than {MAX_LINES}: split it where its concept splits"))
        }
        None => None,
    }
}

/// Words of `text` that may not stand in the file `name`, each with its line.
fn misplaced_words(name: &str, text: &str) -> Result<Vec<(&'static Rule, usize)>> {
    let rules: Vec<&'static Rule> = RULES.iter().filter(|rule| applies(rule, name)).collect();
    let mut found = Vec::new();
    if rules.is_empty() {
        return Ok(found);
    }
    let tokens: TokenStream =
        text.parse().map_err(|error| anyhow::anyhow!("{name}: cannot be read as Rust: {error}"))?;
    walk(tokens, &mut |rest| {
        let line = rest.first().map_or(0, |token| token.span().start().line);
        found.extend(rules.iter().filter(|rule| begins_with(rest, rule.word)).map(|rule| (*rule, line)));
    });
    Ok(found)
}

fn applies(rule: &Rule, name: &str) -> bool {
    let inside = |folders: &[&str]| folders.iter().any(|folder| Path::new(name).starts_with(folder));
    let belongs = |except: &str| name.strip_suffix(".rs").is_some_and(|module| module == except);
    inside(rule.within) && !inside(rule.except) && !rule.except.iter().any(|except| belongs(except))
}

/// Calls `visit` with what begins at each token, at every depth; documentation is left out.
fn walk(tokens: TokenStream, visit: &mut impl FnMut(&[TokenTree])) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    for index in 0..tokens.len() {
        let rest = tokens.get(index..).unwrap_or_default();
        visit(rest);
        if let Some(TokenTree::Group(group)) = rest.first()
            && !is_attribute(group, "doc")
        {
            walk(group.stream(), visit);
        }
    }
}

fn begins_with(tokens: &[TokenTree], word: Word) -> bool {
    match (word, tokens) {
        (Word::Identifier(name), [TokenTree::Ident(ident), ..]) => ident == name,
        (Word::Literal(start), [TokenTree::Literal(literal), ..]) => {
            // As written: an optional b, c or r with its #s, then the quote.
            let written = literal.to_string();
            written.split_once('"').is_some_and(|(_, content)| content.starts_with(start))
        }
        (Word::Attribute(name), [TokenTree::Punct(hash), TokenTree::Group(group), ..]) => {
            hash.as_char() == '#' && is_attribute(group, name)
        }
        (
            Word::Module(parent, module),
            [TokenTree::Ident(ident), TokenTree::Punct(first), TokenTree::Punct(second), next, ..],
        ) => ident == parent && first.as_char() == ':' && second.as_char() == ':' && names_module(next, module),
        _ => false,
    }
}

fn is_attribute(group: &Group, name: &str) -> bool {
    group.delimiter() == Delimiter::Bracket
        && matches!(group.stream().into_iter().next(), Some(TokenTree::Ident(ident)) if ident == name)
}

/// `module` itself, or braces with it among the first words of what they list.
fn names_module(token: &TokenTree, module: &str) -> bool {
    match token {
        TokenTree::Ident(ident) => ident == module,
        TokenTree::Group(group) => {
            let mut at_start = true;
            group.stream().into_iter().any(|token| {
                let hit = at_start && matches!(&token, TokenTree::Ident(ident) if ident == module);
                at_start = matches!(&token, TokenTree::Punct(punct) if punct.as_char() == ',');
                hit
            })
        }
        _ => false,
    }
}

/// All `.rs` files below `folder`, in order.
fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let entry = entry?;
            let path = entry.path();
            // Links are not followed: a link to a folder above would never end.
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(name: &str, text: &str) -> Vec<(Word, usize)> {
        misplaced_words(name, text).unwrap().into_iter().map(|(rule, line)| (rule.word, line)).collect()
    }

    #[test]
    fn a_word_is_found_where_it_may_not_stand_and_only_there() {
        let text = "//! About aya.\n\nuse aya::Ebpf;\n";
        assert_eq!(words("tracer-user/src/daemon.rs", text), [(Word::Identifier("aya"), 3)]);
        assert_eq!(words("tracer-user/src/capture/mod.rs", text), []);
        assert_eq!(words("tracer-user/src/capture.rs", text), []);
        assert_eq!(words("tracer-user/src/capture_other.rs", text), [(Word::Identifier("aya"), 3)]);
        assert_eq!(words("xtask/src/main.rs", text), []);
    }

    #[test]
    fn comments_strings_and_longer_names_are_no_identifiers() {
        let text = "/// Like aya, see [`aya`].\nfn f() { /* aya */ let himalaya = \"aya\"; g(r#\"aya\"#) }\n";
        assert_eq!(words("tracer-user/src/daemon.rs", text), []);
    }

    #[test]
    fn only_paths_into_proc_count() {
        let name = "tracer-user/src/daemon.rs";
        assert_eq!(words(name, "fn f() { g(\"/proc\"); h(\"see /proc/1\"); i(\"/v1/processes\") }"), []);
        assert_eq!(words(name, "fn f() {\n g(\"/proc/self/stat\") }"), [(Word::Literal("/proc/"), 2)]);
        assert_eq!(words(name, "fn f() { g(br#\"/proc/stat\"#) }"), [(Word::Literal("/proc/"), 1)]);
        assert_eq!(words("tracer-user/src/process/files.rs", "fn f() { g(\"/proc/self/stat\") }"), []);
    }

    #[test]
    fn a_module_is_found_written_out_and_in_braces() {
        let name = "tracer-core/src/tracker.rs";
        let fs = Word::Module("std", "fs");
        assert_eq!(words(name, "fn f() { std::fs::read(p) }"), [(fs, 1)]);
        assert_eq!(words(name, "use std::{collections::BTreeMap, fs::File};"), [(fs, 1)]);
        assert_eq!(words(name, "use std::collections::{fs, BTreeMap}; use crate::fs;"), []);
        assert_eq!(words("tracer-user/src/history.rs", "use std::fs;"), []);
    }

    #[test]
    fn an_ignored_test_is_found_in_any_crate() {
        let text = "#[test]\n#[ignore = \"slow\"]\nfn f() { let ignore = [ignore]; }";
        assert_eq!(words("tests/live/main.rs", text), [(Word::Attribute("ignore"), 2)]);
    }

    #[test]
    fn a_long_file_is_named_with_its_length() {
        assert_eq!(length_complaint("a.rs", MAX_LINES), None);
        let complaint = length_complaint("a.rs", MAX_LINES + 1).unwrap();
        assert!(complaint.contains("501 lines"), "{complaint}");
    }

    #[test]
    fn the_workspace_keeps_its_rules() {
        check().unwrap();
    }
}
