//! The suite's own instruments, without socklife: what clients do is what `ss` and PostgreSQL show.

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use socklife_tests::client::Client;
use socklife_tests::flood::Flood;
use socklife_tests::pace::load;
use socklife_tests::postgres::Postgres;
use socklife_tests::program::until;
use socklife_tests::sandbox::Sandbox;
use socklife_tests::truth::{Table, difference, ss};

/// Sockets of a role in a state.
fn count(table: &Table, role: &str, state: &str) -> usize {
    table.values().filter(|row| row.role == role && row.state == state).count()
}

/// Waits until `ss` shows this many established and this many half-closed clients, and nothing else.
fn settle(postgres: &Postgres, established: usize, close_wait: usize) -> Result<Table> {
    until(&format!("{established} established and {close_wait} half-closed clients"), || {
        let table = ss()?;
        let all = (2 * established + close_wait, established, established, close_wait, established);
        let now = (
            table.len(),
            count(&table, "client", "ESTABLISHED"),
            count(&table, "server", "ESTABLISHED"),
            count(&table, "client", "CLOSE_WAIT"),
            postgres.activity()?.len(),
        );
        Ok(if now == all { Ok(table) } else { Err(format!("{table:#?}")) })
    })
}

#[test]
fn clients_do_what_they_are_told() -> Result<()> {
    let sandbox = Sandbox::enter()?;
    let postgres = Postgres::start(&sandbox, 100)?;
    ensure!(ss()?.is_empty(), "a new network namespace has sockets: {:#?}", ss()?);

    let mut client = Client::start()?;
    let ports = client.open(8, "127.0.0.1")?;
    client.open(1, "::1")?;
    client.open(1, "::ffff:127.0.0.1")?;
    client.run("query 10")?;
    let table = settle(&postgres, 10, 0)?;
    let activity = postgres.activity()?;
    for ((local, _), row) in table.iter().filter(|(_, row)| row.role == "client") {
        ensure!(row.holders.keys().eq([&client.pid()]), "{local}: {row:?}");
        let server = table.iter().find(|((_, remote), row)| row.role == "server" && remote == local);
        let backend = activity.get(local);
        ensure!(
            server.is_some_and(|(_, row)| row.holders.keys().next() == backend),
            "{local}: {server:?}, {backend:?}"
        );
    }

    ensure!(client.ports("close 1")? == ports[..1], "closed another one");
    ensure!(client.ports("drop 1")? == ports[1..2], "dropped another one");
    ensure!(client.ports("abort 1")? == ports[2..3], "aborted another one");
    settle(&postgres, 7, 0)?;

    client.tell("reap 1")?;
    postgres.terminate(&ports[3..4])?;
    ensure!(client.answer()?["ports"] == serde_json::json!([ports[3]]), "closed another one");
    postgres.terminate(&ports[4..6])?;
    settle(&postgres, 4, 2)?;
    client.run("close 2")?;
    settle(&postgres, 4, 0)?;

    let child = client.fork()?;
    let table = settle(&postgres, 4, 0)?;
    let held = |row: &&socklife_tests::truth::Row| row.role == "client" && row.holders.contains_key(&child);
    ensure!(table.values().filter(held).count() == 4, "the child does not hold what it inherited: {table:#?}");
    client.kill()?;
    let table = settle(&postgres, 4, 0)?;
    ensure!(table.values().filter(held).all(|row| row.holders.len() == 1), "held by the dead: {table:#?}");
    client.release();
    let empty = settle(&postgres, 0, 0)?;
    ensure!(difference(&empty, &Table::new()).is_none(), "not empty: {empty:#?}");
    Ok(())
}

#[test]
fn exec_inherits_only_when_told_to() -> Result<()> {
    let sandbox = Sandbox::enter()?;
    let postgres = Postgres::start(&sandbox, 100)?;
    let (mut closing, mut keeping) = (Client::start()?, Client::start()?);
    closing.open(2, "127.0.0.1")?;
    keeping.open(2, "127.0.0.1")?;
    settle(&postgres, 4, 0)?;
    closing.run("exec")?;
    settle(&postgres, 2, 0)?;
    let answer = keeping.run("exec-inherit")?;
    ensure!(answer["pid"] == keeping.pid(), "exec changed the pid: {answer}");
    settle(&postgres, 2, 0)?;
    keeping.signal(Signal::SIGTERM)?;
    settle(&postgres, 0, 0).map(drop)
}

#[test]
fn the_flood_opens_as_many_as_it_says() -> Result<()> {
    let _sandbox = Sandbox::enter()?;
    let accepted = || -> Result<u64> {
        let counters = std::fs::read_to_string("/proc/thread-self/net/snmp")?;
        let rows: Vec<Vec<&str>> = counters.lines().map(|line| line.split(' ').collect()).collect();
        let (names, values) = (rows.iter().filter(|row| row[0] == "Tcp:"), rows.iter().filter(|row| row[0] == "Tcp:"));
        let opens = names.take(1).zip(values.skip(1)).find_map(|(names, values)| {
            names.iter().position(|name| *name == "PassiveOpens").and_then(|at| values[at].parse().ok())
        });
        opens.ok_or_else(|| anyhow::anyhow!("no PassiveOpens in {counters}"))
    };
    let before = accepted()?;
    let all = load(3_000);
    let opened = Flood::start(all)?.finish()?;
    ensure!(opened == all && accepted()? - before == all, "opened {opened}, accepted {}", accepted()? - before);
    let stopped = Flood::start(1_000_000)?;
    stopped.stop();
    ensure!(stopped.finish()? < 1_000_000, "it cannot be stopped");
    Ok(())
}
