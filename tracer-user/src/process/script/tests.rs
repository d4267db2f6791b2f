use super::*;

/// `line` is split at blanks; `expected` is what is run, with `:` before a name, and empty for nothing. `after` are the
/// program's own arguments.
#[track_caller]
fn check(exe: &str, line: &str, expected: &str, after: &str) {
    let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
    let found = find((!exe.is_empty()).then_some(exe), &arguments);
    let shown = found.as_ref().map(|script| match &script.target {
        Target::File(path) => path.clone(),
        Target::Name(name) => format!(":{name}"),
    });
    assert_eq!(shown.unwrap_or_default(), expected, "{line}");
    let rest = found.map_or(String::new(), |script| arguments[script.at + 1..].join(" "));
    assert_eq!(rest, after, "{line}");
}

const PYTHON: &str = "/usr/bin/python3.11";

#[test]
fn python() {
    check(PYTHON, "python3 job.py", "job.py", "");
    check(PYTHON, "python3 /srv/job.py --port 8000", "/srv/job.py", "--port 8000");
    check(PYTHON, "/srv/venv/bin/python -u job.py -c x", "job.py", "-c x");
    check(PYTHON, "python3 -W ignore -X dev job.py", "job.py", "");
    check(PYTHON, "python3 -Wignore -Xdev -OO job.py", "job.py", "");
    check(PYTHON, "python3 -uW ignore job.py", "job.py", "");
    check(PYTHON, "python3 --check-hash-based-pycs never job.py", "job.py", "");
    check(PYTHON, "python3 --check-hash-based-pycs=never job.py", "job.py", "");
    check(PYTHON, "python3 -m app.worker --queue a", ":app.worker", "--queue a");
    check(PYTHON, "python3 -um app.worker", ":app.worker", "");
    check(PYTHON, "python3 -mapp.worker", ":app.worker", "");
    check(PYTHON, "python3 -m", "", "");
    check(PYTHON, "python3 -c print(1) job.py", "", "");
    check(PYTHON, "python3 -Ic print(1)", "", "");
    check(PYTHON, "python3 -", "", "");
    check(PYTHON, "python3", "", "");
    check(PYTHON, "python3 -- -odd.py x", "-odd.py", "x");
    check(PYTHON, "python3 -i job.py", "job.py", "");
    check("/opt/pypy3.10", "pypy3 job.py", "job.py", "");
    check("/usr/bin/python3.11 (deleted)", "python3 job.py", "job.py", "");
    // Titles that a process gives itself.
    check(PYTHON, "gunicorn:", "", "");
    check("", "python3.12 job.py", "job.py", "");
}

#[test]
fn node_and_its_kin() {
    const NODE: &str = "/usr/bin/node";
    check(NODE, "node server.js", "server.js", "");
    check(NODE, "node --max-old-space-size=4096 --require ./a.js dist/server.js x", "dist/server.js", "x");
    check(NODE, "node -r ts-node/register server.ts", "server.ts", "");
    check(NODE, "node --import=tsx server.ts", "server.ts", "");
    check(NODE, "node --enable-source-maps --env-file .env server.js", "server.js", "");
    check(NODE, "node inspect server.js", "server.js", "");
    check(NODE, "node -e code", "", "");
    check(NODE, "node -pe code", "", "");
    check(NODE, "node --eval code", "", "");
    check(NODE, "node", "", "");
    check("/usr/bin/nodejs", "nodejs a.js", "a.js", "");
    check("/usr/bin/deno", "deno run -A --allow-net main.ts", "main.ts", "");
    check("/usr/bin/bun", "bun run dev", "", "");
    check("/usr/bin/bun", "bun run index.ts", "index.ts", "");
}

#[test]
fn ruby_php_perl() {
    check("/usr/bin/ruby3.1", "ruby -I lib -rbundler/setup bin/rails server", "bin/rails", "server");
    check("/usr/bin/ruby3.1", "ruby -W:no-deprecated -C /srv job.rb", "job.rb", "");
    check("/usr/bin/ruby3.1", "ruby -e puts job.rb", "", "");
    check("/usr/bin/php8.2", "php artisan queue:work --tries=3", "artisan", "queue:work --tries=3");
    check("/usr/bin/php8.2", "php -d memory_limit=1G -f job.php x", "job.php", "x");
    check("/usr/bin/php8.2", "php -dmemory_limit=1G job.php", "job.php", "");
    check("/usr/bin/php8.2", "php -S 0.0.0.0:80 -t public router.php", "router.php", "");
    check("/usr/bin/php8.2", "php -r code", "", "");
    check("/usr/sbin/php-fpm8.2", "php-fpm:", "", "");
    check("/usr/bin/perl", "perl -w -I lib job.pl x", "job.pl", "x");
    check("/usr/bin/perl", "perl -MDBI -lne print x", "", "");
    check("/usr/bin/perl5.36.0", "perl -we code", "", "");
}

#[test]
fn shells() {
    check("/usr/bin/bash", "bash ./run.sh a b", "./run.sh", "a b");
    check("/usr/bin/bash", "/bin/bash -e run.sh", "run.sh", "");
    check("/usr/bin/bash", "bash -eo pipefail run.sh", "run.sh", "");
    check("/usr/bin/bash", "bash +x -O extglob run.sh", "run.sh", "");
    check("/usr/bin/bash", "bash --norc --rcfile x run.sh", "run.sh", "");
    check("/usr/bin/bash", "bash -c run.sh", "", "");
    check("/usr/bin/bash", "bash -lc run.sh", "", "");
    check("/usr/bin/bash", "-bash", "", "");
    check("/usr/bin/dash", "sh -s x", "", "");
    check("/bin/busybox", "sh run.sh", "run.sh", "");
    check("/bin/busybox", "httpd -f", "", "");
}

#[test]
fn java_and_dotnet() {
    const JAVA: &str = "/usr/lib/jvm/java-17/bin/java";
    check(JAVA, "java -Xmx1g -Dx=y -jar app.jar --port 1", "app.jar", "--port 1");
    check(JAVA, "java -cp a.jar:b.jar com.example.Main x", ":com.example.Main", "x");
    check(JAVA, "java --class-path=a.jar @opts com.example.Main", ":com.example.Main", "");
    check(JAVA, "java --add-opens java.base/java.lang=ALL-UNNAMED -jar app.jar", "app.jar", "");
    check(JAVA, "java -m app/com.example.Main", ":app/com.example.Main", "");
    check(JAVA, "java --module=app", ":app", "");
    check(JAVA, "java Main.java", "Main.java", "");
    check(JAVA, "java -jar", "", "");
    check("/usr/bin/dotnet", "dotnet /srv/App.dll x", "/srv/App.dll", "x");
    check("/usr/bin/dotnet", "dotnet exec --depsfile a.json App.dll", "App.dll", "");
    check("/usr/bin/dotnet", "dotnet build", "", "");
}

#[test]
fn programs_that_interpret_nothing() {
    check("/usr/sbin/mysqld", "mysqld --port 3306", "", "");
    check("/usr/lib/postgresql/15/bin/postgres", "postgres: x", "", "");
    check("/usr/bin/shellcheck", "shellcheck run.sh", "", "");
    check("", "", "", "");
    assert_eq!(find(Some(PYTHON), &[]), None);
    assert_eq!(find(None, &[]), None);
}

#[test]
fn relative_paths() {
    let check = |path: &str, cwd: Option<&str>, expected: &str| assert_eq!(resolve(path, cwd), expected, "{path}");
    check("job.py", Some("/srv/app"), "/srv/app/job.py");
    check("././/job.py", Some("/srv/app/"), "/srv/app/job.py");
    check("../job.py", Some("/srv/app"), "/srv/app/../job.py");
    check("/job.py", Some("/srv/app"), "/job.py");
    check("job.py", None, "job.py");
    check("job.py", Some("/"), "job.py");
    check("job.py", Some("/srv/old (deleted)"), "job.py");
    check("job.py", Some("(unreachable)/srv"), "job.py");
}
