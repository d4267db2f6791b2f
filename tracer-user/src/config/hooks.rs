//! `capture.hooks`: "auto", or the kinds of hooks that may be used, to force a lower rung of the ladder.

use crate::capture::{Allowed, KINDS, Kind};

/// What may be used to capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hooks {
    /// Kinds of hooks in the kernel.
    pub kernel: Allowed,
    /// Whether the socket table alone will do where the hooks do not work.
    pub poll: bool,
}

impl Default for Hooks {
    fn default() -> Self {
        Self { kernel: Allowed::default(), poll: true }
    }
}

/// The name of doing without hooks.
const POLL: &str = "poll";

impl Hooks {
    /// Reads "auto", or names with commas between them.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.trim() == "auto" {
            return Ok(Self::default());
        }
        Self::of(text.split(',').map(str::trim))
    }

    pub(super) fn from_toml(value: &toml::Value) -> Result<Self, String> {
        let wrong = || "capture.hooks: write \"auto\" or a list such as [\"raw_tp\", \"syscall\"]".to_owned();
        match value {
            toml::Value::String(text) => Self::parse(text),
            toml::Value::Array(names) => {
                let names: Option<Vec<&str>> = names.iter().map(toml::Value::as_str).collect();
                Self::of(names.ok_or_else(wrong)?.into_iter())
            }
            _ => Err(wrong()),
        }
    }

    fn of<'a>(names: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let mut hooks = Self { kernel: Allowed::NOTHING, poll: false };
        for name in names {
            match KINDS.iter().find(|(_, known)| *known == name) {
                Some((kind, _)) => hooks.kernel = hooks.kernel.and(*kind),
                None if name == POLL => hooks.poll = true,
                None => {
                    let known: Vec<&str> = KINDS.iter().map(|(_, known)| *known).chain([POLL]).collect();
                    return Err(format!(
                        "capture.hooks: {name:?} is no kind of hook: use auto, or of {}",
                        known.join(", ")
                    ));
                }
            }
        }
        if hooks.kernel.has(Kind::RawTp) || hooks.poll {
            return Ok(hooks);
        }
        Err("capture.hooks names neither raw_tp nor poll: one of them has to tell which connections there are"
            .to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_lists_mean_the_same() {
        let some = Hooks { kernel: Allowed::NOTHING.and(Kind::RawTp).and(Kind::Syscall), poll: false };
        let list = toml::Value::Array(vec!["raw_tp".into(), "syscall".into()]);
        assert_eq!(Hooks::parse("raw_tp, syscall"), Ok(some));
        assert_eq!(Hooks::from_toml(&list), Ok(some));
        assert_eq!(Hooks::parse("auto"), Ok(Hooks::default()));
        assert_eq!(Hooks::parse("poll"), Ok(Hooks { kernel: Allowed::NOTHING, poll: true }));
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for (text, named) in [("fexit", "raw_tp nor poll"), ("raw_tp,kprobes", "\"kprobes\""), ("", "\"\"")] {
            assert!(Hooks::parse(text).unwrap_err().contains(named), "{text}");
        }
        assert!(Hooks::from_toml(&toml::Value::Integer(1)).unwrap_err().contains("write"));
        assert!(Hooks::from_toml(&toml::Value::Array(vec![1.into()])).unwrap_err().contains("write"));
        assert!(Hooks::from_toml(&toml::Value::Array(vec![])).unwrap_err().contains("neither"));
    }
}
