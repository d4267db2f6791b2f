//! `socklife verify` and `socklife reap`: a far host that answers, and one that throws packets away.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::{Value, json};
use socklife_tests::daemon::Daemon;
use socklife_tests::far::{Far, Load, exchange_all, raise_descriptors};
use socklife_tests::look::connections;
use socklife_tests::pace::load;
use socklife_tests::program::{Finished, Program, command, finish, until};
use socklife_tests::sandbox::{Sandbox, example_binary, socklife_binary};
use socklife_tests::sockopts::{Options, options, state_and_probes};

/// `tcpi_state`.
const ESTABLISHED: u8 = 1;
const CLOSED: u8 = 7;

/// A watched host with connections of this process to a far one. Connections end first, then the daemon.
struct Scene {
    streams: Vec<TcpStream>,
    far: Far,
    daemon: Daemon,
    sandbox: Sandbox,
}

impl Scene {
    fn start(name: &str, count: u64) -> Result<Self> {
        let sandbox = Sandbox::enter()?;
        let daemon = Daemon::start(&sandbox, &[])?;
        let far = Far::start(name)?;
        let address = Far::address()?;
        let streams: Vec<TcpStream> = (0..count).map(|_| TcpStream::connect(address)).collect::<Result<_, _>>()?;
        exchange_all(&streams)?;
        Ok(Self { streams, far, daemon, sandbox })
    }

    fn ports(&self) -> Result<Vec<u16>> {
        self.streams.iter().map(|stream| Ok(stream.local_addr()?.port())).collect()
    }

    /// The ids that the daemon has for these connections' ends here.
    fn ids(&self) -> Result<Vec<String>> {
        let ports = self.ports()?;
        until("the daemon knows every connection and its holder", || {
            let snapshot = self.daemon.snapshot()?;
            let mut ids = BTreeMap::new();
            for connection in connections(&snapshot, "client")? {
                if connection["holders"] != json!([]) {
                    ids.insert(local_port(connection)?, text(connection, "id")?);
                }
            }
            let known: Option<Vec<String>> = ports.iter().map(|port| ids.get(port).cloned()).collect();
            Ok(known.ok_or_else(|| format!("{} of {}", ids.len(), ports.len())))
        })
    }

    fn options(&self) -> Vec<Options> {
        self.streams.iter().map(options).collect()
    }

    /// A command about these connections, with JSON: its end, and its lines by local port.
    fn ask(&self, command: &str, args: &[&str], ids: &[String]) -> Result<(Finished, BTreeMap<u16, Value>)> {
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let said = self.daemon.ask(&[&[command, "--json"], args, &ids[..]].concat())?;
        let lines = said.stdout.lines().map(|line| {
            let line: Value = serde_json::from_str(line).with_context(|| format!("{command} said {line:?}"))?;
            let connection = if line["evidence"].is_null() { &line } else { &line["evidence"] };
            Ok((local_port(connection)?, line.clone()))
        });
        let lines = lines.collect::<Result<_>>()?;
        Ok((said, lines))
    }

    /// `verify`: every connection has this verdict, for this reason.
    fn verify(&self, args: &[&str], ids: &[String], verdict: &str, reason: &str) -> Result<Finished> {
        let (said, lines) = self.ask("verify", args, ids)?;
        ensure!(lines.len() == ids.len(), "{} answers for {}: {said:?}", lines.len(), ids.len());
        for line in lines.values() {
            ensure!(line["verdict"] == verdict && line["reason"] == reason, "not {verdict} ({reason}): {line}");
            ensure!(line["schema"] == "socklife.verify/v1", "{line}");
        }
        Ok(said)
    }
}

fn text(value: &Value, key: &str) -> Result<String> {
    value[key].as_str().map(str::to_owned).with_context(|| format!("no {key} in {value}"))
}

fn local_port(connection: &Value) -> Result<u16> {
    Ok(text(connection, "local")?.parse::<SocketAddr>()?.port())
}

#[test]
fn a_thousand_healthy_connections_under_load_are_alive_and_untouched() -> Result<()> {
    let count = load(1_000);
    // Both ends, the load's own and those of the suite.
    raise_descriptors(4 * count + 200)?;
    let scene = Scene::start("healthy", count)?;
    // Half of them have the one option that a probe changes for a moment.
    for stream in scene.streams.iter().step_by(2) {
        setsockopt(stream, sockopt::ReuseAddr, &true)?;
    }
    scene.ids()?;
    let before = scene.options();
    let load = Load::start(&scene.streams)?;
    until("the load runs", || Ok(if load.requests() > count { Ok(()) } else { Err("it does not".to_owned()) }))?;

    let begun = load.requests();
    let pid = std::process::id().to_string();
    let said = scene.daemon.ask(&["verify", "--json", "--pid", &pid])?;
    let during = load.requests() - begun;
    ensure!(said.code == Some(0), "{said:?}");
    let mut seen = BTreeMap::new();
    for line in said.stdout.lines() {
        let line: Value = serde_json::from_str(line)?;
        ensure!(line["verdict"] == "alive", "not alive: {line}");
        *seen.entry(text(&line, "role")?).or_insert(0u64) += 1;
    }
    // This process is the far host's server, too.
    ensure!(seen == BTreeMap::from([("client".to_owned(), count), ("server".to_owned(), count)]), "{seen:?}");
    ensure!(during > 0, "nothing was asked while connections were verified");
    load.stop().context("the application")?;
    for (stream, before) in scene.streams.iter().zip(&before) {
        ensure!(options(stream) == *before, "options have changed: {before:?}, now {:?}", options(stream));
        ensure!(state_and_probes(stream) == Some((ESTABLISHED, 0)), "{:?}", state_and_probes(stream));
    }
    exchange_all(&scene.streams)
}

#[test]
fn a_path_that_drops_is_dead_and_nothing_comes_nearer_its_end() -> Result<()> {
    let scene = Scene::start("drops", 4)?;
    // What would make the kernel kill a connection under probes that count.
    for stream in &scene.streams {
        setsockopt(stream, sockopt::ReuseAddr, &true)?;
        setsockopt(stream, sockopt::KeepAlive, &true)?;
        setsockopt(stream, sockopt::TcpKeepIdle, &3_000)?;
        setsockopt(stream, sockopt::TcpKeepCount, &1)?;
        setsockopt(stream, sockopt::TcpUserTimeout, &1_000)?;
    }
    let (ids, before) = (scene.ids()?, scene.options());
    scene.verify(&[], &ids, "alive", "answered")?;
    ensure!(scene.options() == before, "alive: options have changed");

    scene.far.drop_from(&scene.ports()?)?;
    let said = scene.verify(&["--probes", "3"], &ids, "dead", "no_answer")?;
    ensure!(said.code == Some(0), "asked and answered: {said:?}");
    for (fail_on, code) in [("dead", 1), ("unknown", 1)] {
        let said = scene.verify(&["--probes", "1", "--fail-on", fail_on], &ids, "dead", "no_answer")?;
        ensure!(said.code == Some(code), "--fail-on {fail_on}: {said:?}");
    }
    ensure!(scene.options() == before, "dead: options have changed");
    for stream in &scene.streams {
        ensure!(state_and_probes(stream) == Some((ESTABLISHED, 0)), "{:?}", state_and_probes(stream));
    }

    scene.far.drop_nothing()?;
    exchange_all(&scene.streams).context("after the path is back")?;
    let said = scene.verify(&["--fail-on", "unknown"], &ids, "alive", "answered")?;
    ensure!(said.code == Some(0), "{said:?}");
    Ok(())
}

#[test]
fn data_in_flight_is_dead_where_nothing_comes_and_alive_where_it_does() -> Result<()> {
    let scene = Scene::start("flight", 2)?;
    let ids = scene.ids()?;
    scene.far.drop_from(&scene.ports()?)?;
    for mut stream in &scene.streams {
        stream.write_all(&[7; 64])?;
    }
    scene.verify(&["--probes", "3"], &ids, "dead", "no_answer")?;
    let (_, lines) = scene.ask("verify", &["--probes", "1"], &ids)?;
    for line in lines.values() {
        ensure!(line["unacked"].as_u64() > Some(0) && line["consecutive_rtos"].as_u64() > Some(2), "{line}");
    }
    scene.far.drop_nothing()?;
    // The next retransmission may be far off: the probe asks now.
    scene.verify(&[], &ids, "alive", "answered")?;
    for mut stream in &scene.streams {
        let mut answer = [0; 64];
        stream.read_exact(&mut answer)?;
        ensure!(answer == [7; 64], "{answer:?}");
    }
    Ok(())
}

#[test]
fn killed_at_any_step_it_leaves_everything_as_it_was() -> Result<()> {
    let mut scene = Scene::start("killed", 1)?;
    setsockopt(&scene.streams[0], sockopt::ReuseAddr, &true)?;
    let (ids, before) = (scene.ids()?, scene.options());
    let socket = scene.daemon.socket().to_owned();
    for step in ["copied", "guarded", "asked", "restored", "judged"] {
        let mut interrupted = command(example_binary("interrupted")?);
        interrupted.arg(step).arg(&socket).arg(&ids[0]);
        let said = finish(interrupted)?;
        ensure!(said.code.is_none(), "{step}: it was not killed: {said:?}");
        until("the options are as before", || {
            let now = scene.options();
            Ok(if now == before { Ok(()) } else { Err(format!("{step}: {before:?}, now {now:?}")) })
        })?;
    }
    // Asked politely, and in the middle of a question that will not be answered.
    scene.far.drop_from(&scene.ports()?)?;
    let mut verify = command(socklife_binary()?);
    verify.args(["verify", "--probes", "60", &ids[0], "--socket"]).arg(&socket);
    let mut verify = Program::start("socklife verify", verify)?;
    let copied = format!("/proc/{}/fd", verify.pid());
    let inode = fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&scene.streams[0])))?;
    until("it has its copy", || {
        let files = fs::read_dir(&copied)?.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
        Ok(if files.into_iter().any(|file| file == inode) { Ok(()) } else { Err("it has none".to_owned()) })
    })?;
    verify.signal(Signal::SIGINT)?;
    let status = verify.wait(socklife_tests::pace::patience())?;
    ensure!(status.code() == Some(3), "{status}; it said {}", verify.log());
    ensure!(scene.options() == before, "interrupted: options have changed");
    scene.far.drop_nothing()?;
    exchange_all(&scene.streams)?;

    // No copy is left anywhere: this process' close is the connection's.
    let port = scene.ports()?[0];
    scene.streams.clear();
    until("the connection is gone on both sides", || {
        let snapshot = scene.daemon.snapshot()?;
        let all = snapshot["connections"].as_array().context("no connections")?;
        let left = all.iter().filter(|each| each["local"].as_str().is_some_and(|it| it.ends_with(&format!(":{port}"))));
        Ok(if left.count() == 0 { Ok(()) } else { Err(snapshot["connections"].to_string()) })
    })
}

#[test]
fn reap_closes_what_is_confirmed_dead_and_nothing_else() -> Result<()> {
    let scene = Scene::start("reaped", 4)?;
    let (ids, ports) = (scene.ids()?, scene.ports()?);
    let (live, dead) = (ports[3], &ports[..3]);
    scene.far.drop_from(dead)?;
    let check = |lines: &BTreeMap<u16, Value>, action: &str, sees: Value| -> Result<()> {
        ensure!(lines.len() == 4, "{lines:?}");
        for (port, line) in lines {
            let expected = if *port == live { ("refused", Value::Null) } else { (action, sees.clone()) };
            ensure!(line["action"] == expected.0 && line["application_sees"] == expected.1, "{port}: {line}");
            let verdict = if *port == live { "alive" } else { "dead" };
            ensure!(line["evidence"]["verdict"] == verdict, "{port}: {line}");
        }
        Ok(())
    };
    // Without --yes it only says so.
    let (said, lines) = scene.ask("reap", &["--probes", "3"], &ids)?;
    check(&lines, "would_close", Value::Null)?;
    ensure!(said.code == Some(1), "one is refused: {said:?}");
    ensure!(scene.streams.iter().all(|stream| state_and_probes(stream) == Some((ESTABLISHED, 0))), "a dry run closed");

    let audit = scene.sandbox.path("audit.jsonl");
    let audit_path = audit.to_str().context("a path")?;
    let (said, lines) = scene.ask("reap", &["--probes", "3", "--yes", "--audit", audit_path], &ids)?;
    check(&lines, "closed", json!("ECONNABORTED"))?;
    ensure!(said.code == Some(1), "one is refused: {said:?}");
    ensure!(said.stderr.lines().filter(|line| line.contains("closed a dead connection")).count() == 3, "{said:?}");
    let written = fs::read_to_string(&audit)?;
    ensure!(written == said.stdout, "written down {written:?}, said {:?}", said.stdout);
    ensure!(fs::metadata(&audit)?.permissions().mode() & 0o137 == 0, "the audit file is for its owner and group");

    for (port, mut stream) in ports.iter().zip(&scene.streams) {
        if *port == live {
            ensure!(state_and_probes(stream) == Some((ESTABLISHED, 0)), "the live one: {:?}", state_and_probes(stream));
            continue;
        }
        ensure!(state_and_probes(stream).is_some_and(|(state, _)| state == CLOSED), "{port} is not closed");
        let error = stream.read(&mut [0]).err().context("a closed connection can be read")?;
        ensure!(error.kind() == ErrorKind::ConnectionAborted, "the application sees {error}");
    }
    exchange_all(&scene.streams[3..]).context("the live one")?;
    // Run against the live one alone, it refuses.
    let (said, _) = scene.ask("reap", &["--yes"], &ids[3..])?;
    ensure!(said.code == Some(1) && said.stdout.contains("\"refused\""), "{said:?}");
    exchange_all(&scene.streams[3..])
}

#[test]
fn an_orphan_cannot_be_asked_and_is_reaped_by_the_kernels_own_facts() -> Result<()> {
    let mut scene = Scene::start("orphan", 1)?;
    let (ids, ports) = (scene.ids()?, scene.ports()?);
    scene.far.drop_from(&ports)?;
    scene.streams.clear();
    until("no process holds it", || {
        let (_, lines) = scene.ask("verify", &["--probes", "1"], &ids)?;
        let line = lines.get(&ports[0]).context("no answer")?;
        Ok(if line["reason"] == "no_holder" && line["verdict"] == "unknown" { Ok(()) } else { Err(line.to_string()) })
    })?;
    // Too early is refused; after three time-outs and five seconds of silence it is dead.
    let confirmed = until("it is confirmed", || {
        let (_, lines) = scene.ask("reap", &[], &ids)?;
        let line = lines.get(&ports[0]).context("no answer")?;
        Ok(if line["evidence"]["verdict"] == "dead" { Ok(line.clone()) } else { Err(line.to_string()) })
    })?;
    ensure!(confirmed["evidence"]["state"] == "FIN_WAIT1", "{confirmed}");
    let (said, lines) = scene.ask("reap", &["--yes"], &ids)?;
    let line = lines.get(&ports[0]).context("no answer")?;
    if confirmed["action"] == "refused" {
        // Before Linux 6.11 it would stay for ever.
        ensure!(text(line, "detail")?.contains("6.11") && said.code == Some(1), "{said:?}");
        return Ok(());
    }
    ensure!(line["action"] == "closed" && line["application_sees"].is_null() && said.code == Some(0), "{said:?}");
    let mut ss = command("ss");
    ss.args(["-tanH", "sport", "=", &format!(":{}", ports[0])]);
    let left = finish(ss)?.stdout;
    ensure!(left.is_empty(), "it is still there: {left}");
    Ok(())
}

#[test]
fn without_privilege_and_without_sense_it_refuses() -> Result<()> {
    let scene = Scene::start("refused", 1)?;
    setsockopt(&scene.streams[0], sockopt::ReuseAddr, &true)?;
    let (ids, before) = (scene.ids()?, scene.options());
    let one_sentence = |said: &Finished| said.stdout.is_empty() && said.stderr.trim_end().lines().count() == 1;
    let without = |capabilities: &str| -> Result<Finished> {
        let mut setpriv = command("setpriv");
        setpriv.args(["--inh-caps", "-all", "--bounding-set", capabilities]).arg(socklife_binary()?);
        setpriv.args(["verify", &ids[0], "--socket"]).arg(scene.daemon.socket());
        finish(setpriv)
    };
    for capabilities in ["-all", "-sys_ptrace", "-net_admin"] {
        let said = without(capabilities)?;
        let told = said.stderr.contains("CAP_SYS_PTRACE and CAP_NET_ADMIN");
        ensure!(said.code == Some(3) && told && one_sentence(&said), "{capabilities}: {said:?}");
    }
    let none = "0000000000000000".to_owned();
    for (command, args) in [
        ("verify", vec![none.as_str()]),
        ("reap", vec!["--finding", "nothing"]),
        ("verify", vec![]),
        ("verify", vec!["--probes", "0", &ids[0]]),
        ("reap", vec!["--yes"]),
    ] {
        let said = scene.daemon.ask(&[&[command], &args[..]].concat())?;
        ensure!(said.code == Some(2) && one_sentence(&said), "{command} {args:?}: {said:?}");
    }
    let said = scene.daemon.ask(&["reap", "--yes", &ids[0], "--audit", "/nonexistent/audit"])?;
    ensure!(said.code == Some(3) && one_sentence(&said), "{said:?}");
    ensure!(scene.options() == before, "options have changed");
    exchange_all(&scene.streams)
}
