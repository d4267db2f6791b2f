//! Database servers by their program's file name: how one that listens on an unusual port is recognised.
//!
//! A server belongs here if what it listens on are database connections, but for the ports that [`Server::other_ports`]
//! names. Servers that are a script or a Java class have no program of their own and cannot be told by it.

use crate::identity::{file_name, undeleted};

/// Longest name of a process, `TASK_COMM_LEN` less its NUL.
const COMM_LEN: usize = 15;

/// A database server's program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its file name.
    pub program: &'static str,
    /// Which database, in the words of [`crate::ports::DEFAULT_PORTS`].
    pub database: &'static str,
    /// Default ports it listens on for something else: its peers, its own status pages.
    pub other_ports: &'static [u16],
    /// It listens for its peers this far above each port for clients.
    pub peers_above: Option<u16>,
}

const fn server(program: &'static str, database: &'static str, other_ports: &'static [u16]) -> Server {
    Server { program, database, other_ports, peers_above: None }
}

/// Redis and its kin: a cluster's members talk to each other on the port plus 10,000.
const fn redis(program: &'static str) -> Server {
    Server { program, database: "redis", other_ports: &[], peers_above: Some(10_000) }
}

/// Group replication and Galera.
const MYSQL_PEERS: &[u16] = &[4_444, 4_567, 4_568, 33_061];

/// Every known one.
pub const SERVERS: &[Server] = &[
    server("postgres", "postgres", &[]),
    server("postmaster", "postgres", &[]),
    server("edb-postgres", "postgres", &[]),
    server("pgbouncer", "pgbouncer", &[]),
    // pcp and the watchdog.
    server("pgpool", "pgpool", &[9_000, 9_898]),
    server("mysqld", "mysql", MYSQL_PEERS),
    server("mariadbd", "mysql", MYSQL_PEERS),
    server("mongod", "mongodb", &[]),
    server("mongos", "mongodb", &[]),
    redis("redis-server"),
    redis("redis-sentinel"),
    redis("valkey-server"),
    redis("valkey-sentinel"),
    redis("keydb-server"),
    // Debian's servers are links to these.
    redis("redis-check-rdb"),
    redis("valkey-check-rdb"),
    server("memcached", "memcached", &[]),
    // Its web pages.
    server("cockroach", "cockroachdb", &[8_080]),
    // Its peers, its figures, Keeper.
    server("clickhouse-server", "clickhouse", &[9_009, 9_010, 9_181, 9_234, 9_363]),
    server("clickhouse", "clickhouse", &[9_009, 9_010, 9_181, 9_234, 9_363]),
    server("sqlservr", "mssql", &[]),
    server("tnslsnr", "oracle", &[]),
    server("db2sysc", "db2", &[]),
    // Its backups.
    server("influxd", "influxdb", &[8_088]),
];

/// The server whose program has this path (`/proc/PID/exe`, perhaps with " (deleted)").
#[must_use]
pub fn by_exe(exe: &str) -> Option<&'static Server> {
    let name = file_name(undeleted(exe));
    SERVERS.iter().find(|server| server.program == name)
}

/// The server whose process has this name, for where the program's path may not be read. Any process can give itself
/// any name, and the kernel cuts it.
#[must_use]
pub fn by_comm(comm: &str) -> Option<&'static Server> {
    let is = |server: &&Server| comm == server.program.get(..COMM_LEN).unwrap_or(server.program);
    SERVERS.iter().find(is)
}

impl Server {
    /// Whether a port this server listens on is one for clients; `listens` tells what else it listens on.
    #[must_use]
    pub fn serves(&self, port: u16, listens: impl Fn(u16) -> bool) -> bool {
        let for_peers = self.peers_above.and_then(|above| port.checked_sub(above)).is_some_and(listens);
        !for_peers && !self.other_ports.contains(&port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_known_by_their_file_name() {
        let check = |exe: &str, expected: Option<&str>| {
            assert_eq!(by_exe(exe).map(|server| server.database), expected, "{exe}");
        };
        check("/usr/lib/postgresql/15/bin/postgres", Some("postgres"));
        check("/usr/sbin/mariadbd (deleted)", Some("mysql"));
        check("mongod", Some("mongodb"));
        check("/usr/bin/redis-check-rdb", Some("redis"));
        for other in ["/usr/lib/postgresql/15/bin/psql", "/opt/postgres/python3", "/usr/bin/postgres_exporter", "", "/"]
        {
            check(other, None);
        }
    }

    #[test]
    fn names_are_compared_as_the_kernel_cuts_them() {
        assert_eq!(by_comm("clickhouse-serv").map(|server| server.program), Some("clickhouse-server"));
        assert_eq!(by_comm("valkey-server").map(|server| server.database), Some("redis"));
        assert_eq!(by_comm("clickhouse-ser"), None);
        assert_eq!(by_comm("postgres: check"), None);
    }

    #[test]
    fn ports_for_peers_and_pages_are_no_databases() {
        let redis = by_comm("redis-server").unwrap();
        let listens = |port| [6_400, 16_400, 17_000].contains(&port);
        assert!(redis.serves(6_400, listens) && redis.serves(17_000, listens) && !redis.serves(16_400, listens));
        let mysql = by_comm("mysqld").unwrap();
        assert!(mysql.serves(3_307, |_| true) && !mysql.serves(4_567, |_| true));
    }
}
