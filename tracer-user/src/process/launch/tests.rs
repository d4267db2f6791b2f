//! Command lines as people start them: which are copies of each other. `EXE CWD LINE`, where `-` stands for an exe that
//! cannot be read, and a bar for a blank within a word.

use super::*;

fn launched(start: &str) -> Launched {
    let mut parts = start.splitn(3, ' ');
    let exe = parts.next().unwrap().replace('|', " ");
    let (cwd, line) = (parts.next().unwrap(), parts.next().unwrap());
    let arguments: Vec<String> = line.split(' ').map(|word| word.replace('|', " ").replace('~', "")).collect();
    let exe = match exe.as_str() {
        "-" => None,
        "py" => Some("/usr/bin/python3.11"),
        "node" => Some("/usr/bin/node"),
        "java" => Some("/usr/lib/jvm/java-17/bin/java"),
        "ruby" => Some("/usr/bin/ruby3.1"),
        "sh" => Some("/usr/bin/dash"),
        path => Some(path),
    };
    Launched::of(&Seen { exe, comm: "c", cwd: Some(cwd), uid: Some(1000), arguments: &arguments })
}

/// Each row: starts of one launcher. All in a row share a group; no two rows do.
const LAUNCHERS: &[&[&str]] = &[
    &[
        "py /srv/app python3 route_builder_launcher.py --port 8001",
        "py /srv/app python3 -u route_builder_launcher.py --port 9999",
        "py /srv/app python3 -X dev -W ignore ./route_builder_launcher.py --port 1",
        "py / /srv/venv/bin/python /srv/app/route_builder_launcher.py --port 2",
        "/usr/bin/python3.12 /srv/app python3.12 route_builder_launcher.py --port 3",
        "/usr/bin/python3.11|(deleted) /srv/app python3 route_builder_launcher.py --port 4",
        "/usr/bin/nohup /srv/app nohup python3 route_builder_launcher.py --port 5",
        "/usr/bin/timeout /srv/app timeout -k 5 1h nice -n 5 python3 route_builder_launcher.py --port 6",
        "/usr/bin/uv /srv/app uv run route_builder_launcher.py --port 7",
        "/usr/bin/uv /srv/app uv run python route_builder_launcher.py --port 7",
        "py /srv/app /usr/bin/python3 /usr/bin/poetry run python route_builder_launcher.py --port 8",
        "py /srv/app /usr/bin/python3 /usr/bin/pipenv run python route_builder_launcher.py --port 8",
        "sh /srv/app sh -c exec|python3|route_builder_launcher.py|--port|9",
        "sh /srv/app sh -c python3|route_builder_launcher.py|--port|9",
        "/usr/bin/sudo / sudo -u app -- python3 /srv/app/route_builder_launcher.py --port 10",
        "/usr/bin/env /srv/app env A=b python3 route_builder_launcher.py --port 11",
        "- /srv/app python3 route_builder_launcher.py --port 12",
    ],
    &["py /srv/app python3 route_builder_launcher.py", "py /srv/app python3 -O route_builder_launcher.py"],
    &["py /srv/app python3 route_builder_launcher.py --port 8001 -v"],
    &["py /srv/app python3 other.py --port 8001"],
    &["py /srv/app2 python3 route_builder_launcher.py --port 8001"],
    &[
        "py /srv/shop/releases/2026-11-01/app python3 job.py --id 7",
        "py /srv/shop/releases/2026-11-20/app /srv/shop/releases/2026-11-20/venv/bin/python job.py --id 8",
        "py /srv/shop/current/app python3 job.py --id 9",
        "py / python3 /srv/shop/releases/blue/app/job.py --id 10",
    ],
    &["py /srv/crm/releases/2026-11-01/app python3 job.py --id 7"],
    &["py /opt/etl/20261101120000 python3 job.py", "py /opt/etl/20261120000000 python3 job.py"],
    &["py /opt/ci/3f1c2b9 python3 job.py", "py /opt/ci/a1b2c3d4e5 python3 job.py"],
    &["py /srv/tenants/17 python3 job.py"],
    &["py /srv/tenants/18 python3 job.py"],
    &[
        "py /srv/app python3 -m app.worker --queue high --id 1",
        "py /srv/app python3 -X dev -m app.worker --queue high --id 2",
        "/usr/bin/uv /srv/app uv run python -m app.worker --queue high --id 3",
    ],
    &["py /srv/app python3 -m app.worker --queue low --id 1"],
    &["py /srv/b python3 -m app.worker --queue high --id 1"],
    &[
        "py /srv/app /srv/app/venv/bin/python /srv/app/venv/bin/gunicorn app:app --bind 0.0.0.0:8000",
        "py /srv/app /opt/venv/bin/python /opt/venv/bin/gunicorn app:app --bind 127.0.0.1:8001",
        "py /srv/app python3 -m gunicorn app:app --bind 0.0.0.0:8002",
        "/usr/bin/uv /srv/app uv run gunicorn app:app --bind 0.0.0.0:8003",
    ],
    &["py /srv/b /opt/venv/bin/python /opt/venv/bin/gunicorn app:app --bind 127.0.0.1:8001"],
    &["py /srv/app /opt/venv/bin/python /opt/venv/bin/gunicorn admin:app --bind 127.0.0.1:8001"],
    &["py /srv/app gunicorn:|worker|[app] ~ ~ ~", "py /srv/app gunicorn:|worker|[app] ~ ~"],
    &["py /srv/app celeryd:|celery@host1:ForkPoolWorker-1", "py /srv/app celeryd:|celery@host1:ForkPoolWorker-2"],
    &["py /srv/app python3 -c code1", "py /srv/app python3 -c code1 ~"],
    &["py /srv/app python3 -c import|x"],
    &[
        "node /srv/api node server.js --id=a1b2c3d4e5f6",
        "node /srv/api node --max-old-space-size=4096 -r dotenv/config server.js --id=0f9e8d7c6b5a",
        "/root/.nvm/versions/node/v20.1.0/bin/node /srv/api /root/.nvm/versions/node/v20.1.0/bin/node server.js --id=1234567890ab",
        "sh /srv/api sh -c node|server.js|--id=1234567890ab",
    ],
    &["node /srv/api node dist/server.js --id=a1b2c3d4e5f6"],
    &["node /srv/api node worker.js"],
    &[
        "node /srv/api node /srv/api/node_modules/.bin/ts-node server.ts",
        "node /srv/api node /usr/bin/npx ts-node server.ts",
        "node /srv/api npm|exec|ts-node|server.ts ~ ~",
        "node /srv/api node /usr/lib/node_modules/npm/bin/npm-cli.js exec -- ts-node server.ts",
    ],
    &["node /srv/web node /srv/web/node_modules/.bin/ts-node server.ts"],
    &["node /srv/web node /srv/web/node_modules/vite/bin/vite.js --port 1", "node /srv/web npx vite --port 2"],
    &[
        "java /srv/app java -Xmx1g -jar app-1.4.2.jar --server.port=8080",
        "java /srv/app java -Xmx2g -XX:+UseG1GC -jar app-1.4.3-SNAPSHOT.jar --server.port=8081",
    ],
    &["java /srv/app java -jar batch-1.4.2.jar --server.port=8080"],
    &[
        "java /srv java -cp lib/a-1.0.jar:lib/b-2.1.jar -Dport=1 com.example.Main x",
        "java /srv java -Xms1g -cp lib/a-1.1.jar:lib/b-2.2.jar -Dport=2 com.example.Main x",
    ],
    &["java /srv java -cp lib/a-1.0.jar:lib/b-2.1.jar -Dport=1 com.example.Other x"],
    &["java /srv java -cp lib/c-1.0.jar -Dport=1 com.example.Main x"],
    &[
        "ruby /srv/app ruby /srv/app/bin/rails runner Job.run",
        "ruby /srv/app ruby /usr/local/bin/bundle exec rails runner Job.run",
        "/usr/bin/ruby3.3 /srv/app ruby -W0 bin/rails runner Job.run",
    ],
    &["ruby /srv/app ruby bin/rails runner Other.run"],
    &[
        "/usr/bin/php8.2 /srv php artisan queue:work --tries=3",
        "/usr/bin/php8.3 /srv php -d memory_limit=1G artisan queue:work --tries=5",
    ],
    &["/usr/bin/php8.2 /srv php artisan schedule:work"],
    &[
        "/usr/bin/perl /srv perl -w report.pl --day 2026-11-01",
        "/usr/bin/perl5.36.0 /srv perl report.pl --day 2026-11-20",
    ],
    &["/usr/bin/dotnet /srv dotnet App.dll --port 1", "/usr/bin/dotnet /srv dotnet exec App.dll --port 2"],
    &["/usr/bin/bash /srv bash run.sh --run 1", "/usr/bin/bash /srv bash -e ./run.sh --run 2"],
    &["/opt/app-1.4.2/bin/app / app -c /etc/app.toml", "/opt/app-1.5.0/bin/app / app -c /etc/app.toml"],
    &["/opt/app-1.4.2/bin/app / app -c /etc/other.toml"],
    &[
        "/usr/bin/app / app --job 123e4567-e89b-12d3-a456-426614174000 --tmp /tmp/tmpab12cd34/x",
        "/usr/bin/app / app --job 00000000-e89b-12d3-a456-426614174000 --tmp /tmp/tmpzz99yy88/x",
        "/usr/bin/timeout / timeout 60 /usr/bin/app --job 123e4567-e89b-12d3-a456-426614174009 --tmp /tmp/tmpab12cd35/x",
    ],
    &["/usr/bin/app / app --job a --tmp /tmp/queue-a", "/usr/bin/app / app --job a --tmp /tmp/queue-a ~"],
    &["/usr/bin/app / app --job a --tmp /tmp/queue-b"],
    &["/usr/bin/app / app postgres://u@db1/x"],
    &["/usr/bin/app / app postgres://u@db2/x"],
];

/// Different jobs that a group cannot tell apart: only their numbers differ. What was started by plan is told by its
/// unit, its supervisor or its moment.
const FALSE_MERGES: &[(&str, &str)] = &[
    ("py /srv python3 crawl.py --shard 1", "py /srv python3 crawl.py --shard 2"),
    ("/usr/bin/app / app -c /etc/app/1.toml", "/usr/bin/app / app -c /etc/app/2.toml"),
    ("/usr/bin/app / app 10.0.0.5:5432", "/usr/bin/app / app 10.0.0.6:5432"),
    ("py /srv/releases/blue python3 job.py", "py /srv/releases/green python3 job.py"),
];

#[test]
fn copies_share_a_group_and_others_do_not() {
    let lines: usize = LAUNCHERS.iter().map(|row| row.len()).sum::<usize>() + 2 * FALSE_MERGES.len();
    assert!(lines >= 80, "{lines}");
    let mut seen = std::collections::BTreeMap::<String, &str>::new();
    for row in LAUNCHERS {
        let first = launched(row[0]).group;
        for start in *row {
            let group = launched(start).group;
            assert_eq!(group.id, first.id, "{start}\nis no copy of\n{}", row[0]);
        }
        if let Some(other) = seen.insert(first.id, row[0]) {
            panic!("{}\nis a copy of\n{other}", row[0]);
        }
    }
    for (one, other) in FALSE_MERGES {
        assert_eq!(launched(one).group.id, launched(other).group.id, "no false merge any more: {one}");
    }
}

#[test]
fn groups_are_called_what_people_call_them() {
    let check = |start: &str, label: &str, script: Option<&str>| {
        let launched = launched(start);
        assert_eq!((launched.group.label.as_str(), launched.script.as_deref()), (label, script), "{start}");
    };
    check("py /srv python3 job.py", "job.py", Some("/srv/job.py"));
    check("/usr/bin/timeout /srv timeout 5 python3 job.py", "job.py", Some("/srv/job.py"));
    check("py /srv python3 -m app.worker", "app.worker", Some("app.worker"));
    check("py /srv /opt/venv/bin/python /opt/venv/bin/gunicorn a:b", "gunicorn", Some("/opt/venv/bin/gunicorn"));
    check("py /srv gunicorn:|worker|[app]", "gunicorn", None);
    check("py /srv python3", "python3.11", None);
    check("/usr/sbin/mysqld / mysqld", "mysqld", None);
    check("/opt/app|(deleted) / app", "app", None);
    check("- / ~", "c", None);
}

#[test]
fn users_are_told_apart_and_secrets_do_not_count() {
    let group = |uid, secret: &str| {
        let arguments = ["app", "--password", secret].map(str::to_owned);
        let seen = Seen { exe: Some("/usr/bin/app"), comm: "app", cwd: None, uid: Some(uid), arguments: &arguments };
        Launched::of(&seen).group
    };
    assert_eq!(group(1, "hunter2"), group(1, "letmein"));
    assert_ne!(group(1, "hunter2"), group(2, "hunter2"));
}

#[test]
fn a_master_runs_the_program_of_its_workers() {
    let check = |worker: &str, parent: &str, expected: bool| {
        assert_eq!(launched(worker).is_child_of_same(&launched(parent)), expected, "{worker}\n{parent}");
    };
    let gunicorn = "py /srv python3 /opt/venv/bin/gunicorn app:app";
    check(gunicorn, gunicorn, true);
    check("py /srv gunicorn:|worker|[app]", "py /srv gunicorn:|master|[app]", true);
    check("node /srv /usr/bin/node /srv/server.js", "node /srv node server.js", true);
    check("/usr/sbin/php-fpm8.2 / php-fpm:|pool|www", "/usr/sbin/php-fpm8.2 / php-fpm:|master|process", true);
    // What multiprocessing starts.
    check("py /srv python3 -c from|multiprocessing.spawn|import|spawn_main", "py /srv python3 job.py", true);
    // A scheduler that starts jobs, a shell, a service manager, npm.
    check("py /srv python3 job.py", "py /srv python3 scheduler.py", false);
    check("py /srv python3 job.py", "py /srv python3", false);
    check("py /srv python3 job.py", "/usr/bin/bash /srv bash", false);
    check("py /srv python3 job.py", "/usr/lib/systemd/systemd / /sbin/init", false);
    check("node /srv node server.js", "node /srv npm|run|start ~ ~", false);
    check("node /srv next-server|(v14)", "node /srv npm|run|start", false);
    check("- /srv python3 job.py", "- /srv python3 job.py", false);
}
