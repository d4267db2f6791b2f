//! The incidents, each with what socklife has to say.

use anyhow::{Result, ensure};

use super::lab::{Lab, number, pids};
use super::{Scenario, servers};
use crate::postgres::Postgres;

/// In the order of the incidents.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "client-per-request",
        story: "I1: a service makes a MongoClient for each request and never closes it",
        expected: &["client_per_request"],
        also: &["connection_leak"],
        settings: &[],
        play: client_per_request,
    },
    Scenario {
        name: "churn",
        story: "I1: a worker connects, asks once and closes, for each request",
        expected: &["client_per_request"],
        also: &[],
        settings: &[],
        play: churn,
    },
    Scenario {
        name: "three-pools",
        story: "I2: a Node service with pools of 20, 20 and 25, and Redis",
        expected: &["pool_sprawl"],
        also: &["oversized_pool", "unused_connection", "idle_hold"],
        settings: &[],
        play: three_pools,
    },
    Scenario {
        name: "launchers",
        story: "I3: 25 copies of a launcher hold 96 of 100 connections",
        expected: &["duplicate_launchers", "limit_pressure"],
        also: &["headroom_forecast", "idle_hold", "unused_connection", "oversized_pool", "restart_drop"],
        settings: &["endpoint=[{match='127.0.0.1:5432', name='orders-db', limit=100}]"],
        play: launchers,
    },
    Scenario {
        name: "session-per-loop",
        story: "I3: a script opens a session in each turn of its loop and never closes it",
        expected: &["connection_leak"],
        also: &["idle_hold", "headroom_forecast", "unused_connection", "oversized_pool"],
        settings: &[],
        play: session_per_loop,
    },
    Scenario {
        name: "staircase-and-ceiling",
        story: "I4: the staircase reaches the limit, connects fail, a restart frees them all",
        expected: &["connection_leak", "limit_pressure", "connect_failures", "restart_drop"],
        also: &["headroom_forecast", "idle_hold", "unused_connection", "oversized_pool", "client_per_request"],
        settings: &[
            "endpoint=[{match='127.0.0.1:5432', name='orders-db', limit=60}]",
            "detect.connect_failures.failures=2",
        ],
        play: staircase,
    },
    Scenario {
        name: "twelve-pools",
        story: "I5: twelve modules of one Node process make a pool each",
        expected: &["pool_sprawl"],
        also: &["oversized_pool", "unused_connection", "idle_hold"],
        // What tells one pool's filling from the next's is not compressed: the modules load in three windows.
        settings: &["detect.window_s=2"],
        play: twelve_pools,
    },
];

fn client_per_request(lab: &mut Lab) -> Result<()> {
    servers::mongo_responder(lab)?;
    lab.is_true("client_per_request");
    let pid = lab.python("mongo_service.py", &["27017", "per-request", "15", "400"])?;
    let found = lab.expect_open("client_per_request", 60, |_| true)?;
    ensure!(pids(&found) == [pid], "{found}");
    Ok(())
}

fn churn(lab: &mut Lab) -> Result<()> {
    let _postgres = Postgres::start(&lab.sandbox, 50)?;
    lab.is_true("client_per_request");
    let pid = lab.python("churn.py", &["5432", "25"])?;
    let found = lab.expect_open("client_per_request", 60, |_| true)?;
    ensure!(pids(&found) == [pid], "{found}");
    Ok(())
}

fn three_pools(lab: &mut Lab) -> Result<()> {
    let _postgres = Postgres::start(&lab.sandbox, 120)?;
    servers::redis(lab)?;
    let pid = lab.node("service.js", &["5432", "6379", "20", "20", "25"])?;
    lab.is_true("pool_sprawl");
    let found = lab.expect_open("pool_sprawl", 60, |_| true)?;
    ensure!(pids(&found) == [pid], "{found}");
    ensure!(number(&found, "open") == Some(65), "{found}");
    Ok(())
}

fn launchers(lab: &mut Lab) -> Result<()> {
    let _postgres = Postgres::start(&lab.sandbox, 100)?;
    let mut copies = Vec::new();
    // 21 copies with four sessions and 4 with three.
    for copy in 0..25 {
        if copy == 24 {
            lab.is_true("limit_pressure");
        }
        copies.push(lab.python("route_builder_launcher.py", &["5432", if copy < 21 { "4" } else { "3" }])?);
    }
    copies.sort_unstable();
    lab.is_true("duplicate_launchers");
    let whole = |finding: &serde_json::Value| {
        let summary = finding["summary"].as_str().unwrap_or_default();
        pids(finding) == copies && summary.contains("25") && summary.contains("96")
    };
    lab.expect_open("duplicate_launchers", 30, whole)?;
    lab.expect_open("limit_pressure", 30, |finding| {
        let summary = finding["summary"].as_str().unwrap_or_default();
        finding["severity"] == "critical" && summary.contains("96 of 100")
    })?;
    for pid in copies.iter().skip(1) {
        lab.kill(*pid)?;
    }
    lab.expect_resolved("duplicate_launchers", 30)?;
    Ok(())
}

fn session_per_loop(lab: &mut Lab) -> Result<()> {
    let _postgres = Postgres::start(&lab.sandbox, 100)?;
    let healthy = lab.python("pooled.py", &["5432", "4", "4", "4", "0.02", "0.02"])?;
    lab.is_true("connection_leak");
    let pid = lab.python("session_per_loop.py", &["5432", "1", "60"])?;
    let found = lab.expect_open("connection_leak", 60, |_| true)?;
    ensure!(pids(&found) == [pid] && pid != healthy, "{found}");
    Ok(())
}

fn staircase(lab: &mut Lab) -> Result<()> {
    let _postgres = Postgres::start(&lab.sandbox, 60)?;
    lab.is_true("connection_leak");
    let pid = lab.python("session_per_loop.py", &["5432", "0.2", "1000"])?;
    let leak = lab.expect_open("connection_leak", 60, |_| true)?;
    ensure!(pids(&leak) == [pid], "{leak}");
    lab.expect_open("limit_pressure", 60, |finding| finding["severity"] == "critical")?;
    lab.is_true("connect_failures");
    lab.expect_open("connect_failures", 60, |_| true)?;
    lab.is_true("restart_drop");
    lab.kill(pid)?;
    let _again = lab.python("session_per_loop.py", &["5432", "0.2", "2"])?;
    let drop = lab.expect_open("restart_drop", 60, |_| true)?;
    ensure!(pids(&drop).contains(&pid), "{drop}");
    Ok(())
}

fn twelve_pools(lab: &mut Lab) -> Result<()> {
    let _postgres = Postgres::start(&lab.sandbox, 100)?;
    let pid = lab.node("sprawl.js", &["5432", "12", "5", "450", "1"])?;
    lab.is_true("pool_sprawl");
    let found = lab.expect_open("pool_sprawl", 60, |_| true)?;
    ensure!(pids(&found) == [pid], "{found}");
    ensure!(number(&found, "open") == Some(60) && number(&found, "bursts") == Some(12), "{found}");
    Ok(())
}
