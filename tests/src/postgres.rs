//! A real PostgreSQL, made for one test and gone with it.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nix::unistd::{Group, User};

use crate::pace::patience;
use crate::program::{Program, command, command_as, output};
use crate::sandbox::{NETWORK, Sandbox, target_dir};

/// The port it listens on: the default one, free in every sandbox.
pub const PORT: u16 = 5432;

/// Where distributions put the server's programs.
const INSTALLED: [&str; 2] = ["/usr/lib/postgresql", "/usr/pgsql"];

/// How a cluster is made. Settings that tests differ in are arguments of the server's.
const INITDB: [&str; 5] = ["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C"];

/// Tells copies apart that are made at the same time.
static MADE: AtomicU32 = AtomicU32::new(0);

/// A running server.
pub struct Postgres {
    server: Program,
    bin: PathBuf,
    dir: PathBuf,
    user: String,
    group: String,
    port: u16,
}

impl Postgres {
    /// Makes a cluster and starts it; returns when it takes connections.
    pub fn start(sandbox: &Sandbox, max_connections: u32) -> Result<Self> {
        Self::start_at(sandbox, max_connections, PORT, "127.0.0.1,::1")
    }

    /// The same on another port, or on other addresses; clients of [`crate::sandbox::NETWORK`] are let in.
    pub fn start_at(sandbox: &Sandbox, max_connections: u32, port: u16, addresses: &str) -> Result<Self> {
        let bin = programs()?;
        let (user, group) = account()?;
        let dir = sandbox.path("postgres");
        fs::create_dir(&dir)?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))?;
        let uid = User::from_name(&user)?.context("the account is gone")?;
        chown(&dir, Some(uid.uid.as_raw()), Some(uid.gid.as_raw()))?;

        make_cluster(&bin, (&user, &group), &dir.join("data"))?;
        let rules = dir.join("data/pg_hba.conf");
        fs::write(&rules, format!("{}\nhost all all {NETWORK}.0/24 trust\n", fs::read_to_string(&rules)?))?;

        let mut server = command_as(&user, &group, bin.join("postgres"));
        server.arg("-D").arg(dir.join("data"));
        server.args(["-p", &port.to_string(), "-N", &max_connections.to_string(), "-k"]).arg(&dir);
        server.args(["-c", &format!("listen_addresses={addresses}")]);
        for setting in ["fsync=off", "autovacuum=off", "shared_buffers=16MB"] {
            server.args(["-c", setting]);
        }
        let server = Program::start("postgres", server)?;
        server.err_line("being ready", |line| line.contains("ready to accept connections"))?;
        Ok(Self { server, bin, dir, user, group, port })
    }

    /// The postmaster: the process that accepts.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// What one statement returns, one row a line, columns apart by tabs. Goes over the unix socket, so that it adds
    /// no TCP connection.
    pub fn psql(&self, statement: &str) -> Result<String> {
        let mut psql = command_as(&self.user, &self.group, self.bin.join("psql"));
        psql.env("PGCONNECT_TIMEOUT", "20").args(["-XAtqF", "\t", "-v", "ON_ERROR_STOP=1"]);
        psql.args(["-U", "postgres", "-d", "postgres", "-p", &self.port.to_string(), "-c", statement, "-h"])
            .arg(&self.dir);
        output(psql)
    }

    /// `pg_stat_activity`: the backend of each TCP client, by the client's address.
    pub fn activity(&self) -> Result<BTreeMap<SocketAddr, u32>> {
        let rows = self
            .psql("SELECT host(client_addr), client_port, pid FROM pg_stat_activity WHERE client_port > 0")
            .context("ask pg_stat_activity")?;
        rows.lines().map(activity_row).collect()
    }

    /// Ends the sessions of these client ports from the server's side; returns when every one is gone.
    pub fn terminate(&self, ports: &[u16]) -> Result<()> {
        let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
        // Materialized, or the planner may end sessions first and look at their ports after.
        let told = self.psql(&format!(
            "WITH chosen AS MATERIALIZED (SELECT pid FROM pg_stat_activity WHERE client_port IN ({})) \
             SELECT count(*) FILTER (WHERE pg_terminate_backend(pid, 20000)) FROM chosen",
            ports.join(", ")
        ))?;
        ensure!(told.trim() == ports.len().to_string(), "ended {} sessions of {}", told.trim(), ports.len());
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Immediate shutdown: backends end with the postmaster. If it hangs, the guard's SIGKILL follows.
        if self.server.signal(Signal::SIGQUIT).is_ok() {
            let _ = self.server.wait(patience().min(Duration::from_secs(10)));
        }
    }
}

/// A new cluster in `data`: a copy of the one that initdb made the first time, which takes longer than most tests.
fn make_cluster(bin: &Path, (user, group): (&str, &str), data: &Path) -> Result<()> {
    let mut version = command(bin.join("initdb"));
    version.arg("--version");
    let version: String = output(version)?.chars().filter(|letter| letter.is_ascii_alphanumeric()).collect();
    let templates = target_dir()?.join("tmp");
    let template = templates.join(format!("cluster-of-{user}-{version}{}", INITDB.concat()));
    if template.try_exists()? {
        return copy(&template, data);
    }
    let mut initdb = command_as(user, group, bin.join("initdb"));
    initdb.args(INITDB).arg("-D").arg(data);
    output(initdb)?;
    fs::create_dir_all(&templates)?;
    // Only the rename makes it count: a copy that was interrupted is not taken for one that is whole.
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    let unfinished = templates.join(format!("cluster-{}-{number}", std::process::id()));
    copy(data, &unfinished)?;
    if fs::rename(&unfinished, &template).is_err() {
        // Another suite, or another thread of this one, was first.
        fs::remove_dir_all(&unfinished)?;
    }
    Ok(())
}

/// Copies a directory with its owners.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut cp = command("cp");
    cp.args(["--archive", "--reflink=auto", "--no-target-directory"]).arg(from).arg(to);
    output(cp).map(drop)
}

fn activity_row(row: &str) -> Result<(SocketAddr, u32)> {
    let columns: Vec<&str> = row.split('\t').collect();
    let [address, port, pid] = columns[..] else { anyhow::bail!("unexpected row {row:?}") };
    let address: IpAddr = address.parse().with_context(|| format!("address in {row:?}"))?;
    Ok((SocketAddr::new(address.to_canonical(), port.parse()?), pid.parse()?))
}

/// The newest installed version's programs.
fn programs() -> Result<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for root in INSTALLED {
        for entry in fs::read_dir(root).into_iter().flatten() {
            let entry = entry?;
            let version = entry.file_name().to_string_lossy().parse().unwrap_or(0);
            if entry.path().join("bin/postgres").is_file() {
                found.push((version, entry.path().join("bin")));
            }
        }
    }
    found.sort();
    found.pop().map(|(_, bin)| bin).context("PostgreSQL's server is missing: `cargo xtask setup` installs it")
}

/// initdb refuses root: the package's own account, else nobody.
fn account() -> Result<(String, String)> {
    for name in ["postgres", "nobody"] {
        if let Some(user) = User::from_name(name)?
            && let Some(group) = Group::from_gid(user.gid)?
        {
            return Ok((user.name, group.name));
        }
    }
    anyhow::bail!("neither a `postgres` nor a `nobody` account to run PostgreSQL as")
}
