//! `headroom_forecast`: when an endpoint is full, and growth from which that cannot be told.

use tracer_core::event::Role;
use tracer_core::finding::{Change, Finding, Kind, Severity};
use tracer_core::snapshot::Loss;

use crate::scene::{Scene, number};

fn forecasts(scene: &Scene) -> Vec<Finding> {
    scene.findings().into_iter().filter(|finding| finding.kind == Kind::HeadroomForecast).collect()
}

fn changes(scene: &Scene) -> Vec<Change> {
    let lines = scene.lines.iter().filter(|line| line.finding.kind == Kind::HeadroomForecast);
    lines.map(|line| line.change).filter(|change| *change != Change::Updated).collect()
}

/// A scene in which growth is told from the first connection on.
fn at_any_height(limit: Option<u32>) -> Scene {
    let mut scene = Scene::new(limit);
    scene.config.set(Kind::HeadroomForecast, "from_percent", 0).unwrap();
    scene
}

/// Time in minutes, with a look and a pass each; `each` says how many more to open, all of them in use.
fn minutes(scene: &mut Scene, pool: &mut Vec<u16>, count: u64, mut each: impl FnMut(u64) -> u16) {
    for minute in 0..count {
        pool.extend(scene.open(Role::Client, 412, each(minute)));
        scene.request(pool);
        scene.look();
        scene.pass_at_once(60);
    }
}

#[test]
fn headroom_forecast_gives_an_interval_for_steady_growth() {
    let mut scene = at_any_height(Some(100));
    let mut pool = scene.open(Role::Client, 412, 5);
    minutes(&mut scene, &mut pool, 400, |minute| u16::from(minute % 10 == 3 || minute == 77));
    let finding = forecasts(&scene).remove(0);
    assert_eq!((finding.severity, finding.subject.endpoint.as_deref()), (Severity::Info, Some("10.0.0.5:5432")));
    assert!(
        finding.summary.starts_with("orders-db 10.0.0.5:5432 46 of 100 open, +6/h, full in"),
        "{}",
        finding.summary
    );
    assert_eq!(number(&finding, "limit"), 100);
    assert!(finding.summary.contains("9 h"), "54 are left at 6 an hour: {}", finding.summary);
}

#[test]
fn headroom_forecast_of_a_leak_is_a_warning_that_names_it() {
    let mut scene = Scene::new(Some(600));
    for second in 0..240 {
        if second % 2 == 0 {
            scene.open(Role::Client, 412, 1);
            scene.name(412, "worker.py");
        }
        scene.pass_looking_from(second, 1);
    }
    let finding = forecasts(&scene).remove(0);
    assert_eq!((finding.severity, &finding.subject.pids), (Severity::Warning, &vec![412]));
    assert!(finding.summary.ends_with("; worker.py (pid 412) leaks"), "{}", finding.summary);
}

#[test]
fn headroom_forecast_gives_way_to_limit_pressure() {
    let mut scene = at_any_height(Some(100));
    let mut pool = scene.open(Role::Client, 412, 40);
    minutes(&mut scene, &mut pool, 38, |_| 1);
    assert_eq!(forecasts(&scene).len(), 1);
    minutes(&mut scene, &mut pool, 12, |_| 1);
    assert!(forecasts(&scene).is_empty());
    assert_eq!(changes(&scene), [Change::Opened, Change::Resolved]);
    assert!(scene.findings().iter().any(|finding| finding.kind == Kind::LimitPressure));
}

#[test]
fn headroom_forecast_clears_once_when_growth_stops() {
    let mut scene = at_any_height(Some(200));
    let mut pool = scene.open(Role::Client, 412, 5);
    minutes(&mut scene, &mut pool, 60, |_| 1);
    assert_eq!(forecasts(&scene).len(), 1);
    minutes(&mut scene, &mut pool, 600, |_| 0);
    assert_eq!(changes(&scene), [Change::Opened, Change::Resolved], "{:#?}", scene.lines);
    let last = &scene.lines.iter().rfind(|line| line.change == Change::Resolved).unwrap().finding;
    assert!(last.summary.contains("65 of 200 open, not growing as it was"), "{}", last.summary);
}

#[test]
fn headroom_forecast_is_less_sure_after_loss() {
    let mut scene = at_any_height(Some(200));
    let mut pool = scene.open(Role::Client, 412, 5);
    minutes(&mut scene, &mut pool, 60, |_| 1);
    let before = forecasts(&scene).remove(0).confidence;
    scene.tracker.note_loss(Loss { ring_full: 5, ..Loss::default() }, scene.now);
    scene.pass(1);
    assert!(forecasts(&scene)[0].confidence < before);
}

/// Nothing may be forecast.
fn silent(what: &str, limit: Option<u32>, count: u64, each: impl FnMut(u64) -> u16) {
    let mut scene = at_any_height(limit);
    let mut pool = scene.open(Role::Client, 412, 5);
    minutes(&mut scene, &mut pool, count, each);
    assert!(changes(&scene).is_empty(), "{what}: {:#?}", forecasts(&scene));
}

#[test]
fn headroom_forecast_is_silent_where_none_can_be_made() {
    silent("no limit", None, 60, |_| 1);
    silent("a step", Some(100), 200, |minute| if minute == 50 { 20 } else { 0 });
    silent("too slow for a day", Some(10_000), 300, |minute| u16::from(minute % 10 == 0));
    silent("flattening", Some(100), 200, |minute| [16, 8, 4, 2, 1].get(minute as usize).copied().unwrap_or(0));
}

#[test]
fn headroom_forecast_is_silent_for_a_count_that_comes_back() {
    let mut scene = at_any_height(Some(100));
    let mut pool = scene.open(Role::Client, 412, 60);
    minutes(&mut scene, &mut pool, 30, |_| 0);
    scene.close(&pool);
    pool.clear();
    minutes(&mut scene, &mut pool, 40, |minute| if minute < 20 { 3 } else { 0 });
    assert!(changes(&scene).is_empty(), "{:#?}", scene.lines);
}

#[test]
fn headroom_forecast_waits_for_half_of_the_limit_unless_a_leak_explains_the_growth() {
    let mut scene = Scene::new(Some(100));
    let mut pool = scene.open(Role::Client, 412, 5);
    minutes(&mut scene, &mut pool, 40, |_| 1);
    assert!(changes(&scene).is_empty(), "at 45 of 100: {:#?}", forecasts(&scene));
    minutes(&mut scene, &mut pool, 10, |_| 1);
    assert_eq!(changes(&scene), [Change::Opened]);
}
