//! `socklife top` in a terminal: it shows what is there, obeys keys, and leaves the terminal as it was, whatever ends it.

use std::fs;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use socklife_tests::daemon::Daemon;
use socklife_tests::program::{Program, command, until};
use socklife_tests::sandbox::{Sandbox, example_binary, socklife_binary};
use socklife_tests::tmux::Tmux;

const DATABASE: &str = "127.0.0.1:5432";

/// A small database, a client that leaks to it, and the daemon that watches both. What is started last ends first.
struct Scene {
    client: Program,
    daemon: Daemon,
    _database: Program,
    sandbox: Sandbox,
}

const WATCH: [&str; 2] = ["--limit", "127.0.0.1:5432=20"];

impl Scene {
    fn set() -> Result<Self> {
        let sandbox = Sandbox::enter()?;
        let mut database = command(env!("CARGO_BIN_EXE_demo-database"));
        database.args(["--listen", DATABASE, "--limit", "20"]);
        let database = Program::start("demo-database", database)?;
        database.out_line(std::time::Instant::now() + socklife_tests::pace::patience())?;
        let daemon = Daemon::start(&sandbox, &WATCH)?;
        let mut client = command(env!("CARGO_BIN_EXE_leaky-client"));
        client.args(["--address", DATABASE, "--every", "50ms", "--max", "19"]);
        let client = Program::start("leaky-client", client)?;
        Ok(Self { client, daemon, _database: database, sandbox })
    }

    /// `socklife top` as one types it.
    fn top(&self) -> Result<String> {
        let socket = self.daemon.socket().display();
        Ok(format!("{} top --interval 200ms --socket {socket}", socklife_binary()?.display()))
    }
}

/// Runs a command line between two looks at the terminal's modes.
fn begin(tmux: &Tmux, sandbox: &Sandbox, line: &str) -> Result<()> {
    for name in ["before", "after"] {
        let file = sandbox.path(name);
        if file.try_exists()? {
            fs::remove_file(file)?;
        }
    }
    let (before, after) = (sandbox.path("before"), sandbox.path("after"));
    // The second file is there when it is complete.
    let after = after.display();
    tmux.type_line("clear")?;
    tmux.type_line(&format!(
        "stty -g >{}; {line}; echo \"ended with $?.\"; stty -g >{after}.new; mv {after}.new {after}",
        before.display()
    ))
}

/// Expects the command to end so, and the terminal to be as it was.
fn expect_end(tmux: &Tmux, sandbox: &Sandbox, how: &str, code: u8) -> Result<()> {
    tmux.shows(&[&format!("ended with {code}.")]).with_context(|| how.to_owned())?;
    let after = sandbox.path("after");
    until("the second look", || Ok(if after.try_exists()? { Ok(()) } else { Err("not yet".to_owned()) }))?;
    let (before, after) = (fs::read_to_string(sandbox.path("before"))?, fs::read_to_string(after)?);
    ensure!(!before.is_empty() && before == after, "{how} left the terminal's modes so:\n{after}\nnot so:\n{before}");
    tmux.wait_for_modes(true).with_context(|| how.to_owned())
}

#[test]
fn keys_lead_from_an_endpoint_to_one_connection_and_to_the_verdict() -> Result<()> {
    let scene = Scene::set()?;
    let leaker = format!("leaky-client[{}]", scene.client.pid());
    let tmux = Tmux::open(&scene.sandbox, 110, 30)?;
    begin(&tmux, &scene.sandbox, &scene.top()?)?;
    tmux.shows(&["1 endpoints", DATABASE, "client", "19     20", "95%", "eBPF"])?;
    tmux.wait_for_modes(false)?;
    tmux.press(&["/", "c", "l", "i", "e", "n", "t", "Enter"])?;
    tmux.shows(&["/client", "1/1"])?;
    tmux.press(&["Enter"])?;
    tmux.shows(&["19 of 20 open", "19 ESTABLISHED", "open over", &scene.client.pid().to_string()])?;
    tmux.press(&["Enter"])?;
    tmux.shows(&[&format!("{leaker}: connections"), "1/19", "started by", "HELD BY"])?;
    tmux.press(&["Down", "Enter"])?;
    tmux.shows(&["opened by", &leaker, "as descriptor", "round trip", "socklife verify"])?;
    tmux.press(&["BSpace", "Escape"])?;
    tmux.shows(&["19 of 20 open"])?;
    tmux.press(&["5"])?;
    tmux.shows(&["CRITICAL", "limit_pressure"])?;
    tmux.press(&["/", "l", "i", "m", "i", "t", "Enter", "Enter"])?;
    tmux.shows(&["summary", "evidence", "remedy", "verify", "socklife explain limit_pressure"])?;
    tmux.press(&["?"])?;
    tmux.shows(&["freeze the picture"])?;
    tmux.press(&["x", "1", "Space"])?;
    tmux.shows(&["PAUSED since"])?;
    tmux.resize(40, 20)?;
    tmux.shows(&["1 endpoints  2  3  4  5", "PAUSED since", "19"])?;
    tmux.resize(19, 5)?;
    tmux.shows(&["too small"])?;
    tmux.resize(80, 24)?;
    tmux.press(&["Space"])?;
    tmux.wait("it goes on", |screen| screen.contains("TREND") && !screen.contains("PAUSED"))?;
    tmux.signal(Signal::SIGTERM)?;
    expect_end(&tmux, &scene.sandbox, "SIGTERM", 0)
}

#[test]
fn whatever_ends_it_the_terminal_is_as_it_was() -> Result<()> {
    let scene = Scene::set()?;
    let tmux = Tmux::open(&scene.sandbox, 80, 24)?;
    let top = scene.top()?;
    for keys in ["q", "C-c"] {
        begin(&tmux, &scene.sandbox, &top)?;
        tmux.shows(&["1 endpoints", DATABASE])?;
        tmux.press(&[keys])?;
        expect_end(&tmux, &scene.sandbox, keys, 0)?;
    }
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
        begin(&tmux, &scene.sandbox, &top)?;
        tmux.shows(&["1 endpoints", DATABASE])?;
        tmux.signal(signal)?;
        expect_end(&tmux, &scene.sandbox, signal.as_str(), 0)?;
    }
    let broken = example_binary("broken_screen")?;
    for (how, code) in [("panic", 101), ("error", 1)] {
        begin(&tmux, &scene.sandbox, &format!("RUST_BACKTRACE=0 {} {how}", broken.display()))?;
        expect_end(&tmux, &scene.sandbox, how, code)?;
        // Said on the screen that stays.
        tmux.shows(&["broken on purpose"])?;
    }
    begin(&tmux, &scene.sandbox, &format!("TERM=dumb {top}"))?;
    expect_end(&tmux, &scene.sandbox, "TERM=dumb", 3)?;
    tmux.shows(&["top needs a terminal"]).map(drop)
}

#[test]
fn it_can_be_suspended_and_comes_back() -> Result<()> {
    let scene = Scene::set()?;
    let tmux = Tmux::open(&scene.sandbox, 80, 24)?;
    begin(&tmux, &scene.sandbox, &scene.top()?)?;
    tmux.shows(&["1 endpoints", DATABASE])?;
    for way in ["Ctrl-Z", "SIGTSTP"] {
        if way == "Ctrl-Z" {
            tmux.press(&["C-z"])?;
        } else {
            tmux.signal(Signal::SIGTSTP)?;
        }
        tmux.shows(&["Stopped"]).context(way)?;
        tmux.wait_for_modes(true).context(way)?;
        tmux.type_line("clear; fg")?;
        tmux.wait_for_modes(false).context(way)?;
        tmux.shows(&["1 endpoints", DATABASE]).context(way)?;
        tmux.press(&["3"])?;
        tmux.shows(&["leaky-client", "OPENED"]).context(way)?;
        tmux.press(&["1"])?;
        tmux.shows(&["TREND"]).context(way)?;
    }
    tmux.press(&["q"])?;
    tmux.wait_for_modes(true)
}

#[test]
fn a_daemon_that_goes_is_said_and_comes_back() -> Result<()> {
    let scene = Scene::set()?;
    let tmux = Tmux::open(&scene.sandbox, 80, 24)?;
    begin(&tmux, &scene.sandbox, &scene.top()?)?;
    tmux.shows(&["19     20"])?;
    let Scene { client, daemon, _database: database, sandbox } = scene;
    daemon.stop(Signal::SIGTERM)?;
    tmux.shows(&["NO ANSWER since", "no daemon answers", "19     20"])?;
    let daemon = Daemon::start(&sandbox, &WATCH)?;
    tmux.wait("an answer", |screen| screen.contains("19     20") && !screen.contains("NO ANSWER"))?;
    tmux.press(&["q"])?;
    expect_end(&tmux, &sandbox, "q", 0)?;
    daemon.stop(Signal::SIGTERM)?;
    drop((client, database));
    // Without one there is nothing to show.
    let line = format!("{} top --socket /nonexistent", socklife_binary()?.display());
    begin(&tmux, &sandbox, &line)?;
    expect_end(&tmux, &sandbox, "no daemon", 3)?;
    tmux.shows(&["no daemon answers on /nonexistent"]).map(drop)
}
