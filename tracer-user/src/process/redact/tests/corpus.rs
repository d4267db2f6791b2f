//! Command lines as they are seen in the wild: `secrets.txt` and `harmless.txt`, a row each.

use super::super::*;

const SECRETS: &str = include_str!("../secrets.txt");
const HARMLESS: &str = include_str!("../harmless.txt");
/// Promised numbers of rows.
const SECRETS_MIN: usize = 300;
const HARMLESS_MIN: usize = 60;

fn rows(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// The words of a row. `\|` is a bar within one.
fn words(row: &str) -> Vec<String> {
    let plain = row.replace("\\|", "\u{1}");
    plain.split('|').map(|word| word.replace('\u{1}', "|").replace("\\n", "\n")).collect()
}

/// A row's command line, the secrets in it, and what has to stay.
fn parsed(row: &str) -> (Vec<String>, Vec<String>, Vec<&str>) {
    let (line, kept) = row.rsplit_once(" => ").unwrap_or_else(|| panic!("no => in {row}"));
    let secrets: Vec<String> = line
        .split('‹')
        .skip(1)
        .map(|rest| {
            let (secret, _) = rest.split_once('›').unwrap_or_else(|| panic!("no › in {row}"));
            secret.replace("\\|", "|").replace("\\n", "\n")
        })
        .collect();
    assert!(!secrets.is_empty(), "{row}");
    (words(&line.replace(['‹', '›'], "")), secrets, kept.split(' ').collect())
}

/// What is wrong with how a row is redacted.
fn complaint(row: &str) -> Option<String> {
    let (list, secrets, kept) = parsed(row);
    let shown = arguments(&list).join(" ");
    // Of a secret in several words, none may stay.
    let stays = |secret: &String| {
        shown.contains(secret.as_str()) || secret.split_whitespace().any(|part| part.len() > 4 && shown.contains(part))
    };
    let seen = secrets.iter().find(|secret| stays(secret));
    let gone = kept.iter().find(|word| !shown.contains(**word));
    match (seen, gone) {
        (Some(secret), _) => Some(format!("{secret:?} stays: {row}\n     {shown}")),
        (None, Some(word)) => Some(format!("{word:?} is gone: {row}\n     {shown}")),
        (None, None) => None,
    }
}

#[test]
fn no_secret_stays_and_what_matters_does() {
    let rows: Vec<&str> = rows(SECRETS).collect();
    assert!(rows.len() >= SECRETS_MIN, "{}", rows.len());
    assert_eq!(rows.iter().collect::<std::collections::HashSet<_>>().len(), rows.len(), "a row stands there twice");
    let complaints: Vec<String> = rows.iter().filter_map(|row| complaint(row)).collect();
    assert!(complaints.is_empty(), "{} of {}:\n{}", complaints.len(), rows.len(), complaints.join("\n"));
}

#[test]
fn look_alikes_stay() {
    let rows: Vec<&str> = rows(HARMLESS).collect();
    assert!(rows.len() >= HARMLESS_MIN, "{}", rows.len());
    let changed = |row: &&&str| arguments(&words(row)) != words(row);
    let complaints: Vec<String> =
        rows.iter().filter(changed).map(|row| format!("{row}\n     {}", arguments(&words(row)).join("|"))).collect();
    assert!(complaints.is_empty(), "{} of {}:\n{}", complaints.len(), rows.len(), complaints.join("\n"));
}
