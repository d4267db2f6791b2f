//! Every command of the documentation does what it says: each is run as it is written, in a directory and beside a daemon
//! of the test's own. What cannot be run here is listed with who runs it; nothing else is left out.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nix::unistd::User;
use serde_json::Value;
use socklife_tests::client::Client;
use socklife_tests::daemon::Daemon;
use socklife_tests::docs::{Typed, pages, replace_word, root};
use socklife_tests::pace::patience;
use socklife_tests::postgres::Postgres;
use socklife_tests::program::{Finished, Program, command, command_as, finish, output, until};
use socklife_tests::sandbox::{Sandbox, socklife_binary};

/// Who types what does not begin with `sudo`: a member of the group that the socket is for, and nothing more.
const READER: &str = "nobody";
const GROUP: &str = "nogroup";
const METRICS: &str = "127.0.0.1:9187";

/// How commands begin that do not run here, why, and where they run otherwise. Each has to be there.
const NOT_HERE: &[(&str, &str)] = &[
    ("cargo xtask run", "builds; the step `demo` of `cargo xtask test` runs it to its verdict"),
    ("cargo xtask test", "is what runs this"),
    ("cargo xtask dist", "builds; the step `packages` of `cargo xtask test` runs it"),
    ("cargo build", "builds; `cargo xtask test` begins with it"),
    ("apt ", "installs; the step `packages` does, in a Debian of its own"),
    ("systemctl ", "needs systemd; tests/packages/check.sh in a guest that was booted with it"),
    ("systemd-sysusers", "makes groups; the package's postinst does in the step `packages`"),
    ("journalctl ", "needs systemd; tests/packages/check.sh asks it"),
    ("usermod ", "changes accounts; tests/packages/check.sh"),
    ("id ", "shows accounts"),
    ("modprobe ", "changes the host's kernel"),
    ("tar ", "needs the archive; the step `packages` makes and reads it"),
    ("cd ", "is about that archive"),
    ("mkdir ", "writes to the host; the unit's RuntimeDirectory and StateDirectory do the same"),
    ("install ", "writes to the host; the step `packages` puts the same files in the same places"),
    ("podman ", "needs images; the words of `podman run` are held against the DaemonSet and the unit below"),
    ("kubectl ", "needs a cluster; the DaemonSet is held against the page below"),
    ("crictl ", "needs a cluster"),
];

/// Exit codes other than 0 that a command is to end with, and why.
const ENDS_WITH: &[(&str, &[i32], &str)] = &[
    ("--fail-on", &[0, 1], "it was asked to judge"),
    ("socklife reap --finding", &[2], "the finding here is limit_pressure, whose connections it never closes"),
    ("socklife reap", &[1], "it refuses connections that answer, which these do"),
    ("socklife top", &[3], "no terminal here: tests/live/top.rs has one. A flag that it does not know would be 2"),
];

/// A database, a client that holds nearly all it takes, and the daemon that watches them; files that pages name.
struct Scene {
    words: Vec<(String, String)>,
    client: Client,
    daemon: Daemon,
    _postgres: Postgres,
    sandbox: Sandbox,
}

impl Scene {
    fn set() -> Result<Self> {
        let sandbox = Sandbox::enter()?;
        let postgres = Postgres::start(&sandbox, 100)?;
        let config = sandbox.path("socklife.toml");
        fs::write(
            &config,
            "[api]\ngroup = \"nogroup\"\n\n[[endpoint]]\nmatch = \"127.0.0.1:5432\"\nname = \"orders-db\"\nlimit = 20\n",
        )?;
        let state = sandbox.path("state");
        let (config, state) = (path(&config)?, path(&state)?);
        let args = ["--config", &config, "--state-dir", &state, "--metrics", METRICS];
        let daemon = Daemon::start(&sandbox, &args)?;
        let mut client = Client::start()?;
        client.open(20, "127.0.0.1")?;
        let mut scene = Self { words: Vec::new(), client, daemon, _postgres: postgres, sandbox };
        scene.furnish()?;
        scene.words = scene.find_words(&config, &state)?;
        Ok(scene)
    }

    fn work(&self) -> PathBuf {
        self.sandbox.path("work")
    }

    /// A directory in which the paths of the pages are there.
    fn furnish(&self) -> Result<()> {
        let (work, bin) = (self.work(), self.work().join("target/release"));
        fs::create_dir_all(&bin)?;
        // Copies: the reader may not come to where the originals are.
        fs::copy(socklife_binary()?, bin.join("socklife"))?;
        let rules = Path::new("packaging/prometheus/socklife.rules.yml");
        fs::create_dir_all(work.join(rules).with_file_name(""))?;
        fs::copy(root().join(rules), work.join(rules))?;
        // The directory is the reader's.
        chown(&work, Some(id_of(READER)?), None)?;
        Ok(())
    }

    /// What stands for what in the pages. Longer words that contain others go first.
    fn find_words(&self, config: &str, state: &str) -> Result<Vec<(String, String)>> {
        let snapshot = until("the limit is told, and who holds what is known", || {
            let snapshot = self.daemon.snapshot()?;
            let told = named(&snapshot, "findings", |one| one["kind"] == "limit_pressure").is_some();
            let held = |one: &Value| one["role"] == "client" && one["holders"] != serde_json::json!([]);
            let held = named(&snapshot, "connections", held).is_some();
            Ok(if told && held { Ok(snapshot) } else { Err(format!("findings: {}", snapshot["findings"])) })
        })?;
        let is_held = |one: &Value| one["role"] == "client" && one["holders"] != serde_json::json!([]);
        let id = |list: &str, of: &dyn Fn(&Value) -> bool| {
            let one = named(&snapshot, list, of).context("it was there")?;
            Ok::<String, anyhow::Error>(one["id"].as_str().context("no id")?.to_owned())
        };
        let connection = id("connections", &is_held)?;
        let finding = id("findings", &|one: &Value| one["kind"] == "limit_pressure")?;
        until("the history has this moment", || {
            let said = self.run("socklife snapshot --at '0s ago'")?;
            Ok(if said.code == Some(0) { Ok(()) } else { Err(said.stderr) })
        })?;
        self.must("socklife snapshot > before.json && cp before.json now.json")?;
        self.must("socklife record -o run.rec --for 1s")?;
        let recorded: Value = serde_json::from_str(&self.must("socklife replay run.rec")?)?;
        let recorded = recorded["captured_at"].as_str().context("no time in the replay")?;
        let now = self.daemon.snapshot()?;
        let now = now["captured_at"].as_str().context("no time in the snapshot")?;
        let socket = path(self.daemon.socket())?;
        let pid = self.client.pid().to_string();
        let another = path(&self.sandbox.path("another.sock"))?;
        let words: [(&str, &str); 18] = [
            ("/run/socklife/socklife.sock", &socket),
            ("/etc/socklife/socklife.toml", config),
            ("/var/lib/socklife", state),
            ("10.0.0.5:5432", "127.0.0.1:5432"),
            ("9c1f20aa53e7d614", &connection),
            ("CONNECTION...", &connection),
            ("--yes ...", &connection),
            ("5be0c3a1d2f49706", &finding),
            ("--finding ID", &format!("--finding {finding}")),
            ("412", &pid),
            // The store is as old as the test.
            ("2h ago", "0s ago"),
            ("2026-11-21T22:41:00Z", now),
            ("2026-11-21T20:41:07Z", recorded),
            ("--at 90s", "--at 0s"),
            ("replay FILE", "replay run.rec"),
            ("--into DIR", "--into replayed"),
            ("run.rec --for 1h", "another.rec --for 1s"),
            // Beside the daemon that is there: not for long, and on a socket of its own, in a directory that is root's.
            ("socklife run", &format!("socklife run --for 1s --socket {another}")),
        ];
        Ok(words.map(|(written, here)| (written.to_owned(), here.to_owned())).into())
    }

    /// The line as it runs here.
    fn translated(&self, line: &str) -> String {
        let words = self.words.iter();
        words.fold(line.to_owned(), |line, (written, here)| replace_word(&line, written, here))
    }

    /// As root where the line begins with `sudo`, else as a member of the socket's group.
    fn shell(&self, line: &str) -> Result<std::process::Command> {
        let (mut shell, line) = match line.strip_prefix("sudo ") {
            Some(line) => (command("bash"), line),
            None => (command_as(READER, GROUP, "bash"), line),
        };
        let bin = self.work().join("target/release");
        let others = std::env::var("PATH").context("no PATH")?;
        // The part of a pipe that fails fails it.
        shell
            .args(["-o", "pipefail", "-c"])
            .arg(line)
            .current_dir(self.work())
            .env("SOCKLIFE_SOCKET", self.daemon.socket());
        shell.env("PATH", format!("{}:{others}", bin.display()));
        Ok(shell)
    }

    /// Files that a redirection of `sudo` made are the reader's, as they would be with the real one.
    fn hand_over(&self) -> Result<()> {
        for entry in fs::read_dir(self.work())? {
            let entry = entry?;
            if entry.metadata()?.is_file() && entry.metadata()?.permissions().mode() & 0o004 != 0 {
                chown(entry.path(), Some(id_of(READER)?), None)?;
            }
        }
        Ok(())
    }

    fn run(&self, line: &str) -> Result<Finished> {
        finish(self.shell(line)?)
    }

    fn must(&self, line: &str) -> Result<String> {
        output(self.shell(line)?)
    }

    /// Runs what ends, and checks how it ends.
    fn check(&self, typed: &Typed) -> Result<()> {
        let line = self.translated(&typed.line);
        let said = self.run(&line).with_context(|| format!("{}: {}", typed.place, typed.line))?;
        self.hand_over()?;
        let allowed =
            ENDS_WITH.iter().find(|(part, ..)| bare(&typed.line).contains(part)).map_or(&[0][..], |rule| rule.1);
        ensure!(
            said.code.is_some_and(|code| allowed.contains(&code)),
            "{}: `{}` ended with {:?}, run as `{line}`: {}{}",
            typed.place,
            typed.line,
            said.code,
            said.stdout.chars().take(400).collect::<String>(),
            said.stderr
        );
        Ok(())
    }
}

fn path(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).context("a path that is no text")
}

fn id_of(user: &str) -> Result<u32> {
    Ok(User::from_name(user)?.with_context(|| format!("no user {user}"))?.uid.as_raw())
}

fn named<'a>(snapshot: &'a Value, list: &str, of: impl Fn(&Value) -> bool) -> Option<&'a Value> {
    snapshot[list].as_array()?.iter().find(|one| of(one))
}

fn bare(line: &str) -> &str {
    line.strip_prefix("sudo ").unwrap_or(line)
}

/// Whether it goes on until it is interrupted.
fn is_endless(line: &str) -> bool {
    bare(line).starts_with("socklife tail")
}

#[test]
fn every_command_does_what_its_page_says() -> Result<()> {
    let scene = Scene::set()?;
    let mut used = BTreeSet::new();
    let mut tails: Vec<(Typed, Program)> = Vec::new();
    let (mut wrong, mut seen, mut ran) = (Vec::new(), BTreeSet::new(), 0);
    for typed in pages()?.iter().flat_map(|page| page.commands()) {
        if let Some((way, _)) = NOT_HERE.iter().find(|(way, _)| bare(&typed.line).starts_with(way)) {
            used.insert(*way);
            continue;
        }
        if !seen.insert(typed.line.clone()) {
            continue;
        }
        ran += 1;
        if is_endless(&typed.line) {
            let line = scene.translated(&typed.line);
            let exec = line.replacen("socklife tail", "exec socklife tail", 1);
            let tail = scene.shell(&exec)?;
            tails.push((typed, Program::start("socklife tail", tail)?));
        } else if let Err(error) = scene.check(&typed) {
            wrong.push(format!("{error:#}"));
        }
    }
    for (typed, mut tail) in tails {
        // One that was not understood has ended long before.
        let code = tail.signal(Signal::SIGINT).and_then(|()| tail.wait(patience())).map(|status| status.code());
        if !matches!(code, Ok(Some(0))) {
            wrong.push(format!("{}: `{}` ended with {code:?}: {}", typed.place, typed.line, tail.log()));
        }
    }
    ensure!(wrong.is_empty(), "{} of {ran} commands are wrong:\n{}", wrong.len(), wrong.join("\n"));
    ensure!(ran >= 60, "only {ran} commands were found");
    let stale: Vec<_> = NOT_HERE.iter().map(|(way, _)| *way).filter(|way| !used.contains(way)).collect();
    ensure!(stale.is_empty(), "no page has {stale:?} any more");
    Ok(())
}

#[test]
fn every_flag_that_a_page_mentions_is_there() -> Result<()> {
    let socklife = socklife_binary()?;
    let mut checked = 0;
    for typed in pages()?.iter().flat_map(|page| page.mentions()) {
        let mut words = typed.line.split_whitespace().skip(1);
        let Some(subcommand) = words.next().filter(|word| word.starts_with(|first: char| first.is_ascii_lowercase()))
        else {
            continue;
        };
        let mut help = command(&socklife);
        help.args([subcommand, "--help"]);
        let help = output(help).with_context(|| format!("{}: `{}`", typed.place, typed.line))?;
        let known: BTreeSet<&str> =
            help.split(|letter: char| letter.is_whitespace() || ",[]".contains(letter)).collect();
        for flag in words.filter(|word| word.starts_with('-') && word.len() > 1) {
            ensure!(known.contains(flag), "{}: `{}`: there is no {flag}", typed.place, typed.line);
            checked += 1;
        }
    }
    ensure!(checked >= 5, "only {checked} flags were found");
    Ok(())
}

#[test]
fn the_page_of_metrics_has_every_series_and_no_other() -> Result<()> {
    let sandbox = Sandbox::enter()?;
    let _postgres = Postgres::start(&sandbox, 100)?;
    let daemon = Daemon::start(&sandbox, &["--limit", "127.0.0.1:5432=20"])?;
    let mut client = Client::start()?;
    client.open(1, "127.0.0.1")?;
    let mut curl = command("curl");
    curl.args(["--silent", "--fail", "--unix-socket"]).arg(daemon.socket()).arg("http://localhost/metrics");
    let served = output(curl)?;
    let of = |line: &str| {
        let (name, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
        let suffix = match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        Some(format!("| `{name}{suffix}` | {kind} |"))
    };
    let served: BTreeSet<String> = served.lines().filter_map(of).collect();
    ensure!(served.len() >= 15, "{served:?}");
    let page = fs::read_to_string(root().join("docs/metrics.md"))?;
    let row = |line: &str| {
        let mut cells = line.split(" | ");
        let (name, kind) = (cells.next()?, cells.next()?);
        (name.starts_with("| `socklife_") || name.starts_with("| `process_")).then(|| format!("{name} | {kind} |"))
    };
    let written: BTreeSet<String> = page.lines().filter_map(row).collect();
    ensure!(written == served, "written alone: {:?}; served alone: {:?}", &written - &served, &served - &written);
    Ok(())
}

/// What docs/install.md says of the DaemonSet, as Debian's Python reads it.
const DAEMONSET: &str = r"
import sys, yaml
documents = list(yaml.safe_load_all(open(sys.argv[1])))
kinds = [document['kind'] for document in documents]
assert kinds == ['Namespace', 'ServiceAccount', 'ConfigMap', 'DaemonSet'], kinds
pod = documents[3]['spec']['template']['spec']
assert pod['hostPID'] and pod['hostNetwork'] and pod['automountServiceAccountToken'] is False, pod
container, = pod['containers']
security = container['securityContext']
assert security['readOnlyRootFilesystem'] is True and security['runAsUser'] == 0, security
capabilities = security['capabilities']
assert capabilities['drop'] == ['ALL'], capabilities
print(' '.join(sorted(capabilities['add'])))
paths = {volume['name']: volume['hostPath']['path'] for volume in pod['volumes'] if 'hostPath' in volume}
assert paths == {'run': '/run/socklife', 'state': '/var/lib/socklife', 'tracing': '/sys/kernel/tracing'}, paths
assert {mount['name'] for mount in container['volumeMounts']} == {volume['name'] for volume in pod['volumes']}
";

#[test]
fn the_daemonset_is_as_the_page_says() -> Result<()> {
    let file = root().join("packaging/kubernetes/daemonset.yaml");
    let mut python = command("/usr/bin/python3");
    python.arg("-c").arg(DAEMONSET).arg(&file);
    let granted = output(python).context("python3-yaml is there after `cargo xtask setup`")?;
    let granted: BTreeSet<&str> = granted.split_whitespace().collect();
    // The containers of the page and of the file's own words get the same.
    let container = fs::read_to_string(root().join("packaging/Containerfile"))?;
    let named: BTreeSet<&str> =
        container.split_whitespace().filter_map(|word| word.strip_prefix("--cap-add=")).collect();
    ensure!(granted == named, "{granted:?}, and packaging/Containerfile has {named:?}");
    let typed: Vec<Typed> = pages()?.iter().flat_map(|page| page.commands()).collect();
    let run = typed.iter().find(|typed| typed.line.starts_with("sudo podman run ")).context("no `podman run`")?;
    let added: BTreeSet<&str> =
        run.line.split_whitespace().filter_map(|word| word.strip_prefix("--cap-add=")).collect();
    ensure!(granted == added && granted.len() == 6, "{granted:?}, and the page has {added:?}");
    let unit = fs::read_to_string(root().join("packaging/socklife.service"))?;
    let bound = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let bound: BTreeSet<&str> =
        bound.context("no bounds")?.split_whitespace().filter_map(|word| word.strip_prefix("CAP_")).collect();
    ensure!(granted == bound, "{granted:?}, and the unit has {bound:?}");
    Ok(())
}
