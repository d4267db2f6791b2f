//! What plays with the default settings: how long a user waits for a verdict, and a service that nothing is said of.

use anyhow::Result;

use super::lab::{Lab, pids};
use super::{Pace, Scenario};

/// Connections of each copy, 96 in all: 21 copies keep four sessions and 4 keep three.
const SESSIONS: [(u32, &str); 2] = [(21, "4"), (4, "3")];

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "by-default",
        story: "a repaired service, a pool beside it and a script that closes, for more than a minute",
        pace: Pace::Default,
        play: by_default,
        ..Scenario::PLAIN
    },
    Scenario {
        name: "staircase-by-default",
        story: "I4: a script leaks a connection every two seconds",
        expected: &["connection_leak"],
        also: &["idle_hold", "headroom_forecast", "unused_connection", "oversized_pool"],
        pace: Pace::Default,
        within: &[("connection_leak", 60)],
        play: staircase,
        ..Scenario::PLAIN
    },
    Scenario {
        name: "launchers",
        story: "I3: 25 copies of a launcher hold 96 of 100 connections",
        expected: &["duplicate_launchers", "limit_pressure"],
        also: &["headroom_forecast", "idle_hold", "unused_connection", "oversized_pool", "restart_drop"],
        pace: Pace::Default,
        settings: &["endpoint=[{match='127.0.0.1:5432', name='orders-db', limit=100}]"],
        within: &[("duplicate_launchers", 5), ("limit_pressure", 5)],
        play: launchers,
        ..Scenario::PLAIN
    },
];

/// For how long nothing may be found, in seconds.
const LISTEN: u64 = 75;

fn by_default(lab: &mut Lab) -> Result<()> {
    lab.postgres(100)?;
    lab.python("route_builder.py", &["5432"])?;
    lab.python("pooled.py", &["5432", "4", "8", "8", "0.02", "0.02", "3"])?;
    lab.python("session_per_loop.py", &["5432", "2", "100000", "close"])?;
    lab.listen_to(5432, 8, LISTEN)
}

fn staircase(lab: &mut Lab) -> Result<()> {
    lab.postgres(100)?;
    let healthy = lab.python("pooled.py", &["5432", "4", "4", "4", "0.02", "0.02"])?;
    lab.is_true("connection_leak");
    let pid = lab.python("session_per_loop.py", &["5432", "2", "60"])?;
    lab.expect_open("connection_leak", |finding| pids(finding) == [pid] && pid != healthy)
}

fn launchers(lab: &mut Lab) -> Result<()> {
    lab.postgres(100)?;
    let sessions = SESSIONS.iter().flat_map(|(copies, sessions)| std::iter::repeat_n(*sessions, *copies as usize));
    let mut copies = Vec::new();
    for (copy, sessions) in sessions.enumerate() {
        // The third copy makes them three, the 20th holds the 80th connection. What they take to start counts.
        match copy {
            2 => lab.is_true("duplicate_launchers"),
            19 => lab.is_true("limit_pressure"),
            _ => {}
        }
        copies.push(lab.python("route_builder_launcher.py", &["5432", sessions])?);
        // Copies of one moment are the work of one command: these come a second apart at first.
        lab.listen(if copy < 2 { 2 } else { 0 })?;
    }
    copies.sort_unstable();
    let says = |finding: &serde_json::Value, words: &[&str]| {
        let summary = finding["summary"].as_str().unwrap_or_default();
        words.iter().all(|word| summary.contains(word))
    };
    lab.expect_open("duplicate_launchers", |finding| {
        pids(finding) == copies && says(finding, &["25 copies", "96 connections"])
    })?;
    lab.expect_open("limit_pressure", |finding| {
        finding["severity"] == "critical" && says(finding, &["96 of 100", "25 copies"])
    })?;
    for pid in copies.iter().skip(1) {
        lab.kill(*pid)?;
    }
    lab.expect_resolved("duplicate_launchers")
}
