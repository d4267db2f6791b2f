//! The incidents, each with what socklife has to say.

use anyhow::Result;

use super::lab::{Lab, number, pids};
use super::{Scenario, Stretched, servers};

/// A client is one of a request's as long as that takes seconds, and requests come several a second.
const PER_REQUEST: Stretched = Stretched {
    times: 10,
    why: "a request of 20 ms would take 7 s, and one would come in many seconds: no client per request any more",
    ..Stretched::PLAIN
};

/// The same where nothing is closed.
const PER_REQUEST_PILED: Stretched =
    Stretched { made: &[("unused_connection", "clients were left for minutes")], ..PER_REQUEST };

/// In the order of the incidents.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "client-per-request",
        story: "I1: a service makes a MongoClient for each request and never closes it",
        expected: &["client_per_request"],
        also: &["connection_leak"],
        stretched: PER_REQUEST_PILED,
        play: client_per_request,
        ..Scenario::PLAIN
    },
    Scenario {
        name: "churn",
        story: "I1: a worker connects, asks once and closes, for each request",
        expected: &["client_per_request"],
        stretched: PER_REQUEST,
        play: churn,
        ..Scenario::PLAIN
    },
    Scenario {
        name: "node-client-per-request",
        story: "I1: a Node service makes a MongoClient for each request and never closes it",
        expected: &["client_per_request"],
        also: &["connection_leak"],
        stretched: PER_REQUEST_PILED,
        play: node_client_per_request,
        ..Scenario::PLAIN
    },
    Scenario {
        name: "php",
        story: "PHP's workers connect, ask once and are done, for each request",
        expected: &["client_per_request"],
        stretched: PER_REQUEST,
        play: php,
        ..Scenario::PLAIN
    },
    Scenario {
        name: "replicas",
        story: "one launcher in each of four containers: worth knowing, and no more",
        expected: &["duplicate_launchers"],
        play: replicas,
        ..Scenario::PLAIN
    },
    Scenario {
        name: "three-pools",
        story: "I2: a Node service with pools of 20, 20 and 25, Redis, and 30 websockets",
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
        stretched: Stretched {
            hidden: &[("connect_failures", "attempts that come five a second come one in 72 s")],
            ..Stretched::PLAIN
        },
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
        stretched: Stretched {
            times: 300,
            why: "modules that load for forty minutes, one pool after the other, look like a leak until they are done",
            ..Stretched::PLAIN
        },
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

fn node_client_per_request(lab: &mut Lab) -> Result<()> {
    servers::mongo_responder(lab)?;
    lab.is_true("client_per_request");
    let pid = lab.node("mongo_service.js", &["27017", "per-request", "25", "400"])?;
    lab.expect_open("client_per_request", |finding| pids(finding) == [pid])
}

fn php(lab: &mut Lab) -> Result<()> {
    lab.postgres(50)?;
    lab.is_true("client_per_request");
    servers::php(lab, false, 80)?;
    // Four workers, and their master, which serves as they do.
    lab.expect_open("client_per_request", |finding| {
        let summary = finding["summary"].as_str().unwrap_or_default();
        pids(finding).len() == 5 && summary.contains("request.php")
    })
}

fn replicas(lab: &mut Lab) -> Result<()> {
    lab.postgres(100)?;
    let mut copies = Vec::new();
    for number in 0..4 {
        if number == 2 {
            lab.is_true("duplicate_launchers");
        }
        copies.push(lab.python_in_container(number, "route_builder.py", &["5432"])?);
    }
    copies.sort_unstable();
    lab.expect_open("duplicate_launchers", |finding| {
        let summary = finding["summary"].as_str().unwrap_or_default();
        pids(finding) == copies && finding["severity"] == "info" && summary.contains("4 replicas")
    })
}

fn churn(lab: &mut Lab) -> Result<()> {
    lab.postgres(50)?;
    lab.is_true("client_per_request");
    let pid = lab.python("churn.py", &["5432", "60"])?;
    lab.expect_open("client_per_request", |finding| pids(finding) == [pid])
}

fn three_pools(lab: &mut Lab) -> Result<()> {
    lab.postgres(120)?;
    servers::redis(lab)?;
    let pid = lab.node("service.js", &["5432", "6379", "8080", "20", "20", "25"])?;
    lab.is_true("pool_sprawl");
    lab.node("websockets.js", &["8080", "30"])?;
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
