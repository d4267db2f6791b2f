//! Lays the sources over each other, and checks what no single value shows.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::Path;

use super::endpoints::{Resolver, Whose, parse_port};
use super::mistakes::{Mistakes, Source};
use super::reader::{Places, Reader};
use super::{Checked, Config, ConfigError, EndpointRule, Overrides, keys};

/// Largest configuration file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Most watched ports: each costs the kernel's socket dump a comparison a socket.
const PORTS_MAX: usize = 256;
/// Most endpoint rules.
const ENDPOINTS_MAX: usize = 4_096;
/// Most names of hosts: they are looked up one after the other.
const HOSTS_MAX: usize = 256;
/// Most different sets of thresholds for endpoints, and as many for groups: detectors run once for each.
const SETS_MAX: usize = 16;
/// Most groups, and most rules to ignore: each finding is held against them every second.
const RULES_MAX: usize = 256;

/// The configuration while it is put together, and what is wrong with it.
struct Layers {
    config: Config,
    places: Places,
    mistakes: Vec<String>,
}

/// `config` with every source laid over it.
pub(super) fn load(config: Config, overrides: &Overrides) -> Result<Config, ConfigError> {
    let mut layers = Layers { config, places: Places::default(), mistakes: Vec::new() };
    if let Some(path) = &overrides.file {
        layers.file(path);
    }
    for set in &overrides.set {
        match set_as_toml(set) {
            Ok(text) => layers.text(Source::Set(set), &text),
            Err(why) => layers.mistakes.push(why),
        }
    }
    layers.flags(overrides);
    layers.check_whole();
    ConfigError::unless_none(layers.mistakes)?;
    Ok(layers.config)
}

/// Every mistake in a file, and which of its names do not resolve.
pub(super) fn check(path: &Path, resolver: &Resolver) -> Checked {
    let mut layers = Layers { config: Config::default(), places: Places::default(), mistakes: Vec::new() };
    layers.file(path);
    layers.check_whole();
    let mut warnings = Vec::new();
    let mut seen = BTreeSet::new();
    let endpoints = layers.config.endpoints.iter().map(|rule| Some(&rule.whose)).zip(&layers.places.endpoints);
    let ignores = layers.config.ignores.iter().map(|rule| rule.whose.as_ref()).zip(&layers.places.ignores);
    for (whose, place) in endpoints.chain(ignores) {
        if let Some(Whose::Host { name, .. }) = whose
            && seen.insert(name)
            && seen.len() <= HOSTS_MAX
            && let Err(error) = resolver(name)
        {
            let what = "the daemon starts all the same and asks again";
            warnings.push(format!("{place}: warning: cannot resolve {name:?} ({error}): {what}"));
        }
    }
    let mistakes = ConfigError::unless_none(layers.mistakes).err().map_or_else(Vec::new, |error| error.0);
    Checked { mistakes, warnings }
}

/// `KEY=VALUE` as a line of TOML. A value that is no TOML is taken as a string, so that shells need no double quoting.
fn set_as_toml(set: &str) -> Result<String, String> {
    let wants = "write --set section.key=value";
    let (key, value) = set.split_once('=').ok_or_else(|| format!("--set {set:?} has no value: {wants}"))?;
    let bare =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if !key.split('.').all(bare) {
        return Err(format!("--set {set:?} has no proper key: {wants}"));
    }
    let value = value.parse::<toml::Value>().unwrap_or_else(|_| toml::Value::String(value.to_owned()));
    Ok(format!("{key} = {value}\n"))
}

impl Layers {
    fn file(&mut self, path: &Path) {
        let shown = path.display().to_string();
        let mut bytes = Vec::new();
        let read = std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
        if let Err(error) = read {
            return self.mistakes.push(format!("cannot read {shown}: {error}"));
        }
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return self.mistakes.push(format!("{shown} is larger than 1 MiB: it is no socklife configuration"));
        }
        match std::str::from_utf8(&bytes) {
            Ok(text) => self.text(Source::File { path: &shown, text }, text),
            Err(error) => {
                let text = bytes.get(..error.valid_up_to()).and_then(|bytes| std::str::from_utf8(bytes).ok());
                let source = Source::File { path: &shown, text: text.unwrap_or_default() };
                self.mistakes.push(format!("{}: the file is not UTF-8", source.place(error.valid_up_to())));
            }
        }
    }

    fn text(&mut self, source: Source<'_>, text: &str) {
        let mut mistakes = Mistakes::new(source);
        let before = self.places.count();
        let mut reader = Reader { mistakes: &mut mistakes, config: &mut self.config, places: &mut self.places, before };
        reader.read(text);
        self.mistakes.append(&mut mistakes.sentences());
    }

    fn flags(&mut self, overrides: &Overrides) {
        for flag in &overrides.ports {
            if let Err(why) = self.port(flag) {
                self.mistakes.push(format!("--port {flag:?}: {why}"));
            }
        }
        for flag in &overrides.limits {
            if let Err(why) = self.limit(flag) {
                self.mistakes.push(format!("--limit {flag:?}: {why}"));
            }
        }
        if let Some(path) = &overrides.socket {
            if path.as_os_str().is_empty() {
                self.mistakes.push("the path of the control socket is empty: give --socket PATH".to_owned());
            }
            self.config.api.socket.clone_from(path);
        }
        if let Some(dir) = &overrides.state_dir {
            if dir.as_os_str().is_empty() {
                self.mistakes.push("--state-dir is empty: give the path of a directory".to_owned());
            }
            self.config.history.dir = Some(dir.clone());
        }
        self.config.api.metrics = overrides.metrics.or(self.config.api.metrics);
        if overrides.run_for.is_some_and(|run_for| run_for.is_zero()) {
            self.mistakes.push("--for is zero: give a duration such as 30s".to_owned());
        }
        self.config.run_for = overrides.run_for;
    }

    fn port(&mut self, flag: &str) -> Result<(), String> {
        let (port, database) =
            flag.split_once('=').ok_or_else(|| "write PORT=DATABASE, such as 5433=postgres".to_owned())?;
        self.config.capture.ports.insert(parse_port(port)?, keys::database(database)?);
        Ok(())
    }

    fn limit(&mut self, flag: &str) -> Result<(), String> {
        let (address, limit) =
            flag.rsplit_once('=').ok_or_else(|| "write HOST:PORT=N, such as 10.0.0.5:5432=100".to_owned())?;
        let number = limit.parse::<i64>().map_err(|_| format!("{limit:?} is no number"))?;
        let limit = Some(keys::within("the limit", limit, Some(number), 1, u32::MAX)?);
        let whose = Whose::parse(address)?;
        let place = format!("--limit {flag:?}");
        self.config.endpoints.push(EndpointRule { whose, limit, ..EndpointRule::default() });
        self.places.endpoints.push(place);
        Ok(())
    }

    /// What no single value shows.
    fn check_whole(&mut self) {
        let (config, mistakes) = (&self.config, &mut self.mistakes);
        mistakes.extend(config.detect.check().err());
        let ports = &config.capture.ports;
        if ports.iter().count() > PORTS_MAX {
            mistakes.push(format!("more than {PORTS_MAX} ports are watched: name fewer in capture.ports and --port"));
        }
        if config.endpoints.len() > ENDPOINTS_MAX {
            mistakes.push(format!("more than {ENDPOINTS_MAX} endpoints are given: name fewer"));
        }
        if config.hosts().len() > HOSTS_MAX {
            mistakes.push(format!("more than {HOSTS_MAX} names of hosts are given: name fewer, or networks"));
        }
        let of_endpoints: BTreeSet<_> = config.endpoints.iter().map(|rule| &rule.detect).collect();
        let of_groups: BTreeSet<_> = config.groups.iter().map(|rule| &rule.detect).collect();
        for (what, sets) in [("endpoints", of_endpoints), ("groups", of_groups)] {
            if sets.len() > SETS_MAX {
                mistakes
                    .push(format!("{what} have more than {SETS_MAX} different sets of thresholds: let some be alike"));
            }
        }
        for (what, rules) in [("groups", config.groups.len()), ("rules to ignore", config.ignores.len())] {
            if rules > RULES_MAX {
                mistakes.push(format!("more than {RULES_MAX} {what} are given: name fewer, with patterns"));
            }
        }
        for (rule, place) in config.endpoints.iter().zip(&self.places.endpoints) {
            let (first, last) = rule.whose.ports();
            if !ports.iter().any(|(port, _)| (first..=last).contains(&port)) {
                let database = rule.database.as_deref().unwrap_or("DATABASE");
                mistakes.push(match first == last {
                    true => format!(
                        "{place}: port {first} is not watched: add --port {first}={database}, or to capture.ports"
                    ),
                    false => format!("{place}: no port from {first} to {last} is watched: add them to capture.ports"),
                });
            }
        }
        // What is wrong everywhere has been said.
        if config.detect.check().is_err() {
            return;
        }
        let endpoints = config.endpoints.iter().map(|rule| ("endpoint", &rule.detect)).zip(&self.places.endpoints);
        let groups = config.groups.iter().map(|rule| ("group", &rule.detect)).zip(&self.places.groups);
        for ((what, detect), place) in endpoints.chain(groups) {
            if let Err(why) = config.detect.check_with(detect) {
                mistakes.push(format!("{place}: for this {what} {why}"));
            }
        }
    }
}
