//! What the configuration says for some endpoints, groups and findings alone, and what changes while connections are open.

use std::time::Duration;

use tracer_core::detect::{Changes, DetectConfig, Ignore, Of, Scope, Settings};
use tracer_core::event::Role;
use tracer_core::finding::{Change, Kind, Severity};
use tracer_core::glob::Glob;
use tracer_core::ports::PortMap;
use tracer_core::rules::{EndpointRule, Matcher, Rules};
use tracer_core::snapshot::{Limit, LimitSource};
use tracer_core::time::WallTime;

use crate::scene::{Scene, anchor, database, second_database};

fn changes(kind: Kind, values: &[(&str, i64)]) -> Changes {
    let mut changes = Changes::default();
    values.iter().for_each(|(key, value)| changes.set(kind, key, *value).unwrap());
    changes
}

fn glob(pattern: &str) -> Glob {
    Glob::from(pattern.to_owned())
}

fn of_endpoint(matcher: impl Into<Matcher>, changes: Changes) -> Scope {
    Scope { of: Of::Endpoint(matcher.into()), changes }
}

fn of_group(pattern: &str, changes: Changes) -> Scope {
    Scope { of: Of::Group(glob(pattern)), changes }
}

#[test]
fn an_endpoint_goes_by_its_own_thresholds() {
    let pressure =
        |warn, critical| changes(Kind::LimitPressure, &[("warn_percent", warn), ("critical_percent", critical)]);
    let check = |scopes: Vec<Scope>, expected: Option<Severity>| {
        let mut scene = Scene::new(Some(100));
        scene.config.set_scopes(scopes.clone());
        // A recording keeps them.
        assert_eq!(DetectConfig::from(&Settings::from(scene.config.clone())), scene.config);
        scene.open(Role::Client, 412, 85);
        scene.pass(1);
        let found: Vec<Severity> = scene.findings().iter().map(|finding| finding.severity).collect();
        assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{scopes:?}");
    };
    let any = Matcher { ips: None, ports: (5432, 5432) };
    check(vec![], Some(Severity::Warning));
    check(vec![of_endpoint(database(), pressure(90, 95))], None);
    check(vec![of_endpoint(database(), pressure(50, 85))], Some(Severity::Critical));
    check(vec![of_endpoint(second_database(), pressure(90, 95))], Some(Severity::Warning));
    // The most specific counts, whatever the order, and for each threshold by itself.
    check(vec![of_endpoint(database(), pressure(90, 95)), of_endpoint(any, pressure(50, 60))], None);
    check(
        vec![
            of_endpoint(database(), changes(Kind::LimitPressure, &[("warn_percent", 81)])),
            of_endpoint(any, pressure(50, 84)),
        ],
        Some(Severity::Critical),
    );
    // Of equally specific ones the later.
    check(vec![of_endpoint(database(), pressure(50, 60)), of_endpoint(database(), pressure(90, 95))], None);
    let mut off = Changes::default();
    off.enable(Kind::LimitPressure, false);
    check(vec![of_endpoint(any, off.clone())], None);
    check(vec![of_endpoint(second_database(), off)], Some(Severity::Warning));
}

#[test]
fn a_group_goes_by_its_own_thresholds_before_those_of_its_endpoint() {
    let copies = |instances| changes(Kind::DuplicateLaunchers, &[("instances", instances)]);
    let check = |scopes: Vec<Scope>, global: Option<bool>, expected: &[&str]| {
        let mut scene = Scene::new(None);
        scene.config.set_scopes(scopes);
        if let Some(enabled) = global {
            scene.config.enable(Kind::DuplicateLaunchers, enabled);
        }
        for (script, first) in [("launcher.py", 400), ("worker.py", 500)] {
            for copy in 0..8 {
                let pid = first + copy;
                scene.starts.insert(pid, 100 + u64::from(pid) * 6_000);
                scene.open(Role::Client, pid, 2);
                scene.name(pid, script);
            }
        }
        scene.pass(1);
        let findings = scene.findings();
        let of_kind = findings.iter().filter(|finding| finding.kind == Kind::DuplicateLaunchers);
        let mut found: Vec<&str> = of_kind.map(|of| of.summary.split(' ').next().unwrap()).collect();
        found.sort_unstable();
        assert_eq!(found, expected);
    };
    let here = || of_endpoint(database(), copies(30));
    check(vec![], None, &["launcher.py", "worker.py"]);
    check(vec![of_group("launcher.py", copies(30))], None, &["worker.py"]);
    check(vec![of_group("l*.py", copies(30)), of_group("worker*", copies(9))], None, &[]);
    check(vec![here()], None, &[]);
    check(vec![of_group("worker.py", copies(8)), here()], None, &["worker.py"]);
    // Of two groups that fit the later says.
    check(vec![of_group("*", copies(30)), of_group("worker.py", copies(8))], None, &["worker.py"]);
    // Wanted of one group alone.
    let mut on = Changes::default();
    on.enable(Kind::DuplicateLaunchers, true);
    check(vec![of_group("launcher.py", on)], Some(false), &["launcher.py"]);
}

fn ignore(reason: &str) -> Ignore {
    Ignore { reason: reason.to_owned(), ..Ignore::default() }
}

#[test]
fn what_is_ignored_is_found_and_counted_and_not_told() {
    let check = |ignore: Ignore, is_ignored: bool| {
        let mut scene = Scene::new(Some(100));
        scene.config.ignores = vec![ignore.clone()];
        scene.open(Role::Client, 412, 90);
        scene.name(412, "batch.py");
        scene.pass(2);
        let finding = scene.only();
        assert_eq!(finding.kind, Kind::LimitPressure);
        assert_eq!(finding.ignored.is_some(), is_ignored, "{ignore:?}");
        assert_eq!(scene.changes().is_empty(), is_ignored, "{ignore:?}");
        assert_eq!(scene.snapshot().capture.findings_ignored, u32::from(is_ignored), "{ignore:?}");
    };
    let here: Matcher = database().into();
    let there: Matcher = second_database().into();
    check(Ignore { kind: Some(Kind::LimitPressure), ..ignore("x") }, true);
    check(Ignore { kind: Some(Kind::IdleHold), ..ignore("x") }, false);
    check(Ignore { endpoints: Some(vec![there, here]), ..ignore("x") }, true);
    check(Ignore { endpoints: Some(vec![there]), ..ignore("x") }, false);
    check(Ignore { endpoints: Some(vec![]), ..ignore("a name that has never resolved") }, false);
    check(Ignore { group: Some(glob("batch*")), ..ignore("x") }, true);
    check(Ignore { group: Some(glob("batch")), ..ignore("x") }, false);
    check(Ignore { script: Some(glob("*batch.py")), ..ignore("x") }, true);
    check(Ignore { script: Some(glob("*batch.py")), kind: Some(Kind::IdleHold), ..ignore("x") }, false);
    check(Ignore { unit: Some(glob("*")), ..ignore("nobody has a unit") }, false);
    check(Ignore { kind: Some(Kind::LimitPressure), until: Some(WallTime { unix_ms: i64::MAX }), ..ignore("x") }, true);
    check(Ignore { kind: Some(Kind::LimitPressure), until: Some(WallTime { unix_ms: 0 }), ..ignore("x") }, false);
}

#[test]
fn a_finding_about_several_processes_is_ignored_only_if_the_rule_is_for_each() {
    let mut scene = Scene::new(Some(100));
    scene.config.ignores = vec![Ignore { script: Some(glob("*batch.py")), ..ignore("x") }];
    scene.open(Role::Client, 412, 60);
    scene.name(412, "batch.py");
    scene.open(Role::Client, 413, 30);
    scene.name(413, "web.py");
    scene.pass(1);
    assert_eq!(scene.only().ignored, None);
}

#[test]
fn a_rule_begins_and_ends_in_front_of_the_reader() {
    let mut scene = Scene::new(Some(100));
    let ports = scene.open(Role::Client, 412, 90);
    scene.pass(1);
    assert_eq!(scene.changes(), [Change::Opened]);
    let until = anchor().wall(scene.now.plus(Duration::from_secs(10)));
    scene.config.ignores = vec![Ignore { kind: Some(Kind::LimitPressure), until: Some(until), ..ignore("known") }];
    scene.pass(9);
    assert_eq!(scene.changes(), [Change::Opened, Change::Updated], "that it is ignored is told once");
    let told = scene.lines.last().unwrap().finding.ignored.clone().unwrap();
    assert_eq!((told.reason.as_str(), told.until), ("known", Some(until)));
    scene.pass(1);
    assert_eq!(scene.changes(), [Change::Opened, Change::Updated, Change::Opened], "it is over");
    assert_eq!(scene.only().ignored, None);
    // What nobody was told of ends in silence.
    scene.config.ignores = vec![Ignore { kind: Some(Kind::LimitPressure), ..ignore("known") }];
    scene.pass(1);
    let lines = scene.lines.len();
    scene.close(&ports);
    scene.pass(30);
    assert!(scene.findings().is_empty());
    assert_eq!(scene.lines.len(), lines);
}

#[test]
fn what_is_not_told_explains_nothing() {
    let mut scene = Scene::new(Some(20));
    for copy in 0..8 {
        let pid = 400 + copy;
        scene.starts.insert(pid, 100 + u64::from(pid) * 6_000);
        scene.open(Role::Client, pid, 2);
        scene.name(pid, "launcher.py");
    }
    scene.pass(1);
    let pressure = |scene: &Scene| scene.findings().into_iter().find(|of| of.kind == Kind::LimitPressure).unwrap();
    assert!(pressure(&scene).cause.is_some(), "the copies bring it about");
    scene.config.ignores = vec![Ignore { kind: Some(Kind::DuplicateLaunchers), ..ignore("on purpose") }];
    scene.pass(1);
    assert_eq!((pressure(&scene).cause, pressure(&scene).ignored), (None, None));
}

#[test]
fn rules_and_ports_change_while_connections_are_open() {
    let mut scene = Scene::new(Some(100));
    scene.open(Role::Client, 412, 40);
    scene.pass(1);
    assert!(scene.findings().is_empty());
    let limit = |value| Some(Limit { value, source: LimitSource::Config });
    let rule =
        EndpointRule { name: Some("ledger".to_owned()), limit: limit(40), database: Some("timescale".to_owned()) };
    let rules = Rules::new(vec![(database().into(), rule)]);
    scene.tracker.configure(PortMap::default(), rules.clone(), scene.now);
    scene.pass(1);
    let finding = scene.only();
    assert_eq!(finding.severity, Severity::Critical);
    assert!(finding.summary.starts_with("ledger 10.0.0.5:5432 40 of 40 open"), "{}", finding.summary);
    let endpoint = |scene: &Scene| scene.snapshot().endpoints.into_iter().find(|of| of.id == "10.0.0.5:5432");
    assert_eq!(endpoint(&scene).unwrap().database, "timescale");

    // The port is not watched any more: nothing is said of it, and nothing of it is left over.
    let mut others = PortMap::none();
    others.insert(3306, "mysql".to_owned());
    scene.tracker.configure(others, rules, scene.now);
    assert!(endpoint(&scene).is_none() && scene.tracker.sockets().next().is_none());
    scene.tracker.configure(PortMap::default(), Rules::default(), scene.now);
    let back = endpoint(&scene).unwrap();
    assert_eq!((back.open, back.opened_total, back.closed_total), (0, 40, 40));
    // A look finds what is still there, and that is no loss.
    scene.pass(2);
    scene.look();
    let back = endpoint(&scene).unwrap();
    assert_eq!((back.open, back.opened_total, back.closed_total, back.name.as_str()), (40, 80, 40, "10.0.0.5:5432"));
    assert_eq!(scene.tracker.loss().missed_opens, 0);
}
