//! Lays the sources over each other and checks every value where its place is still known.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use tracer_core::detect::{DetectConfig, SettingError};
use tracer_core::finding::Kind;

use super::endpoints::{Resolver, overlay, parse_address, parse_port};
use super::{CmdlinePolicy, Config, ConfigError, EndpointRule, Hooks, Overrides, raw};

/// Largest configuration file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Most watched ports: each costs the kernel's socket dump a comparison a socket.
const PORTS_MAX: usize = 256;
/// Most endpoint rules.
const ENDPOINTS_MAX: usize = 4_096;
/// Longest name a user may give, in characters.
const NAME_CHARS_MAX: usize = 128;

/// `config` with every source laid over it.
pub(super) fn load(mut config: Config, overrides: &Overrides, resolver: &Resolver) -> Result<Config, ConfigError> {
    // Where each address was ruled last, for the check against the ports, which later sources may still add.
    let mut places = BTreeMap::new();
    if let Some(path) = &overrides.file {
        let text = read(path)?;
        let source = Source::File { path, text: &text };
        Layer { source, resolver, places: &mut places }.apply(&text, &mut config)?;
    }
    for set in &overrides.set {
        let text = set_as_toml(set)?;
        Layer { source: Source::Set(set), resolver, places: &mut places }.apply(&text, &mut config)?;
    }
    apply_flags(overrides, resolver, &mut places, &mut config)?;
    check_whole(&config, &places)?;
    Ok(config)
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let shown = path.display();
    let fail = |error| ConfigError(format!("cannot read {shown}: {error}"));
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(fail)?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(fail)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(ConfigError(format!("{shown} is larger than 1 MiB: it is no socklife configuration")));
    }
    Ok(text)
}

/// `KEY=VALUE` as a line of TOML. A value that is no TOML is taken as a string, so that shells need no double quoting.
fn set_as_toml(set: &str) -> Result<String, ConfigError> {
    let wants = "write --set section.key=value";
    let (key, value) =
        set.split_once('=').ok_or_else(|| ConfigError(format!("--set {set:?} has no value: {wants}")))?;
    let bare =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if !key.split('.').all(bare) {
        return Err(ConfigError(format!("--set {set:?} has no proper key: {wants}")));
    }
    let value = value.parse::<toml::Value>().unwrap_or_else(|_| toml::Value::String(value.to_owned()));
    Ok(format!("{key} = {value}\n"))
}

fn apply_flags(
    overrides: &Overrides,
    resolver: &Resolver,
    places: &mut BTreeMap<SocketAddr, String>,
    config: &mut Config,
) -> Result<(), ConfigError> {
    for flag in &overrides.ports {
        let fail = |why: String| ConfigError(format!("--port {flag:?}: {why}"));
        let (port, database) =
            flag.split_once('=').ok_or_else(|| fail("write PORT=DATABASE, such as 5433=postgres".to_owned()))?;
        config.capture.ports.insert(parse_port(port).map_err(fail)?, parse_database(database).map_err(fail)?);
    }
    for flag in &overrides.limits {
        let fail = |why: String| ConfigError(format!("--limit {flag:?}: {why}"));
        let (address, limit) =
            flag.rsplit_once('=').ok_or_else(|| fail("write HOST:PORT=N, such as 10.0.0.5:5432=100".to_owned()))?;
        let limit = limit.parse::<i64>().map_err(|_| fail(format!("{limit:?} is no number")))?;
        let limit = within("the limit", limit, 1, u32::MAX).map_err(fail)?;
        let addrs = parse_address(address, resolver).map_err(fail)?;
        places.extend(addrs.iter().map(|addr| (*addr, format!("--limit {flag:?}"))));
        overlay(&mut config.endpoints, &EndpointRule { addrs, name: None, limit: Some(limit), database: None });
    }
    if let Some(path) = &overrides.socket {
        config.api.socket.clone_from(path);
    }
    if let Some(dir) = &overrides.state_dir {
        if dir.as_os_str().is_empty() {
            return Err(ConfigError("--state-dir is empty: give the path of a directory".to_owned()));
        }
        config.history.dir = Some(dir.clone());
    }
    if overrides.run_for.is_some_and(|run_for| run_for.is_zero()) {
        return Err(ConfigError("--for is zero: give a duration such as 30s".to_owned()));
    }
    config.run_for = overrides.run_for;
    Ok(())
}

/// What no single value shows.
fn check_whole(config: &Config, places: &BTreeMap<SocketAddr, String>) -> Result<(), ConfigError> {
    config.detect.check().map_err(ConfigError)?;
    if config.capture.ports.iter().count() > PORTS_MAX {
        return Err(ConfigError(format!(
            "more than {PORTS_MAX} ports are watched: name fewer in capture.ports and --port"
        )));
    }
    if config.endpoints.len() > ENDPOINTS_MAX {
        return Err(ConfigError(format!("more than {ENDPOINTS_MAX} endpoints are given: name fewer")));
    }
    for rule in &config.endpoints {
        for addr in &rule.addrs {
            let port = addr.port();
            if !config.capture.ports.contains(port) {
                let place = places.get(addr).map_or("endpoint", String::as_str);
                let database = rule.database.as_deref().unwrap_or("DATABASE");
                return Err(ConfigError(format!("{place}: port {port} is not watched: add --port {port}={database}")));
            }
        }
    }
    if config.api.socket.as_os_str().is_empty() {
        return Err(ConfigError("the path of the control socket is empty: give --socket PATH".to_owned()));
    }
    Ok(())
}

/// Where a text of TOML comes from.
enum Source<'a> {
    File { path: &'a PathBuf, text: &'a str },
    Set(&'a str),
}

impl Source<'_> {
    fn place(&self, span: Range<usize>) -> String {
        match self {
            Self::File { path, text } => {
                let before = text.as_bytes().get(..span.start).unwrap_or(text.as_bytes());
                format!("{} line {}", path.display(), 1 + before.iter().filter(|byte| **byte == b'\n').count())
            }
            Self::Set(set) => format!("--set {set:?}"),
        }
    }

    fn fail(&self, span: Range<usize>, why: impl std::fmt::Display) -> ConfigError {
        ConfigError(format!("{}: {why}", self.place(span)))
    }
}

struct Layer<'a> {
    source: Source<'a>,
    resolver: &'a Resolver,
    places: &'a mut BTreeMap<SocketAddr, String>,
}

impl Layer<'_> {
    fn apply(mut self, text: &str, config: &mut Config) -> Result<(), ConfigError> {
        let raw: raw::Raw = toml::from_str(text).map_err(|error| {
            let why = error.message().trim_end().replace('\n', ", ").replace("expected i64", "expected a whole number");
            self.source.fail(error.span().unwrap_or(0..0), why)
        })?;
        self.capture(&raw.capture, config)?;
        let seconds = |value, key, max, target: &mut Duration| -> Result<(), ConfigError> {
            self.number(value, key, 1, max, |s| *target = Duration::from_secs(u64::from(s)))
        };
        seconds(&raw.inventory.reconcile_s, "inventory.reconcile_s", 3_600, &mut config.inventory.reconcile)?;
        config.inventory.namespaces = raw.inventory.namespaces.unwrap_or(config.inventory.namespaces);
        seconds(&raw.detect.window_s, "detect.window_s", 3_600, &mut config.detect.window)?;
        for (kind, settings) in &raw.detect.kinds {
            for (key, value) in settings {
                self.threshold(*kind, key, value, &mut config.detect)?;
            }
        }
        match raw.privacy.cmdline {
            Some(raw::Cmdline::Off) => config.privacy.cmdline = CmdlinePolicy::Off,
            Some(raw::Cmdline::Redacted) => config.privacy.cmdline = CmdlinePolicy::Redacted,
            None => {}
        }
        self.api(&raw.api, config)?;
        if let Some(dir) = &raw.history.dir {
            if dir.get_ref().is_empty() {
                return Err(self.source.fail(dir.span(), "history.dir is empty: give the path of a directory"));
            }
            config.history.dir = Some(PathBuf::from(dir.get_ref()));
        }
        let bounds = &mut config.history.bounds;
        seconds(&raw.history.max_age_s, "history.max_age_s", 366 * 86_400, &mut bounds.max_age)?;
        // Up to what a signed number of 32 bits has: two GiB.
        self.number(&raw.history.max_bytes, "history.max_bytes", 1 << 20, i32::MAX.unsigned_abs(), |n| {
            bounds.max_bytes = u64::from(n);
        })?;
        self.endpoints(&raw.endpoint, config)
    }

    /// One key of `[detect.KIND]`.
    fn threshold(
        &self,
        kind: Kind,
        key: &Spanned<String>,
        value: &Spanned<toml::Value>,
        detect: &mut DetectConfig,
    ) -> Result<(), ConfigError> {
        let name = format!("detect.{}.{}", kind.name(), key.get_ref());
        match (key.get_ref().as_str(), value.get_ref()) {
            ("enabled", toml::Value::Boolean(enabled)) => detect.enable(kind, *enabled),
            ("enabled", other) => {
                return Err(self.source.fail(value.span(), format!("{name} is {other}: it must be true or false")));
            }
            (key, toml::Value::Integer(number)) => detect.set(kind, key, *number).map_err(|error| match error {
                SettingError::OutOfBounds { .. } => {
                    self.source.fail(value.span(), format!("detect.{}.{error}", kind.name()))
                }
                SettingError::UnknownKey { .. } => self.source.fail(value.span(), error),
            })?,
            (_, other) => {
                return Err(self.source.fail(value.span(), format!("{name} is {other}: it must be a whole number")));
            }
        }
        Ok(())
    }

    fn number(
        &self,
        value: &Option<Spanned<i64>>,
        key: &str,
        min: u32,
        max: u32,
        mut set: impl FnMut(u32),
    ) -> Result<(), ConfigError> {
        if let Some(value) = value {
            set(within(key, *value.get_ref(), min, max).map_err(|why| self.source.fail(value.span(), why))?);
        }
        Ok(())
    }

    fn capture(&self, raw: &raw::Capture, config: &mut Config) -> Result<(), ConfigError> {
        let capture = &mut config.capture;
        self.number(&raw.ring_bytes, "capture.ring_bytes", 64 << 10, 64 << 20, |n| capture.ring_bytes = n)?;
        // From 64 KiB up every power of two is a multiple of any page size Linux has.
        if let Some(value) = &raw.ring_bytes
            && !capture.ring_bytes.is_power_of_two()
        {
            let why = format!("capture.ring_bytes is {}: it must be a power of two", value.get_ref());
            return Err(self.source.fail(value.span(), why));
        }
        self.number(&raw.map_entries, "capture.map_entries", 1_024, 1 << 20, |n| capture.map_entries = n)?;
        if let Some(path) = &raw.btf {
            capture.btf = PathBuf::from(path.get_ref());
        }
        capture.recognize = raw.recognize.unwrap_or(capture.recognize);
        if let Some(hooks) = &raw.hooks {
            capture.hooks = Hooks::from_toml(hooks.get_ref()).map_err(|why| self.source.fail(hooks.span(), why))?;
        }
        for (port, database) in &raw.ports {
            let fail = |span, why| self.source.fail(span, format!("capture.ports: {why}"));
            let number = parse_port(port.get_ref()).map_err(|why| fail(port.span(), why))?;
            let name = parse_database(database.get_ref()).map_err(|why| fail(database.span(), why))?;
            capture.ports.insert(number, name);
        }
        Ok(())
    }

    fn api(&self, raw: &raw::Api, config: &mut Config) -> Result<(), ConfigError> {
        if let Some(socket) = &raw.socket {
            config.api.socket = PathBuf::from(socket.get_ref());
        }
        if let Some(group) = &raw.group {
            parse_name("api.group", group.get_ref()).map_err(|why| self.source.fail(group.span(), why))?;
            config.api.group.clone_from(group.get_ref());
        }
        Ok(())
    }

    fn endpoints(&mut self, rules: &[Spanned<raw::Endpoint>], config: &mut Config) -> Result<(), ConfigError> {
        let mut seen: BTreeMap<SocketAddr, String> = BTreeMap::new();
        for raw in rules {
            let span = raw.get_ref().matches.span();
            let rule = self.endpoint(raw.get_ref())?;
            let place = self.source.place(span.clone());
            for addr in &rule.addrs {
                if let Some(first) = seen.insert(*addr, place.clone()) {
                    return Err(self.source.fail(span, format!("endpoint {addr} is already given in {first}")));
                }
                self.places.insert(*addr, place.clone());
            }
            overlay(&mut config.endpoints, &rule);
        }
        Ok(())
    }

    fn endpoint(&self, raw: &raw::Endpoint) -> Result<EndpointRule, ConfigError> {
        let fail = |span, why: String| self.source.fail(span, format!("endpoint: {why}"));
        let addrs = parse_address(raw.matches.get_ref(), self.resolver).map_err(|why| fail(raw.matches.span(), why))?;
        let mut rule = EndpointRule { addrs, name: None, limit: None, database: None };
        if let Some(name) = &raw.name {
            rule.name = Some(parse_name("name", name.get_ref()).map_err(|why| fail(name.span(), why))?);
        }
        if let Some(database) = &raw.database {
            rule.database = Some(parse_database(database.get_ref()).map_err(|why| fail(database.span(), why))?);
        }
        self.number(&raw.limit, "endpoint.limit", 1, u32::MAX, |n| rule.limit = Some(n))?;
        Ok(rule)
    }
}

fn within(key: &str, value: i64, min: u32, max: u32) -> Result<u32, String> {
    match u32::try_from(value) {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(format!("{key} is {value}: it must be from {min} to {max}")),
    }
}

/// A database's name becomes a label of metrics and a word in tables: no blanks, nothing to escape.
fn parse_database(text: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if text.is_empty() || text.len() > 32 || !text.bytes().all(allowed) {
        return Err(format!("{text:?} is no database name: use 1 to 32 letters, digits, '_', '-', '.'"));
    }
    Ok(text.to_owned())
}

fn parse_name(key: &str, text: &str) -> Result<String, String> {
    if text.trim().is_empty() || text.chars().count() > NAME_CHARS_MAX || text.chars().any(char::is_control) {
        return Err(format!("{key} {text:?} must be 1 to {NAME_CHARS_MAX} characters on one line"));
    }
    Ok(text.to_owned())
}
