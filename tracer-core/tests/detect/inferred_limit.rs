//! A limit that shows from where clients are turned away: what snapshots, forecasts and a restart make of it.

use tracer_core::event::Role;
use tracer_core::finding::{EvidenceValue, Kind};
use tracer_core::snapshot::{Limit, LimitSource};

use crate::limit_pressure::fill_twice;
use crate::scene::{Scene, number};

fn limit(scene: &Scene) -> Option<Limit> {
    let endpoint = scene.snapshot().endpoints.into_iter().find(|endpoint| endpoint.role == Role::Client);
    endpoint.unwrap().limit
}

const INFERRED: Option<Limit> = Some(Limit { value: 40, source: LimitSource::Inferred });

#[test]
fn snapshots_show_an_inferred_limit_where_none_was_told() {
    let mut scene = Scene::new(None);
    scene.open(Role::Client, 412, 5);
    assert_eq!(limit(&scene), None);
    fill_twice(&mut scene, [35, 60]);
    assert_eq!(limit(&scene), None, "at two heights");
    let mut scene = Scene::new(None);
    fill_twice(&mut scene, [40, 40]);
    assert_eq!(limit(&scene), INFERRED);
    scene.pass_at_once(86_401);
    assert_eq!(limit(&scene), None, "it is of yesterday");
}

#[test]
fn what_was_told_goes_before_what_shows() {
    let mut scene = Scene::new(Some(100));
    fill_twice(&mut scene, [40, 40]);
    assert_eq!(limit(&scene), Some(Limit { value: 100, source: LimitSource::Config }));
}

#[test]
fn a_forecast_goes_by_an_inferred_limit_and_says_about() {
    let mut scene = Scene::new(None);
    scene.config.set(Kind::HeadroomForecast, "from_percent", 0).unwrap();
    fill_twice(&mut scene, [40, 40]);
    scene.exit(412);
    scene.pass_at_once(3_600);
    let mut pool = Vec::new();
    for _ in 0..30 {
        pool.extend(scene.open(Role::Client, 413, 1));
        scene.request(&pool);
        scene.look();
        scene.pass_at_once(60);
    }
    let findings = scene.findings();
    let forecast = findings.iter().find(|finding| finding.kind == Kind::HeadroomForecast).unwrap();
    assert!(forecast.summary.contains(" 30 of about 40 open, +1/min"), "{}", forecast.summary);
    assert_eq!(number(forecast, "limit"), 40);
    let source = forecast.evidence.iter().find(|evidence| evidence.fact == "limit_source").unwrap();
    assert_eq!(source.value, EvidenceValue::Text("inferred".to_owned()));
    assert!(forecast.confidence <= 0.7, "{}", forecast.confidence);
}

#[test]
fn an_inferred_limit_outlives_a_restart() {
    let mut scene = Scene::new(None);
    fill_twice(&mut scene, [40, 40]);
    scene.restart();
    scene.first_look();
    assert_eq!(limit(&scene), INFERRED);
}
