//! Paths that fail: what was sent is lost, and one side or both do not know.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use super::ROW;
use super::forgetting::LASTS;
use super::net::{Net, TO_APP, TO_DATABASE, app_network, database_host, is_about, ports};
use crate::pace::patience;
use crate::postgres::{PORT, Postgres};
use crate::program::until;
use crate::scenarios::lab::{number, pids};
use crate::scenarios::{Lab, Scenario};

/// Every scenario of this kind.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "fins-dropped",
        story: "the app closes 20 connections, and the firewall drops the FINs",
        expected: &["half_open_at_database"],
        play: fins_dropped,
        ..ROW
    },
    Scenario {
        name: "fins-given-up",
        story: "the same until the kernel gives the sockets up; then the database notices by itself",
        expected: &["half_open_at_database"],
        also: &["peer_unreachable"],
        play: fins_given_up,
        ..ROW
    },
    Scenario {
        name: "pool-dies-in-use",
        story: "the path of a pool of 10 dies both ways while 7 wait for answers",
        expected: &["peer_unreachable"],
        play: pool_dies,
        ..ROW
    },
    Scenario {
        name: "one-way",
        story: "requests arrive, and the answers are dropped",
        expected: &["peer_unreachable"],
        play: one_way,
        ..ROW
    },
    Scenario {
        name: "mtu-black-hole",
        story: "small packets pass, large ones vanish without a word",
        expected: &["peer_unreachable"],
        play: mtu_black_hole,
        ..ROW
    },
    Scenario {
        name: "cable-pulled",
        story: "the database's cable is pulled; the router has no way to it (Redis)",
        expected: &["peer_unreachable"],
        play: cable_pulled,
        ..ROW
    },
    Scenario {
        name: "peer-rebooted",
        story: "the database's host is gone for a while and comes back without the connections",
        expected: &["peer_unreachable"],
        play: peer_rebooted,
        ..ROW
    },
    Scenario {
        name: "namespace-deleted",
        story: "the database's network namespace is deleted under the connections",
        expected: &["peer_unreachable"],
        play: namespace_deleted,
        ..ROW
    },
    Scenario {
        name: "client-dies",
        story: "a client's host dies while it waits: as the database's host sees it, which then ends other sessions of it",
        expected: &["peer_unreachable"],
        play: client_dies,
        ..ROW
    },
    Scenario {
        name: "rejected",
        story: "the firewall answers for the database, with resets: nobody can connect",
        expected: &["connect_failures"],
        play: rejected,
        ..ROW
    },
];

/// The client ports that the database lists, ascending.
fn sessions(postgres: &Postgres) -> Result<Vec<u16>> {
    let mut ports: Vec<u16> = postgres.activity()?.keys().map(|client| client.port()).collect();
    ports.sort_unstable();
    Ok(ports)
}

fn fins_dropped(lab: &mut Lab) -> Result<()> {
    let net = Net::new()?;
    let postgres = net.postgres(lab)?;
    let mut app = net.client()?;
    let mut opened = app.open(20, &database_host())?;
    opened.sort_unstable();
    net.rules(&["tcp flags & fin == fin drop"])?;
    app.ports("hangup 20")?;
    lab.is_true("half_open_at_database");
    let finding = lab.find_open("half_open_at_database", |line| number(line, "connections") == Some(20))?;
    ensure!(pids(&finding) == [app.pid()], "{} closed them: {finding}", app.pid());
    ensure!(ports(&finding, "local_ports") == opened, "{opened:?}: {finding}");
    ensure!(number(&finding, "seen_at_database") == Some(20), "the daemon sees both ends: {finding}");
    ensure!(sessions(&postgres)? == opened, "the database lists {:?}, not {opened:?}", sessions(&postgres)?);
    net.rules(&[])?;
    lab.expect_resolved("half_open_at_database")?;
    until("the database has noticed", || {
        let left = sessions(&postgres)?;
        Ok(if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) })
    })
}

fn fins_given_up(lab: &mut Lab) -> Result<()> {
    let net = Net::new()?;
    let postgres = net.postgres(lab)?;
    let mut app = net.client()?;
    let mut opened = app.open(3, &database_host())?;
    opened.sort_unstable();
    net.app_sysctl("net.ipv4.tcp_orphan_retries=4")?;
    net.rules(&["tcp flags & fin == fin drop", &format!("{TO_DATABASE} tcp flags & rst == rst drop")])?;
    app.ports("hangup 3")?;
    let given_up = |line: &serde_json::Value| number(line, "given_up") == Some(3);
    let finding = lab.find_open("half_open_at_database", given_up)?;
    ensure!(ports(&finding, "local_ports") == opened && pids(&finding) == [app.pid()], "{opened:?}: {finding}");
    ensure!(sessions(&postgres)? == opened, "the database lists {:?}, not {opened:?}", sessions(&postgres)?);
    net.rules(&[])?;
    // Whatever the database says to them now is answered with a reset.
    postgres.terminate(&opened)?;
    lab.expect_resolved("half_open_at_database").map(drop)
}

fn pool_dies(lab: &mut Lab) -> Result<()> {
    let net = Net::new()?;
    let _postgres = net.postgres(lab)?;
    let mut app = net.client()?;
    let opened = app.open(10, &database_host())?;
    app.run("query 10")?;
    net.rules(&["tcp dport 5432 drop", "tcp sport 5432 drop"])?;
    app.ports("send 7")?;
    // Seconds count from the requests; 5 s of silence make it true.
    lab.is_true("peer_unreachable");
    let finding = lab.find_open("peer_unreachable", |line| number(line, "connections") == Some(7))?;
    ensure!(pids(&finding) == [app.pid()] && is_about(&finding, PORT), "{}: {finding}", app.pid());
    ensure!(number(&finding, "consecutive_rtos") >= Some(3), "{finding}");
    ensure!(number(&finding, "unacknowledged") >= Some(5), "{finding}");
    let (mut dead, mut unknown) = (opened[..7].to_vec(), opened[7..].to_vec());
    dead.sort_unstable();
    unknown.sort_unstable();
    ensure!(ports(&finding, "local_ports") == dead && ports(&finding, "unknown_ports") == unknown, "{finding}");
    net.rules(&[])?;
    app.run("receive 7")?;
    lab.expect_resolved("peer_unreachable").map(drop)
}

fn one_way(lab: &mut Lab) -> Result<()> {
    let net = Net::new()?;
    let _postgres = net.postgres(lab)?;
    let mut app = net.client()?;
    app.open(4, &database_host())?;
    app.run("query 4")?;
    net.rules(&[&format!("{TO_APP} drop")])?;
    app.ports("send 4")?;
    lab.is_true("peer_unreachable");
    let by_app = |line: &serde_json::Value| pids(line) == [app.pid()] && number(line, "connections") == Some(4);
    lab.expect_open("peer_unreachable", by_app)?;
    net.rules(&[])?;
    app.run("receive 4")?;
    lab.expect_resolved("peer_unreachable").map(drop)
}

fn mtu_black_hole(lab: &mut Lab) -> Result<()> {
    let net = Net::new()?;
    let _postgres = net.postgres(lab)?;
    let mut app = net.client()?;
    app.open(2, &database_host())?;
    net.rules(&["meta length > 600 drop"])?;
    // Small requests get through.
    app.ports("send 1")?;
    app.run("receive 1")?;
    app.ports("send 2 100000")?;
    lab.is_true("peer_unreachable");
    let both = |line: &serde_json::Value| pids(line) == [app.pid()] && number(line, "connections") == Some(2);
    lab.expect_open("peer_unreachable", both)?;
    net.rules(&[])?;
    app.run("receive 2")?;
    lab.expect_resolved("peer_unreachable").map(drop)
}

fn cable_pulled(lab: &mut Lab) -> Result<()> {
    let net = Net::new()?;
    let _redis = net.redis(lab)?;
    let mut client = net.redis_client()?;
    client.say("PING")?;
    ensure!(client.out_line(Instant::now() + patience())? == "PONG", "no Redis answers");
    net.router(&["ip", "link", "set", "db-out", "down"])?;
    client.say("PING")?;
    lab.is_true("peer_unreachable");
    lab.expect_open("peer_unreachable", |line| is_about(line, 6379) && pids(line) == [client.pid()])?;
    net.router(&["ip", "link", "set", "db-out", "up"])?;
    ensure!(client.out_line(Instant::now() + patience())? == "PONG", "the answer comes late");
    // The database's side may have waited for the acknowledgement of its last answer.
    lab.expect("the client's finding to resolve", |line| line["status"] == "resolved" && pids(line) == [client.pid()])
        .map(drop)
}

fn peer_rebooted(lab: &mut Lab) -> Result<()> {
    let net = Net::new()?;
    let _postgres = net.postgres(lab)?;
    let mut app = net.client()?;
    app.open(3, &database_host())?;
    net.rules(&["tcp dport 5432 drop", "tcp sport 5432 drop"])?;
    // The host forgets its connections, and nobody out there hears of it.
    net.at_database(&["ss", "-K", "dst", &app_network()])?;
    app.ports("send 3")?;
    lab.is_true("peer_unreachable");
    lab.expect_open("peer_unreachable", |line| pids(line) == [app.pid()] && number(line, "connections") == Some(3))?;
    net.rules(&[])?;
    // The next segment is answered with a reset.
    lab.expect_resolved("peer_unreachable").map(drop)
}

fn namespace_deleted(lab: &mut Lab) -> Result<()> {
    let mut net = Net::new()?;
    let postgres = net.postgres(lab)?;
    let mut app = net.client()?;
    app.open(3, &database_host())?;
    net.rules(&["tcp dport 5432 drop", "tcp sport 5432 drop"])?;
    // A socket, even one that nobody has any more, keeps its namespace in existence.
    net.at_database(&["ss", "-K", "dst", &app_network()])?;
    drop(postgres);
    drop(net.database.take().context("no database")?);
    until("the namespace is gone, and its cable with it", || {
        let cables = net.router_links()?;
        Ok(if cables.contains("db-out") { Err(cables) } else { Ok(()) })
    })?;
    net.rules(&[])?;
    app.ports("send 3")?;
    lab.is_true("peer_unreachable");
    let ours = |line: &serde_json::Value| pids(line) == [app.pid()] && number(line, "connections") == Some(3);
    lab.expect_open("peer_unreachable", ours)?;
    lab.listen(LASTS)?;
    app.signal(Signal::SIGKILL)
}

fn client_dies(lab: &mut Lab) -> Result<()> {
    let net = Net::new()?;
    let postgres = net.postgres(lab)?;
    let mut app = net.client()?;
    let opened = app.open(5, &database_host())?;
    app.run("query 5")?;
    // The request is taken, and its answer finds nobody.
    app.ports("sleep 2 3")?;
    net.is_acknowledged()?;
    net.rules(&["tcp dport 5432 drop", "tcp sport 5432 drop"])?;
    let at_database = |line: &serde_json::Value| is_about(line, PORT) && pids(line) != [app.pid()];
    let finding =
        lab.find_open("peer_unreachable", |line| at_database(line) && number(line, "connections") == Some(2))?;
    ensure!(number(&finding, "closed") == Some(0) && !pids(&finding).is_empty(), "{finding}");
    postgres.terminate(&opened[2..])?;
    lab.is_true("peer_unreachable");
    let finding = lab.find_open("peer_unreachable", |line| at_database(line) && number(line, "closed") == Some(3))?;
    let summary = finding["summary"].as_str().unwrap_or_default();
    ensure!(summary.contains("5 dead connections") && summary.contains("closed and never acknowledged"), "{finding}");
    ensure!(lab.known("peer_unreachable", |line| pids(line) == [app.pid()]).is_none(), "the client waits for nothing");
    lab.listen(LASTS)?;
    net.forget()
}

fn rejected(lab: &mut Lab) -> Result<()> {
    let net = Net::new()?;
    let _postgres = net.postgres(lab)?;
    let mut app = net.client()?;
    app.open(2, &database_host())?;
    net.rules(&["tcp dport 5432 reject with tcp reset"])?;
    // Open ones are reset when they are used: the app is told at once.
    app.ports("send 2")?;
    lab.is_true("connect_failures");
    let deadline = Instant::now() + patience();
    while Instant::now() < deadline {
        ensure!(app.open(1, &database_host()).is_err(), "somebody got through");
        lab.listen(1)?;
        if lab.known("connect_failures", |line| is_about(line, PORT)).is_some() {
            return Ok(());
        }
    }
    lab.expect_open("connect_failures", |line| is_about(line, PORT)).map(drop)
}
