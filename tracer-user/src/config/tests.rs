//! Good and bad configurations with the exact sentence each mistake gets.

use std::io::Write as _;
use std::net::SocketAddr;

use super::layers::load;
use tracer_core::detect::thresholds;
use tracer_core::finding::Kind;

use super::*;

fn names(host: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
    let ips: &[&str] = match host {
        "orders-db" => &["10.0.0.5"],
        "both" => &["::1", "127.0.0.1", "::ffff:127.0.0.1"],
        "empty" => &[],
        _ => return Err(std::io::Error::other("no such host")),
    };
    Ok(ips.iter().filter_map(|ip| Some(SocketAddr::new(ip.parse().ok()?, port))).collect())
}

/// Loads with `text` as the file; error sentences name it `FILE`.
fn file(text: &str) -> Result<Config, String> {
    with(text, Overrides::default())
}

fn with(text: &str, mut overrides: Overrides) -> Result<Config, String> {
    let mut temp = tempfile::NamedTempFile::new().unwrap();
    temp.write_all(text.as_bytes()).unwrap();
    overrides.file = Some(temp.path().to_owned());
    load(Config::default(), &overrides, &names)
        .map_err(|error| error.to_string().replace(&temp.path().display().to_string(), "FILE"))
}

fn flags(set: &[&str], ports: &[&str], limits: &[&str]) -> Result<Config, String> {
    let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    let overrides = Overrides { set: own(set), ports: own(ports), limits: own(limits), ..Overrides::default() };
    load(Config::default(), &overrides, &names).map_err(|error| error.to_string())
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
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
        [history]
        dir = "/var/lib/socklife"
        max_age_s = 3600
        max_bytes = 1048576
        [[endpoint]]
        match = "orders-db:5433"
        name = "orders"
        limit = 100
        database = "timescale"
        [[endpoint]]
        match = "[::1]:5432"
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
    assert_eq!(config.api, ApiConfig { socket: PathBuf::from("/tmp/s.sock"), group: "dba".to_owned() });
    let orders = EndpointRule {
        addrs: vec![addr("10.0.0.5:5433")],
        name: Some("orders".to_owned()),
        limit: Some(100),
        database: Some("timescale".to_owned()),
    };
    let local = EndpointRule { addrs: vec![addr("[::1]:5432")], name: None, limit: None, database: None };
    assert_eq!(config.endpoints, [orders, local]);
}

#[test]
fn later_sources_win() {
    let text = "[inventory]\nreconcile_s = 20\n[detect]\nwindow_s = 20\n[capture.ports]\n5432 = \"a\"\n6000 = \"a\"\n\
                [api]\nsocket = \"/file\"\n[[endpoint]]\nmatch = \"both:5432\"\nname = \"orders\"\nlimit = 10\n";
    let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let overrides = Overrides {
        set: own(&["detect.window_s=30", "capture.ports.5432=b", "capture.ports.6000=b", "api.socket=/set"]),
        ports: own(&["6000=c"]),
        limits: own(&["127.0.0.1:5432=100"]),
        socket: Some(PathBuf::from("/flag")),
        state_dir: Some(PathBuf::from("/state")),
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
    let rule = |text: &str, limit| EndpointRule {
        addrs: vec![addr(text)],
        name: Some("orders".to_owned()),
        limit: Some(limit),
        database: None,
    };
    assert_eq!(config.endpoints, [rule("[::1]:5432", 10), rule("127.0.0.1:5432", 100)]);
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
fn addresses_are_as_sockets_show_them() {
    let addrs = |limit: &str| flags(&[], &[], &[limit]).map(|config| config.endpoints[0].addrs.clone());
    assert_eq!(addrs("[::ffff:10.0.0.5]:5432=1").unwrap(), [addr("10.0.0.5:5432")]);
    assert_eq!(addrs("both:5432=1").unwrap(), [addr("127.0.0.1:5432"), addr("[::1]:5432")]);
}

#[test]
fn mistakes_in_a_file() {
    for (text, sentence) in [
        (
            "[capture]\nrng_bytes = 1\n",
            "FILE line 2: unknown field `rng_bytes`, expected one of `ring_bytes`, `map_entries`, `btf`, `recognize`, `hooks`, `ports`",
        ),
        (
            "\n[captur]\n",
            "FILE line 2: unknown field `captur`, expected one of `capture`, `inventory`, `detect`, `endpoint`, `privacy`, `api`, `history`",
        ),
        ("[capture]\nring_bytes = \"1\"\n", "FILE line 2: invalid type: string \"1\", expected a whole number"),
        ("[api]\ngroup = dba\n", "FILE line 2: string values must be quoted, expected literal string"),
        ("[inventory]\nreconcile_s = 5\nreconcile_s = 6\n", "FILE line 3: duplicate key"),
        (
            "[capture]\nring_bytes = 1000\n",
            "FILE line 2: capture.ring_bytes is 1000: it must be from 65536 to 67108864",
        ),
        ("[capture]\nring_bytes = 65537\n", "FILE line 2: capture.ring_bytes is 65537: it must be a power of two"),
        ("[capture]\nmap_entries = 7\n", "FILE line 2: capture.map_entries is 7: it must be from 1024 to 1048576"),
        (
            "[capture.ports]\n1 = \"a\"\n70000 = \"a\"\n",
            "FILE line 3: capture.ports: \"70000\" is no port: ports go from 1 to 65535",
        ),
        (
            "[capture.ports]\n1 = \"a b\"\n",
            "FILE line 2: capture.ports: \"a b\" is no database name: use 1 to 32 letters, digits, '_', '-', '.'",
        ),
        ("[inventory]\nreconcile_s = 0\n", "FILE line 2: inventory.reconcile_s is 0: it must be from 1 to 3600"),
        (
            "[history]\nmax_bytes = 4096\n",
            "FILE line 2: history.max_bytes is 4096: it must be from 1048576 to 2147483647",
        ),
        ("[history]\nmax_age_s = 0\n", "FILE line 2: history.max_age_s is 0: it must be from 1 to 31622400"),
        ("[detect]\nwindow_s = -1\n", "FILE line 2: detect.window_s is -1: it must be from 1 to 3600"),
        (
            "[detect.limit_pressure]\nwarn_percent = 101\n",
            "FILE line 2: detect.limit_pressure.warn_percent is 101: it must be from 1 to 100",
        ),
        (
            "[detect.limit_pressure]\nwarn_percent = 95\n",
            "detect.limit_pressure.warn_percent is 95 and critical_percent is 95: the first must be below the second",
        ),
        (
            "[detect.limit_pressure]\nenabled = 1\n",
            "FILE line 2: detect.limit_pressure.enabled is 1: it must be true or false",
        ),
        (
            "[detect.limit_pressure]\nwarn_percent = \"many\"\n",
            "FILE line 2: detect.limit_pressure.warn_percent is \"many\": it must be a whole number",
        ),
        (
            "[detect.limit_pressure]\n\nwarn = 1\n",
            "FILE line 3: unknown key `warn`: limit_pressure has `enabled`, `warn_percent`, `critical_percent`",
        ),
        ("[privacy]\ncmdline = \"on\"\n", "FILE line 2: unknown variant `on`, expected `off` or `redacted`"),
        ("[api]\nsocket = \"\"\n", "the path of the control socket is empty: give --socket PATH"),
    ] {
        assert_eq!(file(text).unwrap_err(), sentence, "{text}");
    }
}

#[test]
fn mistakes_in_an_endpoint() {
    for (text, sentence) in [
        ("[[endpoint]]\nname = \"x\"\n", "FILE line 1: missing field `match`"),
        (
            "[[endpoint]]\nmatch = \"10.0.0.5\"\n",
            "FILE line 2: endpoint: \"10.0.0.5\" has no port: write IP:PORT, [IPv6]:PORT or HOST:PORT",
        ),
        (
            "[[endpoint]]\nmatch = \"::1:5432\"\n",
            "FILE line 2: endpoint: \"::1:5432\" is no address: write IP:PORT, [IPv6]:PORT or HOST:PORT",
        ),
        (
            "[[endpoint]]\nmatch = \"nowhere:5432\"\n",
            "FILE line 2: endpoint: cannot resolve \"nowhere\" (no such host): give its IP address or fix the name",
        ),
        (
            "[[endpoint]]\nmatch = \"empty:5432\"\n",
            "FILE line 2: endpoint: \"empty\" has no address: give its IP address or fix the name",
        ),
        (
            "[[endpoint]]\nmatch = \"10.0.0.5:5432\"\nlimit = 0\n",
            "FILE line 3: endpoint.limit is 0: it must be from 1 to 4294967295",
        ),
        (
            "[[endpoint]]\nmatch = \"10.0.0.5:6000\"\ndatabase = \"postgres\"\n",
            "FILE line 2: port 6000 is not watched: add --port 6000=postgres",
        ),
        (
            "[[endpoint]]\nmatch = \"10.0.0.5:5432\"\n[[endpoint]]\nmatch = \"orders-db:5432\"\n",
            "FILE line 4: endpoint 10.0.0.5:5432 is already given in FILE line 2",
        ),
        (
            "[[endpoint]]\nmatch = \"10.0.0.5:5432\"\nname = \" \"\n",
            "FILE line 3: endpoint: name \" \" must be 1 to 128 characters on one line",
        ),
    ] {
        assert_eq!(file(text).unwrap_err(), sentence, "{text}");
    }
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
            "--set \"detect.window=1\": unknown field `window`, expected `window_s` or a kind of finding",
        ),
        ("detect.window_s=0", "", "", "--set \"detect.window_s=0\": detect.window_s is 0: it must be from 1 to 3600"),
        (
            "detect.window_s=1\ndetect.x=2",
            "",
            "",
            "--set \"detect.window_s=1\\ndetect.x=2\": invalid type: string \"1\\ndetect.x=2\", expected a whole number",
        ),
        ("", "5432", "", "--port \"5432\": write PORT=DATABASE, such as 5433=postgres"),
        ("", "0=postgres", "", "--port \"0=postgres\": \"0\" is no port: ports go from 1 to 65535"),
        ("", "5432=", "", "--port \"5432=\": \"\" is no database name: use 1 to 32 letters, digits, '_', '-', '.'"),
        ("", "", "10.0.0.5:5432", "--limit \"10.0.0.5:5432\": write HOST:PORT=N, such as 10.0.0.5:5432=100"),
        ("", "", "10.0.0.5:5432=x", "--limit \"10.0.0.5:5432=x\": \"x\" is no number"),
        ("", "", "10.0.0.5:5432=0", "--limit \"10.0.0.5:5432=0\": the limit is 0: it must be from 1 to 4294967295"),
        ("", "", "10.0.0.5:7777=5", "--limit \"10.0.0.5:7777=5\": port 7777 is not watched: add --port 7777=DATABASE"),
        ("", "", "10.0.0.5:0=5", "--limit \"10.0.0.5:0=5\": \"10.0.0.5:0\" has port 0: ports go from 1 to 65535"),
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
