//! The architecture's rules as data: which words may stand where, and how long a file may be.
//!
//! ARCHITECTURE.md says the same in prose. A rule, or an exception with its reason, is one line here; an exception
//! that nothing needs any more is an error, so the lists only hold what is true.

/// A word that may stand in some places only.
pub struct Rule {
    /// What to look for.
    pub word: Word,
    /// Folders it is banned from, from the repository's root.
    pub within: &'static [&'static str],
    /// Folders or files inside those where it belongs.
    pub except: &'static [&'static str],
    /// Why, for who breaks it.
    pub reason: &'static str,
}

/// What a rule looks for. Comments are never looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// An identifier.
    Identifier(&'static str),
    /// A module of a crate, written out or inside the braces of a `use`.
    Module(&'static str, &'static str),
    /// A string literal that begins so.
    Literal(&'static str),
    /// An attribute.
    Attribute(&'static str),
}

/// A place where a rule does not hold.
pub struct Exception {
    /// The file.
    pub file: &'static str,
    /// The rule's word.
    pub word: Word,
    /// Why it may; read by people.
    pub reason: &'static str,
}

const USER: &[&str] = &["tracer-user/src"];
const CORE: &[&str] = &["tracer-core/src", "tracer-common/src"];
const CAPTURE: &[&str] = &["tracer-user/src/capture"];
const HISTORY: &[&str] = &["tracer-user/src/history"];
/// What takes other processes' descriptors and changes something; and the commands that a user calls it by.
const PROBE: &[&str] = &["tracer-user/src/probe"];
const PROBE_CALLERS: &[&str] = &[
    "tracer-user/src/probe",
    "tracer-user/src/cli/verify.rs",
    "tracer-user/src/cli/reap.rs",
    "tracer-user/src/cli/selection.rs",
];
const PROC_READERS: &[&str] =
    &["tracer-user/src/inventory", "tracer-user/src/process", "tracer-user/src/doctor/host.rs"];

/// The full-screen view: its model and drawing, the terminal, and the loop between them.
const FULL_SCREEN: &[&str] = &["tracer-user/src/ui/top", "tracer-user/src/screen.rs", "tracer-user/src/cli/top.rs"];

const ONE_AYA: &str = "only capture knows aya: the rest must build and be tested without a kernel";
const ONE_STORE: &str = "only history knows SQLite: what is on disk has one owner, and the tracer never waits for it";
const ONE_PROC: &str =
    "only inventory, process and doctor::host read /proc, under a root that is handed in, so that tests use a fake one";
const ONLY_ASKED: &str =
    "the daemon reads and changes nothing: sockets of others are touched by probe alone, and only on a user's word";
const ONE_SCREEN: &str = "only top takes the whole terminal: everything else writes lines, and needs none";
const PURE: &str = "the core does no IO and reads no clock: all is handed in, so that a replay gives the same bytes";

/// Every rule.
pub const RULES: &[Rule] = &[
    Rule { word: Word::Identifier("aya"), within: USER, except: CAPTURE, reason: ONE_AYA },
    Rule { word: Word::Identifier("aya_log"), within: USER, except: CAPTURE, reason: ONE_AYA },
    Rule { word: Word::Identifier("aya_obj"), within: USER, except: CAPTURE, reason: ONE_AYA },
    Rule { word: Word::Identifier("procfs"), within: USER, except: PROC_READERS, reason: ONE_PROC },
    Rule { word: Word::Module("crate", "probe"), within: USER, except: PROBE_CALLERS, reason: ONLY_ASKED },
    Rule { word: Word::Identifier("SYS_pidfd_getfd"), within: USER, except: PROBE, reason: ONLY_ASKED },
    Rule { word: Word::Identifier("TCP_REPAIR"), within: USER, except: PROBE, reason: ONLY_ASKED },
    Rule { word: Word::Identifier("SOCK_DESTROY"), within: USER, except: PROBE, reason: ONLY_ASKED },
    Rule { word: Word::Identifier("fork"), within: USER, except: PROBE, reason: ONLY_ASKED },
    Rule { word: Word::Identifier("ratatui"), within: USER, except: FULL_SCREEN, reason: ONE_SCREEN },
    Rule { word: Word::Identifier("rusqlite"), within: USER, except: HISTORY, reason: ONE_STORE },
    // The bare root, "/proc", is what the daemon hands in.
    Rule { word: Word::Literal("/proc/"), within: USER, except: PROC_READERS, reason: ONE_PROC },
    Rule { word: Word::Identifier("SystemTime"), within: CORE, except: &[], reason: PURE },
    Rule { word: Word::Identifier("Instant"), within: CORE, except: &[], reason: PURE },
    Rule { word: Word::Module("std", "env"), within: CORE, except: &[], reason: PURE },
    Rule { word: Word::Module("std", "fs"), within: CORE, except: &[], reason: PURE },
    Rule { word: Word::Module("std", "process"), within: CORE, except: &[], reason: PURE },
    Rule { word: Word::Module("std", "thread"), within: CORE, except: &[], reason: PURE },
    Rule {
        word: Word::Attribute("ignore"),
        within: SOURCES,
        except: &[],
        reason: "a test that is skipped in silence proves nothing: let it fail and say what it needs",
    },
];

/// Places where a rule does not hold.
pub const EXCEPTIONS: &[Exception] = &[Exception {
    file: "tracer-user/src/privileges/seccomp.rs",
    word: Word::Identifier("SYS_pidfd_getfd"),
    reason: "the daemon is refused it",
}];

/// Every folder with Rust of ours.
pub const SOURCES: &[&str] = &["tracer-common", "tracer-core", "tracer-ebpf", "tracer-user", "tests", "xtask"];

/// Longest Rust file, in lines.
pub const MAX_LINES: usize = 500;

/// Files that may be longer: path, lines, reason.
pub const LONG_FILES: &[(&str, usize, &str)] = &[];

/// Crates that must not be among another's dependencies, however far down: crate, banned, reason.
pub const ARROWS: &[(&str, &[&str], &str)] = &[
    ("tracer-common", &["tracer-core", "tracer-user", "aya", "tokio", "libc"], "the ABI knows nobody"),
    ("tracer-core", &["tracer-user", "aya", "tokio", "libc", "nix", "procfs"], "the core does no IO"),
    ("tracer-user", &["xtask", "socklife-tests"], "the product does not depend on its tools"),
];
