//! The incidents, each with what socklife has to say.

use anyhow::Result;

use super::lab::{Lab, number, pids};
use super::{Scenario, servers};

/// In the order of the incidents.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "client-per-request",
        story: "I1: a service makes a MongoClient for each request and never closes it",
        expected: &["client_per_request"],
        also: &["connection_leak"],
        play: client_per_request,
        ..Scenario::PLAIN
    },
    Scenario {
        name: "churn",
        story: "I1: a worker connects, asks once and closes, for each request",
        expected: &["client_per_request"],
        play: churn,
        ..Scenario::PLAIN
    },
    Scenario {
        name: "three-pools",
        story: "I2: a Node service with pools of 20, 20 and 25, and Redis",
        expected: &["pool_sprawl"],
        also: &["oversized_pool", "unused_connection", "idle_hold"],
        play: three_pools,
        ..Scenario::PLAIN
    },
    Scenario {
        name: "session-per-loop",
        story: "I3: a script opens a session in each turn of its loop and never closes it",
        expected: &["connection_leak"],
        also: &["idle_hold", "headroom_forecast", "unused_connection", "oversized_pool"],
        play: session_per_loop,
        ..Scenario::PLAIN
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
        ..Scenario::PLAIN
    },
    Scenario {
        name: "twelve-pools",
        story: "I5: twelve modules of one Node process make a pool each",
        expected: &["pool_sprawl"],
        also: &["oversized_pool", "unused_connection", "idle_hold"],
        // What tells one pool's filling from the next's is not compressed: the modules load in three windows.
        settings: &["detect.window_s=2"],
        play: twelve_pools,
        ..Scenario::PLAIN
    },
];

fn client_per_request(lab: &mut Lab) -> Result<()> {
    servers::mongo_responder(lab)?;
    lab.is_true("client_per_request");
    let pid = lab.python("mongo_service.py", &["27017", "per-request", "15", "400"])?;
    lab.expect_open("client_per_request", |finding| pids(finding) == [pid])
}

fn churn(lab: &mut Lab) -> Result<()> {
    lab.postgres(50)?;
    lab.is_true("client_per_request");
    let pid = lab.python("churn.py", &["5432", "25"])?;
    lab.expect_open("client_per_request", |finding| pids(finding) == [pid])
}

fn three_pools(lab: &mut Lab) -> Result<()> {
    lab.postgres(120)?;
    servers::redis(lab)?;
    let pid = lab.node("service.js", &["5432", "6379", "20", "20", "25"])?;
    lab.is_true("pool_sprawl");
    lab.expect_open("pool_sprawl", |finding| pids(finding) == [pid] && number(finding, "open") == Some(65))
}

fn session_per_loop(lab: &mut Lab) -> Result<()> {
    lab.postgres(100)?;
    let healthy = lab.python("pooled.py", &["5432", "4", "4", "4", "0.02", "0.02"])?;
    lab.is_true("connection_leak");
    let pid = lab.python("session_per_loop.py", &["5432", "1", "60"])?;
    lab.expect_open("connection_leak", |finding| pids(finding) == [pid] && pid != healthy)
}

fn staircase(lab: &mut Lab) -> Result<()> {
    lab.postgres(60)?;
    lab.is_true("connection_leak");
    let pid = lab.python("session_per_loop.py", &["5432", "0.2", "1000"])?;
    lab.expect_open("connection_leak", |finding| pids(finding) == [pid])?;
    lab.expect_open("limit_pressure", |finding| finding["severity"] == "critical")?;
    lab.is_true("connect_failures");
    lab.expect_open("connect_failures", |_| true)?;
    lab.is_true("restart_drop");
    lab.kill(pid)?;
    let _again = lab.python("session_per_loop.py", &["5432", "0.2", "2"])?;
    lab.expect_open("restart_drop", |finding| pids(finding).contains(&pid))
}

fn twelve_pools(lab: &mut Lab) -> Result<()> {
    lab.postgres(100)?;
    let pid = lab.node("sprawl.js", &["5432", "12", "5", "450", "1"])?;
    lab.is_true("pool_sprawl");
    lab.expect_open("pool_sprawl", |finding| {
        pids(finding) == [pid] && number(finding, "open") == Some(60) && number(finding, "bursts") == Some(12)
    })
}
