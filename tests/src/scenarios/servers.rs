//! Servers besides PostgreSQL, each on its default port in the sandbox and gone with the lab.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;

use anyhow::{Context, Result};
use nix::unistd::{Group, User};

use super::Lab;
use crate::program::{command, command_as, output, until};

/// Redis on 6379.
pub fn redis(lab: &mut Lab) -> Result<()> {
    let mut server = command("redis-server");
    server.args(["--port", "6379", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"]);
    server.arg(lab.sandbox.path(""));
    lab.start("redis-server", server, false)?;
    answers(6379)
}

/// MariaDB on 3306, with a user `lab` without a password.
pub fn mariadb(lab: &mut Lab) -> Result<()> {
    let dir = lab.sandbox.path("mariadb");
    fs::create_dir(&dir)?;
    let user = ["mysql", "nobody"].into_iter().find(|name| matches!(User::from_name(name), Ok(Some(_))));
    let user = User::from_name(user.context("no account to run MariaDB as")?)?.context("the account is gone")?;
    let group = Group::from_gid(user.gid)?.context("its group is gone")?.name;
    chown(&dir, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
    let data = dir.join("data");
    let mut install = command_as(&user.name, &group, "mariadb-install-db");
    install.arg(format!("--datadir={}", data.display()));
    install.args(["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]);
    output(install)?;
    let init = dir.join("init.sql");
    fs::write(&init, "CREATE USER lab@'127.0.0.1' IDENTIFIED BY '';\n")?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o644))?;
    let mut server = command_as(&user.name, &group, "mariadbd");
    server.args(["--no-defaults", "--bind-address=127.0.0.1", "--port=3306", "--skip-name-resolve"]);
    server.arg(format!("--datadir={}", data.display())).arg(format!("--socket={}", dir.join("s").display()));
    server.arg(format!("--init-file={}", init.display()));
    lab.start("mariadbd", server, false)?;
    answers(3306)
}

/// PgBouncer on 6432 in front of the PostgreSQL on 5432, in transaction mode with 5 connections to it.
pub fn pgbouncer(lab: &mut Lab) -> Result<()> {
    let dir = lab.sandbox.path("pgbouncer");
    fs::create_dir(&dir)?;
    let config = dir.join("pgbouncer.ini");
    fs::write(
        &config,
        "[databases]\npostgres = host=127.0.0.1 port=5432 user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
         listen_port = 6432\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 5\nmax_client_conn = 200\n\
         unix_socket_dir =\nserver_idle_timeout = 600\n",
    )?;
    let mut server = command_as("nobody", "nogroup", "pgbouncer");
    server.arg(&config);
    lab.start("pgbouncer", server, false)?;
    answers(6432)
}

/// What answers the MongoDB protocol on 27017; not a database.
pub fn mongo_responder(lab: &mut Lab) -> Result<()> {
    lab.python("mongo_responder.py", &["27017"]).map(drop)
}

/// gunicorn with so many workers, each a client of the PostgreSQL on 5432.
pub fn gunicorn(lab: &mut Lab, workers: u32) -> Result<()> {
    let python = crate::sandbox::venv_python()?;
    let mut master: Command = command(&python);
    master.args(["-m", "gunicorn", "--chdir"]).arg(super::lab::programs());
    master.args(["--workers", &workers.to_string(), "--bind", "127.0.0.1:8000", "wsgi:app"]);
    master.env("DATABASE_PORT", "5432").env("PYTHONDONTWRITEBYTECODE", "1");
    lab.start_master("gunicorn", &master)?;
    answers(8000)
}

/// PHP's own web server on 8000 with four workers and itself, each a client of the PostgreSQL on 5432 for each request, or for good;
/// and visitors that keep them busy. The visitors ask so often a second, all together.
pub fn php(lab: &mut Lab, keeps: bool, requests: u32) -> Result<()> {
    let mut server = command("php");
    server.args(["-S", "127.0.0.1:8000"]).arg(super::lab::programs().join("request.php"));
    server.env("PHP_CLI_SERVER_WORKERS", "4").env("DATABASE_PORT", "5432");
    server.env("PERSISTENT", if keeps { "1" } else { "0" });
    lab.start_master("php", &server)?;
    answers(8000)?;
    let each = f64::from(requests) / 4.0;
    lab.python("http_load.py", &["8000", "4", &each.to_string()]).map(drop)
}

/// supervisord, which keeps so many shards of one program, each with its own argument and started at its own time.
pub fn supervisor(lab: &mut Lab, shards: u32) -> Result<()> {
    let python = crate::sandbox::venv_python()?;
    let beside = |program: &str| python.with_file_name(program);
    let dir = lab.sandbox.path("supervisor");
    fs::create_dir(&dir)?;
    let config = dir.join("supervisord.conf");
    let (socket, program) = (dir.join("s"), super::lab::programs().join("route_builder.py"));
    let text = [
        "[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\n".to_owned(),
        format!("pidfile={}\n", dir.join("pid").display()),
        format!("[unix_http_server]\nfile={0}\n[supervisorctl]\nserverurl=unix://{0}\n", socket.display()),
        "[rpcinterface:supervisor]\n".to_owned(),
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n".to_owned(),
        format!("[program:shard]\nprocess_name=shard_%(process_num)d\nnumprocs={shards}\nautostart=false\n"),
        format!("command={} {} 5432 %(process_num)d\n", python.display(), program.display()),
    ];
    fs::write(&config, text.concat())?;
    let mut server = command(beside("supervisord"));
    server.arg("-c").arg(&config);
    lab.start_master("supervisord", &server)?;
    until("supervisord's socket", || {
        Ok(if socket.try_exists()? { Ok(()) } else { Err("it is not there".to_owned()) })
    })?;
    for shard in 0..shards {
        let mut start = command(beside("supervisorctl"));
        start.arg("-c").arg(&config).args(["start", &format!("shard:shard_{shard}")]);
        let said = output(start)?;
        anyhow::ensure!(said.contains("started"), "supervisorctl said {said:?}");
    }
    Ok(())
}

/// Waits until somebody listens there, as `ss` sees it: nothing is connected to.
fn answers(port: u16) -> Result<()> {
    until(&format!("a listener on port {port}"), || {
        let mut ss = command("ss");
        ss.args(["-Hltn", &format!("sport = :{port}")]);
        let rows = output(ss)?;
        Ok(if rows.trim().is_empty() { Err("nobody listens".to_owned()) } else { Ok(()) })
    })
}
