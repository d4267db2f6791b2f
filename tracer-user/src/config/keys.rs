//! The keys as data: what each one takes, means and defaults to. The reader, `check-config`, the commented default file
//! and the reload go by this list, so that none of them can forget a key.

use std::path::PathBuf;
use std::time::Duration;

use tracer_core::glob::Glob;

use super::{CmdlinePolicy, Config};

/// A key with one value.
pub(super) struct Key {
    /// The table that it is in.
    pub section: &'static str,
    pub name: &'static str,
    pub shape: Shape,
    /// One sentence, for the user.
    pub meaning: &'static str,
    /// What its numbers count; empty if there are none.
    pub unit: &'static str,
    /// Whether a reload may change it.
    pub is_live: bool,
    /// Its value as TOML; `None` while it is not given.
    pub shown: fn(&Config) -> Option<String>,
    /// What a file could say, for a key without a default.
    pub example: &'static str,
}

/// What a key takes.
pub(super) enum Shape {
    /// A whole number within bounds.
    Number { min: u32, max: u32, set: fn(&mut Config, u32) },
    /// The same, and a power of two.
    PowerOfTwo { min: u32, max: u32, set: fn(&mut Config, u32) },
    /// True or false.
    Flag(fn(&mut Config, bool)),
    /// A text that may be refused.
    Text(fn(&mut Config, &str) -> Result<(), String>),
    /// `capture.hooks`
    Hooks,
}

/// Longest name a user may give, in characters.
const NAME_CHARS_MAX: usize = 128;

const CAPTURE: Key = Key { section: "capture", unit: "", is_live: false, example: "", ..EMPTY };
const INVENTORY: Key = Key { section: "inventory", ..CAPTURE };
const EMPTY: Key = Key {
    section: "",
    name: "",
    shape: Shape::Flag(|_, _| {}),
    meaning: "",
    unit: "",
    is_live: false,
    shown: |_| None,
    example: "",
};

/// Every key but those of detectors, ports and the tables that there may be several of.
pub(super) const KEYS: &[Key] = &[
    Key {
        name: "ring_bytes",
        shape: Shape::PowerOfTwo { min: 64 << 10, max: 64 << 20, set: |to, n| to.capture.ring_bytes = n },
        meaning: "Size of the buffer between the kernel programs and the daemon.",
        unit: "bytes",
        shown: |of| Some(of.capture.ring_bytes.to_string()),
        ..CAPTURE
    },
    Key {
        name: "map_entries",
        shape: Shape::Number { min: 1_024, max: 1 << 20, set: |to, n| to.capture.map_entries = n },
        meaning: "Connections that the kernel programs remember at once; each takes some 190 bytes of kernel memory.",
        unit: "connections",
        shown: |of| Some(of.capture.map_entries.to_string()),
        ..CAPTURE
    },
    Key {
        name: "hooks",
        shape: Shape::Hooks,
        meaning: "Which hooks may be used: \"auto\", or a list of \"fexit\", \"kretprobe\", \"raw_tp\", \"syscall\" and \"poll\" to use no \
                  others.",
        shown: |of| Some(of.capture.hooks.to_toml()),
        ..CAPTURE
    },
    Key {
        name: "recognize",
        shape: Shape::Flag(|to, flag| to.capture.recognize = flag),
        meaning: "Whether ports that known database servers listen on are watched, too.",
        shown: |of| Some(of.capture.recognize.to_string()),
        ..CAPTURE
    },
    Key {
        name: "btf",
        shape: Shape::Text(|to, text| {
            to.capture.btf = not_empty("capture.btf", text, "a file")?;
            Ok(())
        }),
        meaning: "The file with the running kernel's types.",
        shown: |of| Some(quoted(&of.capture.btf.display().to_string())),
        ..CAPTURE
    },
    Key {
        name: "reconcile_s",
        shape: Shape::Number {
            min: 1,
            max: 3_600,
            set: |to, n| to.inventory.reconcile = Duration::from_secs(u64::from(n)),
        },
        meaning: "How often the socket tables are looked at: holders, byte counts and idle times are as old as the last look.",
        unit: "seconds",
        is_live: true,
        shown: |of| Some(of.inventory.reconcile.as_secs().to_string()),
        ..INVENTORY
    },
    Key {
        name: "namespaces",
        shape: Shape::Flag(|to, flag| to.inventory.namespaces = flag),
        meaning: "Whether every network namespace is watched; if not, only the daemon's own is.",
        shown: |of| Some(of.inventory.namespaces.to_string()),
        ..INVENTORY
    },
    Key {
        section: "detect",
        name: "window_s",
        shape: Shape::Number { min: 1, max: 3_600, set: |to, n| to.detect.window = Duration::from_secs(u64::from(n)) },
        meaning: "The smallest scale of time: what happens within it counts as one step.",
        unit: "seconds",
        shown: |of| Some(of.detect.window.as_secs().to_string()),
        ..EMPTY
    },
    Key {
        section: "privacy",
        name: "cmdline",
        shape: Shape::Text(|to, text| {
            to.privacy.cmdline = match text {
                "off" => CmdlinePolicy::Off,
                "redacted" => CmdlinePolicy::Redacted,
                _ => return Err(format!("privacy.cmdline is {text:?}: it must be \"off\" or \"redacted\"")),
            };
            Ok(())
        }),
        meaning: "Whether command lines are shown: \"off\", or \"redacted\" for command lines with secrets taken out.",
        is_live: true,
        shown: |of| {
            Some(quoted(match of.privacy.cmdline {
                CmdlinePolicy::Off => "off",
                CmdlinePolicy::Redacted => "redacted",
            }))
        },
        ..EMPTY
    },
    Key {
        section: "api",
        name: "socket",
        shape: Shape::Text(|to, text| {
            to.api.socket = not_empty("api.socket", text, "the control socket")?;
            Ok(())
        }),
        meaning: "Path of the control socket.",
        shown: |of| Some(quoted(&of.api.socket.display().to_string())),
        ..EMPTY
    },
    Key {
        section: "api",
        name: "group",
        shape: Shape::Text(|to, text| {
            to.api.group = name("api.group", text)?;
            Ok(())
        }),
        meaning: "Group that may use the control socket besides root; it need not exist.",
        shown: |of| Some(quoted(&of.api.group)),
        ..EMPTY
    },
    Key {
        section: "api",
        name: "metrics_addr",
        shape: Shape::Text(|to, text| {
            let address = text.parse().map_err(|_| {
                format!("api.metrics_addr is {text:?}: give an address and a port, such as \"127.0.0.1:9187\"")
            })?;
            to.api.metrics = Some(address);
            Ok(())
        }),
        meaning: "Address where /metrics is served over HTTP, to whoever asks, as --metrics; without it, only the control \
                  socket serves it.",
        shown: |of| of.api.metrics.map(|address| quoted(&address.to_string())),
        example: "\"127.0.0.1:9187\"",
        ..EMPTY
    },
    Key {
        section: "history",
        name: "dir",
        shape: Shape::Text(|to, text| {
            to.history.dir = Some(not_empty("history.dir", text, "a directory")?);
            Ok(())
        }),
        meaning: "Directory for what outlives a restart, as --state-dir; without it nothing does.",
        shown: |of| of.history.dir.as_ref().map(|dir| quoted(&dir.display().to_string())),
        example: "\"/var/lib/socklife\"",
        ..EMPTY
    },
    Key {
        section: "history",
        name: "max_age_s",
        shape: Shape::Number {
            min: 1,
            max: 366 * 86_400,
            set: |to, s| to.history.bounds.max_age = Duration::from_secs(u64::from(s)),
        },
        meaning: "How long what happened is kept there.",
        unit: "seconds",
        shown: |of| Some(of.history.bounds.max_age.as_secs().to_string()),
        ..EMPTY
    },
    Key {
        section: "history",
        name: "max_bytes",
        shape: Shape::Number {
            min: 1 << 20,
            // What a signed number of 32 bits has.
            max: i32::MAX.unsigned_abs(),
            set: |to, bytes| to.history.bounds.max_bytes = u64::from(bytes),
        },
        meaning: "How large it may get; the oldest goes first.",
        unit: "bytes",
        shown: |of| Some(of.history.bounds.max_bytes.to_string()),
        ..EMPTY
    },
];

/// A key of a table that there may be several of.
pub(super) struct TableKey {
    pub name: &'static str,
    pub meaning: &'static str,
    /// As TOML; empty for a table.
    pub example: &'static str,
}

const fn of_table(name: &'static str, example: &'static str, meaning: &'static str) -> TableKey {
    TableKey { name, meaning, example }
}

/// `[[endpoint]]`
pub(super) const ENDPOINT: &[TableKey] = &[
    of_table(
        "match",
        "\"10.0.0.5:5432\"",
        "Which endpoints: IP:PORT, HOST:PORT, a network, a range, or * for every address.",
    ),
    of_table("name", "\"orders-db\"", "What people call it, 1 to 128 characters."),
    of_table("limit", "100", "The most connections that each address takes, 1 to 4294967295."),
    of_table("database", "\"postgres\"", "Which database it is, instead of what the port says."),
    of_table("detect", "", "Thresholds for these endpoints, instead of those in [detect]."),
];

/// `[[group]]`
pub(super) const GROUP: &[TableKey] = &[
    of_table(
        "match",
        "\"route_builder_launcher.py\"",
        "Which launcher groups, by their label, which is the script's or program's file name; * and ? are wildcards.",
    ),
    of_table("detect", "", "Thresholds for findings about these groups, before those of endpoints and of [detect]."),
];

/// `[[ignore]]`
pub(super) const IGNORE: &[TableKey] = &[
    of_table("kind", "\"idle_hold\"", "Which kind of finding."),
    of_table("endpoint", "\"10.0.0.0/8:5432\"", "Which endpoints, as the match of an endpoint."),
    of_table("group", "\"nightly_*.py\"", "Which launcher groups, by their label, with wildcards."),
    of_table(
        "exe",
        "\"/usr/bin/python3*\"",
        "Which program files, with wildcards; of a finding about several processes each has to fit.",
    ),
    of_table("script", "\"/srv/jobs/*\"", "Which scripts, with wildcards, likewise."),
    of_table("user", "\"batch\"", "Which users, by name, with wildcards, likewise."),
    of_table("unit", "\"nightly@*.service\"", "Which systemd units, with wildcards, likewise."),
    of_table("until", "\"2026-12-01T00:00:00Z\"", "From then on they are told again (RFC 3339); for ever without it."),
    of_table(
        "reason",
        "\"the nightly job keeps its pool open on purpose\"",
        "Why, 1 to 128 characters; there has to be one.",
    ),
];

/// The key of that name, and its section's others.
pub(super) fn of_section(section: &str) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| key.section == section)
}

/// A text as TOML.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn not_empty(key: &str, text: &str, what: &str) -> Result<PathBuf, String> {
    if text.is_empty() || text.contains('\0') {
        return Err(format!("{key} is {text:?}: give the path of {what}"));
    }
    Ok(PathBuf::from(text))
}

/// A name that the user gives.
pub(super) fn name(key: &str, text: &str) -> Result<String, String> {
    if text.trim().is_empty() || text.chars().count() > NAME_CHARS_MAX || text.chars().any(char::is_control) {
        return Err(format!("{key} {text:?} must be 1 to {NAME_CHARS_MAX} characters on one line"));
    }
    Ok(text.to_owned())
}

/// A pattern for names.
pub(super) fn glob(key: &str, text: &str) -> Result<Glob, String> {
    name(key, text).map(Glob::from)
}

/// A database's name becomes a label of metrics and a word in tables: no blanks, nothing to escape.
pub(super) fn database(text: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if text.is_empty() || text.len() > 32 || !text.bytes().all(allowed) {
        return Err(format!("{text:?} is no database name: use 1 to 32 letters, digits, '_', '-', '.'"));
    }
    Ok(text.to_owned())
}

/// A number within bounds.
pub(super) fn within(key: &str, value: &str, number: Option<i64>, min: u32, max: u32) -> Result<u32, String> {
    match number.and_then(|number| u32::try_from(number).ok()) {
        Some(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(format!("{key} is {value}: it must be from {min} to {max}")),
    }
}
