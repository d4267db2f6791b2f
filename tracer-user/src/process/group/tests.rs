use super::*;

#[test]
fn arguments_are_normalised() {
    #[track_caller]
    fn check(argument: &str, expected: &str) {
        assert_eq!(normalise(argument), expected);
    }
    check("", "");
    check("--port=8080", "--port={n}");
    check("8080", "{n}");
    check("-1", "-{n}");
    check("10.0.0.5:5432", "{n}.{n}.{n}.{n}:{n}");
    check("0x1F", "{hex}");
    check("0x", "0x");
    check("deadbeef", "deadbeef");
    check("deadbee1", "{hex}");
    check("a1b2c3", "a1b2c3");
    check("--run-id=9f8e7d6c5b4a", "--run-id={hex}");
    check("123e4567-e89b-12d3-a456-426614174000", "{uuid}");
    check("job-123e4567-e89b-12d3-a456-426614174000.log", "job-{uuid}.log");
    check("123e4567-e89b-12d3-a456-4266141740001", "{hex}-e89b-12d3-a456-{n}");
    check("--since=2026-11-21", "--since={date}");
    check("2026-11-21T03:33:35.250Z", "{date}");
    check("2026-11-21T03:33:35+01:00,x", "{date},x");
    check("2026-11-21 03:33:35", "{date}");
    check("2026-11-210", "{n}-{n}-{n}");
    check("log_2026-11-21_7.txt", "log_{date}_{n}.txt");
    check("worker-17", "worker-{n}");
    check("queue2", "queue2");
    check("sha256", "sha256");
    check("--level=utf8", "--level=utf8");
    check("größe=12", "größe={n}");
    check("٣", "٣");
    check("/srv/app/v2/main.py", "/srv/app/v2/main.py");
    check(&"7".repeat(5_000), "{n}");
    check(&"é-".repeat(5_000), normalise(&"é-".repeat(9_000)).as_str());
}

fn group(program: &str, script: Option<&str>, uid: u32, arguments: &[&str]) -> LauncherGroup {
    let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
    launcher_group(&Launch { program, script, place: None, uid: Some(uid), arguments: &arguments, label: "job.py" })
}

#[test]
fn fields_do_not_run_into_each_other() {
    let same = |one: &LauncherGroup, other: &LauncherGroup, expected: bool| assert_eq!(one == other, expected);
    same(&group("/a", Some("bc"), 1, &["d", "e"]), &group("/a", Some("b"), 1, &["cd", "e"]), false);
    same(&group("/a", None, 1, &["d", "e"]), &group("/a", None, 1, &["de"]), false);
    same(&group("/a", None, 1, &["q1"]), &group("/a", None, 1, &["q2"]), false);
    same(&group("/a", None, 1, &["1"]), &group("/a", None, 1, &["2"]), true);
    same(&group("/a", None, 1, &[]), &group("/a", None, 2, &[]), false);
    same(&group("/a", None, 1, &[]), &group("/b", None, 1, &[]), false);
}

#[test]
fn the_id_never_changes() {
    let group = group("python", Some("/srv/job.py"), 1000, &["--shard", "7"]);
    assert_eq!((group.id.as_str(), group.label.as_str()), ("c31efd2355954c18", "job.py"));
}
