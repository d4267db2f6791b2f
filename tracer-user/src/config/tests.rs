//! Good and bad configurations with the exact sentence each mistake gets.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;
use tracer_core::detect::thresholds;
use tracer_core::finding::Kind;
use tracer_core::rules::Matcher;
use tracer_core::time::WallTime;

mod mistakes;

use mistakes::MISTAKES;

use super::layers::{check, load};

use super::*;

/// Loads with `text` as the file; mistakes name it `FILE`.
fn file(text: &str) -> Result<Config, String> {
    with(text, Overrides::default())
}

fn with(text: &str, mut overrides: Overrides) -> Result<Config, String> {
    let mut temp = tempfile::NamedTempFile::new().unwrap();
    temp.write_all(text.as_bytes()).unwrap();
    overrides.file = Some(temp.path().to_owned());
    load(Config::default(), &overrides)
        .map_err(|error| error.to_string().replace(&temp.path().display().to_string(), "FILE"))
}

fn flags(set: &[&str], ports: &[&str], limits: &[&str]) -> Result<Config, String> {
    let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    let overrides = Overrides { set: own(set), ports: own(ports), limits: own(limits), ..Overrides::default() };
    load(Config::default(), &overrides).map_err(|error| error.to_string())
}

fn addr(text: &str) -> Whose {
    Whose::Addresses(text.parse::<SocketAddr>().unwrap().into())
}

fn host(name: &str, port: u16) -> Whose {
    Whose::Host { name: name.to_owned(), ports: (port, port) }
}

fn changes(values: &[(Kind, &str, i64)]) -> Changes {
    let mut changes = Changes::default();
    values.iter().for_each(|(kind, key, value)| changes.set(*kind, key, *value).unwrap());
    changes
}

/// Whether a kind is enabled, and its thresholds in the order in which it declares them.
fn detect(config: &Config, kind: Kind) -> (bool, Vec<u32>) {
    let values = thresholds(kind).iter().map(|threshold| config.detect.get(kind, threshold));
    (config.detect.is_enabled(kind), values.collect())
}

#[test]
fn defaults_are_the_documented_ones() {
    let config = file("").unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.capture.ring_bytes, 1_048_576);
    assert_eq!(config.capture.map_entries, 65_536);
    assert_eq!(config.capture.btf, PathBuf::from("/sys/kernel/btf/vmlinux"));
    assert_eq!(config.capture.ports.database(5432), Some("postgres"));
    assert_eq!(config.inventory.reconcile, Duration::from_secs(10));
    assert_eq!(config.detect.window, Duration::from_secs(10));
    assert_eq!(detect(&config, Kind::LimitPressure), (true, vec![80, 95]));
    assert_eq!(detect(&config, Kind::CloseWaitLeak), (true, vec![60]));
    assert_eq!(config.privacy.cmdline, CmdlinePolicy::Off);
    assert_eq!(config.api.socket, PathBuf::from("/run/socklife/socklife.sock"));
    assert_eq!(config.api.group, "socklife");
}

#[test]
fn a_file_reaches_every_key() {
    let config = file(
        r#"
        [capture]
        ring_bytes = 131072
        map_entries = 2048
        btf = "/tmp/btf"
        [capture.ports]
        5433 = "postgres"
        "6379" = "valkey"
        [inventory]
        reconcile_s = 3600
        [detect]
        window_s = 1
        [detect.limit_pressure]
        enabled = false
        warn_percent = 50
        critical_percent = 100
        [detect.close_wait_leak]
        enabled = false
        after_s = 5
        [privacy]
        cmdline = "redacted"
        [api]
        socket = "/tmp/s.sock"
        group = "dba"
        metrics_addr = "[::1]:9187"
        [history]
        dir = "/var/lib/socklife"
        max_age_s = 3600
        max_bytes = 1048576
        "#,
    )
    .unwrap();
    assert_eq!(config.capture.btf, PathBuf::from("/tmp/btf"));
    assert_eq!((config.capture.ring_bytes, config.capture.map_entries), (131_072, 2_048));
    assert_eq!(config.capture.ports.database(5433), Some("postgres"));
    assert_eq!(config.capture.ports.database(6379), Some("valkey"));
    assert_eq!(config.inventory.reconcile, Duration::from_secs(3_600));
    assert_eq!(config.detect.window, Duration::from_secs(1));
    assert_eq!(detect(&config, Kind::LimitPressure), (false, vec![50, 100]));
    assert_eq!(detect(&config, Kind::CloseWaitLeak), (false, vec![5]));
    assert_eq!(config.privacy.cmdline, CmdlinePolicy::Redacted);
    assert_eq!(config.history.dir, Some(PathBuf::from("/var/lib/socklife")));
    let bounds = config.history.bounds;
    assert_eq!((bounds.max_age, bounds.max_bytes), (Duration::from_secs(3_600), 1 << 20));
    assert_eq!(
        config.api,
        ApiConfig {
            socket: PathBuf::from("/tmp/s.sock"),
            group: "dba".to_owned(),
            metrics: Some("[::1]:9187".parse().unwrap()),
        }
    );
}

#[test]
fn tables_are_read_whole() {
    let config = file(
        r#"
        [capture.ports]
        5433 = "postgres"
        [[endpoint]]
        match = "orders-db:5433"
        name = "orders"
        limit = 100
        database = "timescale"
        detect.limit_pressure.warn_percent = 90
        [[endpoint]]
        match = "[::1]:5432"
        [[group]]
        match = "nightly_*.py"
        detect.idle_hold.after_s = 7200
        [[ignore]]
        kind = "idle_hold"
        endpoint = "orders-db:5433"
        group = "g*"
        exe = "/e?"
        script = "s"
        user = "u"
        unit = "n"
        until = 2026-12-01T00:00:00Z
        reason = "because"
        "#,
    )
    .unwrap();
    let orders = EndpointRule {
        whose: host("orders-db", 5433),
        name: Some("orders".to_owned()),
        limit: Some(100),
        database: Some("timescale".to_owned()),
        detect: changes(&[(Kind::LimitPressure, "warn_percent", 90)]),
    };
    let local = EndpointRule { whose: addr("[::1]:5432"), ..EndpointRule::default() };
    assert_eq!(config.endpoints, [orders, local]);
    let glob = |text: &str| Glob::from(text.to_owned());
    let nightly = GroupRule { label: glob("nightly_*.py"), detect: changes(&[(Kind::IdleHold, "after_s", 7_200)]) };
    assert_eq!(config.groups, [nightly]);
    let what = Ignore {
        kind: Some(Kind::IdleHold),
        endpoints: None,
        group: Some(glob("g*")),
        exe: Some(glob("/e?")),
        script: Some(glob("s")),
        user: Some(glob("u")),
        unit: Some(glob("n")),
        until: Some(WallTime { unix_ms: 1_796_083_200_000 }),
        reason: "because".to_owned(),
    };
    assert_eq!(config.ignores, [IgnoreRule { whose: Some(host("orders-db", 5433)), what }]);
    assert_eq!(config.hosts().into_iter().collect::<Vec<_>>(), ["orders-db"]);
}

#[test]
fn later_sources_win() {
    let text = "[inventory]\nreconcile_s = 20\n[detect]\nwindow_s = 20\n[capture.ports]\n5432 = \"a\"\n6000 = \"a\"\n\
                [api]\nsocket = \"/file\"\nmetrics_addr = \"[::1]:1\"\n[[endpoint]]\nmatch = \"both:5432\"\nname = \"orders\"\nlimit = 10\n";
    let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let overrides = Overrides {
        set: own(&["detect.window_s=30", "capture.ports.5432=b", "capture.ports.6000=b", "api.socket=/set"]),
        ports: own(&["6000=c"]),
        limits: own(&["127.0.0.1:5432=100"]),
        socket: Some(PathBuf::from("/flag")),
        state_dir: Some(PathBuf::from("/state")),
        metrics: Some("127.0.0.1:9187".parse().unwrap()),
        run_for: Some(Duration::from_secs(5)),
        file: None,
    };
    let config = with(text, overrides).unwrap();
    assert_eq!(config.inventory.reconcile, Duration::from_secs(20));
    assert_eq!(config.detect.window, Duration::from_secs(30));
    assert_eq!(config.capture.ports.database(5432), Some("b"));
    assert_eq!(config.capture.ports.database(6000), Some("c"));
    assert_eq!(config.api.socket, PathBuf::from("/flag"));
    assert_eq!(config.history.dir, Some(PathBuf::from("/state")));
    assert_eq!(config.run_for, Some(Duration::from_secs(5)));
    let named = EndpointRule {
        whose: host("both", 5432),
        name: Some("orders".to_owned()),
        limit: Some(10),
        ..EndpointRule::default()
    };
    let limited = EndpointRule { whose: addr("127.0.0.1:5432"), limit: Some(100), ..EndpointRule::default() };
    assert_eq!(config.endpoints, [named, limited]);
}

#[test]
fn set_takes_toml_values_and_plain_words() {
    for (set, check) in [
        ("detect.limit_pressure.enabled=false", (|c| !c.detect.is_enabled(Kind::LimitPressure)) as fn(&Config) -> bool),
        ("capture.ring_bytes=65536", |c| c.capture.ring_bytes == 65_536),
        ("capture.ring_bytes=0x10_0000", |c| c.capture.ring_bytes == 1_048_576),
        ("privacy.cmdline=redacted", |c| c.privacy.cmdline == CmdlinePolicy::Redacted),
        ("privacy.cmdline='redacted'", |c| c.privacy.cmdline == CmdlinePolicy::Redacted),
        ("api.socket=/tmp/a b=c.sock", |c| c.api.socket.as_os_str() == "/tmp/a b=c.sock"),
        ("capture.ports.7000=postgres", |c| c.capture.ports.database(7000) == Some("postgres")),
        ("endpoint=[{match='10.0.0.5:5432', limit=7}]", |c| c.endpoints[0].limit == Some(7)),
    ] {
        let config = flags(&[set], &[], &[]).unwrap_or_else(|error| panic!("{set}: {error}"));
        assert!(check(&config), "{set}");
    }
}

#[test]
fn flags_take_what_match_takes() {
    let whose = |limit: &str| flags(&[], &[], &[limit]).map(|config| config.endpoints[0].whose.clone());
    assert_eq!(whose("[::ffff:10.0.0.5]:5432=1").unwrap(), addr("10.0.0.5:5432"));
    assert_eq!(whose("both:5432=1").unwrap(), host("both", 5432));
    let ips = Some(("10.0.0.0".parse().unwrap(), "10.255.255.255".parse().unwrap()));
    assert_eq!(whose("10.0.0.0/8:*=1").unwrap(), Whose::Addresses(Matcher { ips, ports: (1, 65_535) }));
}

#[test]
fn mistakes_in_a_file() {
    let wrong = MISTAKES.iter().filter_map(|(text, sentences)| {
        let found = file(text).err().unwrap_or_default();
        (found != sentences.join("\n")).then(|| format!("--- {text}\n=== found\n{found}\n"))
    });
    assert_eq!(wrong.collect::<String>(), "");
}

#[test]
fn mistakes_in_flags() {
    for (set, port, limit, sentence) in [
        ("detect", "", "", "--set \"detect\" has no value: write --set section.key=value"),
        ("=1", "", "", "--set \"=1\" has no proper key: write --set section.key=value"),
        ("a..b=1", "", "", "--set \"a..b=1\" has no proper key: write --set section.key=value"),
        ("detect\n.x=1", "", "", "--set \"detect\\n.x=1\" has no proper key: write --set section.key=value"),
        (
            "detect.window=1",
            "",
            "",
            "--set \"detect.window=1\": unknown key `window` in [detect]: did you mean `window_s`?",
        ),
        ("detect.window_s=0", "", "", "--set \"detect.window_s=0\": detect.window_s is 0: it must be from 1 to 3600"),
        (
            "detect.window_s=1\ndetect.x=2",
            "",
            "",
            "--set \"detect.window_s=1\\ndetect.x=2\": detect.window_s is \"1\\ndetect.x=2\": it must be a whole number",
        ),
        ("", "5432", "", "--port \"5432\": write PORT=DATABASE, such as 5433=postgres"),
        ("", "0=postgres", "", "--port \"0=postgres\": \"0\" is no port: ports go from 1 to 65535"),
        ("", "5432=", "", "--port \"5432=\": \"\" is no database name: use 1 to 32 letters, digits, '_', '-', '.'"),
        ("", "", "10.0.0.5:5432", "--limit \"10.0.0.5:5432\": write HOST:PORT=N, such as 10.0.0.5:5432=100"),
        ("", "", "10.0.0.5:5432=x", "--limit \"10.0.0.5:5432=x\": \"x\" is no number"),
        ("", "", "10.0.0.5:5432=0", "--limit \"10.0.0.5:5432=0\": the limit is 0: it must be from 1 to 4294967295"),
        (
            "",
            "",
            "10.0.0.5:7777=5",
            "--limit \"10.0.0.5:7777=5\": port 7777 is not watched: add --port 7777=DATABASE, or to capture.ports",
        ),
        ("", "", "10.0.0.5:0=5", "--limit \"10.0.0.5:0=5\": \"0\" is no port: ports go from 1 to 65535"),
    ] {
        let list = |text: &'static str| if text.is_empty() { vec![] } else { vec![text] };
        let error = flags(&list(set), &list(port), &list(limit)).unwrap_err();
        assert_eq!(error, sentence);
    }
}

#[test]
fn a_port_flag_makes_a_limit_on_it_good() {
    let config = flags(&[], &["7777=postgres"], &["10.0.0.5:7777=5"]).unwrap();
    assert_eq!(config.endpoints[0].limit, Some(5));
}

#[test]
fn a_file_that_is_not_there() {
    let overrides = Overrides { file: Some(PathBuf::from("/nonexistent/socklife.toml")), ..Overrides::default() };
    let error = Config::load(&overrides).unwrap_err().to_string();
    assert_eq!(error, "cannot read /nonexistent/socklife.toml: No such file or directory (os error 2)");
}

#[test]
fn zero_is_no_duration() {
    let overrides = Overrides { run_for: Some(Duration::ZERO), ..Overrides::default() };
    assert_eq!(Config::load(&overrides).unwrap_err().to_string(), "--for is zero: give a duration such as 30s");
}

/// The name service of `check`: it knows one name.
fn names(host: &str) -> std::io::Result<Vec<IpAddr>> {
    match host {
        "orders-db" => Ok(vec![IpAddr::from([10, 0, 0, 5])]),
        _ => Err(std::io::Error::other("no such host")),
    }
}

#[test]
fn a_name_that_does_not_resolve_is_no_mistake() {
    let mut temp = tempfile::NamedTempFile::new().unwrap();
    let text = "[[endpoint]]\nmatch = \"orders-db:5432\"\n[[endpoint]]\nmatch = \"nowhere:5432\"\n";
    temp.write_all(text.as_bytes()).unwrap();
    let checked = check(temp.path(), &names);
    assert_eq!(checked.mistakes, [""; 0]);
    let sentence = "warning: cannot resolve \"nowhere\" (no such host): the daemon starts all the same and asks again";
    assert_eq!(checked.warnings, [format!("{}:4:9: {sentence}", temp.path().display())]);
}

/// The default file with every comment marker removed: a marker is a # right before what sets something.
fn uncommented() -> String {
    let unmarked = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    default_file().lines().map(unmarked).collect()
}

#[test]
fn the_default_file_is_the_one_that_is_shipped() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/socklife.toml");
    if std::env::var_os("SOCKLIFE_BLESS").is_some() {
        std::fs::write(path, default_file()).unwrap();
    }
    let shipped = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(shipped, default_file(), "run this test with SOCKLIFE_BLESS=1 and commit packaging/socklife.toml");
    assert!(shipped.lines().all(|line| line.chars().count() <= 100));
}

#[test]
fn the_default_file_changes_nothing() {
    assert_eq!(file(&default_file()).unwrap(), Config::default());
}

#[test]
fn the_default_file_has_every_key_with_its_default() {
    let text = uncommented();
    let config = file(&text).unwrap();
    let given: toml::Table = text.parse().unwrap();
    let at = |section: &str, key: &str| given[section].get(key).unwrap_or_else(|| panic!("[{section}] {key}")).clone();
    for key in keys::KEYS {
        let given = at(key.section, key.name);
        match (key.shown)(&Config::default()) {
            Some(default) => assert_eq!(given.to_string(), default, "{}", key.name),
            None => assert_eq!(given.to_string(), key.example, "{}", key.name),
        }
    }
    for kind in Kind::ALL {
        let given = at("detect", kind.name());
        assert_eq!(given["enabled"], true.into(), "{}", kind.name());
        for threshold in thresholds(kind) {
            assert_eq!(given[threshold.key], i64::from(threshold.default).into(), "{} {}", kind.name(), threshold.key);
        }
        assert_eq!(given.as_table().unwrap().len(), 1 + thresholds(kind).len(), "{}", kind.name());
    }
    assert_eq!(config.capture.ports, CaptureConfig::default().ports);
    for (array, keys) in [("endpoint", keys::ENDPOINT), ("group", keys::GROUP), ("ignore", keys::IGNORE)] {
        let table = given[array][0].as_table().unwrap();
        assert!(keys.iter().all(|key| table.contains_key(key.name)), "{array}: {table:?}");
        assert_eq!(table.len(), keys.len(), "{array}");
    }
    // And nothing else is set.
    let plain = Config { endpoints: Vec::new(), history: HistoryConfig::default(), ..config };
    let plain = Config { api: ApiConfig { metrics: None, ..plain.api }, ..plain };
    assert_eq!(plain.capture, Config::default().capture);
    assert_eq!((plain.api, plain.privacy, plain.inventory), Default::default());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        bytes_load(&bytes);
    }

    #[test]
    fn no_edit_of_a_whole_file_panics(at in any::<prop::sample::Index>(), cut in 0_usize..40, put in ".{0,12}") {
        let mut bytes = uncommented().into_bytes();
        let from = at.index(bytes.len());
        let to = (from + cut).min(bytes.len());
        bytes.splice(from..to, put.into_bytes());
        bytes_load(&bytes);
    }
}

/// Either it is fine or it says where it is not.
fn bytes_load(bytes: &[u8]) {
    let mut temp = tempfile::NamedTempFile::new().unwrap();
    temp.write_all(bytes).unwrap();
    let Checked { mistakes, .. } = check(temp.path(), &names);
    let lines = bytes.split(|byte| *byte == b'\n').count();
    for mistake in mistakes {
        let place = mistake.strip_prefix(&format!("{}:", temp.path().display()));
        if let Some(place) = place {
            let line: usize = place.split(':').next().unwrap().parse().unwrap();
            assert!((1..=lines).contains(&line), "{mistake}");
        }
    }
}
