//! What the kernel and PostgreSQL say, and what a snapshot says, in one shape that can be compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::daemon::Daemon;
use crate::look::own_connections;
use crate::postgres::{PORT, Postgres};
use crate::program::{command, output, until};

/// Lines of each kind shown in a failure.
const SHOWN: usize = 20;

/// Both ends of a connection: local, remote.
pub type Ends = (SocketAddr, SocketAddr);

/// What is compared of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// `client` or `server`.
    pub role: String,
    /// TCP state in the kernel's spelling.
    pub state: String,
    /// The lowest descriptor of each process that has it open, by pid.
    pub holders: BTreeMap<u32, u32>,
}

/// Connections by their ends.
pub type Table = BTreeMap<Ends, Row>;

/// The sockets with an end on PostgreSQL's port, as `ss` shows them.
pub fn ss() -> Result<Table> {
    let mut ss = command("ss");
    ss.args(["-tnpoH"]);
    parse_ss(&output(ss)?)
}

fn parse_ss(text: &str) -> Result<Table> {
    let mut table = Table::new();
    for line in text.lines() {
        // What is left of a socket after its end, kept for stray segments: no socket any more, whatever its state says.
        if line.contains("timer:(timewait,") {
            continue;
        }
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [state, _, _, local, remote, ..] = columns[..] else { bail!("unexpected line of ss: {line:?}") };
        let ends = (address(local)?, address(remote)?);
        let Some(role) = role(ends) else { continue };
        let row = Row { role: role.to_owned(), state: state_name(state)?.to_owned(), holders: ss_holders(line)? };
        ensure!(table.insert(ends, row).is_none(), "ss shows {ends:?} twice");
    }
    Ok(table)
}

/// An address as socklife shows it: v4-mapped ones are IPv4.
fn address(text: &str) -> Result<SocketAddr> {
    let address: SocketAddr = text.parse().with_context(|| format!("not an address: {text:?}"))?;
    Ok(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

fn role((local, remote): Ends) -> Option<&'static str> {
    match (local.port() == PORT, remote.port() == PORT) {
        (false, true) => Some("client"),
        (true, false) => Some("server"),
        _ => None,
    }
}

/// `ss` has names of its own for the kernel's states.
fn state_name(ss: &str) -> Result<&'static str> {
    Ok(match ss {
        "ESTAB" => "ESTABLISHED",
        "SYN-SENT" => "SYN_SENT",
        "FIN-WAIT-1" => "FIN_WAIT1",
        "FIN-WAIT-2" => "FIN_WAIT2",
        "CLOSE-WAIT" => "CLOSE_WAIT",
        "LAST-ACK" => "LAST_ACK",
        "CLOSING" => "CLOSING",
        other => bail!("ss shows a state that it hides by default: {other:?}"),
    })
}

/// `users:(("name",pid=1,fd=3),("name",pid=2,fd=3))`.
fn ss_holders(line: &str) -> Result<BTreeMap<u32, u32>> {
    let mut holders = BTreeMap::new();
    for part in line.split(",pid=").skip(1) {
        let (pid, rest) = part.split_once(",fd=").with_context(|| format!("no descriptor in {line:?}"))?;
        let fd: u32 = rest.split(')').next().unwrap_or_default().parse()?;
        let lowest = holders.entry(pid.parse()?).or_insert(fd);
        *lowest = fd.min(*lowest);
    }
    Ok(holders)
}

/// The connections of a snapshot in this thread's network namespace: the host's other ones are not `ss`'s.
pub fn of_snapshot(snapshot: &Value) -> Result<Table> {
    let mut table = Table::new();
    for connection in own_connections(snapshot)? {
        let row = snapshot_row(connection).with_context(|| format!("connection {connection}"))?;
        ensure!(
            table.insert(row.0, row.1).is_none(),
            "the snapshot has two connections of the same ends: {connection}"
        );
    }
    Ok(table)
}

fn snapshot_row(connection: &Value) -> Result<(Ends, Row)> {
    let text = |key: &str| connection[key].as_str().with_context(|| format!("{key} is no text"));
    let mut holders = BTreeMap::new();
    for holder in connection["holders"].as_array().context("no holders")? {
        let number = |key: &str| holder[key].as_u64().and_then(|number| u32::try_from(number).ok());
        let pid = number("pid").context("holder without pid")?;
        ensure!(holders.insert(pid, number("fd").context("holder without fd")?).is_none(), "pid {pid} twice");
    }
    // Parsed as it stands: a v4-mapped address would differ from what `ss` shows, and should.
    let ends = (text("local")?.parse()?, text("remote")?.parse()?);
    Ok((ends, Row { role: text("role")?.to_owned(), state: text("state")?.to_owned(), holders }))
}

/// What differs, or nothing if nothing does.
pub fn difference(snapshot: &Table, ss: &Table) -> Option<String> {
    if snapshot == ss {
        return None;
    }
    let mut text = String::new();
    let all: BTreeSet<&Ends> = snapshot.keys().chain(ss.keys()).collect();
    let differing: Vec<_> = all.into_iter().filter(|ends| snapshot.get(ends) != ss.get(ends)).collect();
    for (local, remote) in differing.iter().take(SHOWN).copied() {
        let show = |table: &Table| table.get(&(*local, *remote)).map_or("nothing".to_owned(), show_row);
        let _ = writeln!(text, "  {local} -> {remote}: socklife {}; ss {}", show(snapshot), show(ss));
    }
    let _ = writeln!(text, "  {} differ; socklife has {}, ss has {}", differing.len(), snapshot.len(), ss.len());
    Some(text)
}

fn show_row(row: &Row) -> String {
    let holders: Vec<String> = row.holders.iter().map(|(pid, fd)| format!("{pid}/{fd}")).collect();
    format!("{} {} held by [{}]", row.role, row.state, holders.join(" "))
}

/// The backends in a table: the process behind each server side that has one, by the client's address.
fn backends(table: &Table) -> Result<BTreeMap<SocketAddr, u32>> {
    let mut backends = BTreeMap::new();
    for ((_, client), row) in table.iter().filter(|(_, row)| row.role == "server" && !row.holders.is_empty()) {
        let [pid] = row.holders.keys().copied().collect::<Vec<_>>()[..] else {
            bail!("{client} has several backends: {}", show_row(row));
        };
        backends.insert(*client, pid);
    }
    Ok(backends)
}

/// Waits until the daemon's snapshot equals what `ss` and pg_stat_activity say: pid for pid, port for port. The looks
/// at the three happen one after another, so the socket table must be the same before and after.
pub fn agree(daemon: &Daemon, postgres: &Postgres) -> Result<Value> {
    agree_with("the daemon's snapshot", || daemon.snapshot(), postgres)
        .with_context(|| format!("the daemon's log:\n{}", daemon.log()))
}

/// The same for any source of snapshots.
pub fn agree_with(source: &str, mut snapshot: impl FnMut() -> Result<Value>, postgres: &Postgres) -> Result<Value> {
    until(&format!("{source} equals ss and pg_stat_activity"), || {
        let before = ss()?;
        let seen = snapshot()?;
        let activity = postgres.activity()?;
        if ss()? != before {
            return Ok(Err("the socket table does not come to rest".to_owned()));
        }
        let table = of_snapshot(&seen)?;
        if let Some(difference) = difference(&table, &before) {
            return Ok(Err(difference));
        }
        Ok(same_backends(&table, &activity).map(|()| seen))
    })
}

fn same_backends(table: &Table, activity: &BTreeMap<SocketAddr, u32>) -> Result<(), String> {
    let backends = backends(table).map_err(|error| error.to_string())?;
    if backends != *activity {
        return Err(format!("backends: socklife {backends:?}, pg_stat_activity {activity:?}"));
    }
    let established = |(_, row): &(&Ends, &Row)| row.role == "client" && row.state == "ESTABLISHED";
    let clients: BTreeSet<SocketAddr> = table.iter().filter(established).map(|((local, _), _)| *local).collect();
    if !clients.iter().eq(activity.keys()) {
        return Err(format!("client addresses: socklife {clients:?}, pg_stat_activity {:?}", activity.keys()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SS: &str = concat!(
        "ESTAB 0 0 127.0.0.1:5432 127.0.0.1:40000 users:((\"postgres\",pid=12,fd=9),(\"postgres\",pid=12,fd=7))\n",
        "CLOSE-WAIT 1 0 [::ffff:127.0.0.1]:40001 [::ffff:127.0.0.1]:5432 users:((\"a,pid=\",pid=5,fd=3),(\"b\",pid=6,fd=3)) ",
        "timer:(keepalive,119min,0)\n",
        "FIN-WAIT-2 0 0 127.0.0.1:5432 127.0.0.1:40001 timer:(timewait,55sec,0)\n",
        "ESTAB 0 0 [::1]:40002 [::1]:80\n",
    );

    #[test]
    fn ss_lines_are_read_as_the_kernel_means_them() {
        let table = parse_ss(&SS.replace("a,pid=", "a b")).unwrap();
        assert_eq!(table.len(), 2, "{table:?}");
        let server = &table[&("127.0.0.1:5432".parse().unwrap(), "127.0.0.1:40000".parse().unwrap())];
        assert_eq!((server.role.as_str(), &server.holders), ("server", &BTreeMap::from([(12, 7)])));
        let client = &table[&("127.0.0.1:40001".parse().unwrap(), "127.0.0.1:5432".parse().unwrap())];
        assert_eq!(client.state, "CLOSE_WAIT");
        assert_eq!(client.holders, BTreeMap::from([(5, 3), (6, 3)]));
    }

    #[test]
    fn a_line_that_cannot_be_read_is_an_error_and_not_passed_over() {
        parse_ss(SS).unwrap_err();
        parse_ss("LISTEN 0 0 127.0.0.1:5432 127.0.0.1:1\n").unwrap_err();
        parse_ss("ESTAB 0 0\n").unwrap_err();
    }

    #[test]
    fn every_kind_of_difference_shows() {
        let ss = parse_ss(&SS.replace("a,pid=", "a b")).unwrap();
        assert_eq!(difference(&ss, &ss), None);
        let (ends, row) = ss.first_key_value().unwrap();
        let mut other = ss.clone();
        other.remove(ends);
        assert!(difference(&other, &ss).unwrap().contains("socklife nothing"));
        assert!(difference(&ss, &other).unwrap().contains("ss nothing"));
        other.insert(*ends, Row { holders: BTreeMap::from([(13, 7)]), ..row.clone() });
        assert!(difference(&other, &ss).unwrap().contains("13/7"));
    }
}
