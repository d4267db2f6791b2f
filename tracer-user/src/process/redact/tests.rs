use proptest::prelude::*;

use super::*;

mod corpus;

/// One argument by itself.
#[track_caller]
fn one(argument: &str, expected: &str) {
    assert_eq!(arguments(&[argument.to_owned()]), [expected]);
}

/// A command line, its words between `|`.
#[track_caller]
fn check(line: &str, expected: &str) {
    let list: Vec<String> = line.split('|').map(str::to_owned).collect();
    assert_eq!(arguments(&list).join("|"), expected);
}

#[test]
fn addresses() {
    one("postgres://user:secret@host/db", "postgres://user:***@host/db");
    one("postgres://user:secret@host:5432/db?sslmode=off", "postgres://user:***@host:5432/db?sslmode=off");
    one("redis://:secret@host", "redis://:***@host");
    one("mongodb+srv://u:p@h1,h2/db?authSource=admin", "mongodb+srv://u:***@h1,h2/db?authSource=admin");
    one("--url=mysql://root:pw@h", "--url=mysql://root:***@h");
    one("DATABASE_URL=postgres://u:p@h/d", "DATABASE_URL=postgres://u:***@h/d");
    one("amqp://u:p/w@h/v", "amqp://u:***@h/v");
    one("amqp://u:p@w@h/v", "amqp://u:***@h/v");
    one("amqp://u:p@w/x@h/v", "amqp://u:***@h/v");
    one("amqp://u:p?w@h/v", "amqp://u:***@h/v");
    one("amqp://u:p#w@h/v", "amqp://u:***@h/v");
    one("https://user@host/path", "https://user@host/path");
    one("https://0123456789abcdef0123@host/x.git", "https://***@host/x.git");
    one("https://host/path", "https://host/path");
    one("http://host:8080/path", "http://host:8080/path");
    one("http://host:8080/path?mail=a@b", "http://host:8080/path?mail=a@b");
    one("https://host/@scope/pkg", "https://host/@scope/pkg");
    one("jdbc:postgresql://h/db?user=u&password=p&ssl=on", "jdbc:postgresql://h/db?user=u&password=***&ssl=on");
    one("http://u:p@a,http://v:q@b", "http://u:***@b");
    one("see http://u:p@a and http://v:q@b", "see http://u:***@a and http://v:***@b");
    one("http://[::1]:8080/path?mail=a@b", "http://[::1]:8080/path?mail=a@b");
    one("amqp://u:1?w@h/v", "amqp://u:***@h/v");
    one("http://u:@host", "http://u:@host");
    one("://", "://");
}

#[test]
fn options() {
    check("app|--password|x|--port|1", "app|--password|***|--port|1");
    check("app|--password=x y|z", "app|--password=***|z");
    check("app|-password|x", "app|-password|***");
    check("app|--pass|-x-|y", "app|--pass|***|y");
    check("app|--password|--host|h", "app|--password|--host|h");
    check("app|--password", "app|--password");
    check("app|--db-password|x", "app|--db-password|***");
    check("app|--dbPassword=x", "app|--dbPassword=***");
    check("app|--api-key|x", "app|--api-key|***");
    check("app|--apiKey=x", "app|--apiKey=***");
    check("app|--token|x", "app|--token|***");
    check("app|--auth-token=x", "app|--auth-token=***");
    check("app|--client-secret|x", "app|--client-secret|***");
    check("app|--secret_key=x", "app|--secret_key=***");
    check("app|--private-key|x", "app|--private-key|***");
    check("app|--requirepass|x", "app|--requirepass|***");
    check("app|--pw=x", "app|--pw=***");
    check("app|-Dspring.datasource.password=x", "app|-Dspring.datasource.password=***");
    check("app|--password-file|/run/secret", "app|--password-file|/run/secret");
    check("app|--key-file=/etc/k.pem", "app|--key-file=/etc/k.pem");
    check("app|--no-password|-h|x", "app|--no-password|-h|x");
    check("app|--keyspace|x", "app|--keyspace|x");
    check("app|--keepalive=5", "app|--keepalive=5");
    check("app|--bypass=x|--compass|y", "app|--bypass=x|--compass|y");
    check("app|--authSource|admin", "app|--authSource|admin");
    check("app|--passive|x|--pattern|y", "app|--passive|x|--pattern|y");
    check("app|TOKENIZERS_PARALLELISM=false", "app|TOKENIZERS_PARALLELISM=false");
    check("app|--port|5432|--user|bob", "app|--port|5432|--user|bob");
}

#[test]
fn environment_and_pairs() {
    check("env|PGPASSWORD=a b;c|psql", "env|PGPASSWORD=***|psql");
    one("MYSQL_PWD=x", "MYSQL_PWD=***");
    one("DB_PASS=x", "DB_PASS=***");
    one("DBPASS=x", "DBPASS=***");
    one("AWS_SECRET_ACCESS_KEY=x", "AWS_SECRET_ACCESS_KEY=***");
    one("PGPASSFILE=/root/.pgpass", "PGPASSFILE=/root/.pgpass");
    one("PASSWORD=", "PASSWORD=");
    one("host=h password=x user=u", "host=h password=*** user=u");
    one("host=h password='a b' user=u", "host=h password=*** user=u");
    one(r"host=h password='a\'b' user=u", "host=h password=*** user=u");
    one("Server=h;Uid=sa;Pwd=x;Database=d", "Server=h;Uid=sa;Pwd=***;Database=d");
    one("Server=h;Password = x y;", "Server=h;Password = *** y;");
    one(r#"{"user":"u","password":"x y","n":1}"#, r#"{"user":"u","password":"***","n":1}"#);
    one(r#"{"token" : "x"}"#, r#"{"token" : "***"}"#);
    one("user[password]=x&a=b", "user[password]=***&a=b");
    one("https://h/?access_token=x&a=b", "https://h/?access_token=***&a=b");
    one("Authorization: Basic abc def", "Authorization: ***");
    one("X-Api-Key: x", "X-Api-Key: ***");
    one("use Bearer abcdef now", "use Bearer *** now");
    one("größe=1;password=é;x", "größe=1;password=***;x");
}

#[test]
fn single_programs() {
    check("mysql|-uroot|-psecret|db", "mysql|-uroot|-p***|db");
    check("/usr/bin/mysqldump|-psecret", "/usr/bin/mysqldump|-p***");
    check("mysql|-p|db", "mysql|-p|db");
    check("mysql|--password=x|-P3306", "mysql|--password=***|-P3306");
    check("mariadb-dump|-psecret", "mariadb-dump|-p***");
    check("mongosh|-u|u|-p|secret", "mongosh|-u|u|-p|***");
    check("redis-cli|-a|secret|ping", "redis-cli|-a|***|ping");
    check("redis-cli|config|set|requirepass|secret", "redis-cli|config|set|requirepass|***");
    check("sshpass|-p|secret|ssh|h", "sshpass|-p|***|ssh|h");
    check("sudo|sqlcmd|-P|secret", "sudo|sqlcmd|-P|***");
    check("curl|-u|user:secret|http://h", "curl|-u|user:***|http://h");
    check("curl|-uuser:secret", "curl|-uuser:***");
    check("curl|--user=user:secret|--user-agent|x:y", "curl|--user=user:***|--user-agent|x:y");
    check("sqlplus|scott/tiger@db", "sqlplus|scott/***@db");
    check("sqlplus|scott/tiger", "sqlplus|scott/***");
    check("sqlplus|@/srv/run.sql", "sqlplus|@/srv/run.sql");
    check("ldapsearch|-w|secret|-x", "ldapsearch|-w|***|-x");
    check("openssl|-passin|pass:secret", "openssl|-passin|***");
    check("neo4j-admin|set-initial-password|secret", "neo4j-admin|set-initial-password|***");
    check("nc|-p|80", "nc|-p|80");
}

#[test]
fn commands_within_arguments() {
    check("sh|-c|mysql -uroot -psecret db", "sh|-c|mysql -uroot -p*** db");
    check("sh|-c|PGPASSWORD=secret psql -h h", "sh|-c|PGPASSWORD=***");
    check("sh|-c|PGPASSWORD='a b' psql -h h", "sh|-c|PGPASSWORD=***");
    check("sh|-c|app --password 'a b' --x", "sh|-c|app --password *** --x");
    check("sh|-c|bash -c \"mysql -psecret\"", "sh|-c|bash -c \"mysql -p***\"");
    check("sh|-c|  a   b  ", "sh|-c|  a   b  ");
    check("worker: app --token secret", "worker: app --token ***");
    check(
        "mysql|-e|CREATE USER x IDENTIFIED BY 'a''b'; SELECT 1",
        "mysql|-e|CREATE USER x IDENTIFIED BY '***'; SELECT 1",
    );
    check("sqlplus|-x|ALTER USER x IDENTIFIED BY tiger", "sqlplus|-x|ALTER USER x IDENTIFIED BY ***");
    check("psql|-c|ALTER ROLE x PASSWORD 'secret'", "psql|-c|ALTER ROLE x PASSWORD ***");
    check("psql|-c|SELECT password FROM t", "psql|-c|SELECT password *** t");
}

#[test]
fn tokens() {
    one("ghp_0123456789abcdefghij", "***");
    one("x,eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIx.c2ln,y", "x,***,y");
    one("--header=glpat-0123456789abcdef", "--header=***");
    one("AKIAIOSFODNN7EXAMPLE", "***");
    one("sk-short", "sk-short");
    one("route_builder_launcher.py", "route_builder_launcher.py");
}

#[test]
fn lines_are_quoted_and_bounded() {
    let line = |list: &[&str]| cmdline(&list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
    assert_eq!(line(&[]), "");
    assert_eq!(line(&["app", "", "a b", "it's", "it's so"]), r"app '' 'a b' it's 'it'\''s so'");
    let long = line(&["é".repeat(3_000).as_str(), "x"]);
    assert!(long.len() <= CMDLINE_MAX && long.ends_with("é…"));
    assert_eq!(line(&["a".repeat(CMDLINE_MAX).as_str()]).len(), CMDLINE_MAX);
    let many = vec!["word"; 100_000];
    assert!(line(&many).len() <= CMDLINE_MAX);
}

proptest! {
    #[test]
    fn as_many_words_come_out_as_went_in(list in proptest::collection::vec("[ -~é\n\u{0}]{0,40}", 0..12)) {
        prop_assert_eq!(arguments(&list).len(), list.len());
        prop_assert!(cmdline(&list).len() <= CMDLINE_MAX);
    }

    #[test]
    fn a_password_never_survives(secret in "[A-Z][A-Z0-9!#%/@:?+]{7,20}") {
        for list in [
            vec!["app".to_owned(), "--password".to_owned(), secret.clone()],
            vec![format!("--password={secret}")],
            vec![format!("postgres://u:{secret}@h/db")],
            vec![format!("host=h password={secret} user=u")],
            vec!["mysql".to_owned(), format!("-p{secret}")],
            vec!["sh".to_owned(), "-c".to_owned(), format!("PGPASSWORD={secret} psql -h h")],
        ] {
            let shown = cmdline(&list);
            prop_assert!(!shown.contains(&secret), "{} in {}", secret, shown);
        }
    }
}
