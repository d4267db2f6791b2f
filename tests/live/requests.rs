//! What comes in to a process that talks to a database: counted one for one, and held against what it opens.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use socklife_tests::client::Client;
use socklife_tests::daemon::snapshot_of;
use socklife_tests::look::{counts, names, nothing_lost};
use socklife_tests::pace::load;
use socklife_tests::program::until;
use socklife_tests::service::Service;
use socklife_tests::watched::{DATABASE, Watched};

fn process(snapshot: &Value, pid: u32) -> Result<&Value> {
    let processes = snapshot["processes"].as_array().context("no processes")?;
    processes.iter().find(|each| each["pid"] == pid).with_context(|| format!("no process {pid} in {processes:#?}"))
}

fn accepted(snapshot: &Value, pid: u32) -> Result<Option<u64>> {
    Ok(process(snapshot, pid)?["accepted_total"].as_u64())
}

/// How many threads may wait in accept(2) and all be seen. A return probe has places for as many calls at a time as there
/// are CPUs, if the kernel is not preemptible (`register_kretprobe`, 5.10), and one that finds none is not seen.
fn threads(snapshot: &Value) -> Result<u32> {
    let probes = snapshot["capture"]["probes"].as_array().context("no probes")?;
    let accept = probes.iter().find(|probe| probe["fact"] == "accept").context("no probe for accept")?;
    let by_return = accept["via"].as_str().is_some_and(|via| via.starts_with("kretprobe"));
    Ok(if by_return { 1 } else { 4 })
}

/// One after the other, by threads at once, and in the last moment of a process' life.
#[test]
fn every_request_is_counted_and_nothing_else() -> Result<()> {
    let watched = Watched::start_sized(100, &[])?;
    let mut service = Service::start(threads(&watched.agree()?)?)?;
    let mut client = Client::start()?;
    client.open(3, "127.0.0.1")?;
    ensure!(accepted(&watched.agree()?, service.pid())? == Some(0), "something came in before the first request");

    let (singly, at_once) = (load(200), 20);
    service.ask(singly)?;
    let snapshot = watched.agree()?;
    ensure!(accepted(&snapshot, service.pid())? == Some(singly), "{}", process(&snapshot, service.pid())?);
    service.ask_at_once(at_once)?;
    let requests = singly + at_once;
    let snapshot = watched.agree()?;
    ensure!(accepted(&snapshot, service.pid())? == Some(requests), "{}", process(&snapshot, service.pid())?);
    // One at its start, one a request, and the client's three.
    ensure!(counts(&snapshot, DATABASE, "client")?.1 == requests + 1 + 3, "{}", snapshot["endpoints"]);
    ensure!(accepted(&snapshot, client.pid())? == Some(0), "{}", process(&snapshot, client.pid())?);
    // What a database takes from its clients is no request to a client of a database.
    let server = watched.postgres.pid();
    ensure!(accepted(&snapshot, server)? == Some(0), "{}", process(&snapshot, server)?);

    service.ask(3)?;
    let pid = service.pid();
    service.kill()?;
    let ended = until("the service's end is known", || {
        let snapshot = watched.daemon.snapshot()?;
        let is_over = process(&snapshot, pid)?["alive"] == false;
        Ok(if is_over { Ok(snapshot) } else { Err("it is alive".to_owned()) })
    })?;
    ensure!(accepted(&ended, pid)? == Some(requests + 3), "at its end: {}", process(&ended, pid)?);
    nothing_lost(&ended)
}

#[test]
fn a_client_for_each_request_is_told_with_both_rates() -> Result<()> {
    let settings = [
        "--set",
        "detect.window_s=2",
        "--set",
        "detect.client_per_request.opens=2",
        "--set",
        "detect.client_per_request.windows=2",
    ];
    let watched = Watched::start(&settings)?;
    let service = Service::start(1)?;
    let finding = until("the finding with requests", || {
        // Some requests at a time, evenly: the rate is the machine's.
        service.ask(3)?;
        let snapshot = snapshot_of(&watched.daemon.ask(&["snapshot"])?)?;
        let findings = snapshot["findings"].as_array().context("no findings")?;
        let found = findings.iter().find(|each| each["kind"] == "client_per_request" && names(each, service.pid()));
        let summary = found.and_then(|each| each["summary"].as_str()).unwrap_or_default();
        let is_told = summary.contains(" opens/s against ") && !summary.contains("at least");
        Ok(if is_told { Ok(found.cloned().unwrap_or_default()) } else { Err(format!("{findings:#?}")) })
    })?;
    let summary = finding["summary"].as_str().unwrap_or_default();
    for said in ["service.py (pid ", " for each request: ", " requests/s, ", ", median lifetime ", " bytes each"] {
        ensure!(summary.contains(said), "{said:?} is not in {summary:?}");
    }
    let rate = |fact: &str| -> Result<f64> {
        let evidence = finding["evidence"].as_array().context("no evidence")?;
        let of = evidence.iter().find(|each| each["fact"] == fact).with_context(|| format!("no {fact}: {finding}"))?;
        of["value"].as_f64().with_context(|| format!("{of}"))
    };
    let (opens, requests) = (rate("opens")?, rate("requests")?);
    ensure!(opens <= 2.1 * requests && requests <= 2.1 * opens, "{opens} opens/s, {requests} requests/s");
    // More than without requests.
    ensure!(finding["confidence"].as_f64().is_some_and(|confidence| confidence > 0.9), "{finding}");
    Ok(())
}
