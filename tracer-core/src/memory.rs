//! What one connection costs a database server in memory: a usual value with a range, each with its source. It says
//! nothing of caches that all connections share, nor of what a running query adds.

use crate::snapshot::MemoryEstimate;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Memory of one connection in bytes, and how sure that is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PerConnection {
    /// Usual, lowest and highest.
    pub bytes: MemoryEstimate,
    /// 0 to 1: what the sources have in common.
    pub confidence: f64,
}

const fn cost(min: u64, value: u64, max: u64, confidence: f64) -> PerConnection {
    PerConnection { bytes: MemoryEstimate { value, min, max }, confidence }
}

/// One process a connection. Least: below 2 MiB with huge pages ("Measuring the Memory Overhead of a Postgres
/// Connection", A. Freund, 2020). Usual: up to 10 MB when new ("`PostgreSQL` Connections Memory Usage", `PGConf.DE`
/// 2025), 5 to 10 MB by rule of thumb; taken from the lower end, because idle ones prevail. Most: half as much again as
/// the 10 MB, for catalogue caches that queries fill.
const POSTGRES: PerConnection = cost(3 * MIB / 2, 5 * MIB, 15 * MIB, 0.6);

/// One thread a connection ("How MySQL Uses Memory" in the reference manual): two buffers of `net_buffer_length` (16
/// KiB) and the touched part of `thread_stack` (1 MiB since 8.0.27, 256 KiB before, 292 KiB in `MariaDB`). Most: the whole
/// stack, and the session's sort, join, read and random-read buffers at their defaults, each once.
const MYSQL: PerConnection = cost(256 * KIB, MIB, 3 * MIB, 0.5);

/// One thread a connection with a stack of 1 MiB, of which some ten KiB are touched by an idle one; the manual's rule
/// for `maxIncomingConnections` counts 1 MiB. Most: as much again for what the allocator keeps for the thread.
const MONGODB: PerConnection = cost(64 * KIB, MIB, 2 * MIB, 0.5);

/// A structure and two buffers: an idle client held about 17 KB until Redis 7, of which 16 KiB were the reply buffer;
/// since then that shrinks to 1 KiB (redis/redis pull request 9822). Most: reply and query buffers of 16 KiB each and what
/// Linux keeps for the socket.
const REDIS: PerConnection = cost(2 * KIB, 20 * KIB, 64 * KIB, 0.7);

/// What one connection to `database` costs its server; `None` where no source tells. The names are those of
/// [`crate::ports::DEFAULT_PORTS`].
#[must_use]
pub fn per_connection(database: &str) -> Option<PerConnection> {
    match database {
        "postgres" => Some(POSTGRES),
        "mysql" | "mariadb" => Some(MYSQL),
        "mongodb" => Some(MONGODB),
        "redis" | "valkey" => Some(REDIS),
        _ => None,
    }
}

/// What `open` connections to `database` cost its server.
#[must_use]
pub fn held(database: &str, open: u32) -> Option<MemoryEstimate> {
    let each = per_connection(database)?.bytes;
    let times = |bytes: u64| bytes.saturating_mul(u64::from(open));
    Some(MemoryEstimate { value: times(each.value), min: times(each.min), max: times(each.max) })
}

/// Bytes as people say them.
#[must_use]
pub fn spoken(bytes: u64) -> String {
    match bytes {
        0..MIB => format!("{} KiB", bytes / KIB),
        MIB..10_737_418_240 => format!("{} MiB", bytes / MIB),
        _ => format!("{} GiB", bytes / (1 << 30)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::DEFAULT_PORTS;

    #[test]
    fn every_estimate_lies_in_its_range_and_scales() {
        for database in ["postgres", "mysql", "mariadb", "mongodb", "redis", "valkey"] {
            let each = per_connection(database).unwrap();
            assert!(0 < each.bytes.min && each.bytes.min <= each.bytes.value && each.bytes.value <= each.bytes.max);
            assert!((0.0..=1.0).contains(&each.confidence));
            let held = held(database, 96).unwrap();
            assert_eq!((held.min, held.max), (96 * each.bytes.min, 96 * each.bytes.max));
        }
        assert_eq!(held("postgres", 96).unwrap().value, 480 * MIB);
        assert_eq!(held("postgres", 0).unwrap().max, 0);
        assert_eq!(held("other", 5), None);
    }

    #[test]
    fn the_names_are_those_of_the_ports() {
        for database in ["postgres", "mysql", "mongodb", "redis"] {
            assert!(DEFAULT_PORTS.iter().any(|(_, name)| *name == database), "{database}");
        }
    }

    #[test]
    fn bytes_are_spoken_in_the_largest_unit() {
        assert_eq!([spoken(40 << 10), spoken(480 << 20), spoken(20 << 30)], ["40 KiB", "480 MiB", "20 GiB"]);
    }
}
