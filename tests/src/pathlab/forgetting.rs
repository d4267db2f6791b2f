//! Networks that forget idle connections: first the risk, then what comes of it.

use anyhow::{Result, ensure};

use super::FORGETFUL;
use super::net::{Net, database_host, is_about};
use crate::postgres::PORT;
use crate::scenarios::lab::{number, pids};
use crate::scenarios::{Lab, Scenario};

/// Every scenario of this kind.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "drop-after-idle",
        story: "a firewall drops what comes after 20 s of silence",
        expected: &["silent_drop_risk", "peer_unreachable"],
        play: drop_after_idle,
        ..FORGETFUL
    },
    Scenario {
        name: "nat-forgets",
        story: "the router translates addresses, and forgets a connection after 30 s",
        expected: &["silent_drop_risk", "peer_unreachable"],
        play: nat_forgets,
        ..FORGETFUL
    },
];

fn drop_after_idle(lab: &mut Lab) -> Result<()> {
    let net = Net::new()?;
    let _postgres = net.postgres(lab)?;
    let mut app = net.client()?;
    app.open(3, &database_host())?;
    warned_then_dead(lab, &mut app, 3, |_| net.rules(&["tcp dport 5432 drop", "tcp sport 5432 drop"]))
}

fn nat_forgets(lab: &mut Lab) -> Result<()> {
    let net = Net::new()?;
    net.nft(
        "table ip nat {\nchain out {\ntype nat hook postrouting priority 100;\noifname \"db-out\" masquerade\n}\n}\n\
         table ip lab {\nchain forward {\ntype filter hook forward priority 0; policy accept;\nct state invalid drop\n}\n}\n",
    )?;
    net.router(&["sysctl", "-qw", "net.netfilter.nf_conntrack_tcp_loose=0"])?;
    net.router(&["sysctl", "-qw", "net.netfilter.nf_conntrack_tcp_timeout_established=30"])?;
    let _postgres = net.postgres(lab)?;
    let mut app = net.client()?;
    app.open(3, &database_host())?;
    // Entries that have run out are not collected at once, and match nothing any more.
    warned_then_dead(lab, &mut app, 3, |lab| lab.listen(15))
}

/// Seconds for which a fault lasts that ends with the play: a replay judges once a second, and not in the same moments.
pub const LASTS: u64 = 2;

/// The risk is told while nothing is wrong yet; the next request is never answered.
fn warned_then_dead(
    lab: &mut Lab,
    app: &mut crate::client::Client,
    count: i64,
    forget: impl FnOnce(&mut Lab) -> Result<()>,
) -> Result<()> {
    lab.is_true("silent_drop_risk");
    let ours = |line: &serde_json::Value| is_about(line, PORT) && number(line, "connections") == Some(count);
    let risk = lab.find_open("silent_drop_risk", ours)?;
    ensure!(pids(&risk) == [app.pid()] && risk["severity"] == "warning", "{}: {risk}", app.pid());
    forget(lab)?;
    app.ports(&format!("send {count}"))?;
    lab.is_true("peer_unreachable");
    let dead = lab.find_open("peer_unreachable", ours)?;
    ensure!(pids(&dead) == [app.pid()], "{}: {dead}", app.pid());
    lab.listen(LASTS)
}
