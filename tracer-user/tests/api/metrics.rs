//! The metrics of a snapshot: which series there are, that their number is bounded, and that no name breaks out of its label.

use crate::common::{AT, connection, finding, snapshot};
use tracer_core::finding::Severity;
use tracer_core::snapshot::{Completeness, LauncherGroup, Limit, LimitSource, Loss, Process, Snapshot};
use tracer_core::tcp::TcpState;
use tracer_user::export::metrics::{PAIRS_MAX, text};

fn process(pid: u32, group: &str) -> Process {
    Process {
        pid,
        ns_pid: None,
        start_time: AT,
        comm: "python3".to_owned(),
        exe: None,
        script: None,
        cmdline: None,
        ppid: None,
        ancestors: Vec::new(),
        uid: None,
        user: None,
        cgroup: None,
        container_id: None,
        systemd_unit: None,
        launcher_group: Some(group.to_owned()),
        alive: true,
        accepted_total: None,
        connections: Vec::new(),
    }
}

fn group(id: &str, label: &str) -> LauncherGroup {
    let (pids, endpoints) = (Vec::new(), Vec::new());
    LauncherGroup { id: id.to_owned(), label: label.to_owned(), instances: 1, pids, open: 0, endpoints }
}

/// Lines of the text that begin so, in their order.
fn lines<'a>(text: &'a str, begin: &str) -> Vec<&'a str> {
    text.lines().filter(|line| line.starts_with(begin)).collect()
}

fn host() -> Snapshot {
    let mut state = snapshot(vec![finding("f1", Severity::Critical, 0), finding("f2", Severity::Critical, 0)]);
    state.processes = vec![process(412, "g1"), process(433, "g2")];
    state.launcher_groups = vec![group("g1", "app.py"), group("g2", "a\"} 1\n\u{202e}\u{1b}[2Jx\\")];
    state.endpoints[0].limit = Some(Limit { value: 100, source: LimitSource::Inferred });
    state.endpoints[0].closed_total = 7;
    state.capture.loss = Loss { ring_full: 3, ends: 2, missed_closes: 1, resyncs: 4, ..Loss::default() };
    state.capture.completeness = Completeness::LowerBound;
    state
}

#[tokio::test]
async fn they_are_served_as_text() {
    let running = crate::start(host());
    let body = running.client.get("/metrics").await.unwrap();
    // Series of a family have no order.
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    assert_eq!(sorted(std::str::from_utf8(&body).unwrap()), sorted(&text(&host()).unwrap()));
}

#[test]
fn every_fact_has_its_series() {
    let text = text(&host()).unwrap();
    for line in [
        "socklife_build_info{version=\"0.1.0\"} 1",
        "socklife_connections_open{endpoint=\"10.0.0.5:5432\",database=\"postgres\",role=\"client\",group=\"app.py\",\
         state=\"ESTABLISHED\"} 1",
        "socklife_connections_open{endpoint=\"10.0.0.6:5432\",database=\"postgres\",role=\"client\",group=\"unknown\",\
         state=\"ESTABLISHED\"} 1",
        "socklife_connections_opened_total{endpoint=\"10.0.0.5:5432\",database=\"postgres\",role=\"client\"} 1",
        "socklife_connections_closed_total{endpoint=\"10.0.0.5:5432\",database=\"postgres\",role=\"client\"} 7",
        "socklife_connections_failed_total{endpoint=\"10.0.0.6:5432\",database=\"postgres\",role=\"client\"} 0",
        "socklife_endpoint_limit{endpoint=\"10.0.0.5:5432\",database=\"postgres\",role=\"client\",source=\"inferred\"} 100",
        "socklife_findings_open{kind=\"limit_pressure\",severity=\"critical\"} 2",
        "socklife_findings_open{kind=\"connection_leak\",severity=\"warning\"} 0",
        "socklife_capture_lost_total{stage=\"ring_full\"} 3",
        "socklife_capture_lost_total{stage=\"missed_closes\"} 1",
        "socklife_capture_resyncs_total 4",
        "socklife_capture_exact 0",
    ] {
        assert!(text.lines().any(|found| found == line), "no {line}\n{text}");
    }
    assert!(text.ends_with("# EOF\n"), "{text}");
}

#[test]
fn a_hostile_name_stays_in_its_label() {
    let text = text(&host()).unwrap();
    let of_state = lines(&text, "socklife_connections_open{");
    assert_eq!(of_state.len(), 3, "{of_state:#?}");
    let hostile = "group=\"a\\\"} 1\\\\n\\\\u{202e}\\\\u{1b}[2Jx\\\\\",state=\"CLOSE_WAIT\"} 1";
    assert!(of_state.iter().any(|line| line.ends_with(hostile)), "no {hostile}: {of_state:#?}");
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
}

#[test]
fn beyond_the_bound_groups_share_a_series() {
    let mut state = host();
    let all = u32::try_from(PAIRS_MAX).unwrap() + 50;
    state.connections.clear();
    state.processes.clear();
    state.launcher_groups.clear();
    for number in 0..all {
        let (pid, id) = (1_000 + number, format!("g{number}"));
        state.processes.push(process(pid, &id));
        state.launcher_groups.push(group(&id, &format!("app-{number:04}")));
        state.connections.push(connection("c", "10.0.0.5:5432", TcpState::Established, pid, pid));
    }
    // The last one has the most.
    state.connections.push(connection("c", "10.0.0.5:5432", TcpState::Established, 999 + all, 999 + all));
    let text = text(&state).unwrap();
    let open = lines(&text, "socklife_connections_open{");
    assert_eq!(open.len(), PAIRS_MAX + 1);
    let last = format!("group=\"app-{:04}\",state=\"ESTABLISHED\"}} 2", all - 1);
    assert!(open.iter().any(|line| line.ends_with(&last)), "no {last}");
    assert!(open.iter().any(|line| line.contains("group=\"other\"") && line.ends_with("} 50")), "{open:#?}");
}
