//! Three network namespaces in a row: app, router, database. Everything between app and database passes the router's
//! forward hook.

use std::fs::File;
use std::io::Write as _;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns};
use serde_json::Value;

use crate::client::Client;
use crate::postgres::{PORT, Postgres};
use crate::program::{Program, command, output, until};
use crate::sandbox::{NETWORK, Namespace};
use crate::scenarios::Lab;

/// The last number of the application's address, and of the router's on that side.
const APP: u8 = 2;
const ROUTER_APP: u8 = 1;
/// The same on the database's side: another subnet.
const DATABASE: u8 = 66;
const ROUTER_DATABASE: u8 = 65;

/// What a router's rule matches: both directions, or one.
pub const TO_DATABASE: &str = "ip daddr 10.203.77.66";
pub const TO_APP: &str = "ip daddr 10.203.77.2";

/// The database as the application has it.
pub const DATABASE_HOST: &str = "10.203.77.66";

/// The three of them.
pub struct Net {
    pub app: Namespace,
    pub router: Namespace,
    pub database: Option<Namespace>,
}

/// The application's subnet.
pub fn app_network() -> String {
    format!("{NETWORK}.0/26")
}

/// The database's address as the application has it.
pub fn database_host() -> String {
    format!("{NETWORK}.{DATABASE}")
}

impl Net {
    /// Makes and joins them.
    pub fn new() -> Result<Self> {
        let net = Self {
            app: Namespace::named("app")?,
            router: Namespace::named("fw")?,
            database: Some(Namespace::named("db")?),
        };
        let database = net.database()?;
        join(&net.app, &net.router, "app", (APP, ROUTER_APP))?;
        join(database, &net.router, "db", (DATABASE, ROUTER_DATABASE))?;
        run_in(&net.app, &["ip", "route", "add", "default", "via", &format!("{NETWORK}.{ROUTER_APP}")])?;
        run_in(database, &["ip", "route", "add", "default", "via", &format!("{NETWORK}.{ROUTER_DATABASE}")])?;
        net.router(&["sysctl", "-qw", "net.ipv4.ip_forward=1"])?;
        Ok(net)
    }

    fn database(&self) -> Result<&Namespace> {
        self.database.as_ref().context("the database's namespace is gone")
    }

    /// Runs a command in the router.
    pub fn router(&self, words: &[&str]) -> Result<()> {
        run_in(&self.router, words)
    }

    /// Runs a command at the application.
    pub fn in_app(&self, words: &[&str]) -> Result<()> {
        run_in(&self.app, words)
    }

    /// The application's kernel forgets its connections: the play is over, and nobody is to close them in vain.
    pub fn forget(&self) -> Result<()> {
        self.in_app(&["ss", "-K", "dst", &database_host()])
    }

    /// Waits until the database has acknowledged all that the application sent.
    pub fn is_acknowledged(&self) -> Result<()> {
        until("all is acknowledged", || {
            let [first, rest @ ..] = self.app.way();
            let mut sockets = command(first);
            sockets.args(rest).args(["ss", "-Htn", "state", "established", "dst", &database_host()]);
            let sockets = output(sockets)?;
            // Recv-Q, Send-Q, ends.
            let all = sockets.lines().all(|line| line.split_ascii_whitespace().nth(1) == Some("0"));
            Ok(if all { Ok(()) } else { Err(sockets) })
        })
    }

    /// Changes a setting of the application's namespace.
    pub fn app_sysctl(&self, setting: &str) -> Result<()> {
        self.in_app(&["sysctl", "-qw", setting])
    }

    /// The router's interfaces.
    pub fn router_links(&self) -> Result<String> {
        let [first, rest @ ..] = self.router.way();
        let mut links = command(first);
        links.args(rest).args(["ip", "-o", "link"]);
        output(links)
    }

    /// Runs a command at the database.
    pub fn at_database(&self, words: &[&str]) -> Result<()> {
        run_in(self.database()?, words)
    }

    /// The router's forward hook does that from now on, and nothing else.
    pub fn rules(&self, rules: &[&str]) -> Result<()> {
        self.nft(&only("forward", rules))
    }

    /// The same of the application's own hook of that name.
    pub fn app_rules(&self, hook: &str, rules: &[&str]) -> Result<()> {
        self.app_nft(&only(hook, rules))
    }

    /// A set of rules of any kind in the router.
    pub fn nft(&self, script: &str) -> Result<()> {
        nft_in(&self.router, script)
    }

    /// A set of rules of any kind at the application.
    pub fn app_nft(&self, script: &str) -> Result<()> {
        nft_in(&self.app, script)
    }

    /// PostgreSQL at the database.
    pub fn postgres(&self, lab: &Lab) -> Result<Postgres> {
        inside(self.database()?, || Postgres::start_at(&lab.sandbox, 100, PORT, "*"))
    }

    /// Redis at the database.
    pub fn redis(&self, lab: &Lab) -> Result<Program> {
        let mut redis = self.program_at_database("redis-server")?;
        redis.args(["--port", "6379", "--bind", &database_host(), "--protected-mode", "no", "--save", ""]);
        redis.args(["--appendonly", "no", "--dir"]).arg(lab.sandbox.path(""));
        let redis = Program::start("redis-server", redis)?;
        let deadline = std::time::Instant::now() + crate::pace::patience();
        while !redis.out_line(deadline)?.contains("eady to accept connections") {}
        Ok(redis)
    }

    fn program_at_database(&self, program: &str) -> Result<std::process::Command> {
        let [first, rest @ ..] = self.database()?.way();
        let mut command = command(first);
        command.args(rest).arg(program);
        Ok(command)
    }

    /// A redis-cli in the application that obeys one command a line.
    pub fn redis_client(&self) -> Result<Program> {
        let [first, rest @ ..] = self.app.way();
        let mut client = command(first);
        client.args(rest).args(["redis-cli", "-h", &database_host()]);
        Program::start("redis-cli", client)
    }

    /// A client in the application.
    pub fn client(&self) -> Result<Client> {
        Client::start_by(&self.app.way(), PORT)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        // Sockets whose close is unheard keep a namespace in existence, where the next scenario's daemon finds them.
        for namespace in self.database.iter().chain([&self.app]) {
            let _ = run_in(namespace, &["ss", "-K", "dst", &format!("{NETWORK}.0/24")]);
        }
    }
}

/// One chain at that hook, and nothing else.
fn only(hook: &str, rules: &[&str]) -> String {
    let (chain, rules) = (format!("type filter hook {hook} priority 0; policy accept;"), rules.join("\n"));
    format!("table ip lab\ndelete table ip lab\ntable ip lab {{\nchain {hook} {{\n{chain}\n{rules}\n}}\n}}\n")
}

fn nft_in(namespace: &Namespace, script: &str) -> Result<()> {
    let [first, rest @ ..] = namespace.way();
    let mut nft = command(first);
    nft.args(rest).args(["nft", "-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = nft.spawn().context("start nft")?;
    child.stdin.take().context("no stdin")?.write_all(script.as_bytes())?;
    let done = child.wait_with_output()?;
    ensure!(done.status.success(), "nft refused {script:?}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

/// Does something while this thread is in that namespace; what it starts stays there.
fn inside<T>(namespace: &Namespace, action: impl FnOnce() -> Result<T>) -> Result<T> {
    let home = File::open("/proc/thread-self/ns/net")?;
    setns(File::open(namespace.file())?, CloneFlags::CLONE_NEWNET).context("enter a namespace")?;
    let done = action();
    setns(home, CloneFlags::CLONE_NEWNET).context("come back from a namespace")?;
    done
}

/// A link between an end and the router, each with its address.
fn join(end: &Namespace, router: &Namespace, name: &str, (here, there): (u8, u8)) -> Result<()> {
    let (inner, outer) = (format!("{name}-in"), format!("{name}-out"));
    let file = router.file();
    let router_file = file.to_str().context("a path that is no text")?;
    run_in(end, &["ip", "link", "add", &inner, "type", "veth", "peer", "name", &outer, "netns", router_file])?;
    for (namespace, device, last) in [(end, &inner, here), (router, &outer, there)] {
        run_in(namespace, &["ip", "addr", "add", &format!("{NETWORK}.{last}/26"), "dev", device])?;
        run_in(namespace, &["ip", "link", "set", device, "up"])?;
    }
    Ok(())
}

fn run_in(namespace: &Namespace, words: &[&str]) -> Result<()> {
    let [first, rest @ ..] = namespace.way();
    let mut command = command(first);
    command.args(rest).args(words);
    output(command).map(drop)
}

/// Whether the finding is about one side of the database of this lab.
pub fn is_about(finding: &Value, port: u16) -> bool {
    finding["subject"]["endpoint"] == format!("{}:{port}", database_host()).as_str()
}

/// A text in a finding's evidence; nothing if there is none.
pub fn said<'a>(finding: &'a Value, fact: &str) -> &'a str {
    let evidence = finding["evidence"].as_array().into_iter().flatten();
    let mut named = evidence.filter(|entry| entry["fact"] == fact);
    named.find_map(|entry| entry["value"].as_str()).unwrap_or_default()
}

/// A list in a finding's evidence, as ports.
pub fn ports(finding: &Value, fact: &str) -> Vec<u16> {
    let evidence = finding["evidence"].as_array().into_iter().flatten();
    let listed = evidence.filter(|entry| entry["fact"] == fact).flat_map(|entry| entry["value"].as_array());
    listed.flatten().filter_map(|port| port.as_str()?.parse().ok()).collect()
}
