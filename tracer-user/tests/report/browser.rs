//! Chromium without a window, driven by its own protocol over a pipe (`--remote-debugging-pipe`): JSON messages with a
//! NUL after each. Host names lead nowhere in it, and it is ended on every way out.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Its protocol is read from descriptor 3 and written to 4. `timeout` bounds a browser that hangs: then the pipe ends.
const START: &str = "exec timeout 120 chromium \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>\"$LOG\"";
const FLAGS: &[&str] = &[
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--remote-debugging-pipe",
];

/// A browser with one page.
pub struct Browser {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
    profile: TempDir,
    last: u64,
    session: Option<String>,
    /// What the page asked for, logged or threw since the last look.
    pub events: Vec<Value>,
}

impl Browser {
    pub fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", START, "sh"]).args(FLAGS).arg(format!("--user-data-dir={}", profile.path().display()));
        command.env("LOG", profile.path().join("log")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (to, from) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut browser = Self { child, to, from, profile, last: 0, session: None, events: Vec::new() };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attached =
            browser.call("Target.attachToTarget", json!({ "targetId": target["targetId"], "flatten": true }));
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Opens a file as a screen of that size shows it, or as paper does.
    pub fn open(&mut self, file: &Path, size: (u32, u32), scheme: &str, media: &str) {
        let metrics = json!({ "width": size.0, "height": size.1, "deviceScaleFactor": 1, "mobile": size.0 < 600 });
        self.call("Emulation.setDeviceMetricsOverride", metrics);
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "media": media, "features": features }));
        self.events.clear();
        let url = format!("file://{}", file.display());
        let navigated = self.call("Page.navigate", json!({ "url": url }));
        assert!(navigated["errorText"].is_null(), "{navigated}");
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let event = self.read();
            self.events.push(event);
        }
    }

    /// What an expression is in the page.
    pub fn value(&mut self, expression: &str) -> Value {
        let said = self.call("Runtime.evaluate", json!({ "expression": expression, "returnByValue": true }));
        assert!(said["exceptionDetails"].is_null(), "{expression}: {said}");
        said["result"]["value"].clone()
    }

    /// The whole page as PNG.
    pub fn screenshot(&mut self) -> Vec<u8> {
        let shot = self.call("Page.captureScreenshot", json!({ "format": "png", "captureBeyondViewport": true }));
        base64(shot["data"].as_str().unwrap())
    }

    /// The whole page on A4.
    pub fn pdf(&mut self) -> Vec<u8> {
        let a4 = json!({ "paperWidth": 8.27, "paperHeight": 11.69, "printBackground": false });
        base64(self.call("Page.printToPDF", a4)["data"].as_str().unwrap())
    }

    /// Sends a command and waits for its answer; what happens meanwhile is kept.
    fn call(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut message = json!({ "id": self.last, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let sent = self.to.as_mut().unwrap().write_all(format!("{message}\0").as_bytes());
        if sent.is_err() {
            self.gone();
        }
        loop {
            let said = self.read();
            if said["id"] == self.last {
                assert!(said["error"].is_null(), "{method}: {}", said["error"]);
                return said["result"].clone();
            }
            self.events.push(said);
        }
    }

    fn read(&mut self) -> Value {
        let mut message = Vec::new();
        self.from.read_until(0, &mut message).unwrap();
        if message.pop() != Some(0) {
            self.gone();
        }
        serde_json::from_slice(&message).unwrap()
    }

    fn gone(&self) -> ! {
        let log = std::fs::read_to_string(self.profile.path().join("log")).unwrap_or_default();
        panic!("no chromium (`cargo xtask setup` installs it), or it ended: {log}");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It ends with its pipe; if not, `timeout` hands the signal on.
        drop(self.to.take());
        let _gone = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
        let _ended = self.child.wait();
    }
}

fn base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'=').map(digit).collect();
    let group = |four: &[u8]| {
        let word = four.iter().enumerate().fold(0, |word, (at, digit)| word | u32::from(*digit) << (18 - 6 * at));
        word.to_be_bytes()[1..four.len()].to_vec()
    };
    digits.chunks(4).flat_map(group).collect()
}
