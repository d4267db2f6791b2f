//! What `socklife verify` and `socklife reap` do with what was found.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::ROW;
use super::net::{Net, database_host};
use crate::scenarios::Scenario;
use crate::scenarios::lab::{Lab, number};

/// Every scenario of this kind.
pub const ALL: &[Scenario] = &[Scenario {
    name: "verified-and-reaped",
    story: "the same pool of 10: verify finds the idle ones dead, too, and reap closes them all",
    expected: &["peer_unreachable"],
    // Where the database is, nobody hears of the resets.
    also: &["half_open_at_database"],
    play: verified_and_reaped,
    ..ROW
}];

fn verified_and_reaped(lab: &mut Lab) -> Result<()> {
    let net = Net::new()?;
    let _postgres = net.postgres(lab)?;
    let mut app = net.client()?;
    let mut other = net.client()?;
    app.open(10, &database_host())?;
    app.run("query 10")?;
    other.open(2, &database_host())?;
    let dropped: Vec<String> = app.ports("ports")?.iter().map(u16::to_string).collect();
    let dropped = dropped.join(", ");
    net.rules(&[&format!("tcp dport {{ {dropped} }} drop"), &format!("tcp sport {{ {dropped} }} drop")])?;
    app.ports("send 7")?;
    lab.is_true("peer_unreachable");
    let finding = lab.find_open("peer_unreachable", |line| number(line, "connections") == Some(7))?;
    ensure!(number(&finding, "unknown") == Some(3), "{finding}");
    let id = finding["id"].as_str().context("a finding without an id")?;

    let verified = lines(lab, &["verify", "--json", "--probes", "3", "--finding", id])?;
    ensure!(verified.len() == 10 && verified.iter().all(|line| line["verdict"] == "dead"), "{verified:#?}");
    let closed = lines(lab, &["reap", "--yes", "--json", "--probes", "3", "--finding", id])?;
    let is_closed = |line: &Value| line["action"] == "closed" && line["application_sees"] == "ECONNABORTED";
    ensure!(closed.len() == 10 && closed.iter().all(is_closed), "{closed:#?}");
    lab.expect_resolved("peer_unreachable")?;
    // Nobody else's.
    other.run("query 2").map(drop)
}

/// What a command that ends well prints, a JSON value a line.
fn lines(lab: &Lab, args: &[&str]) -> Result<Vec<Value>> {
    let said = lab.ask(args)?;
    ensure!(said.code == Some(0), "{args:?}: {said:?}");
    said.stdout.lines().map(|line| serde_json::from_str(line).with_context(|| format!("not JSON: {line:?}"))).collect()
}
