//! A real Prometheus scrapes the daemon: its rules fire and clear, and every query of the dashboard has data.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use socklife_tests::client::Client;
use socklife_tests::daemon::Daemon;
use socklife_tests::postgres::Postgres;
use socklife_tests::program::{Program, command, output, until};
use socklife_tests::sandbox::Sandbox;

const METRICS: &str = "127.0.0.1:9187";
const PROMETHEUS: &str = "127.0.0.1:9090";
/// What the dashboard's own words stand for in a query that is asked by hand.
const VARIABLES: [(&str, &str); 5] =
    [("$instance", ".*"), ("$endpoint", ".*"), ("$role", ".*"), ("$__rate_interval", "10s"), ("$__range", "1m")];
/// The rest of these has no data while nothing is wrong, which is as it should be.
const MAY_BE_EMPTY: [&str; 2] = ["socklife_capture_exact", "> 0"];

fn packaging(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(name)
}

/// As a Prometheus of users is set up, but for how often it looks.
fn configuration() -> Result<String> {
    let rules = fs::canonicalize(packaging("prometheus/socklife.rules.yml"))?;
    Ok(format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\nscrape_configs:\n- job_name: socklife\n  \
         static_configs: [{{targets: ['{METRICS}']}}]\n",
        rules.display()
    ))
}

fn start(sandbox: &Sandbox) -> Result<Program> {
    let file = sandbox.path("prometheus.yml");
    fs::write(&file, configuration()?)?;
    let mut prometheus = command("prometheus");
    prometheus.arg(format!("--config.file={}", file.display()));
    prometheus.arg(format!("--storage.tsdb.path={}", sandbox.path("tsdb").display()));
    prometheus.arg(format!("--web.listen-address={PROMETHEUS}"));
    let prometheus = Program::start("prometheus", prometheus)?;
    prometheus.err_line("that it is ready", |line| line.contains("Server is ready to receive web requests"))?;
    Ok(prometheus)
}

/// The labels of each series that the expression has now.
fn ask(expression: &str) -> Result<Vec<Value>> {
    let mut promtool = command("promtool");
    // A query may begin with a minus.
    promtool.args(["query", "instant", "--format=json", "--", &format!("http://{PROMETHEUS}"), expression]);
    let said = output(promtool).with_context(|| format!("ask for {expression}"))?;
    let said: Value = serde_json::from_str(&said).with_context(|| format!("{expression}: {said}"))?;
    Ok(said.as_array().cloned().unwrap_or_default())
}

/// Waits until exactly these alerts fire; labels apart.
fn until_firing(wanted: &[&str]) -> Result<()> {
    until(&format!("{wanted:?} fire"), || {
        let firing = ask("ALERTS{alertstate=\"firing\"}")?;
        let names: BTreeSet<&str> = firing.iter().filter_map(|alert| alert["metric"]["alertname"].as_str()).collect();
        Ok(if names == wanted.iter().copied().collect() { Ok(()) } else { Err(format!("firing: {firing:?}")) })
    })
}

/// Every query of the dashboard: its panel's title and the expression.
fn queries() -> Result<Vec<(String, String)>> {
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(packaging("grafana/socklife.json"))?)?;
    let panels = dashboard["panels"].as_array().context("a dashboard without panels")?;
    let mut all = Vec::new();
    for panel in panels {
        for target in panel["targets"].as_array().context("a panel without queries")? {
            let mut expression = target["expr"].as_str().context("a query without an expression")?.to_owned();
            for (name, value) in VARIABLES {
                expression = expression.replace(name, value);
            }
            ensure!(!expression.contains('$'), "a variable that this test does not know: {expression}");
            all.push((panel["title"].as_str().unwrap_or_default().to_owned(), expression));
        }
    }
    Ok(all)
}

#[test]
fn rules_fire_and_the_dashboard_has_data() -> Result<()> {
    let sandbox = Sandbox::enter()?;
    let _postgres = Postgres::start(&sandbox, 100)?;
    let daemon = Daemon::start(&sandbox, &["--limit", "127.0.0.1:5432=20", "--metrics", METRICS])?;
    let mut client = Client::start()?;
    client.open(4, "127.0.0.1")?;
    let _prometheus = start(&sandbox)?;
    until("the daemon is scraped", || {
        let found = ask("socklife_build_info")?;
        Ok(if found.is_empty() { Err("no series".to_owned()) } else { Ok(()) })
    })?;
    until_firing(&[])?;

    client.open(16, "127.0.0.1")?;
    until_firing(&["SocklifeConnectionCeiling", "SocklifeCriticalFinding"])?;
    // One side may have been counted a scrape before the other.
    let ceiling = until("the ceiling is told of the client's side", || {
        let found = ask("ALERTS{alertname=\"SocklifeConnectionCeiling\",alertstate=\"firing\",role=\"client\"}")?;
        Ok(if found.is_empty() { Err("not yet".to_owned()) } else { Ok(found) })
    })?;
    let of = |label: &str| ceiling.first().and_then(|alert| alert["metric"][label].as_str());
    ensure!(of("endpoint") == Some("127.0.0.1:5432") && of("database") == Some("postgres"), "{ceiling:?}");

    let queries = queries()?;
    ensure!(queries.len() >= 15, "the dashboard has {} queries", queries.len());
    for (title, expression) in &queries {
        let found = ask(expression)?;
        let may_be_empty = MAY_BE_EMPTY.iter().any(|word| expression.contains(word));
        ensure!(may_be_empty || !found.is_empty(), "{title}: {expression} has no data");
    }
    ensure!(!ask("sum by (kind, severity) (socklife_findings_open) > 0")?.is_empty(), "no finding is counted");

    client.kill()?;
    until_firing(&[])?;
    drop(daemon);
    Ok(())
}

#[test]
fn the_rules_are_right() -> Result<()> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("prometheus/rules_test.yml");
    let mut promtool = command("promtool");
    promtool.args(["test", "rules"]).arg(tests);
    let said = output(promtool)?;
    ensure!(said.contains("SUCCESS"), "{said}");
    Ok(())
}
