//! The commented default file, made from the list of keys: it cannot say anything but what is so.

use std::fmt::Write as _;

use tracer_core::detect::thresholds;
use tracer_core::finding::Kind;

use super::keys::{self, Key, Shape, TableKey};
use super::{Config, reader};

/// Widest line.
const WIDTH: usize = 100;

const HEAD: &str = "socklife's configuration: every key, with its default. As it is, the file changes nothing: lines that set \
                    something begin with # and a letter or a bracket; remove that # to use one. `socklife check-config FILE` \
                    says every mistake. A running daemon takes changes over at SIGHUP (systemctl reload socklife), all or \
                    none; keys marked \"at a restart\" need one. `socklife explain KIND` says more of each kind of finding.";

const PORTS: &str = "Watched ports and the database behind each. What is given here is added to these, or renames one of \
                     them; at most 256 in all.";

const GROUP: &str = "Launcher groups that are judged by other thresholds: one table for each. Of several that fit, the \
                     later says.";

const IGNORE: &str = "Findings that are not told: one table for each rule. All that is given has to fit, and something has \
                      to be given. They are found and counted all the same, and snapshots show them with the reason.";

const ENDPOINT: &str = "What you know of endpoints: one table for each. Each thing comes from the most specific rule that \
                        says it, and of equally specific ones from the later. Names, limits and databases hold for each \
                        address of a network or range by itself.";

/// `packaging/socklife.toml`
#[must_use]
pub fn default_file() -> String {
    let config = Config::default();
    let mut out = String::new();
    comment(&mut out, HEAD);
    for section in reader::SECTIONS {
        let _infallible = writeln!(out, "\n[{section}]");
        keys::of_section(section).for_each(|key| one(&mut out, key, &config));
        match section {
            "capture" => {
                out.push('\n');
                comment(&mut out, PORTS);
                out.push_str("[capture.ports]\n");
                for (port, database) in config.capture.ports.iter() {
                    let _infallible = writeln!(out, "#{port} = {}", keys::quoted(database));
                }
            }
            "detect" => Kind::ALL.iter().for_each(|kind| detector(&mut out, *kind)),
            _ => {}
        }
    }
    table(&mut out, "endpoint", ENDPOINT, keys::ENDPOINT, "limit_pressure.warn_percent = 90");
    table(&mut out, "group", GROUP, keys::GROUP, "duplicate_launchers.instances = 30");
    table(&mut out, "ignore", IGNORE, keys::IGNORE, "");
    out
}

/// A key, its meaning, its bounds and its default.
fn one(out: &mut String, key: &Key, config: &Config) {
    let mut text = key.meaning.to_owned();
    match key.shape {
        Shape::Number { min, max, .. } => {
            let _infallible = write!(text, " In {}, {min} to {max}.", key.unit);
        }
        Shape::PowerOfTwo { min, max, .. } => {
            let _infallible = write!(text, " In {}, a power of two, {min} to {max}.", key.unit);
        }
        Shape::Flag(_) | Shape::Text(_) | Shape::Hooks => {}
    }
    if !key.is_live {
        text.push_str(" Changes at a restart.");
    }
    let value = (key.shown)(config).unwrap_or_else(|| {
        text.push_str(" Not set by default; for example:");
        key.example.to_owned()
    });
    comment(out, &text);
    let _infallible = writeln!(out, "#{} = {value}", key.name);
}

fn detector(out: &mut String, kind: Kind) {
    let _infallible = writeln!(out, "\n[detect.{}]", kind.name());
    comment(out, "Whether findings of this kind are made.");
    out.push_str("#enabled = true\n");
    for threshold in thresholds(kind) {
        let (min, max) = threshold.bounds;
        comment(out, &format!("{} {}, {min} to {max}.", threshold.meaning, unit(threshold.key)));
        let _infallible = writeln!(out, "#{} = {}", threshold.key, threshold.default);
    }
}

/// What a threshold counts in, which its name ends with.
fn unit(key: &str) -> &'static str {
    match key {
        _ if key.ends_with("_s") => "In seconds",
        _ if key.ends_with("percent") => "In percent",
        _ => "A number",
    }
}

fn table(out: &mut String, name: &str, text: &str, keys: &[TableKey], detect: &str) {
    out.push('\n');
    comment(out, text);
    let _infallible = writeln!(out, "#[[{name}]]");
    for key in keys {
        comment(out, key.meaning);
        let _infallible = match key.example {
            "" => writeln!(out, "#{}.{detect}", key.name),
            example => writeln!(out, "#{} = {example}", key.name),
        };
    }
}

/// Text as comment lines.
fn comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > WIDTH {
            let _infallible = writeln!(out, "{line}");
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    let _infallible = writeln!(out, "{line}");
}
