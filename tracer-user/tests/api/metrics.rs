//! The metrics of a snapshot: which series there are, that their number is bounded, and that no name breaks out of its label.

use std::time::Duration;

use crate::common::{finding, snapshot};
use tracer_core::event::Role;
use tracer_core::finding::Severity;
use tracer_core::snapshot::{Completeness, Limit, LimitSource, Loss, Snapshot};
use tracer_core::tcp::TcpState;
use tracer_core::tracker::GroupOpen;
use tracer_user::daemon::handle::Figures;
use tracer_user::export::metrics::{PAIRS_MAX, text};
use tracer_user::inventory::OwnUse;

fn open(group: Option<&str>, states: &[(TcpState, u64)]) -> GroupOpen {
    GroupOpen {
        endpoint: "10.0.0.5:5432".to_owned(),
        role: Role::Client,
        database: "postgres".to_owned(),
        group: group.map(str::to_owned),
        states: states.iter().copied().collect(),
    }
}

/// Lines of the text that begin so, in their order.
fn lines<'a>(text: &'a str, begin: &str) -> Vec<&'a str> {
    text.lines().filter(|line| line.starts_with(begin)).collect()
}

fn host() -> Snapshot {
    let mut state = snapshot(vec![finding("f1", Severity::Critical, 0), finding("f2", Severity::Critical, 0)]);
    state.endpoints[0].limit = Some(Limit { value: 100, source: LimitSource::Inferred });
    state.endpoints[0].closed_total = 7;
    state.capture.loss = Loss { ring_full: 3, ends: 2, missed_closes: 1, resyncs: 4, ..Loss::default() };
    state.capture.completeness = Completeness::LowerBound;
    state.connections.clear();
    state
}

fn figures() -> Figures {
    let open = vec![
        open(Some("app.py"), &[(TcpState::Established, 2), (TcpState::CloseWait, 1)]),
        open(None, &[(TcpState::Established, 4)]),
        open(Some("a\"} 1\n\u{202e}\u{1b}[2Jx\\"), &[(TcpState::CloseWait, 1)]),
    ];
    Figures { outline: host(), open, records: vec![("end", 5), ("drop", 0)] }
}

const USE: OwnUse =
    OwnUse { resident_bytes: Some(9_000_000), open_fds: Some(31), cpu: Some(Duration::from_millis(1_500)) };

#[tokio::test]
async fn they_are_served_as_text() {
    let running = crate::start(host());
    let body = running.client.get("/metrics").await.unwrap();
    let told = std::str::from_utf8(&body).unwrap();
    // What the daemon itself uses changes from one moment to the next; series of a family have no order.
    let sorted = |text: &str| {
        let mut lines: Vec<String> =
            text.lines().filter(|line| !line.starts_with("process_")).map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    let expected = Figures { outline: host(), open: Vec::new(), records: vec![("end", 5)] };
    assert_eq!(sorted(told), sorted(&text(&expected, USE).unwrap()));
    for name in ["process_resident_memory_bytes ", "process_open_fds ", "process_cpu_seconds_total "] {
        assert_eq!(lines(told, name).len(), 1, "{name}: {told}");
    }
}

#[test]
fn every_fact_has_its_series() {
    let text = text(&figures(), USE).unwrap();
    for line in [
        "socklife_build_info{version=\"0.1.0\",commit=\"unknown\",kernel_programs=\"",
        "socklife_connections_open{endpoint=\"10.0.0.5:5432\",database=\"postgres\",role=\"client\",group=\"app.py\",\
         state=\"ESTABLISHED\"} 2",
        "socklife_connections_open{endpoint=\"10.0.0.5:5432\",database=\"postgres\",role=\"client\",group=\"unknown\",\
         state=\"ESTABLISHED\"} 4",
        "socklife_connections_opened_total{endpoint=\"10.0.0.5:5432\",database=\"postgres\",role=\"client\"} 1",
        "socklife_connections_closed_total{endpoint=\"10.0.0.5:5432\",database=\"postgres\",role=\"client\"} 7",
        "socklife_connections_failed_total{endpoint=\"10.0.0.6:5432\",database=\"postgres\",role=\"client\"} 0",
        "socklife_endpoint_limit{endpoint=\"10.0.0.5:5432\",database=\"postgres\",role=\"client\",source=\"inferred\"} 100",
        "socklife_findings_open{kind=\"limit_pressure\",severity=\"critical\"} 2",
        "socklife_findings_open{kind=\"connection_leak\",severity=\"warning\"} 0",
        "socklife_capture_lost_total{stage=\"ring_full\"} 3",
        "socklife_capture_lost_total{stage=\"missed_closes\"} 1",
        "socklife_capture_events_total{kind=\"end\"} 5",
        "socklife_capture_events_total{kind=\"drop\"} 0",
        "process_resident_memory_bytes 9000000",
        "process_open_fds 31",
        "process_cpu_seconds_total 1.5",
        "process_start_time_seconds 1795293667.0",
        "socklife_capture_resyncs_total 4",
        "socklife_capture_exact 0",
    ] {
        assert!(
            text.lines().any(|found| found == line || (line.ends_with("=\"") && found.starts_with(line))),
            "no {line}\n{text}"
        );
    }
    assert!(text.ends_with("# EOF\n"), "{text}");
}

#[test]
fn a_hostile_name_stays_in_its_label() {
    let text = text(&figures(), USE).unwrap();
    let of_state = lines(&text, "socklife_connections_open{");
    assert_eq!(of_state.len(), 4, "{of_state:#?}");
    let hostile = "group=\"a\\\"} 1\\\\n\\\\u{202e}\\\\u{1b}[2Jx\\\\\",state=\"CLOSE_WAIT\"} 1";
    assert!(of_state.iter().any(|line| line.ends_with(hostile)), "no {hostile}: {of_state:#?}");
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
}

#[test]
fn beyond_the_bound_groups_share_a_series() {
    let all = PAIRS_MAX + 50;
    let mut pairs: Vec<GroupOpen> =
        (0..all).map(|number| open(Some(&format!("app-{number:04}")), &[(TcpState::Established, 1)])).collect();
    // The last one has the most.
    pairs[all - 1].states.insert(TcpState::Established, 2);
    let text = text(&Figures { open: pairs, ..figures() }, USE).unwrap();
    let open = lines(&text, "socklife_connections_open{");
    assert_eq!(open.len(), PAIRS_MAX + 1);
    let last = format!("group=\"app-{:04}\",state=\"ESTABLISHED\"}} 2", all - 1);
    assert!(open.iter().any(|line| line.ends_with(&last)), "no {last}");
    assert!(open.iter().any(|line| line.contains("group=\"other\"") && line.ends_with("} 50")), "{open:#?}");
}
