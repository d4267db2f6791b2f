//! The benchmark works: with next to no load and without the peers it fills every figure, and what it counts is right.
//! How large a figure is, is nobody's business here.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use socklife_tests::program::{command, finish};
use socklife_tests::sandbox::{Sandbox, socklife_binary};

const WATCHERS: [&str; 2] = ["socklife", "socklife-tail"];

/// Every name that a whole run without peers must have filled. Names of kernel programs are not among them.
fn expected() -> Vec<String> {
    let mut names: Vec<String> = ["memory/idle/pss", "idle/none/cpu", "idle/50/cpu", "load/getppid/socklife/more"]
        .map(str::to_owned)
        .into_iter()
        .chain(["idle", "busy"].map(|when| format!("latency/{when}/closed")))
        .chain(["pss", "each", "pss_after_snapshot", "each_after_snapshot"].map(|what| format!("memory/50/{what}")))
        .chain(["latency/busy/shed".to_owned(), "load/reset/socklife-tail/tail_cpu".to_owned()])
        .chain(WATCHERS.map(|each| format!("load/{each}/pss")))
        .collect();
    for workload in ["reset", "fin", "together", "unwatched"] {
        names.push(format!("load/{workload}/control"));
        names.extend(["runs", "time"].map(|what| format!("kernel/{workload}/socklife/{what}")));
        for variant in ["off-a", "off-b", "socklife", "socklife-tail"] {
            names.extend(["connections_per_s", "connect_p99"].map(|what| format!("load/{workload}/{variant}/{what}")));
        }
        for variant in WATCHERS {
            names.extend(["kept", "cpu"].map(|what| format!("load/{workload}/{variant}/{what}")));
        }
    }
    for act in ["ready", "snapshot", "standalone", "ss-tn", "ss-tnp"] {
        names.extend(["wall", "cpu"].map(|what| format!("scale/50/{act}/{what}")));
    }
    names
}

/// Figures that are nothing in every round.
fn nothing() -> Vec<String> {
    let mut names = vec!["memory/50/unseen".to_owned(), "memory/50/lost".to_owned()];
    names.push("scale/50/without_holder".to_owned());
    names.extend(["idle", "busy"].map(|when| format!("latency/{when}/unseen")));
    for workload in ["reset", "fin", "together", "unwatched"] {
        for variant in WATCHERS {
            names.extend(["lost", "uncounted"].map(|what| format!("load/{workload}/{variant}/{what}")));
        }
    }
    names
}

#[test]
fn a_whole_run_fills_every_figure_and_counts_exactly() -> Result<()> {
    let sandbox = Sandbox::enter()?;
    let file = sandbox.path("benchmarks.json");
    let mut bench = command(env!("CARGO_BIN_EXE_bench"));
    bench.args(["--smoke", "--json"]).arg(&file).env("SOCKLIFE_BIN", socklife_binary()?);
    let said = finish(bench)?;
    ensure!(said.code == Some(0), "the benchmark ended with {:?}: {}", said.code, said.stderr);
    let told: Value = serde_json::from_str(&std::fs::read_to_string(&file)?).context("its JSON")?;
    ensure!(told["schema"] == "socklife.benchmarks/v1", "schema is {}", told["schema"]);

    let median = |name: &str| {
        let figure = &told["figures"][name];
        ensure!(figure["n"].as_u64() >= Some(1), "{name} was not measured: {figure}");
        figure["median"].as_f64().with_context(|| format!("{name} has no median: {figure}"))
    };
    for name in expected() {
        let unit = &told["figures"][&name]["unit"];
        ensure!(median(&name)?.is_finite() && unit.is_string(), "{name}: {}", told["figures"][&name]);
    }
    for name in nothing() {
        ensure!(median(&name)? == 0.0, "{name} is not 0: {}; it said:\n{}", told["figures"][&name], said.stderr);
    }
    // The kernel counted: whatever the hooks, each connection runs one of them at least.
    ensure!(median("kernel/reset/socklife/runs")? >= 1.0, "{}", told["figures"]["kernel/reset/socklife/runs"]);
    let targets = told["targets"].as_array().context("no targets")?;
    let verdict =
        |fact: &str| targets.iter().find(|each| each["fact"].as_str().is_some_and(|text| text.contains(fact)));
    ensure!(verdict("events lost").context("no target for loss")?["verdict"] == "met", "targets: {targets:?}");
    let cost = verdict("of what tcplife costs").context("no target for the cost")?;
    ensure!(cost["verdict"] == "not measured", "tcplife did not run: {cost}");
    Ok(())
}
