//! What a guest's lines mean, and the one line of JSON that each pass of the suite ends in.

use std::time::Duration;

use serde_json::{Value, json};

use super::guest::End;
use crate::test::counts::Counts;

/// The guest's own lines; all others are the suite's.
const MARK: &str = "@vm ";

/// One pass of the suite in one guest.
#[derive(Debug, Default)]
pub struct Pass {
    name: String,
    began: Duration,
    took: Option<Duration>,
    accept_via: Option<String>,
    counts: Counts,
    code: Option<i32>,
}

/// What a guest has said so far.
#[derive(Debug, Default)]
pub struct Report {
    release: Option<String>,
    doctor_works: Option<bool>,
    passes: Vec<Pass>,
    ended: bool,
}

impl Report {
    /// Takes one line in; whether a person wants to see it.
    pub fn take(&mut self, line: &str, at: Duration) -> bool {
        let Some((what, rest)) = line.strip_prefix(MARK).map(|marked| marked.split_once(' ').unwrap_or((marked, "")))
        else {
            if let Some(pass) = self.passes.last_mut() {
                pass.counts.add_line(line);
            }
            return true;
        };
        match (what, self.passes.last_mut()) {
            ("release", _) => self.release = Some(rest.to_owned()),
            ("doctor", _) => self.doctor_works = json_of(rest).and_then(|doctor| doctor["works"].as_bool()),
            ("pass", _) => self.passes.push(Pass { name: rest.to_owned(), began: at, ..Pass::default() }),
            ("snapshot", Some(pass)) => pass.accept_via = json_of(rest).and_then(|snapshot| accept_via(&snapshot)),
            ("exit", Some(pass)) => {
                pass.code = rest.parse().ok();
                pass.took = Some(at.saturating_sub(pass.began));
            }
            ("end", _) => self.ended = true,
            _ => {}
        }
        false
    }

    /// One line of JSON for each pass of `expected`, and whether all went well. A pass that was never reached has a
    /// line, too.
    pub fn lines(&self, kernel: &str, expected: &[&str], end: Result<End, String>) -> (Vec<Value>, Counts) {
        let mut all = Counts::default();
        let lines = expected.iter().map(|name| {
            let pass = self.passes.iter().find(|pass| pass.name == *name);
            let (outcome, counts) = self.judge(pass, &end);
            all.add(&counts);
            json!({
                "kernel": kernel,
                "release": self.release,
                "pass": name,
                "outcome": outcome,
                "passed": counts.passed,
                "failed": counts.failed,
                "seconds": pass.and_then(|pass| pass.took).map(|took| took.as_secs()),
                "accept_via": pass.and_then(|pass| pass.accept_via.as_deref()),
                "detail": end.as_ref().err(),
            })
        });
        (lines.collect(), all)
    }

    /// A pass is good if its tests ran, none failed, the runner said so by its exit code, and the guest went on to its
    /// end. All else counts as one failure at least.
    fn judge(&self, pass: Option<&Pass>, end: &Result<End, String>) -> (&'static str, Counts) {
        let mut counts = pass.map_or_else(Counts::default, |pass| pass.counts);
        let outcome = match (pass.and_then(|pass| pass.code), end) {
            (Some(0), Ok(End::PoweredOff))
                if self.ended && self.doctor_works == Some(true) && counts.failed == 0 && counts.passed > 0 =>
            {
                return ("passed", counts);
            }
            (Some(_), _) => "failed",
            (None, Ok(End::TimedOut)) => "timed out",
            (None, _) => "no result",
        };
        counts.agree_with(false);
        (outcome, counts)
    }
}

fn json_of(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok()
}

/// How a daemon learns who accepted a connection, from its snapshot.
fn accept_via(snapshot: &Value) -> Option<String> {
    let probes = snapshot["capture"]["probes"].as_array()?;
    let accept = probes.iter().find(|probe| probe["fact"] == "accept")?;
    accept["via"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESULT: &str =
        "test result: ok. 25 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s";
    const SNAPSHOT: &str = r#"@vm snapshot {"capture": {"probes": [{"fact": "close"}, {"fact": "accept", "via": "fexit:inet_csk_accept"}]}}"#;
    const GOOD: [&str; 7] = [
        "@vm release 6.1.0-56-cloud-amd64",
        r#"@vm doctor {"works": true}"#,
        "@vm pass full",
        SNAPSHOT,
        RESULT,
        "@vm exit 0",
        "@vm end",
    ];

    fn check(lines: &[&str], end: Result<End, String>, outcome: &str, passed: u32, failed: u32) -> Value {
        let mut report = Report::default();
        for (at, line) in lines.iter().enumerate() {
            report.take(line, Duration::from_secs(at as u64));
        }
        let (lines, counts) = report.lines("6.1", &["full"], end);
        let [line] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!(line["outcome"], outcome, "{line}");
        assert_eq!((line["passed"].as_u64(), line["failed"].as_u64()), (Some(passed.into()), Some(failed.into())));
        assert_eq!((counts.passed, counts.failed), (passed, failed));
        line.clone()
    }

    #[test]
    fn a_good_guest_has_a_line_with_all_of_it() {
        let line = check(&GOOD, Ok(End::PoweredOff), "passed", 25, 0);
        let expected = json!({
            "kernel": "6.1", "release": "6.1.0-56-cloud-amd64", "pass": "full", "outcome": "passed", "passed": 25,
            "failed": 0, "seconds": 3, "accept_via": "fexit:inet_csk_accept", "detail": null,
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn whatever_is_missing_fails() {
        for missing in [1, 4, 5, 6] {
            let mut lines = GOOD.to_vec();
            lines.remove(missing);
            let passed = if missing == 4 { 0 } else { 25 };
            let outcome = if missing == 5 { "no result" } else { "failed" };
            check(&lines, Ok(End::PoweredOff), outcome, passed, 1);
        }
        check(&[], Ok(End::PoweredOff), "no result", 0, 1);
        check(&GOOD[..4], Ok(End::TimedOut), "timed out", 0, 1);
        check(&GOOD[..4], Err("QEMU failed".to_owned()), "no result", 0, 1);
        let mut failing = GOOD;
        failing[5] = "@vm exit 101";
        check(&failing, Ok(End::PoweredOff), "failed", 25, 1);
    }
}
