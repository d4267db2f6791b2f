//! Patterns for names: `*` stands for any characters, `?` for one, everything else for itself.

use std::fmt;

use serde::{Deserialize, Serialize};
use wildmatch::WildMatch;

/// A pattern.
#[derive(Clone, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Glob(WildMatch);

impl Glob {
    /// Whether the whole of `text` is as the pattern says.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        self.0.matches(text)
    }
}

impl From<String> for Glob {
    fn from(pattern: String) -> Self {
        Self(WildMatch::new(&pattern))
    }
}

impl From<Glob> for String {
    fn from(glob: Glob) -> Self {
        glob.0.pattern()
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.pattern())
    }
}

impl PartialEq for Glob {
    fn eq(&self, other: &Self) -> bool {
        self.0.pattern_chars() == other.0.pattern_chars()
    }
}

impl Eq for Glob {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_for_whole_names() {
        let check = |pattern: &str, text: &str, expected: bool| {
            assert_eq!(Glob::from(pattern.to_owned()).matches(text), expected, "{pattern} {text}");
        };
        check("worker.py", "worker.py", true);
        check("worker.py", "my_worker.py", false);
        check("*worker*", "my_worker.py", true);
        check("worker?.py", "worker1.py", true);
        check("worker?.py", "worker.py", false);
        check("/srv/*/bin/python3*", "/srv/a/b/bin/python3.11", true);
        // The slow case of a naive matcher.
        check(&"*a".repeat(40), &"a".repeat(20_000), true);
        check(&format!("{}b", "*a".repeat(40)), &"a".repeat(20_000), false);
    }
}
