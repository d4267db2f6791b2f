//! A process whose names are written for the terminal of whoever looks at them: escape sequences, text that runs
//! backwards, line breaks, bytes that are no UTF-8, in comm, argv, program, script and control group. Nothing of it may be
//! obeyed by what shows socklife's output.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read as _, Write as _};
use std::num::NonZero;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use socklife_tests::daemon::Daemon;
use socklife_tests::pace::patience;
use socklife_tests::postgres::Postgres;
use socklife_tests::program::{Program, command, output, until};
use socklife_tests::sandbox::{Sandbox, socklife_binary, venv_python};
use vt100::{Callbacks, Color, Parser, Screen};

/// Clears the screen, runs backwards, is no UTF-8, breaks the line: 15 bytes are kept.
const COMM: &[u8] = b"\x1b[2J\xe2\x80\xae\xff\nx\xc2\x9b1m";
/// Sets the title and a colour.
const PROGRAM: &[u8] = b"\x1b]0;owned\x07\x1b[31m\xe2\x80\xaegnp\xff";
/// Writes into the clipboard.
const SCRIPT: &[u8] = b"\x1b]52;c;b3duZWQ=\x07leak\xe2\x80\xae\n.py";
const GROUP: &[u8] = b"\x1b]0;owned\x07\xe2\x81\xa6group\x1b[8m";
const ARGUMENT: &[u8] = b"\x1b[?1049h\xe2\x80\xae\r\nroot@host:~#\xff\xc2\x9d0;owned\xc2\x9c";

/// How many connections it holds that the server has closed: it is told no length of what it is to read.
const HELD: usize = 8;
const LEAKS: &str = "
import ctypes, os, socket, sys
with open(os.path.join(os.environb[b'GROUP'], b'cgroup.procs'), 'w') as group:
    group.write(str(os.getpid()))
held = [socket.create_connection(('127.0.0.1', 5432)) for _ in range(HELD)]
for each in held:
    each.sendall(bytes(8))
ctypes.CDLL(None).prctl(15, os.environb[b'COMM'])
print('ready', flush=True)
sys.stdin.read()
";

/// A control group below a hierarchy that is mounted for it.
struct ControlGroup {
    mount: PathBuf,
    dir: PathBuf,
}

impl ControlGroup {
    fn make(sandbox: &Sandbox) -> Result<Self> {
        let mount = sandbox.path("cgroup");
        fs::create_dir(&mount)?;
        let mut program = command("mount");
        program.args(["-t", "cgroup2", "none"]).arg(&mount);
        output(program).context("mount a control group hierarchy")?;
        let dir = mount.join(OsStr::from_bytes(GROUP));
        let made = Self { mount, dir };
        fs::create_dir(&made.dir).context("make a control group")?;
        Ok(made)
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // The kernel lets it go a moment after its last process has ended. What fails leaves an empty group.
        let _gone =
            until("the control group is empty", || Ok(fs::remove_dir(&self.dir).map_err(|error| error.to_string())));
        let mut program = command("umount");
        program.arg(&self.mount);
        let _unmounted = output(program);
    }
}

fn start_hostile(sandbox: &Sandbox, group: &ControlGroup) -> Result<Program> {
    let dir = sandbox.path("hostile").with_file_name(OsStr::from_bytes(PROGRAM));
    // By that name it is known for something that runs scripts.
    let (program, script) = (dir.join("python3"), dir.with_file_name(OsStr::from_bytes(SCRIPT)));
    fs::create_dir(&dir)?;
    fs::copy(venv_python()?.canonicalize()?, &program)?;
    fs::write(&script, LEAKS.replace("HELD", &HELD.to_string()))?;
    let mut run = command(&program);
    run.arg(&script).arg(OsStr::from_bytes(ARGUMENT)).env("GROUP", &group.dir).env("COMM", OsStr::from_bytes(COMM));
    let hostile = Program::start("hostile", run)?;
    let said = hostile.out_line(Instant::now() + patience())?;
    ensure!(said == "ready", "it said {said:?}");
    Ok(hostile)
}

/// What a terminal was made to do besides showing text.
#[derive(Debug, Default, PartialEq, Eq)]
struct Obeyed(Vec<String>);

impl Callbacks for Obeyed {
    fn audible_bell(&mut self, _: &mut Screen) {
        self.0.push("bell".to_owned());
    }
    fn set_window_icon_name(&mut self, _: &mut Screen, name: &[u8]) {
        self.0.push(format!("icon {name:?}"));
    }
    fn set_window_title(&mut self, _: &mut Screen, title: &[u8]) {
        self.0.push(format!("title {title:?}"));
    }
    fn copy_to_clipboard(&mut self, _: &mut Screen, _: &[u8], data: &[u8]) {
        self.0.push(format!("clipboard {data:?}"));
    }
    fn unhandled_osc(&mut self, _: &mut Screen, params: &[&[u8]]) {
        self.0.push(format!("osc {params:?}"));
    }
    fn unhandled_control(&mut self, _: &mut Screen, byte: u8) {
        self.0.push(format!("control {byte:#x}"));
    }
    fn unhandled_escape(&mut self, _: &mut Screen, _: Option<u8>, _: Option<u8>, byte: u8) {
        self.0.push(format!("escape {byte:#x}"));
    }
}

/// Fails if `text` has anything but lines of visible text; with `colours`, what sets a colour is taken out first.
fn is_harmless(what: &str, text: &str, colours: bool) -> Result<()> {
    let mut rest = text.to_owned();
    while let Some(start) = rest.find("\u{1b}[").filter(|_| colours) {
        let code =
            rest[start + 2..].find(|c: char| !c.is_ascii_digit() && c != ';').context("a code without an end")?;
        let end = start + 2 + code;
        ensure!(rest[end..].starts_with('m'), "{what} moves the cursor: {:?}", &rest[start..]);
        rest.replace_range(start..=end, "");
    }
    let hazard = |c: char| {
        (c.is_control() && c != '\n' && !(colours && c == '\r'))
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let found = rest.lines().find(|line| line.contains(hazard));
    ensure!(found.is_none(), "{what}: {found:?}");
    Ok(())
}

/// Shows `text` on a terminal and fails unless it only shows text, each line where it belongs, and all of `expected`.
fn shows(what: &str, text: &str, expected: &[&str]) -> Result<()> {
    is_harmless(what, text, true)?;
    let (rows, columns) = (NonZero::new(200).context("0")?, NonZero::new(400).context("0")?);
    let mut terminal = Parser::new_with_callbacks(rows, columns, 0, Obeyed::default());
    let lines: Vec<&str> = text.lines().map(|line| line.trim_end_matches('\r')).take(150).collect();
    for line in &lines {
        terminal.process(line.as_bytes());
        terminal.process(b"\r\n");
    }
    let screen = terminal.screen();
    ensure!(terminal.callbacks() == &Obeyed::default(), "{what}: {:?}", terminal.callbacks());
    ensure!(!screen.alternate_screen() && !screen.hide_cursor(), "{what} changed the screen");
    let plain = (screen.fgcolor(), screen.bgcolor(), screen.bold(), screen.inverse());
    ensure!(plain == (Color::Default, Color::Default, false, false), "{what} left {plain:?}");
    let contents = screen.contents();
    for word in expected {
        ensure!(contents.contains(word), "{what} does not show {word:?}:\n{contents}");
    }
    Ok(())
}

/// `socklife` with these arguments on a terminal; what it has written when a line has `last`.
fn on_a_terminal(daemon: &Daemon, args: &str, last: &str) -> Result<String> {
    let (socklife, socket) = (socklife_binary()?, daemon.socket().display().to_string());
    let mut script = command("script");
    script.args(["-qefc", &format!("{} {args} --socket {socket}", socklife.display()), "/dev/null"]);
    script.env_remove("NO_COLOR").env("TERM", "xterm-256color");
    let running = Program::start("script", script)?;
    let deadline = Instant::now() + patience();
    let mut text = String::new();
    loop {
        let line = running.out_line(deadline).with_context(|| format!("{args} said:\n{text}"))?;
        text.push_str(&line);
        text.push('\n');
        if line.contains(last) {
            return Ok(text);
        }
    }
}

fn metrics(socket: &Path) -> Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let text = String::from_utf8(answer)?;
    let (_, body) = text.split_once("\r\n\r\n").context("no body")?;
    Ok(body.replace("\r\n", "\n"))
}

#[test]
fn names_are_shown_and_not_obeyed() -> Result<()> {
    let sandbox = Sandbox::enter()?;
    let _postgres = Postgres::start(&sandbox, 100)?;
    let settings = ["detect.close_wait_leak.after_s=1", "detect.window_s=1", "privacy.cmdline=redacted"];
    let settings: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    let daemon = Daemon::start(&sandbox, &settings)?;
    let before = sandbox.path("before.json");
    fs::write(&before, daemon.ask(&["snapshot"])?.stdout)?;
    let group = ControlGroup::make(&sandbox)?;
    let hostile = start_hostile(&sandbox, &group)?;

    let snapshot = until("a finding is about it", || {
        let snapshot = daemon.snapshot()?;
        let about = snapshot["findings"].as_array().into_iter().flatten().any(|finding| {
            finding["subject"]["pids"].as_array().is_some_and(|pids| pids.contains(&hostile.pid().into()))
        });
        Ok(if about { Ok(snapshot) } else { Err(snapshot["findings"].to_string()) })
    })?;
    // The names are what they are: nothing is lost on the way.
    let processes = snapshot["processes"].as_array().context("no processes")?;
    let process = processes.iter().find(|each| each["pid"] == hostile.pid()).context("it is not there")?;
    let text = |key: &str| process[key].as_str().with_context(|| format!("no {key} in {process}"));
    for (key, has) in [("comm", "\u{1b}[2J\u{202e}"), ("exe", "\u{1b}]0;owned\u{7}"), ("script", "leak\u{202e}\n.py")] {
        ensure!(text(key)?.contains(has), "{key} is {:?}", text(key)?);
    }
    ensure!(text("cgroup")?.contains("group\u{1b}[8m"), "cgroup is {:?}", text("cgroup")?);
    ensure!(process["cmdline"].to_string().contains("root@host"), "{}", process["cmdline"]);

    // On a terminal.
    let script = r"leak\u{202e}\n.py";
    shows("tail", &on_a_terminal(&daemon, "tail", "close_wait_leak")?, &["close_wait_leak", script])?;
    shows("tail --json", &on_a_terminal(&daemon, "tail --json", "close_wait_leak")?, &[r"leak\u202e\n.py"])?;
    shows("snapshot", &on_a_terminal(&daemon, "snapshot", "\"findings\"")?, &[])?;
    let after = sandbox.path("after.json");
    fs::write(&after, daemon.ask(&["snapshot"])?.stdout)?;
    let differ = daemon.ask(&["diff", &before.to_string_lossy(), &after.to_string_lossy()])?;
    shows("diff", &differ.stdout, &[script])?;
    // Into a file, or for a scraper.
    let piped = daemon.ask(&["snapshot"])?.stdout;
    let control = piped.chars().find(|c| c.is_ascii_control() && *c != '\n');
    ensure!(control.is_none() && serde_json::from_str::<Value>(&piped).is_ok(), "snapshot: {control:?}");
    is_harmless("/metrics", &metrics(daemon.socket())?, false)?;
    is_harmless("doctor", &daemon.ask(&["doctor"])?.stdout, false)?;
    is_harmless("the log", &daemon.log(), false)?;
    drop(hostile);
    Ok(())
}
