//! What socklife says and which code it ends with when it is used wrongly or cannot work here.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use nix::unistd::User;
use serde_json::Value;
use socklife_tests::daemon::{Daemon, snapshot_of, socket_path, socklife};
use socklife_tests::program::{Finished, command, command_as, finish};
use socklife_tests::sandbox::{Sandbox, socklife_binary};

/// The code, nothing on stdout, and on stderr a last line that has every one of `words`, without a backtrace.
fn fails(said: &Finished, code: i32, words: &[&str]) -> Result<()> {
    ensure!(said.code == Some(code), "ended with {:?}, not {code}: {}", said.code, said.stderr);
    ensure!(said.stdout.is_empty(), "something on stdout: {:?}", said.stdout);
    ensure!(!said.stderr.contains("panicked") && !said.stderr.contains("stack backtrace"), "{}", said.stderr);
    ensure!(!said.stderr.contains('\u{1b}'), "escape codes without a terminal: {:?}", said.stderr);
    let line = said.stderr.lines().rfind(|line| !line.trim().is_empty()).context("nothing on stderr")?;
    for word in words {
        ensure!(line.contains(word), "the last line does not say {word:?}: {}", said.stderr);
    }
    Ok(())
}

/// Wrong use: code 2 and stderr says which argument. The usage text may follow the sentence.
fn misused(args: &[&str], named: &str) -> Result<()> {
    let said = socklife(args)?;
    fails(&said, 2, &[]).with_context(|| format!("{args:?}"))?;
    ensure!(said.stderr.contains(named), "{args:?}: stderr does not name {named:?}: {}", said.stderr);
    Ok(())
}

#[test]
fn wrong_use_is_code_2_and_names_the_mistake() -> Result<()> {
    let _sandbox = Sandbox::enter()?;
    misused(&["run", "--bogus"], "--bogus")?;
    misused(&["dance"], "dance")?;
    misused(&["run", "--limit", "nonsense"], "nonsense")?;
    misused(&["run", "--limit", "127.0.0.1:5432=many"], "many")?;
    misused(&["run", "--port", "99999=postgres"], "99999")?;
    misused(&["run", "--set", "detect.no_such_kind.after_s=1"], "no_such_kind")?;
    misused(&["run", "--set", "detect.close_wait_leak.after_s=soon"], "after_s")?;
    misused(&["run", "--for", "yesterday"], "yesterday")?;
    misused(&["run", "--config", "/nonexistent/socklife.toml"], "/nonexistent/socklife.toml")?;
    misused(&["tail", "--min-severity", "loud"], "loud")
}

#[test]
fn without_a_daemon_clients_say_so() -> Result<()> {
    let sandbox = Sandbox::enter()?;
    let socket = sandbox.path("nobody-listens.sock");
    let socket = socket.to_string_lossy();
    for command in [&["snapshot"][..], &["tail"], &["tail", "--events", "--json"]] {
        let said = socklife(&[command, &["--socket", &socket]].concat())?;
        fails(&said, 3, &[&socket, "socklife run"]).with_context(|| format!("{command:?}"))?;
    }
    Ok(())
}

#[test]
fn without_privilege_it_says_what_is_missing() -> Result<()> {
    let sandbox = Sandbox::enter()?;
    // The build directory need not be open to everybody.
    let (binary, home) = (sandbox.path("socklife"), sandbox.path("nobody"));
    fs::copy(socklife_binary()?, &binary)?;
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755))?;
    fs::create_dir(&home)?;
    let nobody = User::from_name("nobody")?.context("no account `nobody`")?;
    chown(&home, Some(nobody.uid.as_raw()), Some(nobody.gid.as_raw()))?;
    let mut run = command_as("nobody", "nogroup", &binary);
    run.args(["run", "--for", "20s", "--socket"]).arg(home.join("s.sock"));
    let said = finish(run)?;
    fails(&said, 3, &["CAP_"])?;
    ensure!(!home.join("s.sock").try_exists()?, "it left its socket");
    Ok(())
}

#[test]
fn hooks_without_btf_are_refused_by_the_files_name() -> Result<()> {
    let sandbox = Sandbox::enter()?;
    let socket = socket_path(&sandbox);
    let socket = socket.to_string_lossy();
    let hooks = "capture.hooks=raw_tp,syscall";
    let said = socklife(&["run", "--for", "20s", "--socket", &socket, "--set", "capture.btf=/none", "--set", hooks])?;
    fails(&said, 3, &["/none", "BTF"])?;
    ensure!(!socket_path(&sandbox).try_exists()?, "it left its socket");
    Ok(())
}

#[test]
fn a_second_daemon_on_the_same_socket_gives_way() -> Result<()> {
    let sandbox = Sandbox::enter()?;
    let first = Daemon::start(&sandbox, &[])?;
    let socket = first.socket().to_string_lossy().into_owned();
    let said = socklife(&["run", "--for", "20s", "--socket", &socket])?;
    fails(&said, 3, &[&socket])?;
    first.snapshot().context("the first daemon must not notice")?;

    // A file of someone else's is no stale socket and stays what it was.
    let file = sandbox.path("letter.txt");
    fs::write(&file, "not yours")?;
    let said = socklife(&["run", "--for", "20s", "--socket", &file.to_string_lossy()])?;
    fails(&said, 3, &["letter.txt"])?;
    ensure!(fs::read_to_string(&file)? == "not yours", "it overwrote a file that was no socket");
    Ok(())
}

#[test]
fn a_snapshot_file_is_whole_or_not_there() -> Result<()> {
    let sandbox = Sandbox::enter()?;
    let daemon = Daemon::start(&sandbox, &[])?;
    let file = sandbox.path("snapshot.json");
    let said = daemon.ask(&["snapshot", "-o", &file.to_string_lossy()])?;
    ensure!(said.code == Some(0) && said.stdout.is_empty(), "{said:?}");
    let written: Value = serde_json::from_str(&fs::read_to_string(&file)?)?;
    ensure!(written["schema"] == "socklife.snapshot/v1", "schema: {}", written["schema"]);
    let mode = fs::metadata(&file)?.permissions().mode() & 0o7777;
    ensure!(mode == 0o640, "mode is {mode:o}");

    let said = daemon.ask(&["snapshot", "-o", "/proc/snapshot.json"])?;
    ensure!(said.code != Some(0) && said.stdout.is_empty(), "{said:?}");
    ensure!(said.stderr.contains("/proc/snapshot.json"), "stderr does not name the file: {}", said.stderr);
    snapshot_of(&daemon.ask(&["snapshot"])?).map(drop)
}

#[test]
fn a_closed_pipe_is_no_error() -> Result<()> {
    let sandbox = Sandbox::enter()?;
    let daemon = Daemon::start(&sandbox, &[])?;
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let mut snapshot = command(socklife_binary()?);
    snapshot.arg("snapshot").arg("--socket").arg(daemon.socket());
    snapshot.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped());
    let said = snapshot.output()?;
    ensure!(said.status.code() == Some(0), "{}: {}", said.status, String::from_utf8_lossy(&said.stderr));
    ensure!(said.stderr.is_empty(), "stderr: {}", String::from_utf8_lossy(&said.stderr));
    Ok(())
}
