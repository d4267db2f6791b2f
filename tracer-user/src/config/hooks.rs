//! `capture.hooks`: "auto", or the kinds of hooks that may be used, to force a lower rung of the ladder.

use toml::de::DeValue;

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

    pub(super) fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let wrong = || "capture.hooks: write \"auto\" or a list such as [\"raw_tp\", \"syscall\"]".to_owned();
        match value {
            DeValue::String(text) => Self::parse(text),
            DeValue::Array(names) => {
                let names: Option<Vec<&str>> = names.iter().map(|name| name.get_ref().as_str()).collect();
                Self::of(names.ok_or_else(wrong)?.into_iter())
            }
            _ => Err(wrong()),
        }
    }

    /// As a file has it.
    pub(super) fn to_toml(self) -> String {
        if self == Self::default() {
            return "\"auto\"".to_owned();
        }
        let kinds = KINDS.iter().filter(|(kind, _)| self.kernel.has(*kind)).map(|(_, name)| *name);
        let names: Vec<String> =
            kinds.chain(Some(POLL).filter(|_| self.poll)).map(|name| format!("{name:?}")).collect();
        format!("[{}]", names.join(", "))
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

    fn from_toml(text: &str) -> Result<Hooks, String> {
        Hooks::from_toml(DeValue::parse(text).unwrap().get_ref())
    }

    #[test]
    fn names_and_lists_mean_the_same() {
        let some = Hooks { kernel: Allowed::NOTHING.and(Kind::RawTp).and(Kind::Syscall), poll: false };
        assert_eq!(Hooks::parse("raw_tp, syscall"), Ok(some));
        assert_eq!(from_toml("[\"raw_tp\", \"syscall\"]"), Ok(some));
        assert_eq!(from_toml(&some.to_toml()), Ok(some));
        assert_eq!(from_toml(&Hooks::default().to_toml()), Ok(Hooks::default()));
        assert_eq!(Hooks::parse("auto"), Ok(Hooks::default()));
        assert_eq!(Hooks::parse("poll"), Ok(Hooks { kernel: Allowed::NOTHING, poll: true }));
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for (text, named) in [("fexit", "raw_tp nor poll"), ("raw_tp,kprobes", "\"kprobes\""), ("", "\"\"")] {
            assert!(Hooks::parse(text).unwrap_err().contains(named), "{text}");
        }
        assert!(from_toml("1").unwrap_err().contains("write"));
        assert!(from_toml("[1]").unwrap_err().contains("write"));
        assert!(from_toml("[]").unwrap_err().contains("neither"));
    }
}
