//! `connection_leak`: the staircase, and all that looks like one for a while.

use tracer_core::event::Role;
use tracer_core::finding::{Change, Finding, Kind, Severity};
use tracer_core::snapshot::Loss;

use crate::scene::{Scene, number};

/// One connection every `period` seconds, used once, for that long; the seconds until it was found.
fn leak(scene: &mut Scene, pid: u32, period: u64, seconds: u64) -> Option<u64> {
    for second in 0..seconds {
        if second % period == 0 {
            let one = scene.open(Role::Client, pid, 1);
            scene.exchange(&one);
        }
        scene.pass_looking_from(second, 1);
        if !leaks(scene).is_empty() {
            return Some(second + 1);
        }
    }
    None
}

fn leaks(scene: &Scene) -> Vec<Finding> {
    scene.findings().into_iter().filter(|finding| finding.kind == Kind::ConnectionLeak).collect()
}

fn ever_leaked(scene: &Scene) -> Vec<&str> {
    let leaks = scene.lines.iter().filter(|line| line.finding.kind == Kind::ConnectionLeak);
    leaks.map(|line| line.finding.summary.as_str()).collect()
}

fn changes(scene: &Scene) -> Vec<Change> {
    let leaks = scene.lines.iter().filter(|line| line.finding.kind == Kind::ConnectionLeak);
    leaks.map(|line| line.change).filter(|change| *change != Change::Updated).collect()
}

#[test]
fn connection_leak_of_one_every_2_s_is_found_within_60_s() {
    for phase in 0..10 {
        let mut scene = Scene::new(None);
        scene.pass_looking(phase);
        scene.name(412, "worker.py");
        let found = leak(&mut scene, 412, 2, 90);
        assert!(found.is_some_and(|seconds| seconds <= 60), "phase {phase}: {found:?}");
        let finding = leaks(&scene).remove(0);
        assert_eq!((finding.severity, &finding.subject.pids), (Severity::Warning, &vec![412]));
        assert!(number(&finding, "idle") >= 10 && number(&finding, "step") == 10, "{finding:?}");
        assert!(finding.summary.contains(", +30/min"), "{}", finding.summary);
        assert!(finding.confidence > 0.7, "{}", finding.confidence);
    }
}

#[test]
fn connection_leak_of_one_an_hour_is_found_in_a_day() {
    let mut scene = Scene::new(None);
    scene.open(Role::Client, 412, 5);
    let found = (0..24 * 60).find(|minute| {
        if minute % 60 == 59 {
            let one = scene.open(Role::Client, 412, 1);
            scene.exchange(&one);
        }
        for _ in 0..6 {
            scene.look();
            scene.pass_at_once(10);
        }
        !leaks(&scene).is_empty()
    });
    let finding = leaks(&scene).remove(0);
    assert!(found.is_some() && number(&finding, "step") == 3_600, "{finding:?}");
    assert!(finding.summary.contains("+1/h") || finding.summary.contains("+1.0/h"), "{}", finding.summary);
}

#[test]
fn connection_leak_beneath_a_busy_pool_is_found() {
    let mut scene = Scene::new(None);
    let pool = scene.open(Role::Client, 412, 20);
    for second in 0..3_000 {
        // Between 2 and 17 are busy, the last used first.
        let busy = 2 + usize::try_from(second * 7 % 16).unwrap();
        scene.exchange(&pool[pool.len() - busy..]);
        if second > 600 && second % 30 == 0 {
            let one = scene.open(Role::Client, 412, 1);
            scene.exchange(&one);
        }
        scene.pass_looking_from(second, 1);
    }
    let finding = leaks(&scene).remove(0);
    assert!(number(&finding, "idle") > 60, "{finding:?}");
}

#[test]
fn connection_leak_by_a_session_kept_each_loop_names_that_script_only() {
    let mut scene = Scene::new(None);
    scene.name(500, "sync.py");
    let healthy = scene.open(Role::Client, 501, 10);
    let mut sessions = Vec::new();
    for second in 0..1_500 {
        if second % 60 == 0 {
            sessions = scene.open(Role::Client, 500, 1);
        }
        // The session is used half of its minute.
        if second % 60 < 30 {
            scene.exchange(&sessions);
        }
        scene.exchange(&healthy[..4]);
        scene.pass_looking_from(second, 1);
    }
    assert_eq!(leaks(&scene).iter().map(|finding| finding.subject.pids.clone()).collect::<Vec<_>>(), [vec![500]]);
}

#[test]
fn connection_leak_is_critical_when_the_limit_is_an_hour_away() {
    let mut scene = Scene::new(Some(400));
    leak(&mut scene, 412, 2, 90).unwrap();
    assert_eq!(leaks(&scene)[0].severity, Severity::Critical);
    let mut far = Scene::new(Some(100_000));
    leak(&mut far, 412, 2, 90).unwrap();
    assert_eq!(leaks(&far)[0].severity, Severity::Warning);
}

#[test]
fn connection_leak_stays_open_through_a_pause_and_clears_when_they_are_closed() {
    let mut scene = Scene::new(None);
    let mut all = Vec::new();
    let mut step = |scene: &mut Scene, seconds: u64, leaking: bool| {
        for second in 0..seconds {
            if leaking && second % 2 == 0 {
                let one = scene.open(Role::Client, 412, 1);
                all.extend(one);
            }
            scene.pass_looking_from(second, 1);
        }
        std::mem::take(&mut all)
    };
    let mut ports = step(&mut scene, 120, true);
    step(&mut scene, 900, false);
    ports.extend(step(&mut scene, 60, true));
    assert_eq!(changes(&scene), [Change::Opened], "{:#?}", ever_leaked(&scene));
    scene.close(&ports[..80]);
    step(&mut scene, 40, false);
    assert_eq!(changes(&scene), [Change::Opened, Change::Resolved]);
    let last = &scene.lines.iter().rfind(|line| line.finding.kind == Kind::ConnectionLeak).unwrap().finding;
    assert!(last.summary.contains("has 10 connections to orders-db open, no longer climbing"), "{}", last.summary);
    step(&mut scene, 900, false);
    assert_eq!(changes(&scene), [Change::Opened, Change::Resolved]);
}

#[test]
fn connection_leak_ends_with_its_process() {
    let mut scene = Scene::new(None);
    leak(&mut scene, 412, 2, 90).unwrap();
    scene.exit(412);
    scene.pass_looking(30);
    assert!(leaks(&scene).is_empty());
    let last = &scene.lines.iter().rfind(|line| line.finding.kind == Kind::ConnectionLeak).unwrap().finding;
    assert!(last.summary.contains("holds no connection to orders-db any more"), "{}", last.summary);
}

#[test]
fn connection_leak_survives_loss_with_less_confidence() {
    let mut scene = Scene::new(None);
    leak(&mut scene, 412, 2, 90).unwrap();
    let before = leaks(&scene).remove(0);
    scene.tracker.note_loss(Loss { ring_full: 5, ..Loss::default() }, scene.now);
    scene.pass(1);
    let after = leaks(&scene).remove(0);
    assert!(after.confidence < before.confidence && after.id == before.id);
}

#[test]
fn connection_leak_after_a_restart_that_freed_a_climb_is_surer() {
    let mut scene = Scene::new(None);
    scene.name(412, "worker.py");
    let mut sure = Vec::new();
    for pid in [412, 413] {
        scene.open(Role::Client, pid, 1);
        scene.name(pid, "worker.py");
        leak(&mut scene, pid, 2, 120).unwrap();
        sure.push(leaks(&scene)[0].confidence);
        scene.pass_looking(10);
        scene.exit(pid);
        scene.pass_looking(30);
    }
    assert!(sure[1] > sure[0] + 0.05, "{sure:?}");
}

/// Every second `each` opens and uses; looks as always; nothing may be called a leak.
fn silent(what: &str, seconds: u64, mut each: impl FnMut(&mut Scene, u64)) {
    let mut scene = Scene::new(Some(1_000));
    for second in 0..seconds {
        each(&mut scene, second);
        scene.pass_looking_from(second, 1);
    }
    assert!(ever_leaked(&scene).is_empty(), "{what}: {:#?}", ever_leaked(&scene));
}

#[test]
fn connection_leak_is_silent_for_a_warm_up() {
    silent("to a plateau at once", 600, |scene, second| {
        if second < 20 {
            scene.open(Role::Client, 412, 1);
        }
    });
    silent("that flattens", 1_200, |scene, second| {
        // 40 in all, half of the rest each half minute, and nobody uses them.
        let reached =
            |second: u64| (40.0 * (1.0 - 0.5f64.powf(f64::from(u32::try_from(second).unwrap()) / 30.0))) as u16;
        let more = reached(second + 1) - reached(second);
        scene.open(Role::Client, 412, more);
    });
}

#[test]
fn connection_leak_is_silent_for_a_ramp_whose_connections_are_in_use() {
    let mut pool = Vec::new();
    silent("the last used first", 1_800, |scene, second| {
        if second % 10 == 0 {
            pool.extend(scene.open(Role::Client, 412, 1));
        }
        // When another opens all are taken; in between fewer are.
        let busy = if second % 10 == 0 { pool.len() } else { pool.len() * 2 / 3 };
        scene.exchange(&pool[pool.len() - busy..]);
    });
    let mut pool = Vec::new();
    silent("in turns", 1_800, |scene, second| {
        if second % 20 == 0 {
            pool.extend(scene.open(Role::Client, 412, 1));
        }
        let some = pool.len().min(2);
        pool.rotate_left(some);
        scene.exchange(&pool[..some]);
    });
}

#[test]
fn connection_leak_is_silent_for_a_sawtooth() {
    let mut pool = Vec::new();
    silent("every two minutes", 3_600, |scene, second| {
        if second % 120 == 110 {
            scene.close(&std::mem::take(&mut pool));
        } else if second % 120 < 60 && second % 2 == 0 {
            pool.extend(scene.open(Role::Client, 412, 1));
            let all = pool.clone();
            scene.exchange(&all);
        }
    });
}

#[test]
fn connection_leak_is_silent_for_a_bigger_pool_and_for_one_that_grows_a_step() {
    silent("a step up", 3_600, |scene, second| match second {
        0 => drop(scene.open(Role::Client, 412, 10)),
        1_800 => drop(scene.open(Role::Client, 412, 20)),
        _ => {}
    });
    silent("a deploy", 3_600, |scene, second| match second {
        0 => drop(scene.open(Role::Client, 412, 10)),
        1_800 => {
            scene.exit(412);
            scene.open(Role::Client, 413, 40);
        }
        _ => {}
    });
}

#[test]
fn connection_leak_is_silent_for_a_cron_job_and_a_batch() {
    let mut jobs = 0;
    silent("a process a minute", 3_600, |scene, second| match second % 60 {
        0 => {
            jobs += 1;
            let ports = scene.open(Role::Client, 1_000 + jobs, 3);
            scene.exchange(&ports);
        }
        20 => scene.exit(1_000 + jobs),
        _ => {}
    });
    let mut threads = Vec::new();
    silent("a batch that adds workers", 2_400, |scene, second| match second {
        0..600 => {
            if second % 20 == 0 {
                threads.extend(scene.open(Role::Client, 412, 1));
            }
            if second % 5 == 0 {
                scene.exchange(&threads);
            }
        }
        600 => scene.exit(412),
        _ => {}
    });
}

#[test]
fn connection_leak_is_silent_for_idle_members_that_take_turns_or_are_replaced() {
    let mut pool = Vec::new();
    silent("replaced by age", 7_200, |scene, second| {
        if second < 10 {
            pool.extend(scene.open(Role::Client, 412, 1));
        } else if second % 60 == 0 {
            let oldest: Vec<u16> = pool.drain(..1).collect();
            scene.close(&oldest);
            pool.extend(scene.open(Role::Client, 412, 1));
        }
    });
    let mut pool = Vec::new();
    silent("filled again one by one after its database restarted", 3_600, |scene, second| {
        match second {
            0 => pool = scene.open(Role::Client, 412, 30),
            1_000 => scene.close(&std::mem::take(&mut pool)),
            1_001..1_100 if second % 3 == 0 && pool.len() < 30 => pool.extend(scene.open(Role::Client, 412, 1)),
            _ => {}
        };
        if second % 10 == 0 && !pool.is_empty() {
            pool.rotate_left(1);
            scene.exchange(&pool[..1]);
        }
    });
}
