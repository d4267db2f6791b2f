//! What the running daemon and its helper may still do, and that what they see is all there without the rest.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use socklife_tests::client::Client;
use socklife_tests::daemon::Daemon;
use socklife_tests::look::{all_opened_by, connections_in};
use socklife_tests::postgres::{PORT, Postgres};
use socklife_tests::program::{command, finish, until};
use socklife_tests::sandbox::{NETWORK, Namespace, Sandbox, link_to, socklife_binary};
use socklife_tests::watched::Watched;

/// Numbers of the capabilities that the documentation names (`include/uapi/linux/capability.h`).
const NUMBERS: [(&str, u32); 5] =
    [("CAP_DAC_READ_SEARCH", 2), ("CAP_NET_ADMIN", 12), ("CAP_SYS_PTRACE", 19), ("CAP_SYS_ADMIN", 21), ("CAP_BPF", 39)];

/// The mask of the capabilities in the table of docs/security.md below that heading.
fn documented(heading: &str) -> Result<u64> {
    // A guest that runs this has no documentation.
    let page = include_str!("../../docs/security.md");
    let (_, section) = page.split_once(&format!("\n## {heading}\n")).context("no such heading")?;
    let rows = section.lines().take_while(|line| !line.starts_with("## "));
    let names: Vec<&str> = rows.filter_map(|row| row.strip_prefix("| `CAP_")?.split('`').next()).collect();
    ensure!(!names.is_empty(), "no capability below {heading:?}");
    let bit = |name: &&str| {
        let known = NUMBERS.iter().find(|(known, _)| known.strip_prefix("CAP_") == Some(name));
        known.map(|(_, number)| 1 << number).with_context(|| format!("no number for {name}"))
    };
    names.iter().map(bit).try_fold(0, |mask, bit| Ok(mask | bit?))
}

/// Fails unless every thread of a process may do exactly that, can get nothing back, and has a system call filter.
fn every_thread_has(pid: u32, mask: u64) -> Result<()> {
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // One may end meanwhile.
        let Ok(status) = fs::read_to_string(thread?.path().join("status")) else { continue };
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map(str::trim).with_context(|| format!("no {name} in {status}"))
        };
        for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
            let has = u64::from_str_radix(field(set)?, 16)?;
            ensure!(has == mask, "{set} is {has:#x}, documented is {mask:#x}:\n{status}");
        }
        for set in ["CapInh:", "CapAmb:"] {
            ensure!(u64::from_str_radix(field(set)?, 16)? == 0, "{set} is not empty:\n{status}");
        }
        ensure!(field("NoNewPrivs:")? == "1" && field("Seccomp:")? == "2", "{status}");
    }
    Ok(())
}

/// The children of a process.
fn children(pid: u32) -> Result<Vec<u32>> {
    let mut children = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let Ok(text) = fs::read_to_string(thread?.path().join("children")) else { continue };
        children.extend(text.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
    }
    Ok(children)
}

/// The daemon's helper.
fn helper(daemon: &Daemon) -> Result<u32> {
    let children = children(daemon.pid())?;
    let [helper] = children[..] else { anyhow::bail!("the daemon's children are {children:?}, not one helper") };
    ensure!(fs::read_to_string(format!("/proc/{helper}/comm"))? == "socklife-netns\n", "{helper} is not the helper");
    Ok(helper)
}

#[test]
fn every_thread_has_what_the_documentation_says_and_nothing_else() -> Result<()> {
    let watched = Watched::start(&[])?;
    let mut client = Client::start()?;
    client.open(3, "127.0.0.1")?;
    watched.agree()?;
    let keeps = documented("What the daemon keeps")?;
    let bpf = 1 << 39;
    // A pass of the suite may have it poll.
    let polls = watched.daemon.snapshot()?["capture"]["mode"] == "poll";
    every_thread_has(watched.daemon.pid(), if polls { keeps & !bpf } else { keeps })?;
    every_thread_has(helper(&watched.daemon)?, documented("The helper")?)?;

    // Where no kernel program runs, and nobody wants to know of other namespaces.
    let Watched { daemon, postgres: _postgres, sandbox } = watched;
    drop(daemon);
    let daemon = Daemon::start(&sandbox, &["--set", "capture.hooks=poll", "--set", "inventory.namespaces=false"])?;
    every_thread_has(daemon.pid(), keeps & !bpf)?;
    ensure!(children(daemon.pid())?.is_empty(), "it has a helper for nothing");
    Ok(())
}

#[test]
fn a_namespace_that_appears_later_is_seen_until_the_helper_is_killed() -> Result<()> {
    let sandbox = Sandbox::enter()?;
    let _postgres = Postgres::start_at(&sandbox, 100, PORT, "*")?;
    let daemon = Daemon::start(&sandbox, &[])?;
    let namespace = Namespace::named("later")?;
    link_to(&namespace.file())?;
    let mut there = Client::start_by(&namespace.way(), PORT)?;
    there.open(3, &format!("{NETWORK}.1"))?;
    let netns = namespace.inode()?;
    until("the connections and their holder are known", || {
        let snapshot = daemon.snapshot()?;
        let seen = connections_in(&snapshot, netns)?;
        let held = seen.iter().filter(|each| each["holders"][0]["pid"] == there.pid()).count();
        Ok(if (seen.len(), held) == (3, 3) { Ok(()) } else { Err(format!("{seen:?}")) })
    })?;
    let unreachable = |daemon: &Daemon| -> Result<Option<u64>> {
        Ok(daemon.snapshot()?["capture"]["unreachable_namespaces"].as_u64())
    };
    ensure!(unreachable(&daemon)? == Some(0), "{:?}", unreachable(&daemon));

    // It has nothing of that namespace left: the namespace goes with its last process.
    let helper = helper(&daemon)?;
    for fd in fs::read_dir(format!("/proc/{helper}/fd"))? {
        let target = fs::read_link(fd?.path())?;
        ensure!(target != Path::new(&format!("net:[{netns}]")), "the helper keeps the namespace");
    }
    kill(Pid::from_raw(i32::try_from(helper)?), Signal::SIGKILL)?;
    until("other namespaces are unreachable", || {
        let count = unreachable(&daemon)?;
        Ok(if count > Some(0) { Ok(()) } else { Err(format!("{count:?}")) })
    })?;
    // The daemon goes on, and has said it once, however often it has looked since.
    let mut here = Client::start()?;
    here.open(2, "127.0.0.1")?;
    let snapshot = daemon.snapshot()?;
    let home = socklife_tests::look::own_netns()?;
    let own = connections_in(&snapshot, home)?.into_iter().filter(|each| each["role"] == "client").count();
    ensure!(own == 2, "{}", snapshot["connections"]);
    daemon.snapshot()?;
    let said = daemon.log().matches("helper that enters other network namespaces is gone").count();
    ensure!(said == 1, "said {said} times:\n{}", daemon.log());
    ensure!(children(daemon.pid())?.is_empty(), "it left a zombie");
    daemon.stop(Signal::SIGTERM)
}

/// Every file below a directory, and its mode.
fn modes(dir: &Path) -> Result<Vec<(String, u32)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            found.extend(modes(&entry.path())?);
        } else {
            let mode = fs::symlink_metadata(entry.path())?.permissions().mode() & 0o7777;
            found.push((entry.path().display().to_string(), mode));
        }
    }
    Ok(found)
}

#[test]
fn nothing_it_writes_is_for_everybody() -> Result<()> {
    let sandbox = Sandbox::enter()?;
    let postgres = Postgres::start(&sandbox, 100)?;
    let (state, files) = (sandbox.path("state"), sandbox.path("files"));
    fs::create_dir(&files)?;
    let daemon = Daemon::start(&sandbox, &["--state-dir", state.to_str().context("a path")?])?;
    let mut client = Client::start()?;
    client.open(2, "127.0.0.1")?;
    all_opened_by(&daemon.snapshot()?, "server", postgres.pid())?;
    for (what, name) in [("snapshot", "snapshot.json"), ("record", "recording")] {
        let file = files.join(name);
        let mut ask = command(socklife_binary()?);
        ask.arg(what).arg("--socket").arg(daemon.socket()).arg("-o").arg(&file);
        if what == "record" {
            ask.args(["--for", "1s"]);
        }
        let said = finish(ask)?;
        ensure!(said.code == Some(0), "{what}: {said:?}");
    }
    let lock = daemon.socket().with_extension("sock.lock");
    let mode = |path: &Path| -> Result<u32> { Ok(fs::symlink_metadata(path)?.permissions().mode() & 0o7777) };
    ensure!(mode(daemon.socket())? & !0o660 == 0, "the socket is {:o}", mode(daemon.socket())?);
    ensure!(mode(&lock)? & !0o640 == 0, "its lock is {:o}", mode(&lock)?);
    ensure!(mode(&state)? & !0o750 == 0, "the state directory is {:o}", mode(&state)?);
    // The state is written at the end, at the latest.
    daemon.stop(Signal::SIGTERM)?;
    let written = [modes(&state)?, modes(&files)?].concat();
    ensure!(written.iter().any(|(name, _)| name.ends_with("/state/state")) && written.len() >= 4, "{written:?}");
    for (name, mode) in written {
        ensure!(mode & !0o640 == 0, "{name} is {mode:o}");
    }
    Ok(())
}

#[test]
fn only_the_sockets_group_may_ask() -> Result<()> {
    let sandbox = Sandbox::enter()?;
    // The build directory need not be open to everybody.
    let binary = sandbox.path("socklife");
    fs::copy(socklife_binary()?, &binary)?;
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755))?;
    let daemon = Daemon::start(&sandbox, &["--set", "api.group=daemon"])?;
    let ask = |group: &str| {
        let mut ask = socklife_tests::program::command_as("nobody", group, &binary);
        ask.arg("snapshot").arg("--socket").arg(daemon.socket());
        finish(ask)
    };
    let refused = ask("nogroup")?;
    ensure!(refused.code == Some(3) && refused.stdout.is_empty(), "{refused:?}");
    // Even where the file lets everybody in, the daemon does not.
    fs::set_permissions(daemon.socket(), fs::Permissions::from_mode(0o666))?;
    let refused = ask("nogroup")?;
    ensure!(refused.code == Some(3) && refused.stderr.contains("may not ask"), "{refused:?}");
    let member = ask("daemon")?;
    ensure!(member.code == Some(0) && member.stdout.contains("socklife.snapshot/v1"), "{:?}", member.stderr);
    Ok(())
}
