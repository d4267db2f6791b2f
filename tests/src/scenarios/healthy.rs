//! The repaired twins of the incidents and everything that looks like them and is healthy: nothing may be found.

use anyhow::Result;

use super::lab::Lab;
use super::{Scenario, Stretched, servers};

/// How long each is listened to, in seconds: that many windows.
const LISTEN: u64 = 20;

macro_rules! healthy {
    ($name:literal, $story:literal, $settings:expr, $play:ident) => {
        Scenario { name: $name, story: $story, settings: $settings, play: $play, ..Scenario::PLAIN }
    };
}

const LIMITED: &[&str] = &["endpoint=[{match='127.0.0.1:5432', name='orders-db', limit=100}]"];

pub(super) const ALL: &[Scenario] = &[
    healthy!("global-client", "I1 repaired: one MongoClient for all requests", &[], global_client),
    healthy!("node-global-client", "I1 repaired: one MongoClient of Node's for all requests", &[], node_global_client),
    healthy!("php-persistent", "PHP's workers keep their connection from request to request", LIMITED, php_persistent),
    healthy!("closing-script", "I3 repaired: the loop closes its sessions", LIMITED, closing_script),
    healthy!("one-launcher", "I3 repaired: one process, a pool of 3 + 5", LIMITED, one_launcher),
    healthy!("shared-pool", "I5 repaired: one pool of 5 for all modules", &[], shared_pool),
    Scenario {
        name: "small-pools",
        story: "I2 repaired: three pools of 1, Redis, and 30 websockets",
        stretched: Stretched {
            made: &[("unused_connection", "the first pool waits half an hour for the other two to be made")],
            ..Stretched::PLAIN
        },
        play: small_pools,
        ..Scenario::PLAIN
    },
    healthy!("supervisor", "supervisord keeps four shards of one program, each a pool", LIMITED, supervisor),
    healthy!("gunicorn", "prefork workers of one master, each with a pool", LIMITED, gunicorn),
    healthy!("pgbouncer", "many clients of a PgBouncer, few connections behind it", LIMITED, pgbouncer),
    healthy!("warm-up", "a pool that fills as its threads begin to work", LIMITED, warm_up),
    healthy!("ramp", "traffic that grows, every connection in use", LIMITED, ramp),
    Scenario {
        name: "cron",
        story: "a batch now and then",
        settings: LIMITED,
        stretched: Stretched {
            made: &[("oversized_pool", "a batch of twelve minutes that uses its 12 connections one after the other")],
            ..Stretched::PLAIN
        },
        play: cron,
        ..Scenario::PLAIN
    },
    healthy!("mariadb", "clients of MariaDB that all work", &[], mariadb),
    healthy!("redis", "a Redis client with a pool and a subscription", &[], redis),
];

fn global_client(lab: &mut Lab) -> Result<()> {
    servers::mongo_responder(lab)?;
    lab.python("mongo_service.py", &["27017", "global", "15", "100000"])?;
    lab.listen_to(27017, 1, LISTEN)
}

fn node_global_client(lab: &mut Lab) -> Result<()> {
    servers::mongo_responder(lab)?;
    lab.node("mongo_service.js", &["27017", "global", "25", "100000"])?;
    lab.listen_to(27017, 2, LISTEN)
}

fn php_persistent(lab: &mut Lab) -> Result<()> {
    lab.postgres(50)?;
    servers::php(lab, true, 80)?;
    lab.listen_to(5432, 2, LISTEN)
}

fn supervisor(lab: &mut Lab) -> Result<()> {
    lab.postgres(100)?;
    servers::supervisor(lab, 4)?;
    lab.listen_to(5432, 12, LISTEN)
}

fn closing_script(lab: &mut Lab) -> Result<()> {
    lab.postgres(100)?;
    lab.python("session_per_loop.py", &["5432", "0.5", "100000", "close"])?;
    lab.listen_to(5432, 1, LISTEN)
}

fn one_launcher(lab: &mut Lab) -> Result<()> {
    lab.postgres(100)?;
    lab.python("route_builder.py", &["5432"])?;
    lab.listen_to(5432, 3, LISTEN)
}

fn shared_pool(lab: &mut Lab) -> Result<()> {
    lab.postgres(100)?;
    lab.node("sprawl.js", &["5432", "1", "5", "1000", "4"])?;
    lab.listen_to(5432, 5, LISTEN)
}

fn small_pools(lab: &mut Lab) -> Result<()> {
    lab.postgres(100)?;
    servers::redis(lab)?;
    lab.node("service.js", &["5432", "6379", "8080", "1", "1", "1"])?;
    lab.node("websockets.js", &["8080", "30"])?;
    lab.listen_to(5432, 3, LISTEN)
}

fn gunicorn(lab: &mut Lab) -> Result<()> {
    lab.postgres(100)?;
    servers::gunicorn(lab, 4)?;
    lab.listen_to(5432, 8, LISTEN)
}

fn pgbouncer(lab: &mut Lab) -> Result<()> {
    lab.postgres(100)?;
    servers::pgbouncer(lab)?;
    lab.python("pooled.py", &["6432", "8", "8", "8", "0.02", "0.02"])?;
    lab.listen_to(6432, 8, LISTEN)
}

fn warm_up(lab: &mut Lab) -> Result<()> {
    lab.postgres(100)?;
    lab.python("pooled.py", &["5432", "1", "10", "10", "0.2", "0.01", "1"])?;
    lab.listen_to(5432, 10, LISTEN)
}

fn ramp(lab: &mut Lab) -> Result<()> {
    lab.postgres(100)?;
    lab.python("pooled.py", &["5432", "1", "30", "30", "0.5", "0", "0.5"])?;
    lab.listen_to(5432, 30, LISTEN)
}

fn cron(lab: &mut Lab) -> Result<()> {
    lab.postgres(100)?;
    for _ in 0..4 {
        let pid = lab.python_unready("batch.py", &["5432", "12", "2"])?;
        lab.wait_for_end(pid)?;
        lab.listen(5)?;
    }
    lab.listen_to(5432, 48, 5)
}

fn mariadb(lab: &mut Lab) -> Result<()> {
    servers::mariadb(lab)?;
    lab.python("mysql_client.py", &["3306", "6"])?;
    lab.listen_to(3306, 6, LISTEN)
}

fn redis(lab: &mut Lab) -> Result<()> {
    servers::redis(lab)?;
    lab.python("redis_client.py", &["6379", "4"])?;
    lab.listen_to(6379, 5, LISTEN)
}
