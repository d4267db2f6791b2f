//! A post-mortem of a day that was recorded.

use std::collections::BTreeSet;

use serde_json::Value;
use tempfile::TempDir;

use super::recorded::{self, HOSTILE, LAUNCHERS, POOL};
use super::{socklife, text, told};

struct Kept {
    dir: TempDir,
}

impl Kept {
    fn whole_day() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let recording = dir.path().join("day.rec");
        recorded::write(&recording);
        let (code, stdout, stderr) = socklife(&["replay", text(&recording), "--into", text(&dir.path().join("state"))]);
        assert_eq!((code, stdout.as_str()), (Some(0), ""), "{stderr}");
        assert!(stderr.contains("up to 2026-11-22T00:00:00.000Z"), "{stderr}");
        Self { dir }
    }

    fn state(&self) -> String {
        text(&self.dir.path().join("state")).to_owned()
    }

    fn at(&self, time: &str) -> Value {
        let at = format!("2026-11-21T{time}Z");
        serde_json::from_str(&told(&["snapshot", "--at", &at, "--state-dir", &self.state()])).unwrap()
    }

    fn history(&self, args: &[&str]) -> Vec<Value> {
        let state = self.state();
        let args = [&["history", "--json", "--state-dir", &state], args].concat();
        told(&args).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn kinds(snapshot: &Value) -> BTreeSet<String> {
    let findings = snapshot["findings"].as_array().unwrap();
    findings.iter().map(|finding| finding["kind"].as_str().unwrap().to_owned()).collect()
}

fn pids(list: &Value) -> BTreeSet<u64> {
    list.as_array().unwrap().iter().map(|pid| pid.as_u64().unwrap()).collect()
}

/// What a snapshot says of the database: open, connections listed, and which groups hold how many.
fn counts(snapshot: &Value) -> (u64, usize, Vec<(String, u64, u64)>) {
    let endpoint = &snapshot["endpoints"][0];
    assert_eq!((&endpoint["id"], &endpoint["name"]), (&"10.0.0.5:5432".into(), &"orders-db".into()));
    assert_eq!((&endpoint["limit"]["value"], &endpoint["limit"]["source"]), (&100.into(), &"config".into()));
    let groups = snapshot["launcher_groups"].as_array().unwrap().iter().map(|group| {
        let number = |key: &str| group[key].as_u64().unwrap();
        (group["label"].as_str().unwrap().to_owned(), number("instances"), number("open"))
    });
    (endpoint["open"].as_u64().unwrap(), snapshot["connections"].as_array().unwrap().len(), groups.collect())
}

#[test]
fn a_day_that_was_recorded_can_be_asked_about() {
    let kept = Kept::whole_day();
    the_incidents_hour_tells_its_story_and_no_other_hour_does(&kept);
    the_report_of_that_hour_has_the_story(&kept);
    what_happened_is_told_in_order(&kept);
    the_queries_of_the_documentation_work(&kept);
}

fn the_incidents_hour_tells_its_story_and_no_other_hour_does(kept: &Kept) {
    let pool = || (HOSTILE.to_owned(), 1, 5);
    for quiet in ["03:17:08", "13:59:58", "15:01:05", "23:30:07"] {
        let snapshot = kept.at(quiet);
        assert_eq!(counts(&snapshot), (5, 5, vec![pool()]), "{quiet}");
        assert!(!kinds(&snapshot).contains("limit_pressure"), "{quiet}: {:?}", kinds(&snapshot));
        assert!(!kinds(&snapshot).contains("duplicate_launchers"), "{quiet}: {:?}", kinds(&snapshot));
    }
    let worst = kept.at("14:56:47");
    let launchers = ("route_builder_launcher.py".to_owned(), LAUNCHERS, 4 * LAUNCHERS);
    assert_eq!(counts(&worst), (101, 101, vec![pool(), launchers]));
    assert!(kinds(&worst).is_superset(&["limit_pressure".to_owned(), "duplicate_launchers".to_owned()].into()));
    let of_kind = |kind: &str| {
        let findings = worst["findings"].as_array().unwrap();
        findings.iter().find(|finding| finding["kind"] == kind).unwrap().clone()
    };
    let copies = of_kind("duplicate_launchers");
    assert_eq!(pids(&copies["subject"]["pids"]), (900..900 + LAUNCHERS).collect(), "{copies}");
    assert_eq!(of_kind("limit_pressure")["severity"], "critical");
    let opened = worst["connections"].as_array().unwrap().iter().filter(|open| open["opener"]["pid"] == 905);
    assert_eq!(opened.count(), 4);
    // The course of the hours before.
    let series = worst["endpoints"][0]["series"].as_array().unwrap();
    let steps: Vec<u64> = series.iter().map(|series| series["step_s"].as_u64().unwrap()).collect();
    assert_eq!(steps, [10, 60, 600]);
    for series in series {
        let open: Vec<u64> = series["open"].as_array().unwrap().iter().map(|open| open.as_u64().unwrap()).collect();
        assert_eq!(open.last(), Some(&101));
        assert!(series["step_s"] == 10 || open[0] <= 6, "{series}");
        assert!(open.is_sorted_by(|a, b| a <= &(b + 1)), "a staircase: {open:?}");
    }
    let minutes = &series[1]["opened"].as_array().unwrap();
    assert_eq!((minutes.len(), minutes[0].as_u64()), (360, Some(6)), "a short connection every ten seconds");
    let rebuilt = &worst["rebuilt"];
    assert_eq!((&rebuilt["watched"], &rebuilt["gaps"]), (&true.into(), &0.into()));
    assert!(rebuilt["age_s"].as_i64().unwrap() < 10, "{rebuilt}");
    assert_eq!(worst["capture"]["completeness"], "exact", "{rebuilt}");
}

fn the_report_of_that_hour_has_the_story(kept: &Kept) {
    let (worst, quiet) = (kept.at("14:56:47"), kept.at("13:59:58"));
    let page = |name: &str, snapshot: &Value| {
        let (json, html) = (kept.dir.path().join(format!("{name}.json")), kept.dir.path().join(format!("{name}.html")));
        std::fs::write(&json, snapshot.to_string()).unwrap();
        told(&["report", text(&json), "-o", text(&html)]);
        std::fs::read_to_string(html).unwrap()
    };
    let of_worst = page("worst", &worst);
    for finding in worst["findings"].as_array().unwrap() {
        // As far as nothing in it is escaped.
        let is_plain = |c: char| c.is_ascii_alphanumeric() || " .,:;()_-/%".contains(c);
        let summary = finding["summary"].as_str().unwrap().split(|c| !is_plain(c)).next().unwrap();
        assert!(of_worst.contains(summary), "{summary}");
    }
    assert!(of_worst.contains("route_builder_launcher.py") && of_worst.contains("14:56:47"));
    assert!(!page("quiet", &quiet).contains("duplicate_launchers"));
}

#[test]
fn a_moment_that_is_not_known_is_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let recording = dir.path().join("short.rec");
    let mut day = recorded::Day::begin(&recording);
    for _ in 0..3 {
        day.open(POOL, 2);
    }
    day.end(100);
    let state = dir.path().join("state");
    told(&["replay", text(&recording), "--into", text(&state)]);
    let at = |time: &str| socklife(&["snapshot", "--state-dir", text(&state), "--at", time]);
    let (code, stdout, stderr) = at("2026-11-20T23:00:00Z");
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    let wanted = "socklife: 2026-11-20T23:00:00.000Z is not in the history: it begins at 2026-11-21T00:00:01.000Z\n";
    assert_eq!(stderr, wanted);
    // After its end: the last that is known, and how old that is.
    let (code, stdout, _) = at("2026-11-21T01:00:00Z");
    let late: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &late["captured_at"]), (Some(0), &"2026-11-21T00:01:40.000Z".into()));
    assert_eq!((&late["rebuilt"]["watched"], &late["capture"]["completeness"]), (&false.into(), &"lower_bound".into()));
    assert!((3_500..3_520).contains(&late["rebuilt"]["age_s"].as_i64().unwrap()), "{}", late["rebuilt"]);
    assert_eq!(late["endpoints"][0]["open"], 3);
    let none = dir.path().join("none");
    let (code, stdout, stderr) = socklife(&["history", "--state-dir", text(&none)]);
    assert_eq!((code, stdout.as_str()), (Some(3), ""));
    assert_eq!(
        stderr,
        format!(
            "socklife: there is no history in {}: give the --state-dir of a daemon that keeps one\n",
            none.display()
        )
    );
    let (code, _, stderr) = socklife(&["history", "--since", "tomorrow", "--state-dir", text(&state)]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("write a time such as"), "{stderr}");
    let (code, _, stderr) = socklife(&["snapshot", "--at", "2h", "--socket", "/nonexistent/s.sock"]);
    assert_eq!(code, Some(3));
    assert!(stderr.contains("no daemon answers"), "{stderr}");
}

fn what_happened_is_told_in_order(kept: &Kept) {
    let hour = ["--since", "2026-11-21T13:50:00Z", "--until", "2026-11-21T15:10:00Z"];
    let lines = kept.history(&hour);
    let what = |name: &str| lines.iter().filter(|line| line["what"] == name).cloned().collect::<Vec<Value>>();
    assert!(lines.iter().all(|line| line["schema"] == "socklife.history/v1"));
    let changes: Vec<(String, String, String)> = what("finding")
        .iter()
        .map(|line| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            (text(&line["finding"]["kind"]), text(&line["change"]), text(&line["at"])[11..13].to_owned())
        })
        .collect();
    for kind in ["limit_pressure", "duplicate_launchers"] {
        let ours: Vec<_> = changes.iter().filter(|told| told.0 == kind).map(|told| (&*told.1, &*told.2)).collect();
        assert_eq!(ours, [("opened", "14"), ("resolved", "15")], "{kind}");
    }
    let growth = what("growth");
    let without_end = kept.history(&["--since", "2026-11-21T23:00:00Z"]);
    assert_eq!(without_end.last().unwrap()["at"], "2026-11-22T00:00:00.000Z");
    let launchers = growth.iter().find(|line| line["who"] == "route_builder_launcher.py").unwrap();
    let number = |key: &str| launchers[key].as_i64().unwrap();
    let counted = ["open_first", "open_last", "open_peak", "opened", "closed"].map(number);
    assert_eq!(counted, [0, 0, 96, 96, 96]);
    let closed = what("closed");
    let launchers = closed.iter().find(|line| line["who"] == "route_builder_launcher.py").unwrap();
    assert_eq!((&launchers["connections"], &launchers["bytes_sent"]), (&96.into(), &96_000.into()));
    let of_pool = kept.history(&[&hour[..], &["--pid", &POOL.to_string()]].concat());
    let pool = of_pool.iter().find(|line| line["what"] == "closed").unwrap();
    assert_eq!((&pool["pid"], &pool["connections"]), (&POOL.into(), &480.into()));
    let pressure = kept.history(&[&hour[..], &["--kind", "limit_pressure"]].concat());
    assert!(pressure.iter().all(|line| line["finding"]["kind"] == "limit_pressure") && pressure.len() == 2);
    assert_eq!(kept.history(&[&hour[..], &["--endpoint", "10.0.0.6:5432"]].concat()), Vec::<Value>::new());
    let state = kept.state();
    let shown = told(&[&["history", "--state-dir", &state], &hour[..]].concat());
    assert!(shown.contains("CRITICAL  limit_pressure") || shown.contains("WARNING   limit_pressure"), "{shown}");
    assert!(shown.contains("resolved  limit_pressure"), "{shown}");
    assert!(!shown.contains('\u{1b}') && !shown.contains('\u{202e}'), "{shown}");
    assert!(
        shown.contains("route_builder_launcher.py at orders-db: 0 to 0 open, 96 at most, 96 opened, 96 closed"),
        "{shown}"
    );
}

/// Every query of docs/history.md works, and finds something in a store that has something of everything it asks for.
fn the_queries_of_the_documentation_work(kept: &Kept) {
    let page = include_str!("../../../docs/history.md");
    let queries: Vec<&str> = page.split("```sql\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(queries.len() >= 5, "{}", queries.len());
    let db = rusqlite::Connection::open(kept.dir.path().join("state/history.db")).unwrap();
    for query in queries {
        let mut statement = db.prepare(query).unwrap_or_else(|error| panic!("{query}: {error}"));
        let mut rows = statement.query([]).unwrap();
        let mut count = 0;
        while rows.next().unwrap_or_else(|error| panic!("{query}: {error}")).is_some() {
            count += 1;
        }
        assert!(count > 0 || query.contains("-- may be empty"), "{query} finds nothing");
    }
}
