//! Copies of one launcher: which processes of a group somebody started side by side, and which are workers of a master
//! or instances by plan. Knows identities and what each holds; judges nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use super::survey::Held;
use super::{plural, spoken};
use crate::event::ProcessId;
use crate::identity::{Ancestor, Identity};
use crate::process::Process;
use crate::time::BootNs;

/// A connection that said nothing for this long is idle.
const IDLE: Duration = Duration::from_secs(60);

/// Programs that keep workers, or run a set of jobs as they were told: what they start is there by plan. As their
/// process' name begins. Masters that run the same program as their workers need no entry.
#[rustfmt::skip]
const MANAGERS: &[&str] = &[
    "gunicorn", "uwsgi", "php-fpm", "unicorn", "puma", "passenger", "Passenger", "PassengerAgent", "PM2", "pm2", "apache2", "httpd",
    "unitd", "mod_wsgi", "supervisord", "circusd", "runsv", "runsvdir", "s6-supervise", "foreman", "honcho", "hivemind", "overmind",
    "goreman", "god", "celery", "airflow", "dramatiq", "rqworker", "sidekiq", "resque", "jupyter", "jupyterhub", "xargs", "parallel",
    "make", "ninja", "slurmstepd", "torchrun", "mpirun", "orted", "raylet", "dask", "postgres", "postmaster",
];

/// Programs between a process and who had it started.
#[rustfmt::skip]
const SHELLS: &[&str] = &[
    "sh", "bash", "dash", "ash", "zsh", "ksh", "fish", "busybox", "su", "sudo", "doas", "env", "nice", "nohup",
    "timeout", "setsid", "tini", "dumb-init", "npm", "npx", "uv", "poetry", "pipenv",
];

/// Clients that people sit in front of.
#[rustfmt::skip]
const INTERACTIVE: &[&str] = &[
    "psql", "pgcli", "mysql", "mariadb", "mycli", "mongosh", "mongo", "redis-cli", "valkey-cli", "sqlcmd", "sqlplus",
    "usql", "litecli", "cqlsh", "clickhouse-client", "dbeaver", "pgadmin4",
];

/// One copy: a process of its own, or a master with its workers.
#[derive(Clone, Copy)]
pub(super) struct Copy<'a> {
    /// The master's, where there are workers.
    pub pid: u32,
    /// When it was started: the first of the workers, where the master holds nothing.
    pub started: BootNs,
    /// Who it is; the first worker, where the master holds nothing.
    pub identity: &'a Identity,
    /// Who started that one, nearest first.
    above: &'a [Ancestor],
    /// Connections it holds.
    pub open: u32,
    /// Most it ever held, as far as was seen.
    pub most: u32,
    /// Connections that have been idle for a while.
    pub idle: usize,
    /// The processes that hold them.
    processes: u32,
}

/// Which copies belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Job<'a> {
    /// There by plan: a manager of workers keeps it.
    Managed,
    /// Whatever was started in the same container and service.
    Of {
        /// Its container.
        container: Option<&'a str>,
        /// Its service; instances of a template are different ones. Nothing for scopes and for what `systemd-run` made
        /// up.
        unit: Option<&'a str>,
    },
}

/// A live process of a group and what it holds at one endpoint.
pub(super) type Member<'a> = (&'a Process, &'a Identity, usize, &'a [Held<'a>]);

/// The copies among the members of a group, in no particular order: workers are counted with their master.
pub(super) fn copies<'a>(now: BootNs, members: &[Member<'a>]) -> Vec<Copy<'a>> {
    let pids: BTreeMap<u32, ProcessId> = members.iter().map(|(process, ..)| (process.id.pid, process.id)).collect();
    let mut families = BTreeMap::<u32, Copy<'a>>::new();
    for (process, identity, endpoint, held) in members {
        let starters = process.starters();
        let above = starters.iter().rev().map(|ancestor| ancestor.pid).find(|pid| pids.contains_key(pid));
        let pid = process.master().or(above).unwrap_or(process.id.pid);
        let open = u32::try_from(held.len()).unwrap_or(u32::MAX);
        let idle = held.iter().filter(|held| now.since(held.idle_since()) >= IDLE).count();
        let most = process.accounts.get(endpoint).map_or(0, |account| account.open_peak).max(open);
        let started = process.id.start();
        let one = Copy { pid, started, identity, above: starters, open, most, idle, processes: 1 };
        families
            .entry(pid)
            .and_modify(|copy| {
                if (started, process.id.pid) < (copy.started, copy.identity.id.pid) {
                    (copy.started, copy.identity, copy.above) = (started, identity, starters);
                }
                copy.open = copy.open.saturating_add(open);
                copy.most = copy.most.saturating_add(most);
                copy.idle += idle;
                copy.processes += 1;
            })
            .or_insert(one);
    }
    families.into_values().collect()
}

impl<'a> Copy<'a> {
    /// Who started it, nearest first, without the master.
    fn starters(&self) -> impl Iterator<Item = &'a Ancestor> {
        let above = self.above.iter().position(|ancestor| ancestor.pid == self.pid).map_or(0, |at| at + 1);
        self.above.iter().skip(above)
    }

    /// What it belongs to.
    pub fn job(&self) -> Job<'a> {
        let starter = self.starters().find(|ancestor| !is_one_of(&ancestor.comm, SHELLS));
        if starter.is_some_and(|starter| is_one_of(&starter.comm, MANAGERS)) {
            return Job::Managed;
        }
        let by_plan = |unit: &&str| unit.ends_with(".service") && !unit.starts_with("run-");
        Job::Of {
            container: self.identity.container_id.as_deref(),
            unit: self.identity.systemd_unit.as_deref().filter(by_plan),
        }
    }

    /// Somebody sits in front of it.
    pub fn is_interactive(&self) -> bool {
        self.open == 1 && INTERACTIVE.contains(&self.identity.group.label.as_str())
    }

    /// One line: when, by whom, what it holds.
    pub fn described(&self, now: BootNs) -> String {
        let by = self.starters().next().map(|parent| format!(" by {} (pid {})", parent.comm, parent.pid));
        let workers = if self.processes > 1 { format!(", in {} processes", self.processes) } else { String::new() };
        format!(
            "pid {}, started {} ago{}: {}{workers}, {} idle, at most {}",
            self.pid,
            spoken(now.since(self.started)),
            by.unwrap_or_default(),
            plural(self.open, "connection"),
            self.idle,
            self.most
        )
    }
}

/// How many different moments they were started in: what follows another within `moment` belongs to it. They come by
/// start, oldest first.
pub(super) fn moments(copies: &[Copy<'_>], moment: Duration) -> usize {
    let mut began: Option<BootNs> = None;
    let mut moments = 0;
    for copy in copies {
        if began.is_none_or(|began| copy.started.since(began) > moment) {
            began = Some(copy.started);
            moments += 1;
        }
    }
    moments
}

/// Connections of all together.
pub(super) fn connections(copies: &[Copy<'_>]) -> u32 {
    copies.iter().fold(0, |sum, copy| sum.saturating_add(copy.open))
}

/// Whether a process' name is one of these, perhaps with a version or a title after it.
fn is_one_of(comm: &str, names: &[&str]) -> bool {
    let is = |name: &&str| comm.strip_prefix(name).is_some_and(|rest| !rest.starts_with(char::is_alphabetic));
    names.iter().any(is)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_go_on_with_a_version_or_a_title() {
        for comm in ["php-fpm8.2", "gunicorn", "gunicorn: maste", "PM2 v5.3.0: God", "jupyter-lab", "supervisord"] {
            assert!(is_one_of(comm, MANAGERS), "{comm}");
        }
        for comm in ["godot", "makeover", "systemd", "init", "cron", "tmux: server", "sshd", "python3", "node"] {
            assert!(!is_one_of(comm, MANAGERS), "{comm}");
        }
    }
}
