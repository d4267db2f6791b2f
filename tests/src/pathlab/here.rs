//! Faults on the application's or the database's own host: each is named with what the kernel says of it, and not taken for
//! one beyond this host.

use std::io::Write as _;
use std::process::{Child, ChildStdin, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::forgetting::LASTS;
use super::net::{DATABASE_HOST, Net, database_host, is_about, said};
use super::{QUICK, ROW};
use crate::client::Client;
use crate::postgres::PORT;
use crate::program::{Program, command};
use crate::scenarios::lab::{number, pids};
use crate::scenarios::{Lab, Scenario};

/// Every scenario of this kind.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "own-firewall",
        story: "the application's own firewall drops what it sends, FINs too, and then what it receives",
        expected: &["peer_unreachable", "half_open_at_database"],
        play: own_firewall,
        ..QUICK
    },
    Scenario {
        name: "rp-filter",
        story: "the database's host takes requests for spoofed: its way back is another one",
        expected: &["peer_unreachable"],
        play: rp_filter,
        ..ROW
    },
    Scenario {
        name: "no-route",
        story: "the route goes under open connections: first it is unreachable, then there is none",
        expected: &["peer_unreachable"],
        play: no_route,
        ..QUICK
    },
    Scenario {
        name: "conntrack-full",
        story: "the application's host has no room to track further connections",
        expected: &["connect_failures"],
        play: conntrack_full,
        ..QUICK
    },
    Scenario {
        name: "entry-runs-out",
        story: "connection tracking of the application's own host forgets these after 20 s, and others after 5 days",
        expected: &["silent_drop_risk", "peer_unreachable"],
        play: entry_runs_out,
        ..QUICK
    },
    Scenario {
        name: "swallowed-beyond",
        story: "the router has a wrong hardware address: frames are for nobody, and no kernel here drops anything of its own",
        expected: &["peer_unreachable"],
        play: swallowed,
        ..ROW
    },
];

/// The first requests of `count` connections get no answer; the finding that says so, and who is to blame.
fn dead(lab: &mut Lab, app: &mut Client, count: i64, dropped_by: &str) -> Result<Value> {
    app.ports(&format!("send {count}"))?;
    lab.is_true("peer_unreachable");
    let of =
        |line: &Value| number(line, "connections") == Some(count) && said(line, "dropped_by").starts_with(dropped_by);
    let pid = app.pid();
    let finding = lab.find_open("peer_unreachable", |line| pids(line) == [pid] && of(line))?;
    ensure!(is_about(&finding, PORT), "{finding}");
    Ok(finding)
}

/// The fault is gone: the answers come.
fn mended(lab: &mut Lab, app: &mut Client, count: i64) -> Result<()> {
    app.run(&format!("receive {count}"))?;
    lab.expect_resolved("peer_unreachable")
}

/// The fault lasts a little, and the play ends with it.
fn over(lab: &mut Lab, net: &Net) -> Result<()> {
    lab.listen(LASTS)?;
    net.forget()
}

fn own_firewall(lab: &mut Lab) -> Result<()> {
    let net = Net::new()?;
    let _postgres = net.postgres(lab)?;
    let mut app = net.client()?;
    app.open(5, &database_host())?;
    app.run("query 5")?;
    net.app_rules("output", &["tcp dport 5432 drop"])?;
    let finding = dead(lab, &mut app, 2, "this host: NETFILTER_DROP")?;
    let summary = finding["summary"].as_str().unwrap_or_default();
    ensure!(summary.contains("attempts in a row to send in vain"), "{finding}");
    net.app_rules("output", &[])?;
    mended(lab, &mut app, 2)?;
    net.app_rules("output", &["tcp dport 5432 drop"])?;
    app.ports("hangup 2")?;
    lab.is_true("half_open_at_database");
    let here = |line: &Value| said(line, "dropped_by").starts_with("this host: NETFILTER_DROP");
    let closed = lab.find_open("half_open_at_database", |line| number(line, "connections") == Some(2) && here(line))?;
    ensure!(pids(&closed) == [app.pid()], "{closed}");
    net.app_rules("output", &[])?;
    lab.expect_resolved("half_open_at_database")?;
    net.app_rules("input", &["tcp sport 5432 drop"])?;
    let finding = dead(lab, &mut app, 2, "this host: NETFILTER_DROP")?;
    ensure!(number(&finding, "consecutive_rtos") >= Some(3), "{finding}");
    over(lab, &net)
}

fn rp_filter(lab: &mut Lab) -> Result<()> {
    let net = Net::new()?;
    let _postgres = net.postgres(lab)?;
    let mut app = net.client()?;
    app.open(3, &database_host())?;
    app.run("query 3")?;
    net.at_database(&["sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1"])?;
    net.at_database(&["ip", "link", "add", "other", "type", "veth", "peer", "name", "nowhere"])?;
    net.at_database(&["ip", "link", "set", "other", "up"])?;
    net.at_database(&["ip", "link", "set", "nowhere", "up"])?;
    net.at_database(&["ip", "route", "add", &super::net::app_network(), "dev", "other"])?;
    dead(lab, &mut app, 3, "this host: IP_RPFILTER")?;
    over(lab, &net)
}

fn no_route(lab: &mut Lab) -> Result<()> {
    let net = Net::new()?;
    let _postgres = net.postgres(lab)?;
    let mut app = net.client()?;
    app.open(3, &database_host())?;
    app.run("query 3")?;
    net.in_app(&["ip", "route", "add", "unreachable", DATABASE_HOST])?;
    dead(lab, &mut app, 3, "this host: no route (EHOSTUNREACH)")?;
    net.in_app(&["ip", "route", "del", "unreachable", DATABASE_HOST])?;
    mended(lab, &mut app, 3)?;
    net.in_app(&["ip", "route", "del", "default"])?;
    dead(lab, &mut app, 3, "this host: no route (ENETUNREACH)")?;
    over(lab, &net)
}

/// The bound on tracked connections, which is the machine's and not the namespace's. It is put back when this is dropped, and
/// by a process of its own if this one dies before.
struct Bound {
    guard: Child,
    hold: Option<ChildStdin>,
}

impl Bound {
    const SETTING: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

    fn lowered_to(most: u32) -> Result<Self> {
        let script = format!(
            "trap '' INT TERM HUP; old=$(cat {0}) && echo {most} > {0} && echo lowered && read _; echo $old > {0}",
            Self::SETTING
        );
        // The lab's thread is in a namespace of its own; its process is not.
        let home = format!("--net=/proc/{}/ns/net", std::process::id());
        let mut guard = std::process::Command::new("nsenter");
        guard.args([&home, "sh", "-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut guard = guard.spawn().context("start nsenter")?;
        let hold = guard.stdin.take();
        let mut said = String::new();
        let out = guard.stdout.take().context("no stdout")?;
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut said)?;
        let bound = Self { guard, hold };
        ensure!(said.trim() == "lowered", "{} cannot be set: only the machine's first namespace may", Self::SETTING);
        Ok(bound)
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Some(mut hold) = self.hold.take() {
            let _ = hold.write_all(b"\n");
        }
        let _ = self.guard.wait();
    }
}

/// Connects again and again, ten at a time, and gives each up after a second.
const KNOCK: &str = "\
import select, socket, sys
while True:
    tries = [socket.socket() for _ in range(10)]
    for each in tries:
        each.setblocking(False)
        each.connect_ex((sys.argv[1], 5432))
    if select.select([], tries, [], 1)[1]:
        print('through', flush=True)
    for each in tries:
        each.close()
";

fn conntrack_full(lab: &mut Lab) -> Result<()> {
    let net = Net::new()?;
    let _postgres = net.postgres(lab)?;
    net.app_rules("output", &["ct state new accept"])?;
    let mut app = net.client()?;
    app.open(3, &database_host())?;
    app.run("query 3")?;
    let bound = Bound::lowered_to(2)?;
    let [first, rest @ ..] = net.app.way();
    let mut knock = command(first);
    knock.args(rest).args(["python3", "-c", KNOCK, &database_host()]);
    let knocking = Program::start("knocking", knock)?;
    lab.is_true("connect_failures");
    let says = "connection tracking table is full (";
    let is_full = |line: &Value| is_about(line, PORT) && said(line, "path").contains(says);
    let finding = lab.find_open("connect_failures", is_full)?;
    let summary = finding["summary"].as_str().unwrap_or_default();
    ensure!(summary.contains(says) && pids(&finding) == [knocking.pid()], "{finding}");
    // Those that are tracked go on.
    app.run("query 3")?;
    drop(bound);
    drop(knocking);
    lab.expect_resolved("connect_failures")
}

fn entry_runs_out(lab: &mut Lab) -> Result<()> {
    let net = Net::new()?;
    let _postgres = net.postgres(lab)?;
    net.app_nft(
        "table ip lab {\nct timeout short {\nprotocol tcp\nl3proto ip\npolicy = { established : 20 }\n}\n\
         chain output {\ntype filter hook output priority 0; policy accept;\nct state invalid drop\n\
         tcp dport 5432 ct timeout set \"short\"\n}\n}\n",
    )?;
    net.app_sysctl("net.netfilter.nf_conntrack_tcp_loose=0")?;
    let mut app = net.client()?;
    app.open(3, &database_host())?;
    app.run("query 3")?;
    lab.is_true("silent_drop_risk");
    let ours = |line: &Value| is_about(line, PORT) && number(line, "connections") == Some(3);
    let risk = lab.find_open("silent_drop_risk", ours)?;
    ensure!(pids(&risk) == [app.pid()] && risk["severity"] == "warning", "{risk}");
    // Times of the kernel's come in whole seconds.
    let gone = |after: u32| said(&risk, "conntrack") == format!("the entry is gone after {after} s (ESTABLISHED)");
    ensure!((19..=21).any(gone), "{risk}");
    dead(lab, &mut app, 3, "this host: NETFILTER_DROP")?;
    over(lab, &net)
}

fn swallowed(lab: &mut Lab) -> Result<()> {
    let net = Net::new()?;
    let _postgres = net.postgres(lab)?;
    let mut app = net.client()?;
    app.open(3, &database_host())?;
    app.run("query 3")?;
    let neighbour = ["ip", "neigh", "replace", DATABASE_HOST, "lladdr", "02:00:00:00:00:01", "dev", "db-out"];
    net.router(&[&neighbour[..], &["nud", "permanent"]].concat())?;
    let finding = dead(lab, &mut app, 3, "beyond this host")?;
    ensure!(said(&finding, "last_heard").ends_with(" ago"), "{finding}");
    over(lab, &net)
}
