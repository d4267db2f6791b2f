//! Which TCP ports belong to which database.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Ports watched unless the configuration says otherwise, each database's registered or documented default.
pub const DEFAULT_PORTS: &[(u16, &str)] = &[
    (1433, "mssql"),
    (1521, "oracle"),
    (3306, "mysql"),
    (5432, "postgres"),
    (5984, "couchdb"),
    (6379, "redis"),
    (6432, "pgbouncer"),
    (7687, "neo4j"),
    (8086, "influxdb"),
    (8123, "clickhouse"),
    (9000, "clickhouse"),
    (9042, "cassandra"),
    (9200, "elasticsearch"),
    (9300, "elasticsearch"),
    (11211, "memcached"),
    (26257, "cockroachdb"),
    (26379, "redis"),
    (27017, "mongodb"),
    (27018, "mongodb"),
    (27019, "mongodb"),
    (33060, "mysql"),
    (50000, "db2"),
];

/// The watched ports and the database behind each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMap {
    ports: BTreeMap<u16, String>,
}

impl Default for PortMap {
    fn default() -> Self {
        Self { ports: DEFAULT_PORTS.iter().map(|(port, name)| (*port, (*name).to_owned())).collect() }
    }
}

impl PortMap {
    /// No port at all.
    #[must_use]
    pub fn none() -> Self {
        Self { ports: BTreeMap::new() }
    }

    /// Adds a port, or renames the database behind a known one.
    pub fn insert(&mut self, port: u16, database: String) {
        self.ports.insert(port, database);
    }

    /// The database behind `port`.
    #[must_use]
    pub fn database(&self, port: u16) -> Option<&str> {
        self.ports.get(&port).map(String::as_str)
    }

    /// Whether `port` is watched.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.ports.contains_key(&port)
    }

    /// Every watched port with its database, by port.
    pub fn iter(&self) -> impl Iterator<Item = (u16, &str)> {
        self.ports.iter().map(|(port, database)| (*port, database.as_str()))
    }
}
