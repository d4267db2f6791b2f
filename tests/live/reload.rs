//! SIGHUP: the configuration is read again, and all of it applied or nothing.

use std::fs;
use std::io::Read as _;
use std::net::{TcpListener, TcpStream};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use socklife_tests::client::Client;
use socklife_tests::daemon::Daemon;
use socklife_tests::look::{counts, evidence, nothing_lost};
use socklife_tests::postgres::Postgres;
use socklife_tests::program::until;
use socklife_tests::sandbox::Sandbox;
use socklife_tests::truth::agree;
use socklife_tests::watched::DATABASE;

/// A port that no database has.
const PORT: u16 = 17_654;

/// A daemon with a configuration file.
struct Configured {
    daemon: Daemon,
    sandbox: Sandbox,
}

impl Configured {
    fn start(sandbox: Sandbox, text: &str) -> Result<Self> {
        let file = sandbox.path("socklife.toml");
        fs::write(&file, text)?;
        let daemon = Daemon::start(&sandbox, &["--config", file.to_str().context("a path that is no text")?])?;
        Ok(Self { daemon, sandbox })
    }

    /// Has the daemon read `text`, and waits for a line about it in the log.
    fn reload(&self, text: &str, says: &str) -> Result<()> {
        fs::write(self.sandbox.path("socklife.toml"), text)?;
        let before = self.times(says);
        kill(Pid::from_raw(self.daemon.pid().cast_signed()), Signal::SIGHUP)?;
        until(&format!("the log says {says:?}"), || {
            let log = self.daemon.log();
            Ok(if self.times(says) > before { Ok(()) } else { Err(log) })
        })
    }

    /// How many lines of the log have that.
    fn times(&self, says: &str) -> usize {
        self.daemon.log().lines().filter(|line| line.contains(says)).count()
    }

    fn generation(&self) -> Result<Value> {
        Ok(self.daemon.snapshot()?["capture"]["config"]["generation"].clone())
    }
}

const IN_FORCE: &str = "the configuration is in force";
const REFUSED: &str = "reload refused, nothing was changed";

#[test]
fn a_broken_file_is_said_once_and_a_changed_limit_changes_the_verdict() -> Result<()> {
    let sandbox = Sandbox::enter()?;
    let postgres = Postgres::start(&sandbox, 100)?;
    let limit =
        |limit: u32| format!("[[endpoint]]\nmatch = \"127.0.0.0/8:5432\"\nname = \"orders\"\nlimit = {limit}\n");
    let configured = Configured::start(sandbox, &limit(1_000))?;
    let mut client = Client::start()?;
    client.open(40, "127.0.0.1")?;
    let snapshot = agree(&configured.daemon, &postgres)?;
    ensure!(snapshot["findings"].as_array().is_some_and(Vec::is_empty), "40 of 1000: {}", snapshot["findings"]);

    let broken = format!("{}[inventory]\nreconcile_s = 0\n[detct]\n", limit(42));
    configured.reload(&broken, REFUSED)?;
    let log = configured.daemon.log();
    for place in ["socklife.toml:6:15: inventory.reconcile_s is 0", "socklife.toml:7:2: unknown section [detct]"] {
        ensure!(log.contains(place), "no {place:?} in the log:\n{log}");
    }
    ensure!(configured.times(REFUSED) == 1, "said more than once:\n{log}");
    client.open(2, "127.0.0.1")?;
    let snapshot = agree(&configured.daemon, &postgres)?;
    nothing_lost(&snapshot)?;
    ensure!(snapshot["findings"].as_array().is_some_and(Vec::is_empty), "a broken file changed: {snapshot:#}");

    configured.reload(
        &format!("{}[capture]\nring_bytes = 65536\n", limit(42)),
        "capture.ring_bytes changes only at a restart",
    )?;
    ensure!(configured.generation()? == 1, "refused, and yet it is another generation");

    let mut tail = configured.daemon.tail(&["--kind", "limit_pressure"])?;
    configured.reload(&limit(42), IN_FORCE)?;
    let finding = tail.wait_for("pressure at 42 of 42", |line| {
        line["severity"] == "critical" && evidence(line, "open") == Some(42) && evidence(line, "limit") == Some(42)
    })?;
    ensure!(finding["summary"].as_str().is_some_and(|summary| summary.contains("orders")), "{finding}");
    ensure!(configured.generation()? == 2, "{}", configured.daemon.log());

    let ignore = "[[ignore]]\nkind = \"limit_pressure\"\nendpoint = \"*:5432\"\nreason = \"moving house\"\n";
    configured.reload(&format!("{}{ignore}", limit(42)), IN_FORCE)?;
    tail.wait_for("that it is ignored", |line| line["ignored"]["reason"] == "moving house")?;
    let snapshot = configured.daemon.snapshot()?;
    let pressure =
        snapshot["findings"].as_array().context("no findings")?.iter().find(|each| each["id"] == finding["id"]);
    let pressure = pressure.with_context(|| format!("what is ignored is not there: {}", snapshot["findings"]))?;
    ensure!(pressure["ignored"]["reason"] == "moving house", "{pressure}");
    ensure!(snapshot["capture"]["findings_ignored"] == 1, "{}", snapshot["capture"]);
    let judged = configured.daemon.ask(&["snapshot", "--fail-on", "critical"])?;
    ensure!(judged.code == Some(0), "an ignored finding counts: {:?}", judged.code);
    configured.reload(&limit(42), IN_FORCE)?;
    tail.wait_for("that it is told again", |line| line["change"] == "opened" && line["ignored"].is_null())?;
    configured.daemon.stop(Signal::SIGTERM)
}

#[test]
fn ports_come_and_go() -> Result<()> {
    let sandbox = Sandbox::enter()?;
    let postgres = Postgres::start(&sandbox, 100)?;
    let configured = Configured::start(sandbox, "")?;
    let listener = TcpListener::bind(("127.0.0.1", PORT))?;
    let mut open = Vec::new();
    let mut connect = || -> Result<()> {
        let client = TcpStream::connect(("127.0.0.1", PORT))?;
        open.push((client, listener.accept()?.0));
        Ok(())
    };
    connect()?;
    connect()?;
    let mut client = Client::start()?;
    client.open(5, "127.0.0.1")?;
    let endpoint = format!("127.0.0.1:{PORT}");
    ensure!(counts(&configured.daemon.snapshot()?, &endpoint, "client").is_err(), "watched without having been told");

    let watched = format!("[capture.ports]\n{PORT} = \"ledger\"\n");
    configured.reload(&watched, IN_FORCE)?;
    connect()?;
    let snapshot = configured.daemon.snapshot()?;
    ensure!(counts(&snapshot, &endpoint, "client")? == (3, 3, 0), "{}", snapshot["endpoints"]);
    nothing_lost(&snapshot)?;
    let own = |each: &&Value| each["endpoint"] == *endpoint && each["role"] == "client" && !each["opener"].is_null();
    let seen = snapshot["connections"].as_array().context("no connections")?.iter().filter(own).count();
    ensure!(seen == 1, "{seen} connections have an opener, and one was opened since: {}", snapshot["connections"]);

    configured.reload("", IN_FORCE)?;
    let snapshot = agree(&configured.daemon, &postgres)?;
    ensure!(counts(&snapshot, &endpoint, "client").is_err(), "still watched: {}", snapshot["endpoints"]);
    let (gone, mut its) = open.remove(0);
    gone.shutdown(std::net::Shutdown::Both)?;
    ensure!(its.read(&mut [0])? == 0, "the other end should hear of it");
    drop((gone, its));

    // What ended meanwhile was nobody's business.
    configured.reload(&watched, IN_FORCE)?;
    let snapshot = configured.daemon.snapshot()?;
    let (open, opened, closed) = counts(&snapshot, &endpoint, "client")?;
    ensure!((open, opened - closed) == (2, 2), "{}", snapshot["endpoints"]);
    nothing_lost(&snapshot)?;
    ensure!(counts(&snapshot, DATABASE, "client")? == (5, 5, 0), "{}", snapshot["endpoints"]);
    configured.daemon.stop(Signal::SIGTERM)
}
