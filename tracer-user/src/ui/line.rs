//! One line of `tail` for one change of a finding or one socket event.

use std::fmt::Write as _;

use jiff::tz::TimeZone;
use tracer_core::event::Role;
use tracer_core::finding::{Change, FindingLine, Severity};
use tracer_core::snapshot::{EventLine, EventName, LossLine, Reset};
use tracer_core::time::WallTime;

use super::escape;
use super::style::{Colour, paint};

/// What a line needs besides its data.
#[derive(Clone, Debug)]
pub struct Look {
    /// Where the reader's clock is.
    pub zone: TimeZone,
    /// Escape codes wanted.
    pub colour: bool,
}

/// `22:41:07 CRITICAL  limit_pressure       orders-db 10.0.0.5:5432 96 of 100 open, ...`: the summary says what it is
/// about.
#[must_use]
pub fn finding(line: &FindingLine, look: &Look) -> String {
    let found = &line.finding;
    let (word, colour) = match (line.change, found.severity) {
        (Change::Resolved, _) => ("resolved", Colour::Green),
        _ if found.ignored.is_some() => ("ignored", Colour::Dim),
        (_, Severity::Critical) => ("CRITICAL", Colour::Red),
        (_, Severity::Warning) => ("WARNING", Colour::Yellow),
        (_, Severity::Info) => ("INFO", Colour::Dim),
    };
    let ignored = found.ignored.as_ref().map(|ignored| format!("; not told any more: {}", escape(&ignored.reason)));
    format!(
        "{} {}  {:<19}  {}{}",
        local(line.at, look, "%H:%M:%S"),
        paint(&format!("{word:<8}"), colour, look.colour),
        found.kind.name(),
        escape(&found.summary),
        ignored.unwrap_or_default()
    )
}

/// `22:41:07.123 opened  127.0.0.1:40222 -> 127.0.0.1:5432 postgres client  python3[412]`
#[must_use]
pub fn event(line: &EventLine, look: &Look) -> String {
    let (word, colour) = match line.event {
        EventName::Opened => ("opened", None),
        EventName::Accepted => ("accepted", None),
        EventName::PeerClosed => ("peer_closed", Some(Colour::Yellow)),
        EventName::Closing => ("closing", Some(Colour::Dim)),
        EventName::Closed => ("closed", Some(Colour::Dim)),
        EventName::Failed => ("failed", Some(Colour::Red)),
        EventName::Retransmit => ("retransmit", Some(Colour::Yellow)),
    };
    let word = format!("{word:<11}");
    let word = colour.map_or_else(|| word.clone(), |colour| paint(&word, colour, look.colour));
    // The arrow points from the one who connected to the database.
    let (arrow, role) = match line.role {
        Role::Client => ("->", "client"),
        Role::Server => ("<-", "server"),
    };
    let opener = line
        .opener
        .as_ref()
        .map_or_else(|| unknown(line).to_owned(), |opener| format!("{}[{}]", escape(&opener.comm), opener.pid));
    let mut text = format!(
        "{} {word}  {} {arrow} {} {} {role}  {opener}",
        local(line.at, look, "%H:%M:%S%.3f"),
        escape(&line.local),
        escape(&line.remote),
        escape(&line.database),
    );
    if line.event == EventName::Closed {
        text.push_str("  ");
        text.push_str(&ending(line));
    }
    match line.reset {
        Some(Reset::Sent) => text.push_str("  reset by this side"),
        Some(Reset::Received) => text.push_str("  reset by the peer"),
        None => {}
    }
    if line.event == EventName::Retransmit {
        let _infallible = write!(text, "  {} so far, {} time-outs in a row", line.retransmits, line.consecutive_rtos);
    }
    if let Some(error) = &line.error {
        text.push_str("  ");
        text.push_str(&escape(error));
    }
    text
}

/// What was lost, stage by stage, and what that means for the numbers.
pub fn loss(line: &LossLine, look: &Look) -> String {
    let stages = serde_json::to_value(line.loss).ok();
    let stages = stages.as_ref().and_then(serde_json::Value::as_object).into_iter().flatten();
    let lost: Vec<String> =
        stages.filter(|(_, count)| **count != 0).map(|(stage, count)| format!("{stage} {count}")).collect();
    format!(
        "{} {}  {} since the start; counts are lower bounds until the next look, totals stay so",
        local(line.at, look, "%H:%M:%S"),
        paint("LOST    ", Colour::Yellow, look.colour),
        lost.join(", ")
    )
}

/// A server's side is established before any process has taken it.
fn unknown(line: &EventLine) -> &'static str {
    match (line.role, line.event) {
        (Role::Server, EventName::Opened) => "not accepted yet",
        (Role::Server, _) => "acceptor unknown",
        (Role::Client, _) => "opener unknown",
    }
}

fn ending(line: &EventLine) -> String {
    let age = line.age_ms.map_or_else(|| "age unknown".to_owned(), |ms| format!("after {}", duration(ms)));
    let closer = line.closer_pid.map_or_else(|| "closer unknown".to_owned(), |pid| format!("closed by {pid}"));
    format!("{age}, {} B sent, {} B received, {closer}", line.bytes_sent, line.bytes_received)
}

/// Three digits that matter: `12 ms`, `3.4 s`, `5 min 2 s`, `3 h 10 min`, `2 d 4 h`.
fn duration(ms: u64) -> String {
    let s = ms / 1_000;
    match s {
        0 => format!("{ms} ms"),
        1..60 => format!("{}.{} s", s, ms % 1_000 / 100),
        60..3_600 => format!("{} min {} s", s / 60, s % 60),
        3_600..86_400 => format!("{} h {} min", s / 3_600, s % 3_600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3_600),
    }
}

fn local(at: WallTime, look: &Look, format: &str) -> String {
    jiff::Timestamp::from_millisecond(at.unix_ms)
        .map_or_else(|_| "--:--:--".to_owned(), |at| at.to_zoned(look.zone.clone()).strftime(format).to_string())
}

#[cfg(test)]
mod tests {
    use tracer_core::finding::{FINDING_SCHEMA, Finding, Kind, Status, Subject};
    use tracer_core::snapshot::{EVENT_SCHEMA, LOSS_SCHEMA, Loss, Opener};
    use tracer_core::tcp::TcpState;

    use super::*;

    fn look(colour: bool) -> Look {
        Look { zone: TimeZone::fixed(jiff::tz::offset(2)), colour }
    }

    fn pressure(change: Change, severity: Severity, summary: &str) -> FindingLine {
        let at = WallTime { unix_ms: 1_795_293_667_000 };
        FindingLine {
            schema: FINDING_SCHEMA.to_owned(),
            change,
            at: if change == Change::Resolved { WallTime { unix_ms: at.unix_ms + 1_020_000 } } else { at },
            finding: Finding {
                id: "f1".to_owned(),
                kind: Kind::LimitPressure,
                severity,
                confidence: 1.0,
                status: if change == Change::Resolved { Status::Resolved } else { Status::Open },
                first_seen: at,
                last_seen: at,
                subject: Subject { endpoint: Some("10.0.0.5:5432".to_owned()), pids: vec![412], launcher_group: None },
                summary: summary.to_owned(),
                evidence: Vec::new(),
                ruled_out: Vec::new(),
                related: Vec::new(),
                cause: None,
                ignored: None,
                remedy: String::new(),
                verify: String::new(),
            },
        }
    }

    #[test]
    fn finding_lines() {
        let lines = [
            pressure(
                Change::Opened,
                Severity::Critical,
                "orders-db 10.0.0.5:5432 96 of 100 open, +4/min, full in about 1 min",
            ),
            pressure(Change::Updated, Severity::Warning, "82 of 100 open"),
            pressure(Change::Opened, Severity::Info, "evil\u{1b}[2J\nname"),
            pressure(Change::Resolved, Severity::Critical, "4 of 100 open, open for 17 min"),
        ];
        let text: Vec<String> = lines.iter().map(|line| finding(line, &look(false))).collect();
        insta::assert_snapshot!(text.join("\n"), @r"
        22:41:07 CRITICAL  limit_pressure       orders-db 10.0.0.5:5432 96 of 100 open, +4/min, full in about 1 min
        22:41:07 WARNING   limit_pressure       82 of 100 open
        22:41:07 INFO      limit_pressure       evil\u{1b}[2J\nname
        22:58:07 resolved  limit_pressure       4 of 100 open, open for 17 min
        ");
    }

    #[test]
    fn colour_wraps_the_severity_alone() {
        let text = finding(&pressure(Change::Opened, Severity::Critical, "full"), &look(true));
        assert_eq!(text.matches('\u{1b}').count(), 2);
        assert!(text.contains("\u{1b}[1;31mCRITICAL\u{1b}[0m"), "{text:?}");
    }

    fn socket(event: EventName, role: Role) -> EventLine {
        EventLine {
            schema: EVENT_SCHEMA.to_owned(),
            event,
            at: WallTime { unix_ms: 1_795_293_667_123 },
            endpoint: "127.0.0.1:5432".to_owned(),
            database: "postgres".to_owned(),
            role,
            local: "127.0.0.1:40222".to_owned(),
            remote: "127.0.0.1:5432".to_owned(),
            state: TcpState::Established,
            opener: Some(Opener { pid: 412, comm: "python3".to_owned() }),
            closer_pid: None,
            age_ms: None,
            bytes_sent: 0,
            bytes_received: 0,
            retransmits: 0,
            consecutive_rtos: 0,
            error: None,
            reset: None,
        }
    }

    #[test]
    fn losses_name_their_stages() {
        let lost = Loss { ring_full: 312, ends: 40, ..Loss::default() };
        let line = LossLine { schema: LOSS_SCHEMA.to_owned(), at: WallTime { unix_ms: 1_795_293_667_123 }, loss: lost };
        assert_eq!(
            loss(&line, &look(false)),
            "22:41:07 LOST      ends 40, ring_full 312 since the start; counts are lower bounds until the next look, \
             totals stay so"
        );
    }

    #[test]
    fn event_lines() {
        let opened = socket(EventName::Opened, Role::Client);
        let closed = EventLine {
            closer_pid: Some(412),
            age_ms: Some(63_400),
            bytes_sent: 512,
            bytes_received: 2_048,
            ..socket(EventName::Closed, Role::Client)
        };
        let accepted = EventLine {
            local: "[::1]:5432".to_owned(),
            remote: "[::1]:40222".to_owned(),
            opener: Some(Opener { pid: 9, comm: "post\u{202e}gres".to_owned() }),
            ..socket(EventName::Accepted, Role::Server)
        };
        let failed = EventLine {
            opener: None,
            error: Some("ECONNREFUSED".to_owned()),
            ..socket(EventName::Failed, Role::Client)
        };
        let unseen = EventLine { opener: None, ..socket(EventName::Closed, Role::Client) };
        let text: Vec<String> =
            [opened, closed, accepted, failed, unseen].iter().map(|line| event(line, &look(false))).collect();
        insta::assert_snapshot!(text.join("\n"), @r"
        22:41:07.123 opened       127.0.0.1:40222 -> 127.0.0.1:5432 postgres client  python3[412]
        22:41:07.123 closed       127.0.0.1:40222 -> 127.0.0.1:5432 postgres client  python3[412]  after 1 min 3 s, 512 B sent, 2048 B received, closed by 412
        22:41:07.123 accepted     [::1]:5432 <- [::1]:40222 postgres server  post\u{202e}gres[9]
        22:41:07.123 failed       127.0.0.1:40222 -> 127.0.0.1:5432 postgres client  opener unknown  ECONNREFUSED
        22:41:07.123 closed       127.0.0.1:40222 -> 127.0.0.1:5432 postgres client  opener unknown  age unknown, 0 B sent, 0 B received, closer unknown
        ");
    }

    #[test]
    fn durations() {
        for (ms, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_000, "1.0 s"),
            (59_999, "59.9 s"),
            (302_000, "5 min 2 s"),
            (11_400_000, "3 h 10 min"),
            (187_200_000, "2 d 4 h"),
        ] {
            assert_eq!(duration(ms), text);
        }
    }
}
